//! Rows of messages → conversations: parquet columns, JSON in a text column, JSONL.
//!
//! ```text
//! list<struct<role, content>> ─▶ leaves side by side ─┐
//! JSON in a text column, JSONL ─▶ parsed row by row  ─┼─▶ DocumentBatch of conversations (see `conversation`)
//! a text column                ─▶ as it is           ─┘
//! ```
//! A row that is no conversation is a document that says why; only what cannot be decoded is an error here.

mod columns;
mod json;
mod layout;
mod leaf;
mod lines;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use columns::Columns;
pub use columns::ConversationReader;
pub use json::push_json;
pub use layout::Layout;
use leaf::LeafReader;
use lines::LineIndex;
pub use lines::LineReader;
use parquet::basic::Compression;

use super::codec::Decompressor;
use super::file::ShardFile;
use super::location::Location;
use super::page::Chunk;
use super::remote::Tails;
use super::row_group::{Broken, RowGroupReader};
use super::schema::holds_text;
use super::shard::{
    RowGroup, Shard, TAIL_BYTES, chunk_of, damaged, decode_footer, hash, open_shard, read_footer,
};
use crate::conversation::{Field, push_field};
use crate::error::{Error, Place, Result};
use crate::pool::{Pool, Pooled};
use crate::ragged::DocumentBatch;

/// Bytes of a batch: what is made of it, copied and then encoded, stays in a core's second-level cache.
const BATCH_BYTES: usize = 64 << 10;

/// Bytes that a byte of stored text takes while a conversation is made of it: parsed, written, and room to grow.
const MADE_OF_A_BYTE: usize = 3;

/// How conversations are read.
#[derive(Clone, Debug)]
pub struct ConversationSource {
    /// How data names their parts.
    pub layout: Layout,
    /// The column of shards that hold plain text and may join; none where they may not.
    pub text_column: Option<String>,
    /// Where the indexes of JSONL files are kept; none: nowhere.
    pub index_folder: Option<PathBuf>,
}

/// What the rows of a shard of conversations are.
#[derive(Clone, Debug)]
pub(super) struct Conversations {
    layout: Arc<Layout>,
    rows: Stored,
}

#[derive(Clone, Debug)]
enum Stored {
    /// Leaves of a column, with where they lie in each row group.
    Columns(Arc<Columns>, Vec<Vec<(Chunk, Compression)>>),
    /// JSON in a text column.
    Json,
    /// Plain text.
    Texts,
    Lines(LineIndex),
}

/// Opens shards of conversations one after the other; the first failure wins.
pub fn open_conversations<L: Clone + Into<Location>>(
    shards: &[L],
    source: &ConversationSource,
) -> Result<Vec<Shard>> {
    let locations: Vec<Location> = shards.iter().cloned().map(Into::into).collect();
    let mut tails = Tails::of(&locations);
    let shard = |location: &Location| {
        tails.next(location)?;
        open(location, source)
    };
    locations.iter().map(shard).collect()
}

/// Whether a file is taken as one row a line.
pub(super) fn is_lines(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "jsonl" || extension == "ndjson")
}

fn open(location: &Location, source: &ConversationSource) -> Result<Shard> {
    let path = location.path();
    let layout = Arc::new(source.layout.clone());
    let conversations = |rows| Some(Arc::new(Conversations { layout: layout.clone(), rows }));
    if is_lines(path) {
        return open_lines(location, source, layout);
    }
    let file = ShardFile::open(location)?;
    let footer = read_footer(path, &file)?;
    let metadata = decode_footer(path, &footer[..footer.len() - TAIL_BYTES as usize])?;
    let schema = metadata.file_metadata().schema_descr();
    let fields = schema.root_schema().get_fields();
    let text = |name: &str| fields.iter().any(|field| field.name() == name && holds_text(field));
    if source.layout.keys().is_some() && text(&source.layout.column) {
        let shard = open_shard(location.clone(), &source.layout.column)?;
        return Ok(Shard { conversations: conversations(Stored::Json), ..shard });
    }
    let columns = match Columns::find(path, schema, &source.layout) {
        Ok(columns) => columns,
        Err(Error::MissingColumn { .. }) if source.text_column.as_deref().is_some_and(text) => {
            let shard = open_shard(location.clone(), source.text_column.as_deref().unwrap_or_default())?;
            return Ok(Shard { conversations: conversations(Stored::Texts), ..shard });
        }
        Err(error) => return Err(error),
    };
    let (mut row_groups, mut chunks) = (Vec::new(), Vec::new());
    for (index, group) in metadata.row_groups().iter().enumerate() {
        let leaves = columns.leaves().into_iter().map(|leaf| {
            let column = group.columns().get(leaf.index).ok_or("a row group without the column")?;
            chunk_of(column)
        });
        let leaves = leaves.collect::<super::Decoded<Vec<_>>>();
        let num_rows = u64::try_from(group.num_rows()).map_err(|_| "a negative number of rows".to_string());
        let (leaves, num_rows) = leaves.and_then(|leaves| Ok((leaves, num_rows?))).map_err(|reason| {
            let place = Place::row_group(path, index);
            Error::Parquet { place, reason }
        })?;
        row_groups.push(RowGroup {
            num_rows,
            num_bytes: leaves.iter().map(|(chunk, _)| chunk.uncompressed_bytes).sum(),
            num_compressed_bytes: leaves.iter().map(|(chunk, _)| chunk.compressed_bytes).sum(),
            offset: 0,
            codec: Compression::UNCOMPRESSED,
        });
        chunks.push(leaves);
    }
    let num_rows = metadata.file_metadata().num_rows();
    let found: u64 = row_groups.iter().map(|group| group.num_rows).sum();
    if u64::try_from(num_rows) != Ok(found) {
        return Err(damaged(path, format!("row groups of {found} rows in a file of {num_rows}")));
    }
    Ok(Shard {
        location: location.clone(),
        stamp: file.stamp(),
        footer_hash: hash(&footer),
        required: false,
        row_groups,
        conversations: conversations(Stored::Columns(Arc::new(columns), chunks)),
    })
}

