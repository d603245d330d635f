//! Rows of a row group for a unit: read straight through, or shared by the units that are ranges of one row group.
//!
//! A parquet row group can only be decoded from its start. When units are ranges, the lanes of a rank ask for
//! neighbouring rows at about the same time, so a row group that was decoded for one of them is kept for the others
//! (least recently used first out, up to a limit in bytes) instead of being decoded again for each.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use crate::account::{Account, Charge};
use crate::error::{Error, Place, Result};
use crate::plan::Unit;
use crate::pool::Pool;
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
    pages: Arc<Pool<u8>>,
    /// Most recently used last.
    entries: Mutex<VecDeque<Arc<SharedRowGroup>>>,
    /// Readers of row groups on servers that some lane comes to next.
    begun: Mutex<Vec<(Key, Box<DocumentReader>)>>,
}

impl RowGroupCache {
    /// A cache of at most `limit_bytes` of text, in pages of `pages`.
    pub(crate) fn new(limit_bytes: usize, pages: &Arc<Pool<u8>>) -> Self {
        Self { limit_bytes, pages: pages.clone(), entries: Mutex::default(), begun: Mutex::default() }
    }

    /// Where readers take memory for pages from.
    pub(crate) fn pages(&self) -> &Arc<Pool<u8>> {
        &self.pages
    }

    /// Asks a server for what a lane reads next, so that nobody waits for it then. What fails here fails again when it is
    /// read.
    pub(crate) fn begin(&self, shards: &[Shard], unit: &Unit) {
        let (shard, key) = (&shards[unit.shard], (unit.shard, unit.row_group));
        let is_shared = !is_whole(unit, shard);
        let is_here = || lock(&self.entries).iter().any(|entry| entry.key == key);
        if is_shared && (!self.is_read_whole(shard, unit.row_group) || is_here()) {
            return;
        }
        let mut begun = lock(&self.begun);
        if begun.iter().all(|(other, _)| *other != key)
            && let Ok(reader) =
                shard.documents(unit.row_group, 0..shard.num_rows(unit.row_group), &self.pages)
        {
            begun.push((key, Box::new(reader)));
        }
    }

    /// A reader of `rows` of a row group: the one that was begun, where it begins there.
    fn reader(&self, shard: &Shard, unit: &Unit, rows: Range<u64>) -> Result<Box<DocumentReader>> {
        if rows == (0..shard.num_rows(unit.row_group)) {
            let mut begun = lock(&self.begun);
            let key = (unit.shard, unit.row_group);
            if let Some(found) = begun.iter().position(|(other, _)| *other == key) {
                return Ok(begun.swap_remove(found).1);
            }
        }
        Ok(Box::new(shard.documents(unit.row_group, rows, &self.pages)?))
    }

