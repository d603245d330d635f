//! Every thread of the loader: start, stop, first error wins.
//!
//! ```text
//! worker: loop { a lane whose slot and documents are there → pack it
//!                else a giant document that is tokenized   → tokenize a part of it
//!                else a lane that should read ahead        → read rows, give the reader back, tokenize, deposit
//!                else                                      → sleep until something changes }
//! ```
//! All workers are alike, so `num_threads` is the whole CPU budget. One mutex guards the schedule; it is held for
//! bookkeeping only, never while reading, tokenizing or packing. What comes out depends on none of this: each lane is
//! packed by one thread at a time from documents in order, and slots are delivered in the order of their batches.

mod jobs;
mod schedule;
mod shortage;
mod threads;
mod worker;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use schedule::{Schedule, Scheduled};
pub(crate) use shortage::STEP_MEMORY;
#[cfg(feature = "python")]
pub(crate) use threads::share_out;
pub(crate) use threads::{message, start_thread};

use crate::account::{Account, Charge};
use crate::budget::Share;
use crate::config::BadData;
use crate::error::Result;
use crate::floor::Floor;
use crate::lane::{LanePacker, SlotHeader};
use crate::metrics::Metrics;
#[cfg(test)]
use crate::metrics::Stage;
use crate::piece::DocumentPlace;
use crate::plan::Plan;
use crate::pool::Pool;
use crate::ring::Ring;
use crate::row_groups::RowGroupCache;
use crate::source::Shard;
use crate::sources::Feeds;
use crate::sync::{Bell, lock};
use crate::tokenizer::Encoding;

/// What all workers read and none changes.
pub(crate) struct Work {
    /// Of each source.
    pub(crate) plans: Arc<Vec<Plan>>,
    pub(crate) shards: Arc<Vec<Shard>>,
    pub(crate) encoding: Encoding,
    pub(crate) ring: Arc<Ring>,
    pub(crate) cache: RowGroupCache,
    /// What all memory of size is charged to …
    pub(crate) account: Arc<Account>,
    /// … the ring and the caches first …
    pub(crate) reserved: Charge,
    /// … and what reading ahead leaves to those whose packers wait.
    pub(crate) spare_bytes: usize,
    /// What the caches of an encoder take at most.
    pub(crate) cache_bytes: usize,
    /// Memory of token batches that are used up.
    pub(crate) tokens: Arc<Pool<u32>>,
    /// How the limit is divided.
    pub(crate) floor: Floor,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) bad_data: BadData,
    pub(crate) excluded: Arc<HashSet<DocumentPlace>>,
    /// Bytes of text that each lane may read ahead.
    pub(crate) read_ahead_bytes: usize,
    /// When the last epoch has ended.
    pub(crate) ending: Ending,
    /// Whether every token becomes a position of a row, so that tokens read ahead are batches to come.
    pub(crate) keeps_tokens: bool,
    /// What goes wrong at the beginning of a stage.
    #[cfg(test)]
    pub(crate) fault: fn(Stage) -> Result<()>,
}

/// How the lanes agree on the last round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ending {
    /// With the shortest lane; else with the longest, the others giving padding.
    pub(crate) drop_last: bool,
    /// Other ranks have a say: this one never ends by itself (`grant`).
    pub(crate) is_shared: bool,
}

/// A lane as it is handed to the pipeline.
pub(crate) struct Lane {
    pub(crate) feeds: Feeds,
    pub(crate) packer: LanePacker,
}

/// What a wait for a batch ended with.
#[derive(Debug)]
pub(crate) enum Poll {
    /// The next batch: its number in this pipeline, and its header. Its slot is to be released.
    Batch(u64, Box<SlotHeader>),
    /// Nothing yet.
    Pending,
    /// The last epoch has ended.
    End,
}

struct Shared {
    work: Work,
    schedule: Mutex<Schedule>,
    /// Something to do for a worker.
    job: Bell,
    /// Something to see for the consumer.
    batch: Bell,
    /// `Schedule::stopping`, for those who are in the middle of something long.
    stopping: Arc<AtomicBool>,
    /// This loader's part of what all loaders of the process may do at once.
    share: Share<'static>,
}

