//! A page's bytes → texts, as spans of the page: PLAIN, dictionary, DELTA_LENGTH and DELTA_BYTE_ARRAY.
//!
//! Only DELTA_BYTE_ARRAY, where a text shares its front with the one before, makes texts that lie nowhere in the page;
//! they are written into a buffer of their own.

use std::sync::Arc;

use bytes::Bytes;

use super::Decoded;
use super::delta::Deltas;
use super::page::{PageHeader, PageKind};
use super::runs::Runs;
use crate::pool::Pooled;
use crate::ragged::DocumentBatch;

const PLAIN: i64 = 0;
const PLAIN_DICTIONARY: i64 = 2;
const RLE: i64 = 3;
const BIT_PACKED: i64 = 4;
const DELTA_LENGTH_BYTE_ARRAY: i64 = 6;
pub(super) const DELTA_BYTE_ARRAY: i64 = 7;
const RLE_DICTIONARY: i64 = 8;

/// A text's place in the page, the dictionary or the buffer of texts that lie in neither.
pub(super) type Span = (usize, usize);

/// The texts that dictionary indices stand for.
#[derive(Debug)]
pub(super) struct Dictionary {
    bytes: Bytes,
    spans: Vec<Span>,
}

impl Dictionary {
    /// The dictionary of a decompressed dictionary page.
    pub(super) fn decode(header: &PageHeader, bytes: Bytes) -> Decoded<Self> {
        if !matches!(header.encoding, PLAIN | PLAIN_DICTIONARY) {
            return Err(format!("a dictionary page of encoding {}", header.encoding));
        }
        if header.num_values > bytes.len() as u64 / 4 {
            return Err(format!("a dictionary of {} texts in {} bytes", header.num_values, bytes.len()));
        }
        let mut position = 0;
        let mut spans = Vec::with_capacity(header.num_values as usize);
        for _ in 0..header.num_values {
            spans.push(plain(&bytes, &mut position)?);
        }
        Ok(Self { bytes, spans })
    }

    /// The text at a span that its indices gave.
    pub(super) fn text(&self, (start, end): Span) -> &[u8] {
        &self.bytes[start..end]
    }
}

/// A decompressed data page, read from front to back.
#[derive(Clone, Debug)]
pub(super) struct Page {
    bytes: Bytes,
    rows_left: u64,
    /// 1 where a row has a text, 0 where it is null.
    levels: Runs,
    values: Values,
}

/// The values of a data page, nulls left out.
#[derive(Clone, Debug)]
pub(super) enum Values {
    Plain { position: usize },
    Dictionary { indices: Runs, dictionary: Arc<Dictionary> },
    Lengths { lengths: Deltas, position: usize },
    Prefixes { prefixes: Deltas, suffixes: Deltas, position: usize, text: Vec<u8> },
}

/// A text's length in front of it.
#[inline]
fn plain(bytes: &[u8], position: &mut usize) -> Decoded<Span> {
    let length = bytes
        .get(*position..)
        .and_then(|bytes| bytes.first_chunk())
        .map(|length| u32::from_le_bytes(*length));
    let start = *position + 4;
    let end = start.saturating_add(length.ok_or("the page ends within a text's length")? as usize);
    if end > bytes.len() {
        return Err(format!("a text of {} bytes where {} are left", end - start, bytes.len() - start));
    }
    *position = end;
    Ok((start, end))
}

fn next_length(lengths: &mut Deltas) -> Decoded<usize> {
    let length = lengths.next()?;
    usize::try_from(length).map_err(|_| format!("a text of {length} bytes"))
}

fn take(bytes: &[u8], position: &mut usize, length: usize) -> Decoded<Span> {
    let (start, end) = (*position, position.saturating_add(length));
    if end > bytes.len() {
        return Err(format!("a text of {length} bytes where {} are left", bytes.len() - start));
    }
    *position = end;
    Ok((start, end))
}

