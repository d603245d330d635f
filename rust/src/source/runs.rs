//! Parquet's "RLE / bit-packed hybrid": small numbers as runs of one value or as packed groups of eight.
//!
//! ```text
//! header (varint)  2·n      one value, n times
//!                  2·n + 1  n groups of 8 values, `width` bits each, lowest bit first
//! ```
//! It holds definition levels (width 1 here) and dictionary indices. Values are decoded one by one: nothing is
//! allocated for what a header claims.

use bytes::Bytes;

use super::Decoded;
use super::thrift::varint;

/// A decoder at its place.
#[derive(Clone, Debug)]
pub(super) struct Runs {
    bytes: Bytes,
    position: usize,
    width: u32,
    run: Run,
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
        Ok(Self { bytes, position: 0, width, run: Run::Repeated { value: 0, left: 0 } })
    }

    /// The same value `count` times.
    pub(super) fn repeated(value: u32, count: u64) -> Self {
        Self { bytes: Bytes::new(), position: 0, width: 0, run: Run::Repeated { value, left: count } }
    }

    /// The next value.
    pub(super) fn next(&mut self) -> Decoded<u32> {
        loop {
            match &mut self.run {
                Run::Repeated { left: 0, .. } | Run::Packed { left: 0, .. } => self.next_run()?,
                Run::Repeated { value, left } => {
                    *left -= 1;
                    return Ok(*value);
                }
                Run::Packed { bit, left } => {
                    let at = *bit;
                    *bit += u64::from(self.width);
                    *left -= 1;
                    return unpack(&self.bytes, at, self.width).map(|value| value as u32);
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
