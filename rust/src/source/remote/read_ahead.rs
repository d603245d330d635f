//! Bytes on their way before they are asked for: ends of objects while a plan is made, blocks of a column while it is read.
//!
//! ```text
//! range of a column   [ block ][ block ][ block ][ block ]…      2 MiB each, counted from the range's first byte
//!                        held    coming   coming                 one that is read, two behind it
//! ```
//! All buffers are here. One block of each range that is being read is held whatever the limit says, since somebody waits
//! for it; the others are charged to one `Budget`.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::Object;
use super::failure::Failure;
use super::request::read;
use super::runtime::Pending;
use crate::error::Result;
use crate::source::location::Location;
use crate::sync::lock;

/// Bytes of a request: at 50 MB/s a connection, as object stores give, the 40 ms that a block takes are about what they
/// let wait for the first byte; three under way at once then give the whole of it. A terabyte is half a million requests.
const BLOCK_BYTES: u64 = 2 << 20;

/// Blocks under way behind the one that is read.
const BLOCKS_AHEAD: usize = 2;

/// Bytes of an object's end that are fetched for its footer: the footer of some hundred row groups.
const TAIL_BYTES: u64 = 64 << 10;

/// Footers under way at once.
const TAILS_IN_FLIGHT: usize = 64;

/// Bytes that may be held ahead of who reads.
#[derive(Debug)]
pub(super) struct Budget {
    limit_bytes: usize,
    held_bytes: AtomicUsize,
}

/// A part of a budget, given back when dropped.
#[derive(Debug)]
struct Charge {
    budget: Arc<Budget>,
    num_bytes: usize,
}

impl Budget {
    pub(super) fn new(limit_bytes: usize) -> Self {
        Self { limit_bytes, held_bytes: AtomicUsize::new(0) }
    }

    /// `num_bytes` of it; where they are not there, they are had all the same if they `must` be.
    fn charge(self: &Arc<Self>, num_bytes: usize, must: bool) -> Option<Charge> {
        // Relaxed: a number that is compared, and no memory depends on it.
        let before = self.held_bytes.fetch_add(num_bytes, Ordering::Relaxed);
        let charge = Charge { budget: self.clone(), num_bytes };
        (must || before + num_bytes <= self.limit_bytes).then_some(charge)
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        // Relaxed: see `Budget::charge`.
        self.budget.held_bytes.fetch_sub(self.num_bytes, Ordering::Relaxed);
    }
}

#[derive(Debug)]
enum Block {
    Coming(Pending<Bytes>, Charge),
    Here(Bytes, Charge),
}

/// A range that is read from front to back.
#[derive(Debug)]
struct Stream {
    range: Range<u64>,
    /// Number of the block at the front.
    first: u64,
    blocks: VecDeque<Block>,
}

impl Stream {
    fn block_range(&self, index: u64) -> Range<u64> {
        let start = self.range.start + index * BLOCK_BYTES;
        start..if index + 1 == self.num_blocks() { self.range.end } else { start + BLOCK_BYTES }
    }

    /// A small rest belongs to the last block: it is not worth a request.
    fn num_blocks(&self) -> u64 {
        let length = self.range.end - self.range.start;
        length.saturating_sub(BLOCK_BYTES / 8).div_ceil(BLOCK_BYTES).max(1)
    }

    /// Has block `index` come, and as many behind it as may.
    fn ask(&mut self, object: &Arc<Object>, index: u64, must: bool) {
        while self.first < index && self.blocks.pop_front().is_some() {
            self.first += 1;
        }
        if self.first != index {
            self.blocks.clear();
            self.first = index;
        }
        let end = (index + 1 + BLOCKS_AHEAD as u64).min(self.num_blocks());
        for next in self.first + self.blocks.len() as u64..end {
            let range = self.block_range(next);
            let num_bytes = (range.end - range.start) as usize;
            let budget = &object.store.shared.budget;
            let Some(charge) = budget.charge(num_bytes, must && next == index) else { return };
            let pending = object.store.shared.threads.begin(cached(object.clone(), range));
            self.blocks.push_back(Block::Coming(pending, charge));
        }
    }

    fn read(
        &mut self,
        object: &Arc<Object>,
        mut bytes: &mut [u8],
        mut offset: u64,
    ) -> std::result::Result<(), Failure> {
        while !bytes.is_empty() {
            let index = ((offset - self.range.start) / BLOCK_BYTES).min(self.num_blocks() - 1);
            self.ask(object, index, true);
            let start = (offset - self.block_range(index).start) as usize;
            let Some(block) = self.blocks.pop_front() else { return Err(Failure::GivenUp) };
            self.first += 1;
            let (block, charge) = match block {
                Block::Here(block, charge) => (block, charge),
                Block::Coming(pending, charge) => (pending.wait()?, charge),
            };
            let count = bytes.len().min(block.len() - start);
            bytes[..count].copy_from_slice(&block[start..start + count]);
            self.blocks.push_front(Block::Here(block, charge));
            self.first -= 1;
            (bytes, offset) = (&mut bytes[count..], offset + count as u64);
        }
        Ok(())
    }
}

