//! Merging with a heap of candidate pairs: O(n log n) for any input, for pretokens too long for the others.
//!
//! ```text
//! parts   h ⇄ e ⇄ l ⇄ l ⇄ o        heap   (priority, position) of each pair that merges
//! ```
//! A candidate is stale when its left part has been merged since; its priority then differs from the part's own.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::PairTable;

const NONE: u32 = u32::MAX;

/// Steps between two looks at the flag that stops a merge: some milliseconds.
const STEPS_BETWEEN_LOOKS: u32 = 1 << 16;

/// Buffers that are kept between calls.
#[derive(Debug, Default)]
pub struct HeapMerger {
    parts: Vec<Part>,
    candidates: BinaryHeap<Reverse<(u32, u32)>>,
    /// Ends a merge where it is; what comes out is then of no use.
    stopping: Option<Arc<AtomicBool>>,
    /// Whether one was ended.
    was_stopped: bool,
}

/// A run of bytes merged so far, in a doubly linked list by position.
#[derive(Clone, Copy, Debug)]
struct Part {
    id: u32,
    before: u32,
    after: u32,
    /// Priority and result of merging with the next part; `NONE` where they do not merge.
    priority: u32,
    merged_id: u32,
}

impl HeapMerger {
    /// Sets the flag that ends merges.
    pub fn stop_with(&mut self, stopping: Option<Arc<AtomicBool>>) {
        self.stopping = stopping;
    }

    /// Whether a merge was ended: what came out since then may be anything.
    pub fn was_stopped(&self) -> bool {
        self.was_stopped
    }

    /// Whether to end, asked at each of many steps.
    pub(super) fn stops(&mut self, step: u32) -> bool {
        // Relaxed: the flag is all that is said.
        let is_set = || self.stopping.as_ref().is_some_and(|stopping| stopping.load(Ordering::Relaxed));
        let stops = step.is_multiple_of(STEPS_BETWEEN_LOOKS) && is_set();
        self.was_stopped |= stops;
        stops
    }

    /// Appends the ids of `pretoken`, equal to those of [`naive::merge`](super::naive::merge).
    ///
    /// # Panics
    /// When `pretoken` has 4 GiB or more.
    pub fn merge(&mut self, pairs: &PairTable, pretoken: &[u8], out: &mut Vec<u32>) {
        let num_parts = u32::try_from(pretoken.len()).expect("a pretoken is below 4 GiB");
        self.parts.clear();
        self.candidates.clear();
        self.parts.extend((0..num_parts).zip(pretoken).map(|(at, &byte)| Part {
            id: pairs.byte_id(byte),
            before: at.wrapping_sub(1),
            after: at + 1,
            priority: NONE,
            merged_id: NONE,
        }));
        for at in 0..num_parts {
            if self.stops(at) {
                return out.push(self.parts[0].id); // callers count on one id at least
            }
            self.consider(pairs, at);
        }
        let mut step = 0u32;
        while let Some(Reverse((priority, at))) = self.candidates.pop() {
            step = step.wrapping_add(1);
            if self.stops(step) {
                return out.push(self.parts[0].id); // callers count on one id at least
            }
            if self.parts[at as usize].priority == priority {
                self.merge_at(pairs, at);
            }
        }
        let mut at = 0;
        while at < num_parts {
            let part = self.parts[at as usize];
            out.push(part.id);
            at = part.after;
        }
    }

    /// Looks up the pair that begins at `at`.
    fn consider(&mut self, pairs: &PairTable, at: u32) {
        let part = self.parts[at as usize];
        let next = self.parts.get(part.after as usize);
        let merge = next.and_then(|next| pairs.get(part.id, next.id));
        let part = &mut self.parts[at as usize];
        (part.priority, part.merged_id) = merge.map_or((NONE, NONE), |merge| (merge.priority, merge.id));
        if part.priority != NONE {
            self.candidates.push(Reverse((part.priority, at)));
        }
    }

    fn merge_at(&mut self, pairs: &PairTable, at: u32) {
        let part = self.parts[at as usize];
        let gone = &mut self.parts[part.after as usize];
        gone.priority = NONE;
        let after = gone.after;
        if let Some(next) = self.parts.get_mut(after as usize) {
            next.before = at;
        }
        let part = &mut self.parts[at as usize];
        part.id = part.merged_id;
        part.after = after;
        let before = part.before;
        self.consider(pairs, at);
        if before != NONE {
            self.consider(pairs, before);
        }
    }
}
