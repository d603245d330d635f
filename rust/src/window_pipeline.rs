//! Threads that fill slots with windows of token files.
//!
//! ```text
//! worker: loop { the next slot is free → fill it with its batch's windows; else → sleep until one is given back }
//! ```
//! Which lane gives batch s and from which window on follows from s alone, so any thread fills any batch, and each
//! batch is an answer of its own: one that cannot be read is an error when its turn comes, and those before it are not.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::config::LoaderConfig;
use crate::error::{Error, Result};
use crate::lane::SlotHeader;
use crate::metrics::{Metrics, Stage};
use crate::pipeline::{Batches, Poll, Queues, message, start_thread};
use crate::ring::{Ring, SlotWriter};
use crate::state::{Address, LaneEntry, Ledger, SourceEntry};
use crate::sync::{Bell, lock};
use crate::windows::Windows;

/// The running threads.
pub(crate) struct WindowPipeline {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What all workers read, and the schedule.
struct Shared {
    windows: Arc<Windows>,
    ring: Arc<Ring>,
    metrics: Arc<Metrics>,
    /// This rank's lanes, in order.
    lanes: Vec<usize>,
    /// Windows that each has taken before batch 0.
    taken: Vec<u64>,
    /// Place of batch 0 within its round.
    turn: u64,
    batch_size: usize,
    pad_id: u32,
    /// The batch behind the last one.
    end: Option<u64>,
    schedule: Mutex<Schedule>,
    /// A slot is free.
    job: Bell,
    /// A batch is there.
    batch: Bell,
}

struct Schedule {
    /// The batch that the next free thread fills.
    to_fill: u64,
    /// The batch that is delivered next.
    next: u64,
    /// What became of the batch in each slot, until it is delivered.
    filled: Vec<Option<Result<Box<SlotHeader>>>>,
    stopping: bool,
}

impl WindowPipeline {
    /// Starts the threads. `entries` are where this rank's lanes stand; the first batch is that of lane `turn`.
    pub(crate) fn start(
        windows: Arc<Windows>,
        config: &LoaderConfig,
        ring: Arc<Ring>,
        metrics: Arc<Metrics>,
        entries: &[LaneEntry],
        turn: u64,
    ) -> Result<Self> {
        let taken: Vec<u64> = entries.iter().map(|entry| entry.sources[0].position.ordinal).collect();
        let filled = (0..ring.num_slots()).map(|_| None).collect();
        let shared = Arc::new(Shared {
            end: end(&windows, config, &taken, turn),
            windows,
            ring,
            metrics,
            lanes: config.own_lanes(),
            taken,
            turn,
            batch_size: config.batch_size,
            pad_id: config.pad_id,
            schedule: Mutex::new(Schedule { to_fill: 0, next: 0, filled, stopping: false }),
            job: Bell::default(),
            batch: Bell::default(),
        });
        let pipeline = Self { shared, threads: Mutex::default() };
        for index in 0..config.num_threads {
            let shared = pipeline.shared.clone();
            let thread = start_thread(format!("nanofast-{index}"), move || shared.run())?;
            lock(&pipeline.threads).push(thread);
        }
        Ok(pipeline)
    }
}

/// The batch behind the last one. Every rank computes the same round, without asking: the lanes of one turn have taken
/// the same number of windows on all ranks, and the lowest of them has the most, the highest the least.
fn end(windows: &Windows, config: &LoaderConfig, taken: &[u64], turn: u64) -> Option<u64> {
    let (world_size, batch_size) = (config.world_size, config.batch_size as u64);
    let mut ends = Vec::with_capacity(taken.len());
    for (index, taken) in taken.iter().enumerate() {
        let lowest = index * world_size;
        let rounds = match config.plan.drop_last {
            true => windows.of_lane(lowest + world_size - 1)?.saturating_sub(*taken) / batch_size,
            false => windows.of_lane(lowest)?.saturating_sub(*taken).div_ceil(batch_size),
        };
        ends.push(rounds + u64::from((index as u64) < turn));
    }
    let rounds = if config.plan.drop_last { ends.iter().min() } else { ends.iter().max() };
    Some((rounds? * taken.len() as u64).saturating_sub(turn))
}

impl Batches for WindowPipeline {
    fn poll(&self) -> Result<Poll> {
        let mut schedule = lock(&self.shared.schedule);
        let sequence = schedule.next;
        if self.shared.end.is_some_and(|end| sequence >= end) {
            return Ok(Poll::End);
        }
        let filled = &mut schedule.filled[self.shared.ring.slot_of(sequence)];
        if let Some(Err(error)) = filled {
            return Err(error.clone());
        }
        match filled.take() {
            Some(Ok(header)) => {
                let is_ready = self.shared.ring.read_slot(sequence);
                debug_assert!(is_ready, "a header is stored after its slot is committed");
                schedule.next += 1;
                Ok(Poll::Batch(sequence, header))
            }
            _ => Ok(Poll::Pending),
        }
    }

