//! JSONL: one row a line, row groups of a thousand lines from an index that is built once and kept.
//!
//! ```text
//! index   byte where every 1,000th line begins, number of lines     {"version": 1, "size_bytes": …, "starts": [0, …]}
//! ```
//! Lines without anything but white space are no rows. The index is kept beside the files of others, under the hash of
//! its file's path; a file of another size or time gets another one. Where it cannot be written, it is built again.

use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::json::push_json;
use super::layout::Layout;
use crate::account::Charge;
use crate::error::{Error, Place, Result};
use crate::pool::Pool;
use crate::ragged::DocumentBatch;
use crate::source::file::{ShardFile, Stamp, Version};
use crate::source::location::is_url;
use crate::source::shard::hash;

/// Lines a row group.
const GROUP_LINES: u64 = 1000;

/// Bytes that are searched for line ends at once, and hashed at both ends of a file.
const BLOCK_BYTES: usize = 1 << 20;

/// The longest line: a longer one is no row that anybody meant.
const MAX_LINE_BYTES: u64 = 1 << 30;

/// What some editors put in front of UTF-8; JSON has no such thing.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

const VERSION: u32 = 1;

/// Where the row groups of a file begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LineIndex {
    version: u32,
    size_bytes: u64,
    /// Nanoseconds since 1970 at which the file was written, as its system says; or the hash of an object's version.
    modified_ns: u64,
    /// First byte of each row group; then the file's end.
    starts: Vec<u64>,
    pub(super) num_lines: u64,
    /// Hash of the file's beginning and end and of what stands above.
    pub(super) hash: String,
}

impl LineIndex {
    /// The index of `file`, from `folder` where it was kept there.
    pub(super) fn of(path: &Path, file: &ShardFile, folder: Option<&Path>) -> Result<Self> {
        let kept_at = folder.map(|folder| kept_at(folder, path));
        let stamp = file.stamp();
        let kept = kept_at.as_deref().and_then(|kept_at| std::fs::read(kept_at).ok());
        let kept = kept.and_then(|json| serde_json::from_slice::<Self>(&json).ok());
        if let Some(kept) = kept.filter(|kept| kept.is_of(stamp)) {
            return Ok(kept);
        }
        let index = Self::build(file)?;
        if let Some(kept_at) = kept_at {
            index.keep(&kept_at);
        }
        Ok(index)
    }

    fn is_of(&self, stamp: Stamp) -> bool {
        let is_whole = self.starts.len() as u64 == self.num_lines.div_ceil(GROUP_LINES) + 1
            && self.starts.is_sorted()
            && self.starts.last() == Some(&stamp.size_bytes);
        let found = (self.version, self.size_bytes, self.modified_ns);
        is_whole && found == (VERSION, stamp.size_bytes, modified_ns(stamp))
    }

    /// Written aside and renamed, so that others find it whole or not at all. A folder that refuses is no failure.
    fn keep(&self, path: &Path) {
        let write = || -> std::io::Result<()> {
            let folder = path.parent().unwrap_or(Path::new("."));
            std::fs::create_dir_all(folder)?;
            let aside = path.with_extension(format!("writing-{}", std::process::id()));
            let mut file = std::fs::File::create(&aside)?;
            file.write_all(serde_json::to_string(self)?.as_bytes())?;
            std::fs::rename(aside, path)
        };
        let _ = write();
    }

    fn build(file: &ShardFile) -> Result<Self> {
        let stamp = file.stamp();
        file.expect(0..stamp.size_bytes, &Pool::new());
        let (mut starts, mut num_lines) = (vec![], 0);
        let (mut begun, mut has_text) = (0, false);
        let mut end_line = |begun: u64, has_text: bool| {
            if has_text {
                if num_lines % GROUP_LINES == 0 {
                    starts.push(begun);
                }
                num_lines += 1;
            }
        };
        for block in (0..stamp.size_bytes).step_by(BLOCK_BYTES) {
            let bytes = file.read(block, BLOCK_BYTES.min((stamp.size_bytes - block) as usize))?;
            let mut from = 0;
            for end in memchr::memchr_iter(b'\n', &bytes) {
                end_line(begun, has_text || !bytes[from..end].trim_ascii_start().is_empty());
                (from, begun, has_text) = (end + 1, block + end as u64 + 1, false);
            }
            has_text |= !bytes[from..].trim_ascii_start().is_empty();
        }
        end_line(begun, has_text);
        starts.push(stamp.size_bytes);
        let mut index = Self {
            version: VERSION,
            size_bytes: stamp.size_bytes,
            modified_ns: modified_ns(stamp),
            starts,
            num_lines,
            hash: String::new(),
        };
        let edge = BLOCK_BYTES.min(stamp.size_bytes as usize);
        let (first, last) = (file.read(0, edge)?, file.read(stamp.size_bytes - edge as u64, edge)?);
        let starts: Vec<u8> = index.starts.iter().flat_map(|start| start.to_le_bytes()).collect();
        index.hash = hash(&[&starts[..], &first, &last].concat());
        Ok(index)
    }

