//! `concat`: one endless stream, BOS before each document; a row begins with the last token of the one before.
//!
//! ```text
//! stream   BOS a a a BOS b BOS c c c c ...
//! rows     [BOS a a a BOS]
//!                  [BOS b BOS c c]         T + 1 tokens each, T apart: every token but the first is a target once
//! ```
//! Nothing is read ahead: the documents held are those whose tokens are not all delivered, and between two rows that
//! is the one document of the shared token, which is not used up until the next row has begun with it.

use std::collections::VecDeque;

use super::held::Held;
use super::{Document, Next, Packer, Progress, Rows, admit, deliver, finish};
use crate::error::Result;
use crate::state::{Ledger, PackerState};

/// The endless stream. Memory: one document; time: a copy of the tokens.
#[derive(Debug)]
pub struct Concat {
    bos: Option<u32>,
    pad_id: u32,
    /// Documents with tokens left, in order: hardly ever more than two.
    held: VecDeque<Held>,
    /// The first token held was delivered as the last one of a row.
    shared: bool,
    arrivals: u64,
    ledger: Ledger,
}

impl Concat {
    /// With the BOS to put before each document, or none where documents bring their own.
    pub fn new(bos: Option<u32>, pad_id: u32) -> Self {
        Self { bos, pad_id, held: VecDeque::new(), shared: false, arrivals: 0, ledger: Ledger::default() }
    }

    /// Tokens of the BOS that is added: 1 or 0.
    fn added(&self) -> usize {
        usize::from(self.bos.is_some())
    }

    fn length(&self, document: &Document) -> usize {
        self.added() + document.tokens().len()
    }

    fn available(&self) -> usize {
        self.held.iter().map(|held| self.length(&held.document) - held.used).sum()
    }

    fn admit(&mut self, document: Document) {
        admit(&mut self.ledger, &document);
        if self.length(&document) > 0 {
            self.held.push_back(Held::new(document, self.arrivals));
        }
        self.arrivals += 1;
    }

    /// Writes what the first document held has for the row at hand.
    fn write(&mut self, rows: &mut Rows<'_>) {
        let Some(held) = self.held.front_mut() else { return };
        let (start, used) = (rows.cursor(), held.used);
        let row = start.row;
        // The shared token is in the ledger since the row before.
        let mut counted = std::mem::take(&mut self.shared);
        if let (Some(bos), 0) = (self.bos, held.used) {
            rows.push(&[bos]);
            held.used = 1;
            self.ledger.bos += u64::from(!std::mem::take(&mut counted));
        }
        let added = usize::from(self.bos.is_some());
        if rows.cursor().row == row {
            let rest = &held.document.tokens()[held.used - added..];
            let taken = &rest[..rest.len().min(rows.space())];
            rows.push(taken);
            held.used += taken.len();
            deliver(&mut self.ledger, &taken[usize::from(counted).min(taken.len())..], self.bos.is_none());
        }
        let has_bos = used < added;
        let num_tokens = held.used - used - usize::from(has_bos);
        rows.note(start, has_bos, &held.document, used.saturating_sub(added), num_tokens);
        if rows.cursor().row > row {
            held.used -= 1;
            self.shared = true;
        } else if held.used == added + held.document.tokens().len() {
            self.held.pop_front();
        }
    }
}

impl Packer for Concat {
    fn fill(&mut self, input: &mut dyn FnMut() -> Next, rows: &mut Rows<'_>) -> Progress {
        while !rows.is_full() {
            // A row is begun only when it will hold a target: with two tokens at least.
            let needed = if rows.is_row_start() { 2 } else { 1 };
            while self.available() < needed {
                match input() {
                    Next::Document(document) => self.admit(document),
                    Next::Pending => return Progress::Pending,
                    Next::End => return finish(rows, self.pad_id, &mut self.ledger),
                }
            }
            self.write(rows);
        }
        Progress::Full
    }

    fn state(&self) -> PackerState {
        let waiting = self.held.iter().map(|held| held.waiting(self.added()));
        PackerState { arrivals: self.arrivals, waiting: waiting.collect() }
    }

    fn restore(&mut self, state: &PackerState, documents: Vec<Document>, ledger: Ledger) -> Result<()> {
        self.held = Held::restored(state, documents, self.added()).collect::<Result<_>>()?;
        self.shared = !self.held.is_empty();
        self.arrivals = state.arrivals;
        self.ledger = ledger;
        Ok(())
    }

    fn ledger(&self) -> &Ledger {
        &self.ledger
    }
}
