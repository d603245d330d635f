//! A small parquet writer: one column of text, the same bytes for the same texts.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::basic::{Compression, ConvertedType, LogicalType, Repetition, Type as Physical, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;

use crate::error::{Error, Place, Result};

/// zstd level: the writers of published corpora mostly use 3; higher levels cost time and save a few percent.
const ZSTD_LEVEL: i32 = 3;

/// Texts between two looks at the page's size: pages of about 1 MiB also where texts are long.
const TEXTS_PER_LOOK: usize = 16;

/// Writes shards: zstd, one required string column, no statistics (they would hold text), row groups of equal size.
pub struct ParquetWriter {
    path: PathBuf,
    /// `None` when closed.
    writer: Option<SerializedFileWriter<BufWriter<File>>>,
    row_group_documents: usize,
    texts: Vec<ByteArray>,
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
        let schema = schema(column).map_err(|source| failed(&path, source))?;
        let level = ZstdLevel::try_new(ZSTD_LEVEL).map_err(|source| failed(&path, source))?;
        let properties = WriterProperties::builder()
            .set_created_by(format!("nanofast {}", env!("CARGO_PKG_VERSION")))
            .set_compression(Compression::ZSTD(level))
            .set_dictionary_enabled(false)
            .set_statistics_enabled(EnabledStatistics::None)
            .set_write_batch_size(TEXTS_PER_LOOK)
            .set_max_row_group_row_count(None)
            .build();
        let file = File::create(&path).map_err(|source| Error::io(Place::shard(&path), source))?;
        let writer = SerializedFileWriter::new(BufWriter::new(file), Arc::new(schema), Arc::new(properties));
        let writer = Some(writer.map_err(|source| failed(&path, source))?);
        Ok(Self { path, writer, row_group_documents, texts: Vec::new() })
    }

    /// Appends texts; each full row group goes to the file.
    pub fn write<T: AsRef<str>>(&mut self, texts: impl IntoIterator<Item = T>) -> Result<()> {
        for text in texts {
            self.texts.push(text.as_ref().as_bytes().to_vec().into());
            if self.texts.len() == self.row_group_documents {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Writes what is left and the footer. A second call does nothing.
    pub fn close(&mut self) -> Result<()> {
        if self.writer.is_some() && !self.texts.is_empty() {
            self.flush()?;
        }
        let Some(writer) = self.writer.take() else { return Ok(()) };
        let buffered = writer.into_inner().map_err(|source| failed(&self.path, source))?;
        let flushed = buffered.into_inner().map(drop).map_err(|error| error.into_error());
        flushed.map_err(|source| Error::io(Place::shard(&self.path), source))
    }

    /// Where it writes.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn flush(&mut self) -> Result<()> {
        let texts = std::mem::take(&mut self.texts);
        let Some(writer) = &mut self.writer else {
            return Err(Error::config("ParquetWriter", self.path.display(), "it is closed; make a new one"));
        };
        write_row_group(writer, &texts).map_err(|source| failed(&self.path, source))
    }
}

fn schema(column: &str) -> std::result::Result<Type, ParquetError> {
    let column = Type::primitive_type_builder(column, Physical::BYTE_ARRAY)
        .with_repetition(Repetition::REQUIRED)
        .with_converted_type(ConvertedType::UTF8)
        .with_logical_type(Some(LogicalType::String))
        .build()?;
    Type::group_type_builder("schema").with_fields(vec![Arc::new(column)]).build()
}

fn write_row_group(
    writer: &mut SerializedFileWriter<BufWriter<File>>,
    texts: &[ByteArray],
) -> std::result::Result<(), ParquetError> {
    let mut row_group = writer.next_row_group()?;
    if let Some(mut column) = row_group.next_column()? {
        column.typed::<ByteArrayType>().write_batch(texts, None, None)?;
        column.close()?;
    }
    row_group.close().map(drop)
}

fn failed(path: &Path, source: ParquetError) -> Error {
    Error::io(Place::shard(path), std::io::Error::other(source))
}
