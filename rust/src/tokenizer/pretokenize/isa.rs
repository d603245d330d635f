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
    /// A mask whose bits are moved together and apart; what that takes is found once for all that it is used for.
    type Mask: Copy;

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
    /// The classes of ASCII bytes, 0 for all others; with or without `SYMBOL`, which no window asks for.
    unsafe fn classes(bytes: Self::Bytes, classes: &Classes) -> Self::Bytes;
    /// Which bytes have one of the bits of `bits`.
    unsafe fn any(bytes: Self::Bytes, bits: u8) -> u64;
    /// Which bytes equal `value`.
    unsafe fn equal(bytes: Self::Bytes, value: u8) -> u64;
    /// Which bytes are not below `value`.
    unsafe fn at_least(bytes: Self::Bytes, value: u8) -> u64;
    /// A mask for `extract` and `deposit`.
    unsafe fn mask(bits: u64) -> Self::Mask;
    /// The bits of `bits` that `mask` selects, moved together.
    unsafe fn extract(bits: u64, mask: Self::Mask) -> u64;
    /// The bits of `bits`, moved apart to where `mask` has ones.
    unsafe fn deposit(bits: u64, mask: Self::Mask) -> u64;
    /// Writes `base` plus the position of each bit of `bits` to the front of `out`.
    unsafe fn positions(bits: u64, base: u32, out: &mut [u32; 64]);
}

/// Plain Rust, for any processor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Portable;

#[expect(unsafe_code, reason = "the trait's methods are unsafe; these need nothing")]
impl Isa for Portable {
    type Bytes = [u8; 64];
    type Mask = u64;

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

    unsafe fn mask(bits: u64) -> u64 {
        bits
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

/// Byte positions 0 to 63.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) static IOTA: [u8; 64] = {
    let (mut table, mut at) = ([0; 64], 0);
    while at < 64 {
        table[at] = at as u8;
        at += 1;
    }
    table
};

/// [`Isa::positions`], eight at a time, so that the loop's branch is taken once or twice a window; what is written beyond
/// the last start is overwritten later.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[inline(always)]
pub(super) fn positions_by_eights(mut bits: u64, base: u32, out: &mut [u32; 64]) {
    for group in out.as_chunks_mut::<8>().0 {
        if bits == 0 {
            break;
        }
        for slot in group {
            *slot = base.wrapping_add(bits.trailing_zeros());
            bits &= bits.wrapping_sub(1);
        }
    }
}

fn mask_of(bytes: [u8; 64], is: impl Fn(u8) -> bool) -> u64 {
    bytes.iter().rev().fold(0, |mask, &byte| mask << 1 | u64::from(is(byte)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::classes::{LETTER, LOWER, MARK, NEWLINE, NUMBER, SPACE, UPPER};
    use super::*;

    /// The bytes, by the masks of their eight bits.
    ///
    /// # Safety
    /// The processor has the instructions of `I`.
    #[expect(unsafe_code, reason = "calls the operations of one processor family")]
    unsafe fn bits_of<I: Isa>(bytes: I::Bytes) -> [u64; 8] {
        // SAFETY: the caller's.
        std::array::from_fn(|bit| unsafe { I::any(bytes, 1 << bit) })
    }

    /// All operations give what those in plain Rust do.
    ///
    /// # Safety
    /// The processor has the instructions of `I`.
    #[expect(unsafe_code, reason = "calls the operations of one processor family")]
    unsafe fn check<I: Isa>(bytes: &[u8; 64], value: u8, at: u32, (bits, mask): (u64, u64)) {
        let classes = Classes::get();
        let part = &bytes[..=at as usize];
        // SAFETY: the caller's; `at` is below 64.
        unsafe {
            let (ours, plain) = (I::load(bytes), Portable::load(bytes));
            assert_eq!(bits_of::<I>(ours), bits_of::<Portable>(plain));
            assert_eq!(bits_of::<I>(I::load_part(part)), bits_of::<Portable>(Portable::load_part(part)));
            let with = Portable::with(plain, at, value);
            assert_eq!(bits_of::<I>(I::with(ours, at, value)), bits_of::<Portable>(with));
            let class = Portable::classes(plain, classes);
            for bit in [LETTER, NUMBER, SPACE, NEWLINE, UPPER, LOWER, MARK] {
                assert_eq!(I::any(I::classes(ours, classes), bit), Portable::any(class, bit), "{bit}");
            }
            for value in [value, bytes[at as usize], 0, 0x80, 0xff] {
                assert_eq!(I::any(ours, value), Portable::any(plain, value), "{value}");
                assert_eq!(I::equal(ours, value), Portable::equal(plain, value), "{value}");
                assert_eq!(I::at_least(ours, value), Portable::at_least(plain, value), "{value}");
            }
            assert_eq!(I::extract(bits, I::mask(mask)), Portable::extract(bits, mask));
            assert_eq!(I::deposit(bits, I::mask(mask)), Portable::deposit(bits, mask));
            let (mut found, mut expected) = ([0; 64], [0; 64]);
            I::positions(bits, at, &mut found);
            Portable::positions(bits, at, &mut expected);
            let count = bits.count_ones() as usize;
            assert_eq!(found[..count], expected[..count]);
        }
    }

    /// As `check`, with every vector form of this processor.
    #[cfg_attr(
        any(target_arch = "x86_64", target_arch = "aarch64"),
        expect(unsafe_code, reason = "vector instructions behind a check of the processor")
    )]
    fn check_all(bytes: &[u8; 64], value: u8, at: u32, bits: (u64, u64)) {
        #[cfg(target_arch = "x86_64")]
        {
            use super::super::x86::{Avx2, Avx512};
            if Avx512::is_available() {
                // SAFETY: it is available.
                unsafe { check::<Avx512>(bytes, value, at, bits) };
            }
            if Avx2::is_available() {
                // SAFETY: it is available.
                unsafe { check::<Avx2>(bytes, value, at, bits) };
            }
        }
        #[cfg(target_arch = "aarch64")]
        // SAFETY: NEON is part of the target.
        unsafe {
            check::<super::super::neon::Neon>(bytes, value, at, bits);
        }
    }

    #[test]
    fn every_byte_at_every_place() {
        let all: [u8; 512] = std::array::from_fn(|index| index as u8);
        for (from, bytes) in all.windows(64).take(256).enumerate() {
            let bytes = bytes.first_chunk().expect("a window has 64 bytes");
            let bits = u64::MAX.rotate_left(from as u32) >> (from % 64);
            check_all(bytes, from as u8, from as u32 % 64, (bits, !bits));
        }
    }

    proptest! {
        #[test]
        fn random_bytes(
            bytes in prop::collection::vec(any::<u8>(), 64),
            value: u8,
            at in 0_u32..64,
            bits: u64,
            masks: (u64, u64),
        ) {
            let bytes = bytes.first_chunk().expect("it has 64 bytes");
            check_all(bytes, value, at, (bits, masks.0));
            check_all(bytes, value, at, (bits & masks.1, masks.0 & masks.1));
        }
    }
}
