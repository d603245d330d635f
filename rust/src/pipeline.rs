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

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::budget::Share;
use crate::config::BadData;
use crate::error::{Error, Place, Result};
use crate::feed::Step;
use crate::lane::{LanePacker, Outcome, SlotHeader};
use crate::metrics::{LeftOut, Metrics, Stage};
use crate::piece::{DocumentPlace, PieceMaker};
use crate::plan::{Plan, Unit};
use crate::pool::Pool;
use crate::ring::{Ring, SlotWriter};
use crate::row_groups::RowGroupCache;
use crate::source::{Shard, reading_until, take_time_reading};
use crate::sources::Feeds;
use crate::sync::{Bell, lock};
use crate::tokenizer::{DocumentEncoder, Encoding};

/// What all workers read and none changes.
pub(crate) struct Work {
    /// Of each source.
    pub(crate) plans: Arc<Vec<Plan>>,
    pub(crate) shards: Arc<Vec<Shard>>,
    pub(crate) encoding: Encoding,
    pub(crate) ring: Arc<Ring>,
    pub(crate) cache: RowGroupCache,
    /// Memory of token batches that are used up.
    pub(crate) tokens: Arc<Pool<u32>>,
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

struct Scheduled {
    feeds: Feeds,
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
            feeds: lane.feeds,
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

    fn run(&self) {
        let mut encoder = None;
        let stopping = self.stopping.clone();
        reading_until(move || stopping.load(Ordering::Relaxed), || self.run_with(&mut encoder));
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
            self.job.ring_all();
            self.batch.ring_all();
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
            schedule = self.job.wait(schedule);
            self.work.metrics.spent(idle, start);
        }
    }

