//! The Rust API of the loader: shards and settings in, batches and states out.
//!
//! ```text
//! open_shards ─▶ Loader::new ─▶ next_batch(timeout) ─▶ tokens(batch) ─▶ release(batch) ─▶ …
//!                    ▲ restore(state)                                        state() ─▶ resume elsewhere
//! ```
//! Threads start with the first `next_batch`, so that a loader can be made, restored, pickled or dropped before a
//! fork. The state is that of the batch that the caller holds, whatever was prefetched.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{LoaderConfig, Overflow, Packing};
use crate::error::{Error, Result};
use crate::feed::{Feed, STEP_BYTES};
use crate::lane::{LanePacker, SlotHeader};
use crate::metrics::Metrics;
use crate::packing::{Carry, Concat, Crop, OnePerRow, Packer, Pad};
use crate::pipeline::{Lane, Pipeline, Poll, Work};
use crate::plan::Plan;
use crate::pool::Pool;
use crate::ring::{Ring, SlotMemory};
use crate::row_groups::RowGroupCache;
use crate::source::Shard;
use crate::state::{Address, Identity, LaneEntry, Ledger, LoaderState, ShardIdentity};
use crate::tokenizer::Tokenizer;

/// What a call for the next batch ended with.
#[derive(Debug)]
pub enum NextBatch {
    /// The batch that the caller holds from here on: its number for `tokens` and `release`, and its header.
    Batch(u64, Box<SlotHeader>),
    /// Nothing within the time given.
    Pending,
    /// The last epoch has ended.
    End,
}

/// A loader of one rank.
pub struct Loader {
    config: LoaderConfig,
    plan: Arc<Plan>,
    shards: Arc<Vec<Shard>>,
    tokenizer: Tokenizer,
    identity: Arc<Identity>,
    identity_digest: String,
    metrics: Arc<Metrics>,
    /// Where each of this rank's lanes stands behind the batches delivered.
    entries: Vec<LaneEntry>,
    /// The same behind batches that were fetched and are not accepted yet.
    fetched: VecDeque<LaneEntry>,
    round: u64,
    turn: u64,
    memory: Option<SlotMemory>,
    pipeline: Option<Pipeline>,
    failed: Option<Error>,
    closed: bool,
    /// The process that started the threads.
    process: u32,
}

impl Loader {
    /// A loader over opened shards. `bos_id` and `pad_id` of the configuration belong to the tokenizer.
    pub fn new(config: LoaderConfig, shards: Vec<Shard>, tokenizer: Tokenizer) -> Result<Self> {
        config.validate()?;
        let row_counts: Vec<Vec<u64>> = shards.iter().map(Shard::row_counts).collect();
        let plan = Plan::new(&row_counts, &config.plan)?;
        let identity = Identity {
            tokenizer: tokenizer.fingerprint().to_string(),
            bos_id: config.bos_id,
            pad_id: config.pad_id,
            text_column: config.text_column.clone(),
            packing: config.packing.name().into(),
            lanes: config.plan.lanes,
            unit_documents: plan.unit_documents(),
            deal: config.plan.deal.name().into(),
            shuffle: config.plan.shuffle,
            shuffle_window: config.plan.shuffle_window,
            seed: config.plan.seed,
            split: config.plan.split.name().into(),
            shards: shards.iter().map(shard_identity).collect(),
        };
        Ok(Self {
            entries: vec![LaneEntry::default(); config.own_lanes().len()],
            identity_digest: identity.digest(),
            identity: Arc::new(identity),
            plan: Arc::new(plan),
            shards: Arc::new(shards),
            metrics: Arc::new(Metrics::default()),
            config,
            tokenizer,
            fetched: VecDeque::new(),
            round: 0,
            turn: 0,
            memory: None,
            pipeline: None,
            failed: None,
            closed: false,
            process: std::process::id(),
        })
    }

    /// Uses the caller's memory for the ring: `num_slots` × `slot_len` int32. Before the first batch.
    ///
    /// # Panics
    /// When threads already run.
    pub fn set_memory(&mut self, memory: SlotMemory) {
        assert!(self.pipeline.is_none(), "the ring's memory is given before the first batch");
        self.memory = Some(memory);
    }

    /// The threads, unless they are those of a parent process.
    fn running(&self) -> Option<&Pipeline> {
        self.pipeline.as_ref().filter(|_| self.process == std::process::id())
    }