    fn wait(&self, timeout: Duration) {
        let schedule = lock(&self.shared.schedule);
        let is_nothing = |schedule: &mut Schedule| {
            let is_over = self.shared.end.is_some_and(|end| schedule.next >= end);
            let slot = self.shared.ring.slot_of(schedule.next);
            !schedule.stopping && !is_over && schedule.filled[slot].is_none()
        };
        drop(self.shared.batch.wait_while(schedule, timeout, is_nothing));
    }

    /// The end is known from the beginning, so nobody has to ask.
    fn known_rounds(&self, _: u64, _: Duration) -> Result<(u64, bool)> {
        let rounds = self.shared.end.map(|end| (self.shared.turn + end) / self.shared.lanes.len() as u64);
        Ok((rounds.unwrap_or(u64::MAX), true))
    }

    fn grant(&self, _: u64) {}

    fn release(&self, sequence: u64) {
        // With the schedule held, a thread that finds no slot is asleep before it is told of this one.
        let schedule = lock(&self.shared.schedule);
        let is_free = self.shared.ring.release(sequence);
        drop(schedule);
        if is_free {
            self.shared.job.ring_one();
        }
    }

    fn ring(&self) -> &Ring {
        &self.shared.ring
    }

    fn queues(&self) -> Queues {
        let ready_batches = lock(&self.shared.schedule).filled.iter().flatten().count();
        Queues { ready_batches, ..Queues::default() }
    }

    fn stop(&self) {
        lock(&self.shared.schedule).stopping = true;
        self.shared.job.ring_all();
        self.shared.batch.ring_all();
        for thread in std::mem::take(&mut *lock(&self.threads)) {
            // A worker catches its panics; should one escape, the loader is ending anyway.
            let _ = thread.join();
        }
    }
}

impl Drop for WindowPipeline {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn run(&self) {
        let mut bytes = Vec::new();
        while let Some(writer) = self.next_slot() {
            let (start, slot) = (Instant::now(), self.ring.slot_of(writer.sequence()));
            let filled = catch_unwind(AssertUnwindSafe(|| self.fill(writer, &mut bytes)));
            let filled = filled.unwrap_or_else(|panic| {
                Err(Error::Panic { stage: "filling a batch", place: None, reason: message(&*panic) })
            });
            self.metrics.spent(Stage::Read, start);
            lock(&self.schedule).filled[slot] = Some(filled);
            self.batch.ring_all();
        }
    }

    /// The next batch to fill, when its slot is free; `None` when it is time to end.
    fn next_slot(&self) -> Option<SlotWriter> {
        let mut schedule = lock(&self.schedule);
        loop {
            if schedule.stopping {
                return None;
            }
            let sequence = schedule.to_fill;
            let is_wanted = self.end.is_none_or(|end| sequence < end);
            if let Some(writer) = is_wanted.then(|| self.ring.write_slot(sequence)).flatten() {
                schedule.to_fill += 1;
                return Some(writer);
            }
            let start = Instant::now();
            schedule = self.job.wait(schedule);
            self.metrics.spent(if is_wanted { Stage::RingFull } else { Stage::Idle }, start);
        }
    }

    /// Which of this rank's lanes gives a batch, and its first window there.
    fn place(&self, sequence: u64) -> (usize, u64) {
        let count = self.lanes.len() as u64;
        let index = (self.turn + sequence) % count;
        let before = (self.turn + sequence) / count - u64::from(index < self.turn);
        (index as usize, self.taken[index as usize] + before * self.batch_size as u64)
    }

    fn fill(&self, mut writer: SlotWriter, bytes: &mut Vec<u8>) -> Result<Box<SlotHeader>> {
        let (index, first) = self.place(writer.sequence());
        let lane = self.lanes[index];
        let slot = writer.tokens_mut();
        let width = slot.len() / self.batch_size;
        let num_windows = self.windows.fill(lane, first, self.pad_id, slot, bytes)?;
        writer.commit();
        let num_targets = num_windows * (width - 1);
        self.metrics.tokenized(num_windows, 0, num_targets);
        Ok(Box::new(SlotHeader {
            lane,
            width,
            num_targets,
            masked: num_windows < self.batch_size,
            spans: Vec::new(),
            entry: self.entry(lane, first + self.batch_size as u64, width as u64 - 1),
        }))
    }

    /// Where a lane stands behind so many windows. Every target of a window is learned; rows behind the last window are
    /// padding.
    fn entry(&self, lane: usize, taken: u64, sequence_length: u64) -> LaneEntry {
        let windows = self.windows.of_lane(lane).map_or(taken, |all| taken.min(all));
        let learned = windows * sequence_length;
        let padding = (taken - windows) * sequence_length;
        let position = Address { ordinal: taken, ..Address::default() };
        LaneEntry {
            sources: vec![SourceEntry { position, ..SourceEntry::default() }],
            ledger: Ledger { read: learned, learned, padding, ..Ledger::default() },
            ..LaneEntry::default()
        }
    }
}
