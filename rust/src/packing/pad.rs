//! `best_fit` with `pad`: whole documents only, the longest that fits first; the rest of a row is padding.
//!
//! ```text
//! buffer  [BOS a a a] [BOS b] [BOS c c c c]      row (T + 1 = 8)   BOS c c c c BOS b pad
//!         [BOS a a a]                            row               BOS a a a pad pad pad pad
//! ```
//! A document longer than a row is truncated to it. One that many newer ones have overtaken starts the next row.
//! Conversations come with their own BOS and with masked tokens.

use super::best_fit::check_arrivals;
use super::buffer::Buffer;
use super::held::Held;
use super::{Cut, Document, Next, Packer, Progress, Rows, admit, finish, write_whole};
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
    arrivals: u64,
    ledger: Ledger,
}

impl Pad {
    /// With the BOS to put before each document, or none where documents bring their own.
    pub fn new(bos: Option<u32>, pad_id: u32) -> Self {
        Self {
            bos,
            pad_id,
            cut: Cut::End,
            buffer: Buffer::default(),
            row_length: 0,
            arrivals: 0,
            ledger: Ledger::default(),
        }
    }

    /// Which side of a document longer than a row is dropped: without this, its end.
    #[must_use]
    pub fn cutting(self, cut: Cut) -> Self {
        Self { cut, ..self }
    }

    fn length(&self, document: &Document) -> usize {
        (usize::from(self.bos.is_some()) + document.tokens().len()).min(self.row_length)
    }

    fn hold(&mut self, held: Held) {
        let length = self.length(&held.document);
        self.buffer.insert(held, length);
    }

    fn measure_for(&mut self, row_length: usize) {
        if self.row_length != row_length {
            self.row_length = row_length;
            let mut buffer = std::mem::take(&mut self.buffer);
            buffer.measure(|held| self.length(&held.document));
            self.buffer = buffer;
        }
    }

    fn choose(&mut self, rows: &Rows<'_>) -> Option<Held> {
        let oldest = self.buffer.oldest()?;
        let overtaken = rows.is_row_start() && self.arrivals - oldest > MAX_WAIT_DOCUMENTS;
        let arrival = if overtaken { oldest } else { self.buffer.longest_within(rows.space())? };
        self.buffer.take(arrival)
    }
}

impl Packer for Pad {
    fn fill(&mut self, input: &mut dyn FnMut() -> Next, rows: &mut Rows<'_>) -> Progress {
        self.measure_for(rows.row_length());
        while !rows.is_full() {
            while self.buffer.len() < BUFFER_DOCUMENTS {
                match input() {
                    Next::Document(document) => {
                        admit(&mut self.ledger, &document);
                        self.hold(Held::new(document, self.arrivals));
                        self.arrivals += 1;
                    }
                    Next::Pending => return Progress::Pending,
                    Next::End => break,
                }
            }
            match self.choose(rows) {
                Some(held) => {
                    write_whole(&held.document, self.bos, self.cut, rows, &mut self.ledger);
                }
                None if rows.is_row_start() => return finish(rows, self.pad_id, &mut self.ledger),
                None => self.ledger.padding += rows.pad(self.pad_id) as u64,
            }
        }
        Progress::Full
    }

    fn state(&self) -> PackerState {
        self.buffer.state(self.arrivals)
    }

    fn restore(&mut self, state: &PackerState, documents: Vec<Document>, ledger: Ledger) -> Result<()> {
        for held in Held::restored(state, documents, 0) {
            self.hold(held?);
        }
        check_arrivals(state, self.buffer.len())?;
        self.arrivals = state.arrivals;
        self.ledger = ledger;
        Ok(())
    }

    fn ledger(&self) -> &Ledger {
        &self.ledger
    }
}
