//! nanofast feeds GPT training straight from raw parquet text.
//!
//! ```text
//! shard → row group → DocumentBatch → TokenBatch → packed rows → ring slot → inputs/targets
//! (file)  (unit)      (text values   (token values (T+1 tokens  ([B, T+1]
//!                      + offsets)     + offsets)    each)        int32)
//! ```
//! Data moves one way; each arrow is one module, and no module reaches back.

pub mod error;
pub mod packing;
pub mod ragged;
pub mod source;
pub mod state;

pub use error::{Error, Result};
