//! Pretokens that are merged together, so that the look-ups of one are under way while another waits for its own.
//!
//! ```text
//! Group<1>   pretokens of at most 16 bytes        Group<2>   of at most 32        Group<4>   of at most 64
//! ```

#[cfg(target_arch = "x86_64")]
use super::group_avx512;
use super::{PairTable, medium, small};

/// Pretokens in a group: eight at once take a third of the time a word of one, four a half (Zen 4).
pub const GROUP: usize = 8;

/// Bytes that a register has a priority for.
pub(super) const LANES: usize = 16;

/// Pretokens of at most 16 bytes a register, and their ids.
#[derive(Debug)]
pub struct Group<const REGISTERS: usize> {
    words: [Word<REGISTERS>; GROUP],
    ids: [Ids<REGISTERS>; GROUP],
    length: usize,
}

/// A pretoken, then zeros: what lies `LANES` bytes behind any part of it can be read.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Word<const REGISTERS: usize> {
    pub(super) bytes: [[u8; LANES]; REGISTERS],
    pub(super) behind: [u8; LANES],
    /// 1 to `REGISTERS * LANES`.
    pub(super) length: usize,
}

/// The ids of a pretoken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ids<const REGISTERS: usize> {
    pub(super) ids: [[u32; LANES]; REGISTERS],
    pub(super) count: usize,
}

impl<const REGISTERS: usize> Word<REGISTERS> {
    const EMPTY: Self = Self { bytes: [[0; LANES]; REGISTERS], behind: [0; LANES], length: 1 };
}

impl<const REGISTERS: usize> Default for Group<REGISTERS> {
    fn default() -> Self {
        let ids = Ids { ids: [[0; LANES]; REGISTERS], count: 0 };
        Self { words: [Word::EMPTY; GROUP], ids: [ids; GROUP], length: 0 }
    }
}

impl<const REGISTERS: usize> Group<REGISTERS> {
    /// Bytes of its longest pretoken.
    pub const MAX_BYTES: usize = REGISTERS * LANES;

    /// Adds a pretoken; returns whether the group is full.
    ///
    /// # Panics
    /// When the group was full, or `pretoken` is empty or longer than `MAX_BYTES`.
    pub fn push(&mut self, pretoken: &[u8]) -> bool {
        assert!(!pretoken.is_empty(), "a pretoken has at least one byte");
        let word = &mut self.words[self.length];
        *word = Word { length: pretoken.len(), ..Word::EMPTY };
        word.bytes.as_flattened_mut()[..pretoken.len()].copy_from_slice(pretoken);
        self.length += 1;
        self.length == GROUP
    }

    /// Merges all that wait; the group is empty again, and their ids can be had by the order in which they came.
    pub fn merge(&mut self, pairs: &PairTable) {
        let length = std::mem::take(&mut self.length);
        #[cfg(target_arch = "x86_64")]
        if length > 1 && group_avx512::is_available() {
            self.words[length..].fill(Word::EMPTY);
            self.merge_with_avx512(pairs);
            return;
        }
        for (word, out) in self.words.iter().zip(&mut self.ids).take(length) {
            let pretoken = &word.bytes.as_flattened()[..word.length];
            let ids = out.ids.as_flattened_mut();
            out.count = match ids.first_chunk_mut() {
                Some(ids) if pretoken.len() <= small::MAX_BYTES => small::merge(pairs, pretoken, ids),
                _ => medium::merge(pairs, pretoken, ids),
            };
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[expect(unsafe_code, reason = "vector instructions behind a check of the processor")]
    fn merge_with_avx512(&mut self, pairs: &PairTable) {
        // SAFETY: the caller has checked the processor; `push` has checked the lengths.
        unsafe { group_avx512::merge(pairs, &self.words, &mut self.ids) };
    }

    /// The ids of the pretoken that came as number `index`, after `merge`.
    pub fn ids(&self, index: usize) -> &[u32] {
        let out = &self.ids[index];
        &out.ids.as_flattened()[..out.count]
    }
}
