//! Values and offsets: many texts, or many token lists, in few allocations.
//!
//! ```text
//! DocumentBatch   buffers [page A........][page B....]     spans (A, 0, 11) (A, 11, 40) (B, 0, 9)
//! TokenBatch      values  [17 4 99 | 3 | 5 5 5 ...]        offsets 0 3 4 ...
//! ```
//! A `DocumentBatch` points into the decoder's own pages: text is never copied and not yet checked to be UTF-8.

use std::sync::Arc;

use bytes::Bytes;

use crate::account::{Account, Charge, Refused};
use crate::pool::{Pool, Pooled};

/// Set in a token whose target is not learned (padding; the other side of a conversation).
pub const NOT_LEARNED: u32 = 1 << 31;

/// Tokens that a batch may have room for and not hold, beside as many as it holds: a vector of a pool fits roughly.
const MOST_SPARE_TOKENS: usize = 1 << 10;

/// Consecutive documents as raw bytes (UTF-8 not checked), sharing the decoder's buffers.
#[derive(Clone, Debug, Default)]
pub struct DocumentBatch {
    buffers: Vec<Bytes>,
    spans: Vec<Span>,
    num_bytes: usize,
}

#[derive(Clone, Copy, Debug)]
struct Span {
    buffer: u32,
    start: u32,
    end: u32,
}

impl DocumentBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a buffer that later spans may refer to; returns its index.
    ///
    /// # Panics
    /// When the buffer is over 4 GiB (parquet pages are at most 2 GiB).
    pub fn add_buffer(&mut self, buffer: Bytes) -> u32 {
        assert!(u32::try_from(buffer.len()).is_ok(), "a buffer is at most 4 GiB");
        self.buffers.push(buffer);
        (self.buffers.len() - 1) as u32
    }

    /// Adds the document `buffers[buffer][start..end]`.
    ///
    /// # Panics
    /// When the range lies outside the buffer.
    pub fn push(&mut self, buffer: u32, start: usize, end: usize) {
        assert!(start <= end && end <= self.buffers[buffer as usize].len(), "a span lies inside its buffer");
        self.spans.push(Span { buffer, start: start as u32, end: end as u32 });
        self.num_bytes += end - start;
    }

    /// A batch of copied texts (tests, small inputs).
    pub fn from_texts<T: AsRef<[u8]>>(texts: impl IntoIterator<Item = T>) -> Self {
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for text in texts {
            bytes.extend_from_slice(text.as_ref());
            ends.push(bytes.len());
        }
        let mut batch = Self::new();
        let buffer = batch.add_buffer(Bytes::from(bytes));
        let mut start = 0;
        for end in ends {
            batch.push(buffer, start, end);
            start = end;
        }
        batch
    }

    /// Number of documents.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there are no documents.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Bytes of text in all documents.
    pub fn num_bytes(&self) -> usize {
        self.num_bytes
    }

    /// Bytes that say where documents lie.
    pub fn num_span_bytes(&self) -> usize {
        self.spans.len() * size_of::<Span>()
    }

    /// The bytes of document `index`.
    pub fn document(&self, index: usize) -> &[u8] {
        let span = self.spans[index];
        &self.buffers[span.buffer as usize][span.start as usize..span.end as usize]
    }

    /// All documents in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        (0..self.len()).map(|index| self.document(index))
    }

    /// Documents `range` of this batch, sharing its buffers.
    pub fn slice(&self, range: std::ops::Range<usize>) -> Self {
        self.select(range)
    }

    /// This batch with document `index` beginning at its byte `byte`; `None` where it is shorter, or `byte` lies inside
    /// of a character.
    #[must_use]
    pub fn begun_at(mut self, index: usize, byte: u64) -> Option<Self> {
        let text = self.document(index);
        let is_start = |at: usize| text.get(at).is_none_or(|&next| next & 0xc0 != 0x80);
        let byte = usize::try_from(byte).ok().filter(|&byte| byte <= text.len() && is_start(byte))?;
        self.spans[index].start += byte as u32;
        self.num_bytes -= byte;
        Some(self)
    }

    /// Documents `indices` of this batch, sharing its buffers.
    pub fn select(&self, indices: impl IntoIterator<Item = usize>) -> Self {
        let spans: Vec<Span> = indices.into_iter().map(|index| self.spans[index]).collect();
        let num_bytes = spans.iter().map(|span| (span.end - span.start) as usize).sum();
        Self { buffers: self.buffers.clone(), spans, num_bytes }
    }
}

/// Where tokenizing a document can begin anew: the ids from byte `byte` on are its tokens from `token` on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Border {
    /// Byte of the text.
    pub byte: u64,
    /// Index of the first token behind it.
    pub token: usize,
}

/// Token lists: list `i` is `values[offsets[i]..offsets[i + 1]]`; never with a BOS of ours.
#[derive(Clone, Debug)]
pub struct TokenBatch {
    values: Pooled<u32>,
    offsets: Vec<usize>,
    /// Of documents long enough to have any, by their index.
    borders: Vec<(usize, Vec<Border>)>,
}

impl PartialEq for TokenBatch {
    fn eq(&self, other: &Self) -> bool {
        *self.values == *other.values && self.offsets == other.offsets
    }
}

impl Eq for TokenBatch {}

impl Default for TokenBatch {
    fn default() -> Self {
        Self { values: Vec::new().into(), offsets: vec![0], borders: Vec::new() }
    }
}