/// Threads that fill slots, as a loader sees them.
pub(crate) trait Batches: Send + Sync {
    /// The next batch, if it is there. Batches come in order, each once.
    fn poll(&self) -> Result<Poll>;
    /// Waits up to `timeout` until `poll` has something to say, or the threads are stopped.
    fn wait(&self, timeout: Duration);
    /// Rounds, counted from the first, that this rank is sure to have data for (with `drop_last`: on all its lanes),
    /// and whether it is known that there are no more. Waits up to `timeout` for more than `than`, or the end.
    fn known_rounds(&self, than: u64, timeout: Duration) -> Result<(u64, bool)>;
    /// Tells that some rank has data for so many rounds: lanes without give padding.
    fn grant(&self, rounds: u64);
    /// Gives a batch's slot back.
    fn release(&self, sequence: u64);
    /// The ring whose slots are filled.
    fn ring(&self) -> &Ring;
    /// What lies in the queues.
    fn queues(&self) -> Queues;
    /// Asks every thread to end and waits for it.
    fn stop(&self);
}

/// The running threads.
pub(crate) struct Pipeline {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What lies in the queues at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queues {
    /// Batches that wait for the consumer.
    pub ready_batches: usize,
    /// Bytes of text that are read and tokenized ahead of packing.
    pub read_ahead_bytes: usize,
    /// Bytes of text that shared row groups hold.
    pub shared_row_group_bytes: usize,
    /// What the account says.
    pub memory: Memory,
}

/// Bytes of a loader's account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Granted at the moment, never more than the limit.
    pub used_bytes: usize,
    /// The most that was granted at any moment since the threads started.
    pub peak_bytes: usize,
    /// What of it is set aside from the start: the ring, the caches of all threads, and room for what is asked
    /// of servers ahead.
    pub reserved_bytes: usize,
}

impl Pipeline {
    /// Starts `num_threads` workers. `lanes` are this rank's, in order; the first batch is that of lane `turn`.
    pub(crate) fn start(work: Work, lanes: Vec<Lane>, turn: u64, num_threads: usize) -> Result<Self> {
        let count = lanes.len() as u64;
        let sequence = |index: usize| (index as u64 + count - turn) % count;
        let lanes = lanes.into_iter().enumerate().map(|(index, lane)| Scheduled::new(lane, sequence(index)));
        let schedule = Schedule {
            lanes: lanes.collect(),
            headers: (0..work.ring.num_slots()).map(|_| None).collect(),
            next: 0,
            turn,
            end: None,
            granted: 0,
            released: 0,
            giants: Vec::new(),
            running: 0,
            num_asking: 0,
            error: None,
            stopping: false,
        };
        let shared = Arc::new(Shared {
            work,
            schedule: Mutex::new(schedule),
            job: Bell::default(),
            batch: Bell::default(),
            stopping: Arc::default(),
            share: Share::new(num_threads),
        });
        let pipeline = Self { shared, threads: Mutex::default() };
        for index in 0..num_threads {
            let shared = pipeline.shared.clone();
            let thread = start_thread(format!("nanofast-{index}"), move || shared.run())?;
            lock(&pipeline.threads).push(thread);
        }
        Ok(pipeline)
    }

    fn wait_until(&self, timeout: Duration, is_over: impl Fn(&Schedule) -> bool) {
        let schedule = lock(&self.shared.schedule);
        drop(self.shared.batch.wait_while(schedule, timeout, |schedule| !is_over(schedule)));
    }
}

impl Batches for Pipeline {
    fn poll(&self) -> Result<Poll> {
        let mut schedule = lock(&self.shared.schedule);
        match self.shared.seen(&schedule)? {
            Seen::Nothing => Ok(Poll::Pending),
            Seen::End => Ok(Poll::End),
            Seen::Batch => {
                let sequence = schedule.next;
                let slot = self.shared.work.ring.slot_of(sequence);
                let Some(header) = schedule.headers[slot].take() else { return Ok(Poll::Pending) };
                let ready = self.shared.work.ring.read_slot(sequence);
                debug_assert!(ready, "a header is stored after its slot is committed");
                schedule.next += 1;
                if schedule.lanes.iter().any(Scheduled::waits) {
                    // Who waits for memory may be the next in turn now.
                    self.shared.job.ring_one();
                }
                Ok(Poll::Batch(sequence, header))
            }
        }
    }

