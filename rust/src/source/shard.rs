//! One parquet file: its footer read once, its row groups opened as often as wanted.
//!
//! Opening is a pure function of the path and the column, so many shards may be opened on many threads. A shard holds
//! no open file: each reader opens it again and makes sure that it is still the same file.

use std::fmt::Display;
use std::ops::Range;
use std::panic::catch_unwind;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::file::metadata::{
    ColumnChunkMetaData, FooterTail, ParquetMetaData, ParquetMetaDataOptions, ParquetMetaDataReader,
    ParquetStatisticsPolicy,
};
use sha2::{Digest, Sha256};

use super::conversations::Conversations;
use super::file::{ShardFile, Stamp};
use super::footer_shape::{check_behind, schema_end};
use super::location::Location;
use super::page::Chunk;
use super::remote::{Tails, planned};
use super::row_group::{RowGroupReader, Target};
use super::schema;
use crate::error::{Error, Place, Result};
use crate::pool::Pool;
use crate::quarantine::BadFile;

/// Length of the footer's length and the magic number behind it.
pub(super) const TAIL_BYTES: u64 = 8;

/// What the footer says of the text column in one row group.
#[derive(Clone, Copy, Debug)]
pub struct RowGroup {
    /// Documents.
    pub num_rows: u64,
    /// Bytes of the column when decompressed: its text and a little more.
    pub num_bytes: u64,
    /// Bytes of the column in the file.
    pub num_compressed_bytes: u64,
    pub(super) offset: u64,
    pub(super) codec: Compression,
}

/// A parquet file with a text column.
#[derive(Clone, Debug)]
pub struct Shard {
    pub(super) location: Location,
    pub(super) stamp: Stamp,
    pub(super) footer_hash: String,
    /// Whether no row can be null.
    pub(super) required: bool,
    pub(super) row_groups: Vec<RowGroup>,
    /// How its rows are conversations, where they are.
    pub(super) conversations: Option<Arc<Conversations>>,
}

/// Opens shards in order; the first failure wins. What their footers say is kept for objects, whose footers are fetched
/// many at a time.
pub fn open_shards<L: Clone + Into<Location>>(shards: &[L], column: &str) -> Result<Vec<Shard>> {
    let locations: Vec<Location> = shards.iter().cloned().map(Into::into).collect();
    planned(&locations, column, || {
        let mut tails = Tails::of(&locations);
        let shard = |location: &Location| {
            tails.next(location)?;
            open_shard(location.clone(), column)
        };
        locations.iter().map(shard).collect()
    })
}

