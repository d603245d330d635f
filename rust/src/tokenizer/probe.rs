//! The inner loop: one line of the short cache a pretoken, its ids straight to the output.
//!
//! Ids are written eight at a time (an entry has five at most; what is too many is overwritten by the next pretoken's).

#![expect(unsafe_code, reason = "unchecked indices, writes to spare capacity, prefetch")]

#[cfg(target_arch = "aarch64")]
use std::arch::asm;

use super::cache::{Entry, Key};

/// Homes that `run` is given beyond the last key, to fetch ahead: 16 is where L1 misses vanish (Zen 4).
pub(super) const AHEAD: usize = 16;

/// Ids that are written at once.
const LANES: usize = 8;

/// A pretoken that was not in the short cache.
#[derive(Clone, Copy, Debug)]
pub(super) struct Miss {
    /// Its place in the output, counted from the first that the probe wrote.
    pub(super) place: u32,
    /// Its index among all keys.
    pub(super) index: u32,
}

/// Asks for the line of `home` to come near: to the second level, for it is needed a chunk later.
#[inline(always)]
pub(super) fn fetch_far(entries: &[Entry], home: u32) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a prefetch reads nothing and may be given any address.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(entries.as_ptr().wrapping_add(home as usize).cast()) };
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a prefetch reads nothing and may be given any address.
    unsafe {
        let entry = entries.as_ptr().wrapping_add(home as usize);
        asm!("prfm pldl2keep, [{}]", in(reg) entry, options(readonly, nostack, preserves_flags));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = (entries, home);
}

/// Asks for the line of `value` to come as near as it can.
#[inline(always)]
pub(super) fn prefetch<T>(value: *const T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing and may be given any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(value.cast()) };
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a prefetch reads nothing and may be given any address.
    unsafe {
        asm!("prfm pldl1keep, [{}]", in(reg) value, options(readonly, nostack, preserves_flags));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = value;
}

/// Whether the processor has AVX2 and the bit instructions that came with it.
#[cfg(target_arch = "x86_64")]
pub(super) fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("lzcnt")
        && is_x86_feature_detected!("popcnt")
}

/// Look-ups whose ids go to the end of a vector.
#[derive(Debug)]
pub(super) struct Probe<'a> {
    entries: &'a [Entry],
    out: &'a mut Vec<u32>,
    misses: &'a mut Vec<Miss>,
    /// Written so far; the vector's length follows in `finish`.
    written: usize,
    room: usize,
    #[cfg(target_arch = "x86_64")]
    avx2: bool,
}

impl<'a> Probe<'a> {
    /// Look-ups in `entries` for pretokens of `num_bytes` bytes in all; places of those not found go to `misses`.
    pub(super) fn new(
        entries: &'a [Entry],
        out: &'a mut Vec<u32>,
        num_bytes: usize,
        misses: &'a mut Vec<Miss>,
    ) -> Self {
        // A token has at least one byte.
        out.reserve(num_bytes + LANES);
        Self {
            entries,
            out,
            misses,
            written: 0,
            room: num_bytes,
            #[cfg(target_arch = "x86_64")]
            avx2: has_avx2(),
        }
    }

    /// Ids and places written.
    pub(super) fn len(&self) -> usize {
        self.written
    }

    /// Writes the ids of `keys`, whose indices begin with `first`; `homes` has [`AHEAD`] more than there are keys.
    pub(super) fn run(&mut self, keys: &[Key], homes: &[u32], first: u32) {
        assert_eq!(keys.len() + AHEAD, homes.len());
        // `spare` has room for the ids of all pretokens announced in `new`, and `LANES` more: a key found has no more
        // ids than bytes, one not found takes one place, and every pretoken has a byte. Homes are indices into `entries`:
        // both come from the same `ShortCache`.
        #[cfg(target_arch = "x86_64")]
        if self.avx2 {
            // SAFETY: as said above, and `avx2` says that the processor has AVX2.
            return unsafe { self.run_avx2(keys, homes, first) };
        }
        // SAFETY: as said above.
        unsafe { self.run_plain(keys, homes, first) };
    }