    /// Waits up to `timeout` for the next batch. It is to be accepted (`accept`), and its slot given back (`release`).
    pub fn next_batch(&mut self, timeout: Duration) -> Result<NextBatch> {
        if self.closed {
            return Err(Error::Closed);
        }
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if self.pipeline.is_none() {
            self.process = std::process::id();
            self.pipeline = Some(self.start()?);
        }
        let pipeline = self.running().ok_or(Error::Forked)?;
        let polled = pipeline.poll(timeout);
        let polled = polled.inspect_err(|error| self.failed = Some(error.clone()))?;
        Ok(match polled {
            Poll::Pending => NextBatch::Pending,
            Poll::End => NextBatch::End,
            Poll::Batch(sequence, mut header) => {
                self.fetched.push_back(std::mem::take(&mut header.entry));
                NextBatch::Batch(sequence, header)
            }
        })
    }

    /// Tells that the caller's user holds the next of the batches that were fetched: from here on `state()` is its
    /// state. A caller that copies batches ahead accepts them when it hands them on.
    pub fn accept(&mut self) {
        let Some(entry) = self.fetched.pop_front() else { return };
        // Lanes of this rank take turns, in the order of their numbers.
        self.entries[self.turn as usize] = entry;
        self.turn += 1;
        if self.turn == self.entries.len() as u64 {
            (self.round, self.turn) = (self.round + 1, 0);
        }
    }

    /// Counts what a consumer waited for one batch.
    pub fn waited(&self, since: Instant) {
        self.metrics.waited(since.elapsed());
    }

    /// The tokens of a batch that is held: B rows of T + 1.
    pub fn tokens(&self, sequence: u64) -> Option<&[i32]> {
        self.running()?.work().ring.tokens(sequence)
    }

    /// Where in the ring's memory a batch lies.
    pub fn slot_of(&self, sequence: u64) -> usize {
        (sequence % self.config.num_slots as u64) as usize
    }

    /// Gives a batch's slot back: it will be written again.
    pub fn release(&self, sequence: u64) {
        if let Some(pipeline) = self.running() {
            pipeline.release(sequence);
        }
    }

    /// The state of the batch that the caller got last.
    pub fn state(&self) -> LoaderState {
        LoaderState {
            identity: (*self.identity).clone(),
            ..self.state_of(self.config.own_lanes().into_iter().zip(self.entries.iter().cloned()).collect())
        }
    }

    fn state_of(&self, lanes: BTreeMap<usize, LaneEntry>) -> LoaderState {
        LoaderState {
            identity: Identity { shards: Vec::new(), ..(*self.identity).clone() },
            rank: Some(self.config.rank),
            world_size: self.config.world_size,
            round: self.round,
            turn: self.turn,
            batch_size: self.config.batch_size,
            sequence_length: self.config.sequence_length,
            lanes,
        }
    }

    /// `state()` as JSON without its identity, which `identity()` gives once for all states.
    pub fn state_json(&self) -> serde_json::Value {
        let lanes = self.config.own_lanes().into_iter().zip(self.entries.iter().cloned()).collect();
        self.state_of(lanes).to_json(&self.identity_digest)
    }

    /// What all states of this loader share.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Goes on behind the batch that `state` describes. Threads that already run are stopped; what they had packed
    /// ahead is dropped. On an error nothing changes.
    pub fn restore(&mut self, state: &LoaderState) -> Result<()> {
        if self.closed {
            return Err(Error::Closed);
        }
        self.identity.require(&state.identity)?;
        let own = self.config.own_lanes();
        let this = (self.config.rank, self.config.world_size);
        if let Some(rank) = state.rank.filter(|&rank| (rank, state.world_size) != this) {
            return Err(Error::State {
                reason: format!(
                    "the state is of rank {rank} of {}, this loader is rank {} of {}; \
                     pass the states of all ranks through merge_states()",
                    state.world_size, this.0, this.1
                ),
            });
        }
        if state.turn != 0 && state.world_size != self.config.world_size {
            let turns = self.config.plan.lanes / state.world_size.max(1);
            return Err(Error::State {
                reason: format!(
                    "the state lies inside a round (batch {} of {turns} of each rank) and was taken at world size {}; \
                     at world size {} a round can only be begun anew: go on to the end of the round there first",
                    state.turn, state.world_size, self.config.world_size
                ),
            });
        }
        let mut entries = Vec::with_capacity(own.len());
        for lane in &own {
            let Some(entry) = state.lanes.get(lane) else {
                return Err(Error::State {
                    reason: format!(
                        "the state has no lane {lane}; merge the states of all ranks that it was saved by"
                    ),
                });
            };
            self.check_positions(*lane, entry)?;
            entries.push(entry.clone());
        }
        if state.turn >= own.len() as u64 {
            let reason = format!("the state is damaged (turn {} of {} lanes)", state.turn, own.len());
            return Err(Error::State { reason });
        }
        self.stop();
        self.failed = None;
        self.fetched.clear();
        (self.entries, self.round, self.turn) = (entries, state.round, state.turn);
        Ok(())
    }

