//! Every thread of the loader: start, stop, first error wins.
//!
//! ```text
//! worker: loop { a lane whose slot and documents are there → pack it
//!                else a lane that should read ahead        → read rows, give the reader back, tokenize, deposit
//!                else                                      → sleep until something changes }
//! ```
//! All workers are alike, so `num_threads` is the whole CPU budget. One mutex guards the schedule; it is held for
//! bookkeeping only, never while reading, tokenizing or packing. What comes out depends on none of this: each lane is
//! packed by one thread at a time from documents in order, and slots are delivered in the order of their batches.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::error::{Error, Place, Result};
use crate::feed::{Feed, Piece, Step};
use crate::lane::{LanePacker, Outcome, SlotHeader};
use crate::metrics::{Metrics, Stage};
use crate::plan::{Plan, Unit};
use crate::pool::Pool;
use crate::ragged::TokenBatch;
use crate::ring::{Ring, SlotWriter};
use crate::row_groups::RowGroupCache;
use crate::source::Shard;
use crate::sync::lock;
use crate::tokenizer::{EncodeError, Encoder, Tokenizer};

/// What all workers read and none changes.
pub(crate) struct Work {
    pub(crate) plan: Arc<Plan>,
    pub(crate) shards: Arc<Vec<Shard>>,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) ring: Arc<Ring>,
    pub(crate) cache: RowGroupCache,
    /// Memory of token batches that are used up.
    pub(crate) tokens: Arc<Pool<u32>>,
    pub(crate) metrics: Arc<Metrics>,
    /// Bytes of text that each lane may read ahead.
    pub(crate) read_ahead_bytes: usize,
}

/// A lane as it is handed to the pipeline.
pub(crate) struct Lane {
    pub(crate) feed: Feed,
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

struct Scheduled {
    feed: Feed,
    /// `None` while a worker packs.
    packer: Option<Box<LanePacker>>,
    /// The batch that it packs next.
    sequence: u64,
    /// Documents, the end, or a slot may have come since it was last packed.
    is_due: bool,
    is_dry: bool,
    /// Rounds before it was found dry.
    data_rounds: u64,
    /// Its next batch is complete and waits for a slot.
    is_aside: bool,
}

struct Schedule {
    lanes: Vec<Scheduled>,
    headers: Vec<Option<Box<SlotHeader>>>,
    /// The batch that is delivered next.
    next: u64,
    /// Place of batch 0 within its round.
    turn: u64,
    /// The batch behind the last one.
    end: Option<u64>,
    error: Option<Error>,
    stopping: bool,
}

struct Shared {
    work: Work,
    schedule: Mutex<Schedule>,
    /// Something to do for a worker.
    job: Condvar,
    /// Something to see for the consumer.
    batch: Condvar,
}

/// The running threads.
pub(crate) struct Pipeline {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// A lane to pack: with its next slot, unless it holds it already or packs aside.
struct Packing {
    lane: usize,
    packer: Box<LanePacker>,
    writer: Option<SlotWriter>,
    /// The lane has ended and others have not: its batch is padding.
    is_padding: bool,
}

enum Job {
    Pack(Packing),
    Read(usize, Step),
}

impl Pipeline {
    /// Starts `num_threads` workers. `lanes` are this rank's, in order; the first batch is that of lane `turn`.
    pub(crate) fn start(work: Work, lanes: Vec<Lane>, turn: u64, num_threads: usize) -> Result<Self> {
        let count = lanes.len() as u64;
        let lanes = lanes.into_iter().enumerate().map(|(index, lane)| Scheduled {
            feed: lane.feed,
            packer: Some(Box::new(lane.packer)),
            sequence: (index as u64 + count - turn) % count,
            is_due: true,
            is_dry: false,
            data_rounds: 0,
            is_aside: false,
        });
        let schedule = Schedule {
            lanes: lanes.collect(),
            headers: (0..work.ring.num_slots()).map(|_| None).collect(),
            next: 0,
            turn,
            end: None,
            error: None,
            stopping: false,
        };
        let shared = Arc::new(Shared {
            work,
            schedule: Mutex::new(schedule),
            job: Condvar::new(),
            batch: Condvar::new(),
        });
        let mut pipeline = Self { shared, threads: Vec::with_capacity(num_threads) };
        for index in 0..num_threads {
            let shared = pipeline.shared.clone();
            let thread =
                std::thread::Builder::new().name(format!("nanofast-{index}")).spawn(move || shared.run());
            let thread =
                thread.map_err(|error| Error::Resource { what: "a thread", reason: error.to_string() })?;
            pipeline.threads.push(thread);
        }
        Ok(pipeline)
    }

