//! A document in a packer's hands, with how much of it is used: what becomes a `Waiting` in the state.

use std::sync::Arc;

use super::Document;
use crate::error::{Error, Result};
use crate::state::{PackerState, Waiting};

/// A document and how many of its tokens are used (`concat` counts the BOS that it adds as one).
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) document: Document,
    /// Where `document`'s tokens begin in its text: not 0 when a long document was restored from its middle.
    byte_offset: u64,
    pub(super) used: usize,
    pub(super) arrival: u64,
}

impl Held {
    pub(super) fn new(document: Document, arrival: u64) -> Self {
        Self { document, byte_offset: 0, used: 0, arrival }
    }

    /// As a state tells it; `added` tokens of those used are not the document's own. A long document is told from its
    /// last border before that, so that what was used of it is not tokenized again.
    pub(super) fn waiting(&self, added: usize) -> Waiting {
        let own = self.used.saturating_sub(added);
        let border = self.document.tokens.border(self.document.index, own);
        Waiting {
            address: self.document.address,
            byte_offset: self.byte_offset + border.byte,
            skip_tokens: (self.used - border.token) as u64,
            arrival: self.arrival,
        }
    }

    /// The tokens of the document that are not used, where no BOS is counted.
    pub(super) fn rest(&self) -> &[u32] {
        &self.document.tokens()[self.used..]
    }

    /// Copies the tokens out of the batch that they came in, so that a document that waits long keeps no others alive.
    /// Where there is no memory for that, it stays there.
    pub(super) fn own(&mut self) {
        if let Ok(tokens) = self.document.tokens.copy_of(self.document.index) {
            (self.document.tokens, self.document.index) = (Arc::new(tokens), 0);
        }
    }

    /// The documents of `state`, taken up again; `added` is what a BOS that the packer adds makes of each length.
    pub(super) fn restored(
        state: &PackerState,
        documents: Vec<Document>,
        added: usize,
    ) -> impl Iterator<Item = Result<Self>> {
        let expected = state.waiting.len();
        let mismatch = (documents.len() != expected).then(|| Error::State {
            reason: format!("{expected} documents are to be continued, {} were read again", documents.len()),
        });
        let pairs = state.waiting.iter().zip(documents).map(move |(waiting, document)| {
            let (length, skip) = (document.tokens().len() + added, waiting.skip_tokens);
            if document.address != waiting.address || skip >= length.max(1) as u64 {
                let (found, place) = (document.address, waiting.address);
                return Err(Error::State {
                    reason: format!(
                        "a document is to be continued at token {skip} of unit {}, row {}; found {length} tokens in unit {}, row {}",
                        place.ordinal, place.row, found.ordinal, found.row
                    ),
                });
            }
            Ok(Self { document, byte_offset: waiting.byte_offset, used: skip as usize, arrival: waiting.arrival })
        });
        mismatch.map(Err).into_iter().chain(pairs)
    }
}
