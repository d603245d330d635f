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
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::budget::Share;
use crate::error::{Error, Place, Result};
use crate::feed::{Feed, Piece, Step, Wanted};
use crate::giants::encode;
use crate::lane::{LanePacker, Outcome, SlotHeader};
use crate::metrics::{LeftOut, Metrics, Stage};
use crate::plan::{Plan, Unit};
use crate::pool::Pool;
use crate::ragged::{DocumentBatch, TokenBatch};
use crate::ring::{Ring, SlotWriter};
use crate::row_groups::RowGroupCache;
use crate::source::{Shard, take_time_reading};
use crate::sync::lock;
use crate::tokenizer::{DocumentEncoder, EncodeError, Encoding};

/// What all workers read and none changes.
pub(crate) struct Work {
    pub(crate) plan: Arc<Plan>,
    pub(crate) shards: Arc<Vec<Shard>>,
    pub(crate) encoding: Encoding,
    pub(crate) ring: Arc<Ring>,
    pub(crate) cache: RowGroupCache,
    /// Memory of token batches that are used up.
    pub(crate) tokens: Arc<Pool<u32>>,
    pub(crate) metrics: Arc<Metrics>,
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
    /// Rounds that some rank has data for, as far as the ranks have told each other.
    granted: u64,
    /// Slots that the consumer has given back.
    released: u64,
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
    /// `Schedule::stopping`, for those who are in the middle of something long.
    stopping: Arc<AtomicBool>,
    /// This loader's part of what all loaders of the process may do at once.
    share: Share<'static>,
}

