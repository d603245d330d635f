//! Merging of pretokens of at most 16 bytes: no heap, no list, a scan for the smallest priority.
//!
//! ```text
//! parts        0:h 1:e 2:l 3:l 4:o          fixed places; a merged part keeps its first place
//! priorities   [of 0 with the next part, of 1 with the next, …]; NONE where a part is gone or does not merge
//! alive        one bit a part
//! ```

use super::PairTable;
#[cfg(target_arch = "x86_64")]
use super::small_avx512;

/// Longer pretokens go to the heap.
pub const MAX_BYTES: usize = 16;

const NONE: u32 = u32::MAX;

/// Small pretokens that are merged together, and their ids.
#[derive(Debug, Default)]
pub struct Group {
    words: [(u128, usize); GROUP],
    ids: [[u32; MAX_BYTES]; GROUP],
    counts: [usize; GROUP],
    length: usize,
}

/// Pretokens in a group: eight at once take a third of the time a word of one, four a half (Zen 4).
pub const GROUP: usize = 8;

impl Group {
    /// Adds a pretoken of 1 to 16 bytes; returns whether the group is full.
    ///
    /// # Panics
    /// When the group was full, or `pretoken` is empty or longer than 16 bytes.
    pub fn push(&mut self, pretoken: &[u8]) -> bool {
        let length = pretoken.len();
        assert!((1..=MAX_BYTES).contains(&length), "small pretokens have 1 to 16 bytes");
        let mut bytes = [0; MAX_BYTES];
        bytes[..length].copy_from_slice(pretoken);
        self.words[self.length] = (u128::from_le_bytes(bytes), length);
        self.length += 1;
        self.length == GROUP
    }

    /// How many pretokens wait.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Merges all that wait; the group is empty again, and their ids can be had by the order in which they came.
    pub fn merge(&mut self, pairs: &PairTable) {
        let length = std::mem::take(&mut self.length);
        #[cfg(target_arch = "x86_64")]
        if length > 1 && small_avx512::is_available() {
            self.words[length..].fill((0, 1));
            self.merge_with_avx512(pairs);
            return;
        }
        for word in 0..length {
            let (bytes, count) = self.words[word];
            self.counts[word] = merge(pairs, &bytes.to_le_bytes()[..count], &mut self.ids[word]);
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[expect(unsafe_code, reason = "vector instructions behind a check of the processor")]
    fn merge_with_avx512(&mut self, pairs: &PairTable) {
        // SAFETY: the caller has checked the processor; `push` has checked the lengths.
        self.counts = unsafe { small_avx512::merge(pairs, &self.words, &mut self.ids) };
    }

    /// The ids of the pretoken that came as number `index`, after `merge`.
    pub fn ids(&self, index: usize) -> &[u32] {
        &self.ids[index][..self.counts[index]]
    }
}

/// Writes the ids of `pretoken` (1 to 16 bytes) to the front of `out`; returns how many.
///
/// # Panics
/// When `pretoken` is empty or longer than 16 bytes.
pub fn merge(pairs: &PairTable, pretoken: &[u8], out: &mut [u32; MAX_BYTES]) -> usize {
    let length = pretoken.len();
    assert!((1..=MAX_BYTES).contains(&length), "small pretokens have 1 to 16 bytes");
    let mut parts = [0; MAX_BYTES];
    let mut priorities = [NONE; MAX_BYTES];
    for (part, &byte) in parts.iter_mut().zip(pretoken) {
        *part = pairs.byte_id(byte);
    }
    for (priority, bytes) in priorities.iter_mut().zip(pretoken.windows(2)) {
        *priority = pairs.of_bytes([bytes[0], bytes[1]]);
    }
    let mut alive = (1_u32 << length) - 1;
    loop {
        let (at, priority) = smallest(&priorities);
        if priority == NONE {
            break;
        }
        let above = alive & (!1 << at);
        let next = above.trailing_zeros() as usize;
        alive &= !(1 << next);
        let behind = above & (above - 1);
        parts[at] = pairs.merged_id(priority);
        priorities[next] = NONE;
        priorities[at] = match behind {
            0 => NONE,
            _ => pairs.priority(parts[at], parts[behind.trailing_zeros() as usize % MAX_BYTES]),
        };
        let below = alive & ((1 << at) - 1);
        if below != 0 {
            let before = 31 - below.leading_zeros() as usize;
            priorities[before] = pairs.priority(parts[before], parts[at]);
        }
    }
    let mut count = 0;
    while alive != 0 {
        out[count] = parts[alive.trailing_zeros() as usize % MAX_BYTES];
        alive &= alive - 1;
        count += 1;
    }
    count
}

/// The leftmost smallest priority and its place.
#[inline(always)]
fn smallest(priorities: &[u32; MAX_BYTES]) -> (usize, u32) {
    let smallest = priorities.iter().fold(NONE, |least, &priority| least.min(priority));
    let at = priorities.iter().position(|&priority| priority == smallest).unwrap_or(0);
    (at, smallest)
}
