//! `one_per_row`: one document a row, truncated to the row; the batch is as wide as its longest row.
//!
//! ```text
//! documents [a a a] [b] [c c c c c]      rows (T + 1 = 8)   BOS a a a pad pad │
//!                                                           BOS b pad pad pad pad │   width 6: behind it the slot
//!                                                           BOS c c c c c │           holds padding that none sees
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
    /// Tokens in the slot at hand that are not padding.
    num_tokens: usize,
    arrivals: u64,
    ledger: Ledger,
}

impl OnePerRow {
    /// With the BOS to put before each document, or none where documents bring their own.
    pub fn new(bos: Option<u32>, pad_id: u32) -> Self {
        Self { bos, pad_id, cut: Cut::End, num_tokens: 0, arrivals: 0, ledger: Ledger::default() }
    }

    /// Which side of a document longer than a row is dropped: without this, its end.
    #[must_use]
    pub fn cutting(self, cut: Cut) -> Self {
        Self { cut, ..self }
    }

    fn write(&mut self, document: &Document, rows: &mut Rows<'_>) {
        let row = rows.cursor().row;
        self.num_tokens += write_whole(document, self.bos, self.cut, rows, &mut self.ledger);
        if rows.cursor().row == row {
            rows.end_row(self.pad_id);
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
                        rows.end_row(self.pad_id);
                    }
                }
            }
        }
        // How wide the batch is, and so how much of it is padding, shows with its last row.
        let delivered = rows.num_rows() * rows.width();
        self.ledger.padding += (delivered - std::mem::take(&mut self.num_tokens)) as u64;
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
