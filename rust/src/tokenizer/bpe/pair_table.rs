//! Which two tokens merge: a hash table from a pair of ids to the priority of their merge.
//!
//! ```text
//! bucket (16 bytes)   left right priority | left right priority        20 + 20 + 24 bits each
//! ```
//! A pair is in one of two buckets (cuckoo hashing), so a look-up reads two places that do not depend on each other and has
//! no loop: look-ups of several words overlap.

use crate::error::{Error, Result};
use crate::tokenizer::definition::Merges;
use crate::tokenizer::vocab::{MAX_IDS, Vocabulary, shown};

/// No merge; larger than every priority.
pub const NONE: u32 = u32::MAX;

/// What two neighbours become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Merge {
    /// Smaller goes first.
    pub priority: u32,
    /// The id of the merged token.
    pub id: u32,
}

/// A token as two others, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The token.
    pub whole: u32,
    /// The token it begins with.
    pub left: u32,
    /// The token that is the rest.
    pub right: u32,
}

/// An immutable map from pairs of ids to merges, and from single bytes to ids.
#[derive(Debug)]
pub struct PairTable {
    byte_ids: [u32; 256],
    /// The priority of each pair of bytes, `first << 8 | second`.
    byte_pairs: Box<[u32]>,
    buckets: Vec<[u64; 2]>,
    shift: u32,
    /// The id for each priority; empty where they are equal.
    ids: Vec<u32>,
}

const _: () = assert!(MAX_IDS < 1 << ID_BITS);
const ID_BITS: u32 = 20;
const PRIORITY_BITS: u32 = 24;
const PRIORITY: u64 = (1 << PRIORITY_BITS) - 1;
/// A priority that no entry has, and ids that no pair of one vocabulary has.
const EMPTY: u64 = u64::MAX;

/// After so many moves an insertion gives up and the table doubles. Below a load of 0.85 a handful is enough.
const MAX_MOVES: usize = 200;

impl PairTable {
    /// The table for a vocabulary.
    ///
    /// # Errors
    /// When the merges are more than a table can number, or give what is no token.
    pub fn new(name: &str, vocabulary: &Vocabulary, merges: &Merges) -> Result<Self> {
        match merges {
            Merges::ByRank => Ok(Self::from_cuts(vocabulary, cuts(vocabulary))),
            Merges::List(pairs) => {
                listed(name, vocabulary, pairs).map(|(entries, ids)| Self::with(vocabulary, &entries, ids))
            }
        }
    }

    /// The table of a vocabulary that merges by rank, from all cuts of its tokens into two.
    pub(crate) fn from_cuts(vocabulary: &Vocabulary, cuts: impl IntoIterator<Item = Cut>) -> Self {
        let entry = |cut: Cut| key(cut.left, cut.right) << PRIORITY_BITS | u64::from(cut.whole);
        Self::with(vocabulary, &cuts.into_iter().map(entry).collect::<Vec<_>>(), Vec::new())
    }

    fn with(vocabulary: &Vocabulary, entries: &[u64], ids: Vec<u32>) -> Self {
        let mut byte_ids = [0; 256];
        for byte in 0..=255_u8 {
            byte_ids[usize::from(byte)] = vocabulary.id(&[byte]).expect("a vocabulary has all single bytes");
        }
        // Half as many buckets as entries would be a load of 1; one at most 0.85 is filled quickly.
        let mut bits = (entries.len().max(8) * 10 / 17).next_power_of_two().trailing_zeros();
        let buckets = loop {
            match filled(entries, bits) {
                Some(buckets) => break buckets,
                None => bits += 1,
            }
        };
        let mut table = Self { byte_ids, byte_pairs: Box::default(), buckets, shift: 64 - bits, ids };
        let pair = |pair: usize| table.priority(byte_ids[pair >> 8], byte_ids[pair & 0xff]);
        table.byte_pairs = (0..1 << 16).map(pair).collect();
        table
    }

    /// All pairs in the order of their priorities, pairs of one priority by their left part.
    pub(crate) fn listed(&self) -> Vec<(u32, u32)> {
        let mut entries: Vec<u64> =
            self.buckets.as_flattened().iter().copied().filter(|&entry| entry != EMPTY).collect();
        entries.sort_unstable_by_key(|entry| (entry & PRIORITY, entry >> PRIORITY_BITS));
        let id = |entry: u64, shift: u32| (entry >> shift) as u32 & ((1 << ID_BITS) - 1);
        entries.into_iter().map(|it| (id(it, ID_BITS + PRIORITY_BITS), id(it, PRIORITY_BITS))).collect()
    }

    /// What `left` and `right` become, if they merge.
    #[inline]
    pub fn get(&self, left: u32, right: u32) -> Option<Merge> {
        let priority = self.priority(left, right);
        (priority != NONE).then(|| Merge { priority, id: self.merged_id(priority) })
    }

