//! Keys and homes of many pretokens: the same as [`key_of`] and [`ShortCache::home`], with vectors and without bounds checks.

#![expect(unsafe_code, reason = "vector instructions, unchecked loads")]

use super::short::{BYTES, Key, MAX_BYTES, ShortCache, key_of};
use crate::tokenizer::probe::fetch_far;

/// Writes the key and the home of each pretoken of `text` to the front of `keys` and `homes`, and asks for their lines.
/// Pretoken `i` is `text[starts[i]..starts[i + 1]]`.
///
/// # Panics
/// When `keys` or `homes` are shorter than the pretokens are many.
pub(crate) fn write_keys(
    cache: &ShortCache,
    text: &[u8],
    starts: &[u32],
    keys: &mut [Key],
    homes: &mut [u32],
) {
    let count = starts.len().saturating_sub(1);
    let (keys, homes) = (&mut keys[..count], &mut homes[..count]);
    #[cfg(target_arch = "x86_64")]
    if cache.hashes_with_aes() {
        // The last pretokens have no 16 bytes behind their start: theirs are taken from a copy of the text's end.
        let has_room = |&&start: &&u32| start as usize + MAX_BYTES <= text.len();
        let done = count - starts[..count].iter().rev().take_while(|start| !has_room(start)).count();
        let (first_keys, last_keys) = keys.split_at_mut(done);
        let (first_homes, last_homes) = homes.split_at_mut(done);
        let end = TextEnd::of(text, &starts[done..=count]);
        // Four at once, and what is left over one by one.
        let fours = if cache.hashes_four() { done / 4 * 4 } else { 0 };
        // SAFETY: `hashes_with_aes` and `hashes_four` have checked the processor. Starts ascend, so the first `done` of
        // them have 16 bytes of text, and the others 16 bytes of the copy, which has as many more as the text's end has;
        // there is a start behind each, and as many keys and homes.
        unsafe {
            write_keys_vaes(
                cache,
                text,
                &starts[..=fours],
                &mut first_keys[..fours],
                &mut first_homes[..fours],
            );
            let (keys, homes) = (&mut first_keys[fours..], &mut first_homes[fours..]);
            write_keys_aes(cache, text, &starts[fours..=done], keys, homes);
            write_keys_aes(cache, &end.bytes, &end.starts[..=count - done], last_keys, last_homes);
        }
        return;
    }
    for at in 0..count {
        let start = starts[at] as usize;
        keys[at] = key_of(text, start, starts[at + 1] as usize - start);
        homes[at] = cache.home(keys[at]);
        fetch_far(cache.entries(), homes[at]);
    }
}

/// The end of a text with zeros behind it, and the starts that lie in it.
#[cfg(target_arch = "x86_64")]
struct TextEnd {
    bytes: [u8; 2 * MAX_BYTES],
    starts: [u32; MAX_BYTES + 1],
}

#[cfg(target_arch = "x86_64")]
impl TextEnd {
    /// Of the last pretokens of `text`, which start in its last 15 bytes; `starts` has the text's end as well.
    fn of(text: &[u8], starts: &[u32]) -> Self {
        let mut end = Self { bytes: [0; 2 * MAX_BYTES], starts: [0; MAX_BYTES + 1] };
        let begin = match text.last_chunk::<MAX_BYTES>() {
            Some(last) => {
                end.bytes[..MAX_BYTES].copy_from_slice(last);
                text.len() - MAX_BYTES
            }
            None => {
                end.bytes[..text.len()].copy_from_slice(text);
                0
            }
        };
        if starts.len() > 1 {
            end.starts.iter_mut().zip(starts).for_each(|(to, &from)| *to = from - begin as u32);
        }
        end
    }
}

/// # Safety
/// The processor has AVX2 and AES. `starts` has one element more than `keys` and `homes`; all but the last are followed by
/// 16 bytes of `text`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,aes,bmi1,bmi2,lzcnt")]
unsafe fn write_keys_aes(
    cache: &ShortCache,
    text: &[u8],
    starts: &[u32],
    keys: &mut [Key],
    homes: &mut [u32],
) {
    use std::arch::x86_64::*;
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
            let home = (aes_hash(key) >> shift) as u32;
            *homes.get_unchecked_mut(at) = home;
            fetch_far(cache.entries(), home);
        }
    }
}

/// As [`write_keys_aes`], four keys in a vector.
///
/// # Safety
/// As [`write_keys_aes`], on a processor with VAES and AVX-512 F, BW, VL and VBMI, for four, eight, twelve … keys or none.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,vaes,aes,avx2,bmi1,bmi2,lzcnt")]
unsafe fn write_keys_vaes(
    cache: &ShortCache,
    text: &[u8],
    starts: &[u32],
    keys: &mut [Key],
    homes: &mut [u32],
) {
    use std::arch::x86_64::*;
    debug_assert!(keys.len().is_multiple_of(4) && homes.len() == keys.len() && starts.len() > keys.len());
    let entries = cache.entries();
    let shift = _mm_cvtsi32_si128(cache.shift() as i32);
    let round_key = _mm512_broadcast_i32x4(_mm_set_epi64x(ROUND_KEY[1], ROUND_KEY[0]));
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

#[cfg(target_arch = "x86_64")]
const ROUND_KEY: [i64; 2] = [0x1319_8a2e_0370_7344, 0x243f_6a88_85a3_08d3];

/// Two AES rounds: every bit of the key reaches every bit of the hash.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "aes")]
#[inline]
pub(super) fn aes_hash(key: std::arch::x86_64::__m128i) -> u64 {
    use std::arch::x86_64::*;
    let round_key = _mm_set_epi64x(ROUND_KEY[1], ROUND_KEY[0]);
    _mm_cvtsi128_si64(_mm_aesenc_si128(_mm_aesenc_si128(key, round_key), round_key)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_homes_are_those_of_one_pretoken_at_a_time() {
        let text: Vec<u8> = (0..70).map(|index| b'a' + index % 26).collect();
        let made = || ShortCache::new(10);
        for cache in [made(), made().without_vaes(), made().without_aes()] {
            for length in 1..=text.len() {
                for step in [1, 2, 3, 7, 15, 16, 17, 40] {
                    let text = &text[..length];
                    let starts: Vec<u32> = (0..length as u32).step_by(step).chain([length as u32]).collect();
                    let count = starts.len() - 1;
                    let (mut keys, mut homes) = (vec![0; count], vec![0; count]);
                    write_keys(&cache, text, &starts, &mut keys, &mut homes);
                    for (at, &key) in keys.iter().enumerate() {
                        let (start, end) = (starts[at] as usize, starts[at + 1] as usize);
                        assert_eq!(key, key_of(text, start, end - start), "{start}..{end} of {length}");
                        assert_eq!(homes[at], cache.home(key));
                    }
                }
            }
        }
    }
}
