//! nanofast feeds GPT training straight from raw parquet text.
//!
//! ```text
//! shard → row group → DocumentBatch → TokenBatch → packed rows → ring slot → inputs/targets
//! (file)  (unit)      (text values   (token values (T+1 tokens  ([B, T+1]
//!                      + offsets)     + offsets)    each)        int32)
//! ```
//! Data moves one way; each arrow is one module, and no module reaches back.

mod admission;
#[cfg(feature = "python")]
mod bindings;
pub mod config;
pub mod conversation;
pub mod error;
mod feed;
pub mod lane;
pub mod loader;
pub mod metrics;
pub mod mixture;
pub mod packing;
mod piece;
mod pipeline;
pub mod plan;
pub mod pool;
pub mod quarantine;
pub mod ragged;
pub mod reorder;
pub mod ring;
mod row_groups;
pub mod source;
mod sources;
pub mod state;
mod sync;
pub mod tokenizer;

pub use error::{Error, Result};