/// The running threads.
pub(crate) struct Pipeline {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// A lane to pack: with its next slot, unless it holds it already or packs aside.
struct Packing {
    lane: usize,
    packer: Box<LanePacker>,
    writer: Option<SlotWriter>,
    /// The lane has ended and others have not: its batch is padding.
    is_padding: bool,
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
            granted: 0,
            released: 0,
            error: None,
            stopping: false,
        };
        let shared = Arc::new(Shared {
            work,
            schedule: Mutex::new(schedule),
            job: Condvar::new(),
            batch: Condvar::new(),
            stopping: Arc::default(),
            share: Share::new(num_threads),
        });
        let pipeline = Self { shared, threads: Mutex::default() };
        for index in 0..num_threads {
            let shared = pipeline.shared.clone();
            let thread =
                std::thread::Builder::new().name(format!("nanofast-{index}")).spawn(move || shared.run());
            let thread =
                thread.map_err(|error| Error::Resource { what: "a thread", reason: error.to_string() })?;
            lock(&pipeline.threads).push(thread);
        }
        Ok(pipeline)
    }

    /// The next batch, if it is there. Batches come in order, each once.
    pub(crate) fn poll(&self) -> Result<Poll> {
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
                Ok(Poll::Batch(sequence, header))
            }
        }
    }

    /// Waits up to `timeout` until `poll` has something to say, or the threads are stopped.
    pub(crate) fn wait(&self, timeout: Duration) {
        let is_over = |schedule: &Schedule| {
            schedule.stopping || !matches!(self.shared.seen(schedule), Ok(Seen::Nothing))
        };
        self.wait_until(timeout, is_over);
    }

    fn wait_until(&self, timeout: Duration, is_over: impl Fn(&Schedule) -> bool) {
        let start = Instant::now();
        let mut schedule = lock(&self.shared.schedule);
        while !is_over(&schedule) {
            let Some(left) = timeout.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) else {
                return;
            };
            schedule = wait(&self.shared.batch, schedule, left);
        }
    }

    /// Rounds, counted from the first, that this rank is sure to have data for (with `drop_last`: on all its lanes),
    /// and whether it is known that there are no more. Waits up to `timeout` for more than `than`, or the end.
    pub(crate) fn known_rounds(&self, than: u64, timeout: Duration) -> Result<(u64, bool)> {
        let known = |schedule: &Schedule| schedule.known_rounds(&self.shared.work);
        self.wait_until(timeout, |schedule| {
            let (rounds, is_last) = known(schedule);
            rounds > than || is_last || schedule.error.is_some() || schedule.stopping
        });
        let schedule = lock(&self.shared.schedule);
        match &schedule.error {
            Some(error) => Err(error.clone()),
            None => Ok(known(&schedule)),
        }
    }

    /// Tells that some rank has data for so many rounds: lanes without give padding.
    pub(crate) fn grant(&self, rounds: u64) {
        let mut schedule = lock(&self.shared.schedule);
        schedule.granted = schedule.granted.max(rounds);
        drop(schedule);
        self.shared.job.notify_all();
    }

    /// Gives a batch's slot back.
    pub(crate) fn release(&self, sequence: u64) {
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
        self.shared.job.notify_one();
    }

    /// What all workers share.
    pub(crate) fn work(&self) -> &Work {
        &self.shared.work
    }

    /// What lies in the queues.
    pub(crate) fn queues(&self) -> Queues {
        let schedule = lock(&self.shared.schedule);
        Queues {
            ready_batches: schedule.headers.iter().flatten().count(),
            read_ahead_bytes: schedule.lanes.iter().map(|lane| lane.feed.queued_bytes()).sum(),
            shared_row_group_bytes: self.shared.work.cache.num_bytes(),
        }
    }

    /// Asks every thread to end and waits for it.
    pub(crate) fn stop(&self) {
        lock(&self.shared.schedule).stopping = true;
        self.shared.stopping.store(true, Ordering::Relaxed);
        self.shared.job.notify_all();
        self.shared.batch.notify_all();
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

    fn run(&self) {
        let mut encoder = None;
        self.run_with(&mut encoder);
        if let Some(mut encoder) = encoder {
            encoder.inner().stop_with(None);
            self.work.encoding.give_back(encoder);
        }
    }

    fn run_with(&self, encoder: &mut Option<DocumentEncoder>) {
        while let Some(job) = self.next_job() {
            let _permit = self.share.enter(|moment| {
                std::thread::sleep(moment);
                !self.stopping.load(Ordering::Relaxed)
            });
            let (stage, lane, place) = match &job {
                Job::Pack(packing) => ("packing", packing.lane, None),
                Job::Read(lane, step) => {
                    ("reading and tokenizing", *lane, Some(self.place(step.reader.unit())))
                }
            };
            let result = catch_unwind(AssertUnwindSafe(|| match job {
                Job::Pack(packing) => self.pack(packing),
                Job::Read(lane, step) => self.read(lane, step, encoder),
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
            self.stopping.store(true, Ordering::Relaxed);
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
            let (start, idle) = (Instant::now(), schedule.reason_to_wait());
            schedule = self.job.wait(schedule).unwrap_or_else(PoisonError::into_inner);
            self.work.metrics.spent(idle, start);
        }
    }

    fn pack_job(&self, schedule: &mut Schedule) -> Option<Job> {
        let ending = self.work.ending;
        let any_dry = schedule.lanes.iter().any(|lane| lane.is_dry);
        let end_round =
            (any_dry && !ending.drop_last).then(|| schedule.rounds_with_data().max(schedule.granted));
        if end_round.is_some_and(|end| !ending.is_shared && schedule.ends_with(end)) {
            self.batch.notify_all();
        }
        let asks_ahead = any_dry || ending.drop_last || ending.is_shared;
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
            let may_pack = has_slot || writer.is_some() || (asks_ahead && !pads && !lane.is_aside);
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
        let start = self.begin(Stage::Pack)?;
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
            self.pass_over(&mut packer)?;
            let mut schedule = lock(&self.schedule);
            let (count, round) =
                (schedule.lanes.len() as u64, schedule.round_of(schedule.lanes[index].sequence));
            let lane = &mut schedule.lanes[index];
            lane.feed.taken(packer.inbox_mut().take_taken());
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
            if self.work.ending.drop_last || self.work.ending.is_shared {
                self.batch.notify_all();
            }
            return Ok(());
        }
    }

    fn read(&self, index: usize, mut step: Step, encoder: &mut Option<DocumentEncoder>) -> Result<()> {
        let start = self.begin(Stage::Decode)?;
        let (first_row, mut documents) = step.reader.next(&self.work.shards, &self.work.cache)?;
        let reading = take_time_reading();
        self.work.metrics.add(Stage::Read, reading);
        self.work.metrics.add(Stage::Decode, start.elapsed().saturating_sub(reading));
        let mut rows: Vec<u64> = (first_row..first_row + documents.len() as u64).collect();
        let mut begins = Vec::new();
        if let Some(wanted) = &step.wanted {
            let (found, picked) = self.pick(&step, first_row, &documents, wanted)?;
            rows = found.iter().map(|wanted| wanted.row).collect();
            begins = found.iter().map(|wanted| wanted.byte_offset).collect();
            documents = picked;
        }
        let (unit, ordinal, group) = (step.reader.unit(), step.ordinal, step.group);
        let finished = step.reader.is_finished();
        let ticket = lock(&self.schedule).lanes[index].feed.read(step);
        if !finished {
            self.job.notify_one();
        }

        let start = self.begin(Stage::Tokenize)?;
        let mut tokens = TokenBatch::pooled(&self.work.tokens);
        // Out of the thread's hands meanwhile: one that was stopped halfway, or that panics, does not come back.
        let mut taken = encoder.take().unwrap_or_else(|| {
            let mut encoder = self.work.encoding.encoder();
            encoder.inner().stop_with(Some(self.stopping.clone()));
            encoder
        });
        let is_rest = |index: usize| begins.get(index).is_some_and(|&byte| byte > 0);
        let encoded =
            encode(&documents, is_rest, &mut taken, &mut tokens, &self.stopping).map_err(|failed| {
                let place = Place { row: Some(rows[failed.document]), ..self.place(unit) };
                match failed.error {
                    EncodeError::InvalidUtf8 { byte } => Error::InvalidUtf8 { place, byte },
                    EncodeError::Conversation { message, reason } => {
                        Error::Conversation { place, message, reason }
                    }
                    other => Error::Tokenize { place, reason: other.to_string() },
                }
            })?;
        if !encoded {
            return Ok(());
        }
        let counts = taken.inner().take_counts();
        self.work.metrics.looked_up(counts.pretokens, counts.merged);
        *encoder = Some(taken);
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

    /// When a stage begins.
    #[cfg_attr(
        not(test),
        expect(clippy::unnecessary_wraps, unused_variables, reason = "tests let stages fail")
    )]
    fn begin(&self, stage: Stage) -> Result<Instant> {
        #[cfg(test)]
        (self.work.fault)(stage)?;
        Ok(Instant::now())
    }

    /// Of documents from `first_row` on those that are wanted, each from the byte from which it is wanted.
    fn pick<'a>(
        &self,
        step: &'a Step,
        first_row: u64,
        documents: &DocumentBatch,
        wanted: &'a [Wanted],
    ) -> Result<(&'a [Wanted], DocumentBatch)> {
        let place_of = |row| wanted.partition_point(|wanted| wanted.row < row);
        let wanted = &wanted[place_of(first_row)..place_of(first_row + documents.len() as u64)];
        let mut picked = documents.select(wanted.iter().map(|wanted| (wanted.row - first_row) as usize));
        for (index, wanted) in wanted.iter().enumerate().filter(|(_, wanted)| wanted.byte_offset > 0) {
            let length = picked.document(index).len();
            picked = picked.begun_at(index, wanted.byte_offset).ok_or_else(|| {
                let place = Place { row: Some(wanted.row), ..self.place(step.reader.unit()) };
                let byte = wanted.byte_offset;
                let reason = format!("{place} has {length} bytes and is to be continued at byte {byte}");
                Error::State { reason }
            })?;
        }
        Ok((wanted, picked))
    }

    /// Lists the documents that a lane passed over; an error when there was nothing else in a whole epoch.
    fn pass_over(&self, packer: &mut LanePacker) -> Result<()> {
        let (lane, plan) = (packer.lane(), &self.work.plan);
        for (address, reason) in packer.take_passed_over() {
            if let Some(unit) = plan.unit(lane, address.ordinal) {
                let place = Place { row: Some(address.row), ..self.place(unit) };
                self.work.metrics.left_out(LeftOut { place, reason: reason.reason() });
            }
        }
        match packer.inbox_mut().num_passed_over() {
            num_documents if num_documents > plan.num_documents() => {
                Err(Error::NothingLearned { lane, num_documents })
            }
            _ => Ok(()),
        }
    }

    fn place(&self, unit: Unit) -> Place {
        Place::row_group(self.work.shards[unit.shard].path(), unit.row_group)
    }
}

impl Schedule {
    /// What a thread does that finds nothing to do.
    fn reason_to_wait(&self) -> Stage {
        let ready = self.headers.iter().flatten().count() as u64;
        let held = self.next - self.released;
        if ready + held >= self.headers.len() as u64 { Stage::RingFull } else { Stage::Idle }
    }

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

    /// See `Pipeline::known_rounds`.
    fn known_rounds(&self, work: &Work) -> (u64, bool) {
        let known = self.lanes.iter().map(|lane| {
            let ahead = if work.keeps_tokens { lane.feed.queued_tokens() / work.ring.slot_len() } else { 0 };
            match lane.is_dry {
                true => lane.data_rounds,
                false => self.round_of(lane.sequence) + lane.is_aside as u64 + ahead as u64,
            }
        });
        if work.ending.drop_last {
            let rounds = known.min().unwrap_or(0);
            let is_last = |lane: &Scheduled| lane.is_dry && lane.data_rounds == rounds;
            (rounds, self.lanes.iter().any(is_last))
        } else {
            (known.max().unwrap_or(0), self.lanes.iter().all(|lane| lane.is_dry))
        }
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
