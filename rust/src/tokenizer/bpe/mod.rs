//! Byte-pair encoding of one pretoken: bytes → ids.
//!
//! `naive` is the definition written down; the others give the same ids faster. All ask [`PairTable`] which two tokens
//! merge, into what, and how early.

pub mod heap;
pub mod long;
pub mod medium;
pub mod naive;
mod pair_table;
pub mod small;
#[cfg(target_arch = "x86_64")]
mod small_avx512;

pub use pair_table::{Cut, Merge, NONE, PairTable};
