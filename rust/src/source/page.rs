//! Page headers, and the walk over the pages of one column chunk.
//!
//! ```text
//! chunk   [header][dictionary] [header][page: rows 0..40] [header][page: rows 40..75] ...
//! ```
//! A header says where the next one is, so a header that cannot be trusted ends the walk: what follows is lost. What a
//! header claims is held against the chunk and the row group before anybody allocates for it.

use std::ops::Range;

use super::Decoded;
use super::file::ShardFile;
use super::thrift::{Compact, Kind};

/// First read for a header, chosen to hold it with short statistics; a longer one is read again with four times more.
const HEADER_BYTES: usize = 1 << 10;

/// Longest header that is looked at: statistics of text may hold a value or two, a longer header is damage.
const MAX_HEADER_BYTES: usize = 16 << 20;

/// How far behind the end of a chunk the walk may look: the header of a dictionary, which some writers left out of the
/// chunk's size, is far shorter.
const BEYOND_BYTES: u64 = 1 << 10;

/// What a page holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PageKind {
    Data,
    DataV2,
    Dictionary,
    /// Read by nobody.
    Index,
}

/// A page header's fields, those of its kind among them.
#[derive(Clone, Debug)]
pub(super) struct PageHeader {
    pub(super) kind: PageKind,
    /// Bytes of the page behind the header, as stored …
    pub(super) compressed_bytes: usize,
    /// … and decompressed.
    pub(super) uncompressed_bytes: usize,
    pub(super) checksum: Option<u32>,
    /// Values of a dictionary; rows of a data page, nulls included.
    pub(super) num_values: u64,
    pub(super) encoding: i64,
    /// Encoding of the definition levels (`Data`).
    pub(super) level_encoding: i64,
    /// Bytes of repetition and definition levels, never compressed (`DataV2`).
    pub(super) level_bytes: [usize; 2],
    /// Whether the values are compressed (`DataV2`).
    pub(super) is_compressed: bool,
}

fn size(value: Option<i64>, what: &str) -> Decoded<usize> {
    let value = value.ok_or_else(|| format!("a page header without {what}"))?;
    let size = i32::try_from(value).ok().and_then(|value| usize::try_from(value).ok());
    size.ok_or_else(|| format!("a page header with {value} {what}"))
}

impl PageHeader {
    /// The header at the front of `bytes`, and how many bytes it takes.
    pub(super) fn parse(bytes: &[u8]) -> Decoded<(Self, usize)> {
        let mut input = Compact::new(bytes);
        let (mut fields, mut special) = ([None; 6], [None; 9]);
        let (mut last, mut found) = (0, 0);
        while let Some(kind) = input.field(&mut last)? {
            match (last, kind) {
                (1..=4, Kind::Integer) => fields[last as usize] = Some(input.integer()?),
                (5..=8, Kind::Struct) => {
                    found = last;
                    special = Self::special(&mut input)?;
                }
                _ => input.skip(kind)?,
            }
        }
        let kind = match (fields[1], found) {
            (Some(0), 5) => PageKind::Data,
            (Some(1), _) => PageKind::Index,
            (Some(2), 7) => PageKind::Dictionary,
            (Some(3), 8) => PageKind::DataV2,
            (kind, _) => return Err(format!("a page header of kind {kind:?} without its part")),
        };
        let index = kind == PageKind::Index;
        let num_values = if index { 0 } else { size(special[1], "values")? as u64 };
        let (encoding, level_encoding, level_bytes) = match kind {
            PageKind::DataV2 => {
                let lengths = [size(special[6], "bytes of levels")?, size(special[5], "bytes of levels")?];
                (special[4], Some(3), lengths)
            }
            _ => (special[2], special[3], [0, 0]),
        };
        let header = Self {
            kind,
            compressed_bytes: size(fields[3], "compressed bytes")?,
            uncompressed_bytes: size(fields[2], "uncompressed bytes")?,
            checksum: fields[4].map(|value| value as u32),
            num_values,
            encoding: encoding.unwrap_or(-1),
            level_encoding: level_encoding.unwrap_or(-1),
            level_bytes,
            is_compressed: special[7] != Some(0),
        };
        Ok((header, input.position()))
    }

    /// The numbered fields of the part that belongs to the kind; truth values are 0 or 1.
    fn special(input: &mut Compact<'_>) -> Decoded<[Option<i64>; 9]> {
        let (mut fields, mut last) = ([None; 9], 0);
        while let Some(kind) = input.field(&mut last)? {
            match (last, kind) {
                (1..=7, Kind::Integer) => fields[last as usize] = Some(input.integer()?),
                (1..=7, Kind::Bool(value)) => fields[last as usize] = Some(i64::from(value)),
                _ => input.skip(kind)?,
            }
        }
        Ok(fields)
    }
}

/// A page that the walk has found, not yet read.
#[derive(Clone, Debug)]
pub(super) struct PageLocation {
    pub(super) header: PageHeader,
    /// Where the page's bytes begin, behind the header.
    pub(super) offset: u64,
    /// The first row of a data page.
    pub(super) first_row: u64,
}