    fn pack_job(&self, schedule: &mut Schedule) -> Option<Job> {
        let ending = self.work.ending;
        let any_dry = schedule.lanes.iter().any(|lane| lane.is_dry);
        let end_round =
            (any_dry && !ending.drop_last).then(|| schedule.rounds_with_data().max(schedule.granted));
        if end_round.is_some_and(|end| !ending.is_shared && schedule.ends_with(end)) {
            self.batch.ring_all();
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
            if waits { (false, 0) } else { (true, lane.feeds.queued_bytes()) }
        });
        order.into_iter().find_map(|index| {
            let feeds = &mut schedule.lanes[index].feeds;
            let step = feeds.next_step(&self.work.plans, self.work.read_ahead_bytes)?;
            // Under the lock, so that nobody comes to read one of them meanwhile.
            step.then.iter().for_each(|unit| self.work.cache.begin(&self.work.shards, unit));
            Some(Job::Read(index, step))
        })
    }

    fn pack(&self, packing: Packing) -> Result<()> {
        let Packing { lane: index, mut packer, mut writer, is_padding } = packing;
        let start = self.begin(Stage::Pack)?;
        loop {
            {
                let mut schedule = lock(&self.schedule);
                let lane = &mut schedule.lanes[index];
                lane.feeds.deliver(&self.work.plans, packer.inboxes_mut())?;
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
            lane.feeds.taken(packer.inboxes_mut());
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
                    schedule.headers[self.work.ring.slot_of(sequence)] = Some(header);
                    self.batch.ring_all();
                }
            }
            schedule.lanes[index].packer = Some(packer);
            drop(schedule);
            self.work.metrics.spent(Stage::Pack, start);
            self.job.ring_all();
            if self.work.ending.drop_last || self.work.ending.is_shared {
                self.batch.ring_all();
            }
            return Ok(());
        }
    }

    fn read(&self, index: usize, mut step: Step, encoder: &mut Option<DocumentEncoder>) -> Result<()> {
        let start = self.begin(Stage::Decode)?;
        let found = step.reader.next(&self.work.shards, &self.work.cache)?;
        let reading = take_time_reading();
        self.work.metrics.add(Stage::Read, reading);
        self.work.metrics.add(Stage::Decode, start.elapsed().saturating_sub(reading));
        let unit = step.reader.unit();
        let maker = PieceMaker {
            source: step.source,
            unit,
            ordinal: step.ordinal,
            group: step.group,
            wanted: step.wanted.clone(),
            is_restoring: step.is_restoring,
            bad_data: self.work.bad_data,
            excluded: &self.work.excluded,
            shard: &self.work.shards[unit.shard],
        };
        let finished = step.reader.is_finished();
        let ticket = lock(&self.schedule).lanes[index].feeds.read(step);
        if !finished {
            self.job.ring_one();
        }

        let start = self.begin(Stage::Tokenize)?;
        // Out of the thread's hands meanwhile: one that was stopped halfway in a merge, or that panics, does not come back.
        let mut taken = encoder.take().unwrap_or_else(|| {
            let mut encoder = self.work.encoding.encoder();
            encoder.inner().stop_with(Some(self.stopping.clone()));
            encoder
        });
        let made = maker.make(found, &mut taken, &self.work.tokens, &self.stopping)?;
        let Some(piece) = made else {
            if !taken.inner().was_stopped() {
                *encoder = Some(taken);
            }
            return Ok(());
        };
        let counts = taken.inner().take_counts();
        self.work.metrics.looked_up(counts.pretokens, counts.merged);
        *encoder = Some(taken);
        self.work.metrics.spent(Stage::Tokenize, start);
        let num_bytes = piece.num_bytes.iter().sum::<u64>() as usize;
        self.work.metrics.tokenized(piece.rows.len(), num_bytes, piece.tokens.num_tokens());
        let mut schedule = lock(&self.schedule);
        let lane = &mut schedule.lanes[index];
        lane.feeds.deposit(ticket, piece);
        lane.is_due = true;
        drop(schedule);
        self.job.ring_one();
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

    /// Lists the documents that a lane passed over; an error when there was nothing else in a whole epoch.
    fn pass_over(&self, packer: &mut LanePacker) -> Result<()> {
        let (lane, plans) = (packer.lane(), &self.work.plans);
        for (address, reason) in packer.take_passed_over() {
            if let Some(unit) = plans[address.source as usize].unit(lane, address.ordinal) {
                let place = Place { row: Some(address.row), ..self.place(unit) };
                self.work.metrics.left_out(LeftOut { place, reason: reason.reason() });
            }
        }
        match packer.inboxes_mut().passed_over_all(plans) {
            Some(num_documents) => Err(Error::NothingLearned { lane, num_documents }),
            None => Ok(()),
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
            let ahead = if work.keeps_tokens { lane.feeds.queued_tokens() / work.ring.slot_len() } else { 0 };
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

/// A thread with a name: all threads of the crate begin here.
pub(crate) fn start_thread(name: String, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let started = std::thread::Builder::new().name(name).spawn(work);
    started.map_err(|error| Error::Resource { what: "a thread", reason: error.to_string() })
}

/// Runs `work` on each of `parts`, on `num_threads` threads of which the caller's is one; the results are in order.
///
/// # Panics
/// When `work` does.
#[cfg(feature = "python")]
pub(crate) fn share_out<T, R>(num_threads: usize, parts: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R>
where
    T: Sync,
    R: Send,
{
    use std::sync::atomic::{AtomicUsize, Ordering};
    let taken = AtomicUsize::new(0);
    let share = || {
        let mut done = Vec::new();
        // Relaxed: each index is taken once, and joining the threads makes their results visible.
        while let Some((index, part)) = parts.iter().enumerate().nth(taken.fetch_add(1, Ordering::Relaxed)) {
            done.push((index, work(part)));
        }
        done
    };
    let mut results = std::thread::scope(|scope| {
        let others: Vec<_> = (1..num_threads.min(parts.len())).map(|_| scope.spawn(share)).collect();
        let mut results = share();
        for other in others {
            results.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        results
    });
    results.sort_unstable_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

/// What a thread said when it panicked.
pub(crate) fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| text.to_string());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".into())
}
