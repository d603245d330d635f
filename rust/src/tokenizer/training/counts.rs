//! How often each pretoken occurs: all that training needs to know of its texts.

use std::collections::HashMap;

use super::Training;
use crate::error::{Error, Result};
use crate::tokenizer::EncodeError;
use crate::tokenizer::encoder::Splitter;
use crate::tokenizer::pretokenize::Starts;

/// What an entry takes beyond its pretoken's bytes: a key, a count and the table's free places, and the allocation's own.
const ENTRY_BYTES: usize = 72;

/// Counts of pretokens. One per thread, put together at the end.
#[derive(Debug)]
pub struct PretokenCounts {
    splitter: Splitter,
    table: Table,
    num_text_bytes: u64,
    limit_bytes: usize,
    starts: Vec<u32>,
}

#[derive(Debug, Default)]
struct Table {
    counts: HashMap<Box<[u8]>, u64>,
    num_bytes: usize,
}

impl Table {
    fn add(&mut self, pretoken: &[u8], times: u64) {
        if let Some(count) = self.counts.get_mut(pretoken) {
            *count += times;
        } else {
            self.num_bytes += ENTRY_BYTES + pretoken.len();
            self.counts.insert(pretoken.into(), times);
        }
    }
}

impl PretokenCounts {
    /// No counts yet; distinct pretokens will take at most `limit_bytes`.
    ///
    /// # Errors
    /// When the pattern does not compile.
    pub fn new(training: &Training, limit_bytes: usize) -> Result<Self> {
        let (splitter, table) = (training.splitter()?, Table::default());
        Ok(Self { splitter, table, num_text_bytes: 0, limit_bytes, starts: vec![0; 4096] })
    }

    /// Counts the pretokens of a text.
    ///
    /// # Errors
    /// When it is not UTF-8, the pattern fails on it, or the distinct pretokens exceed the limit.
    pub fn add(&mut self, text: &[u8]) -> Result<()> {
        let text = str::from_utf8(text)
            .map_err(|error| EncodeError::InvalidUtf8 { byte: error.valid_up_to() }.at("text"))?;
        match &mut self.splitter {
            Splitter::Family(splitter) => {
                let mut at = 0;
                while at < text.len() {
                    let mut starts = Starts::new(&mut self.starts);
                    let next = splitter.fill(text, at, &mut starts);
                    let count = starts.len();
                    let bounds = self.starts[..count].iter().map(|&start| at + start as usize);
                    let ends = bounds.clone().skip(1).chain([next]);
                    bounds.zip(ends).for_each(|(start, end)| self.table.add(&text.as_bytes()[start..end], 1));
                    at = next;
                }
            }
            Splitter::Regex(splitter) => {
                let pieces =
                    splitter.split(text).map_err(|reason| EncodeError::Split { reason }.at("text"))?;
                pieces.iter().for_each(|piece| self.table.add(&text.as_bytes()[piece.clone()], 1));
            }
        }
        self.num_text_bytes += text.len() as u64;
        self.check()
    }

    /// Adds what another counted.
    ///
    /// # Errors
    /// When the distinct pretokens exceed the limit.
    pub fn absorb(&mut self, other: Self) -> Result<()> {
        other.table.counts.iter().for_each(|(pretoken, &count)| self.table.add(pretoken, count));
        self.num_text_bytes += other.num_text_bytes;
        self.check()
    }

    fn check(&self) -> Result<()> {
        let (bytes, limit) = (self.table.num_bytes, self.limit_bytes);
        if bytes <= limit {
            return Ok(());
        }
        Err(Error::Resource {
            what: "memory",
            reason: format!(
                "{} distinct pretokens of {} bytes of text take {bytes} bytes, more than the limit of {limit}; \
                 train on less text (max_bytes=) or allow more (memory_limit_bytes=)",
                self.len(),
                self.num_text_bytes
            ),
        })
    }

    /// Bytes of text counted.
    pub fn num_text_bytes(&self) -> u64 {
        self.num_text_bytes
    }

    /// Distinct pretokens.
    pub fn len(&self) -> usize {
        self.table.counts.len()
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.table.counts.is_empty()
    }

    /// All pretokens with their counts, in the order of their bytes.
    pub(super) fn sorted(self) -> Vec<(Box<[u8]>, u64)> {
        let mut counts: Vec<_> = self.table.counts.into_iter().collect();
        counts.sort_unstable();
        counts
    }
}