    fn wait(&self, timeout: Duration) {
        let is_over = |schedule: &Schedule| {
            schedule.stopping || !matches!(self.shared.seen(schedule), Ok(Seen::Nothing))
        };
        self.wait_until(timeout, is_over);
    }

    fn known_rounds(&self, than: u64, timeout: Duration) -> Result<(u64, bool)> {
        let known = |schedule: &Schedule| schedule.known_rounds(&self.shared.work);
        lock(&self.shared.schedule).num_asking += 1;
        // Who waits for memory may make room now.
        self.shared.job.ring_one();
        self.wait_until(timeout, |schedule| {
            let (rounds, is_last) = known(schedule);
            rounds > than || is_last || schedule.error.is_some() || schedule.stopping
        });
        let mut schedule = lock(&self.shared.schedule);
        schedule.num_asking -= 1;
        match &schedule.error {
            Some(error) => Err(error.clone()),
            None => Ok(known(&schedule)),
        }
    }

    fn grant(&self, rounds: u64) {
        let mut schedule = lock(&self.shared.schedule);
        schedule.granted = schedule.granted.max(rounds);
        drop(schedule);
        self.shared.job.ring_all();
    }

    fn release(&self, sequence: u64) {
        let mut schedule = lock(&self.shared.schedule);
        if !self.shared.work.ring.release(sequence) {
            return;
        }
        schedule.released += 1;
        let free = sequence + self.shared.work.ring.num_slots() as u64;
        for lane in &mut schedule.lanes {
            lane.is_due |= lane.sequence == free;
        }
        drop(schedule);
        self.shared.job.ring_one();
    }

    fn ring(&self) -> &Ring {
        &self.shared.work.ring
    }

    fn queues(&self) -> Queues {
        let schedule = lock(&self.shared.schedule);
        Queues {
            ready_batches: schedule.headers.iter().flatten().count(),
            read_ahead_bytes: schedule.lanes.iter().map(|lane| lane.feeds.queued_bytes()).sum(),
            shared_row_group_bytes: self.shared.work.cache.num_bytes(),
            memory: Memory {
                used_bytes: self.shared.work.account.used(),
                peak_bytes: self.shared.work.account.peak(),
                reserved_bytes: self.shared.work.reserved.num_bytes(),
            },
        }
    }

    fn stop(&self) {
        lock(&self.shared.schedule).stopping = true;
        self.shared.stopping.store(true, Ordering::Relaxed);
        self.shared.job.ring_all();
        self.shared.batch.ring_all();
        let threads = std::mem::take(&mut *lock(&self.threads));
        for thread in threads {
            // A worker catches its panics; should one escape, the loader is ending anyway.
            let _ = thread.join();
        }
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What there is for the consumer.
enum Seen {
    Nothing,
    Batch,
    End,
}

impl Shared {
    fn seen(&self, schedule: &Schedule) -> Result<Seen> {
        if let Some(error) = &schedule.error {
            return Err(error.clone());
        }
        let (sequence, count) = (schedule.next, schedule.lanes.len() as u64);
        if schedule.end == Some(sequence) {
            return Ok(Seen::End);
        }
        if self.work.ending.drop_last && (schedule.turn + sequence).is_multiple_of(count) {
            // A round is begun when every lane has a batch for it.
            let (rounds, is_last) = schedule.known_rounds(&self.work);
            if schedule.round_of(sequence) >= rounds {
                return Ok(if is_last && !self.work.ending.is_shared { Seen::End } else { Seen::Nothing });
            }
        }
        let is_there = schedule.headers[self.work.ring.slot_of(sequence)].is_some();
        Ok(if is_there { Seen::Batch } else { Seen::Nothing })
    }
}
