//! `best_fit` with `pad`: whole documents only, the longest that fits first; the rest of a row is padding.
//!
//! ```text
//! buffer  [BOS a a a] [BOS b] [BOS c c c c]      row (T + 1 = 8)   BOS c c c c BOS b pad
//!         [BOS a a a]                            row               BOS a a a pad pad pad pad
//! ```
//! A document longer than a row is truncated to it. One that many newer ones have overtaken starts the next row.
//! Conversations come with their own BOS and with masked tokens.

use super::buffer::Buffer;
use super::held::Held;
use super::{Cut, Document, Next, Packer, Progress, Rows, finish, write_whole};
use crate::error::Result;
use crate::state::{Ledger, PackerState};

/// Documents that are looked through for the best fit: the reference's number, part of the stream's definition.
const BUFFER_DOCUMENTS: usize = 100;

/// How many newer documents may overtake one: the reference's number, part of the stream's definition.
const MAX_WAIT_DOCUMENTS: u64 = 512;

/// Best fit of whole documents. O(log n) a document; memory: 100 documents' tokens.
#[derive(Debug)]
pub struct Pad {
    bos: Option<u32>,
    pad_id: u32,
    cut: Cut,
    /// Measured with BOS, truncated to `row_length`.
    buffer: Buffer,
    /// What the buffer is measured for; 0 before the first row.
    row_length: usize,
}

impl Pad {
    /// With the BOS to put before each document, or none where documents bring their own.
    pub fn new(bos: Option<u32>, pad_id: u32) -> Self {
        Self { bos, pad_id, cut: Cut::End, buffer: Buffer::default(), row_length: 0 }
    }

    /// Which side of a document longer than a row is dropped: without this, its end.
    #[must_use]
    pub fn cutting(self, cut: Cut) -> Self {
        Self { cut, ..self }
    }

    /// How documents are measured.
    fn length(&self) -> impl Fn(&Held) -> usize + use<> {
        let (added, most) = (usize::from(self.bos.is_some()), self.row_length);
        move |held| (added + held.document.tokens().len()).min(most)
    }

    fn measure_for(&mut self, row_length: usize) {
        if self.row_length != row_length {
            self.row_length = row_length;
            self.buffer.measure(self.length());
        }
    }

    fn choose(&mut self, rows: &Rows<'_>) -> Option<Held> {
        let oldest = self.buffer.oldest()?;
        let overtaken = rows.is_row_start() && self.buffer.arrivals - oldest > MAX_WAIT_DOCUMENTS;
        let arrival = if overtaken { oldest } else { self.buffer.longest_within(rows.space())? };
        self.buffer.take(arrival)
    }
}

impl Packer for Pad {
    fn fill(&mut self, input: &mut dyn FnMut() -> Next, rows: &mut Rows<'_>) -> Progress {
        self.measure_for(rows.row_length());
        while !rows.is_full() {
            let length = self.length();
            if !self.buffer.fill(BUFFER_DOCUMENTS, input, length) {
                return Progress::Pending;
            }
            match self.choose(rows) {
                Some(held) => {
                    write_whole(&held.document, self.bos, self.cut, rows, &mut self.buffer.ledger);
                }
                None if rows.is_row_start() => return finish(rows, self.pad_id, &mut self.buffer.ledger),
                None => self.buffer.ledger.padding += rows.pad(self.pad_id) as u64,
            }
        }
        Progress::Full
    }

    fn state(&self) -> PackerState {
        self.buffer.state()
    }

    fn restore(&mut self, state: &PackerState, documents: Vec<Document>, ledger: Ledger) -> Result<()> {
        let length = self.length();
        self.buffer.restore(state, documents, ledger, length)
    }

    fn ledger(&self) -> &Ledger {
        &self.buffer.ledger
    }
}