    /// A state whose hashes fit and whose positions do not was written by something else.
    fn check_positions(&self, lane: usize, entry: &LaneEntry) -> Result<()> {
        for waiting in &entry.packer.waiting {
            let Address { ordinal, row } = waiting.address;
            let unit = self.plan.unit(lane, ordinal);
            if !unit.is_some_and(|unit| (unit.start..unit.end).contains(&row)) {
                let reason = format!("lane {lane} holds row {row} of its unit {ordinal}, which is not there");
                return Err(Error::State { reason });
            }
        }
        Ok(())
    }

    /// Where the tokens of all delivered batches of this rank went.
    pub fn ledger(&self) -> Ledger {
        let mut ledger = Ledger::default();
        self.entries.iter().for_each(|entry| ledger.add(&entry.ledger));
        ledger
    }

    /// The counters.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Bytes of text that are read ahead, and those that shared row groups hold.
    pub fn held_bytes(&self) -> (usize, usize) {
        self.running().map_or((0, 0), Pipeline::held_bytes)
    }

    /// The settings.
    pub fn config(&self) -> &LoaderConfig {
        &self.config
    }

    /// The order of documents.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Complete rounds, and batches delivered in the round at hand.
    pub fn position(&self) -> (u64, u64) {
        (self.round, self.turn)
    }

    /// Ends every thread. Further calls for batches are refused.
    pub fn close(&mut self) {
        self.closed = true;
        self.stop();
    }

    fn stop(&mut self) {
        let Some(pipeline) = self.pipeline.take() else { return };
        if self.process == std::process::id() {
            drop(pipeline);
        } else {
            // In a forked child the threads are not there: joining them would wait for ever.
            std::mem::forget(pipeline);
        }
    }

    fn start(&mut self) -> Result<Pipeline> {
        let slot_len = self.config.slot_len();
        let memory = match self.memory.take() {
            Some(memory) => memory,
            None => SlotMemory::owned(slot_len * self.config.num_slots),
        };
        let ring = Ring::new(memory, self.config.num_slots, slot_len);
        let lanes = self.config.own_lanes().into_iter().zip(&self.entries).map(|(lane, entry)| Lane {
            feed: Feed::new(&self.plan, lane, entry.position, &entry.packer.waiting),
            packer: LanePacker::new(
                lane,
                self.config.sequence_length + 1,
                slot_len,
                self.config.pad_id,
                packer(&self.config),
                entry.clone(),
            ),
        });
        let lanes: Vec<_> = lanes.collect();
        // A quarter of the limit for text read ahead (its tokens take about as much again), a quarter for shared row
        // groups. Within that: four steps a thread over all lanes, so that none idles while another finishes what is
        // next, and the text of two batches a lane (a token is about 4.5 bytes of English).
        let share = self.config.memory_limit_bytes / 4;
        let busy = 4 * STEP_BYTES * self.config.num_threads / lanes.len();
        let read_ahead_bytes = busy.max(2 * slot_len * 9 / 2).min(share / lanes.len()).max(STEP_BYTES);
        let work = Work {
            plan: self.plan.clone(),
            shards: self.shards.clone(),
            tokenizer: self.tokenizer.clone(),
            ring,
            cache: RowGroupCache::new(share),
            tokens: Pool::new(),
            metrics: self.metrics.clone(),
            read_ahead_bytes,
        };
        Pipeline::start(work, lanes, self.turn, self.config.num_threads)
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.stop();
    }
}

fn shard_identity(shard: &Shard) -> ShardIdentity {
    let name = shard.path().file_name().map(|name| name.to_string_lossy().into_owned());
    ShardIdentity {
        name: name.unwrap_or_default(),
        size_bytes: shard.size_bytes(),
        num_rows: shard.row_counts().iter().sum(),
        num_row_groups: shard.row_counts().len() as u64,
        footer: shard.footer_hash().to_string(),
    }
}

fn packer(config: &LoaderConfig) -> Box<dyn Packer> {
    let (bos, pad) = (config.bos_id, config.pad_id);
    match config.packing {
        Packing::Concat => Box::new(Concat::new(Some(bos), pad)),
        Packing::BestFit(Overflow::Carry) => Box::new(Carry::new(bos, pad)),
        Packing::BestFit(Overflow::Crop) => Box::new(Crop::new(bos, pad)),
        Packing::BestFit(Overflow::Pad) => Box::new(Pad::new(Some(bos), pad)),
        Packing::OnePerRow => Box::new(OnePerRow::new(Some(bos), pad)),
    }
}
