//! Positions, the token ledger, and the versioned state that a loader is resumed from.
//!
//! A state holds positions, never tokens or text: where the next document of each lane is, and where the
//! documents are that wait in the lane's packer. Everything here is plain data.

use serde::{Deserialize, Serialize};

/// A document of a lane: row `row` of the lane's `ordinal`-th unit.
///
/// As a position it names the next document to admit; with shuffle `ordinal` is then the window's first unit
/// and `row` the index within the permuted window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Address {
    /// Which unit of the lane, counted over all epochs.
    pub ordinal: u64,
    /// Row within the row group (not within the unit).
    pub row: u64,
}

/// A document that a packer holds, by position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The document.
    pub address: Address,
    /// A byte of the document from which tokenizing gives the same ids; 0 is always one.
    pub byte_offset: u64,
    /// Tokens behind `byte_offset` that are already used up (`concat` counts the BOS as one).
    pub skip_tokens: u64,
    /// How many documents the lane had admitted before it.
    pub arrival: u64,
}

/// All that a packer remembers between two batches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackerState {
    /// Documents admitted by the lane so far.
    pub arrivals: u64,
    /// The documents it holds, in its own order.
    pub waiting: Vec<Waiting>,
}

/// Where every token went. At every batch `read = learned + masked + cropped + waiting`.
///
/// BOS and padding that the packer adds are counted apart: `learned + masked + bos + padding` is the number of
/// positions delivered, the token that two rows of `concat` share counted once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Documents admitted.
    pub documents: u64,
    /// Bytes of their text.
    pub bytes: u64,
    /// Their tokens, without BOS.
    pub read: u64,
    /// Delivered and learned, without BOS.
    pub learned: u64,
    /// Delivered with the loss masked (conversations).
    pub masked: u64,
    /// BOS tokens delivered.
    pub bos: u64,
    /// Padding delivered.
    pub padding: u64,
    /// Dropped by `crop`, or beyond the end of a row.
    pub cropped: u64,
    /// Documents cut, the rest kept for later (a count of cuts, in no sum).
    pub carried: u64,
}

impl Ledger {
    /// Tokens that were read and neither delivered nor cropped: they wait in buffers.
    pub fn waiting(&self) -> u64 {
        self.read - self.learned - self.masked - self.cropped
    }

    /// Adds another lane's counts.
    pub fn add(&mut self, other: &Self) {
        self.documents += other.documents;
        self.bytes += other.bytes;
        self.read += other.read;
        self.learned += other.learned;
        self.masked += other.masked;
        self.bos += other.bos;
        self.padding += other.padding;
        self.cropped += other.cropped;
        self.carried += other.carried;
    }
}
