//! The vector form of [`Isa`] for 64-bit Arm: NEON, which every such processor has.
//!
//! ```text
//! text      T h e   c a t   s a t …      vector 0   T c s …      vector 2   e t t …
//!                                        vector 1   h a a …      vector 3   _ _ _ …
//! ```
//! Byte `i` lies in vector `i % 4`: four comparisons become four neighbouring bits by shifting one into the other, without
//! sums over a vector, which would take a third more instructions.

#![expect(unsafe_code, reason = "vector instructions")]

use std::arch::aarch64::*;

use super::classes::Classes;
use super::isa::{IOTA, Isa, positions_by_eights};
use super::moves::Moves;

/// NEON.
#[derive(Clone, Copy, Debug)]
pub(super) struct Neon;

// SAFETY (of every block below): NEON is part of the target; loads go through references to arrays of exactly the size
// that the instruction touches.
impl Isa for Neon {
    type Bytes = [uint8x16_t; 4];
    type Mask = Moves;

    #[inline(always)]
    unsafe fn load(bytes: &[u8; 64]) -> [uint8x16_t; 4] {
        // SAFETY: see the impl.
        let vectors = unsafe { vld4q_u8(bytes.as_ptr()) };
        [vectors.0, vectors.1, vectors.2, vectors.3]
    }

    #[inline(always)]
    unsafe fn with(bytes: [uint8x16_t; 4], at: u32, value: u8) -> [uint8x16_t; 4] {
        // SAFETY: see the impl.
        unsafe {
            let (place, value) = (vdupq_n_u8(at as u8), vdupq_n_u8(value));
            let iota = Self::load(&IOTA);
            each(|vector| vbslq_u8(vceqq_u8(iota[vector], place), value, bytes[vector]))
        }
    }

    #[inline(always)]
    unsafe fn classes(bytes: [uint8x16_t; 4], classes: &Classes) -> [uint8x16_t; 4] {
        let (low, high) = classes.ascii().split_at(64);
        // SAFETY: see the impl; both halves have 64 bytes. A look-up beyond its half gives 0.
        unsafe {
            let (low, high) = (vld1q_u8_x4(low.as_ptr()), vld1q_u8_x4(high.as_ptr()));
            let half = vdupq_n_u8(64);
            each(|vector| {
                let in_high = vqtbl4q_u8(high, veorq_u8(bytes[vector], half));
                vorrq_u8(vqtbl4q_u8(low, bytes[vector]), in_high)
            })
        }
    }

    #[inline(always)]
    unsafe fn any(bytes: [uint8x16_t; 4], bits: u8) -> u64 {
        // SAFETY: see the impl.
        unsafe {
            let bits = vdupq_n_u8(bits);
            joined(each(|vector| vtstq_u8(bytes[vector], bits)))
        }
    }

    #[inline(always)]
    unsafe fn equal(bytes: [uint8x16_t; 4], value: u8) -> u64 {
        // SAFETY: see the impl.
        unsafe {
            let value = vdupq_n_u8(value);
            joined(each(|vector| vceqq_u8(bytes[vector], value)))
        }
    }

    #[inline(always)]
    unsafe fn at_least(bytes: [uint8x16_t; 4], value: u8) -> u64 {
        // SAFETY: see the impl.
        unsafe {
            let value = vdupq_n_u8(value);
            joined(each(|vector| vcgeq_u8(bytes[vector], value)))
        }
    }

    #[inline(always)]
    unsafe fn mask(bits: u64) -> Moves {
        Moves::to(bits)
    }

    #[inline(always)]
    unsafe fn extract(bits: u64, mask: Moves) -> u64 {
        mask.extract(bits)
    }

    #[inline(always)]
    unsafe fn deposit(bits: u64, mask: Moves) -> u64 {
        mask.deposit(bits)
    }

    #[inline(always)]
    unsafe fn positions(bits: u64, base: u32, out: &mut [u32; 64]) {
        positions_by_eights(bits, base, out);
    }
}

/// The four vectors that `of` gives.
#[inline(always)]
fn each(of: impl Fn(usize) -> uint8x16_t) -> [uint8x16_t; 4] {
    [of(0), of(1), of(2), of(3)]
}

/// One bit a byte of four comparisons.
#[inline(always)]
fn joined(is: [uint8x16_t; 4]) -> u64 {
    // SAFETY: NEON is part of the target.
    unsafe {
        let pairs = (vsriq_n_u8::<1>(is[1], is[0]), vsriq_n_u8::<1>(is[3], is[2]));
        let fours = vsriq_n_u8::<2>(pairs.1, pairs.0);
        // Four bits, twice in a byte; of every two bytes, the lower half of one and the upper of the other.
        let twice = vsriq_n_u8::<4>(fours, fours);
        let packed = vshrn_n_u16::<4>(vreinterpretq_u16_u8(twice));
        vget_lane_u64::<0>(vreinterpret_u64_u8(packed))
    }
}
