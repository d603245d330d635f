//! A small parquet writer: one column of text, with page checksums, the same bytes for the same texts.
//!
//! ```text
//! PAR1  [header][zstd(length text length text ...)]  ...  [footer]  length  PAR1
//! ```
//! Pages go to the file as they fill up, so it holds one page at most. They are framed here and not by the parquet
//! crate because that one writes no checksums; the footer is the crate's.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;

use parquet::basic::{
    Compression, ConvertedType, Encoding, LogicalType, Repetition, Type as Physical, ZstdLevel,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::{
    ColumnChunkMetaData, FileMetaData, ParquetMetaData, ParquetMetaDataWriter, RowGroupMetaData,
};
use parquet::schema::types::{SchemaDescPtr, SchemaDescriptor, Type};

use super::thrift::put_integer;
use crate::error::{Error, Place, Result};

/// zstd level: the writers of published corpora mostly use 3; higher levels cost time and save a few percent.
const ZSTD_LEVEL: i32 = 3;

/// Text a page: parquet's usual size. A page is the smallest part that can be lost when a file is damaged.
const PAGE_BYTES: usize = 1 << 20;

/// Writes shards: zstd, one required string column, no statistics (they would hold text), row groups of equal size.
pub struct ParquetWriter {
    path: PathBuf,
    /// `None` when closed.
    file: Option<BufWriter<File>>,
    position: u64,
    compressor: zstd::bulk::Compressor<'static>,
    schema: SchemaDescPtr,
    row_group_documents: usize,
    page: Part,
    row_group: Part,
    finished: Vec<RowGroupMetaData>,
}

/// What a page or a row group has so far.
#[derive(Debug, Default)]
struct Part {
    /// The page's texts, each behind its length; empty for a row group.
    texts: Vec<u8>,
    num_rows: usize,
    uncompressed_bytes: u64,
    compressed_bytes: u64,
}

impl std::fmt::Debug for ParquetWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ParquetWriter").field("path", &self.path).finish_non_exhaustive()
    }
}

impl ParquetWriter {
    /// Creates or truncates `path`; `row_group_documents` is at least 1.
    pub fn create(path: impl Into<PathBuf>, column: &str, row_group_documents: usize) -> Result<Self> {
        let path = path.into();
        if row_group_documents == 0 {
            return Err(Error::config("row_group_documents", 0, "it is at least 1"));
        }
        let schema = schema(column).map_err(|source| Error::config("column", column, source.to_string()))?;
        let failed = |source| Error::io(Place::shard(&path), source);
        let compressor = zstd::bulk::Compressor::new(ZSTD_LEVEL).map_err(failed)?;
        let mut file = BufWriter::new(File::create(&path).map_err(failed)?);
        file.write_all(b"PAR1").map_err(failed)?;
        Ok(Self {
            path,
            file: Some(file),
            position: 4,
            compressor,
            schema: Arc::new(SchemaDescriptor::new(Arc::new(schema))),
            row_group_documents,
            page: Part::default(),
            row_group: Part::default(),
            finished: Vec::new(),
        })
    }

    /// Appends texts.
    pub fn write<T: AsRef<str>>(&mut self, texts: impl IntoIterator<Item = T>) -> Result<()> {
        for text in texts {
            let text = text.as_ref();
            let Some(length) = u32::try_from(text.len()).ok().filter(|&length| length <= MAX_TEXT_BYTES)
            else {
                let rule = format!("a text holds at most {MAX_TEXT_BYTES} bytes; split it");
                return Err(Error::config("text", format!("{} bytes", text.len()), rule));
            };
            if self.page.texts.len() + text.len() > MAX_TEXT_BYTES as usize {
                self.end_page()?;
            }
            self.page.texts.extend_from_slice(&length.to_le_bytes());
            self.page.texts.extend_from_slice(text.as_bytes());
            self.page.num_rows += 1;
            if self.page.texts.len() >= PAGE_BYTES {
                self.end_page()?;
            }
            if self.row_group.num_rows + self.page.num_rows == self.row_group_documents {
                self.end_row_group()?;
            }
        }
        Ok(())
    }