/// As `open_shards`, but files whose footer cannot be read are left out and come back beside the shards.
///
/// # Errors
/// As `open_shards`, a file that is damaged excepted; and when every file is.
pub fn open_readable_shards<L: Clone + Into<Location>>(
    shards: &[L],
    column: &str,
) -> Result<(Vec<Shard>, Vec<BadFile>)> {
    let locations: Vec<Location> = shards.iter().cloned().map(Into::into).collect();
    let (mut tails, mut shards, mut bad_files, mut first) = (Tails::of(&locations), vec![], vec![], None);
    for location in &locations {
        tails.next(location)?;
        match open_shard(location.clone(), column) {
            Ok(shard) => shards.push(shard),
            Err(Error::Parquet { place, reason }) => {
                bad_files.push(BadFile { name: name_of(location.path()), reason: reason.clone() });
                first.get_or_insert(Error::Parquet { place, reason });
            }
            Err(error) => return Err(error),
        }
    }
    match first {
        Some(error) if shards.is_empty() => Err(error),
        _ => Ok((shards, bad_files)),
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Reads the footer of a shard and finds the text column `column` in it.
///
/// # Errors
/// A file that is not there, no parquet, encrypted or damaged, and a column that is missing or holds no text.
pub fn open_shard(location: impl Into<Location>, column: &str) -> Result<Shard> {
    let location = location.into();
    let (file, path) = (ShardFile::open(&location)?, location.path());
    let footer = read_footer(path, &file)?;
    let metadata = decode_footer(path, &footer[..footer.len() - TAIL_BYTES as usize])?;
    let (leaf, required) = schema::text_column(path, metadata.file_metadata().schema_descr(), column)?;
    let (expected, found) = (metadata.file_metadata().num_rows(), metadata.row_groups().iter());
    let found = found.fold(0, |sum: i64, group| sum.saturating_add(group.num_rows()));
    if found != expected {
        return Err(damaged(path, format!("row groups of {found} rows in a file of {expected}")));
    }
    let row_groups = metadata.row_groups().iter().enumerate().map(|(index, group)| {
        let found = group.columns().get(leaf).ok_or_else(|| "a row group without the column".to_string());
        found.and_then(|chunk| row_group(group.num_rows(), chunk)).map_err(|reason| {
            let place = Place::row_group(path, index);
            Error::Parquet { place, reason }
        })
    });
    let row_groups = row_groups.collect::<Result<_>>()?;
    Ok(Shard {
        stamp: file.stamp(),
        footer_hash: hash(&footer),
        required,
        row_groups,
        location,
        conversations: None,
    })
}

impl Shard {
    /// Its file name without the folder.
    pub fn name(&self) -> String {
        name_of(self.path())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.location.path()
    }

    /// Whether its bytes come from a server, so that it pays to ask for them early.
    pub fn is_remote(&self) -> bool {
        matches!(self.location, Location::Remote(_))
    }

    /// The file's size.
    pub fn size_bytes(&self) -> u64 {
        self.stamp.size_bytes
    }

    /// SHA-256 of the footer, in hexadecimal digits.
    pub fn footer_hash(&self) -> &str {
        &self.footer_hash
    }

    /// The row groups in order.
    pub fn row_groups(&self) -> &[RowGroup] {
        &self.row_groups
    }

    /// Documents of each row group.
    pub fn row_counts(&self) -> Vec<u64> {
        self.row_groups.iter().map(|group| group.num_rows).collect()
    }

    /// Documents of one row group.
    pub fn num_rows(&self, row_group: usize) -> u64 {
        self.row_groups[row_group].num_rows
    }

    /// A reader of `rows` of a row group, whose pages lie in memory of `pool`.
    ///
    /// # Errors
    /// The file is gone, cannot be opened, or is not the one whose footer was read.
    pub fn reader(&self, row_group: usize, rows: Range<u64>, pool: &Arc<Pool<u8>>) -> Result<RowGroupReader> {
        let file = ShardFile::open(&self.location)?;
        self.check_unchanged(&file)?;
        let group = self.row_groups[row_group];
        let chunk = Chunk {
            offset: group.offset,
            compressed_bytes: group.num_compressed_bytes,
            uncompressed_bytes: group.num_bytes,
            num_rows: group.num_rows,
            is_compressed: group.codec != Compression::UNCOMPRESSED,
        };
        let (path, required, codec) = (self.path().into(), self.required, group.codec);
        Ok(RowGroupReader::new(
            Target { path, row_group, required, chunk, codec, pool: pool.clone() },
            file,
            rows,
        ))
    }

    /// The error of a row group that holds fewer rows than its footer says.
    pub fn ends_early(&self, row_group: usize, row: u64) -> Error {
        let reason = format!("the row group ends before its {} rows", self.num_rows(row_group));
        Error::Parquet { place: Place::row(self.path(), row_group, row), reason }
    }

    /// Size and time of writing tell at no cost; where only the time differs, the footer decides.
    pub(super) fn check_unchanged(&self, file: &ShardFile) -> Result<()> {
        let (expected, found) = (self.stamp, file.stamp());
        if found == expected {
            return Ok(());
        }
        if found.size_bytes != expected.size_bytes {
            return Err(Error::size_changed(self.path(), expected.size_bytes, found.size_bytes));
        }
        match hash(&read_footer(self.path(), file)?) {
            found if found == self.footer_hash => Ok(()),
            found => Err(Error::Changed {
                path: self.path().into(),
                what: "footer",
                expected: self.footer_hash.clone(),
                found,
            }),
        }
    }
}

pub(super) fn damaged(path: &Path, reason: impl Into<String>) -> Error {
    Error::Parquet { place: Place::shard(path), reason: reason.into() }
}

/// SHA-256 in hexadecimal digits.
pub(super) fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The footer with its length and magic number.
pub(super) fn read_footer(path: &Path, file: &ShardFile) -> Result<bytes::Bytes> {
    let size = file.stamp().size_bytes;
    if size < TAIL_BYTES + 4 {
        return Err(damaged(path, format!("a file of {size} bytes is no parquet file")));
    }
    let tail = file.read(size - TAIL_BYTES, TAIL_BYTES as usize)?;
    if &tail[4..] == b"PARE" {
        return Err(Error::Encrypted { path: path.into() });
    }
    let tail = tail.first_chunk().ok_or_else(|| damaged(path, "no tail"))?;
    let Ok(tail) = FooterTail::try_new(tail) else {
        let found = String::from_utf8_lossy(&tail[4..]).escape_debug().to_string();
        return Err(damaged(path, format!("it ends with `{found}` instead of `PAR1`")));
    };
    let length = tail.metadata_length() as u64 + TAIL_BYTES;
    if length + 4 > size {
        return Err(damaged(path, format!("a footer of {length} bytes in a file of {size}")));
    }
    file.read(size - length, length as usize)
}

/// The parquet crate parses the footer; statistics are left out. A panic of it is a footer that cannot be read.
pub(super) fn decode_footer(path: &Path, footer: &[u8]) -> Result<ParquetMetaData> {
    decode_footer_with(path, footer, ParquetStatisticsPolicy::SkipAll)
}

/// As `decode_footer`, with the statistics of columns that `statistics` names.
pub(super) fn decode_footer_with(
    path: &Path,
    footer: &[u8],
    statistics: ParquetStatisticsPolicy,
) -> Result<ParquetMetaData> {
    let unreadable = |reason: &dyn Display| damaged(path, format!("a footer that cannot be read: {reason}"));
    let decode = |footer: &[u8], options: &ParquetMetaDataOptions| match catch_unwind(|| {
        ParquetMetaDataReader::decode_metadata_with_options(footer, Some(options))
    }) {
        Ok(Ok(metadata)) => Ok(metadata),
        Ok(Err(source)) => Err(unreadable(&source)),
        Err(_) => Err(damaged(path, "a footer that the decoder panics on")),
    };
    // The schema that was looked through is the one that counts, whatever follows it.
    let schema_end = schema_end(footer).map_err(|reason| unreadable(&reason))?;
    check_behind(footer, schema_end).map_err(|reason| unreadable(&reason))?;
    let alone = [&footer[..schema_end], NO_ROW_GROUPS].concat();
    let schema = decode(&alone, &ParquetMetaDataOptions::new())?.file_metadata().schema_descr_ptr();
    let options = ParquetMetaDataOptions::new()
        .with_schema(schema)
        .with_column_stats_policy(statistics)
        .with_encoding_stats_policy(ParquetStatisticsPolicy::SkipAll)
        .with_size_stats_policy(ParquetStatisticsPolicy::SkipAll);
    decode(footer, &options)
}

/// What may follow a schema in a footer: no rows, no row groups, the end.
const NO_ROW_GROUPS: &[u8] = &[0x16, 0, 0x19, 0x0c, 0];

/// What the footer says of a column chunk, when it can be so.
fn row_group(num_rows: i64, column: &ColumnChunkMetaData) -> std::result::Result<RowGroup, String> {
    let (chunk, codec) = chunk_of(column)?;
    let rows = u64::try_from(num_rows).map_err(|_| format!("{num_rows} rows"))?;
    if rows != chunk.num_rows {
        return Err(format!("{} values of the column for {rows} rows", chunk.num_rows));
    }
    Ok(RowGroup {
        num_rows: rows,
        num_bytes: chunk.uncompressed_bytes,
        num_compressed_bytes: chunk.compressed_bytes,
        offset: chunk.offset,
        codec,
    })
}

/// Where a column chunk lies, its values taken for rows, and how it is compressed.
pub(super) fn chunk_of(chunk: &ColumnChunkMetaData) -> std::result::Result<(Chunk, Compression), String> {
    let size = |value: i64, what: &str| u64::try_from(value).map_err(|_| format!("{value} {what}"));
    let data = size(chunk.data_page_offset(), "as the offset of the first page")?;
    // Some writers put 0 where there is no dictionary.
    let dictionary = chunk.dictionary_page_offset().and_then(|offset| u64::try_from(offset).ok());
    let offset = dictionary.filter(|&offset| 0 < offset && offset < data).unwrap_or(data);
    if chunk.file_path().is_some_and(|path| !path.is_empty()) {
        return Err("a column in another file, which is not supported".into());
    }
    let codec = chunk.compression();
    let chunk = Chunk {
        offset,
        compressed_bytes: size(chunk.compressed_size(), "compressed bytes")?,
        uncompressed_bytes: size(chunk.uncompressed_size(), "uncompressed bytes")?,
        num_rows: size(chunk.num_values(), "values")?,
        is_compressed: codec != Compression::UNCOMPRESSED,
    };
    Ok((chunk, codec))
}