/// Bytes of an object, from the cache folder where they are there.
async fn cached(object: Arc<Object>, range: Range<u64>) -> std::result::Result<Bytes, Failure> {
    let Some(cache) = object.store.shared.cache.clone() else { return read(&object, range).await };
    let name = super::cache::name_of(&object, &range);
    let length = (range.end - range.start) as usize;
    let kept = {
        let (cache, name, memory) = (cache.clone(), name.clone(), object.store.shared.pool.take());
        tokio::task::spawn_blocking(move || cache.get(&name, length, memory)).await
    };
    if let Ok(Some(kept)) = kept {
        return Ok(kept);
    }
    let bytes = read(&object, range).await?;
    let keeping = bytes.clone();
    // Kept or not, the bytes are here.
    let _ = tokio::task::spawn_blocking(move || cache.put(&name, &keeping)).await;
    Ok(bytes)
}

/// An object's bytes by position.
#[derive(Debug)]
pub(in crate::source) struct Reader {
    object: Arc<Object>,
    streams: Mutex<Vec<Stream>>,
}

impl Reader {
    pub(in crate::source) fn new(object: Arc<Object>) -> Self {
        Self { object, streams: Mutex::default() }
    }

    /// Tells that `range` will be read from front to back; its first blocks are asked for.
    pub(in crate::source) fn expect(&self, range: Range<u64>) {
        if range.is_empty() || range.end > self.object.size_bytes {
            return;
        }
        let mut stream = Stream { range, first: 0, blocks: VecDeque::new() };
        stream.ask(&self.object, 0, false);
        lock(&self.streams).push(stream);
    }

    /// Fills `bytes` from `offset` on.
    pub(in crate::source) fn read_into(&self, bytes: &mut [u8], offset: u64) -> Result<()> {
        let end = offset + bytes.len() as u64;
        let read = match self.object.in_tail(offset, bytes.len()) {
            Some(found) => {
                bytes.copy_from_slice(&found);
                Ok(())
            }
            None => {
                let mut streams = lock(&self.streams);
                let stream =
                    streams.iter_mut().find(|stream| stream.range.start <= offset && end <= stream.range.end);
                match stream {
                    Some(stream) => stream.read(&self.object, bytes, offset),
                    None => {
                        drop(streams);
                        let pending =
                            self.object.store.shared.threads.begin(cached(self.object.clone(), offset..end));
                        pending.wait().map(|found| bytes.copy_from_slice(&found))
                    }
                }
            }
        };
        read.map_err(|failure| failure.at(&self.object.path, self.object.store.url.scheme))
    }
}

/// Ends of objects, fetched some way ahead of who opens one after the other.
#[derive(Debug)]
pub(in crate::source) struct Tails {
    objects: VecDeque<Arc<Object>>,
    coming: VecDeque<Pending<Bytes>>,
    opened: Option<Arc<Object>>,
}

impl Tails {
    pub(in crate::source) fn of(locations: &[Location]) -> Self {
        let remote = locations.iter().filter_map(|location| match location {
            Location::Remote(object) => Some(object.clone()),
            Location::Local(_) => None,
        });
        Self { objects: remote.collect(), coming: VecDeque::new(), opened: None }
    }

    /// Gets ready what opening `location`, the next of all, will read, and lets go of what the one before needed.
    pub(in crate::source) fn next(&mut self, location: &Location) -> Result<()> {
        if let Some(opened) = self.opened.take() {
            opened.set_tail(None);
        }
        let Location::Remote(object) = location else { return Ok(()) };
        while self.coming.len() < TAILS_IN_FLIGHT
            && let Some(next) = self.objects.pop_front()
        {
            let threads = next.store.shared.threads.clone();
            let start = next.size_bytes.saturating_sub(TAIL_BYTES);
            self.coming.push_back(threads.begin(async move {
                match next.size_bytes {
                    0 => Ok(Bytes::new()),
                    end => read(&next, start..end).await,
                }
            }));
        }
        let Some(pending) = self.coming.pop_front() else { return Ok(()) };
        let tail = pending.wait().map_err(|failure| failure.at(&object.path, object.store.url.scheme))?;
        object.set_tail(Some(tail));
        self.opened = Some(object.clone());
        Ok(())
    }
}

impl Drop for Tails {
    fn drop(&mut self) {
        if let Some(opened) = self.opened.take() {
            opened.set_tail(None);
        }
    }
}
