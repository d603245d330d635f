//! The Rust API of the loader: shards and settings in, batches and states out.
//!
//! ```text
//! open_shards ─▶ Loader::new ─▶ next_batch(timeout) ─▶ tokens(batch) ─▶ release(batch) ─▶ …
//!                    ▲ restore(state)                                        state() ─▶ resume elsewhere
//! ```
//! Threads start with the first `next_batch`, so that a loader can be made, restored, pickled or dropped before a
//! fork. The state is that of the batch that the caller holds, whatever was prefetched.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::account::Account;
use crate::admission::Admission;
use crate::config::{DocumentName, LoaderConfig, Overflow, Packing, PlanConfig, TooLong};
use crate::error::{Error, Result};
use crate::feed::STEP_BYTES;
use crate::floor::Floor;
use crate::lane::{BatchShape, LanePacker, SlotHeader};
use crate::metrics::Metrics;
#[cfg(test)]
use crate::metrics::Stage;
use crate::packing::{Carry, Concat, Crop, Cut, NOT_LEARNED, OnePerRow, Packer, Pad, Span};
use crate::piece::DocumentPlace;
pub use crate::pipeline::Queues;
use crate::pipeline::{Batches, Ending, Lane, Pipeline, Poll, Work};
use crate::plan::{Plan, Unit, key_of};
use crate::pool::Pool;
use crate::quarantine::{BadFile, Quarantine, Quarantined};
use crate::ring::{Ring, SlotMemory};
use crate::row_groups::RowGroupCache;
use crate::source::Shard;
use crate::sources::{Feeds, Inboxes};
use crate::state::{Address, Identity, LaneEntry, Ledger, LoaderState, ShardIdentity, SourceIdentity};
use crate::token_file::TokenFiles;
use crate::tokenizer::Encoding;
use crate::window_pipeline::WindowPipeline;
use crate::windows::{Shuffle, Windows};

/// What a call for the next batch ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextBatch {
    /// The batch that the caller holds from here on: its number for `tokens` and `release`, and its shape.
    Batch(u64, BatchShape),
    /// Nothing within the time given.
    Pending,
    /// The last epoch has ended.
    End,
}

/// The shards of one source.
#[derive(Clone, Debug)]
pub struct SourceShards {
    /// The source's name in a mixture.
    pub name: String,
    /// Its shards, in order.
    pub shards: Vec<Shard>,
    /// What was found beside them and is left out.
    pub bad_files: Vec<BadFile>,
}

/// What batches are made of.
enum Source {
    /// Text, tokenized and packed on the way.
    Text { shards: Arc<Vec<Shard>>, encoding: Encoding },
    /// Windows of files that are tokenized already.
    Windows(Arc<Windows>),
}

/// A stretch of a document in a batch that is not accepted yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Where it lies.
    pub span: Span,
    /// The rows of the shard that its document is one of; the shard is counted over all sources.
    pub unit: Unit,
}

/// A loader of one rank.
pub struct Loader {
    config: LoaderConfig,
    /// Documents that are left out on request.
    excluded: Arc<HashSet<DocumentPlace>>,
    /// Of each source.
    plans: Arc<Vec<Plan>>,
    source: Source,
    identity: Arc<Identity>,
    identity_digest: String,
    metrics: Arc<Metrics>,
    /// Where each of this rank's lanes stands behind the batches delivered.
    entries: Vec<LaneEntry>,
    /// Batches accepted since the threads started: the number of the next one.
    accepted: u64,
    /// What was before the last of them.
    before: Option<(LaneEntry, u64, u64)>,
    /// Batches that were fetched and are not accepted yet.
    fetched: VecDeque<Box<SlotHeader>>,
    /// The one accepted last.
    given: Option<Box<SlotHeader>>,
    round: u64,
    turn: u64,
    memory: Option<SlotMemory>,
    pipeline: Option<Arc<dyn Batches>>,
    failed: Option<Error>,
    closed: bool,
    /// The process that started the threads.
    process: u32,
    /// Complete rounds when the threads started.
    first_round: u64,
    /// Whether other ranks have a say in when the last epoch ends.
    shares_end: bool,
    #[cfg(test)]
    fault: fn(Stage) -> Result<()>,
}

