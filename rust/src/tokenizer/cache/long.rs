//! Ids of pretokens that the short table cannot hold: longer, or more ids, or no room there.
//!
//! ```text
//! index   [hash, place in the arena, bytes, ids] by open addressing, at most half full
//! arena   the pretoken's bytes, its ids as four bytes each, the next pretoken ...
//! ```
//! Keys are compared whole. Both have their size from the beginning, and take memory as they fill; when one is full nothing
//! more is stored.

use super::table::{Table, Zeroable};
use crate::tokenizer::probe::prefetch;
use crate::tokenizer::vocab::hash;

/// Longer pretokens are merged every time: they hardly repeat.
const MAX_BYTES: usize = 512;

/// Bytes of the limit for each slot: a pretoken of English takes some 40 in the arena and two slots.
const BYTES_PER_SLOT: usize = 32;

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    tag: u32,
    place: u32,
    num_bytes: u16,
    /// 0 in a free slot.
    num_ids: u16,
}

// SAFETY: integers.
#[expect(unsafe_code, reason = "a promise to the table")]
unsafe impl Zeroable for Slot {}

/// A map that only ever fills.
#[derive(Debug)]
pub(crate) struct LongCache {
    slots: Table<Slot>,
    used: usize,
    /// Never grows.
    arena: Vec<u8>,
}

impl LongCache {
    /// An empty map that takes at most `limit_bytes`.
    pub(crate) fn new(limit_bytes: usize) -> Self {
        let num_slots = 1 << (limit_bytes / BYTES_PER_SLOT).max(1).ilog2();
        let arena_bytes = limit_bytes.saturating_sub(num_slots * size_of::<Slot>()).min(u32::MAX as usize);
        Self { slots: Table::new(num_slots), used: 0, arena: Vec::with_capacity(arena_bytes) }
    }

    /// The hash of a pretoken; 0 for those that are never stored.
    #[inline]
    pub(crate) fn hash(pretoken: &[u8]) -> u64 {
        if pretoken.len() > MAX_BYTES { 0 } else { hash(pretoken) }
    }

    /// Asks for the slot of a pretoken with this hash to come near.
    #[inline]
    pub(crate) fn fetch(&self, hash: u64) {
        prefetch(&self.slots[self.tag_and_slot(hash).1]);
    }

    /// Asks for the key and the ids of the first candidate to come near.
    #[inline]
    pub(crate) fn fetch_arena(&self, hash: u64) {
        let (tag, at) = self.tag_and_slot(hash);
        let slot = self.slots[at];
        if slot.num_ids > 0 && slot.tag == tag {
            prefetch(&self.arena[slot.place as usize]);
        }
    }

    /// Appends the ids of `pretoken`, whose hash is `hash`, to `out`, if it is known; returns whether it is.
    #[inline]
    pub(crate) fn find(&self, hash: u64, pretoken: &[u8], out: &mut Vec<u32>) -> bool {
        if pretoken.len() > MAX_BYTES {
            return false;
        }
        let (tag, mut at) = self.tag_and_slot(hash);
        loop {
            let slot = &self.slots[at];
            if slot.num_ids == 0 {
                return false;
            }
            if slot.tag == tag && usize::from(slot.num_bytes) == pretoken.len() {
                let (key, rest) = self.arena[slot.place as usize..].split_at(pretoken.len());
                if key == pretoken {
                    let ids = &rest.as_chunks::<4>().0[..slot.num_ids.into()];
                    out.extend(ids.iter().map(|id| u32::from_le_bytes(*id)));
                    return true;
                }
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }

    /// Stores the ids of a pretoken that is not in the map, where the limit allows it; returns whether it did.
    pub(crate) fn insert(&mut self, pretoken: &[u8], ids: &[u32]) -> bool {
        let fits = self.arena.capacity() - self.arena.len() >= pretoken.len() + 4 * ids.len()
            && (self.used + 1) * 2 <= self.slots.len();
        if pretoken.len() > MAX_BYTES || ids.is_empty() || !fits {
            return false;
        }
        let hash = hash(pretoken);
        let slot = Slot {
            tag: self.tag_and_slot(hash).0,
            place: self.arena.len() as u32,
            num_bytes: pretoken.len() as u16,
            num_ids: ids.len() as u16,
        };
        self.place(hash, slot);
        self.arena.extend_from_slice(pretoken);
        ids.iter().for_each(|id| self.arena.extend_from_slice(&id.to_le_bytes()));
        true
    }

    fn place(&mut self, hash: u64, slot: Slot) {
        let mut at = self.tag_and_slot(hash).1;
        while self.slots[at].num_ids > 0 {
            at = (at + 1) & (self.slots.len() - 1);
        }
        self.slots[at] = slot;
        self.used += 1;
    }

    fn tag_and_slot(&self, hash: u64) -> (u32, usize) {
        ((hash >> 32) as u32, hash as usize & (self.slots.len() - 1))
    }
}
