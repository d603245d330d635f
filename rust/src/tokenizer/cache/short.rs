//! Ids of pretokens of at most 16 bytes and 5 ids.
//!
//! ```text
//! entry (32 bytes)   key: 16 bytes                      value: id id id id id (24 bits each), count (8 bits)
//!                                                       value: 0 when there are more ids, which the long cache has
//! key                the bytes' complement, then zeros  "the" = !t !h !e 0 0 0 0 0 0 0 0 0 0 0 0 0
//! ```
//! No byte of UTF-8 is 0xFF, so no complement is 0: keys of different texts differ, and a zero key is a free entry. A
//! pretoken lives at its home, at the neighbour in the same cache line, or in the line beside it.

#[cfg(target_arch = "aarch64")]
use super::keys_neon as vectors;
#[cfg(target_arch = "x86_64")]
use super::keys_x86 as vectors;
use super::table::{Table, Zeroable};
use crate::tokenizer::probe::prefetch;

/// A pretoken of at most 16 bytes; 0 stands for all longer ones and is never stored.
pub(crate) type Key = u128;

/// Bytes of the longest pretoken that has a key.
pub(crate) const MAX_BYTES: usize = 16;
const MAX_IDS: usize = 5;
/// Places where a pretoken may be. With two of them, one in thirty of the pretokens of 60 MB of English has none.
const WAYS: u32 = 4;
const ID_BITS: u32 = 24;
const COUNT_SHIFT: u32 = 120;

/// One pretoken and its ids.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(32))]
pub(crate) struct Entry {
    pub(crate) key: Key,
    pub(crate) value: u128,
}

// SAFETY: two integers.
#[expect(unsafe_code, reason = "a promise to the table")]
unsafe impl Zeroable for Entry {}

impl Entry {
    /// How many ids.
    #[inline(always)]
    pub(crate) fn count(&self) -> usize {
        (self.value >> COUNT_SHIFT) as usize
    }

    /// Id `index`.
    #[inline(always)]
    pub(crate) fn id(&self, index: usize) -> u32 {
        (self.value >> (index as u32 * ID_BITS)) as u32 & ((1 << ID_BITS) - 1)
    }
}

/// What the table says of a key.
#[derive(Debug)]
pub(crate) enum Answer<'a> {
    /// Its ids.
    Ids(&'a Entry),
    /// The long cache has it, or may have it.
    Elsewhere,
    /// It is in neither cache.
    Nowhere,
}

/// A table of entries that only ever fills.
#[derive(Debug)]
pub(crate) struct ShortCache {
    entries: Table<Entry>,
    shift: u32,
    aes: bool,
    #[cfg(target_arch = "x86_64")]
    four: bool,
}

/// For each length, ones where the pretoken has bytes; none for longer pretokens.
pub(super) static BYTES: [u128; MAX_BYTES + 2] = {
    let (mut masks, mut length) = ([0; MAX_BYTES + 2], 1);
    while length <= MAX_BYTES {
        masks[length] = u128::MAX >> (128 - 8 * length);
        length += 1;
    }
    masks
};

/// What the rounds of AES take in that hash a key.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) const ROUND_KEY: u128 = 0x243f_6a88_85a3_08d3_1319_8a2e_0370_7344;

/// The key of `text[start..start + length]`.
#[inline(always)]
pub(crate) fn key_of(text: &[u8], start: usize, length: usize) -> Key {
    let bytes = match text.get(start..).and_then(|rest| rest.first_chunk::<16>()) {
        Some(bytes) => u128::from_le_bytes(*bytes),
        None => near_the_end(text, start),
    };
    !bytes & BYTES[length.min(MAX_BYTES + 1)]
}

#[cold]
fn near_the_end(text: &[u8], start: usize) -> u128 {
    let mut bytes = [0; 16];
    bytes[..text.len() - start].copy_from_slice(&text[start..]);
    u128::from_le_bytes(bytes)
}