/// Threads that are to end: dropping it waits for them.
pub struct Closing(Option<Arc<dyn Batches>>);

impl Drop for Closing {
    fn drop(&mut self) {
        if let Some(pipeline) = &self.0 {
            pipeline.stop();
        }
    }
}

/// Waits for batches while others use the loader.
#[derive(Clone)]
pub struct Waiter {
    pipeline: Arc<dyn Batches>,
    first_round: u64,
}

impl Waiter {
    /// Waits up to `timeout` until `Loader::poll` has something else to say than `Pending`, or the loader is stopped.
    pub fn wait(&self, timeout: Duration) {
        self.pipeline.wait(timeout);
    }

    /// Rounds, counted from the beginning of the data, that this rank is sure to have data for (with `drop_last`: on
    /// each of its lanes), and whether it is known that there are no more. Waits up to `timeout` for more than `than`
    /// of them, or the last. Only for a loader that `share_end` was called on.
    pub fn known_rounds(&self, than: u64, timeout: Duration) -> Result<(u64, bool)> {
        let known = self.pipeline.known_rounds(than.saturating_sub(self.first_round), timeout);
        known.map(|(rounds, is_last)| (self.first_round + rounds, is_last))
    }
}

impl Loader {
    /// A loader over opened shards: of texts with a tokenizer, of conversations with a renderer. `bos_id` and `pad_id`
    /// of the configuration belong to the tokenizer.
    pub fn new(config: LoaderConfig, shards: Vec<Shard>, encoding: impl Into<Encoding>) -> Result<Self> {
        let source = SourceShards { name: String::new(), shards, bad_files: Vec::new() };
        Self::over_sources(config, vec![source], encoding)
    }

    /// As `new`, over one source or as many as `config.mixture` has weights.
    pub fn over_sources(
        config: LoaderConfig,
        sources: Vec<SourceShards>,
        encoding: impl Into<Encoding>,
    ) -> Result<Self> {
        config.validate()?;
        let encoding = match encoding.into() {
            // One endless stream is learned whole, whoever speaks.
            Encoding::Conversations(renderer) if config.packing == Packing::Concat => {
                Encoding::Conversations(renderer.learning_all())
            }
            other => other,
        };
        let expected = config.mixture.as_ref().map_or(1, |mixture| mixture.weights.len());
        if sources.len() != expected {
            let rule = format!("{expected} data sets are expected");
            return Err(Error::config("sources", sources.len(), rule));
        }
        let plans = plans(&config, &sources)?;
        let named = |(source, plan): (&SourceShards, &Plan)| SourceIdentity {
            name: source.name.clone(),
            num_shards: source.shards.len(),
            unit_documents: plan.unit_documents(),
        };
        let named = sources.iter().zip(&plans).filter(|_| config.mixture.is_some()).map(named).collect();
        let bad_files = sources.iter().flat_map(|source| source.bad_files.iter().cloned()).collect();
        let shards: Vec<Shard> = sources.into_iter().flat_map(|source| source.shards).collect();
        let identity = Identity {
            tokenizer: encoding.tokenizer().fingerprint().to_string(),
            bos_id: config.bos_id,
            pad_id: config.pad_id,
            text_column: config.text_column.clone(),
            packing: config.packing.name().into(),
            chat: config.chat.as_ref().map(|chat| chat.identity.clone()),
            lanes: config.plan.lanes,
            unit_documents: plans[0].unit_documents(),
            deal: config.plan.deal.name().into(),
            shuffle: config.plan.shuffle,
            shuffle_window: config.plan.shuffle_window,
            seed: config.plan.seed,
            split: config.plan.split.name().into(),
            sources: named,
            run_out: config.mixture.as_ref().map(|mixture| mixture.run_out.name().into()),
            replaces_invalid_utf8: config.bad_data.replace_invalid_utf8,
            bad_files,
            shards: shards.iter().map(shard_identity).collect(),
        };
        let excluded = excluded(&config.exclude, &identity)?;
        Floor::new(&config, &plans, &shards).require(config.memory_limit_bytes)?;
        let source = Source::Text { shards: Arc::new(shards), encoding };
        let mut loader = Self::over(config, plans, source, identity);
        loader.excluded = Arc::new(excluded);
        Ok(loader)
    }

