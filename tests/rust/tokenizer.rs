//! The tokenizer against its slow twins and against tiktoken-rs, on the same cases.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "tokenizer/agreement.rs"]
mod agreement;
#[path = "tokenizer/bad_files.rs"]
mod bad_files;
#[path = "tokenizer/cases.rs"]
mod cases;
#[path = "tokenizer/encoding.rs"]
mod encoding;
#[path = "tokenizer/files.rs"]
mod files;
#[path = "tokenizer/many.rs"]
mod many;
#[path = "tokenizer/merging.rs"]
mod merging;
#[path = "tokenizer/splitting.rs"]
mod splitting;
#[path = "tokenizer/training.rs"]
mod training;
