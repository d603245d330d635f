//! Pre-tokenized files: one long list of token ids each, read at any offset.
//!
//! ```text
//! flat .bin    [ids …]                                   uint16 or uint32 (nanoGPT); nothing says which
//! llm.c .bin   [256 × int32: magic, version, count][ids …]   uint16 (20240520, 1) or uint32 (20240801, 7)
//! .npy         [header][ids …]                           uint16, uint32 or int32, one dimension
//! ```
//! Opening reads the header and the length, never the tokens, so a file of a terabyte opens as fast as a small one.
//! Reads are `pread`, not a mapping: a file that is cut while it is in use gives an error of that read, where a mapping
//! would kill the process with SIGBUS; and it is as fast (docs/LOG.md).

mod files;
mod layout;

pub use files::TokenFiles;
pub use layout::{Format, Layout, Width};