    /// A loader over token files whose ids stay below `vocab_size`, 2^31 at most. Of the configuration, packing, text
    /// column and units have no meaning here.
    pub fn over_token_files(
        config: LoaderConfig,
        files: TokenFiles,
        shuffle: Shuffle,
        vocab_size: u32,
    ) -> Result<Self> {
        config.validate()?;
        let windows = Windows::new(files, config.sequence_length, shuffle, &config.plan, vocab_size)?;
        let identity = Identity {
            tokenizer: String::new(),
            bos_id: config.bos_id,
            pad_id: config.pad_id,
            text_column: String::new(),
            chat: None,
            packing: format!("windows/{}", shuffle.name()),
            lanes: config.plan.lanes,
            unit_documents: 1,
            deal: config.plan.deal.name().into(),
            shuffle: shuffle != Shuffle::Off,
            shuffle_window: config.plan.shuffle_window,
            seed: config.plan.seed,
            split: config.plan.split.name().into(),
            replaces_invalid_utf8: false,
            bad_files: Vec::new(),
            sources: Vec::new(),
            run_out: None,
            shards: windows.shard_identities()?,
        };
        let plan = windows.plan().as_ref().clone();
        Ok(Self::over(config, vec![plan], Source::Windows(Arc::new(windows)), identity))
    }

    fn over(config: LoaderConfig, plans: Vec<Plan>, source: Source, identity: Identity) -> Self {
        Self {
            entries: vec![LaneEntry::beginning(plans.len()); config.own_lanes().len()],
            identity_digest: identity.digest(),
            identity: Arc::new(identity),
            plans: Arc::new(plans),
            excluded: Arc::default(),
            source,
            metrics: Arc::new(Metrics::default()),
            config,
            accepted: 0,
            before: None,
            fetched: VecDeque::new(),
            given: None,
            round: 0,
            turn: 0,
            memory: None,
            pipeline: None,
            failed: None,
            closed: false,
            process: std::process::id(),
            first_round: 0,
            shares_end: false,
            #[cfg(test)]
            fault: |_| Ok(()),
        }
    }