    /// Lines of each row group.
    pub(super) fn row_counts(&self) -> impl Iterator<Item = u64> {
        (0..self.num_lines).step_by(GROUP_LINES as usize).map(|first| GROUP_LINES.min(self.num_lines - first))
    }

    /// Bytes of a row group.
    pub(super) fn bytes_of(&self, row_group: usize) -> Range<u64> {
        self.starts[row_group]..self.starts[row_group + 1]
    }
}

fn modified_ns(stamp: Stamp) -> u64 {
    match stamp.version {
        Version::Tag(tag) => tag,
        Version::Modified(time) => {
            let modified = time.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
            modified.map_or(0, |since| since.as_nanos() as u64)
        }
    }
}

fn kept_at(folder: &Path, path: &Path) -> PathBuf {
    let path =
        if is_url(path) { None } else { std::path::absolute(path).ok() }.unwrap_or_else(|| path.into());
    folder.join(format!("{}.json", &hash(path.as_os_str().as_encoded_bytes())[..32]))
}

/// Reads the lines of one row group from front to back.
#[derive(Debug)]
pub struct LineReader {
    path: PathBuf,
    row_group: usize,
    file: ShardFile,
    layout: Arc<Layout>,
    bytes: Range<u64>,
    /// What is read of the file and not yet used, from its `position` on.
    block: Bytes,
    position: usize,
    /// Of the account, for the block.
    charge: Option<Charge>,
    row: u64,
    rows: Range<u64>,
    pool: Arc<Pool<u8>>,
}

impl LineReader {
    pub(super) fn new(
        path: PathBuf,
        row_group: usize,
        file: ShardFile,
        layout: Arc<Layout>,
        bytes: Range<u64>,
        rows: Range<u64>,
        pool: Arc<Pool<u8>>,
    ) -> Self {
        let (block, position, charge, row) = (Bytes::new(), 0, None, 0);
        Self { path, row_group, file, layout, bytes, block, position, charge, row, rows, pool }
    }

    fn place(&self) -> Place {
        Place::row(&self.path, self.row_group, self.row)
    }

    /// The next consecutive conversations and the row of the first; `None` behind the last row.
    ///
    /// # Errors
    /// A file that changed, memory that is refused, or a failure of the system.
    pub fn next_batch(&mut self) -> Result<Option<(u64, DocumentBatch)>> {
        let first_row = self.row.max(self.rows.start);
        let mut batch = super::Rows::pooled(&self.pool, self.place())?;
        while self.row < self.rows.end && !batch.is_enough() {
            let Some(line) = self.line()? else { break };
            let line = line.trim_ascii();
            if line.is_empty() {
                continue;
            }
            let is_first = (self.row_group, self.row) == (0, 0);
            let line = line.strip_prefix(BYTE_ORDER_MARK).filter(|_| is_first).unwrap_or(line);
            if self.row >= self.rows.start {
                batch.cover(line)?;
                push_json(&mut batch.bytes, line, &self.layout);
                batch.end()?;
            }
            self.row += 1;
        }
        Ok(batch.finish().map(|batch| (first_row, batch)))
    }

    /// The next line, without its end.
    fn line(&mut self) -> Result<Option<Bytes>> {
        let mut wanted = BLOCK_BYTES as u64;
        loop {
            let left = &self.block[self.position..];
            if let Some(end) = memchr::memchr(b'\n', left) {
                let line = self.block.slice(self.position..self.position + end);
                self.position += end + 1;
                return Ok(Some(line));
            }
            if self.bytes.is_empty() {
                let line = self.block.slice(self.position..);
                self.position = self.block.len();
                return Ok((!line.is_empty()).then_some(line));
            }
            let more = wanted.min(self.bytes.end - self.bytes.start);
            if left.len() as u64 + more > MAX_LINE_BYTES {
                let reason = format!("a line of more than {MAX_LINE_BYTES} bytes");
                return Err(Error::Parquet { place: self.place(), reason });
            }
            // What is read, what is left, and both as one.
            let charged = self.pool.account().charge(2 * (left.len() + more as usize));
            self.charge = Some(charged.map_err(|refused| refused.at(self.place()))?);
            let read = self.file.read(self.bytes.start, more as usize)?;
            self.block = if left.is_empty() { read } else { [left, &read[..]].concat().into() };
            self.position = 0;
            self.bytes.start += more;
            wanted *= 2; // a line longer than a block is copied as often as it doubles
        }
    }
}
