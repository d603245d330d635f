//! Merging of several small pretokens at once, so that their look-ups in the pair table overlap.
//!
//! Each pretoken is merged as in `small`: fixed places, the smallest priority first. Here the sixteen priorities are one
//! register, and every step is free of branches, so the processor works on all the pretokens of a group side by side.

#![expect(unsafe_code, reason = "vector instructions, unchecked indices")]

use std::arch::x86_64::*;

use super::pair_table::{NONE, PairTable};
use super::small::{GROUP, MAX_BYTES};
use crate::tokenizer::vocab::MAX_IDS;

/// Stands beside the first and the last part; no vocabulary has this id, so it merges with nothing.
const EDGE: u32 = MAX_IDS as u32;

/// Bytes of a pretoken in the low bytes, and how many they are, 1 to 16.
pub(super) type Word = (u128, usize);

pub(super) fn is_available() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("lzcnt")
        && is_x86_feature_detected!("popcnt")
}

/// Writes the ids of each word to the front of its `out`; returns how many.
///
/// # Safety
/// [`is_available`]. All lengths are 1 to 16.
#[target_feature(enable = "avx512f,avx512vl,avx512bw,bmi1,bmi2,lzcnt,popcnt")]
pub(super) unsafe fn merge(
    pairs: &PairTable,
    words: &[Word; GROUP],
    out: &mut [[u32; MAX_BYTES]; GROUP],
) -> [usize; GROUP] {
    let none = _mm512_set1_epi32(NONE as i32);
    // Part `i` of a word is at `i + 1`.
    let mut parts = [[EDGE; MAX_BYTES + 2]; GROUP];
    let mut priorities = [none; GROUP];
    let mut alive = [0_u32; GROUP];
    for word in 0..GROUP {
        let (bytes, length) = words[word];
        let live = ((1_u32 << length) - 1) as __mmask16;
        let bytes = _mm_set_epi64x((bytes >> 64) as i64, bytes as i64);
        let first = _mm512_cvtepu8_epi32(bytes);
        let second = _mm512_cvtepu8_epi32(_mm_bsrli_si128::<1>(bytes));
        let both = _mm512_or_si512(_mm512_slli_epi32::<8>(first), second);
        // SAFETY: indices are single bytes into 256 ids, and pairs of bytes into 65,536 priorities; the store covers `live`
        // parts, 16 at most, behind the first.
        unsafe {
            let ids = _mm512_mask_i32gather_epi32::<4>(first, live, first, pairs.byte_ids().as_ptr().cast());
            _mm512_mask_storeu_epi32(parts[word].as_mut_ptr().add(1).cast(), live, ids);
            let pair_table = pairs.byte_pairs().as_ptr().cast();
            priorities[word] = _mm512_mask_i32gather_epi32::<4>(none, live >> 1, both, pair_table);
        }
        alive[word] = live.into();
    }
    loop {
        let mut merged_any = false;
        for word in 0..GROUP {
            let ranks = priorities[word];
            let least = _mm512_reduce_min_epu32(ranks);
            if least == NONE {
                continue;
            }
            merged_any = true;
            let at = _mm512_cmpeq_epi32_mask(ranks, _mm512_set1_epi32(least as i32)).trailing_zeros();
            let above = alive[word] & (!1 << at);
            let next = above & above.wrapping_neg();
            alive[word] &= !next;
            let behind = above ^ next;
            // One more than its place; 17, an edge, where there is none.
            let behind = if behind == 0 { MAX_BYTES + 1 } else { behind.trailing_zeros() as usize + 1 };
            // One more than its place; 0, an edge, where there is none.
            let before = (32 - (alive[word] & ((1 << at) - 1)).leading_zeros()) as usize;
            let id = pairs.merged_id(least);
            let parts = &mut parts[word];
            // SAFETY: places of parts are below 16, and the edges are at 0 and 17.
            let (after, ahead) = unsafe {
                *parts.get_unchecked_mut(at as usize + 1) = id;
                let after = pairs.priority(id, *parts.get_unchecked(behind));
                (after, pairs.priority(*parts.get_unchecked(before), id))
            };
            let ranks = _mm512_mask_set1_epi32(ranks, next as __mmask16, NONE as i32);
            let ranks = _mm512_mask_set1_epi32(ranks, 1 << at, after as i32);
            priorities[word] =
                _mm512_mask_set1_epi32(ranks, ((1_u32 << before) >> 1) as __mmask16, ahead as i32);
        }
        if !merged_any {
            break;
        }
    }
    let mut counts = [0; GROUP];
    for word in 0..GROUP {
        // SAFETY: 16 parts behind the first; `out` has 16 ids.
        unsafe {
            let ids = _mm512_loadu_si512(parts[word].as_ptr().add(1).cast());
            let packed = _mm512_maskz_compress_epi32(alive[word] as __mmask16, ids);
            _mm512_storeu_si512(out[word].as_mut_ptr().cast(), packed);
        }
        counts[word] = alive[word].count_ones() as usize;
    }
    counts
}