    /// The priority of merging `left` and `right`, or [`NONE`].
    #[inline(always)]
    pub fn priority(&self, left: u32, right: u32) -> u32 {
        let key = key(left, right);
        let (one, other) = homes(key, self.shift);
        let mut found = u64::from(NONE);
        for entry in [self.buckets[one], self.buckets[other]].as_flattened() {
            if entry >> PRIORITY_BITS == key {
                found = entry & PRIORITY;
            }
        }
        found as u32
    }

    /// The id that a merge of `priority` gives.
    #[inline(always)]
    pub fn merged_id(&self, priority: u32) -> u32 {
        self.ids.get(priority as usize).copied().unwrap_or(priority)
    }

    /// The ids of all single bytes.
    #[inline(always)]
    pub(super) fn byte_ids(&self) -> &[u32; 256] {
        &self.byte_ids
    }

    /// The priority of each pair of bytes, `first << 8 | second`.
    #[inline(always)]
    pub(super) fn byte_pairs(&self) -> &[u32] {
        &self.byte_pairs
    }

    /// The id of a single byte.
    #[inline(always)]
    pub fn byte_id(&self, byte: u8) -> u32 {
        self.byte_ids[usize::from(byte)]
    }

    /// The priority of merging two single bytes, or [`NONE`].
    #[inline(always)]
    pub fn of_bytes(&self, [left, right]: [u8; 2]) -> u32 {
        self.byte_pairs[usize::from(left) << 8 | usize::from(right)]
    }
}

#[inline(always)]
fn key(left: u32, right: u32) -> u64 {
    u64::from(left) << ID_BITS | u64::from(right)
}

/// The two buckets of a key: the high bits of two products.
#[inline(always)]
fn homes(key: u64, shift: u32) -> (usize, usize) {
    let one = key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> shift;
    let other = key.wrapping_mul(0xd6e8_feb8_6659_fd93) >> shift;
    (one as usize, other as usize)
}

/// A table of `1 << bits` buckets with all entries, if they fit.
fn filled(entries: &[u64], bits: u32) -> Option<Vec<[u64; 2]>> {
    let shift = 64 - bits;
    let mut buckets = vec![[EMPTY; 2]; 1 << bits];
    for &entry in entries {
        insert(&mut buckets, shift, entry)?;
    }
    Some(buckets)
}

fn insert(buckets: &mut [[u64; 2]], shift: u32, mut entry: u64) -> Option<()> {
    let (one, other) = homes(entry >> PRIORITY_BITS, shift);
    // The last of equal pairs wins, as in Hugging Face's own map.
    let same = |slot: &&mut u64| **slot >> PRIORITY_BITS == entry >> PRIORITY_BITS;
    for at in [one, other] {
        if let Some(slot) = buckets[at].iter_mut().find(same) {
            *slot = entry;
            return Some(());
        }
    }
    let mut at = one;
    for moves in 0..MAX_MOVES {
        let (one, other) = homes(entry >> PRIORITY_BITS, shift);
        for home in [one, other] {
            if let Some(slot) = buckets[home].iter_mut().find(|slot| **slot == EMPTY) {
                *slot = entry;
                return Some(());
            }
        }
        // Out with one of the other bucket, in turn; it has another bucket to go to.
        at = if at == one { other } else { one };
        std::mem::swap(&mut buckets[at][moves / 2 % 2], &mut entry);
    }
    None
}

/// Every way to cut a token into two tokens.
fn cuts(vocabulary: &Vocabulary) -> impl Iterator<Item = Cut> {
    vocabulary.iter().flat_map(move |(whole, token)| {
        (1..token.len()).filter_map(move |at| {
            let (left, right) = (vocabulary.id(&token[..at])?, vocabulary.id(&token[at..])?);
            Some(Cut { whole, left, right })
        })
    })
}

fn listed(name: &str, vocabulary: &Vocabulary, pairs: &[(u32, u32)]) -> Result<(Vec<u64>, Vec<u32>)> {
    let refuse = |reason| Error::Vocabulary { name: name.into(), reason };
    if pairs.len() as u64 >= PRIORITY {
        return Err(refuse(format!("{} merges; at most {} are taken", pairs.len(), PRIORITY - 1)));
    }
    let (mut entries, mut ids) = (Vec::with_capacity(pairs.len()), Vec::with_capacity(pairs.len()));
    let mut merged = Vec::new();
    for (priority, &(left, right)) in (0_u64..).zip(pairs) {
        merged.clear();
        merged.extend_from_slice(vocabulary.token(left));
        merged.extend_from_slice(vocabulary.token(right));
        let id = vocabulary.id(&merged);
        ids.push(id.ok_or_else(|| {
            refuse(format!("merge {priority} gives {}, which is no token", shown(&merged)))
        })?);
        entries.push(key(left, right) << PRIORITY_BITS | priority);
    }
    Ok((entries, ids))
}
