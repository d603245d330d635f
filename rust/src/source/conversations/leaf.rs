//! One leaf of a nested column: its entries in order, each with its levels.
//!
//! ```text
//! messages.role   (0, hi) (1, hi) (0, empty list) (0, hi) (1, hi) (1, hi)      repetition level 0 begins a row
//! ```
//! Entries are decoded some at a time, into a block, and taken one by one. Pages are read, checked and decompressed as those
//! of texts are; what is different is that an entry is no row, so that nobody can tell which rows a page holds without
//! decoding those before it.

use std::sync::Arc;

use bytes::Bytes;

use crate::pool::Pool;
use crate::source::Decoded;
use crate::source::codec::Decompressor;
use crate::source::decode::{Dictionary, Span, Values};
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

/// Entries that are decoded at once.
const BLOCK: usize = 64;

#[derive(Debug)]
struct LeafPage {
    bytes: Bytes,
    /// Entries that are not decoded yet.
    entries_left: u64,
    repetition: Runs,
    definition: Runs,
    values: Values,
    /// Texts that lie nowhere in the page.
    written: Vec<u8>,
    block: Block,
}

/// Entries that are decoded.
#[derive(Debug)]
struct Block {
    /// The next entry …
    next: usize,
    /// … the end of those whose repetition level is known …
    begun: usize,
    /// … and of those that are known whole.
    end: usize,
    repetitions: [u32; BLOCK],
    definitions: [u32; BLOCK],
    /// Where those have a value whose definition level is the highest.
    spans: [Span; BLOCK],
    /// Why there is no more.
    broken: Option<String>,
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
        if let Some(page) = &self.page
            && page.block.next < page.block.begun
        {
            return Ok(Some(page.block.repetitions[page.block.next % BLOCK]));
        }
        self.ahead_of_block()
    }

    /// The same where the block is at its end.
    #[inline(never)]
    fn ahead_of_block(&mut self) -> Result<Option<u32>, Stop> {
        loop {
            if let Some(page) = &mut self.page {
                if let Some(reason) = &page.block.broken {
                    return Err(Stop::Broken(reason.clone()));
                }
                if page.entries_left > 0 {
                    page.decode_block(self.leaf.max_definition);
                    if page.block.begun > 0 {
                        return Ok(Some(page.block.repetitions[0]));
                    }
                    continue;
                }
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
        if page.block.next == page.block.end {
            return Err(Stop::Broken(page.block.broken.clone().unwrap_or_default()));
        }
        Ok(page.next(self.leaf.max_definition))
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
            let bytes = decompress(&self.decompressor, room, &location.header, &stored)?;
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
        let (written, block) = (Vec::new(), Block::new());
        Ok(Self { bytes, entries_left, repetition, definition, values, written, block })
    }

    /// Decodes the next entries, up to the first that is broken.
    #[inline(never)]
    fn decode_block(&mut self, max_definition: u32) {
        // Texts that are written lie in memory that is charged for one.
        let most = if matches!(self.values, Values::Prefixes { .. }) { 1 } else { BLOCK as u64 };
        let count = most.min(self.entries_left) as usize;
        self.entries_left -= count as u64;
        self.written.clear();
        let block = &mut self.block;
        let (begun, repetitions) = self.repetition.read(&mut block.repetitions[..count]);
        let (leveled, definitions) = self.definition.read(&mut block.definitions[..begun]);
        let mut result = definitions.and(repetitions);
        let mut end = leveled;
        if let Some(at) = block.definitions[..leveled].iter().position(|&level| level > max_definition) {
            let level = block.definitions[at];
            (end, result) = (at, Err(format!("a level of {level} where {max_definition} is the highest")));
        }
        let is_there = |&at: &usize| block.definitions[at] == max_definition;
        let num_values = (0..end).filter(is_there).count();
        let (found, values) =
            self.values.read(&self.bytes, &mut self.written, &mut block.spans[..num_values]);
        if let Err(reason) = values {
            end = (0..end).filter(is_there).nth(found).unwrap_or(end);
            result = Err(reason);
        }
        if found < end {
            // Each to its entry, from the last on.
            let mut value = found;
            for at in (0..end).rev().filter(is_there) {
                value -= 1;
                block.spans[at] = block.spans[value];
            }
        }
        (block.next, block.begun, block.end, block.broken) = (0, begun, end, result.err());
    }

    /// The next entry of the block, which has one.
    #[inline]
    fn next(&mut self, max_definition: u32) -> Entry<'_> {
        let at = self.block.next % BLOCK;
        self.block.next += 1;
        let definition = self.block.definitions[at];
        if definition < max_definition {
            return Entry { definition, value: None };
        }
        let (start, end) = self.block.spans[at];
        let value = match &self.values {
            Values::Plain { .. } | Values::Lengths { .. } => &self.bytes[start..end],
            Values::Dictionary { dictionary, .. } => dictionary.text((start, end)),
            Values::Prefixes { .. } => &self.written[start..end],
        };
        Entry { definition, value: Some(value) }
    }
}