impl TokenBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty batch whose values will lie in the memory of `values`.
    pub fn from_values(mut values: Vec<u32>) -> Self {
        values.clear();
        Self { values: values.into(), ..Self::default() }
    }

    /// An empty batch whose values lie in a vector of `pool` with room for `num_tokens`, and go back there; `charge` is
    /// charged for it already.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub(crate) fn pooled(pool: &Arc<Pool<u32>>, num_tokens: usize, charge: Charge) -> Result<Self, Refused> {
        let mut values = pool.take_charged(num_tokens, charge)?;
        values.clear();
        Ok(Self { values, ..Self::default() })
    }

    /// The account that it is charged to.
    pub fn account(&self) -> Option<&Arc<Account>> {
        self.values.account()
    }

    /// Charges room for `num_tokens` more, to be allocated as they come, and `beside` bytes.
    ///
    /// # Errors
    /// When the account has no room.
    pub fn cover(&mut self, num_tokens: usize, beside: usize) -> Result<(), Refused> {
        let length = self.values.len().saturating_add(num_tokens);
        self.values.cover(length.saturating_mul(size_of::<u32>()).saturating_add(beside))
    }

    /// Makes room for `num_tokens` more; where there is none, for `expected` at once.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn reserve(&mut self, num_tokens: usize, expected: usize) -> Result<(), Refused> {
        let length = self.values.len() + num_tokens;
        if length <= self.values.capacity() {
            return Ok(());
        }
        self.values.reserve(self.values.len() + expected.max(num_tokens))
    }

    /// Charges what it holds and `beside` bytes a document (that of where it ends among them), no more and no less. Where that
    /// would be much less, the memory that is not used is freed first; `is_kept` says that the batch stays for long.
    ///
    /// # Errors
    /// When the account has no room.
    pub fn settle(&mut self, beside: usize, is_kept: bool) -> Result<(), Refused> {
        let (length, capacity) = (self.values.len(), self.values.capacity());
        if capacity > if is_kept { length + length / 8 } else { 2 * length + MOST_SPARE_TOKENS } {
            self.values.shrink_to_fit();
        }
        self.values.settle(self.len() * beside)
    }

    /// A copy of document `index` alone, in the same account.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn copy_of(&self, index: usize) -> Result<Self, Refused> {
        let tokens = self.document(index);
        let mut values = self.values.sibling();
        values.reserve(tokens.len())?;
        values.extend_from_slice(tokens);
        Ok(Self { offsets: vec![0, tokens.len()], values, borders: Vec::new() })
    }

    /// Where an encoder appends the tokens of the document at hand; `end_document` closes it.
    pub fn values_mut(&mut self) -> &mut Vec<u32> {
        &mut self.values
    }

    /// Closes the document whose tokens were appended since the last call.
    pub fn end_document(&mut self) {
        self.offsets.push(self.values.len());
    }

    /// Closes a document whose tokens end at `end` of `values_mut`, for encoders that append several at once.
    ///
    /// # Panics
    /// When `end` lies before the last document's end or behind the values.
    pub fn end_document_at(&mut self, end: usize) {
        assert!(self.offsets.last().is_some_and(|&last| last <= end) && end <= self.values.len());
        self.offsets.push(end);
    }

    /// Takes back tokens of a document that was not closed.
    pub fn discard_unended(&mut self) {
        let end = self.offsets[self.len()];
        self.values.truncate(end);
    }

    /// Appends one document.
    pub fn push(&mut self, tokens: &[u32]) {
        self.values.extend_from_slice(tokens);
        self.end_document();
    }

    /// Notes the borders of the last document, in order.
    pub fn set_borders(&mut self, borders: Vec<Border>) {
        self.borders.push((self.len() - 1, borders));
    }

    /// The last border of document `index` at or before its token `token`; its beginning is always one.
    pub fn border(&self, index: usize, token: usize) -> Border {
        let Ok(at) = self.borders.binary_search_by_key(&index, |(document, _)| *document) else {
            return Border::default();
        };
        let borders = &self.borders[at].1;
        let behind = borders.partition_point(|border| border.token <= token);
        behind.checked_sub(1).map_or_else(Border::default, |last| borders[last])
    }

    /// Removes all documents and keeps the allocations.
    pub fn clear(&mut self) {
        self.values.clear();
        self.offsets.truncate(1);
        self.borders.clear();
    }

    /// Number of documents.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Whether there are no documents.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tokens in all documents.
    pub fn num_tokens(&self) -> usize {
        self.values.len()
    }

    /// The tokens of document `index`.
    pub fn document(&self, index: usize) -> &[u32] {
        &self.values[self.range(index)]
    }

    /// Where in `values` the tokens of document `index` lie.
    pub fn range(&self, index: usize) -> std::ops::Range<usize> {
        self.offsets[index]..self.offsets[index + 1]
    }

    /// The tokens of all documents.
    pub fn values(&self) -> &[u32] {
        &self.values
    }

    /// All documents in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u32]> {
        (0..self.len()).map(|index| self.document(index))
    }

    /// Where each document ends.
    pub fn ends(&self) -> &[usize] {
        &self.offsets[1..]
    }

    /// Values and offsets.
    pub fn into_parts(self) -> (Vec<u32>, Vec<usize>) {
        (self.values.into_inner(), self.offsets)
    }
}
