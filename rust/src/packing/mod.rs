//! Documents → rows of `T + 1` tokens. What comes out is a function of the documents' order alone.
//!
//! ```text
//! documents  [a a a] [b] [c c c c c]        rows (T + 1 = 5)
//! concat     BOS a a a BOS | BOS b BOS c c | c c c c ...      (a row begins with the last token of the one before)
//! best_fit   BOS c c c c   | BOS a a a BOS ...
//! ```
//! A packer is handed documents one by one and writes into a slot's memory. It never waits: when the next document
//! is not there yet it says `Pending` and is called again with the same slot, and goes on where it was.
//! `naive` says the same rules slowly, and the tests hold every packer to it.

mod best_fit;
mod buffer;
mod concat;
mod crop;
mod cut;
mod held;
pub mod naive;
mod one_per_row;
mod pad;

use std::sync::Arc;

pub use best_fit::Carry;
pub use concat::Concat;
pub use crop::Crop;
pub use cut::Cut;
pub use one_per_row::OnePerRow;
pub use pad::Pad;

use crate::error::Result;
pub use crate::ragged::NOT_LEARNED;
use crate::ragged::TokenBatch;
use crate::state::{Address, Ledger, PackerState};

/// One document's tokens, without BOS where the packer adds it.
#[derive(Clone, Debug)]
pub struct Document {
    /// Where it can be read again.
    pub address: Address,
    /// Changes from one row group (of one epoch) to the next; `crop` refills by chunks of one group.
    pub group: u64,
    /// Bytes of its text, for the ledger.
    pub num_bytes: u64,
    /// The batch that holds its tokens …
    pub tokens: Arc<TokenBatch>,
    /// … and its index there.
    pub index: usize,
}

impl Document {
    /// Its tokens.
    pub fn tokens(&self) -> &[u32] {
        self.tokens.document(self.index)
    }
}

/// What an input answers when asked for the next document.
#[derive(Debug)]
pub enum Next {
    /// The next document of the lane.
    Document(Document),
    /// It is not tokenized yet: give the thread back and come again.
    Pending,
    /// There are no more documents; whoever asks again hears it again.
    End,
}

/// What a packer made of its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// All rows are written.
    Full,
    /// The input said `Pending`; call again with the same slot.
    Pending,
    /// The input has ended and nothing is left for even one row; the slot was not touched.
    Dry,
}

/// A rule that turns documents into rows.
pub trait Packer: Send {
    /// Writes rows until the slot is full. After `End` the rows that are left are filled with padding.
    fn fill(&mut self, input: &mut dyn FnMut() -> Next, rows: &mut Rows<'_>) -> Progress;

    /// What it remembers, valid when the last `fill` returned `Full` (or before the first).
    fn state(&self) -> PackerState;

    /// Takes up `state` again: `documents` are those of `state.waiting`, read again, in the same order.
    /// Called once, before the first `fill`, with the ledger of that moment. A document that is to be continued
    /// from `byte_offset` comes with the tokens from there on. Refuses positions that no such packer leaves behind.
    fn restore(&mut self, state: &PackerState, documents: Vec<Document>, ledger: Ledger) -> Result<()>;

    /// Where every token went so far.
    fn ledger(&self) -> &Ledger;
}

/// Consecutive tokens of one document in one row: where they lie, and where they came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The row.
    pub row: usize,
    /// Column of its first position, which is the BOS where it has one.
    pub column: usize,
    /// Whether a BOS of the packer's stands in front.
    pub has_bos: bool,
    /// The document.
    pub address: Address,
    /// Which token of the document is the first (a BOS of the packer's is none).
    pub first_token: usize,
    /// Tokens of the document.
    pub num_tokens: usize,
}

/// The rows of one slot, written from left to right and top to bottom: `B` rows of `T + 1` tokens, int32.
#[derive(Debug)]
pub struct Rows<'a> {
    memory: &'a mut [i32],
    row_length: usize,
    cursor: Cursor,
    /// Where spans are noted, when somebody wants to know.
    spans: Option<&'a mut Vec<Span>>,
}

/// How far a slot is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Complete rows.
    pub row: usize,
    /// Tokens in the row at hand.
    pub column: usize,
    /// Longest complete row.
    pub width: usize,
}

impl<'a> Rows<'a> {
    /// Rows of `row_length` = T + 1 tokens over a slot's memory, continued at `cursor`.
    pub fn new(memory: &'a mut [i32], row_length: usize, cursor: Cursor) -> Self {
        debug_assert_eq!(memory.len() % row_length, 0);
        Self { memory, row_length, cursor, spans: None }
    }

    /// Notes in `spans` what every document contributes.
    pub fn noting(mut self, spans: Option<&'a mut Vec<Span>>) -> Self {
        self.spans = spans;
        self
    }

    /// Notes that `num_tokens` tokens of `document` from `first_token` on, behind a BOS or not, were pushed from `start` on.
    fn note(
        &mut self,
        start: Cursor,
        has_bos: bool,
        document: &Document,
        first_token: usize,
        num_tokens: usize,
    ) {
        if let Some(spans) = &mut self.spans {
            let (row, column, address) = (start.row, start.column, document.address);
            spans.push(Span { row, column, has_bos, address, first_token, num_tokens });
        }
    }