    /// Leaves it to all ranks together when finite epochs end: see `Waiter::known_rounds` and `grant`. Before the first batch.
    pub fn share_end(&mut self) {
        self.shares_end = true;
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
    fn running(&self) -> Option<&Arc<dyn Batches>> {
        self.pipeline.as_ref().filter(|_| self.process == std::process::id())
    }

    /// The threads, started where they do not run yet.
    fn pipeline(&mut self) -> Result<Arc<dyn Batches>> {
        if self.closed {
            return Err(Error::Closed);
        }
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if self.pipeline.is_none() {
            self.process = std::process::id();
            // The ring's memory went into the attempt, so there is no second one.
            let started = self.start().inspect_err(|error| self.failed = Some(error.clone()))?;
            self.pipeline = Some(started);
        }
        self.running().cloned().ok_or(Error::Forked)
    }

    /// A handle on which to wait without holding the loader.
    pub fn waiter(&mut self) -> Result<Waiter> {
        let pipeline = self.pipeline()?;
        Ok(Waiter { pipeline, first_round: self.first_round })
    }

    /// Waits up to `timeout` for the batch behind those fetched so far. It is to be accepted (`accept`), and its slot
    /// given back (`release`).
    pub fn next_batch(&mut self, timeout: Duration) -> Result<NextBatch> {
        let sequence = self.accepted + self.fetched.len() as u64;
        match self.poll(sequence)? {
            NextBatch::Pending => {
                self.waiter()?.wait(timeout);
                self.poll(sequence)
            }
            next => Ok(next),
        }
    }

    /// Batch `sequence`, without waiting: one that was fetched and not accepted yet, or the one behind these. Asking
    /// twice is harmless, so that a caller who was interrupted loses nothing.
    pub fn poll(&mut self, sequence: u64) -> Result<NextBatch> {
        let pipeline = self.pipeline()?;
        let index = sequence.wrapping_sub(self.accepted) as usize;
        if let Some(header) = self.fetched.get(index) {
            return Ok(NextBatch::Batch(sequence, header.shape()));
        }
        let polled = pipeline.poll().inspect_err(|error| self.failed = Some(error.clone()))?;
        Ok(match polled {
            Poll::Pending => NextBatch::Pending,
            Poll::End => NextBatch::End,
            Poll::Batch(sequence, header) => {
                let shape = header.shape();
                self.fetched.push_back(header);
                NextBatch::Batch(sequence, shape)
            }
        })
    }

    /// What lies where in a batch that was fetched and not accepted yet, row by row; nothing unless
    /// `config.return_documents`.
    pub fn origins(&self, sequence: u64) -> Vec<Origin> {
        let index = sequence.wrapping_sub(self.accepted) as usize;
        let Some(header) = self.fetched.get(index) else { return Vec::new() };
        let origin = |&span: &Span| {
            let plan = &self.plans[span.address.source as usize];
            plan.unit(header.lane, span.address.ordinal).map(|unit| Origin { span, unit })
        };
        header.spans.iter().filter_map(origin).collect()
    }

    /// Names of all shards, in order.
    pub fn shard_names(&self) -> Vec<&str> {
        self.identity.shards.iter().map(|shard| shard.name.as_str()).collect()
    }

    /// Number of the next batch to accept, counted since the threads started.
    pub fn next_to_accept(&self) -> u64 {
        self.accepted
    }

    /// Tells that the caller's user holds the next of the batches that were fetched: from here on `state()` is its
    /// state. A caller that copies batches ahead accepts them when it hands them on.
    pub fn accept(&mut self) {
        let Some(header) = self.fetched.front_mut() else { return };
        // Lanes of this rank take turns, in the order of their numbers.
        let entry = std::mem::take(&mut header.entry);
        let before = std::mem::replace(&mut self.entries[self.turn as usize], entry);
        self.before = Some((before, self.round, self.turn));
        self.turn += 1;
        if self.turn == self.entries.len() as u64 {
            (self.round, self.turn) = (self.round + 1, 0);
        }
        self.accepted += 1;
        self.given = self.fetched.pop_front();
    }

    /// Takes back the acceptance of batch `sequence`, if that was the last one: the caller was interrupted before
    /// its user got the batch.
    pub fn take_back(&mut self, sequence: u64) {
        if sequence + 1 != self.accepted {
            return;
        }
        let (Some((entry, round, turn)), Some(mut header)) = (self.before.take(), self.given.take()) else {
            return;
        };
        (self.round, self.turn) = (round, turn);
        header.entry = std::mem::replace(&mut self.entries[turn as usize], entry);
        self.fetched.push_front(header);
        self.accepted = sequence;
    }

    /// Tells that some rank has data for so many rounds from the beginning of the data: lanes without give padding.
    pub fn grant(&mut self, rounds: u64) -> Result<()> {
        self.pipeline()?.grant(rounds.saturating_sub(self.first_round));
        Ok(())
    }

    /// Makes batches of another shape, or of other shares of a mixture's sources, from here on. What was packed ahead is
    /// packed again; no token is lost.
    pub fn reconfigure(
        &mut self,
        batch_size: usize,
        sequence_length: usize,
        weights: Option<Vec<f64>>,
    ) -> Result<()> {
        if self.closed {
            return Err(Error::Closed);
        }
        let mut config = LoaderConfig { batch_size, sequence_length, ..self.config.clone() };
        if let Some(weights) = weights {
            match &mut config.mixture {
                Some(mixture) if mixture.weights.len() == weights.len() => mixture.weights = weights,
                _ => {
                    let rule = format!("the loader reads {} data sets", self.plans.len());
                    return Err(Error::config("weights", weights.len(), rule));
                }
            }
        }
        config.validate()?;
        self.require_length(sequence_length)?;
        if let Source::Text { shards, .. } = &self.source {
            Floor::new(&config, &self.plans, shards).require(config.memory_limit_bytes)?;
        }
        self.rewind();
        if config.mixture != self.config.mixture {
            self.entries.iter_mut().for_each(count_anew);
        }
        self.config = config;
        Ok(())
    }

    /// Counts what a consumer waited for one batch.
    pub fn waited(&self, since: Instant) {
        self.metrics.waited(since.elapsed());
    }

    /// The tokens of a batch that is held: B rows of T + 1.
    pub fn tokens(&self, sequence: u64) -> Option<&[i32]> {
        self.running()?.ring().tokens(sequence)
    }

    /// Writes a batch that is held as inputs and targets, B rows of `width` − 1 each: the tokens shifted by one, targets −1
    /// where nothing is learned.
    ///
    /// # Errors
    /// When the batch is not held any more: the loader was closed.
    ///
    /// # Panics
    /// When the slices are of another size.
    pub fn split(
        &self,
        sequence: u64,
        shape: BatchShape,
        inputs: &mut [i32],
        targets: &mut [i64],
    ) -> Result<()> {
        let tokens = self.tokens(sequence).ok_or(Error::Closed)?;
        let (row_length, length) = (self.config.sequence_length + 1, shape.width - 1);
        assert!(
            inputs.len() == self.config.batch_size * length && targets.len() == inputs.len(),
            "inputs and targets are as large as the batch"
        );
        let rows = tokens.chunks_exact(row_length);
        let places = inputs.chunks_exact_mut(length).zip(targets.chunks_exact_mut(length));
        for (row, (inputs, targets)) in rows.zip(places) {
            inputs.copy_from_slice(&row[..length]);
            for (target, &token) in targets.iter_mut().zip(&row[1..]) {
                *target = token as i64;
            }
            if shape.masked {
                inputs.iter_mut().for_each(|token| *token &= !NOT_LEARNED as i32);
                targets.iter_mut().for_each(|target| *target = (*target).max(-1));
            }
        }
        Ok(())
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
            identity: self.identity.clone(),
            rank: Some(self.config.rank),
            world_size: self.config.world_size,
            round: self.round,
            turn: self.turn,
            batch_size: self.config.batch_size,
            sequence_length: self.config.sequence_length,
            weights: self.weights().to_vec(),
            lanes: self.config.own_lanes().into_iter().zip(self.entries.iter().cloned()).collect(),
        }
    }