    /// Waits up to `timeout` for the next batch. Batches come in order, each once.
    pub(crate) fn poll(&self, timeout: Duration) -> Result<Poll> {
        let start = Instant::now();
        let mut schedule = lock(&self.shared.schedule);
        loop {
            if let Some(error) = &schedule.error {
                return Err(error.clone());
            }
            let sequence = schedule.next;
            if schedule.end == Some(sequence) {
                return Ok(Poll::End);
            }
            let slot = self.shared.work.ring.slot_of(sequence);
            if let Some(header) = schedule.headers[slot].take() {
                let ready = self.shared.work.ring.read_slot(sequence);
                debug_assert!(ready, "a header is stored after its slot is committed");
                schedule.next += 1;
                return Ok(Poll::Batch(sequence, header));
            }
            let Some(left) = timeout.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) else {
                return Ok(Poll::Pending);
            };
            schedule = wait(&self.shared.batch, schedule, left);
        }
    }

    /// Gives a batch's slot back.
    pub(crate) fn release(&self, sequence: u64) {
        let mut schedule = lock(&self.shared.schedule);
        self.shared.work.ring.release(sequence);
        let free = sequence + self.shared.work.ring.num_slots() as u64;
        for lane in &mut schedule.lanes {
            lane.is_due |= lane.sequence == free;
        }
        drop(schedule);
        self.shared.job.notify_one();
    }

    /// What all workers share.
    pub(crate) fn work(&self) -> &Work {
        &self.shared.work
    }

    /// Bytes of text that are read ahead, and those that shared row groups hold.
    pub(crate) fn held_bytes(&self) -> (usize, usize) {
        let ahead = lock(&self.shared.schedule).lanes.iter().map(|lane| lane.feed.queued_bytes()).sum();
        (ahead, self.shared.work.cache.num_bytes())
    }

