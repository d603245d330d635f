//! Rows of one row group as batches of documents, page by page.
//!
//! ```text
//! walk to the page ─▶ read ─▶ checksum ─▶ decompress ─▶ every row decodes? ─▶ batches of spans into the page
//! ```
//! What cannot be decoded is an error that knows its rows, a function of the bytes alone wherever reading began: the
//! rows of the page, or the rest of the row group where the chain of pages or the dictionary is broken. Called again,
//! the reader goes on behind them. After a failure of the system it tries the same page again.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;

use super::codec::Decompressor;
use super::decode::{DELTA_BYTE_ARRAY, Dictionary, Page};
use super::file::ShardFile;
use super::page::{Chunk, PageHeader, PageKind, PageLocation, PageWalk, Stop};
use crate::account::Refused;
use crate::error::{Error, Place, Result, said};
use crate::pool::{Pool, Pooled};
use crate::ragged::DocumentBatch;

/// Text a batch: small enough to be tokenized while it lies in a core's L2 cache, large enough that what a batch costs
/// on its way does not show (chosen on a Zen 4 server core with 1 MiB of L2; half or twice as much is as good).
const BATCH_BYTES: usize = 256 << 10;

/// Rows a batch, where texts are short or empty: bounds what their spans take.
const BATCH_ROWS: u64 = 8192;

/// Reads rows of one row group from front to back.
#[derive(Debug)]
pub struct RowGroupReader {
    path: PathBuf,
    row_group: usize,
    /// Whether no row can be null.
    required: bool,
    file: ShardFile,
    walk: PageWalk,
    decompressor: Decompressor,
    pool: Arc<Pool<u8>>,
    dictionary: Option<Arc<Dictionary>>,
    /// A page that is found and not yet read.
    location: Option<PageLocation>,
    page: Option<Page>,
    next_row: u64,
    end_row: u64,
    /// Rows of the row group.
    num_rows: u64,
    /// What follows the rows that were given out last, when it is not rows.
    next_broken: Option<Broken>,
    broken: Option<Broken>,
}

/// Rows that cannot be decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Those that were asked for.
    pub rows: Range<u64>,
    /// All that are lost with them, whoever asks: a page's, or the rest of the row group.
    pub part: Range<u64>,
    /// What is wrong with the bytes.
    pub reason: String,
}

/// Where a reader reads.
pub(super) struct Target {
    pub(super) path: PathBuf,
    pub(super) row_group: usize,
    pub(super) required: bool,
    pub(super) chunk: Chunk,
    pub(super) codec: parquet::basic::Compression,
    /// Where pages take their memory from.
    pub(super) pool: Arc<Pool<u8>>,
}

impl RowGroupReader {
    pub(super) fn new(target: Target, file: ShardFile, rows: Range<u64>) -> Self {
        let Target { path, row_group, required, chunk, codec, pool } = target;
        let end_row = rows.end.min(chunk.num_rows);
        let size = file.stamp().size_bytes;
        let end = chunk.offset.checked_add(chunk.compressed_bytes);
        let outside = end.is_none_or(|end| end > size).then(|| {
            let reason = format!(
                "the column's {} bytes at {} lie outside of the file's {size}",
                chunk.compressed_bytes, chunk.offset
            );
            Broken { rows: rows.start..end_row, part: 0..chunk.num_rows, reason }
        });
        if outside.is_none() {
            file.expect(chunk.bytes(size), &pool);
        }
        Self {
            path,
            row_group,
            required,
            file,
            walk: PageWalk::new(chunk),
            decompressor: Decompressor::new(codec),
            pool,
            dictionary: None,
            location: None,
            page: None,
            next_row: rows.start,
            end_row,
            num_rows: chunk.num_rows,
            next_broken: outside,
            broken: None,
        }
    }

