//! A shard's bytes by position: reads that share no cursor, and a file that must stay what it was.

use std::cell::Cell;
use std::fs::{File, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;

use crate::error::{Error, Place, Result};
use crate::read_at::read_exact_at;

thread_local! {
    static TIME_READING: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// What this thread spent on reading files since the last call.
pub fn take_time_reading() -> Duration {
    TIME_READING.take()
}

/// What tells a file from another one of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) size_bytes: u64,
    pub(super) modified: Option<SystemTime>,
}

/// An open shard.
#[derive(Debug)]
pub(super) struct ShardFile {
    file: File,
    path: PathBuf,
    stamp: Stamp,
}

impl ShardFile {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let failed = |source| Error::io(Place::shard(path), source);
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.is_dir() {
            return Err(failed(io::Error::from(io::ErrorKind::IsADirectory)));
        }
        Ok(Self { file, path: path.into(), stamp: stamp(&metadata) })
    }

    pub(super) fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// `length` bytes from `offset` on. The caller has held both against the file's size.
    pub(super) fn read(&self, offset: u64, length: usize) -> Result<Bytes> {
        let mut bytes = Vec::new();
        self.read_into(&mut bytes, offset, length)?;
        Ok(bytes.into())
    }

    /// As `read`, into a vector whose length and content do not matter.
    pub(super) fn read_into(&self, bytes: &mut Vec<u8>, offset: u64, length: usize) -> Result<()> {
        bytes.try_reserve_exact(length.saturating_sub(bytes.len())).map_err(|source| Error::Resource {
            what: "memory",
            reason: format!("{length} bytes for a page of `{}`: {source}", self.path.display()),
        })?;
        bytes.resize(length, 0);
        let start = Instant::now();
        let read = read_exact_at(&self.file, bytes, offset);
        TIME_READING.set(TIME_READING.get() + start.elapsed());
        read.map_err(|source| self.failed(source))
    }

    /// A read beyond the end is a file that was cut since it was opened.
    fn failed(&self, source: io::Error) -> Error {
        let expected = self.stamp.size_bytes;
        match self.file.metadata().map(|metadata| metadata.len()) {
            Ok(found) if found != expected => Error::size_changed(&self.path, expected, found),
            _ => Error::io(Place::shard(&self.path), source),
        }
    }
}

fn stamp(metadata: &Metadata) -> Stamp {
    Stamp { size_bytes: metadata.len(), modified: metadata.modified().ok() }
}
