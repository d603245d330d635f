//! Bits moved together and apart in six steps, for processors without an instruction for it.
//!
//! ```text
//! mask        1 0 1 1 0 0 1 0        each 1 moves right by the zeros on its right:
//! distance    4 . 3 3 . . 1 .        by 1 where that has bit 0, by 2 where it has bit 1, and so on
//! ```

const STEPS: usize = 6;

/// Where the bits that a mask selects move.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moves {
    mask: u64,
    /// The bits that move by `1 << step` in a step, where they lie before it.
    moved: [u64; STEPS],
}

impl Moves {
    /// For the bits of `mask`.
    #[inline(always)]
    pub(super) fn to(mask: u64) -> Self {
        let mut moved = [0; STEPS];
        let (mut bits, mut zeros) = (mask, !mask << 1);
        for (step, moved) in moved.iter_mut().enumerate() {
            // Whether the number of zeros that are left to the right is odd.
            let odd = parities(zeros);
            *moved = odd & bits;
            bits = bits ^ *moved | *moved >> (1 << step);
            // Half of them are left, every second one.
            zeros &= !odd;
        }
        Self { mask, moved }
    }

    /// The bits of `bits` that the mask selects, moved together.
    #[inline(always)]
    pub(super) fn extract(&self, bits: u64) -> u64 {
        self.moved.iter().enumerate().fold(bits & self.mask, |bits, (step, moved)| {
            let moving = bits & moved;
            bits ^ moving | moving >> (1 << step)
        })
    }

    /// The bits of `bits`, moved apart to where the mask has ones.
    #[inline(always)]
    pub(super) fn deposit(&self, bits: u64) -> u64 {
        let apart = self
            .moved
            .iter()
            .enumerate()
            .rev()
            .fold(bits, |bits, (step, moved)| bits & !moved | bits << (1 << step) & moved);
        apart & self.mask
    }
}

/// For each bit, whether of it and those to its right an odd number are ones.
#[inline(always)]
fn parities(mut bits: u64) -> u64 {
    for step in 0..STEPS {
        bits ^= bits << (1 << step);
    }
    bits
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::isa::{Isa, Portable};
    use super::*;

    fn check(bits: u64, mask: u64) {
        let moves = Moves::to(mask);
        // SAFETY: plain Rust.
        #[expect(unsafe_code, reason = "the trait's methods are unsafe")]
        let (together, apart) = unsafe { (Portable::extract(bits, mask), Portable::deposit(bits, mask)) };
        assert_eq!(moves.extract(bits), together, "{bits:x} by {mask:x}");
        assert_eq!(moves.deposit(bits), apart, "{bits:x} by {mask:x}");
    }

    #[test]
    fn runs_of_every_length_and_place() {
        for from in 0..64 {
            for length in 0..=64 - from {
                let run = if length == 64 { !0 } else { ((1_u64 << length) - 1) << from };
                for bits in [!0, 0, 0x5555_5555_5555_5555, 0x0123_4567_89ab_cdef] {
                    check(bits, run);
                    check(bits, !run);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn moves_are_those_bit_by_bit(bits: u64, mask: u64, other: u64) {
            for mask in [mask, mask & other, mask | other] {
                check(bits, mask);
            }
        }
    }
}
