//! Several token files, open while they are in use, read at any offset by any thread.
//!
//! Invariant: at most `MOST_OPEN` of them are open at once, however many there are.

use std::collections::VecDeque;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};

use super::layout::{Format, Layout, Width};
use crate::error::{Error, Place, Result};
use crate::read_at::read_exact_at;
use crate::sync::lock;

/// Systems give a process 256 open files at the least; more than this gain nothing, since a data set of a terabyte in
/// files of the usual 200 MB is read window by window from all of them and opening one again takes microseconds.
const MOST_OPEN: usize = 128;
/// Bytes at either end that are hashed to tell a file from another one of its name and size.
const HASHED_BYTES: u64 = 4096;

/// Token files in order.
#[derive(Debug)]
pub struct TokenFiles {
    files: Vec<TokenFile>,
    open: Mutex<Open>,
}

#[derive(Debug)]
struct TokenFile {
    path: PathBuf,
    size_bytes: u64,
    layout: Layout,
}

#[derive(Debug)]
struct Open {
    handles: Vec<Option<Arc<File>>>,
    /// Those that are there, the longest open first.
    order: VecDeque<usize>,
}

impl TokenFiles {
    /// Reads the header of each file. `format` and `width` hold for all of them; `None`: as `Layout::read` finds.
    pub fn open(paths: &[PathBuf], format: Option<Format>, width: Option<Width>) -> Result<Self> {
        let mut files = Vec::with_capacity(paths.len());
        for path in paths {
            let (file, size_bytes) = open(path)?;
            let layout = Layout::read(path, &file, size_bytes, format, width)?;
            files.push(TokenFile { path: path.clone(), size_bytes, layout });
        }
        let handles = vec![None; files.len()];
        Ok(Self { files, open: Mutex::new(Open { handles, order: VecDeque::new() }) })
    }

    /// Number of files.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Where the ids of a file are.
    pub fn layout(&self, file: usize) -> &Layout {
        &self.files[file].layout
    }

    /// Path of a file.
    pub fn path(&self, file: usize) -> &Path {
        &self.files[file].path
    }

    /// Size of a file in bytes when it was opened first.
    pub fn size_bytes(&self, file: usize) -> u64 {
        self.files[file].size_bytes
    }

    /// A hash of both ends of a file, in hexadecimal digits.
    pub fn fingerprint(&self, file: usize) -> Result<String> {
        let size = self.files[file].size_bytes;
        let mut digest = Sha256::new();
        for (begin, end) in [(0, size.min(HASHED_BYTES)), (size - size.min(HASHED_BYTES), size)] {
            let mut bytes = vec![0; (end - begin) as usize];
            self.read_bytes(file, begin, &mut bytes)?;
            digest.update(&bytes);
        }
        Ok(digest.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Reads `out.len()` ids of a file from id `start` on. `bytes` is memory to read into, used again by the caller.
    ///
    /// # Errors
    /// An id that is not below `vocab_size`; a file that was cut or cannot be read.
    pub fn read(
        &self,
        file: usize,
        start: u64,
        out: &mut [i32],
        vocab_size: u32,
        bytes: &mut Vec<u8>,
    ) -> Result<()> {
        let Layout { width, data_offset, .. } = self.files[file].layout;
        bytes.resize(out.len() * width.bytes() as usize, 0);
        self.read_bytes(file, data_offset + start * width.bytes(), bytes)?;
        let largest = match width {
            Width::U16 => widen(bytes, out, |id: [u8; 2]| u16::from_le_bytes(id).into()),
            Width::U32 => widen(bytes, out, u32::from_le_bytes),
        };
        if largest < vocab_size {
            return Ok(());
        }
        let at = out.iter().position(|&id| id as u32 >= vocab_size).unwrap_or_default();
        Err(Error::TokenId {
            path: self.files[file].path.clone(),
            offset: start + at as u64,
            id: out[at] as u32,
            vocab_size,
        })
    }

    fn read_bytes(&self, file: usize, offset: u64, bytes: &mut [u8]) -> Result<()> {
        let handle = self.handle(file)?;
        read_exact_at(&handle, bytes, offset).map_err(|source| {
            let TokenFile { path, size_bytes, .. } = &self.files[file];
            match handle.metadata().map(|metadata| metadata.len()) {
                Ok(found) if found != *size_bytes => Error::size_changed(path, *size_bytes, found),
                _ => Error::io(Place::shard(path), source),
            }
        })
    }

    fn handle(&self, file: usize) -> Result<Arc<File>> {
        let mut opened = lock(&self.open);
        if let Some(handle) = &opened.handles[file] {
            return Ok(handle.clone());
        }
        let TokenFile { path, size_bytes, .. } = &self.files[file];
        let (handle, found) = open(path)?;
        if found != *size_bytes {
            return Err(Error::size_changed(path, *size_bytes, found));
        }
        if opened.order.len() == MOST_OPEN
            && let Some(oldest) = opened.order.pop_front()
        {
            opened.handles[oldest] = None;
        }
        opened.order.push_back(file);
        let handle = Arc::new(handle);
        opened.handles[file] = Some(handle.clone());
        Ok(handle)
    }
}

/// Little-endian ids to int32; returns the largest.
fn widen<const N: usize>(bytes: &[u8], out: &mut [i32], id: impl Fn([u8; N]) -> u32) -> u32 {
    let mut largest = 0;
    for (out, bytes) in out.iter_mut().zip(bytes.as_chunks::<N>().0) {
        let id = id(*bytes);
        largest = largest.max(id);
        *out = id as i32;
    }
    largest
}

fn open(path: &Path) -> Result<(File, u64)> {
    let failed = |source| Error::io(Place::shard(path), source);
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_dir() {
        return Err(failed(std::io::ErrorKind::IsADirectory.into()));
    }
    Ok((file, metadata.len()))
}
