//! Byte-pair encoding of one pretoken: bytes → ids.
//!
//! `naive` is the definition written down; the others give the same ids faster. All ask [`PairTable`] which two tokens
//! merge, into what, and how early.

pub mod group;
#[cfg(target_arch = "x86_64")]
mod group_avx512;
pub mod heap;
pub mod long;
pub mod medium;
pub mod naive;
mod pair_table;
mod perfect_hash;
pub mod small;

pub use pair_table::{Cut, Merge, NONE, PairTable};
