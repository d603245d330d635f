//! Merging of several pretokens at once, so that their look-ups in the pair table overlap.
//!
//! Each pretoken is merged as in `small`: fixed places, the smallest priority first. Here sixteen priorities are one
//! register, and every step is free of branches, so the processor works on all the pretokens of a group side by side.

#![expect(unsafe_code, reason = "vector instructions, unchecked indices")]

use std::arch::x86_64::*;

use super::group::{GROUP, Ids, LANES, Word};
use super::pair_table::{Location, NONE, PairTable};
use crate::tokenizer::vocab::MAX_IDS;

/// Stands beside the first and the last part; no vocabulary has this id, so it merges with nothing.
const EDGE: u32 = MAX_IDS as u32;

/// The parts of a pretoken by the place of their first byte, between two edges.
#[derive(Clone, Copy)]
#[repr(C)]
struct Parts<const REGISTERS: usize> {
    before: u32,
    places: [[u32; LANES]; REGISTERS],
    behind: u32,
}

/// A priority for each place; 0 to 64 of them.
type Priorities<const REGISTERS: usize> = [__m512i; REGISTERS];

/// A merge whose new priorities are under way; places as one bit each.
#[derive(Clone, Copy, Default)]
struct Step {
    /// What was merged into `at`; 0 where nothing was.
    next: u64,
    at: u64,
    /// 0 where `at` is the first.
    before: u64,
    after: Location,
    ahead: Location,
}

pub(super) fn is_available() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("lzcnt")
        && is_x86_feature_detected!("popcnt")
}

/// Writes the ids of each word to its `out`.
///
/// # Safety
/// [`is_available`]. All lengths are 1 to `REGISTERS * LANES`, and `REGISTERS` is at most 4.
#[target_feature(enable = "avx512f,avx512vl,avx512bw,bmi1,bmi2,lzcnt,popcnt")]
pub(super) unsafe fn merge<const REGISTERS: usize>(
    pairs: &PairTable,
    words: &[Word<REGISTERS>; GROUP],
    out: &mut [Ids<REGISTERS>; GROUP],
) {
    let none = _mm512_set1_epi32(NONE as i32);
    let edges = Parts { before: EDGE, places: [[EDGE; LANES]; REGISTERS], behind: EDGE };
    let mut parts = [edges; GROUP];
    let mut priorities = [[none; REGISTERS]; GROUP];
    let mut alive = [0_u64; GROUP];
    for (at, word) in words.iter().enumerate() {
        alive[at] = !0 >> (64 - word.length);
        for (register, ranks) in priorities[at].iter_mut().enumerate() {
            let live = (alive[at] >> (register * LANES)) as __mmask16;
            let merging = (alive[at] >> 1 >> (register * LANES)) as __mmask16;
            // SAFETY: a word has 16 bytes behind its last register; indices are single bytes into 256 ids, and pairs of bytes
            // into 65,536 priorities; the store covers the register's own places.
            unsafe {
                let bytes = std::ptr::from_ref(word).cast::<u8>().add(register * LANES);
                let first = _mm512_cvtepu8_epi32(_mm_loadu_si128(bytes.cast()));
                let second = _mm512_cvtepu8_epi32(_mm_loadu_si128(bytes.add(1).cast()));
                let both = _mm512_or_si512(_mm512_slli_epi32::<8>(first), second);
                let ids =
                    _mm512_mask_i32gather_epi32::<4>(first, live, first, pairs.byte_ids().as_ptr().cast());
                _mm512_mask_storeu_epi32(parts[at].places[register].as_mut_ptr().cast(), live, ids);
                let pair_table = pairs.byte_pairs().as_ptr().cast();
                *ranks = _mm512_mask_i32gather_epi32::<4>(none, merging, both, pair_table);
            }
        }
    }
    let mut steps = [Step::default(); GROUP];
    loop {
        // First all words ask for the priorities of their two pairs, then all take them.
        let mut merged_any = false;
        for word in 0..GROUP {
            let ranks = &priorities[word];
            let least = smallest(ranks);
            steps[word].next = 0;
            if least == NONE {
                continue;
            }
            merged_any = true;
            let at = places_of(ranks, least).trailing_zeros() as usize;
            let above = alive[word] & (!1 << at);
            let next = above & above.wrapping_neg();
            alive[word] &= !next;
            let behind = above ^ next;
            // One more than its place; the edge where there is none.
            let edge = REGISTERS * LANES + 1;
            let behind = if behind == 0 { edge } else { behind.trailing_zeros() as usize + 1 };
            // One more than its place; 0, an edge, where there is none.
            let before = 64 - (alive[word] & ((1 << at) - 1)).leading_zeros() as usize;
            let id = pairs.merged_id(least);
            let parts: *mut u32 = (&raw mut parts[word]).cast();
            // SAFETY: places are below `REGISTERS * LANES`, and stand between two edges.
            let (left, right) = unsafe {
                parts.add(at + 1).write(id);
                (parts.add(before).read(), parts.add(behind).read())
            };
            let (after, ahead) = (pairs.locate(id, right), pairs.locate(left, id));
            pairs.fetch(after);
            pairs.fetch(ahead);
            steps[word] = Step { next, at: 1 << at, before: (1 << before) >> 1, after, ahead };
        }
        if !merged_any {
            break;
        }
        for (ranks, step) in priorities.iter_mut().zip(&steps) {
            if step.next != 0 {
                set(ranks, step.next, NONE);
                set(ranks, step.at, pairs.priority_at(step.after));
                set(ranks, step.before, pairs.priority_at(step.ahead));
            }
        }
    }
    for word in 0..GROUP {
        let mut count = 0;
        for register in 0..REGISTERS {
            let live = (alive[word] >> (register * LANES)) as __mmask16;
            // SAFETY: at most `register * LANES` ids are written so far, so there is room for a register more.
            unsafe {
                let ids = _mm512_loadu_si512(parts[word].places[register].as_ptr().cast());
                let place = out[word].ids.as_mut_ptr().cast::<u32>().add(count);
                _mm512_storeu_si512(place.cast(), _mm512_maskz_compress_epi32(live, ids));
            }
            count += live.count_ones() as usize;
        }
        out[word].count = count;
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512bw")]
fn smallest<const REGISTERS: usize>(ranks: &Priorities<REGISTERS>) -> u32 {
    let mut least = ranks[0];
    for other in &ranks[1..] {
        least = _mm512_min_epu32(least, *other);
    }
    _mm512_reduce_min_epu32(least)
}

/// One bit for each place with this priority.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512bw")]
fn places_of<const REGISTERS: usize>(ranks: &Priorities<REGISTERS>, priority: u32) -> u64 {
    let (wanted, mut places) = (_mm512_set1_epi32(priority as i32), 0);
    for (register, ranks) in ranks.iter().enumerate() {
        places |= u64::from(_mm512_cmpeq_epi32_mask(*ranks, wanted)) << (register * LANES);
    }
    places
}

/// Gives the place of the one bit in `place`, if there is one, another priority.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512bw")]
fn set<const REGISTERS: usize>(ranks: &mut Priorities<REGISTERS>, place: u64, priority: u32) {
    for (register, ranks) in ranks.iter_mut().enumerate() {
        *ranks = _mm512_mask_set1_epi32(*ranks, (place >> (register * LANES)) as __mmask16, priority as i32);
    }
}
