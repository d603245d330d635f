//! Shards → documents: texts or conversations. The only user of the parquet crate.
//!
//! ```text
//! find_shards ─▶ open_shards ─▶ Shard::reader(row group, rows) ─▶ next_batch ─▶ (first row, DocumentBatch)
//! (paths)        (footers)      page walk, one page at a time                    about 256 KiB of text
//! ```
//! The parquet crate reads footers and writes files. Pages are read here: a page is decompressed once and its texts
//! are spans of it, never copied and not yet checked to be UTF-8; every declared size is held against what is there
//! before anything is allocated; and a page that cannot be decoded costs its own rows and no others.

mod codec;
mod conversations;
mod decode;
mod delta;
mod facts;
mod file;
mod find;
mod footer_shape;
mod location;
mod page;
#[cfg_attr(not(feature = "remote"), path = "without_remote.rs")]
mod remote;
mod row_group;
mod runs;
mod schema;
mod shard;
mod thrift;
mod writer;

pub use conversations::{
    ConversationReader, ConversationSource, DocumentReader, Layout, LineReader, WrappedRows,
    open_conversations, push_json,
};
pub use facts::{ChunkFacts, ColumnFacts, FileFacts, RowGroupFacts, file_facts};
pub use file::{reading_until, take_time_reading};
pub use find::find_shards;
pub(crate) use location::BLOCK_BYTES;
pub use location::{Location, Storage, StorageSettings};
pub use remote::Object;
pub use row_group::{Broken, RowGroupReader};
pub use shard::{RowGroup, Shard, open_readable_shards, open_shard, open_shards};
pub use writer::ParquetWriter;

/// What a decoder makes of bytes, or why it cannot; the caller knows the place.
type Decoded<T> = Result<T, String>;
