//! The vector forms of [`Isa`] for x86-64: AVX-512 with byte permutes, and AVX2.

#![expect(unsafe_code, reason = "vector instructions")]

use std::arch::x86_64::*;

use super::classes::{Classes, LETTER, LOWER, NEWLINE, NUMBER, SPACE, UPPER};
use super::family::Family;
use super::isa::{IOTA, Isa, positions_by_eights};
use super::windows::{Starts, fill_by_family};
use crate::tokenizer::probe::has_avx2;

/// AVX-512 F, BW, VBMI and VBMI2 (Ice Lake, Zen 4 and later).
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx512;

/// AVX2 and BMI2 (Haswell, Zen 3 and later; on Zen 1 and 2 `pext` is slow, which text in ASCII does not use).
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx2;

impl Avx512 {
    pub(super) fn is_available() -> bool {
        is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vbmi")
            && is_x86_feature_detected!("avx512vbmi2")
            && Avx2::is_available()
    }
}

impl Avx2 {
    pub(super) fn is_available() -> bool {
        has_avx2()
    }
}

// SAFETY (of every block below): the caller of an `Isa` method has checked the processor; loads and stores go through
// references to arrays of exactly the size that the instruction touches.
impl Isa for Avx512 {
    type Bytes = __m512i;
    type Mask = u64;

    #[inline(always)]
    unsafe fn load(bytes: &[u8; 64]) -> __m512i {
        // SAFETY: see the impl.
        unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
    }

    #[inline(always)]
    unsafe fn load_part(bytes: &[u8]) -> __m512i {
        let mask = u64::MAX >> (64 - bytes.len().clamp(1, 64));
        // SAFETY: see the impl; the instruction touches the bytes of the mask alone, which `bytes` has.
        unsafe { _mm512_maskz_loadu_epi8(mask, bytes.as_ptr().cast()) }
    }

    #[inline(always)]
    unsafe fn with(bytes: __m512i, at: u32, value: u8) -> __m512i {
        // SAFETY: see the impl.
        unsafe { _mm512_mask_set1_epi8(bytes, 1 << at, value as i8) }
    }

    #[inline(always)]
    unsafe fn classes(bytes: __m512i, classes: &Classes) -> __m512i {
        let (low, high) = classes.ascii().split_at(64);
        // SAFETY: see the impl; both halves have 64 bytes.
        unsafe {
            let low = _mm512_loadu_si512(low.as_ptr().cast());
            let high = _mm512_loadu_si512(high.as_ptr().cast());
            let is_ascii = !_mm512_movepi8_mask(bytes);
            _mm512_maskz_permutex2var_epi8(is_ascii, low, bytes, high)
        }
    }

    #[inline(always)]
    unsafe fn any(bytes: __m512i, bits: u8) -> u64 {
        // SAFETY: see the impl.
        unsafe { _mm512_test_epi8_mask(bytes, _mm512_set1_epi8(bits as i8)) }
    }

    #[inline(always)]
    unsafe fn equal(bytes: __m512i, value: u8) -> u64 {
        // SAFETY: see the impl.
        unsafe { _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8(value as i8)) }
    }

    #[inline(always)]
    unsafe fn at_least(bytes: __m512i, value: u8) -> u64 {
        // SAFETY: see the impl.
        unsafe { _mm512_cmpge_epu8_mask(bytes, _mm512_set1_epi8(value as i8)) }
    }

    #[inline(always)]
    unsafe fn mask(bits: u64) -> u64 {
        bits
    }

    #[inline(always)]
    unsafe fn extract(bits: u64, mask: u64) -> u64 {
        // SAFETY: see the impl.
        unsafe { _pext_u64(bits, mask) }
    }

    #[inline(always)]
    unsafe fn deposit(bits: u64, mask: u64) -> u64 {
        // SAFETY: see the impl.
        unsafe { _pdep_u64(bits, mask) }
    }

    #[inline(always)]
    unsafe fn positions(bits: u64, base: u32, out: &mut [u32; 64]) {
        let out = out.as_mut_ptr();
        // SAFETY: see the impl; the four stores cover the 64 elements of `out` exactly.
        unsafe {
            let base = _mm512_set1_epi32(base as i32);
            let packed = _mm512_maskz_compress_epi8(bits, _mm512_loadu_si512(IOTA.as_ptr().cast()));
            let quarter = |bytes| _mm512_add_epi32(base, _mm512_cvtepu8_epi32(bytes));
            _mm512_storeu_si512(out.cast(), quarter(_mm512_castsi512_si128(packed)));
            _mm512_storeu_si512(out.add(16).cast(), quarter(_mm512_extracti32x4_epi32::<1>(packed)));
            // More than 32 starts in 64 bytes are rare.
            if bits.count_ones() > 32 {
                _mm512_storeu_si512(out.add(32).cast(), quarter(_mm512_extracti32x4_epi32::<2>(packed)));
                _mm512_storeu_si512(out.add(48).cast(), quarter(_mm512_extracti32x4_epi32::<3>(packed)));
            }
        }
    }
}

impl Isa for Avx2 {
    type Bytes = [__m256i; 2];
    type Mask = u64;

    #[inline(always)]
    unsafe fn load(bytes: &[u8; 64]) -> [__m256i; 2] {
        let at = bytes.as_ptr();
        // SAFETY: see the impl above.
        unsafe { [_mm256_loadu_si256(at.cast()), _mm256_loadu_si256(at.add(32).cast())] }
    }

