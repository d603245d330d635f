//! Keys and homes on x86-64: homes by two rounds of AES, four at once where VAES is to be had.

#![expect(unsafe_code, reason = "vector instructions, unchecked loads")]

use std::arch::x86_64::*;

use super::short::{BYTES, Key, MAX_BYTES, ROUND_KEY, ShortCache};
use crate::tokenizer::probe::{fetch_far, has_avx2};

/// Whether the processor has what [`write_keys`] needs.
pub(super) fn has_aes() -> bool {
    is_x86_feature_detected!("aes") && has_avx2()
}

/// Whether it makes four homes at once.
pub(super) fn has_four() -> bool {
    has_aes()
        && is_x86_feature_detected!("vaes")
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vbmi")
}

/// The key and the home of each pretoken, in `keys` and `homes`.
///
/// # Safety
/// The processor has what `has_aes` asks for. `starts` has one element more than `keys` and `homes`; all but the last are followed by
/// 16 bytes of `text`.
pub(super) unsafe fn write_keys(
    cache: &ShortCache,
    text: &[u8],
    starts: &[u32],
    keys: &mut [Key],
    homes: &mut [u32],
) {
    let fours = if cache.hashes_four() { keys.len() / 4 * 4 } else { 0 };
    let (first_keys, last_keys) = keys.split_at_mut(fours);
    let (first_homes, last_homes) = homes.split_at_mut(fours);
    if fours > 0 {
        // SAFETY: the caller's, and `hashes_four` has checked the processor.
        unsafe { write_fours(cache, text, &starts[..=fours], first_keys, first_homes) };
    }
    // SAFETY: the caller's, and `has_aes` has checked the processor.
    unsafe {
        write_one_by_one(cache, text, &starts[fours..], last_keys, last_homes);
    }
}

/// As [`write_keys`], one key after the other.
///
/// # Safety
/// As [`write_keys`].
#[target_feature(enable = "avx2,aes,bmi1,bmi2,lzcnt")]
unsafe fn write_one_by_one(
    cache: &ShortCache,
    text: &[u8],
    starts: &[u32],
    keys: &mut [Key],
    homes: &mut [u32],
) {
    let shift = cache.shift();
    let masks: *const u8 = BYTES.as_ptr().cast();
    for at in 0..keys.len() {
        // SAFETY: the caller's; a length is clamped to the table of masks, which has 16 bytes for each.
        unsafe {
            let start = *starts.get_unchecked(at);
            let length = (*starts.get_unchecked(at + 1) - start).min(MAX_BYTES as u32 + 1);
            let bytes = _mm_loadu_si128(text.as_ptr().add(start as usize).cast());
            let mask = _mm_load_si128(masks.add(length as usize * 16).cast());
            let key = _mm_andnot_si128(bytes, mask);
            _mm_storeu_si128(keys.as_mut_ptr().add(at).cast(), key);
            let home = (hash_of(key) >> shift) as u32;
            *homes.get_unchecked_mut(at) = home;
            fetch_far(cache.entries(), home);
        }
    }
}

/// As [`write_keys`], four keys in a vector.
///
/// # Safety
/// As [`write_keys`], on a processor with VAES and AVX-512 F, BW, VL and VBMI, for four, eight, twelve … keys or none.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,vaes,aes,avx2,bmi1,bmi2,lzcnt")]
unsafe fn write_fours(cache: &ShortCache, text: &[u8], starts: &[u32], keys: &mut [Key], homes: &mut [u32]) {
    debug_assert!(keys.len().is_multiple_of(4) && homes.len() == keys.len() && starts.len() > keys.len());
    let entries = cache.entries();
    let shift = _mm_cvtsi32_si128(cache.shift() as i32);
    let round_key = _mm512_broadcast_i32x4(round_key());
    // Byte 0 to 15 of a key; the length that each of the 64 bytes is held against; where the four hashes lie.
    let place = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    let lane = _mm512_set_epi64(
        0x0c0c_0c0c_0c0c_0c0c,
        0x0c0c_0c0c_0c0c_0c0c,
        0x0808_0808_0808_0808,
        0x0808_0808_0808_0808,
        0x0404_0404_0404_0404,
        0x0404_0404_0404_0404,
        0,
        0,
    );
    let hashes = _mm512_castsi128_si512(_mm_setr_epi32(0, 4, 8, 12));
    let longest = _mm_set1_epi32(MAX_BYTES as i32);
    for at in (0..keys.len()).step_by(4) {
        // SAFETY: the caller's: there are four starts from `at` on and one behind them, each of the four with 16 bytes of text,
        // and as many keys and homes.
        unsafe {
            let bytes = |index: usize| {
                let start = *starts.get_unchecked(at + index) as usize;
                _mm_loadu_si128(text.as_ptr().add(start).cast())
            };
            let first = _mm_loadu_si128(starts.as_ptr().add(at).cast());
            let behind = _mm_loadu_si128(starts.as_ptr().add(at + 1).cast());
            let lengths = _mm_sub_epi32(behind, first);
            let lengths = _mm_maskz_mov_epi32(_mm_cmple_epu32_mask(lengths, longest), lengths);
            let lengths = _mm512_permutexvar_epi8(lane, _mm512_castsi128_si512(lengths));
            let text = _mm512_inserti32x4::<1>(_mm512_castsi128_si512(bytes(0)), bytes(1));
            let text = _mm512_inserti32x4::<3>(_mm512_inserti32x4::<2>(text, bytes(2)), bytes(3));
            // 0xff less a byte is its complement.
            let is_text = _mm512_cmplt_epu8_mask(place, lengths);
            let key = _mm512_maskz_sub_epi8(is_text, _mm512_set1_epi8(-1), text);
            _mm512_storeu_si512(keys.as_mut_ptr().add(at).cast(), key);
            let hash = _mm512_aesenc_epi128(_mm512_aesenc_epi128(key, round_key), round_key);
            let home = _mm512_permutexvar_epi32(hashes, _mm512_srl_epi64(hash, shift));
            _mm_storeu_si128(homes.as_mut_ptr().add(at).cast(), _mm512_castsi512_si128(home));
            for index in at..at + 4 {
                fetch_far(entries, *homes.get_unchecked(index));
            }
        }
    }
}

/// Two AES rounds: every bit of the key reaches every bit of the hash.
#[target_feature(enable = "aes")]
#[inline]
pub(super) fn aes_hash(key: Key) -> u64 {
    hash_of(_mm_set_epi64x((key >> 64) as i64, key as i64))
}

#[target_feature(enable = "aes")]
#[inline]
fn hash_of(key: __m128i) -> u64 {
    let round_key = round_key();
    _mm_cvtsi128_si64(_mm_aesenc_si128(_mm_aesenc_si128(key, round_key), round_key)) as u64
}

#[target_feature(enable = "sse2")]
#[inline]
fn round_key() -> __m128i {
    _mm_set_epi64x((ROUND_KEY >> 64) as i64, ROUND_KEY as i64)
}
