//! Documents that wait for a row, in order of arrival and in order of length, each in O(log n); and what the rules of
//! best fit have in common: how documents arrive, and how a state is told and taken up.
//!
//! The rules of best fit ask for the longest that fits, the longest, the shortest and the oldest, "the oldest among
//! equals" every time; so the index is ordered by length and, within a length, from the newest to the oldest.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::held::Held;
use super::{Document, Next, admit};
use crate::error::{Error, Result};
use crate::state::{Ledger, PackerState};

/// Documents by arrival and by length; a length is what the packer says it is.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    by_arrival: BTreeMap<u64, (Held, usize)>,
    by_length: BTreeSet<(usize, Reverse<u64>)>,
    /// Documents that arrived earlier have batches of their own.
    owned_until: u64,
    /// Documents that have arrived so far: the number of the next.
    pub(super) arrivals: u64,
    /// Where their tokens went.
    pub(super) ledger: Ledger,
}

impl Buffer {
    pub(super) fn len(&self) -> usize {
        self.by_arrival.len()
    }

    /// Admits documents until `count` of them wait or the input has ended; false when the next is not there yet.
    pub(super) fn fill(
        &mut self,
        count: usize,
        input: &mut dyn FnMut() -> Next,
        length: impl Fn(&Held) -> usize,
    ) -> bool {
        while self.len() < count {
            match input() {
                Next::Document(document) => {
                    admit(&mut self.ledger, &document);
                    let held = self.arrive(document);
                    let length = length(&held);
                    self.insert(held, length);
                }
                Next::Pending => return false,
                Next::End => break,
            }
        }
        true
    }

    /// Numbers a document.
    pub(super) fn arrive(&mut self, document: Document) -> Held {
        self.arrivals += 1;
        Held::new(document, self.arrivals - 1)
    }

    pub(super) fn insert(&mut self, held: Held, length: usize) {
        self.by_length.insert((length, Reverse(held.arrival)));
        self.by_arrival.insert(held.arrival, (held, length));
    }

    /// Takes out the document of that arrival.
    pub(super) fn take(&mut self, arrival: u64) -> Option<Held> {
        let (held, length) = self.by_arrival.remove(&arrival)?;
        self.by_length.remove(&(length, Reverse(arrival)));
        Some(held)
    }

    /// The document of that arrival.
    pub(super) fn get(&self, arrival: u64) -> Option<&Held> {
        self.by_arrival.get(&arrival).map(|(held, _)| held)
    }

    /// Uses up `count` tokens of the document of that arrival; it keeps its place.
    pub(super) fn shorten(&mut self, arrival: u64, count: usize) {
        if let Some((held, length)) = self.by_arrival.get_mut(&arrival) {
            self.by_length.remove(&(*length, Reverse(arrival)));
            held.used += count;
            *length -= count;
            self.by_length.insert((*length, Reverse(arrival)));
        }
    }

    /// The arrival of the oldest document.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.by_arrival.keys().next().copied()
    }

    /// The arrival of the longest document of at most `limit`.
    pub(super) fn longest_within(&self, limit: usize) -> Option<u64> {
        self.by_length.range(..=(limit, Reverse(0))).next_back().map(|&(_, Reverse(arrival))| arrival)
    }

    /// The arrival of the longest document.
    pub(super) fn longest(&self) -> Option<u64> {
        self.by_length.last().map(|&(_, Reverse(arrival))| arrival)
    }

    /// The arrival of the shortest document.
    pub(super) fn shortest(&self) -> Option<u64> {
        self.by_length.first().and_then(|&(length, _)| self.longest_within(length))
    }

    /// Gives the documents that arrived before `arrival` batches of their own, each once.
    pub(super) fn own_until(&mut self, arrival: u64) {
        if self.owned_until < arrival {
            let old = self.by_arrival.range_mut(self.owned_until..arrival);
            old.for_each(|(_, (held, _))| held.own());
            self.owned_until = arrival;
        }
    }

    /// Measures every document again.
    pub(super) fn measure(&mut self, length: impl Fn(&Held) -> usize) {
        self.by_length.clear();
        for (&arrival, (held, known)) in &mut self.by_arrival {
            *known = length(held);
            self.by_length.insert((*known, Reverse(arrival)));
        }
    }

    /// The documents as a state, in order of arrival.
    pub(super) fn state(&self) -> PackerState {
        let waiting = self.by_arrival.values().map(|(held, _)| held.waiting(0));
        PackerState { arrivals: self.arrivals, waiting: waiting.collect() }
    }

    /// Takes up a state; its documents come in the same order. Arrivals are what tells them apart: each its own, each
    /// before the lane's next.
    pub(super) fn restore(
        &mut self,
        state: &PackerState,
        documents: Vec<Document>,
        ledger: Ledger,
        length: impl Fn(&Held) -> usize,
    ) -> Result<()> {
        for held in Held::restored(state, documents, 0) {
            let held = held?;
            let length = length(&held);
            self.insert(held, length);
        }
        let all_before = state.waiting.iter().all(|waiting| waiting.arrival < state.arrivals);
        if self.len() != state.waiting.len() || !all_before {
            return Err(Error::State {
                reason: format!(
                    "the {} buffered documents should have arrival numbers of their own, each below {}",
                    state.waiting.len(),
                    state.arrivals
                ),
            });
        }
        (self.arrivals, self.ledger) = (state.arrivals, ledger);
        Ok(())
    }
}