    /// Writes what is left and the footer. A second call does nothing.
    pub fn close(&mut self) -> Result<()> {
        if self.file.is_none() {
            return Ok(());
        }
        self.end_row_group()?;
        let num_rows = self.finished.iter().map(RowGroupMetaData::num_rows).sum();
        let version = Some(format!("nanofast {}", env!("CARGO_PKG_VERSION")));
        let file_metadata = FileMetaData::new(1, num_rows, version, None, self.schema.clone(), None);
        let metadata = ParquetMetaData::new(file_metadata, std::mem::take(&mut self.finished));
        let mut footer = Vec::new();
        let written = ParquetMetaDataWriter::new(&mut footer, &metadata).finish();
        written.map_err(|source| self.failed(source))?;
        self.put(&footer)?;
        match self.file.take().map(BufWriter::into_inner) {
            Some(Err(error)) => Err(Error::io(Place::shard(&self.path), error.into_error())),
            _ => Ok(()),
        }
    }

    fn end_page(&mut self) -> Result<()> {
        let page = std::mem::take(&mut self.page);
        if page.num_rows == 0 {
            return Ok(());
        }
        let compressed = self.compressor.compress(&page.texts);
        let compressed = compressed.map_err(|source| Error::io(Place::shard(&self.path), source))?;
        let header = header(page.texts.len(), &compressed, page.num_rows);
        self.put(&header)?;
        self.put(&compressed)?;
        self.row_group.num_rows += page.num_rows;
        self.row_group.uncompressed_bytes += (header.len() + page.texts.len()) as u64;
        self.row_group.compressed_bytes += (header.len() + compressed.len()) as u64;
        // The next page is filled in the same memory.
        self.page.texts = page.texts;
        self.page.texts.clear();
        Ok(())
    }

    fn end_row_group(&mut self) -> Result<()> {
        self.end_page()?;
        let part = std::mem::take(&mut self.row_group);
        if part.num_rows > 0 {
            let row_group = row_group(&self.schema, &part, self.position - part.compressed_bytes);
            self.finished.push(row_group.map_err(|source| self.failed(source))?);
        }
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(file) = &mut self.file else {
            return Err(Error::config("ParquetWriter", self.path.display(), "it is closed; make a new one"));
        };
        file.write_all(bytes).map_err(|source| Error::io(Place::shard(&self.path), source))?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    fn failed(&self, source: ParquetError) -> Error {
        Error::io(Place::shard(&self.path), std::io::Error::other(source))
    }
}

/// A page with its lengths must fit into the 31 bits of its header.
const MAX_TEXT_BYTES: u32 = (1 << 31) - (1 << 16);

/// The header of a page of version 1 of PLAIN texts without nulls.
fn header(uncompressed_bytes: usize, compressed: &[u8], num_rows: usize) -> Vec<u8> {
    const I32: u8 = 0x15; // the next field, an integer
    const STRUCT: u8 = 0x1c;
    const PLAIN: i64 = 0;
    const LEVELS: i64 = 3; // named even where there are none
    let checksum = i64::from(crc32fast::hash(compressed) as i32);
    let mut header = Vec::new();
    let put = |header: &mut Vec<u8>, fields: [i64; 4]| {
        for field in fields {
            header.push(I32);
            put_integer(header, field);
        }
    };
    put(&mut header, [0, uncompressed_bytes as i64, compressed.len() as i64, checksum]);
    header.push(STRUCT);
    put(&mut header, [num_rows as i64, PLAIN, LEVELS, LEVELS]);
    header.extend([0, 0]); // the ends of the part and of the header
    header
}

fn row_group(
    schema: &SchemaDescPtr,
    part: &Part,
    offset: u64,
) -> std::result::Result<RowGroupMetaData, ParquetError> {
    let column = ColumnChunkMetaData::builder(schema.column(0))
        .set_encodings(vec![Encoding::PLAIN, Encoding::RLE])
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
        .set_num_values(part.num_rows as i64)
        .set_total_uncompressed_size(part.uncompressed_bytes as i64)
        .set_total_compressed_size(part.compressed_bytes as i64)
        .set_data_page_offset(offset as i64)
        .build()?;
    RowGroupMetaData::builder(schema.clone())
        .set_num_rows(part.num_rows as i64)
        .set_total_byte_size(part.uncompressed_bytes as i64)
        .set_column_metadata(vec![column])
        .build()
}

fn schema(column: &str) -> std::result::Result<Type, ParquetError> {
    let column = Type::primitive_type_builder(column, Physical::BYTE_ARRAY)
        .with_repetition(Repetition::REQUIRED)
        .with_converted_type(ConvertedType::UTF8)
        .with_logical_type(Some(LogicalType::String))
        .build()?;
    Type::group_type_builder("schema").with_fields(vec![Arc::new(column)]).build()
}