fn open_lines(location: &Location, source: &ConversationSource, layout: Arc<Layout>) -> Result<Shard> {
    let file = ShardFile::open(location)?;
    let index = LineIndex::of(location.path(), &file, source.index_folder.as_deref())?;
    let row_groups = index.row_counts().enumerate().map(|(group, num_rows)| {
        let bytes = index.bytes_of(group);
        let num_bytes = bytes.end - bytes.start;
        let codec = Compression::UNCOMPRESSED;
        RowGroup { num_rows, num_bytes, num_compressed_bytes: num_bytes, offset: bytes.start, codec }
    });
    Ok(Shard {
        location: location.clone(),
        stamp: file.stamp(),
        footer_hash: index.hash.clone(),
        required: false,
        row_groups: row_groups.collect(),
        conversations: Some(Arc::new(Conversations { layout, rows: Stored::Lines(index) })),
    })
}

/// Reads documents of one row group from front to back, whatever they are.
#[derive(Debug)]
pub enum DocumentReader {
    /// Texts.
    Texts(Box<RowGroupReader>),
    /// Conversations, as JSON in a text column, or texts among conversations.
    Wrapped(Box<RowGroupReader>, WrappedRows, Arc<Pool<u8>>),
    /// Conversations in the leaves of a column.
    Columns(Box<ConversationReader>),
    /// Conversations a line.
    Lines(Box<LineReader>),
}

/// What texts are made into.
#[derive(Clone, Debug)]
pub enum WrappedRows {
    /// They are JSON.
    Json(Arc<Layout>),
    /// They are texts that join conversations.
    Texts,
}

impl DocumentReader {
    /// What the last call of `next_batch` could not decode, when that is why it failed and what follows can be read on.
    pub fn broken(&self) -> Option<&Broken> {
        match self {
            Self::Texts(reader) | Self::Wrapped(reader, ..) => reader.broken(),
            Self::Columns(_) | Self::Lines(_) => None,
        }
    }

    /// Whether it can be asked again after memory was refused: others may have lost rows by then.
    pub fn resumes(&self) -> bool {
        matches!(self, Self::Texts(_))
    }

    /// The next consecutive documents and the row of the first; `None` behind the last row.
    ///
    /// # Errors
    /// Bytes that cannot be decoded, a file that changed, memory that is refused, or a failure of the system.
    pub fn next_batch(&mut self) -> Result<Option<(u64, DocumentBatch)>> {
        match self {
            Self::Texts(reader) => reader.next_batch(),
            Self::Columns(reader) => reader.next_batch(),
            Self::Lines(reader) => reader.next_batch(),
            Self::Wrapped(reader, rows, pool) => {
                let Some((first_row, texts)) = reader.next_batch()? else { return Ok(None) };
                let mut batch = Rows::pooled(pool, reader.place(first_row))?;
                for text in texts.iter() {
                    batch.cover(text)?;
                    match rows {
                        WrappedRows::Json(layout) => push_json(&mut batch.bytes, text, layout),
                        WrappedRows::Texts => push_field(&mut batch.bytes, Field::Document, text),
                    }
                    batch.end()?;
                }
                Ok(batch.finish().map(|batch| (first_row, batch)))
            }
        }
    }
}

