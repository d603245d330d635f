//! The Rust API of the loader: shards and settings in, batches and states out.
//!
//! ```text
//! open_shards ─▶ Loader::new ─▶ next_batch(timeout) ─▶ tokens(batch) ─▶ release(batch) ─▶ …
//!                    ▲ restore(state)                                        state() ─▶ resume elsewhere
//! ```
//! Threads start with the first `next_batch`, so that a loader can be made, restored, pickled or dropped before a
//! fork. The state is that of the batch that the caller holds, whatever was prefetched.

#[cfg(test)]
mod faults;
mod open;
mod resume;
mod split;
mod start;
mod waiting;

use std::collections::{HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::LoaderConfig;
use crate::error::{Error, Result};
use crate::lane::{BatchShape, SlotHeader};
use crate::metrics::Metrics;
#[cfg(test)]
use crate::metrics::Stage;
use crate::packing::Span;
use crate::piece::DocumentPlace;
pub use crate::pipeline::Queues;
use crate::pipeline::{Batches, Poll};
use crate::plan::{Plan, Unit};
use crate::quarantine::{BadFile, Quarantine, Quarantined};
use crate::ring::SlotMemory;
use crate::source::Shard;
use crate::state::{Identity, LaneEntry, Ledger};
use crate::tokenizer::Encoding;
use crate::windows::Windows;

pub use waiting::{Closing, Waiter};

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

impl Loader {
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
            split::split_row(&row[..=length], inputs, targets);
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

    /// Weights of a mixture's sources.
    pub fn weights(&self) -> &[f64] {
        self.config.mixture.as_ref().map_or(&[], |mixture| &mixture.weights)
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
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.stop();
    }
}
