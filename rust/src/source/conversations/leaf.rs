//! One leaf of a nested column: its entries in order, each with its levels.
//!
//! ```text
//! messages.role   (0, hi) (1, hi) (0, empty list) (0, hi) (1, hi) (1, hi)      repetition level 0 begins a row
//! ```
//! Pages are read, checked and decompressed as those of texts are; what is different is that an entry is no row, so
//! that nobody can tell which rows a page holds without decoding those before it.

use std::sync::Arc;

use bytes::Bytes;

use crate::pool::Pool;
use crate::source::Decoded;
use crate::source::codec::Decompressor;
use crate::source::decode::{Dictionary, Values};
use crate::source::file::ShardFile;
use crate::source::page::{Chunk, PageHeader, PageKind, PageWalk, Stop};
use crate::source::row_group::{PageMemory, decompress};
use crate::source::runs::Runs;

/// A leaf of a file's schema.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leaf {
    /// Its index among the file's leaves.
    pub(super) index: usize,
    /// The highest repetition level: how many lists it lies in.
    pub(super) max_repetition: u32,
    /// The highest definition level: that of a value which is there.
    pub(super) max_definition: u32,
}

/// An entry: its definition level, and its bytes where it has a value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    pub(super) definition: u32,
    pub(super) value: Option<&'a [u8]>,
}

/// Reads a leaf of one row group from front to back.
#[derive(Debug)]
pub(super) struct LeafReader {
    leaf: Leaf,
    file: Arc<ShardFile>,
    walk: PageWalk,
    decompressor: Decompressor,
    pool: Arc<Pool<u8>>,
    dictionary: Option<Arc<Dictionary>>,
    page: Option<LeafPage>,
}

#[derive(Debug)]
struct LeafPage {
    bytes: Bytes,
    entries_left: u64,
    repetition: Runs,
    definition: Runs,
    values: Values,
    /// Texts that lie nowhere in the page.
    written: Vec<u8>,
}

impl LeafReader {
    pub(super) fn new(
        leaf: Leaf,
        file: Arc<ShardFile>,
        chunk: Chunk,
        decompressor: Decompressor,
        pool: Arc<Pool<u8>>,
    ) -> Self {
        let walk = PageWalk::new(chunk);
        Self { leaf, file, walk, decompressor, pool, dictionary: None, page: None }
    }

    /// The repetition level of the next entry; `None` behind the last one.
    #[inline]
    pub(super) fn ahead(&mut self) -> Result<Option<u32>, Stop> {
        loop {
            if let Some(page) = &mut self.page
                && page.entries_left > 0
            {
                return Ok(Some(page.repetition.peek()?));
            }
            if !self.next_page()? {
                return Ok(None);
            }
        }
    }

    /// The next entry.
    #[inline]
    pub(super) fn next(&mut self) -> Result<Entry<'_>, Stop> {
        if self.ahead()?.is_none() {
            return Err(Stop::Broken("a column ends before the others".into()));
        }
        let Some(page) = &mut self.page else { return Err(Stop::Broken("no page".into())) };
        Ok(page.next(self.leaf.max_definition)?)
    }

    /// Gets hold of the next page with entries; whether there is one.
    #[inline(never)]
    fn next_page(&mut self) -> Result<bool, Stop> {
        self.page = None;
        while let Some(location) = self.walk.next(&self.file)? {
            let memory = PageMemory::take(&self.pool, &location.header, self.decompressor.is_compressed());
            let PageMemory { mut stored, room } = memory.map_err(|refused| refused.at(self.file.place()))?;
            self.file.read_into(&mut stored, location.offset, location.header.compressed_bytes)?;
            let stored = Bytes::from_owner(stored);
            let bytes = decompress(&mut self.decompressor, room, &location.header, &stored)?;
            if location.header.kind == PageKind::Dictionary {
                self.dictionary = Some(Arc::new(Dictionary::decode(&location.header, bytes)?));
                continue;
            }
            self.page = Some(LeafPage::new(&self.leaf, &location.header, bytes, self.dictionary.as_ref())?);
            return Ok(true);
        }
        Ok(false)
    }
}

impl LeafPage {
    fn new(
        leaf: &Leaf,
        header: &PageHeader,
        bytes: Bytes,
        dictionary: Option<&Arc<Dictionary>>,
    ) -> Decoded<Self> {
        let mut position = 0;
        let mut levels = |max: u32, stored: usize| -> Decoded<Runs> {
            let length = match (header.kind, max) {
                (PageKind::DataV2, _) => stored,
                (_, 0) => 0,
                _ => {
                    let length = bytes.get(position..).and_then(|bytes| bytes.first_chunk());
                    position += 4;
                    u32::from_le_bytes(*length.ok_or("the page ends within its levels")?) as usize
                }
            };
            let end = position.saturating_add(length);
            if end > bytes.len() {
                return Err(format!("{length} bytes of levels in a page of {}", bytes.len()));
            }
            let runs = match max {
                0 => Runs::repeated(0, header.num_values),
                _ => Runs::new(bytes.slice(position..end), u32::BITS - max.leading_zeros())?,
            };
            position = end;
            Ok(runs)
        };
        let [stored_repetition, stored_definition] = header.level_bytes;
        let repetition = levels(leaf.max_repetition, stored_repetition)?;
        let definition = levels(leaf.max_definition, stored_definition)?;
        let values = Values::new(header, &bytes, position, dictionary)?;
        let entries_left = header.num_values;
        Ok(Self { bytes, entries_left, repetition, definition, values, written: Vec::new() })
    }

    #[inline]
    fn next(&mut self, max_definition: u32) -> Decoded<Entry<'_>> {
        self.repetition.next()?;
        self.entries_left -= 1;
        let definition = self.definition.next()?;
        if definition > max_definition {
            return Err(format!("a level of {definition} where {max_definition} is the highest"));
        }
        if definition < max_definition {
            return Ok(Entry { definition, value: None });
        }
        self.written.clear();
        let (start, end) = self.values.next(&self.bytes, &mut self.written)?;
        let value = match &self.values {
            Values::Plain { .. } | Values::Lengths { .. } => &self.bytes[start..end],
            Values::Dictionary { dictionary, .. } => dictionary.text((start, end)),
            Values::Prefixes { .. } => &self.written[start..end],
        };
        Ok(Entry { definition, value: Some(value) })
    }
}