impl Shard {
    /// A reader of the documents in `rows` of a row group, whose pages lie in memory of `pool`.
    ///
    /// # Errors
    /// The file is gone, cannot be opened, or is not the one that was opened first.
    pub fn documents(
        &self,
        row_group: usize,
        rows: Range<u64>,
        pool: &Arc<Pool<u8>>,
    ) -> Result<DocumentReader> {
        let Some(conversations) = &self.conversations else {
            return Ok(DocumentReader::Texts(Box::new(self.reader(row_group, rows, pool)?)));
        };
        let layout = conversations.layout.clone();
        let wrapped = |kind| {
            let reader = Box::new(self.reader(row_group, rows.clone(), pool)?);
            Ok(DocumentReader::Wrapped(reader, kind, pool.clone()))
        };
        match &conversations.rows {
            Stored::Json => wrapped(WrappedRows::Json(layout)),
            Stored::Texts => wrapped(WrappedRows::Texts),
            Stored::Columns(columns, chunks) => {
                let file = Arc::new(ShardFile::open(&self.location)?);
                self.check_unchanged(&file)?;
                let size = file.stamp().size_bytes;
                let mut leaves = Vec::new();
                for (leaf, &(chunk, codec)) in columns.leaves().into_iter().zip(&chunks[row_group]) {
                    if chunk.offset.checked_add(chunk.compressed_bytes).is_none_or(|end| end > size) {
                        let place = Place::row_group(self.path(), row_group);
                        let reason = format!(
                            "a column's {} bytes at {} lie outside of the file's {size}",
                            chunk.compressed_bytes, chunk.offset
                        );
                        return Err(Error::Parquet { place, reason });
                    }
                    file.expect(chunk.bytes(size), pool);
                    let (file, pool) = (file.clone(), pool.clone());
                    leaves.push(LeafReader::new(leaf, file, chunk, Decompressor::new(codec), pool));
                }
                let num_rows = self.num_rows(row_group);
                let reader = ConversationReader::new(
                    self.path().to_path_buf(),
                    row_group,
                    (columns.clone(), layout),
                    leaves,
                    rows,
                    num_rows,
                    pool.clone(),
                );
                Ok(DocumentReader::Columns(Box::new(reader)))
            }
            Stored::Lines(index) => {
                let file = ShardFile::open(&self.location)?;
                if file.stamp() != self.stamp {
                    let found = LineIndex::of(self.path(), &file, None)?;
                    if found.hash != index.hash {
                        let (expected, found) = (index.hash.clone(), found.hash);
                        let path = self.path().to_path_buf();
                        return Err(Error::Changed { path, what: "content", expected, found });
                    }
                }
                file.expect(index.bytes_of(row_group), pool);
                let (path, bytes, pool) = (self.path().into(), index.bytes_of(row_group), pool.clone());
                let reader = LineReader::new(path, row_group, file, layout, bytes, rows, pool);
                Ok(DocumentReader::Lines(Box::new(reader)))
            }
        }
    }
}

/// Conversations that are being collected.
#[derive(Debug)]
struct Rows {
    bytes: Pooled<u8>,
    ends: Vec<usize>,
    /// Where they lie, for messages.
    place: Place,
}

impl Rows {
    /// None yet, with memory of `pool`.
    fn pooled(pool: &Arc<Pool<u8>>, place: Place) -> Result<Self> {
        let mut bytes = pool.take(2 * BATCH_BYTES).map_err(|refused| refused.at(place.clone()))?;
        bytes.clear();
        Ok(Self { bytes, ends: Vec::new(), place })
    }

    /// Charges what a conversation may take that is made of `stored` bytes.
    fn cover(&mut self, stored: &[u8]) -> Result<()> {
        let bytes = self.bytes.len().saturating_add(stored.len().saturating_mul(MADE_OF_A_BYTE));
        self.bytes.cover(bytes).map_err(|refused| refused.at(self.place.clone()))
    }

    fn is_enough(&self) -> bool {
        self.bytes.len() >= BATCH_BYTES
    }

    /// Ends the conversation at hand; what it has grown to is charged.
    fn end(&mut self) -> Result<()> {
        self.ends.push(self.bytes.len());
        self.bytes.settle(0).map_err(|refused| refused.at(self.place.clone()))
    }

    /// What was collected; none where nothing was.
    fn finish(self) -> Option<DocumentBatch> {
        let mut batch = DocumentBatch::new();
        let buffer = batch.add_buffer(Bytes::from_owner(self.bytes));
        let mut start = 0;
        for end in self.ends {
            batch.push(buffer, start, end);
            start = end;
        }
        (!batch.is_empty()).then_some(batch)
    }
}