    /// `state()` as JSON without its identity, which `identity()` gives once for all states.
    pub fn state_json(&self) -> serde_json::Value {
        self.state().to_json(&self.identity_digest)
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
        self.require_length(state.sequence_length)?;
        let own = self.config.own_lanes();
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
                let whose = match state.rank {
                    Some(rank) => format!("it is of rank {rank} of {}", state.world_size),
                    None => "it is not whole".into(),
                };
                let (rank, world_size) = (self.config.rank, self.config.world_size);
                return Err(Error::State {
                    reason: format!(
                        "the state has no lane {lane}: {whose}, this loader is rank {rank} of {world_size}; \
                         pass the states of all ranks through merge_states()"
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
        self.rewind();
        if state.weights != self.weights() {
            entries.iter_mut().for_each(count_anew);
        }
        (self.entries, self.round, self.turn) = (entries, state.round, state.turn);
        Ok(())
    }

    /// Weights of a mixture's sources.
    pub fn weights(&self) -> &[f64] {
        self.config.mixture.as_ref().map_or(&[], |mixture| &mixture.weights)
    }

    /// Windows are cut at the length that the loader was made with.
    fn require_length(&self, sequence_length: usize) -> Result<()> {
        if matches!(self.source, Source::Text { .. }) || sequence_length == self.config.sequence_length {
            return Ok(());
        }
        let rule =
            format!("windows are cut at {}; begin a new loader for others", self.config.sequence_length);
        Err(Error::config("sequence_length", sequence_length, rule))
    }

    /// A state whose hashes fit and whose positions do not was written by something else.
    fn check_positions(&self, lane: usize, entry: &LaneEntry) -> Result<()> {
        if let Some(part) = entry.quarantine.iter().find(|part| part.shard >= self.identity.shards.len()) {
            let reason = format!("lane {lane} has left out rows of shard {}, which is not there", part.shard);
            return Err(Error::State { reason });
        }
        for waiting in &entry.packer.waiting {
            let Address { source, ordinal, row } = waiting.address;
            let unit = self.plans.get(source as usize).and_then(|plan| plan.unit(lane, ordinal));
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

    /// What this rank's lanes have left out up to the batches delivered, each part with its shard's path.
    pub fn quarantine(&self) -> Vec<(PathBuf, Quarantined)> {
        let Source::Text { shards, .. } = &self.source else { return Vec::new() };
        let parts = Quarantine::together(self.entries.iter().map(|entry| &entry.quarantine));
        parts.into_iter().map(|part| (shards[part.shard].path().to_path_buf(), part)).collect()
    }

    /// The counters.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// What lies in the queues.
    pub fn queues(&self) -> Queues {
        self.running().map(|pipeline| pipeline.queues()).unwrap_or_default()
    }

    /// The settings.
    pub fn config(&self) -> &LoaderConfig {
        &self.config
    }

    /// The order of documents of each source.
    pub fn plans(&self) -> &[Plan] {
        &self.plans
    }

    /// For each source of a mixture, the tokens that this rank's lanes have admitted (BOS included), and those that were
    /// delivered as learned targets.
    pub fn shares(&self) -> Vec<(u64, u64)> {
        let counts = |source: usize| {
            let entries = || self.entries.iter().map(|entry| &entry.sources[source]);
            (entries().map(|entry| entry.read).sum(), entries().map(|entry| entry.trained).sum())
        };
        (0..self.weights().len()).map(counts).collect()
    }

    /// Complete rounds, and batches delivered in the round at hand.
    pub fn position(&self) -> (u64, u64) {
        (self.round, self.turn)
    }

    /// Ends every thread. Further calls for batches are refused.
    pub fn close(&mut self) {
        drop(self.begin_close());
    }

    /// `close` in two parts: further calls are refused from here on; the threads have ended when what comes back is
    /// dropped, and waiting for that does not need the loader.
    pub fn begin_close(&mut self) -> Closing {
        self.closed = true;
        Closing(self.take_pipeline())
    }

    /// Forgets everything behind the batch that the caller holds.
    fn rewind(&mut self) {
        self.stop();
        self.failed = None;
        self.fetched.clear();
        (self.accepted, self.before, self.given, self.memory) = (0, None, None, None);
    }

    fn stop(&mut self) {
        drop(Closing(self.take_pipeline()));
    }

    fn take_pipeline(&mut self) -> Option<Arc<dyn Batches>> {
        let pipeline = self.pipeline.take()?;
        if self.process == std::process::id() {
            return Some(pipeline);
        }
        // In a forked child the threads are not there: joining them would wait for ever.
        std::mem::forget(pipeline);
        None
    }

    fn start(&mut self) -> Result<Arc<dyn Batches>> {
        let slot_len = self.config.slot_len();
        let memory = match self.memory.take() {
            Some(memory) => memory,
            None => SlotMemory::owned(slot_len * self.config.num_slots),
        };
        self.first_round = self.round;
        let ring = Ring::new(memory, self.config.num_slots, slot_len);
        let (shards, encoding) = match &self.source {
            Source::Text { shards, encoding } => (shards.clone(), encoding.clone()),
            Source::Windows(windows) => {
                let (windows, metrics) = (windows.clone(), self.metrics.clone());
                let started =
                    WindowPipeline::start(windows, &self.config, ring, metrics, &self.entries, self.turn)?;
                return Ok(Arc::new(started));
            }
        };
        let lanes = self.config.own_lanes().into_iter().zip(&self.entries).map(|(lane, entry)| {
            let packer = LanePacker::new(
                lane,
                self.config.sequence_length + 1,
                slot_len,
                self.config.pad_id,
                self.packer(),
                Inboxes::new(self.config.mixture.as_ref(), self.admission(), self.added_tokens(), entry),
                entry.clone(),
            );
            let feeds = Feeds::new(&self.plans, self.config.mixture.as_ref(), lane, entry);
            let packer = if self.config.return_documents { packer.returning_spans() } else { packer };
            Lane { feeds, packer }
        });
        let lanes: Vec<_> = lanes.collect();
        let limit = self.config.memory_limit_bytes;
        let floor = Floor::new(&self.config, &self.plans, &shards);
        let (account, cache_bytes) = (Account::new(limit), floor.cache_bytes(limit));
        let reserved = account.charge(floor.reserved_bytes(cache_bytes)).map_err(|_| {
            let rule = "the ring and the caches do not fit";
            Error::config("memory_limit_bytes", limit, rule)
        })?;
        // Of what is left, a quarter for text read ahead (its tokens take about as much again), a quarter for shared row
        // groups, and a quarter that reading ahead leaves alone. Within that: four steps a thread over all lanes, so that
        // none idles while another finishes what is next, and the text of two batches a lane (a token is about 4.5 bytes
        // of English).
        let share = account.free() / 4;
        let busy = 4 * STEP_BYTES * self.config.num_threads / lanes.len();
        let read_ahead_bytes = busy.max(2 * slot_len * 9 / 2).min(share / lanes.len()).max(STEP_BYTES);
        let work = Work {
            plans: self.plans.clone(),
            shards,
            encoding,
            ring,
            cache: RowGroupCache::new(share, &Pool::within(&account)),
            tokens: Pool::within(&account),
            account,
            reserved,
            spare_bytes: share,
            cache_bytes,
            metrics: self.metrics.clone(),
            bad_data: self.config.bad_data,
            excluded: self.excluded.clone(),
            read_ahead_bytes,
            ending: Ending { drop_last: self.config.plan.drop_last, is_shared: self.shares_end },
            // A lane that ends with one of its sources leaves what it has of the others; conversations bring their BOS
            // or none, and some are passed over. So their tokens say less.
            keeps_tokens: self.config.mixture.is_none()
                && self.config.chat.is_none()
                && matches!(self.config.packing, Packing::Concat | Packing::BestFit(Overflow::Carry)),
            #[cfg(test)]
            fault: self.fault,
        };
        Ok(Arc::new(Pipeline::start(work, lanes, self.turn, self.config.num_threads)?))
    }

    /// What of a document that is longer than a row is used.
    fn cut(&self) -> Cut {
        let cuts_left = self.config.chat.as_ref().is_some_and(|chat| chat.too_long == TooLong::CutLeft);
        match &self.source {
            Source::Text { encoding: Encoding::Conversations(renderer), .. } if cuts_left => {
                Cut::Left { keeps_first: renderer.has_bos() }
            }
            _ => Cut::End,
        }
    }

    /// In rows of whole conversations, those that no row could use are passed over.
    fn admission(&self) -> Option<Admission> {
        let chat = self.config.chat.as_ref().filter(|_| self.config.packing != Packing::Concat)?;
        let (row_length, cut) = (self.config.sequence_length + 1, self.cut());
        Some(Admission { row_length, cut, leaves_out_long: chat.too_long == TooLong::LeaveOut })
    }

    /// What the packer adds to each document: a BOS to texts; conversations bring their own.
    fn added_tokens(&self) -> u64 {
        u64::from(self.config.chat.is_none())
    }

    fn packer(&self) -> Box<dyn Packer> {
        let (bos, pad) = (self.config.bos_id, self.config.pad_id);
        let added = (self.added_tokens() > 0).then_some(bos);
        match self.config.packing {
            Packing::Concat => Box::new(Concat::new(added, pad)),
            Packing::BestFit(Overflow::Carry) => Box::new(Carry::new(bos, pad)),
            Packing::BestFit(Overflow::Crop) => Box::new(Crop::new(bos, pad)),
            Packing::BestFit(Overflow::Pad) => Box::new(Pad::new(added, pad).cutting(self.cut())),
            Packing::OnePerRow => Box::new(OnePerRow::new(added, pad).cutting(self.cut())),
        }
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The places of documents by their names.
fn excluded(names: &[DocumentName], identity: &Identity) -> Result<HashSet<DocumentPlace>> {
    let mut shards: HashMap<&str, Vec<usize>> = HashMap::new();
    for (index, shard) in identity.shards.iter().enumerate() {
        shards.entry(shard.name.as_str()).or_default().push(index);
    }
    let mut places = HashSet::new();
    for DocumentName { file, row_group, row } in names {
        let Some(indexes) = shards.get(file.as_str()) else {
            return Err(Error::config("exclude", format!("`{file}`"), "no shard of the data has this name"));
        };
        places.extend(indexes.iter().map(|&shard| (shard, *row_group, *row)));
    }
    Ok(places)
}

/// Shares are kept from here on, whatever was admitted before.
fn count_anew(entry: &mut LaneEntry) {
    entry.sources.iter_mut().for_each(|source| source.admitted = 0);
}

/// The plan of each source; that of a mixture's has a seed of its own.
fn plans(config: &LoaderConfig, sources: &[SourceShards]) -> Result<Vec<Plan>> {
    let mut first_shard = 0;
    let plan = |(index, source): (usize, &SourceShards)| {
        let row_counts: Vec<Vec<u64>> = source.shards.iter().map(Shard::row_counts).collect();
        let plan = match config.mixture {
            None => Plan::new(&row_counts, &config.plan)?,
            Some(_) => {
                let seed = key_of(&[config.plan.seed, 3, index as u64]);
                let plan = Plan::new(&row_counts, &PlanConfig { seed, ..config.plan.clone() });
                plan.map_err(|error| Error::Source { name: source.name.clone(), error: Box::new(error) })?
            }
        };
        let plan = plan.with_first_shard(first_shard);
        first_shard += source.shards.len();
        Ok(plan)
    };
    sources.iter().enumerate().map(plan).collect()
}

fn shard_identity(shard: &Shard) -> ShardIdentity {
    ShardIdentity {
        name: shard.name(),
        size_bytes: shard.size_bytes(),
        num_rows: shard.row_counts().iter().sum(),
        num_row_groups: shard.row_counts().len() as u64,
        footer: shard.footer_hash().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::config::BadData;
    use crate::error::Place;
    use crate::source::{ParquetWriter, open_shards};
    use crate::tokenizer::Tokenizer;

    type Fault = fn(Stage) -> Result<()>;

    /// The message of the error that a loader raises whose stages go wrong like that; raised again, too.
    fn message(fault: Fault) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        let mut writer = ParquetWriter::create(&path, "text", 10).unwrap();
        writer.write((0..100).map(|row| format!("row {row} of some words"))).unwrap();
        writer.close().unwrap();
        let config = LoaderConfig {
            plan: PlanConfig { lanes: 2, ..PlanConfig::default() },
            batch_size: 2,
            sequence_length: 10,
            packing: Packing::BestFit(Overflow::Carry),
            text_column: "text".into(),
            bos_id: 50256,
            pad_id: 50256,
            rank: 0,
            world_size: 1,
            num_threads: 2,
            num_slots: 2,
            memory_limit_bytes: 64 << 20,
            bad_data: BadData::default(),
            exclude: Vec::new(),
            return_documents: false,
            mixture: None,
            chat: None,
        };
        let tokenizer = Tokenizer::from_name("r50k_base").unwrap();
        let mut loader = Loader::new(config, open_shards(&[path], "text").unwrap(), tokenizer).unwrap();
        loader.fault = fault;
        let messages = [(); 2].map(|()| {
            loop {
                match loader.next_batch(Duration::from_secs(60)) {
                    Err(error) => break error.to_string(),
                    Ok(NextBatch::Batch(sequence, _)) => loader.release(sequence),
                    Ok(other) => panic!("no batch and no error: {other:?}"),
                }
            }
        });
        assert_eq!(messages[0], messages[1]);
        loader.close();
        messages[0].clone()
    }

    fn fails(stage: Stage, wanted: Stage) -> Result<()> {
        let place = Place::row_group("a.parquet", 3);
        match stage == wanted {
            true => Err(Error::io(place, io::Error::other("the disk is on fire"))),
            false => Ok(()),
        }
    }

    fn panics(stage: Stage, wanted: Stage) -> Result<()> {
        assert_ne!(stage, wanted, "a bug in a stage");
        Ok(())
    }

    #[test]
    fn a_failure_in_any_stage_is_raised_with_its_place() {
        let failures: [Fault; 3] = [
            |stage| fails(stage, Stage::Decode),
            |stage| fails(stage, Stage::Tokenize),
            |stage| fails(stage, Stage::Pack),
        ];
        for failure in failures {
            let message = message(failure);
            assert!(message.contains("`a.parquet`, row group 3: the disk is on fire"), "{message}");
        }
    }

    #[test]
    fn a_panic_in_any_stage_is_raised_with_its_place() {
        let panics: [(&str, Fault); 3] = [
            ("a.parquet`, row group", |stage| panics(stage, Stage::Decode)),
            ("a.parquet`, row group", |stage| panics(stage, Stage::Tokenize)),
            ("packing", |stage| panics(stage, Stage::Pack)),
        ];
        for (place, panic) in panics {
            let message = message(panic);
            assert!(message.contains(place) && message.contains("a bug in a stage"), "{message}");
            assert!(message.contains("lane "), "{message}");
        }
    }
}