impl ShortCache {
    /// An empty table of `1 << bits` entries, four at least.
    pub(crate) fn new(bits: u32) -> Self {
        let bits = bits.max(2);
        Self {
            entries: Table::new(1 << bits),
            shift: 64 - bits,
            #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
            aes: vectors::has_aes(),
            #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
            aes: false,
            #[cfg(target_arch = "x86_64")]
            four: vectors::has_four(),
        }
    }

    /// As on a processor that hashes one key at a time.
    #[cfg(test)]
    pub(super) fn one_by_one(self) -> Self {
        Self {
            #[cfg(target_arch = "x86_64")]
            four: false,
            ..self
        }
    }

    /// As on a processor without AES instructions.
    #[cfg(test)]
    pub(super) fn without_aes(self) -> Self {
        Self { aes: false, ..self.one_by_one() }
    }

    /// Bytes of an entry.
    pub(crate) const ENTRY_BYTES: usize = size_of::<Entry>();

    /// Where `key` has its home.
    #[inline(always)]
    pub(crate) fn home(&self, key: Key) -> u32 {
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        if self.aes {
            return self.home_with_aes(key);
        }
        let (low, high) = (key as u64, (key >> 64) as u64);
        let mixed = (low ^ high.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        ((mixed ^ mixed >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93) >> self.shift) as u32
    }

    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    #[expect(unsafe_code, reason = "AES instructions behind a check of the processor")]
    fn home_with_aes(&self, key: Key) -> u32 {
        // SAFETY: `aes` says that the processor has the instructions.
        (unsafe { vectors::aes_hash(key) } >> self.shift) as u32
    }

    /// Whether homes come from AES rounds; else from multiplications.
    pub(super) fn hashes_with_aes(&self) -> bool {
        self.aes
    }

    /// Whether the processor makes four such homes at once.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn hashes_four(&self) -> bool {
        self.four
    }

    pub(super) fn shift(&self) -> u32 {
        self.shift
    }

    /// All entries; homes are indices into them, and `home ^ 1` is the neighbour.
    #[inline(always)]
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Asks for the line beside the one of `home` to come near, if keys with this home may be there.
    #[inline(always)]
    pub(crate) fn fetch_beside(&self, home: u32) {
        let is_full = [home, home ^ 1].iter().all(|&at| self.entries[at as usize].key != 0);
        if is_full {
            prefetch(&self.entries[(home ^ 2) as usize]);
        }
    }

    /// Looks for `key`, which is not 0.
    #[inline(always)]
    pub(crate) fn find(&self, home: u32, key: Key) -> Answer<'_> {
        for way in 0..WAYS {
            let entry = &self.entries[(home ^ way) as usize];
            if entry.key == key {
                return if entry.value == 0 { Answer::Elsewhere } else { Answer::Ids(entry) };
            }
            // Ways are filled in order.
            if entry.key == 0 {
                return Answer::Nowhere;
            }
        }
        Answer::Elsewhere
    }

    /// Notes that the long cache has the ids of `key`, whose home is `home`, if there is room.
    pub(crate) fn insert_elsewhere(&mut self, home: u32, key: Key) {
        self.put(home, Entry { key, value: 0 });
    }

    /// Stores the ids of `key`, whose home is `home`; false when there is no room, or too many ids.
    pub(crate) fn insert(&mut self, home: u32, key: Key, ids: &[u32]) -> bool {
        if ids.len() > MAX_IDS || key == 0 {
            return false;
        }
        let packed = ids.iter().rev().fold(0, |value, &id| value << ID_BITS | u128::from(id));
        let value = packed | (ids.len() as u128) << COUNT_SHIFT;
        self.put(home, Entry { key, value })
    }

    fn put(&mut self, home: u32, new: Entry) -> bool {
        for way in 0..WAYS {
            let entry = &mut self.entries[(home ^ way) as usize];
            if entry.key == new.key || entry.key == 0 {
                *entry = new;
                return true;
            }
        }
        false
    }
}
