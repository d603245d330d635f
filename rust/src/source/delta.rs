//! Parquet's DELTA_BINARY_PACKED: integers as packed differences. Here it holds the lengths of texts.
//!
//! ```text
//! block size, miniblocks a block, count, first value,
//! then per block: smallest delta, a bit width per miniblock, the packed deltas above the smallest
//! ```
//! Numbers are decoded one by one: nothing is allocated for what a header claims.

use bytes::Bytes;

use super::Decoded;
use super::runs::unpack;
use super::thrift::{varint, zigzag};

/// A decoder at its place.
#[derive(Clone, Debug)]
pub(super) struct Deltas {
    bytes: Bytes,
    position: usize,
    num_miniblocks: usize,
    miniblock_size: u64,
    /// Numbers that are not decoded yet.
    left: u64,
    /// The next number, where no delta stands before it; else the last one.
    value: i64,
    is_first: bool,
    /// The block at hand: its smallest delta and the widths of its miniblocks that are to come.
    smallest: i64,
    widths: std::ops::Range<usize>,
    /// The miniblock at hand: where its next delta begins, how wide it is, how many there are.
    bit: u64,
    width: u32,
    miniblock_left: u64,
}

impl Deltas {
    /// The numbers at the front of `bytes`, at most `max_count` of them.
    pub(super) fn new(bytes: Bytes, max_count: u64) -> Decoded<Self> {
        let mut position = 0;
        let mut number = || -> Decoded<u64> {
            let (value, length) = varint(&bytes[position..])?;
            position += length;
            Ok(value)
        };
        let (block_size, num_miniblocks, left, value) = (number()?, number()?, number()?, zigzag(number()?));
        if left > max_count {
            return Err(format!("{left} lengths in a page of {max_count} rows"));
        }
        let miniblock_size = block_size.checked_div(num_miniblocks).unwrap_or(0);
        if miniblock_size == 0 || miniblock_size % 8 != 0 || num_miniblocks > bytes.len() as u64 {
            return Err(format!("delta blocks of {block_size} numbers in {num_miniblocks} parts"));
        }
        let num_miniblocks = num_miniblocks as usize;
        let (smallest, widths, bit, width, miniblock_left) = (0, 0..0, 0, 0, 0);
        Ok(Self {
            bytes,
            position,
            num_miniblocks,
            miniblock_size,
            left,
            value,
            is_first: true,
            smallest,
            widths,
            bit,
            width,
            miniblock_left,
        })
    }

    /// Where the bytes behind all numbers begin.
    pub(super) fn end(&self) -> Decoded<usize> {
        let mut scan = self.clone();
        scan.left = scan.left.saturating_sub(1);
        while scan.left > 0 {
            scan.next_miniblock()?;
            scan.left -= scan.left.min(scan.miniblock_size);
        }
        Ok(scan.position)
    }

    /// The next number. Writers of 32 bits let differences wrap around, so the low 32 bits are what counts.
    pub(super) fn next(&mut self) -> Decoded<i32> {
        self.left = self.left.checked_sub(1).ok_or("fewer lengths than texts")?;
        if std::mem::take(&mut self.is_first) {
            return Ok(self.value as i32);
        }
        if self.miniblock_left == 0 {
            self.next_miniblock()?;
        }
        let delta = unpack(&self.bytes, self.bit, self.width)?;
        self.bit += u64::from(self.width);
        self.miniblock_left -= 1;
        self.value = self.value.wrapping_add(self.smallest).wrapping_add(delta as i64);
        Ok(self.value as i32)
    }

    fn next_miniblock(&mut self) -> Decoded<()> {
        if self.widths.is_empty() {
            let (smallest, length) = varint(&self.bytes[self.position..])?;
            let start = self.position + length;
            let end = start.saturating_add(self.num_miniblocks);
            if end > self.bytes.len() {
                return Err("the bytes end within a block of lengths".into());
            }
            (self.smallest, self.widths, self.position) = (zigzag(smallest), start..end, end);
        }
        let width = self.widths.next().map_or(0, |index| self.bytes[index]);
        if width > 64 {
            return Err(format!("deltas of {width} bits"));
        }
        self.bit = self.position as u64 * 8;
        self.width = u32::from(width);
        self.miniblock_left = self.miniblock_size;
        // The last miniblock is padded to its size by some writers and cut by others.
        let length = u64::from(width).saturating_mul(self.miniblock_size / 8);
        self.position += length.min((self.bytes.len() - self.position) as u64) as usize;
        Ok(())
    }
}
