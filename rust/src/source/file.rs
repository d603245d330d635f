//! A shard's bytes by position: reads that share no cursor, and a file that must stay what it was.

use std::cell::{Cell, RefCell};
use std::fs::{File, Metadata};
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;

use super::location::Location;
use super::remote::Reader;
use crate::error::{Error, Place, Result};
use crate::pool::Pool;
use crate::read_at::read_exact_at;

/// Whether the thread's reads are wanted no longer.
type GivesUp = Arc<dyn Fn() -> bool>;

thread_local! {
    static TIME_READING: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    static GIVES_UP: RefCell<Option<GivesUp>> = const { RefCell::new(None) };
}

/// What this thread spent on reading files since the last call.
pub fn take_time_reading() -> Duration {
    TIME_READING.take()
}

/// Does `work`, whose waits for a server end with an error once `gives_up` says so. It is asked on this thread, some
/// twenty times a second.
pub fn reading_until<T>(gives_up: impl Fn() -> bool + 'static, work: impl FnOnce() -> T) -> T {
    let before = GIVES_UP.replace(Some(Arc::new(gives_up)));
    let done = work();
    GIVES_UP.replace(before);
    done
}

/// Whether this thread's waits are to end.
#[cfg(feature = "remote")]
pub(super) fn gives_up() -> bool {
    let asked = GIVES_UP.with_borrow(Option::clone);
    asked.is_some_and(|gives_up| gives_up())
}

/// What tells a file from another one of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) size_bytes: u64,
    pub(super) version: Version,
}

/// When a file was written, as its system says; or a hash of what a server calls an object's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    Modified(Option<SystemTime>),
    Tag(u64),
}

/// An open shard.
#[derive(Debug)]
pub(super) struct ShardFile {
    bytes: Source,
    location: Location,
    stamp: Stamp,
}

#[derive(Debug)]
enum Source {
    File(File),
    Object(Reader),
}

impl ShardFile {
    /// Opens a file. An object takes no request for it: every read makes sure that it is the one that was found.
    pub(super) fn open(location: &Location) -> Result<Self> {
        let path = match location {
            Location::Local(path) => path,
            Location::Remote(object) => {
                return Ok(Self {
                    location: location.clone(),
                    stamp: Stamp { size_bytes: object.size_bytes(), version: Version::Tag(object.tag()) },
                    bytes: Source::Object(Reader::new(object.clone())),
                });
            }
        };
        let failed = |source| Error::io(Place::shard(path), source);
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.is_dir() {
            return Err(failed(io::Error::from(io::ErrorKind::IsADirectory)));
        }
        Ok(Self { bytes: Source::File(file), location: location.clone(), stamp: stamp(&metadata) })
    }

    /// The whole file, for messages.
    pub(super) fn place(&self) -> Place {
        Place::shard(self.location.path())
    }

    pub(super) fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// Tells that `range` will be read from front to back, so that what is not here can be on its way before, in memory
    /// that `pool` has for that.
    pub(super) fn expect(&self, range: Range<u64>, pool: &Arc<Pool<u8>>) {
        if let Source::Object(reader) = &self.bytes {
            reader.expect(range, pool.ahead());
        }
    }

    /// `length` bytes from `offset` on. The caller has held both against the file's size.
    pub(super) fn read(&self, offset: u64, length: usize) -> Result<Bytes> {
        let mut bytes = Vec::new();
        self.read_into(&mut bytes, offset, length)?;
        Ok(bytes.into())
    }

    /// As `read`, into a vector whose length and content do not matter.
    pub(super) fn read_into(&self, bytes: &mut Vec<u8>, offset: u64, length: usize) -> Result<()> {
        let path = self.location.path();
        bytes.try_reserve_exact(length.saturating_sub(bytes.len())).map_err(|source| Error::Resource {
            what: "memory",
            reason: format!("{length} bytes for a page of `{}`: {source}", path.display()),
        })?;
        bytes.resize(length, 0);
        let start = Instant::now();
        let read = match &self.bytes {
            Source::File(file) => {
                retried(|| read_exact_at(file, bytes, offset)).map_err(|source| self.failed(file, source))
            }
            Source::Object(reader) => reader.read_into(bytes, offset),
        };
        TIME_READING.set(TIME_READING.get() + start.elapsed());
        read
    }

    /// A read beyond the end is a file that was cut since it was opened.
    fn failed(&self, file: &File, source: io::Error) -> Error {
        let (expected, path) = (self.stamp.size_bytes, self.location.path());
        match file.metadata().map(|metadata| metadata.len()) {
            Ok(found) if found != expected => Error::size_changed(path, expected, found),
            _ => Error::io(Place::shard(path), source),
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
    Stamp { size_bytes: metadata.len(), version: Version::Modified(metadata.modified().ok()) }
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
