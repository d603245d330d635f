//! Which merges to learn: again and again the pair of neighbours that occurs most often.
//!
//! ```text
//! counts   pair → how often it occurs, kept up to date        queue   (count when queued, pair, words that hold it)
//! ```
//! Counts only go down while a pair waits, since new pairs hold the newest token. So an entry whose count is out of date
//! goes back with the right one, and the first that is up to date is the largest. (The scheme is that of Hugging Face's
//! trainer, whose merges these equal.)

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::words::{Pair, Words};

/// Merges between two questions whether to go on.
const STEP: usize = 256;

/// Ordered by count, and among equals the smaller pair is greater.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    count: i64,
    pair: Reverse<Pair>,
    words: Vec<u32>,
}

/// Up to `num_merges` merges, fewer where every word is one token. The first gives the id 256. None when `goes_on` said no.
pub(super) fn learn(
    mut words: Words,
    num_merges: usize,
    mut goes_on: impl FnMut(usize) -> bool,
) -> Option<Vec<Pair>> {
    let mut pairs = Pairs::default();
    for word in 0..words.len() {
        let count = words.count(word) as i64;
        words.pairs(word).for_each(|pair| pairs.add(pair, count, word));
    }
    pairs.enqueue();
    let mut merges = Vec::with_capacity(num_merges);
    while merges.len() < num_merges {
        if merges.len() % STEP == 0 && !goes_on(merges.len()) {
            return None;
        }
        let Some((pair, holders)) = pairs.most_frequent() else { break };
        let id = 256 + merges.len() as u32;
        merges.push(pair);
        for word in holders {
            let word = word as usize;
            let count = words.count(word) as i64;
            words.merge(word, pair, id, |pair, change| pairs.add(pair, change * count, word));
        }
        pairs.enqueue();
    }
    Some(merges)
}

#[derive(Debug, Default)]
struct Pairs {
    counts: HashMap<Pair, i64>,
    /// Words that hold pairs which are not queued yet.
    fresh: HashMap<Pair, Vec<u32>>,
    queue: BinaryHeap<Candidate>,
}

impl Pairs {
    fn add(&mut self, pair: Pair, change: i64, word: usize) {
        *self.counts.entry(pair).or_default() += change;
        if change > 0 {
            let words = self.fresh.entry(pair).or_default();
            if words.last() != Some(&(word as u32)) {
                words.push(word as u32);
            }
        }
    }

    fn enqueue(&mut self) {
        for (pair, words) in self.fresh.drain() {
            let count = self.counts[&pair];
            if count > 0 {
                self.queue.push(Candidate { count, pair: Reverse(pair), words });
            }
        }
    }

    /// The pair that occurs most often, with the words that hold it, or did.
    fn most_frequent(&mut self) -> Option<(Pair, Vec<u32>)> {
        loop {
            let mut top = self.queue.pop()?;
            let count = self.counts[&top.pair.0];
            if count == top.count {
                self.counts.remove(&top.pair.0);
                return Some((top.pair.0, top.words));
            }
            if count > 0 {
                top.count = count;
                self.queue.push(top);
            }
        }
    }
}
