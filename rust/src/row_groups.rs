//! Rows of a row group for a unit: read straight through, or shared by the units that are ranges of one row group.
//!
//! A parquet row group can only be decoded from its start. When units are ranges, the lanes of a rank ask for
//! neighbouring rows at about the same time, so a row group that was decoded for one of them is kept for the others
//! (least recently used first out, up to a limit in bytes) instead of being decoded again for each.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use crate::error::{Error, Result};
use crate::plan::Unit;
use crate::ragged::DocumentBatch;
use crate::source::{DocumentReader, Shard};
use crate::sync::lock;

/// What a reader finds next in a row group.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    /// The first row, and the documents from there on.
    Documents(u64, DocumentBatch),
    /// Rows that cannot be decoded.
    Broken(BrokenRows),
}

/// Rows that cannot be decoded, as a unit sees them.
#[derive(Clone, Debug)]
pub(crate) struct BrokenRows {
    /// Those of the unit: the same wherever reading began.
    pub(crate) rows: Range<u64>,
    /// What is wrong with the bytes.
    pub(crate) reason: String,
    /// The same as an error.
    pub(crate) error: Error,
}

impl Found {
    /// What `reader` finds next; `None` behind its last row.
    fn next(reader: &mut DocumentReader) -> Result<Option<Self>> {
        match reader.next_batch() {
            Ok(found) => Ok(found.map(|(first_row, batch)| Self::Documents(first_row, batch))),
            Err(error) => match reader.broken() {
                Some(broken) => {
                    let (rows, reason) = (broken.part.clone(), broken.reason.clone());
                    Ok(Some(Self::Broken(BrokenRows { rows, reason, error })))
                }
                None => Err(error),
            },
        }
    }

    fn rows(&self) -> Range<u64> {
        match self {
            Self::Documents(first_row, batch) => *first_row..first_row + batch.len() as u64,
            Self::Broken(broken) => broken.rows.clone(),
        }
    }

    /// What a unit sees of it: documents of the rows that it asks for, and what is broken of all of its rows.
    fn seen_by(&self, asked: Range<u64>, unit: &Unit) -> Self {
        let found = self.rows();
        match self {
            Self::Documents(_, batch) => {
                let rows = asked.start.max(found.start)..asked.end.min(found.end);
                let slice = (rows.start - found.start) as usize..(rows.end - found.start) as usize;
                Self::Documents(rows.start, batch.slice(slice))
            }
            Self::Broken(broken) => {
                let rows = unit.start.max(found.start)..unit.end.min(found.end);
                Self::Broken(BrokenRows { rows, ..broken.clone() })
            }
        }
    }
}

/// Shard and row group.
type Key = (usize, usize);

/// Decoded row groups that several units read from.
#[derive(Debug)]
pub(crate) struct RowGroupCache {
    limit_bytes: usize,
    /// Most recently used last.
    entries: Mutex<VecDeque<Arc<SharedRowGroup>>>,
    /// Readers of row groups on servers that some lane comes to next.
    begun: Mutex<Vec<(Key, Box<DocumentReader>)>>,
}

impl RowGroupCache {
    pub(crate) fn new(limit_bytes: usize) -> Self {
        Self { limit_bytes, entries: Mutex::default(), begun: Mutex::default() }
    }

    /// Asks a server for what a lane reads next, so that nobody waits for it then. Of files nothing is asked. What fails here
    /// fails again when it is read.
    pub(crate) fn begin(&self, shards: &[Shard], unit: &Unit) {
        let (shard, key) = (&shards[unit.shard], (unit.shard, unit.row_group));
        if !shard.is_remote() {
            return;
        }
        let group = shard.row_groups()[unit.row_group];
        let is_shared = !is_whole(unit, shard);
        if is_shared
            && (group.num_bytes > WHOLE_BYTES || lock(&self.entries).iter().any(|entry| entry.key == key))
        {
            return;
        }
        let mut begun = lock(&self.begun);
        if begun.iter().all(|(other, _)| *other != key)
            && let Ok(reader) = shard.documents(unit.row_group, 0..group.num_rows)
        {
            begun.push((key, Box::new(reader)));
        }
    }

    /// The reader of a row group from its start that was begun.
    fn take_begun(&self, unit: &Unit) -> Option<Box<DocumentReader>> {
        let mut begun = lock(&self.begun);
        let found = begun.iter().position(|(key, _)| *key == (unit.shard, unit.row_group))?;
        Some(begun.swap_remove(found).1)
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
    key: Key,
    decoded: Mutex<Decoded>,
}

/// Consecutive rows, and the reader of those that follow.
#[derive(Debug, Default)]
struct Decoded {
    reader: Option<DocumentReader>,
    parts: Vec<Found>,
    num_bytes: usize,
}

impl SharedRowGroup {
    fn num_bytes(&self) -> usize {
        // A row group that is being decoded is in use: its size is settled when it is asked for again.
        self.decoded.try_lock().map_or(0, |decoded| decoded.num_bytes)
    }

    /// What is found from the first row that `unit` asks for on.
    fn read(&self, shard: &Shard, asked: Range<u64>, unit: &Unit, cache: &RowGroupCache) -> Result<Found> {
        let from = asked.start;
        let mut decoded = lock(&self.decoded);
        if decoded.parts.first().is_none_or(|part| part.rows().start > from) {
            let group = shard.row_groups()[self.key.1];
            // Other lanes will ask for the rows before: which of them comes first is chance.
            let start = if group.num_bytes <= WHOLE_BYTES { 0 } else { from };
            let rows = start..group.num_rows;
            let reader = match cache.take_begun(unit).filter(|_| start == 0) {
                Some(begun) => *begun,
                None => shard.documents(self.key.1, rows)?,
            };
            *decoded = Decoded { reader: Some(reader), ..Decoded::default() };
        }
        loop {
            let index = decoded.parts.partition_point(|part| part.rows().start <= from);
            let part = index.checked_sub(1).map(|index| &decoded.parts[index]);
            if let Some(part) = part.filter(|part| part.rows().end > from) {
                return Ok(part.seen_by(asked, unit));
            }
            let next = match &mut decoded.reader {
                Some(reader) => Found::next(reader)?,
                None => None,
            };
            match next {
                Some(part) => {
                    if let Found::Documents(_, batch) = &part {
                        decoded.num_bytes += batch.num_bytes();
                    }
                    decoded.parts.push(part);
                }
                None => return Err(shard.ends_early(self.key.1, from)),
            }
        }
    }
}

fn is_whole(unit: &Unit, shard: &Shard) -> bool {
    unit.start == 0 && unit.end == shard.num_rows(unit.row_group)
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

    /// What comes next.
    pub(crate) fn next(&mut self, shards: &[Shard], cache: &RowGroupCache) -> Result<Found> {
        let shard = &shards[self.unit.shard];
        let first_row = self.next_row;
        let found = if is_whole(&self.unit, shard) {
            let is_from_start = (self.next_row, self.end_row) == (self.unit.start, self.unit.end);
            let reader = match &mut self.reader {
                Some(reader) => reader,
                none => none.insert(match cache.take_begun(&self.unit).filter(|_| is_from_start) {
                    Some(begun) => begun,
                    None => Box::new(shard.documents(self.unit.row_group, self.next_row..self.end_row)?),
                }),
            };
            Found::next(reader)?.ok_or_else(|| shard.ends_early(self.unit.row_group, first_row))?
        } else {
            let found = cache.get(&self.unit).read(shard, first_row..self.end_row, &self.unit, cache)?;
            cache.evict();
            found
        };
        self.next_row = found.rows().end.min(self.end_row);
        Ok(found)
    }
}