    /// As `run_plain`, with a key, its comparison and its ids in vectors.
    ///
    /// # Safety
    /// As `run_plain`, on a processor with AVX2.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
    unsafe fn run_avx2(&mut self, keys: &[Key], homes: &[u32], first: u32) {
        use std::arch::x86_64::*;
        const X: i8 = -1;
        let lanes = _mm256_setr_epi8(
            0, 1, 2, X, 3, 4, 5, X, 6, 7, 8, X, 9, 10, 11, X, //
            12, 13, 14, X, X, X, X, X, X, X, X, X, X, X, X, X,
        );
        let entries = self.entries;
        let out: *mut u32 = self.out.spare_capacity_mut().as_mut_ptr().cast();
        let mut written = self.written;
        for index in 0..keys.len() {
            // SAFETY: as in `run_plain`; an entry is 32 bytes, key first, count last, aligned to 32.
            unsafe {
                prefetch(entries.as_ptr().wrapping_add(*homes.get_unchecked(index + AHEAD) as usize));
                let home = *homes.get_unchecked(index) as usize;
                let key = _mm_loadu_si128(keys.as_ptr().add(index).cast());
                let mut entry: *const __m128i = entries.as_ptr().add(home).cast();
                let mut difference = _mm_xor_si128(key, _mm_load_si128(entry));
                if _mm_testz_si128(difference, difference) == 0 {
                    entry = entries.as_ptr().add(home ^ 1).cast();
                    difference = _mm_xor_si128(key, _mm_load_si128(entry));
                }
                let count = usize::from(entry.cast::<u8>().add(31).read());
                let place = out.add(written);
                if _mm_testz_si128(difference, difference) == 0 || count == 0 {
                    place.write(0);
                    self.missed(written, first + index as u32);
                    written += 1;
                    continue;
                }
                let value = _mm256_broadcastsi128_si256(_mm_load_si128(entry.add(1)));
                _mm256_storeu_si256(place.cast(), _mm256_shuffle_epi8(value, lanes));
                written += count;
            }
        }
        self.written = written;
    }

    /// # Safety
    /// All homes are indices into `entries`, and `out` has room for the ids, and for `LANES` more.
    #[inline(always)]
    unsafe fn run_plain(&mut self, keys: &[Key], homes: &[u32], first: u32) {
        let entries = self.entries;
        let spare = self.out.spare_capacity_mut();
        debug_assert!(spare.len() >= self.room + LANES);
        let out: *mut u32 = spare.as_mut_ptr().cast();
        let mut written = self.written;
        for (index, &key) in keys.iter().enumerate() {
            // SAFETY: `homes` is longer than `keys` by `AHEAD`; homes and their neighbours are indices into `entries`, whose
            // length is even; `out` has room, as `run` says.
            unsafe {
                prefetch(entries.as_ptr().wrapping_add(*homes.get_unchecked(index + AHEAD) as usize));
                let home = *homes.get_unchecked(index) as usize;
                let mut entry = entries.get_unchecked(home);
                if entry.key != key {
                    entry = entries.get_unchecked(home ^ 1);
                }
                let count = entry.count();
                let place = out.add(written);
                if entry.key != key || count == 0 {
                    place.write(0);
                    self.missed(written, first + index as u32);
                    written += 1;
                    continue;
                }
                write_ids(entry, place);
                written += count;
            }
        }
        self.written = written;
    }

    #[cold]
    #[inline(never)]
    fn missed(&mut self, written: usize, index: u32) {
        self.misses.push(Miss { place: written as u32, index });
    }

    /// Makes what was written part of the vector.
    pub(super) fn finish(self) {
        debug_assert!(self.written <= self.room);
        // SAFETY: `written` elements behind the length are initialized, within the reserved capacity.
        unsafe { self.out.set_len(self.out.len() + self.written) };
    }
}

/// Writes the five ids of an entry, and maybe more of no meaning.
///
/// # Safety
/// There is room for `LANES` at `out`.
#[cfg(not(target_arch = "aarch64"))]
#[inline(always)]
unsafe fn write_ids(entry: &Entry, out: *mut u32) {
    for lane in 0..5 {
        // SAFETY: the caller's.
        unsafe { out.add(lane).write(entry.id(lane)) };
    }
}

/// As the plain one, with look-ups of bytes.
///
/// # Safety
/// There is room for `LANES` at `out`.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
unsafe fn write_ids(entry: &Entry, out: *mut u32) {
    use std::arch::aarch64::*;
    // A look-up beyond the 16 bytes gives 0.
    const X: u8 = 16;
    static PLACES: [u8; 32] = [
        0, 1, 2, X, 3, 4, 5, X, 6, 7, 8, X, 9, 10, 11, X, //
        12, 13, 14, X, X, X, X, X, X, X, X, X, X, X, X, X,
    ];
    // SAFETY: the caller's; a value has 16 bytes, and `PLACES` 32.
    unsafe {
        let value = vld1q_u8((&raw const entry.value).cast());
        let places = vld1q_u8_x2(PLACES.as_ptr());
        vst1q_u8(out.cast(), vqtbl1q_u8(value, places.0));
        vst1q_u8(out.add(4).cast(), vqtbl1q_u8(value, places.1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_the_entry() {
        let value = 0x05_f1f2f3_0a0b0c_123456_000001_ffffff;
        let (entry, mut out) = (Entry { key: 1, value }, [0; LANES]);
        // SAFETY: there is room for `LANES`.
        unsafe { write_ids(&entry, out.as_mut_ptr()) };
        assert_eq!(out[..entry.count()], [0xff_ffff, 1, 0x12_3456, 0x0a_0b0c, 0xf1_f2f3]);
    }
}
