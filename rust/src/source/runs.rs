//! Parquet's "RLE / bit-packed hybrid": small numbers as runs of one value or as packed groups of eight.
//!
//! ```text
//! header (varint)  2·n      one value, n times
//!                  2·n + 1  n groups of 8 values, `width` bits each, lowest bit first
//! ```
//! It holds levels and dictionary indices. Values are decoded a block at a time: nothing is allocated for what a header
//! claims.

use bytes::Bytes;

use super::Decoded;
use super::thrift::varint;

/// Values that are decoded at once. One by one, levels and indices took a sixth of the time in which conversations of 900
/// bytes become batches.
const BLOCK: usize = 64;

/// A decoder at its place.
#[derive(Clone, Debug)]
pub(super) struct Runs {
    bytes: Bytes,
    position: usize,
    width: u32,
    run: Run,
    block: [u32; BLOCK],
    /// Of the block: the next value, and the end of those that are decoded.
    next: usize,
    end: usize,
}

#[derive(Clone, Copy, Debug)]
enum Run {
    Repeated {
        value: u32,
        left: u64,
    },
    /// Values from bit `bit` on, counted from the front of `bytes`.
    Packed {
        bit: u64,
        left: u64,
    },
}

impl Runs {
    /// Values of `width` bits, 32 at most.
    pub(super) fn new(bytes: Bytes, width: u32) -> Decoded<Self> {
        if width > 32 {
            return Err(format!("numbers of {width} bits where 32 is the most"));
        }
        Ok(Self::at(bytes, width, Run::Repeated { value: 0, left: 0 }))
    }

    /// The same value `count` times.
    pub(super) fn repeated(value: u32, count: u64) -> Self {
        Self::at(Bytes::new(), 0, Run::Repeated { value, left: count })
    }

    fn at(bytes: Bytes, width: u32, run: Run) -> Self {
        Self { bytes, position: 0, width, run, block: [0; BLOCK], next: 0, end: 0 }
    }

    /// The next value.
    #[inline(always)]
    pub(super) fn next(&mut self) -> Decoded<u32> {
        if self.next == self.end {
            self.decode_block()?;
        }
        let value = self.block[self.next % BLOCK];
        self.next += 1;
        Ok(value)
    }

    /// The next values, as many as `out` takes; how many there are before an error, and the error.
    pub(super) fn read(&mut self, out: &mut [u32]) -> (usize, Decoded<()>) {
        let mut done = 0;
        while done < out.len() {
            if self.next == self.end
                && let Err(reason) = self.decode_block()
            {
                return (done, Err(reason));
            }
            let count = (self.end - self.next).min(out.len() - done);
            out[done..done + count].copy_from_slice(&self.block[self.next..self.next + count]);
            (self.next, done) = (self.next + count, done + count);
        }
        (done, Ok(()))
    }

    /// Decodes the next block, or what of it lies in one run.
    #[inline(never)]
    fn decode_block(&mut self) -> Decoded<()> {
        loop {
            match &mut self.run {
                Run::Repeated { left: 0, .. } | Run::Packed { left: 0, .. } => self.next_run()?,
                Run::Repeated { value, left } => {
                    let count = (BLOCK as u64).min(*left) as usize;
                    self.block[..count].fill(*value);
                    *left -= count as u64;
                    (self.next, self.end) = (0, count);
                    return Ok(());
                }
                Run::Packed { bit, left } => {
                    let count = (BLOCK as u64).min(*left) as usize;
                    let decoded = unpack_all(&self.bytes, *bit, self.width, &mut self.block[..count])?;
                    *bit += decoded as u64 * u64::from(self.width);
                    *left -= decoded as u64;
                    (self.next, self.end) = (0, decoded);
                    return Ok(());
                }
            }
        }
    }

    fn next_run(&mut self) -> Decoded<()> {
        let (header, length) = varint(&self.bytes[self.position..])?;
        self.position += length;
        let count = header >> 1;
        if header & 1 == 1 {
            let bit = self.position as u64 * 8;
            // The last run of a page may be cut where its values end; reading beyond is an error then.
            let length =
                count.saturating_mul(u64::from(self.width)).min((self.bytes.len() - self.position) as u64);
            self.position += length as usize;
            self.run = Run::Packed { bit, left: count.saturating_mul(8) };
        } else {
            let length = self.width.div_ceil(8) as usize;
            let bytes =
                self.bytes.get(self.position..self.position + length).ok_or("the bytes end within a run")?;
            let value = bytes.iter().rev().fold(0, |value, &byte| value << 8 | u32::from(byte));
            self.position += length;
            self.run = Run::Repeated { value, left: count };
        }
        Ok(())
    }
}

