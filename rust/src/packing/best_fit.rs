//! `best_fit` with `carry`: the longest document that fits; what fits nowhere is cut and its rest waits on.
//!
//! ```text
//! buffer  [a a a] [b] [c c c c c c c]      row (T + 1 = 6)   BOS a a a BOS b
//! buffer  [c c c c c c c]                  row               BOS c c c c c     cut; [c c] keeps its place
//! ```
//! Each piece has a BOS before it and its tokens are delivered once; a space of one token is a BOS. A document that
//! many newer ones have overtaken goes first, so none waits for ever.

use super::buffer::Buffer;
use super::held::Held;
use super::{Document, Next, Packer, Progress, Rows, admit, deliver, finish};
use crate::error::{Error, Result};
use crate::state::{Ledger, PackerState};

/// Documents that are looked through for the best fit: the reference's number, part of the stream's definition.
/// A larger buffer cuts fewer documents and holds more memory.
const BUFFER_DOCUMENTS: usize = 256;

/// How many newer documents may overtake one: the reference's number. With it a state refers to documents among the
/// last 768 of the lane.
const MAX_WAIT_DOCUMENTS: u64 = 512;

/// Best fit that loses nothing. O(log n) a piece; memory: 256 documents' tokens.
#[derive(Debug)]
pub struct Carry {
    bos: u32,
    pad_id: u32,
    /// Measured without BOS.
    buffer: Buffer,
    arrivals: u64,
    ledger: Ledger,
}

impl Carry {
    /// With the BOS to put before each piece.
    pub fn new(bos: u32, pad_id: u32) -> Self {
        Self { bos, pad_id, buffer: Buffer::default(), arrivals: 0, ledger: Ledger::default() }
    }

    fn hold(&mut self, held: Held) {
        let length = held.rest().len();
        self.buffer.insert(held, length);
    }

    /// The piece that goes next where `space` tokens are left in the row.
    fn choose(&mut self, space: usize) -> Option<Held> {
        let oldest = self.buffer.oldest()?;
        let overtaken = self.arrivals - oldest > MAX_WAIT_DOCUMENTS;
        let best = || self.buffer.longest_within(space - 1).or_else(|| self.buffer.longest());
        let arrival = if overtaken { oldest } else { best()? };
        self.buffer.take(arrival)
    }
}

impl Packer for Carry {
    fn fill(&mut self, input: &mut dyn FnMut() -> Next, rows: &mut Rows<'_>) -> Progress {
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
            let space = rows.space();
            let Some(mut held) = self.choose(space) else {
                return finish(rows, self.pad_id, &mut self.ledger);
            };
            rows.push(&[self.bos]);
            self.ledger.bos += 1;
            let taken = held.rest().len().min(space - 1);
            let tokens = &held.rest()[..taken];
            rows.push(tokens);
            deliver(&mut self.ledger, tokens, false);
            if taken < held.rest().len() {
                self.ledger.carried += u64::from(taken > 0);
                held.used += taken;
                self.hold(held);
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

/// Arrivals are what tells buffered documents apart: each its own, each before the lane's next.
pub(super) fn check_arrivals(state: &PackerState, distinct: usize) -> Result<()> {
    let all_before = state.waiting.iter().all(|waiting| waiting.arrival < state.arrivals);
    if distinct == state.waiting.len() && all_before {
        return Ok(());
    }
    Err(Error::State {
        reason: format!(
            "the {} buffered documents should have arrival numbers of their own, each below {}",
            state.waiting.len(),
            state.arrivals
        ),
    })
}