    /// The next consecutive documents (about 256 KiB of text) and the row of the first; `None` behind the last row.
    ///
    /// # Errors
    /// Bytes that cannot be decoded (`broken` tells which rows are lost; the next call goes on behind them), a
    /// file that changed, memory that is refused, or a failure of the system (the next call tries the same again).
    pub fn next_batch(&mut self) -> Result<Option<(u64, DocumentBatch)>> {
        self.broken = None;
        let (first_row, mut batch) = (self.next_row, DocumentBatch::new());
        while self.next_broken.is_none() && self.next_row < self.end_row {
            match self.read(&mut batch) {
                Ok(()) => {}
                Err(Stop::Broken(reason)) => {
                    let part = self.walk.next_row().min(self.next_row)..self.num_rows;
                    self.next_broken = Some(Broken { rows: self.next_row..self.end_row, part, reason });
                }
                Err(Stop::Failed(error)) if batch.is_empty() => return Err(error),
                // The same failure comes again with the next call, or it was transient.
                Err(Stop::Failed(_)) => break,
            }
            if batch.num_bytes() >= BATCH_BYTES || batch.len() as u64 >= BATCH_ROWS {
                break;
            }
        }
        if !batch.is_empty() {
            return Ok(Some((first_row, batch)));
        }
        let Some(broken) = self.next_broken.take() else { return Ok(None) };
        let Broken { rows, reason, .. } = &broken;
        let place = Place::row(&self.path, self.row_group, rows.start);
        let reason = format!("{reason} (rows {} to {} are lost)", rows.start, rows.end - 1);
        self.next_row = rows.end;
        self.broken = Some(broken);
        Err(Error::Parquet { place, reason })
    }

    /// What the last call of `next_batch` could not decode, when that is why it failed.
    pub fn broken(&self) -> Option<&Broken> {
        self.broken.as_ref()
    }

    /// Where a row lies.
    pub(super) fn place(&self, row: u64) -> Place {
        Place::row(&self.path, self.row_group, row)
    }

    /// Adds rows of the page at hand, or gets hold of the next page.
    fn read(&mut self, batch: &mut DocumentBatch) -> std::result::Result<(), Stop> {
        let (path, row_group, next_row) = (&self.path, self.row_group, self.next_row);
        let place = || Place::row(path, row_group, next_row);
        if let Some(page) = &mut self.page {
            let before = batch.len();
            let max_rows = (self.end_row - self.next_row).min(BATCH_ROWS - before as u64);
            let mut written = Pooled::default();
            if page.writes_texts() {
                written = self.pool.take(0).map_err(|refused| refused.at(place()))?;
                let most = 2 * (BATCH_BYTES + page.num_bytes());
                written.cover(most).map_err(|refused| refused.at(place()))?;
            }
            page.read(max_rows, BATCH_BYTES, written, batch)?;
            self.next_row += (batch.len() - before) as u64;
            if page.rows_left() == 0 {
                self.page = None;
            }
            return Ok(());
        }
        let location = match self.location.take() {
            Some(location) => location,
            None => match self.walk.next(&self.file)? {
                Some(location) => location,
                None => return Err(Stop::Broken("the pages end early".into())),
            },
        };
        let is_dictionary = location.header.kind == PageKind::Dictionary;
        let page_end = location.first_row + location.header.num_values;
        if !is_dictionary && page_end <= self.next_row {
            return Ok(());
        }
        let (stored, room) = match self.stored(&location.header, location.offset) {
            Ok(stored) => stored,
            Err(error) => {
                self.location = Some(location);
                return Err(error.into());
            }
        };
        match self.decode(&location, &stored, room) {
            Ok(()) => {}
            Err(reason) if is_dictionary => return Err(Stop::Broken(reason)),
            Err(reason) => {
                let (rows, part) = (self.next_row..page_end.min(self.end_row), location.first_row..page_end);
                self.next_broken = Some(Broken { rows, part, reason });
            }
        }
        Ok(())
    }

    /// A page as it is stored, and room for it decompressed.
    fn stored(&self, header: &PageHeader, offset: u64) -> Result<(bytes::Bytes, Pooled<u8>)> {
        let memory = PageMemory::take(&self.pool, header, self.decompressor.is_compressed());
        let place = || Place::row(&self.path, self.row_group, self.next_row);
        let PageMemory { mut stored, room } = memory.map_err(|refused| refused.at(place()))?;
        self.file.read_into(&mut stored, offset, header.compressed_bytes)?;
        Ok((bytes::Bytes::from_owner(stored), room))
    }