    /// How far they are written.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// T + 1.
    pub fn row_length(&self) -> usize {
        self.row_length
    }

    /// Whether every row is complete.
    pub fn is_full(&self) -> bool {
        self.cursor.row * self.row_length == self.memory.len()
    }

    /// Whether nothing is written yet.
    pub fn is_untouched(&self) -> bool {
        self.cursor.row == 0 && self.cursor.column == 0
    }

    /// Whether the row at hand is empty.
    pub fn is_row_start(&self) -> bool {
        self.cursor.column == 0
    }

    /// Columns of the slot that are delivered: T + 1, or with `end_row` the longest row's, at least 2. What lies behind
    /// them is of no meaning.
    pub fn width(&self) -> usize {
        self.cursor.width.max(2)
    }

    /// Number of rows.
    pub fn num_rows(&self) -> usize {
        self.memory.len() / self.row_length
    }

    /// Tokens that the row at hand still takes: T + 1 when it is empty.
    pub fn space(&self) -> usize {
        self.row_length - self.cursor.column
    }

    /// Appends tokens to the row at hand, and completes it when they fill it.
    ///
    /// # Panics
    /// When there are more tokens than `space()`.
    pub fn push(&mut self, tokens: &[u32]) {
        assert!(tokens.len() <= self.space(), "tokens never cross the end of a row");
        let start = self.cursor.row * self.row_length + self.cursor.column;
        for (to, &from) in self.memory[start..start + tokens.len()].iter_mut().zip(tokens) {
            *to = from as i32;
        }
        self.advance(tokens.len());
    }

    /// Completes the row at hand with padding; returns how many tokens of it.
    pub fn pad(&mut self, pad_id: u32) -> usize {
        let (start, space) = (self.cursor.row * self.row_length + self.cursor.column, self.space());
        self.memory[start..start + space].fill((pad_id | NOT_LEARNED) as i32);
        self.advance(space);
        space
    }

    /// Completes the row at hand where it is, for `fill_up`.
    pub fn end_row(&mut self) {
        self.cursor.width = self.cursor.width.max(self.cursor.column);
        self.cursor.column = 0;
        self.cursor.row += 1;
    }

    /// Pads complete rows that are `lengths` long up to the width of all.
    pub fn fill_up(&mut self, lengths: &[usize], pad_id: u32) {
        let width = self.width();
        for (row, &length) in self.memory.chunks_exact_mut(self.row_length).zip(lengths) {
            row[length..width].fill((pad_id | NOT_LEARNED) as i32);
        }
    }

    fn advance(&mut self, count: usize) {
        self.cursor.column += count;
        if self.cursor.column == self.row_length {
            self.cursor.width = self.row_length;
            self.cursor.column = 0;
            self.cursor.row += 1;
        }
    }
}

/// What is left to do when the input has ended and no token is left: nothing, or rows of padding.
fn finish(rows: &mut Rows<'_>, pad_id: u32, ledger: &mut Ledger) -> Progress {
    if rows.is_untouched() {
        return Progress::Dry;
    }
    while !rows.is_full() {
        ledger.padding += rows.pad(pad_id) as u64;
    }
    Progress::Full
}

/// Counts a document that is handed over by the input.
fn admit(ledger: &mut Ledger, document: &Document) {
    ledger.documents += 1;
    ledger.bytes += document.num_bytes;
    ledger.read += document.tokens().len() as u64;
}

/// Writes what the row at hand takes of a whole document, behind `bos` where there is one; returns how many tokens.
fn write_whole(
    document: &Document,
    bos: Option<u32>,
    cut: Cut,
    rows: &mut Rows<'_>,
    ledger: &mut Ledger,
) -> usize {
    let tokens = document.tokens();
    let (front, back) = cut.kept(tokens, rows.space() - usize::from(bos.is_some()));
    let mut start = rows.cursor();
    if let Some(bos) = bos {
        rows.push(&[bos]);
        ledger.bos += 1;
    }
    rows.note(start, bos.is_some(), document, 0, front.len());
    start.column += usize::from(bos.is_some()) + front.len();
    if !back.is_empty() {
        rows.note(start, false, document, tokens.len() - back.len(), back.len());
    }
    for part in [front, back] {
        if !part.is_empty() {
            rows.push(part);
            deliver(ledger, part, bos.is_none());
        }
    }
    let kept = front.len() + back.len();
    ledger.cropped += (tokens.len() - kept) as u64;
    ledger.cut += u64::from(kept < tokens.len());
    usize::from(bos.is_some()) + kept
}

/// Counts a document's tokens that are written into a row. Only documents that bring their own BOS have masked ones.
fn deliver(ledger: &mut Ledger, tokens: &[u32], brings_bos: bool) {
    let masked = if brings_bos { tokens.iter().map(|token| token >> 31).sum::<u32>().into() } else { 0 };
    ledger.masked += masked;
    ledger.learned += tokens.len() as u64 - masked;
}
