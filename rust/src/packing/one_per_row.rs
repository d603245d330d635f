//! `one_per_row`: one document a row, truncated to the row; the batch is as wide as its longest row.
//!
//! ```text
//! documents [a a a] [b] [c c c c c]      rows (T + 1 = 8)   BOS a a a pad pad     │
//!                                                           BOS b pad pad pad pad │   width 6: what the slot holds
//!                                                           BOS c c c c c │           behind it none sees
//! ```

use super::{Cut, Document, Next, Packer, Progress, Rows, admit, write_whole};
use crate::error::Result;
use crate::state::{Ledger, PackerState};

/// One document a row. Holds nothing between two documents.
#[derive(Debug)]
pub struct OnePerRow {
    bos: Option<u32>,
    pad_id: u32,
    cut: Cut,
    /// Of the complete rows of the slot at hand, tokens that are not padding.
    lengths: Vec<usize>,
    arrivals: u64,
    ledger: Ledger,
}

impl OnePerRow {
    /// With the BOS to put before each document, or none where documents bring their own.
    pub fn new(bos: Option<u32>, pad_id: u32) -> Self {
        Self { bos, pad_id, cut: Cut::End, lengths: Vec::new(), arrivals: 0, ledger: Ledger::default() }
    }

    /// Which side of a document longer than a row is dropped: without this, its end.
    #[must_use]
    pub fn cutting(self, cut: Cut) -> Self {
        Self { cut, ..self }
    }

    fn write(&mut self, document: &Document, rows: &mut Rows<'_>) {
        let row = rows.cursor().row;
        self.lengths.push(write_whole(document, self.bos, self.cut, rows, &mut self.ledger));
        if rows.cursor().row == row {
            rows.end_row();
        }
    }
}

impl Packer for OnePerRow {
    fn fill(&mut self, input: &mut dyn FnMut() -> Next, rows: &mut Rows<'_>) -> Progress {
        while !rows.is_full() {
            match input() {
                Next::Document(document) => {
                    admit(&mut self.ledger, &document);
                    self.arrivals += 1;
                    self.write(&document, rows);
                }
                Next::Pending => return Progress::Pending,
                Next::End if rows.is_untouched() => return Progress::Dry,
                Next::End => {
                    while !rows.is_full() {
                        rows.end_row();
                        self.lengths.push(0);
                    }
                }
            }
        }
        // How wide the batch is, and so how much of it is padding, shows with its last row.
        rows.fill_up(&self.lengths, self.pad_id);
        let delivered = rows.num_rows() * rows.width();
        self.ledger.padding += (delivered - self.lengths.drain(..).sum::<usize>()) as u64;
        Progress::Full
    }

    fn state(&self) -> PackerState {
        PackerState { arrivals: self.arrivals, waiting: Vec::new() }
    }

    fn restore(&mut self, state: &PackerState, documents: Vec<Document>, ledger: Ledger) -> Result<()> {
        super::held::Held::restored(&PackerState::default(), documents, 0)
            .try_for_each(|held| held.map(drop))?;
        self.arrivals = state.arrivals;
        self.ledger = ledger;
        Ok(())
    }

    fn ledger(&self) -> &Ledger {
        &self.ledger
    }
}
