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
use super::decode::{Dictionary, Page};
use super::file::ShardFile;
use super::page::{Chunk, PageHeader, PageKind, PageLocation, PageWalk, Stop};
use crate::error::{Error, Place, Result};
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
    /// Largest page that may be read, stored and decompressed bytes together.
    page_limit: u64,
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
            file.expect(chunk.bytes(size));
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
            page_limit: u64::MAX,
            next_row: rows.start,
            end_row,
            num_rows: chunk.num_rows,
            next_broken: outside,
            broken: None,
        }
    }

    /// Refuses pages that take more than `bytes`, stored and decompressed together, before reading them.
    pub fn with_page_limit(mut self, bytes: u64) -> Self {
        self.page_limit = bytes;
        self
    }

    /// The next consecutive documents (about 256 KiB of text) and the row of the first; `None` behind the last row.
    ///
    /// # Errors
    /// Bytes that cannot be decoded (`broken` tells which rows are lost; the next call goes on behind them), a
    /// file that changed, or a failure of the system.
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

    /// Adds rows of the page at hand, or gets hold of the next page.
    fn read(&mut self, batch: &mut DocumentBatch) -> std::result::Result<(), Stop> {
        if let Some(page) = &mut self.page {
            let before = batch.len();
            let max_rows = (self.end_row - self.next_row).min(BATCH_ROWS - before as u64);
            page.read(max_rows, BATCH_BYTES, batch)?;
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
        let stored = match self.stored(&location.header, location.offset) {
            Ok(stored) => stored,
            Err(error) => {
                self.location = Some(location);
                return Err(error.into());
            }
        };
        let room = match self.room(&location.header) {
            Ok(room) => room,
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

    /// A page as it is stored.
    fn stored(&self, header: &PageHeader, offset: u64) -> Result<bytes::Bytes> {
        let (bytes, limit) = ((header.compressed_bytes + header.uncompressed_bytes) as u64, self.page_limit);
        if bytes > limit {
            let place = Place::row(&self.path, self.row_group, self.next_row);
            let reason =
                format!("a page in {place} takes {bytes} bytes, {limit} are allowed; allow at least {bytes}");
            return Err(Error::Resource { what: "memory", reason });
        }
        let mut stored = self.pool.take();
        self.file.read_into(&mut stored, offset, header.compressed_bytes)?;
        Ok(bytes::Bytes::from_owner(stored))
    }

    /// Memory for a decompressed page. That there is none is no fault of the page's.
    fn room(&self, header: &PageHeader) -> Result<Pooled<u8>> {
        let mut room = self.pool.take();
        room.clear();
        if !self.decompressor.is_compressed() {
            return Ok(room);
        }
        room.try_reserve_exact(header.uncompressed_bytes).map_err(|source| {
            let place = Place::row(&self.path, self.row_group, self.next_row);
            let reason = format!("{} bytes for a page in {place}: {source}", header.uncompressed_bytes);
            Error::Resource { what: "memory", reason }
        })?;
        Ok(room)
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
            let bytes = decompress(&mut self.decompressor, room, &location.header, stored)?;
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
            self.decompressor = self.decompressor.renewed();
            let message = panic.downcast_ref::<String>().map(String::as_str);
            let message = message.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            Err(format!("a page that a decoder panics on: {message}"))
        })
    }
}

/// A page's bytes as its header declares them: checked where it has a checksum, levels first, then the values.
pub(super) fn decompress(
    decompressor: &mut Decompressor,
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
