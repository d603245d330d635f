//! Rows of a row group for a unit: read straight through, or shared by the units that are ranges of one row group.
//!
//! A parquet row group can only be decoded from its start. When units are ranges, the lanes of a rank ask for
//! neighbouring rows at about the same time, so a row group that was decoded for one of them is kept for the others
//! (least recently used first out, up to a limit in bytes) instead of being decoded again for each.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use crate::error::Result;
use crate::plan::Unit;
use crate::ragged::DocumentBatch;
use crate::source::{DocumentReader, Shard};
use crate::sync::lock;

/// Decoded row groups that several units read from.
#[derive(Debug)]
pub(crate) struct RowGroupCache {
    limit_bytes: usize,
    /// Most recently used last.
    entries: Mutex<VecDeque<Arc<SharedRowGroup>>>,
}

impl RowGroupCache {
    pub(crate) fn new(limit_bytes: usize) -> Self {
        Self { limit_bytes, entries: Mutex::default() }
    }

    fn get(&self, unit: &Unit) -> Arc<SharedRowGroup> {
        let mut entries = lock(&self.entries);
        let found = entries.iter().position(|entry| entry.key == (unit.shard, unit.row_group));
        let entry = found.and_then(|index| entries.remove(index)).unwrap_or_else(|| {
            Arc::new(SharedRowGroup { key: (unit.shard, unit.row_group), decoded: Mutex::default() })
        });
        entries.push_back(entry.clone());
        entry
    }

    /// Bytes of text held.
    pub(crate) fn num_bytes(&self) -> usize {
        lock(&self.entries).iter().map(|entry| entry.num_bytes()).sum()
    }

    fn evict(&self) {
        let mut entries = lock(&self.entries);
        let mut bytes: usize = entries.iter().map(|entry| entry.num_bytes()).sum();
        while bytes > self.limit_bytes && entries.len() > 1 {
            let freed = entries.pop_front().map_or(0, |entry| entry.num_bytes());
            bytes = bytes.saturating_sub(freed); // a row group in use counts 0, and may have grown since
        }
    }
}

/// Row groups up to this size are decoded from their start, whichever row is asked for first: some 30 ms of decoding.
const WHOLE_BYTES: u64 = 32 << 20;

#[derive(Debug)]
struct SharedRowGroup {
    key: (usize, usize),
    decoded: Mutex<Decoded>,
}

/// Consecutive rows from `first_row` on, and the reader of those that follow.
#[derive(Debug, Default)]
struct Decoded {
    reader: Option<DocumentReader>,
    batches: Vec<(u64, DocumentBatch)>,
    num_bytes: usize,
}

impl SharedRowGroup {
    fn num_bytes(&self) -> usize {
        // A row group that is being decoded is in use: its size is settled when it is asked for again.
        self.decoded.try_lock().map_or(0, |decoded| decoded.num_bytes)
    }

    /// Rows from `from` on, up to `until` at most, in one batch.
    fn read(&self, shard: &Shard, from: u64, until: u64) -> Result<DocumentBatch> {
        let mut decoded = lock(&self.decoded);
        if decoded.batches.first().is_none_or(|(first_row, _)| *first_row > from) {
            let group = shard.row_groups()[self.key.1];
            // Other lanes will ask for the rows before: which of them comes first is chance.
            let start = if group.num_bytes <= WHOLE_BYTES { 0 } else { from };
            let rows = start..group.num_rows;
            *decoded = Decoded { reader: Some(shard.documents(self.key.1, rows)?), ..Decoded::default() };
        }
        loop {
            let index = decoded.batches.partition_point(|(first_row, _)| *first_row <= from);
            if let Some((first_row, batch)) = index.checked_sub(1).map(|index| &decoded.batches[index]) {
                let end = first_row + batch.len() as u64;
                if end > from {
                    return Ok(
                        batch.slice((from - first_row) as usize..(until.min(end) - first_row) as usize)
                    );
                }
            }
            let next = match &mut decoded.reader {
                Some(reader) => reader.next_batch()?,
                None => None,
            };
            match next {
                Some((first_row, batch)) => {
                    decoded.num_bytes += batch.num_bytes();
                    decoded.batches.push((first_row, batch));
                }
                None => return Err(shard.ends_early(self.key.1, from)),
            }
        }
    }
}

/// Reads the rows of one unit from front to back.
#[derive(Debug)]
pub(crate) struct UnitReader {
    unit: Unit,
    next_row: u64,
    end_row: u64,
    reader: Option<Box<DocumentReader>>,
}

impl UnitReader {
    /// Rows `start..end`, a part of the unit.
    pub(crate) fn new(unit: Unit, start: u64, end: u64) -> Self {
        Self { unit, next_row: start, end_row: end, reader: None }
    }

    /// The unit.
    pub(crate) fn unit(&self) -> Unit {
        self.unit
    }

    /// Whether every row was read.
    pub(crate) fn is_finished(&self) -> bool {
        self.next_row >= self.end_row
    }

    /// The next documents: first row and batch.
    pub(crate) fn next(&mut self, shards: &[Shard], cache: &RowGroupCache) -> Result<(u64, DocumentBatch)> {
        let shard = &shards[self.unit.shard];
        let first_row = self.next_row;
        let whole = self.unit.start == 0 && self.unit.end == shard.num_rows(self.unit.row_group);
        let batch = if whole {
            let reader = match &mut self.reader {
                Some(reader) => reader,
                none => {
                    none.insert(Box::new(shard.documents(self.unit.row_group, self.next_row..self.end_row)?))
                }
            };
            match reader.next_batch()? {
                Some((row, batch)) if row == first_row && !batch.is_empty() => batch,
                _ => return Err(shard.ends_early(self.unit.row_group, first_row)),
            }
        } else {
            let batch = cache.get(&self.unit).read(shard, first_row, self.end_row)?;
            cache.evict();
            batch
        };
        self.next_row += batch.len() as u64;
        Ok((first_row, batch))
    }
}
