//! As much of thrift's compact protocol as a page header needs: fields one by one, what is unknown skipped.
//!
//! Format: the Thrift project's "compact protocol" specification.

use super::Decoded;

/// Deeper structures are refused: parquet nests five levels at most, and skipping is recursive.
const MAX_DEPTH: usize = 16;

/// A value's type, as the field header says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bool(bool),
    /// Integers of 16 to 64 bits.
    Integer,
    Struct,
    List,
    Other(u8),
}

/// Reads from the front of `bytes`; `position` is how far.
#[derive(Debug)]
pub(super) struct Compact<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Compact<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    pub(super) fn position(&self) -> usize {
        self.position
    }

    fn byte(&mut self) -> Decoded<u8> {
        let byte = *self.bytes.get(self.position).ok_or("the bytes end within a header")?;
        self.position += 1;
        Ok(byte)
    }

    fn varint(&mut self) -> Decoded<u64> {
        let (value, length) = varint(&self.bytes[self.position..])?;
        self.position += length;
        Ok(value)
    }

    /// An integer of any width.
    pub(super) fn integer(&mut self) -> Decoded<i64> {
        self.varint().map(zigzag)
    }

    /// The next field of the structure at hand; `last` is the number of the one before. `None` ends the structure.
    pub(super) fn field(&mut self, last: &mut i64) -> Decoded<Option<Kind>> {
        let header = self.byte()?;
        if header == 0 {
            return Ok(None);
        }
        *last = match header >> 4 {
            0 => self.integer()?,
            delta => *last + i64::from(delta),
        };
        if !(0..=i64::from(i16::MAX)).contains(last) {
            return Err(format!("a header with a field of number {last}"));
        }
        Ok(Some(match header & 15 {
            1 => Kind::Bool(true),
            2 => Kind::Bool(false),
            4..=6 => Kind::Integer,
            9 => Kind::List,
            12 => Kind::Struct,
            other => Kind::Other(other),
        }))
    }

    /// Passes over a field's value.
    pub(super) fn skip(&mut self, kind: Kind) -> Decoded<()> {
        self.skip_nested(kind, MAX_DEPTH)
    }

    fn skip_nested(&mut self, kind: Kind, depth: usize) -> Decoded<()> {
        let depth = depth.checked_sub(1).ok_or("a header is nested too deeply")?;
        match kind {
            Kind::Bool(_) => Ok(()),
            Kind::Integer => self.varint().map(drop),
            Kind::Struct => {
                let mut last = 0;
                while let Some(kind) = self.field(&mut last)? {
                    self.skip_nested(kind, depth)?;
                }
                Ok(())
            }
            Kind::Other(3) => self.byte().map(drop),
            Kind::Other(7) => self.advance(8),
            Kind::Other(8) => {
                let length = self.varint()?;
                self.advance(length)
            }
            Kind::List | Kind::Other(10) => self.skip_list(depth),
            Kind::Other(other) => {
                Err(format!("a header holds a value of type {other}, which no parquet writer uses"))
            }
        }
    }

    /// Begins a list: the type of its elements, and how many follow. Each takes a byte at least, so a length that lies ends
    /// with the bytes.
    pub(super) fn list(&mut self) -> Decoded<(Kind, u64)> {
        let header = self.byte()?;
        let length = if header >> 4 == 15 { self.varint()? } else { u64::from(header >> 4) };
        let kind = match header & 15 {
            1 | 2 if length == 0 => Kind::Other(3),
            // A byte each, or, as the parquet crate has it, none.
            1 | 2 => return Err("a header with a list of truth values, which no parquet writer uses".into()),
            4..=6 => Kind::Integer,
            9 => Kind::List,
            12 => Kind::Struct,
            other => Kind::Other(other),
        };
        Ok((kind, length))
    }

    fn skip_list(&mut self, depth: usize) -> Decoded<()> {
        let (kind, length) = self.list()?;
        (0..length).try_for_each(|_| self.skip_nested(kind, depth))
    }

    fn advance(&mut self, count: u64) -> Decoded<()> {
        if count > (self.bytes.len() - self.position) as u64 {
            return Err("the bytes end within a header".into());
        }
        self.position += count as usize;
        Ok(())
    }
}

/// A variable-length integer at the front of `bytes`, and how many bytes it takes.
pub(super) fn varint(bytes: &[u8]) -> Decoded<(u64, usize)> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 127) << (7 * index);
        if byte < 128 {
            return Ok((value, index + 1));
        }
    }
    Err(if bytes.len() < 10 { "the bytes end within a number" } else { "a number of more than 64 bits" }
        .into())
}

/// Signed numbers are stored as 0, −1, 1, −2, …
pub(super) fn zigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Appends an integer of any width.
pub(super) fn put_integer(bytes: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest > 127 {
        bytes.push(rest as u8 | 128);
        rest >>= 7;
    }
    bytes.push(rest as u8);
}
