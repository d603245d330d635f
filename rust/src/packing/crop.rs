//! `best_fit` with `crop`: nanochat's rule. What fits nowhere is cropped to the row and its rest is dropped.
//!
//! ```text
//! buffer  [BOS a a a] [BOS b] [BOS c c c c]      row (T + 1 = 7)   BOS c c c c BOS b
//! buffer  [BOS a a a] [BOS d d d d d]            row               BOS d d d d d BOS        a a a is dropped
//! ```
//! The buffer is refilled by chunks: documents of one row group, at most 128. A chunk that ends with its row group has
//! looked at the next document; that one is held apart, and in a state it is the one whose arrival is `arrivals`.
//! Rule and numbers: nanochat's best-fit loader.

use super::buffer::Buffer;
use super::held::Held;
use super::{Document, Next, Packer, Progress, Rows, admit, finish};
use crate::error::Result;
use crate::state::{Ledger, PackerState};

/// The buffer is refilled while it holds fewer documents: nanochat's number, part of the stream's definition.
const BUFFER_DOCUMENTS: usize = 1000;

/// Documents a chunk: nanochat's number, part of the stream's definition.
const CHUNK_DOCUMENTS: usize = 128;

/// A document may wait for ever, and with it the batch that it came in. One that this many newer ones have followed is
/// copied out of its batch: twice the buffer, so that most leave before and memory stays within three times the buffer's.
const OWN_AFTER_DOCUMENTS: u64 = 2 * BUFFER_DOCUMENTS as u64;

/// Best fit that drops what sticks out. O(log n) a document; memory: up to 1,127 documents' tokens.
#[derive(Debug)]
pub struct Crop {
    bos: u32,
    pad_id: u32,
    /// Measured with BOS.
    buffer: Buffer,
    /// The chunk that is being read; empty between two batches.
    chunk: Vec<Held>,
    /// The first document of the row group behind the last chunk.
    ahead: Option<Document>,
}

/// What came of reading a chunk.
enum Chunk {
    Complete,
    Pending,
    End,
}

impl Crop {
    /// With the BOS to put before each document.
    pub fn new(bos: u32, pad_id: u32) -> Self {
        Self { bos, pad_id, buffer: Buffer::default(), chunk: Vec::new(), ahead: None }
    }

    fn length(held: &Held) -> usize {
        1 + held.document.tokens().len()
    }

    fn join_chunk(&mut self, document: Document) {
        self.chunk.push(self.buffer.arrive(document));
    }

    fn read_chunk(&mut self, input: &mut dyn FnMut() -> Next) -> Chunk {
        if let Some(document) = self.ahead.take() {
            self.join_chunk(document);
        }
        let mut end = false;
        while self.chunk.len() < CHUNK_DOCUMENTS {
            match input() {
                Next::Document(document) => {
                    admit(&mut self.buffer.ledger, &document);
                    if self.chunk.first().is_some_and(|first| first.document.group != document.group) {
                        self.ahead = Some(document);
                        break;
                    }
                    self.join_chunk(document);
                }
                Next::Pending => return Chunk::Pending,
                Next::End => {
                    end = true;
                    break;
                }
            }
        }
        for held in std::mem::take(&mut self.chunk) {
            let length = Self::length(&held);
            self.buffer.insert(held, length);
        }
        self.buffer.own_until(self.buffer.arrivals.saturating_sub(OWN_AFTER_DOCUMENTS));
        if end { Chunk::End } else { Chunk::Complete }
    }
}

impl Packer for Crop {
    fn fill(&mut self, input: &mut dyn FnMut() -> Next, rows: &mut Rows<'_>) -> Progress {
        while !rows.is_full() {
            while self.buffer.len() < BUFFER_DOCUMENTS {
                match self.read_chunk(input) {
                    Chunk::Complete => {}
                    Chunk::Pending => return Progress::Pending,
                    Chunk::End => break,
                }
            }
            let space = rows.space();
            let best = self.buffer.longest_within(space).or_else(|| self.buffer.shortest());
            let Some(held) = best.and_then(|arrival| self.buffer.take(arrival)) else {
                return finish(rows, self.pad_id, &mut self.buffer.ledger);
            };
            let tokens = held.document.tokens();
            let taken = tokens.len().min(space - 1);
            rows.note(rows.cursor(), true, &held.document, 0, taken);
            rows.push(&[self.bos]);
            rows.push(&tokens[..taken]);
            self.buffer.ledger.bos += 1;
            self.buffer.ledger.learned += taken as u64;
            self.buffer.ledger.cropped += (tokens.len() - taken) as u64;
        }
        Progress::Full
    }

    fn state(&self) -> PackerState {
        let mut state = self.buffer.state();
        let ahead = self.ahead.iter().map(|document| Held::new(document.clone(), state.arrivals).waiting(0));
        state.waiting.extend(ahead);
        state
    }

    fn restore(&mut self, state: &PackerState, mut documents: Vec<Document>, ledger: Ledger) -> Result<()> {
        let mut buffered = state.clone();
        if state.waiting.last().is_some_and(|last| last.arrival == state.arrivals) {
            buffered.waiting.pop();
            self.ahead = documents.pop();
        }
        self.buffer.restore(&buffered, documents, ledger, Self::length)
    }

    fn ledger(&self) -> &Ledger {
        &self.buffer.ledger
    }
}
