//! nanofast feeds GPT training straight from raw parquet text.
//!
//! ```text
//! shard → row group → DocumentBatch → TokenBatch → packed rows → ring slot → inputs/targets
//! (file)  (unit)      (text values   (token values (T+1 tokens  ([B, T+1]
//!                      + offsets)     + offsets)    each)        int32)
//! ```
//! Data moves one way; each arrow is one module, and no module reaches back.

pub mod account;
mod admission;
#[cfg(feature = "python")]
mod bindings;
mod budget;
pub mod config;
pub mod conversation;
pub mod error;
mod feed;
mod floor;
mod giants;
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
mod read_at;
pub mod reorder;
pub mod ring;
mod row_groups;
pub mod source;
mod sources;
pub mod state;
mod sync;
pub mod token_file;
pub mod tokenizer;
mod window_pipeline;
pub mod windows;

pub use error::{Error, Result};
