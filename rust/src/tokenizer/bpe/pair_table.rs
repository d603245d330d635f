//! Which two tokens merge: a hash table from a pair of ids to the priority and the id of what they become.

use crate::error::{Error, Result};
use crate::tokenizer::definition::Merges;
use crate::tokenizer::vocab::{Vocabulary, shown};

/// What two neighbours become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Merge {
    /// Smaller goes first.
    pub priority: u32,
    /// The id of the merged token.
    pub id: u32,
}

/// An immutable map from pairs of ids to merges, and from single bytes to ids.
#[derive(Debug)]
pub struct PairTable {
    byte_ids: [u32; 256],
    /// `left << 44 | right << 24 | priority`, or `EMPTY`.
    slots: Vec<u64>,
    shift: u32,
    /// The id for each priority; empty where they are equal.
    ids: Vec<u32>,
}

const EMPTY: u64 = u64::MAX;
const PRIORITY: u64 = (1 << 24) - 1;

impl PairTable {
    /// The table for a vocabulary.
    ///
    /// # Errors
    /// When the merges are more than a table can number.
    pub fn new(name: &str, vocabulary: &Vocabulary, merges: &Merges) -> Result<Self> {
        let mut byte_ids = [0; 256];
        for byte in 0..=255_u8 {
            byte_ids[usize::from(byte)] = vocabulary.id(&[byte]).expect("a vocabulary has all single bytes");
        }
        let (entries, ids) = match merges {
            Merges::ByRank => (splits(vocabulary), Vec::new()),
            Merges::List(pairs) => listed(name, vocabulary, pairs)?,
        };
        let bits = (entries.len().max(8) * 2).next_power_of_two().trailing_zeros();
        let mut table = Self { byte_ids, slots: vec![EMPTY; 1 << bits], shift: 64 - bits, ids };
        for entry in entries {
            table.insert(entry);
        }
        Ok(table)
    }

    fn insert(&mut self, entry: u64) {
        let mask = self.slots.len() - 1;
        let mut slot = home(entry >> 24, self.shift);
        // The last of equal pairs wins, as in Hugging Face's own map.
        while self.slots[slot] != EMPTY && self.slots[slot] >> 24 != entry >> 24 {
            slot = (slot + 1) & mask;
        }
        self.slots[slot] = entry;
    }

    /// What `left` and `right` become, if they merge.
    #[inline]
    pub fn get(&self, left: u32, right: u32) -> Option<Merge> {
        let key = key(left, right);
        let mask = self.slots.len() - 1;
        let mut slot = home(key, self.shift);
        loop {
            let entry = self.slots[slot];
            if entry >> 24 == key {
                let priority = (entry & PRIORITY) as u32;
                return Some(Merge {
                    priority,
                    id: self.ids.get(priority as usize).copied().unwrap_or(priority),
                });
            }
            if entry == EMPTY {
                return None;
            }
            slot = (slot + 1) & mask;
        }
    }

    /// The id of a single byte.
    #[inline]
    pub fn byte_id(&self, byte: u8) -> u32 {
        self.byte_ids[usize::from(byte)]
    }
}

#[inline]
fn key(left: u32, right: u32) -> u64 {
    u64::from(left) << 20 | u64::from(right)
}

#[inline]
fn home(key: u64, shift: u32) -> usize {
    (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> shift) as usize
}

/// Every way to cut a token into two tokens.
fn splits(vocabulary: &Vocabulary) -> Vec<u64> {
    let mut entries = Vec::with_capacity(vocabulary.num_tokens() * 2);
    for (id, token) in vocabulary.iter() {
        for cut in 1..token.len() {
            let (left, right) = token.split_at(cut);
            if let (Some(left), Some(right)) = (vocabulary.id(left), vocabulary.id(right)) {
                entries.push(key(left, right) << 24 | u64::from(id));
            }
        }
    }
    entries
}

fn listed(name: &str, vocabulary: &Vocabulary, pairs: &[(u32, u32)]) -> Result<(Vec<u64>, Vec<u32>)> {
    let refuse = |reason| Error::Vocabulary { name: name.into(), reason };
    if pairs.len() as u64 > PRIORITY {
        return Err(refuse(format!("{} merges; at most {PRIORITY} are taken", pairs.len())));
    }
    let (mut entries, mut ids) = (Vec::with_capacity(pairs.len()), Vec::with_capacity(pairs.len()));
    for (priority, &(left, right)) in (0_u64..).zip(pairs) {
        let merged = [vocabulary.token(left), vocabulary.token(right)].concat();
        let id = vocabulary.id(&merged);
        ids.push(id.ok_or_else(|| {
            refuse(format!("merge {priority} gives {}, which is no token", shown(&merged)))
        })?);
        entries.push(key(left, right) << 24 | priority);
    }
    Ok((entries, ids))
}
