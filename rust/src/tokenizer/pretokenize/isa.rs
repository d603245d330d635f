//! What a window needs of a processor, and the same in plain Rust: the twin of every vector form.

use super::classes::Classes;

/// Operations on 64 bytes at once.
///
/// # Safety
/// An implementation may use instructions that not every processor has. Whoever calls a method has checked that this one
/// does; `Windows` is only built after that check.
#[expect(unsafe_code, reason = "the methods use instructions of one processor family")]
pub(super) trait Isa: Copy {
    /// 64 bytes.
    type Bytes: Copy;

    unsafe fn load(bytes: &[u8; 64]) -> Self::Bytes;
    /// At most 64 bytes and at least one, then zeros.
    #[inline(always)]
    unsafe fn load_part(bytes: &[u8]) -> Self::Bytes {
        let mut copy = [0; 64];
        copy[..bytes.len()].copy_from_slice(bytes);
        // SAFETY: the caller's.
        unsafe { Self::load(&copy) }
    }
    /// `bytes`, but `value` at place `at`, which is below 64.
    unsafe fn with(bytes: Self::Bytes, at: u32, value: u8) -> Self::Bytes;
    /// The classes of ASCII bytes; 0 for all others.
    unsafe fn classes(bytes: Self::Bytes, classes: &Classes) -> Self::Bytes;
    /// Which bytes have one of the bits of `bits`.
    unsafe fn any(bytes: Self::Bytes, bits: u8) -> u64;
    /// Which bytes equal `value`.
    unsafe fn equal(bytes: Self::Bytes, value: u8) -> u64;
    /// Which bytes are not below `value`.
    unsafe fn at_least(bytes: Self::Bytes, value: u8) -> u64;
    /// The bits of `bits` that `mask` selects, moved together.
    unsafe fn extract(bits: u64, mask: u64) -> u64;
    /// The bits of `bits`, moved apart to where `mask` has ones.
    unsafe fn deposit(bits: u64, mask: u64) -> u64;
    /// Writes `base` plus the position of each bit of `bits` to the front of `out`.
    unsafe fn positions(bits: u64, base: u32, out: &mut [u32; 64]);
}

/// Plain Rust, for any processor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Portable;

#[expect(unsafe_code, reason = "the trait's methods are unsafe; these need nothing")]
impl Isa for Portable {
    type Bytes = [u8; 64];

    unsafe fn load(bytes: &[u8; 64]) -> [u8; 64] {
        *bytes
    }

    unsafe fn with(mut bytes: [u8; 64], at: u32, value: u8) -> [u8; 64] {
        bytes[at as usize] = value;
        bytes
    }

    unsafe fn classes(bytes: [u8; 64], classes: &Classes) -> [u8; 64] {
        bytes.map(|byte| classes.ascii().get(usize::from(byte)).copied().unwrap_or(0))
    }

    unsafe fn any(bytes: [u8; 64], bits: u8) -> u64 {
        mask_of(bytes, |byte| byte & bits != 0)
    }

    unsafe fn equal(bytes: [u8; 64], value: u8) -> u64 {
        mask_of(bytes, |byte| byte == value)
    }

    unsafe fn at_least(bytes: [u8; 64], value: u8) -> u64 {
        mask_of(bytes, |byte| byte >= value)
    }

    unsafe fn extract(bits: u64, mut mask: u64) -> u64 {
        let (mut out, mut at) = (0, 0);
        while mask != 0 {
            out |= (bits >> mask.trailing_zeros() & 1) << at;
            mask &= mask - 1;
            at += 1;
        }
        out
    }

    unsafe fn deposit(bits: u64, mut mask: u64) -> u64 {
        let (mut out, mut at) = (0, 0);
        while mask != 0 {
            out |= (bits >> at & 1) << mask.trailing_zeros();
            mask &= mask - 1;
            at += 1;
        }
        out
    }

    unsafe fn positions(mut bits: u64, base: u32, out: &mut [u32; 64]) {
        for slot in out.iter_mut() {
            if bits == 0 {
                break;
            }
            *slot = base + bits.trailing_zeros();
            bits &= bits - 1;
        }
    }
}

fn mask_of(bytes: [u8; 64], is: impl Fn(u8) -> bool) -> u64 {
    bytes.iter().rev().fold(0, |mask, &byte| mask << 1 | u64::from(is(byte)))
}