impl Block {
    fn new() -> Self {
        Self {
            next: 0,
            begun: 0,
            end: 0,
            repetitions: [0; BLOCK],
            definitions: [0; BLOCK],
            spans: [(0, 0); BLOCK],
            broken: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAF: Leaf = Leaf { index: 0, max_repetition: 1, max_definition: 3 };

    /// Levels, and where one is 3 a text of PLAIN, over three blocks; of either kind of levels the last groups of eight may
    /// be missing.
    fn page(missing: [usize; 2]) -> (PageHeader, Vec<u8>) {
        let count = 2 * BLOCK + 8;
        let packed = |level: &dyn Fn(usize) -> u64, width: usize, missing: usize| {
            let groups = count / 8 - missing;
            let mut bytes = vec![(groups * 2 + 1) as u8];
            for group in 0..groups {
                let word = (0..8).fold(0, |word, index| word | level(group * 8 + index) << (index * width));
                bytes.extend_from_slice(&u64::to_le_bytes(word)[..width]);
            }
            [(bytes.len() as u32).to_le_bytes().to_vec(), bytes].concat()
        };
        let definition = |index: usize| if index % 5 == 2 { 1 } else { 3 };
        let mut bytes = [
            packed(&|index| u64::from(index % 7 != 0), 1, missing[0]),
            packed(&|index| definition(index), 2, missing[1]),
        ]
        .concat();
        for index in (0..count).filter(|&index| definition(index) == 3) {
            let text = "abcdefghij".repeat(index % 4);
            bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        let header = PageHeader {
            kind: PageKind::Data,
            compressed_bytes: bytes.len(),
            uncompressed_bytes: bytes.len(),
            checksum: None,
            num_values: count as u64,
            encoding: 0,
            level_encoding: 3,
            level_bytes: [0, 0],
            is_compressed: false,
        };
        (header, bytes)
    }

    type Found = (Vec<(u32, u32, Option<Vec<u8>>)>, Option<String>);

    /// By blocks: entries up to the first that is broken, and why it is.
    fn found(mut page: LeafPage) -> Found {
        let mut entries = Vec::new();
        loop {
            if page.block.next == page.block.end {
                if page.block.broken.is_some() || page.entries_left == 0 {
                    return (entries, page.block.broken);
                }
                page.decode_block(LEAF.max_definition);
                continue;
            }
            let repetition = page.block.repetitions[page.block.next];
            let entry = page.next(LEAF.max_definition);
            entries.push((repetition, entry.definition, entry.value.map(<[u8]>::to_vec)));
        }
    }

    /// The same one by one.
    fn expected(mut page: LeafPage) -> Found {
        let mut entries = Vec::new();
        let mut next = || -> Decoded<_> {
            let (repetition, definition) = (page.repetition.next()?, page.definition.next()?);
            let value = match definition == LEAF.max_definition {
                true => Some(page.values.next(&page.bytes, &mut Vec::new())?),
                false => None,
            };
            Ok((repetition, definition, value.map(|(start, end)| page.bytes[start..end].to_vec())))
        };
        for _ in 0..page.entries_left {
            match next() {
                Ok(entry) => entries.push(entry),
                Err(reason) => return (entries, Some(reason)),
            }
        }
        (entries, None)
    }

    #[test]
    fn blocks_give_the_entries_that_are_there_one_by_one() {
        let (header, bytes) = page([0, 0]);
        let made = |bytes: &[u8]| LeafPage::new(&LEAF, &header, bytes.to_vec().into(), None);
        let (entries, broken) = found(made(&bytes).unwrap());
        assert!(entries.len() == header.num_values as usize && broken.is_none());
        for length in 0..=bytes.len() {
            let (Ok(blocks), Ok(singly)) = (made(&bytes[..length]), made(&bytes[..length])) else { continue };
            assert_eq!(found(blocks), expected(singly), "{length} bytes");
        }
        for missing in [[1, 0], [0, 1], [5, 3], [3, 5], [16, 17]] {
            let (_, bytes) = page(missing);
            let (blocks, singly) = (found(made(&bytes).unwrap()), expected(made(&bytes).unwrap()));
            assert!(blocks.1.is_some());
            assert_eq!(blocks, singly, "{missing:?} groups are missing");
        }
    }
}
