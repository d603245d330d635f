//! Where every token of a lane went.

use serde::{Deserialize, Serialize};

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
    /// Documents longer than a row, cut to it (in no sum; their tokens are `cropped`).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cut: u64,
    /// Conversations left out before they were read, since they are longer than a row.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out_long: u64,
    /// Conversations left out before they were read, since a row would hold nothing of them that is learned.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out_unlearned: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
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
        self.cut += other.cut;
        self.left_out_long += other.left_out_long;
        self.left_out_unlearned += other.left_out_unlearned;
    }
}
