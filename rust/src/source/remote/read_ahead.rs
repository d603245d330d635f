//! Bytes on their way before they are asked for: ends of objects while a plan is made, blocks of a column while it is read.
//!
//! ```text
//! range of a column   [ block ][ block ][ block ][ block ]…      2 MiB each, counted from the range's first byte
//!                        held    coming   coming                 one that is read, two behind it
//! ```
//! Blocks lie in memory that is set aside for them. Where it has no room for one that somebody waits for, what is asked for
//! comes straight into the memory of who asks: nobody waits for memory here, and nobody is refused.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::Object;
use super::failure::Failure;
use super::request::read;
use super::runtime::Pending;
use crate::error::Result;
use crate::pool::{Pool, Pooled};
use crate::source::location::{BLOCK_BYTES, Location};
use crate::sync::lock;

/// Blocks under way behind the one that is read.
const BLOCKS_AHEAD: usize = 2;

/// Bytes of an object's end that are fetched for its footer: the footer of some hundred row groups.
const TAIL_BYTES: u64 = 64 << 10;

/// Footers under way at once.
const TAILS_IN_FLIGHT: usize = 64;

#[derive(Debug)]
enum Block {
    Coming(Pending<Pooled<u8>>),
    Here(Pooled<u8>),
}

/// A range that is read from front to back.
#[derive(Debug)]
struct Stream {
    range: Range<u64>,
    /// Number of the block at the front.
    first: u64,
    blocks: VecDeque<Block>,
    memory: Arc<Pool<u8>>,
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

    /// Has block `index` come, and those behind it, as far as there is memory: it may have all if it `is_awaited`, the
    /// others leave a quarter to those that are.
    fn ask(&mut self, object: &Arc<Object>, index: u64, is_awaited: bool) {
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
            let length = (range.end - range.start) as usize;
            let left_alone = if is_awaited && next == index { 0 } else { self.memory.account().limit() / 4 };
            let Some(memory) = memory_of(&self.memory, length, left_alone) else { return };
            let pending = object.store.shared.threads.begin(cached(object.clone(), range, memory));
            self.blocks.push_back(Block::Coming(pending));
        }
    }

    /// Fills `bytes` from `offset` on.
    fn read(
        &mut self,
        object: &Arc<Object>,
        bytes: &mut Vec<u8>,
        offset: u64,
    ) -> std::result::Result<(), Failure> {
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let index = ((at - self.range.start) / BLOCK_BYTES).min(self.num_blocks() - 1);
            self.ask(object, index, true);
            if let Some(Block::Coming(pending)) = self.blocks.front() {
                let come = pending.wait();
                self.blocks.pop_front();
                // A block that failed is asked for again, with those behind it, by whoever tries again.
                let block = come.inspect_err(|_| self.blocks.clear())?;
                self.blocks.push_front(Block::Here(block));
            }
            let start = (at - self.block_range(index).start) as usize;
            let Some(Block::Here(block)) = self.blocks.front() else {
                return read_straight(object, bytes, offset);
            };
            let count = (bytes.len() - done).min(block.len() - start);
            bytes[done..done + count].copy_from_slice(&block[start..start + count]);
            done += count;
        }
        Ok(())
    }
}

/// Memory for `length` bytes, where as much as `left_alone` is left.
fn memory_of(pool: &Arc<Pool<u8>>, length: usize, left_alone: usize) -> Option<Pooled<u8>> {
    if pool.num_bytes_left() < length.saturating_add(left_alone) {
        return None;
    }
    pool.take(length).ok().or_else(|| {
        pool.clear(); // what is free may be of other sizes
        pool.take(length).ok()
    })
}

/// Fills `bytes` from `offset` on, without a block between.
fn read_straight(object: &Arc<Object>, bytes: &mut Vec<u8>, offset: u64) -> std::result::Result<(), Failure> {
    let range = offset..offset + bytes.len() as u64;
    let memory = std::mem::take(bytes).into();
    let pending = object.store.shared.threads.begin(cached(object.clone(), range, memory));
    *bytes = pending.wait()?.into_inner();
    Ok(())
}

/// Bytes of an object in `memory`, from the cache folder where they are there.
async fn cached(
    object: Arc<Object>,
    range: Range<u64>,
    mut memory: Pooled<u8>,
) -> std::result::Result<Pooled<u8>, Failure> {
    let Some(cache) = object.store.shared.cache.clone() else { return read(&object, range, memory).await };
    let name = super::cache::name_of(&object, &range);
    let length = (range.end - range.start) as usize;
    let kept = {
        let (cache, name) = (cache.clone(), name.clone());
        let get = move || (cache.get(&name, length, &mut memory), memory);
        tokio::task::spawn_blocking(get).await
    };
    let (is_kept, memory) = kept.map_err(|_| Failure::GivenUp)?;
    if is_kept {
        return Ok(memory);
    }
    let bytes = read(&object, range, memory).await?;
    let put = move || {
        cache.put(&name, &bytes); // kept or not, the bytes are here
        bytes
    };
    tokio::task::spawn_blocking(put).await.map_err(|_| Failure::GivenUp)
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

    /// Tells that `range` will be read from front to back; its first blocks are asked for, in memory of `pool`.
    pub(in crate::source) fn expect(&self, range: Range<u64>, pool: &Arc<Pool<u8>>) {
        if range.is_empty() || range.end > self.object.size_bytes {
            return;
        }
        let mut stream = Stream { range, first: 0, blocks: VecDeque::new(), memory: pool.clone() };
        stream.ask(&self.object, 0, false);
        lock(&self.streams).push(stream);
    }

    /// Fills `bytes` from `offset` on.
    pub(in crate::source) fn read_into(&self, bytes: &mut Vec<u8>, offset: u64) -> Result<()> {
        if let Some(found) = self.object.in_tail(offset, bytes.len()) {
            bytes.copy_from_slice(&found);
            return Ok(());
        }
        let end = offset + bytes.len() as u64;
        let mut streams = lock(&self.streams);
        let holds = |stream: &&mut Stream| stream.range.start <= offset && end <= stream.range.end;
        let read = match streams.iter_mut().find(holds) {
            Some(stream) => stream.read(&self.object, bytes, offset),
            None => {
                drop(streams);
                read_straight(&self.object, bytes, offset)
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
                    end => Ok(read(&next, start..end, Pooled::default()).await?.into_inner().into()),
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
