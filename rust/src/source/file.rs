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

    /// The whole file, for messages.
    pub(super) fn place(&self) -> Place {
        Place::shard(&self.path)
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
        let read = retried(|| read_exact_at(&self.file, bytes, offset));
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

/// Attempts at a read: network file systems fail now and then, and a failure never costs data, only the run.
const ATTEMPTS: usize = 3;

/// What `read` gives, tried again where that may help: a file that ends too soon will not grow.
fn retried(mut read: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    for _ in 1..ATTEMPTS {
        match read() {
            Err(source) if source.kind() != io::ErrorKind::UnexpectedEof => {}
            result => return result,
        }
    }
    read()
}

fn stamp(metadata: &Metadata) -> Stamp {
    Stamp { size_bytes: metadata.len(), modified: metadata.modified().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_that_fails_is_tried_again_and_one_beyond_the_end_is_not() {
        let attempts = |kind: io::ErrorKind, failures: usize| {
            let mut count = 0;
            let result = retried(|| {
                count += 1;
                if count > failures { Ok(()) } else { Err(kind.into()) }
            });
            (count, result.map_err(|error| error.kind()))
        };
        assert_eq!(attempts(io::ErrorKind::TimedOut, 2), (3, Ok(())));
        assert_eq!(attempts(io::ErrorKind::TimedOut, 9), (3, Err(io::ErrorKind::TimedOut)));
        assert_eq!(attempts(io::ErrorKind::UnexpectedEof, 9), (1, Err(io::ErrorKind::UnexpectedEof)));
    }
}
