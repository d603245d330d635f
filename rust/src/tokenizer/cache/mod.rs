//! Pretoken → ids, remembered: what makes the second occurrence of a word cheap.
//!
//! ```text
//! short   pretokens of at most 16 bytes and 5 ids: 32-byte entries, two to a cache line, one line a look-up
//! long    all others up to 512 bytes: an index into an arena
//! ```
//! Nothing is ever evicted: words come roughly in the order of how common they are, and replacing them by newer ones made a
//! warm pass 40 % slower. A full cache stays as it is; its size is the limit.

mod caches;
mod keys;
#[cfg(target_arch = "aarch64")]
mod keys_neon;
#[cfg(target_arch = "x86_64")]
mod keys_x86;
mod long;
mod short;
mod table;

pub(super) use caches::Caches;
pub(super) use keys::write_keys;
pub(super) use long::LongCache;
pub(super) use short::{Answer, Entry, Key, ShortCache, key_of};