/// Fills `out` with what `next` gives; how many there are before an error, and the error.
#[inline(always)]
fn fill(out: &mut [Span], mut next: impl FnMut() -> Decoded<Span>) -> (usize, Decoded<()>) {
    for (index, span) in out.iter_mut().enumerate() {
        match next() {
            Ok(found) => *span = found,
            Err(reason) => return (index, Err(reason)),
        }
    }
    (out.len(), Ok(()))
}

impl Values {
    pub(super) fn new(
        header: &PageHeader,
        bytes: &Bytes,
        position: usize,
        dictionary: Option<&Arc<Dictionary>>,
    ) -> Decoded<Self> {
        let rest = bytes.slice(position..);
        Ok(match header.encoding {
            PLAIN => Self::Plain { position },
            PLAIN_DICTIONARY | RLE_DICTIONARY => {
                let dictionary =
                    dictionary.ok_or("a page of dictionary indices without a dictionary")?.clone();
                // A page of nulls may lack the byte that says how wide an index is.
                let width = rest.first().map_or(0, |&width| u32::from(width));
                let indices = Runs::new(bytes.slice((position + 1).min(bytes.len())..), width)?;
                Self::Dictionary { indices, dictionary }
            }
            DELTA_LENGTH_BYTE_ARRAY => {
                let lengths = Deltas::new(rest, header.num_values)?;
                Self::Lengths { position: position + lengths.end()?, lengths }
            }
            DELTA_BYTE_ARRAY => {
                let prefixes = Deltas::new(rest.clone(), header.num_values)?;
                let middle = prefixes.end()?;
                let suffixes = Deltas::new(rest.slice(middle..), header.num_values)?;
                let position = position + middle + suffixes.end()?;
                Self::Prefixes { prefixes, suffixes, position, text: Vec::new() }
            }
            other => return Err(format!("texts of encoding {other}")),
        })
    }

    /// The next spans, as many as `out` takes, as `next` gives them; how many there are before an error, and the error.
    pub(super) fn read(
        &mut self,
        bytes: &[u8],
        written: &mut Vec<u8>,
        out: &mut [Span],
    ) -> (usize, Decoded<()>) {
        if let Self::Plain { position } = self {
            return fill(out, || plain(bytes, position));
        }
        fill(out, || self.next(bytes, written))
    }

    /// The next text's span, in the buffer that `Page::read` adds for this encoding.
    #[inline]
    pub(super) fn next(&mut self, bytes: &[u8], written: &mut Vec<u8>) -> Decoded<Span> {
        match self {
            Self::Plain { position } => plain(bytes, position),
            Self::Dictionary { indices, dictionary } => {
                let (index, length) = (indices.next()? as usize, dictionary.spans.len());
                dictionary
                    .spans
                    .get(index)
                    .copied()
                    .ok_or_else(|| format!("text {index} of a dictionary of {length}"))
            }
            Self::Lengths { lengths, position } => {
                let length = next_length(lengths)?;
                take(bytes, position, length)
            }
            Self::Prefixes { prefixes, suffixes, position, text } => {
                let (prefix, suffix) = (next_length(prefixes)?, next_length(suffixes)?);
                if prefix > text.len() {
                    return Err(format!("a text that shares {prefix} bytes with one of {}", text.len()));
                }
                let (start, end) = take(bytes, position, suffix)?;
                text.truncate(prefix);
                text.extend_from_slice(&bytes[start..end]);
                let start = written.len();
                written.extend_from_slice(text);
                Ok((start, written.len()))
            }
        }
    }
}

