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
use super::{Document, Next, Packer, Progress, Rows, finish};
use crate::error::Result;
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
}

impl Carry {
    /// With the BOS to put before each piece.
    pub fn new(bos: u32, pad_id: u32) -> Self {
        Self { bos, pad_id, buffer: Buffer::default() }
    }

    fn length(held: &Held) -> usize {
        held.rest().len()
    }

    /// The arrival of the document that goes next where `space` tokens are left in the row.
    fn choose(&self, space: usize) -> Option<u64> {
        let oldest = self.buffer.oldest()?;
        if self.buffer.arrivals - oldest > MAX_WAIT_DOCUMENTS {
            return Some(oldest);
        }
        self.buffer.longest_within(space - 1).or_else(|| self.buffer.longest())
    }
}

impl Packer for Carry {
    fn fill(&mut self, input: &mut dyn FnMut() -> Next, rows: &mut Rows<'_>) -> Progress {
        while !rows.is_full() {
            if !self.buffer.fill(BUFFER_DOCUMENTS, input, Self::length) {
                return Progress::Pending;
            }
            let space = rows.space();
            let chosen = self.choose(space).and_then(|arrival| Some((arrival, self.buffer.get(arrival)?)));
            let Some((arrival, held)) = chosen else {
                return finish(rows, self.pad_id, &mut self.buffer.ledger);
            };
            let rest = held.rest();
            let (length, taken) = (rest.len(), rest.len().min(space - 1));
            rows.note(rows.cursor(), true, &held.document, held.used, taken);
            rows.push(&[self.bos]);
            rows.push(&rest[..taken]);
            self.buffer.ledger.bos += 1;
            self.buffer.ledger.learned += taken as u64;
            if taken == length {
                self.buffer.take(arrival);
            } else if taken > 0 {
                self.buffer.shorten(arrival, taken);
                self.buffer.ledger.carried += 1;
            }
        }
        Progress::Full
    }

    fn state(&self) -> PackerState {
        self.buffer.state()
    }

    fn restore(&mut self, state: &PackerState, documents: Vec<Document>, ledger: Ledger) -> Result<()> {
        self.buffer.restore(state, documents, ledger, Self::length)
    }

    fn ledger(&self) -> &Ledger {
        &self.buffer.ledger
    }
}