    /// Whether a row group is decoded from its start, whichever row is asked for first.
    fn is_read_whole(&self, shard: &Shard, row_group: usize) -> bool {
        shard.row_groups()[row_group].num_bytes <= WHOLE_BYTES.min(self.limit_bytes as u64)
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

    /// Forgets all row groups but the `num_kept` that were used last: they can be decoded again.
    pub(crate) fn forget(&self, num_kept: usize) {
        let mut entries = lock(&self.entries);
        let num_forgotten = entries.len().saturating_sub(num_kept);
        entries.drain(..num_forgotten);
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
    reader: Option<Box<DocumentReader>>,
    parts: VecDeque<Part>,
    num_bytes: usize,
}

/// What was found, with what is charged for where its texts lie.
#[derive(Debug)]
struct Part(Found, #[expect(dead_code, reason = "it is held")] Option<Charge>);

impl Decoded {
    /// Whether the reader can go on after an error.
    fn resumes(&self) -> bool {
        self.reader.as_ref().is_some_and(|reader| reader.resumes())
    }

    /// Lets go of the first part if it lies before row `from`; whether it did.
    fn forget_before(&mut self, from: u64) -> bool {
        if self.parts.front().is_none_or(|Part(found, _)| found.rows().end > from) {
            return false;
        }
        if let Some(Part(Found::Documents(_, batch), _)) = self.parts.pop_front() {
            self.num_bytes -= batch.num_bytes();
        }
        true
    }

    /// Reads the next part.
    fn read(&mut self, account: &Arc<Account>, place: &Place) -> Result<bool> {
        let Some(reader) = &mut self.reader else { return Ok(false) };
        let Some(found) = Found::next(reader)? else { return Ok(false) };
        let mut charge = None;
        if let Found::Documents(_, batch) = &found {
            let bytes = batch.num_span_bytes();
            charge = Some(account.charge(bytes).map_err(|refused| {
                self.reader = None; // what was read is lost, and with it the reader's place
                refused.at(place.clone())
            })?);
            self.num_bytes += batch.num_bytes();
        }
        self.parts.push_back(Part(found, charge));
        Ok(true)
    }
}

impl SharedRowGroup {
    fn num_bytes(&self) -> usize {
        // A row group that is being decoded is in use: its size is settled when it is asked for again.
        self.decoded.try_lock().map_or(0, |decoded| decoded.num_bytes)
    }

    /// What is found from the first row that `unit` asks for on.
    fn read(&self, shard: &Shard, asked: Range<u64>, unit: &Unit, cache: &RowGroupCache) -> Result<Found> {
        let from = asked.start;
        let place = || Place::row(shard.path(), self.key.1, from);
        let mut decoded = lock(&self.decoded);
        let begins_behind = decoded.parts.front().is_none_or(|Part(found, _)| found.rows().start > from);
        if begins_behind || decoded.reader.is_none() {
            // Other lanes will ask for the rows before: which of them comes first is chance.
            let start = if cache.is_read_whole(shard, self.key.1) { 0 } else { from };
            let reader = Some(cache.reader(shard, unit, start..shard.num_rows(self.key.1))?);
            *decoded = Decoded { reader, ..Decoded::default() };
        }
        loop {
            let index = decoded.parts.partition_point(|Part(found, _)| found.rows().start <= from);
            let part = index.checked_sub(1).map(|index| &decoded.parts[index].0);
            if let Some(part) = part.filter(|part| part.rows().end > from) {
                return Ok(part.seen_by(asked, unit));
            }
            match decoded.read(cache.pages.account(), &place()) {
                // The same page is tried again without what lies before, which another lane may have to read again.
                Err(Error::MemoryLimit { .. }) if decoded.resumes() && decoded.forget_before(from) => {}
                Err(error) => {
                    if !decoded.resumes() {
                        *decoded = Decoded::default();
                    }
                    return Err(error);
                }
                Ok(false) => return Err(shard.ends_early(self.key.1, from)),
                Ok(true) => while decoded.num_bytes > cache.limit_bytes && decoded.forget_before(from) {},
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

    /// Whether it holds a page or more.
    pub(crate) fn is_open(&self) -> bool {
        self.reader.is_some()
    }

    /// Whether nothing of the unit was read, and all of it will be.
    pub(crate) fn is_fresh(&self) -> bool {
        !self.is_open() && (self.next_row, self.end_row) == (self.unit.start, self.unit.end)
    }

    /// Lets go of its pages: it goes on at the same row, and decodes the page that the row lies in again.
    pub(crate) fn close(&mut self) {
        self.reader = None;
    }

    /// The row that comes next.
    pub(crate) fn next_row(&self) -> u64 {
        self.next_row
    }

    /// Goes back to a row that came before.
    pub(crate) fn go_back(&mut self, row: u64) {
        debug_assert!(row <= self.next_row, "back is not forth");
        (self.next_row, self.reader) = (row, None);
    }

    /// What comes next. After an error that is no damage the same can be asked for again.
    pub(crate) fn next(&mut self, shards: &[Shard], cache: &RowGroupCache) -> Result<Found> {
        let shard = &shards[self.unit.shard];
        let first_row = self.next_row;
        let found = if is_whole(&self.unit, shard) {
            let mut reader = match self.reader.take() {
                Some(reader) => reader,
                None => cache.reader(shard, &self.unit, self.next_row..self.end_row)?,
            };
            let found = Found::next(&mut reader);
            if found.is_ok() || reader.resumes() {
                self.reader = Some(reader);
            }
            found?.ok_or_else(|| shard.ends_early(self.unit.row_group, first_row))?
        } else {
            let found = cache.get(&self.unit).read(shard, first_row..self.end_row, &self.unit, cache)?;
            cache.evict();
            found
        };
        self.next_row = found.rows().end.min(self.end_row);
        Ok(found)
    }
}