    #[inline(always)]
    unsafe fn with(bytes: [__m256i; 2], at: u32, value: u8) -> [__m256i; 2] {
        // SAFETY: see the impl above.
        unsafe {
            let place = _mm256_set1_epi8(at as i8);
            let value = _mm256_set1_epi8(value as i8);
            let iota: [__m256i; 2] =
                [_mm256_loadu_si256(IOTA.as_ptr().cast()), _mm256_loadu_si256(IOTA.as_ptr().add(32).cast())];
            [
                _mm256_blendv_epi8(bytes[0], value, _mm256_cmpeq_epi8(iota[0], place)),
                _mm256_blendv_epi8(bytes[1], value, _mm256_cmpeq_epi8(iota[1], place)),
            ]
        }
    }

    #[inline(always)]
    unsafe fn classes(bytes: [__m256i; 2], _classes: &Classes) -> [__m256i; 2] {
        // SAFETY: see the impl above.
        unsafe { [ascii_classes(bytes[0]), ascii_classes(bytes[1])] }
    }

    #[inline(always)]
    unsafe fn any(bytes: [__m256i; 2], bits: u8) -> u64 {
        // SAFETY: see the impl above.
        unsafe {
            let (wanted, zero) = (_mm256_set1_epi8(bits as i8), _mm256_setzero_si256());
            let low = _mm256_cmpeq_epi8(_mm256_and_si256(bytes[0], wanted), zero);
            !joined(low, _mm256_cmpeq_epi8(_mm256_and_si256(bytes[1], wanted), zero))
        }
    }

    #[inline(always)]
    unsafe fn equal(bytes: [__m256i; 2], value: u8) -> u64 {
        // SAFETY: see the impl above.
        unsafe {
            let value = _mm256_set1_epi8(value as i8);
            joined(_mm256_cmpeq_epi8(bytes[0], value), _mm256_cmpeq_epi8(bytes[1], value))
        }
    }

    #[inline(always)]
    unsafe fn at_least(bytes: [__m256i; 2], value: u8) -> u64 {
        // SAFETY: see the impl above.
        unsafe {
            let value = _mm256_set1_epi8(value as i8);
            let low = _mm256_cmpeq_epi8(_mm256_max_epu8(bytes[0], value), bytes[0]);
            joined(low, _mm256_cmpeq_epi8(_mm256_max_epu8(bytes[1], value), bytes[1]))
        }
    }

    #[inline(always)]
    unsafe fn mask(bits: u64) -> u64 {
        bits
    }

    #[inline(always)]
    unsafe fn extract(bits: u64, mask: u64) -> u64 {
        // SAFETY: see the impl above.
        unsafe { _pext_u64(bits, mask) }
    }

    #[inline(always)]
    unsafe fn deposit(bits: u64, mask: u64) -> u64 {
        // SAFETY: see the impl above.
        unsafe { _pdep_u64(bits, mask) }
    }

    #[inline(always)]
    unsafe fn positions(bits: u64, base: u32, out: &mut [u32; 64]) {
        positions_by_eights(bits, base, out);
    }
}

/// The classes of ASCII by comparison with its few ranges; 0 for all other bytes.
#[inline(always)]
unsafe fn ascii_classes(bytes: __m256i) -> __m256i {
    // SAFETY: the caller's, an AVX2 method above.
    unsafe {
        let words = _mm256_or_si256(
            ranged(bytes, b'A', b'Z', LETTER | UPPER), //
            ranged(bytes, b'a', b'z', LETTER | LOWER),
        );
        let spaces = _mm256_or_si256(ranged(bytes, 9, 13, SPACE), ranged(bytes, b' ', b' ', SPACE));
        let newlines =
            _mm256_or_si256(ranged(bytes, b'\n', b'\n', NEWLINE), ranged(bytes, b'\r', b'\r', NEWLINE));
        let numbers = ranged(bytes, b'0', b'9', NUMBER);
        _mm256_or_si256(_mm256_or_si256(words, numbers), _mm256_or_si256(spaces, newlines))
    }
}

/// `class` for the bytes in `first..=last`, 0 for all others.
#[inline(always)]
unsafe fn ranged(bytes: __m256i, first: u8, last: u8, class: u8) -> __m256i {
    // SAFETY: the caller's, an AVX2 method above.
    unsafe {
        let offset = _mm256_sub_epi8(bytes, _mm256_set1_epi8(first as i8));
        let is = _mm256_cmpeq_epi8(_mm256_min_epu8(offset, _mm256_set1_epi8((last - first) as i8)), offset);
        _mm256_and_si256(is, _mm256_set1_epi8(class as i8))
    }
}

/// One bit a byte of two comparisons.
#[inline(always)]
unsafe fn joined(low: __m256i, high: __m256i) -> u64 {
    // SAFETY: the caller's, an AVX2 method above.
    let (low, high) = unsafe { (_mm256_movemask_epi8(low) as u32, _mm256_movemask_epi8(high) as u32) };
    u64::from(low) | u64::from(high) << 32
}

/// [`fill_by_family`] with AVX-512.
///
/// # Safety
/// As [`fill_by_family`]: [`Avx512::is_available`], UTF-8, a start.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vbmi2,avx2,bmi1,bmi2,lzcnt,popcnt")]
pub(super) unsafe fn fill_avx512(family: Family, text: &[u8], from: usize, starts: &mut Starts<'_>) -> usize {
    // SAFETY: the caller's.
    unsafe { fill_by_family::<Avx512>(family, text, from, starts) }
}

/// [`fill_by_family`] with AVX2.
///
/// # Safety
/// As [`fill_by_family`]: [`Avx2::is_available`], UTF-8, a start.
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
pub(super) unsafe fn fill_avx2(family: Family, text: &[u8], from: usize, starts: &mut Starts<'_>) -> usize {
    // SAFETY: the caller's.
    unsafe { fill_by_family::<Avx2>(family, text, from, starts) }
}