/// Definition levels of a page of version 1, and where the values begin.
fn levels(header: &PageHeader, bytes: &Bytes) -> Decoded<(Runs, usize)> {
    match header.level_encoding {
        RLE => {
            let length = bytes.first_chunk().map(|length| u32::from_le_bytes(*length) as usize);
            let end = 4_usize.saturating_add(length.ok_or("the page ends within its levels")?);
            if end > bytes.len() {
                return Err(format!("{} bytes of levels in a page of {}", end - 4, bytes.len()));
            }
            Ok((Runs::new(bytes.slice(4..end), 1)?, end))
        }
        BIT_PACKED => {
            // The deprecated encoding packs from the highest bit down: turned around, it is one packed run.
            let length = header.num_values.div_ceil(8) as usize;
            let packed = bytes.get(..length).ok_or("the page ends within its levels")?;
            let mut run = vec![];
            let mut groups = length as u64 * 2 + 1;
            while groups > 127 {
                run.push(groups as u8 | 128);
                groups >>= 7;
            }
            run.push(groups as u8);
            run.extend(packed.iter().map(|byte| byte.reverse_bits()));
            Ok((Runs::new(run.into(), 1)?, length))
        }
        other => Err(format!("levels of encoding {other}")),
    }
}

impl Page {
    /// A page from its decompressed bytes; a column that is `required` has no levels.
    pub(super) fn new(
        header: &PageHeader,
        bytes: Bytes,
        required: bool,
        dictionary: Option<&Arc<Dictionary>>,
    ) -> Decoded<Self> {
        let all = || Runs::repeated(1, header.num_values);
        let (levels, position) = match header.kind {
            PageKind::DataV2 => {
                let [repetition, definition] = header.level_bytes;
                let end = repetition + definition;
                let stored = || Runs::new(bytes.slice(repetition..end), 1);
                (if required { all() } else { stored()? }, end)
            }
            _ if required => (all(), 0),
            _ => levels(header, &bytes)?,
        };
        let values = Values::new(header, &bytes, position, dictionary)?;
        Ok(Self { bytes, rows_left: header.num_values, levels, values })
    }

    /// Bytes of the page.
    pub(super) fn num_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Whether its texts lie nowhere in it and `read` writes them.
    pub(super) fn writes_texts(&self) -> bool {
        matches!(self.values, Values::Prefixes { .. })
    }

    /// Rows that are not read yet.
    pub(super) fn rows_left(&self) -> u64 {
        self.rows_left
    }

    /// Passes over `count` rows.
    pub(super) fn skip(&mut self, count: u64) -> Decoded<()> {
        let mut written = Vec::new();
        for _ in 0..count.min(self.rows_left) {
            written.clear();
            self.next(&mut written)?;
        }
        Ok(())
    }

    fn next(&mut self, written: &mut Vec<u8>) -> Decoded<Span> {
        self.rows_left -= 1;
        match self.levels.next()? {
            0 => Ok((0, 0)),
            1 => self.values.next(&self.bytes, written),
            level => Err(format!("a level of {level} where 1 is the highest")),
        }
    }

    /// Adds up to `max_rows` rows to `batch`, nulls as empty texts, until it holds `enough_bytes`. Texts that lie nowhere
    /// in the page go to `written`. On an error nothing is added.
    pub(super) fn read(
        &mut self,
        max_rows: u64,
        enough_bytes: usize,
        mut written: Pooled<u8>,
        batch: &mut DocumentBatch,
    ) -> Decoded<()> {
        written.clear();
        let mut spans = Vec::new();
        let mut num_bytes = batch.num_bytes();
        for _ in 0..max_rows.min(self.rows_left) {
            let (start, end) = self.next(&mut written)?;
            spans.push((start, end));
            num_bytes += end - start;
            if num_bytes >= enough_bytes {
                break;
            }
        }
        let buffer = batch.add_buffer(match &self.values {
            Values::Plain { .. } | Values::Lengths { .. } => self.bytes.clone(),
            Values::Dictionary { dictionary, .. } => dictionary.bytes.clone(),
            Values::Prefixes { .. } => {
                written.settle(0).map_err(|_| "texts that are longer than their page".to_string())?;
                Bytes::from_owner(written)
            }
        });
        for (start, end) in spans {
            batch.push(buffer, start, end);
        }
        Ok(())
    }
}
