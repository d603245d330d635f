//! What the footer says of a whole file, for people who look at data before they train on it.

use parquet::file::metadata::ParquetStatisticsPolicy;
use parquet::file::statistics::Statistics;
use serde::Serialize;

use super::file::ShardFile;
use super::location::Location;
use super::schema::{describe, holds_text};
use super::shard::{TAIL_BYTES, decode_footer_with, read_footer};
use crate::error::Result;

/// A file, its columns and its row groups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileFacts {
    /// Bytes of the file.
    pub size_bytes: u64,
    /// Rows that the footer states.
    pub num_rows: i64,
    /// Who wrote it.
    pub created_by: Option<String>,
    /// Top-level columns, in the file's order.
    pub columns: Vec<ColumnFacts>,
    /// Row groups, in order.
    pub row_groups: Vec<RowGroupFacts>,
}

/// A top-level column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ColumnFacts {
    /// Its name.
    pub name: String,
    /// Its type, in the words that its readers use.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether documents can be read from it.
    pub is_text: bool,
}

/// A row group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RowGroupFacts {
    /// Its rows.
    pub num_rows: i64,
    /// Its chunks, one for each leaf of the schema.
    pub chunks: Vec<ChunkFacts>,
}

/// A column's part of a row group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChunkFacts {
    /// The path of the leaf in the schema, joined with dots.
    pub path: String,
    /// How its pages are compressed.
    pub compression: String,
    /// How its values are encoded.
    pub encodings: Vec<String>,
    /// Bytes in the file.
    pub compressed_bytes: i64,
    /// Bytes when decompressed.
    pub uncompressed_bytes: i64,
    /// Rows without a value, where the writer counted them.
    pub num_nulls: Option<u64>,
}

/// Reads the footer of a file.
///
/// # Errors
/// A file that is not there, no parquet, encrypted or damaged.
pub fn file_facts(location: &Location) -> Result<FileFacts> {
    let (file, path) = (ShardFile::open(location)?, location.path());
    let footer = read_footer(path, &file)?;
    let footer = &footer[..footer.len() - TAIL_BYTES as usize];
    let metadata = decode_footer_with(path, footer, ParquetStatisticsPolicy::KeepAll)?;
    let fields = metadata.file_metadata().schema_descr().root_schema().get_fields();
    let columns = fields.iter().map(|field| ColumnFacts {
        name: field.name().into(),
        kind: describe(field),
        is_text: holds_text(field),
    });
    let row_groups = metadata.row_groups().iter().map(|group| RowGroupFacts {
        num_rows: group.num_rows(),
        chunks: group
            .columns()
            .iter()
            .map(|chunk| ChunkFacts {
                path: chunk.column_path().string(),
                compression: format!("{}", chunk.compression()).split('(').next().unwrap_or_default().into(),
                encodings: chunk.encodings().map(|encoding| format!("{encoding}")).collect(),
                compressed_bytes: chunk.compressed_size(),
                uncompressed_bytes: chunk.uncompressed_size(),
                num_nulls: chunk.statistics().and_then(Statistics::null_count_opt),
            })
            .collect(),
    });
    Ok(FileFacts {
        size_bytes: file.stamp().size_bytes,
        num_rows: metadata.file_metadata().num_rows(),
        created_by: metadata.file_metadata().created_by().map(Into::into),
        columns: columns.collect(),
        row_groups: row_groups.collect(),
    })
}