    /// Makes a page or a dictionary of stored bytes. A panic in a codec is a page that cannot be decoded.
    fn decode(
        &mut self,
        location: &PageLocation,
        stored: &bytes::Bytes,
        room: Pooled<u8>,
    ) -> std::result::Result<(), String> {
        let skip = self.next_row.saturating_sub(location.first_row);
        let decoded = catch_unwind(AssertUnwindSafe(|| {
            let bytes = decompress(&self.decompressor, room, &location.header, stored)?;
            if location.header.kind == PageKind::Dictionary {
                self.dictionary = Some(Arc::new(Dictionary::decode(&location.header, bytes)?));
                return Ok(());
            }
            let mut page = Page::new(&location.header, bytes, self.required, self.dictionary.as_ref())?;
            // A page is good as a whole or not at all, whichever of its rows are asked for.
            page.clone().skip(page.rows_left())?;
            page.skip(skip)?;
            self.page = Some(page);
            Ok(())
        }));
        decoded.unwrap_or_else(|panic| {
            Err(format!("a page that a decoder panics on: {}", said(&*panic).unwrap_or("no message")))
        })
    }
}

/// Bytes of a text's span in a dictionary …
const SPAN_BYTES: usize = 16;

/// … and of a row's while a batch is made of it, and in the batch.
const ROW_BYTES: usize = 28;

/// Memory for one page, granted before anything of it is read.
pub(super) struct PageMemory {
    /// For the page as it is stored.
    pub(super) stored: Pooled<u8>,
    /// For the page decompressed, empty; nothing where pages are not compressed.
    pub(super) room: Pooled<u8>,
}

impl PageMemory {
    /// All that a page with this header takes, the spans of its texts included; or nothing, and what it would take, with
    /// what is made of its texts.
    pub(super) fn take(
        pool: &Arc<Pool<u8>>,
        header: &PageHeader,
        is_compressed: bool,
    ) -> std::result::Result<Self, Refused> {
        let taken = Self::take_all(pool, header, is_compressed);
        // Tokens: one for two bytes of text is much.
        taken.map_err(|refused| refused.followed_by(2 * header.uncompressed_bytes))
    }

    fn take_all(
        pool: &Arc<Pool<u8>>,
        header: &PageHeader,
        is_compressed: bool,
    ) -> std::result::Result<Self, Refused> {
        let spans = match header.kind {
            // Each text has its length in front of it.
            PageKind::Dictionary => {
                header.num_values.min(header.uncompressed_bytes as u64 / 4) as usize * SPAN_BYTES
            }
            _ => header.num_values.min(BATCH_ROWS) as usize * ROW_BYTES,
        };
        // Where a text shares its front with the one before, two of them are kept apart from the page.
        let texts = if header.encoding == DELTA_BYTE_ARRAY { 2 * header.uncompressed_bytes } else { 0 };
        let mut stored = pool.take(header.compressed_bytes)?;
        let mut room = Pooled::default();
        let mut beside = spans.saturating_add(texts);
        if is_compressed {
            let granted = pool.take(header.uncompressed_bytes).and_then(|mut granted| {
                granted.settle(std::mem::take(&mut beside))?;
                Ok(granted)
            });
            room = granted.map_err(|refused| refused.with(stored.charged()))?;
            room.clear();
        }
        stored.settle(beside)?;
        Ok(Self { stored, room })
    }
}

/// A page's bytes as its header declares them: checked where it has a checksum, levels first, then the values.
pub(super) fn decompress(
    decompressor: &Decompressor,
    mut bytes: Pooled<u8>,
    header: &PageHeader,
    stored: &bytes::Bytes,
) -> std::result::Result<bytes::Bytes, String> {
    if let Some(expected) = header.checksum {
        let found = crc32fast::hash(stored);
        if found != expected {
            return Err(format!("a page whose checksum is {found:08x} instead of {expected:08x}"));
        }
    }
    let is_plain = header.kind == PageKind::DataV2 && !header.is_compressed;
    if is_plain || !decompressor.is_compressed() {
        return Ok(stored.clone());
    }
    let num_levels = header.level_bytes.iter().sum::<usize>();
    bytes.extend_from_slice(&stored[..num_levels]);
    decompressor.decompress(&stored[num_levels..], header.uncompressed_bytes - num_levels, &mut bytes)?;
    Ok(bytes::Bytes::from_owner(bytes))
}