/// Where a column chunk lies and what its footer says of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunk {
    pub(super) offset: u64,
    pub(super) compressed_bytes: u64,
    pub(super) uncompressed_bytes: u64,
    pub(super) num_rows: u64,
    pub(super) is_compressed: bool,
}

/// The walk: pages in order, by their headers alone.
#[derive(Debug)]
pub(super) struct PageWalk {
    chunk: Chunk,
    /// The next header, counted from the chunk's start.
    position: u64,
    next_row: u64,
    seen_dictionary: bool,
}

/// What ends a walk early: the system, or the bytes.
pub(super) enum Stop {
    Failed(crate::Error),
    Broken(String),
}

impl From<String> for Stop {
    fn from(reason: String) -> Self {
        Self::Broken(reason)
    }
}

impl From<crate::Error> for Stop {
    fn from(error: crate::Error) -> Self {
        Self::Failed(error)
    }
}

impl Chunk {
    /// The bytes that a walk over it reads in a file of `size_bytes`.
    pub(super) fn bytes(&self, size_bytes: u64) -> Range<u64> {
        self.offset..(self.offset + self.compressed_bytes + BEYOND_BYTES).min(size_bytes)
    }
}

impl PageWalk {
    pub(super) fn new(chunk: Chunk) -> Self {
        Self { chunk, position: 0, next_row: 0, seen_dictionary: false }
    }

    /// Rows of the pages found so far.
    pub(super) fn next_row(&self) -> u64 {
        self.next_row
    }

    /// The next page, a dictionary or one with rows; `None` behind the last row.
    pub(super) fn next(&mut self, file: &ShardFile) -> std::result::Result<Option<PageLocation>, Stop> {
        while self.next_row < self.chunk.num_rows {
            let Some((header, header_bytes)) = self.header(file)? else {
                let (found, expected) = (self.next_row, self.chunk.num_rows);
                return Err(format!("the pages end after {found} of {expected} rows").into());
            };
            let start = self.position + header_bytes as u64;
            self.check(&header, start)?;
            let location =
                PageLocation { offset: self.chunk.offset + start, first_row: self.next_row, header };
            self.position = start + location.header.compressed_bytes as u64;
            match location.header.kind {
                PageKind::Index => {}
                PageKind::Dictionary => {
                    if self.seen_dictionary || self.next_row > 0 {
                        return Err("a dictionary page that is not the first page".to_string().into());
                    }
                    self.seen_dictionary = true;
                    // parquet-mr before 1.2.9 left this header out of the chunk's sizes (PARQUET-816).
                    let end = self.chunk.offset + self.chunk.compressed_bytes;
                    let slack = (header_bytes as u64).min(file.stamp().size_bytes.saturating_sub(end));
                    self.chunk.compressed_bytes += slack;
                    self.chunk.uncompressed_bytes += slack;
                    return Ok(Some(location));
                }
                PageKind::Data | PageKind::DataV2 => {
                    self.next_row += location.header.num_values;
                    if location.header.num_values > 0 {
                        return Ok(Some(location));
                    }
                }
            }
        }
        Ok(None)
    }

    fn header(&self, file: &ShardFile) -> std::result::Result<Option<(PageHeader, usize)>, Stop> {
        let left = self.chunk.compressed_bytes - self.position;
        if left == 0 {
            return Ok(None);
        }
        let mut length = HEADER_BYTES;
        loop {
            let available = left.min(length as u64) as usize;
            let bytes = file.read(self.chunk.offset + self.position, available)?;
            match PageHeader::parse(&bytes) {
                Ok(found) => return Ok(Some(found)),
                Err(_) if (available as u64) < left && length < MAX_HEADER_BYTES => length *= 4,
                Err(reason) => return Err(reason.into()),
            }
        }
    }

    fn check(&self, header: &PageHeader, start: u64) -> Decoded<()> {
        let (compressed, uncompressed) = (header.compressed_bytes as u64, header.uncompressed_bytes as u64);
        let left = self.chunk.compressed_bytes - start;
        if compressed > left {
            return Err(format!("a page of {compressed} bytes where {left} are left"));
        }
        let limit = self.chunk.uncompressed_bytes;
        if uncompressed > limit {
            return Err(format!("a page of {uncompressed} uncompressed bytes in a column of {limit}"));
        }
        if !self.chunk.is_compressed && compressed != uncompressed {
            return Err(format!("an uncompressed page of {uncompressed} bytes that takes {compressed}"));
        }
        let levels = header.level_bytes.iter().sum::<usize>() as u64;
        if levels > compressed.min(uncompressed) {
            return Err(format!("{levels} bytes of levels in a page of {compressed}"));
        }
        let (rows, expected) = (self.next_row.saturating_add(header.num_values), self.chunk.num_rows);
        if header.kind != PageKind::Dictionary && rows > expected {
            return Err(format!("a page up to row {rows} in a row group of {expected} rows"));
        }
        Ok(())
    }
}
