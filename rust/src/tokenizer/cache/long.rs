//! Ids of pretokens that the short table cannot hold: longer, or more ids, or no room there.
//!
//! ```text
//! index   [hash, place in the arena, bytes, ids] by open addressing, at most half full
//! arena   the pretoken's bytes, its ids as four bytes each, the next pretoken ...
//! ```
//! Keys are compared whole. When the limit is reached nothing more is stored.

use crate::tokenizer::probe::prefetch;
use crate::tokenizer::vocab::hash;

/// Longer pretokens are merged every time: they hardly repeat.
const MAX_BYTES: usize = 512;

const FIRST_SLOTS: usize = 1 << 12;

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    tag: u32,
    place: u32,
    num_bytes: u16,
    /// 0 in a free slot.
    num_ids: u16,
}

/// A map that only ever fills.
#[derive(Debug)]
pub(crate) struct LongCache {
    slots: Vec<Slot>,
    used: usize,
    arena: Vec<u8>,
    limit_bytes: usize,
}

impl LongCache {
    /// An empty map that takes at most `limit_bytes`.
    pub(crate) fn new(limit_bytes: usize) -> Self {
        Self { slots: vec![Slot::default(); FIRST_SLOTS], used: 0, arena: Vec::new(), limit_bytes }
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
        let more_bytes = pretoken.len() + 4 * ids.len();
        let grows = (self.used + 1) * 2 > self.slots.len();
        let slots = if grows { self.slots.len() * 2 } else { self.slots.len() };
        let total = slots * size_of::<Slot>() + self.arena.len() + more_bytes;
        let fits = u32::try_from(self.arena.len()).is_ok() && total <= self.limit_bytes;
        if pretoken.len() > MAX_BYTES || ids.is_empty() || !fits {
            return false;
        }
        if grows {
            self.grow();
        }
        let hash = hash(pretoken);
        let slot = Slot {
            tag: self.tag_and_slot(hash).0,
            place: self.arena.len() as u32,
            num_bytes: pretoken.len() as u16,
            num_ids: ids.len() as u16,
        };
        self.place(hash, slot);
        if self.arena.capacity() - self.arena.len() < more_bytes {
            // Vec would double, beyond the limit.
            let more = self.arena.len().clamp(1 << 16, 1 << 22).min(self.limit_bytes).max(more_bytes);
            self.arena.reserve_exact(more);
        }
        self.arena.extend_from_slice(pretoken);
        ids.iter().for_each(|id| self.arena.extend_from_slice(&id.to_le_bytes()));
        true
    }

    fn grow(&mut self) {
        let old = std::mem::take(&mut self.slots);
        self.slots = vec![Slot::default(); old.len() * 2];
        self.used = 0;
        for slot in old.into_iter().filter(|slot| slot.num_ids > 0) {
            let key = &self.arena[slot.place as usize..][..slot.num_bytes.into()];
            self.place(hash(key), slot);
        }
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