    /// Asks every thread to end and waits for it.
    pub(crate) fn stop(&mut self) {
        lock(&self.shared.schedule).stopping = true;
        self.shared.job.notify_all();
        for thread in self.threads.drain(..) {
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

impl Shared {
    fn run(&self) {
        let mut encoder = None;
        loop {
            let job = match self.next_job() {
                Some(job) => job,
                None => return,
            };
            let (stage, lane, place) = match &job {
                Job::Pack(packing) => ("packing", packing.lane, None),
                Job::Read(lane, step) => {
                    ("reading and tokenizing", *lane, Some(self.place(step.reader.unit())))
                }
            };
            let result = catch_unwind(AssertUnwindSafe(|| match job {
                Job::Pack(packing) => self.pack(packing),
                Job::Read(lane, step) => {
                    let encoder = encoder.get_or_insert_with(|| self.work.tokenizer.encoder());
                    self.read(lane, step, encoder)
                }
            }));
            let error = match result {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => error,
                Err(panic) => {
                    Error::Panic { stage, place, reason: format!("lane {lane}: {}", message(&*panic)) }
                }
            };
            let mut schedule = lock(&self.schedule);
            schedule.error.get_or_insert(error);
            schedule.stopping = true;
            drop(schedule);
            self.job.notify_all();
            self.batch.notify_all();
            return;
        }
    }

    /// The most urgent thing to do; sleeps while there is none; `None` when it is time to end.
    fn next_job(&self) -> Option<Job> {
        let mut schedule = lock(&self.schedule);
        loop {
            if schedule.stopping {
                return None;
            }
            if let Some(job) = self.pack_job(&mut schedule).or_else(|| self.read_job(&mut schedule)) {
                return Some(job);
            }
            let start = Instant::now();
            schedule = self.job.wait(schedule).unwrap_or_else(PoisonError::into_inner);
            self.work.metrics.spent(Stage::Idle, start);
        }
    }

    fn pack_job(&self, schedule: &mut Schedule) -> Option<Job> {
        let any_dry = schedule.lanes.iter().any(|lane| lane.is_dry);
        let end_round = any_dry.then(|| schedule.rounds_with_data());
        if end_round.is_some_and(|end| schedule.ends_with(end)) {
            self.batch.notify_all();
        }
        for index in 0..schedule.lanes.len() {
            let lane = &schedule.lanes[index];
            let pads = lane.is_dry && end_round.is_some_and(|end| schedule.round_of(lane.sequence) < end);
            if !(pads || lane.is_due && !lane.is_dry) {
                continue;
            }
            let Some(packer) = &lane.packer else { continue };
            let has_slot = packer.has_slot();
            let writer = if has_slot { None } else { self.work.ring.write_slot(lane.sequence) };
            // Without a slot a batch is packed aside only where another lane has to know that there is one.
            let may_pack = has_slot || writer.is_some() || (any_dry && !pads && !lane.is_aside);
            let lane = &mut schedule.lanes[index];
            lane.is_due = false;
            if let Some(packer) = may_pack.then(|| lane.packer.take()).flatten() {
                return Some(Job::Pack(Packing { lane: index, packer, writer, is_padding: pads }));
            }
        }
        None
    }

    /// Reads for the lanes whose packing waits for documents, in the order of their turns; then for those that are
    /// least far ahead, so that lanes which share a row group pass through it together.
    fn read_job(&self, schedule: &mut Schedule) -> Option<Job> {
        let count = schedule.lanes.len();
        let first = ((schedule.turn + schedule.next) % count as u64) as usize;
        let mut order: Vec<usize> = (first..count).chain(0..first).collect();
        order.sort_by_key(|&index| {
            let lane = &schedule.lanes[index];
            let waits = !lane.is_dry && lane.packer.as_ref().is_some_and(|packer| packer.has_slot());
            if waits { (false, 0) } else { (true, lane.feed.queued_bytes()) }
        });
        order.into_iter().find_map(|index| {
            let feed = &mut schedule.lanes[index].feed;
            Some(Job::Read(index, feed.next_step(&self.work.plan, self.work.read_ahead_bytes)?))
        })
    }

    fn pack(&self, packing: Packing) -> Result<()> {
        let Packing { lane: index, mut packer, mut writer, is_padding } = packing;
        let start = Instant::now();
        loop {
            {
                let mut schedule = lock(&self.schedule);
                let lane = &mut schedule.lanes[index];
                lane.feed.deliver(&self.work.plan, packer.inbox_mut());
                lane.is_due = false;
            }
            let outcome = match is_padding {
                true => packer.pack_padding(writer.take()),
                false => packer.pack(writer.take())?,
            };
            let mut schedule = lock(&self.schedule);
            let (count, round) =
                (schedule.lanes.len() as u64, schedule.round_of(schedule.lanes[index].sequence));
            let lane = &mut schedule.lanes[index];
            lane.feed.taken(packer.inbox_mut().take_bytes());
            match outcome {
                Outcome::Pending if lane.is_due => continue, // more came meanwhile
                Outcome::Pending => {}
                Outcome::Aside => (lane.is_aside, lane.is_due) = (true, true), // its slot may have come meanwhile
                Outcome::Dry => {
                    (lane.is_dry, lane.data_rounds) = (true, round);
                    // Whether the others have a batch for this round decides what this lane delivers.
                    schedule.lanes.iter_mut().for_each(|lane| lane.is_due = true);
                }
                Outcome::Delivered(header) => {
                    let sequence = lane.sequence;
                    lane.sequence += count;
                    (lane.is_due, lane.is_aside) = (true, false);
                    schedule.headers[self.work.ring.slot_of(sequence)] = Some(Box::new(header));
                    self.batch.notify_all();
                }
            }
            schedule.lanes[index].packer = Some(packer);
            drop(schedule);
            self.work.metrics.spent(Stage::Pack, start);
            self.job.notify_all();
            return Ok(());
        }
    }

    fn read(&self, index: usize, mut step: Step, encoder: &mut Encoder) -> Result<()> {
        let start = Instant::now();
        let (first_row, mut documents) = step.reader.next(&self.work.shards, &self.work.cache)?;
        self.work.metrics.spent(Stage::Decode, start);
        let mut rows: Vec<u64> = (first_row..first_row + documents.len() as u64).collect();
        if let Some(wanted) = &step.wanted {
            rows.retain(|row| wanted.binary_search(row).is_ok());
            documents = documents.select(rows.iter().map(|row| (row - first_row) as usize));
        }
        let (unit, ordinal, group) = (step.reader.unit(), step.ordinal, step.group);
        let finished = step.reader.is_finished();
        let ticket = lock(&self.schedule).lanes[index].feed.read(step);
        if !finished {
            self.job.notify_one();
        }

        let start = Instant::now();
        let mut tokens = TokenBatch::pooled(&self.work.tokens);
        encoder.encode_batch(&documents, &mut tokens).map_err(|failed| {
            let place = Place { row: Some(rows[failed.document]), ..self.place(unit) };
            match failed.error {
                EncodeError::InvalidUtf8 { byte } => Error::InvalidUtf8 { place, byte },
                other => Error::Tokenize { place, reason: other.to_string() },
            }
        })?;
        self.work.metrics.spent(Stage::Tokenize, start);
        self.work.metrics.tokenized(documents.len(), documents.num_bytes(), tokens.num_tokens());
        let num_bytes = documents.iter().map(|document| document.len() as u64).collect();
        let piece = Piece { ordinal, group, rows, num_bytes, tokens: Arc::new(tokens) };
        let mut schedule = lock(&self.schedule);
        let lane = &mut schedule.lanes[index];
        lane.feed.deposit(ticket, piece);
        lane.is_due = true;
        drop(schedule);
        self.job.notify_one();
        Ok(())
    }

    fn place(&self, unit: Unit) -> Place {
        Place::row_group(self.work.shards[unit.shard].path(), unit.row_group)
    }
}

impl Schedule {
    /// The round of a batch, counted from the one that batch 0 lies in.
    fn round_of(&self, sequence: u64) -> u64 {
        (self.turn + sequence) / self.lanes.len() as u64
    }

    /// Notes the end when every lane is dry and has delivered `rounds` rounds; whether that is so.
    fn ends_with(&mut self, rounds: u64) -> bool {
        let ends = self.lanes.iter().all(|lane| lane.is_dry && self.round_of(lane.sequence) >= rounds);
        if ends {
            self.end = Some(self.first_of_round(rounds));
        }
        ends
    }

    fn first_of_round(&self, round: u64) -> u64 {
        (round * self.lanes.len() as u64).saturating_sub(self.turn)
    }

    /// Rounds in which some lane is known to have data.
    fn rounds_with_data(&self) -> u64 {
        let rounds = self.lanes.iter().map(|lane| match (lane.is_dry, lane.is_aside) {
            (true, _) => lane.data_rounds,
            (false, aside) => self.round_of(lane.sequence) + aside as u64,
        });
        rounds.max().unwrap_or(0)
    }
}

fn wait<'a, T>(condition: &Condvar, guard: MutexGuard<'a, T>, timeout: Duration) -> MutexGuard<'a, T> {
    condition.wait_timeout(guard, timeout).unwrap_or_else(PoisonError::into_inner).0
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| text.to_string());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".into())
}