/// Numbers of `width` ≤ 32 bits from bit `at` on, as many as `out` takes and `bytes` has, one at least.
fn unpack_all(bytes: &[u8], at: u64, width: u32, out: &mut [u32]) -> Decoded<usize> {
    let mask = (1_u64 << width) - 1;
    let mut done = 0;
    if width <= 8 && at.is_multiple_of(8) {
        // Eight of them lie in one word.
        let words = bytes.get((at / 8) as usize..).unwrap_or_default();
        for (group, values) in out.chunks_exact_mut(8).enumerate() {
            let Some(word) = words.get(group * width as usize..).and_then(|bytes| bytes.first_chunk()) else {
                break;
            };
            let word = u64::from_le_bytes(*word);
            for (index, value) in values.iter_mut().enumerate() {
                *value = (word >> (index as u32 * width) & mask) as u32;
            }
            done += 8;
        }
    }
    for (index, value) in out.iter_mut().enumerate().skip(done) {
        let at = at + index as u64 * u64::from(width);
        let word = bytes.get((at / 8) as usize..).and_then(|bytes| bytes.first_chunk());
        *value = match word {
            Some(word) => (u64::from_le_bytes(*word) >> (at % 8) & mask) as u32,
            None => match unpack(bytes, at, width) {
                Ok(value) => value as u32,
                Err(_) if index > 0 => return Ok(index),
                Err(reason) => return Err(reason),
            },
        };
    }
    Ok(out.len())
}

/// `width` ≤ 64 bits from bit `at` on, lowest first.
pub(super) fn unpack(bytes: &[u8], at: u64, width: u32) -> Decoded<u64> {
    if width == 0 {
        return Ok(0);
    }
    let (first, shift) = ((at / 8) as usize, (at % 8) as u32);
    let length = (shift + width).div_ceil(8) as usize;
    let bytes =
        bytes.get(first..first.saturating_add(length)).ok_or("the bytes end within packed numbers")?;
    let mut word = [0; 16];
    word[..length].copy_from_slice(bytes);
    let value = (u128::from_le_bytes(word) >> shift) as u64;
    Ok(if width == 64 { value } else { value & ((1 << width) - 1) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of `width` bits, packed lowest bit first.
    fn packed(values: &[u32], width: usize) -> Vec<u8> {
        let mut bytes = vec![0; (values.len() * width).div_ceil(8)];
        for (index, bit) in
            (0..values.len() * width).map(|bit| (bit, values[bit / width] >> (bit % width) & 1))
        {
            bytes[index / 8] |= (bit as u8) << (index % 8);
        }
        bytes
    }

    #[test]
    fn blocks_give_every_value_up_to_where_the_bytes_end() {
        for width in 1..=32_usize {
            let values: Vec<u32> =
                (0..208_u32).map(|value| value.wrapping_mul(2_654_435_761) >> (32 - width)).collect();
            let repeated = [vec![200, 1], values[7].to_le_bytes()[..width.div_ceil(8)].to_vec()].concat();
            let bytes = [repeated, vec![26 * 2 + 1], packed(&values, width)].concat();
            let expected = [vec![values[7]; 100], values.clone()].concat();
            let mut runs = Runs::new(bytes.clone().into(), width as u32).unwrap();
            let found: Vec<u32> = expected.iter().map(|_| runs.next().unwrap()).collect();
            assert_eq!(found, expected, "{width} bits");
            assert!(runs.next().is_err(), "nothing follows");
            let mut runs = Runs::new(bytes.clone().into(), width as u32).unwrap();
            let mut found = vec![0; expected.len() + 1];
            let (first, rest) = found.split_at_mut(130);
            assert_eq!(runs.read(first), (130, Ok(())));
            let (count, end) = runs.read(rest);
            assert!(count == expected.len() - 130 && end.is_err(), "nothing follows");
            assert_eq!(found[..expected.len()], expected, "{width} bits, many at once");
            let mut cut = Runs::new(bytes[..bytes.len() - width].to_vec().into(), width as u32).unwrap();
            let found: Vec<u32> = std::iter::from_fn(|| cut.next().ok()).collect();
            assert_eq!(found, expected[..expected.len() - 8], "{width} bits, eight values short");
        }
    }

    #[test]
    fn repeated_values_end() {
        let mut runs = Runs::repeated(3, 2);
        assert_eq!((runs.next(), runs.next()), (Ok(3), Ok(3)));
        assert!(runs.next().is_err());
    }
}
