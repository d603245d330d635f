//! Which two tokens merge: a hash table from a pair of ids to the priority of their merge.
//!
//! ```text
//! marks     one byte a slot: some bits of the pair that may be there
//! entries   one a slot: left right priority, 20 + 20 + 24 bits
//! ```
//! Each pair has a slot of its own (perfect hashing), so a look-up has no loop and no branch: look-ups of several words
//! overlap. Most pairs do not merge, and their mark says so; marks are an eighth of the table and stay near.

use super::perfect_hash::PerfectHash;
use crate::error::{Error, Result};
use crate::tokenizer::definition::Merges;
#[cfg(target_arch = "x86_64")]
use crate::tokenizer::probe::prefetch;
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
    slots: PerfectHash,
    marks: Vec<u8>,
    entries: Vec<u64>,
    /// The id for each priority; empty where they are equal.
    ids: Vec<u32>,
}

/// A pair, and the only slot where it may be.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Location {
    key: u64,
    slot: usize,
}

const _: () = assert!(MAX_IDS < 1 << ID_BITS);
const ID_BITS: u32 = 20;
const PRIORITY_BITS: u32 = 24;
const PRIORITY: u64 = (1 << PRIORITY_BITS) - 1;
/// A priority that no entry has, and ids that no pair of one vocabulary has.
const EMPTY: u64 = u64::MAX;

impl PairTable {
    /// The table for a vocabulary.
    ///
    /// # Errors
    /// When the merges are more than a table can number, or give what is no token.
    pub fn new(name: &str, vocabulary: &Vocabulary, merges: &Merges) -> Result<Self> {
        match merges {
            Merges::ByRank => Self::with(name, vocabulary, entries_of(cuts(vocabulary)), Vec::new()),
            Merges::List(pairs) => {
                let (entries, ids) = listed(name, vocabulary, pairs)?;
                Self::with(name, vocabulary, entries, ids)
            }
        }
    }

    /// The table of a vocabulary that merges by rank, from all cuts of its tokens into two.
    pub(crate) fn from_cuts(
        name: &str,
        vocabulary: &Vocabulary,
        cuts: impl IntoIterator<Item = Cut>,
    ) -> Result<Self> {
        Self::with(name, vocabulary, entries_of(cuts), Vec::new())
    }

    fn with(name: &str, vocabulary: &Vocabulary, entries: Vec<u64>, ids: Vec<u32>) -> Result<Self> {
        let mut byte_ids = [0; 256];
        for byte in 0..=255_u8 {
            byte_ids[usize::from(byte)] = vocabulary.id(&[byte]).expect("a vocabulary has all single bytes");
        }
        let keys: Vec<u64> = entries.iter().map(|entry| entry >> PRIORITY_BITS).collect();
        let slots = PerfectHash::new(&keys).ok_or_else(|| Error::Vocabulary {
            name: name.into(),
            reason: format!(
                "its {} merges cannot be put into a table; is it a trained vocabulary?",
                keys.len()
            ),
        })?;
        let (mut marks, mut placed) = (vec![0; slots.num_slots()], vec![EMPTY; slots.num_slots()]);
        for (&key, entry) in keys.iter().zip(entries) {
            let (slot, mark) = slots.place(key);
            (marks[slot], placed[slot]) = (mark, entry);
        }
        let mut table = Self { byte_ids, byte_pairs: Box::default(), slots, marks, entries: placed, ids };
        let pair = |pair: usize| table.priority(byte_ids[pair >> 8], byte_ids[pair & 0xff]);
        table.byte_pairs = (0..1 << 16).map(pair).collect();
        Ok(table)
    }

    /// All pairs in the order of their priorities, pairs of one priority by their left part.
    pub(crate) fn listed(&self) -> Vec<(u32, u32)> {
        let mut entries: Vec<u64> = self.entries.iter().copied().filter(|&entry| entry != EMPTY).collect();
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
        self.priority_at(self.locate(left, right))
    }

    /// Where the priority of a pair is, for [`priority_at`](Self::priority_at).
    #[inline(always)]
    pub(super) fn locate(&self, left: u32, right: u32) -> Location {
        let key = key(left, right);
        let (slot, mark) = self.slots.place(key);
        // A place that is always near, where the pair cannot be at its own.
        let slot = if self.marks[slot] == mark { slot } else { 0 };
        Location { key, slot }
    }

    /// Asks for a priority to come near.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(super) fn fetch(&self, location: Location) {
        prefetch(&self.entries[location.slot]);
    }

    /// The priority of a pair that has been located, or [`NONE`].
    #[inline(always)]
    pub(super) fn priority_at(&self, Location { key, slot }: Location) -> u32 {
        let entry = self.entries[slot];
        if entry >> PRIORITY_BITS == key { (entry & PRIORITY) as u32 } else { NONE }
    }

    /// The id that a merge of `priority` gives.
    #[inline(always)]
    pub fn merged_id(&self, priority: u32) -> u32 {
        self.ids.get(priority as usize).copied().unwrap_or(priority)
    }

    /// The ids of all single bytes.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(super) fn byte_ids(&self) -> &[u32; 256] {
        &self.byte_ids
    }

    /// The priority of each pair of bytes, `first << 8 | second`.
    #[cfg(target_arch = "x86_64")]
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

fn entries_of(cuts: impl IntoIterator<Item = Cut>) -> Vec<u64> {
    let entry = |cut: Cut| key(cut.left, cut.right) << PRIORITY_BITS | u64::from(cut.whole);
    cuts.into_iter().map(entry).collect()
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
    // The last of equal pairs wins, as in Hugging Face's own map.
    entries.sort_unstable();
    entries.dedup_by(|later, kept| {
        let equal = *later >> PRIORITY_BITS == *kept >> PRIORITY_BITS;
        *kept = if equal { *later } else { *kept };
        equal
    });
    Ok((entries, ids))
}
