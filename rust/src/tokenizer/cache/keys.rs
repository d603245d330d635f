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
        // SAFETY: `hashes_with_aes` has checked the processor. Starts ascend, so the first `done` of them have 16 bytes of
        // text, and the others 16 bytes of the copy, which has as many more as the text's end has; there is a start
        // behind each, and as many keys and homes.
        unsafe {
            write_keys_aes(cache, text, &starts[..=done], first_keys, first_homes);
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

/// Two AES rounds: every bit of the key reaches every bit of the hash.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "aes")]
#[inline]
pub(super) fn aes_hash(key: std::arch::x86_64::__m128i) -> u64 {
    use std::arch::x86_64::*;
    let round_key = _mm_set_epi64x(0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344);
    _mm_cvtsi128_si64(_mm_aesenc_si128(_mm_aesenc_si128(key, round_key), round_key)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_homes_are_those_of_one_pretoken_at_a_time() {
        let text: Vec<u8> = (0..70).map(|index| b'a' + index % 26).collect();
        let cache = ShortCache::new(10);
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
