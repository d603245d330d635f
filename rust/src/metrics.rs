//! Counters that threads add to and anybody may read. Rust counts; Python reports.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::error::Place;
use crate::sync::lock;

/// What a thread of the loader does with its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Reading files.
    Read,
    /// Opening row groups and decoding pages.
    Decode,
    /// Text → tokens.
    Tokenize,
    /// Tokens → rows.
    Pack,
    /// Nothing to do, since every slot is full: the consumer is slower.
    RingFull,
    /// Nothing to do for other reasons: other threads have all there is, or a lane is waited for.
    Idle,
}

impl Stage {
    /// All stages, in the order of the data flow.
    pub const ALL: [Self; 6] =
        [Self::Read, Self::Decode, Self::Tokenize, Self::Pack, Self::RingFull, Self::Idle];

    /// Its name in messages and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Decode => "decode",
            Self::Tokenize => "tokenize",
            Self::Pack => "pack",
            Self::RingFull => "ring_full",
            Self::Idle => "idle",
        }
    }
}

/// A document that was passed over, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Where it is.
    pub place: Place,
    /// Why.
    pub reason: &'static str,
}

/// Documents passed over that are listed; the ledger counts all. Enough to see what is wrong with a data set.
const MOST_LISTED: usize = 100;

/// Counters of one loader. All are statistics: `Relaxed`, since no other memory depends on them.
#[derive(Debug, Default)]
pub struct Metrics {
    stage_ns: [AtomicU64; Stage::ALL.len()],
    documents: AtomicU64,
    bytes: AtomicU64,
    tokens: AtomicU64,
    pretokens: AtomicU64,
    merged_pretokens: AtomicU64,
    waits: WaitHistogram,
    left_out: Mutex<Vec<LeftOut>>,
}

impl Metrics {
    /// Lists a document that was passed over, while there is room.
    pub fn left_out(&self, document: LeftOut) {
        let mut listed = lock(&self.left_out);
        if listed.len() < MOST_LISTED {
            listed.push(document);
        }
    }

    /// The first documents that were passed over, read-ahead included.
    pub fn left_out_so_far(&self) -> Vec<LeftOut> {
        lock(&self.left_out).clone()
    }

    /// Adds the time since `start` to a stage.
    pub fn spent(&self, stage: Stage, start: Instant) {
        self.add(stage, start.elapsed());
    }

    /// Adds a time to a stage.
    pub fn add(&self, stage: Stage, time: Duration) {
        self.stage_ns[stage as usize].fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }

    /// Counts pretokens, and those of them that no cache of the tokenizer knew.
    pub fn looked_up(&self, pretokens: u64, merged: u64) {
        self.pretokens.fetch_add(pretokens, Ordering::Relaxed);
        self.merged_pretokens.fetch_add(merged, Ordering::Relaxed);
    }

    /// The part of all pretokens that a cache of the tokenizer knew; 1 before the first.
    pub fn cache_hit_rate(&self) -> f64 {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
        1.0 - load(&self.merged_pretokens) / load(&self.pretokens).max(1.0)
    }

    /// Counts tokenized documents.
    pub fn tokenized(&self, documents: usize, bytes: usize, tokens: usize) {
        self.documents.fetch_add(documents as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.tokens.fetch_add(tokens as u64, Ordering::Relaxed);
    }

    /// Counts one wait for a batch.
    pub fn waited(&self, duration: Duration) {
        self.waits.add(duration);
    }

    /// Seconds that all threads together spent in a stage.
    pub fn stage_seconds(&self, stage: Stage) -> f64 {
        self.stage_ns[stage as usize].load(Ordering::Relaxed) as f64 * 1e-9
    }

    /// Documents, bytes and tokens tokenized so far, read-ahead included.
    pub fn tokenized_so_far(&self) -> (u64, u64, u64) {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (load(&self.documents), load(&self.bytes), load(&self.tokens))
    }

    /// The waits for batches.
    pub fn waits(&self) -> &WaitHistogram {
        &self.waits
    }
}

/// Durations in buckets of quarter octaves of nanoseconds: a quantile is right to 19 %.
#[derive(Debug)]
pub struct WaitHistogram {
    buckets: [AtomicU64; 256],
    total_ns: AtomicU64,
    max_ns: AtomicU64,
}

impl Default for WaitHistogram {
    fn default() -> Self {
        let buckets = std::array::from_fn(|_| AtomicU64::new(0));
        Self { buckets, total_ns: AtomicU64::new(0), max_ns: AtomicU64::new(0) }
    }
}

impl WaitHistogram {
    fn add(&self, duration: Duration) {
        let ns = duration.as_nanos() as u64;
        let bucket = ((ns.max(1) as f64).log2() * 4.0) as usize;
        self.buckets[bucket.min(255)].fetch_add(1, Ordering::Relaxed);
        self.total_ns.fetch_add(ns, Ordering::Relaxed);
        self.max_ns.fetch_max(ns, Ordering::Relaxed);
    }

    /// Number of waits.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }

    /// Seconds waited in all.
    pub fn total_seconds(&self) -> f64 {
        self.total_ns.load(Ordering::Relaxed) as f64 * 1e-9
    }

    /// The longest wait in seconds.
    pub fn max_seconds(&self) -> f64 {
        self.max_ns.load(Ordering::Relaxed) as f64 * 1e-9
    }

    /// Upper edge in seconds of the bucket in which `quantile` (0 to 1) of the waits ends; 0 without waits.
    pub fn quantile_seconds(&self, quantile: f64) -> f64 {
        let count = self.count();
        let rank = ((count as f64 * quantile).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, waits) in self.buckets.iter().enumerate() {
            seen += waits.load(Ordering::Relaxed);
            if count > 0 && seen >= rank {
                return (((bucket + 1) as f64 / 4.0).exp2() * 1e-9).min(self.max_seconds());
            }
        }
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_within_a_bucket_of_the_truth() {
        let waits = WaitHistogram::default();
        assert_eq!(waits.quantile_seconds(0.5), 0.0);
        for ms in 1..=100 {
            waits.add(Duration::from_millis(ms));
        }
        for (quantile, truth) in [(0.5, 0.050), (0.99, 0.099), (1.0, 0.100)] {
            let found = waits.quantile_seconds(quantile);
            assert!(found >= truth && found <= truth * 1.19, "{quantile}: {found}");
        }
        assert_eq!(waits.count(), 100);
    }
}
