//! Keys and homes on 64-bit Arm: homes by the same two rounds of AES as on x86-64.

#![expect(unsafe_code, reason = "vector instructions, unchecked loads")]

use std::arch::aarch64::*;
use std::arch::is_aarch64_feature_detected;

use super::short::{BYTES, Key, MAX_BYTES, ROUND_KEY, ShortCache};
use crate::tokenizer::probe::fetch_far;

/// Whether the processor has what [`write_keys`] needs.
pub(super) fn has_aes() -> bool {
    is_aarch64_feature_detected!("aes")
}

/// The key and the home of each pretoken, in `keys` and `homes`.
///
/// # Safety
/// The processor has AES. `starts` has one element more than `keys` and `homes`; all but the last are followed by 16 bytes
/// of `text`.
#[target_feature(enable = "aes")]
pub(super) unsafe fn write_keys(
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
            let bytes = vld1q_u8(text.as_ptr().add(start as usize));
            let key = vbicq_u8(vld1q_u8(masks.add(length as usize * 16)), bytes);
            vst1q_u8(keys.as_mut_ptr().add(at).cast(), key);
            let home = (hash_of(key) >> shift) as u32;
            *homes.get_unchecked_mut(at) = home;
            fetch_far(cache.entries(), home);
        }
    }
}

/// Two AES rounds: every bit of the key reaches every bit of the hash.
#[target_feature(enable = "aes")]
#[inline]
pub(super) fn aes_hash(key: Key) -> u64 {
    hash_of(vreinterpretq_u8_p128(key))
}

#[target_feature(enable = "aes")]
#[inline]
fn hash_of(key: uint8x16_t) -> u64 {
    // The key of a round is taken in before it here, and behind it on x86-64.
    let round_key = vreinterpretq_u8_p128(ROUND_KEY);
    let once = vaesmcq_u8(vaeseq_u8(key, vdupq_n_u8(0)));
    let twice = veorq_u8(vaesmcq_u8(vaeseq_u8(once, round_key)), round_key);
    vgetq_lane_u64::<0>(vreinterpretq_u64_u8(twice))
}
