//! What a reader found → a piece: the tokens of its documents, and the list of what is left out.
//!
//! ```text
//! rows      40     41        42     43..51                    41: no UTF-8, 43..51: a page that cannot be decoded
//! piece     [7 9]            [3 3]  left out: 41, 43..51
//! ```
//! The smallest part that is bad is left out: a document, a page's rows, or the rest of a row group. All else keeps its
//! place, since places are counted by rows.

use std::collections::HashSet;
use std::sync::Arc;

use crate::account::{Charge, Refused};
use crate::config::BadData;
use crate::error::{Error, Place, Result};
use crate::feed::{STEP_BYTES, Wanted};
use crate::giants::{Encoded, OtherThreads, encode, room};
use crate::packing::Document;
use crate::plan::Unit;
use crate::pool::Pool;
use crate::quarantine::Quarantined;
use crate::ragged::{DocumentBatch, TokenBatch};
use crate::row_groups::{BrokenRows, Found};
use crate::source::Shard;
use crate::state::Address;
use crate::tokenizer::{DocumentEncoder, EncodeError};

/// Some documents of a unit, tokenized.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) source: u32,
    /// The unit, as an ordinal of the lane.
    pub(crate) ordinal: u64,
    /// See `Document::group`.
    pub(crate) group: u64,
    /// Row of each document.
    pub(crate) rows: Vec<u64>,
    /// Bytes of text of each document.
    pub(crate) num_bytes: Vec<u64>,
    /// Their tokens.
    pub(crate) tokens: Arc<TokenBatch>,
    /// Rows among and behind them that are left out, in order.
    pub(crate) left_out: Vec<Quarantined>,
}

impl Piece {
    /// Its `index`-th document.
    pub(crate) fn document(&self, index: usize) -> Document {
        Document {
            address: Address { source: self.source, ordinal: self.ordinal, row: self.rows[index] },
            group: self.group,
            num_bytes: self.num_bytes[index],
            tokens: self.tokens.clone(),
            index,
        }
    }
}

/// Documents to be tokenized.
#[derive(Debug)]
pub(crate) struct Picked {
    rows: Vec<u64>,
    /// Where each begins in its text; empty: all at their beginning.
    begins: Vec<u64>,
    documents: DocumentBatch,
}

/// What was found, with room for what is to be made of it.
#[derive(Debug)]
pub(crate) enum Prepared {
    /// Documents, and where their tokens go.
    Documents(Picked, TokenBatch),
    /// Rows that are left out.
    Piece(Piece),
}

impl Picked {
    /// Takes out all rows but those that `is_kept`.
    fn retain(&mut self, is_kept: impl Fn(u64) -> bool) {
        let kept: Vec<usize> = (0..self.rows.len()).filter(|&index| is_kept(self.rows[index])).collect();
        if kept.len() < self.rows.len() {
            self.documents = self.documents.select(kept.iter().copied());
            self.rows.retain(|&row| is_kept(row));
        }
    }
}

/// Shard, row group, row.
pub(crate) type DocumentPlace = (usize, usize, u64);

/// Makes the pieces of one unit.
pub(crate) struct PieceMaker<'a> {
    pub(crate) source: u32,
    pub(crate) unit: Unit,
    /// The unit, as an ordinal of the lane.
    pub(crate) ordinal: u64,
    /// See `Document::group`.
    pub(crate) group: u64,
    /// Rows that are needed, ascending; `None`: all.
    pub(crate) wanted: Option<Arc<Vec<Wanted>>>,
    /// Whether these are documents that a restored packer holds: they were admitted, whatever is left out since.
    pub(crate) is_restoring: bool,
    pub(crate) bad_data: BadData,
    pub(crate) excluded: &'a HashSet<DocumentPlace>,
    pub(crate) shard: &'a Shard,
    /// Whether pieces stay for long: until all documents of a window were taken.
    pub(crate) is_kept: bool,
}

/// Bytes of a document in a piece beside its tokens: where they end, its row, its size, and its place in a window.
const DOCUMENT_BYTES: usize = 56;

/// Room for the tokens of a usual step, a token a byte, and of its documents.
pub(crate) const TOKENS_BYTES: usize = 4 * STEP_BYTES + 1024 * DOCUMENT_BYTES;

impl PieceMaker<'_> {
    /// Room for what is to be made of `found`: vectors of `pool`, with `charge` of what is charged for them already.
    ///
    /// # Errors
    /// Rows that cannot be decoded, unless they are to be left out; memory that is refused.
    pub(crate) fn prepare(
        &self,
        found: Found,
        encoder: &DocumentEncoder,
        pool: &Arc<Pool<u32>>,
        charge: Charge,
    ) -> Result<Prepared> {
        let (first_row, documents) = match found {
            Found::Broken(broken) => return self.broken(broken).map(Prepared::Piece),
            Found::Documents(first_row, documents) => (first_row, documents),
        };
        let mut picked = self.pick(first_row, documents)?;
        if !(self.excluded.is_empty() || self.is_restoring) {
            picked.retain(|row| !self.excluded.contains(&(self.unit.shard, self.unit.row_group, row)));
        }
        // Exact for English: what is read ahead is mostly that, and no vector grows.
        let expected = picked.documents.num_bytes().min(STEP_BYTES) * 3 / 8;
        let tokens = TokenBatch::pooled(pool, expected, charge).and_then(|mut tokens| {
            let covered = tokens.cover(room(&picked.documents, encoder), picked.rows.len() * DOCUMENT_BYTES);
            // A giant may turn out to have twice as many as is usual.
            covered.map_err(|refused| refused.followed_by(picked.documents.num_bytes()))?;
            Ok(tokens)
        });
        let tokens = tokens.map_err(|refused| self.refused(refused, &picked.rows))?;
        Ok(Prepared::Documents(picked, tokens))
    }

    /// The piece of what was prepared; `None` when all are to end.
    ///
    /// # Errors
    /// Bad data, unless it is to be left out; memory that is refused.
    pub(crate) fn make(
        &self,
        prepared: Prepared,
        encoder: &mut DocumentEncoder,
        others: &OtherThreads<'_>,
    ) -> Result<Option<Piece>> {
        let (mut picked, mut tokens) = match prepared {
            Prepared::Piece(piece) => return Ok(Some(piece)),
            Prepared::Documents(picked, tokens) => (picked, tokens),
        };
        let left_out = self.tokenize(&mut picked, encoder, &mut tokens, others)?;
        let settled = tokens.settle(DOCUMENT_BYTES, self.is_kept);
        settled.map_err(|refused| self.refused(refused, &picked.rows))?;
        Ok(left_out.map(|left_out| {
            let num_bytes = picked.documents.iter().map(|document| document.len() as u64).collect();
            let (rows, tokens) = (picked.rows, Arc::new(tokens));
            Piece { rows, num_bytes, tokens, left_out, ..self.empty() }
        }))
    }

    fn broken(&self, broken: BrokenRows) -> Result<Piece> {
        let BrokenRows { rows, reason, error } = broken;
        let is_wanted =
            self.wanted.as_ref().is_none_or(|wanted| wanted.iter().any(|wanted| rows.contains(&wanted.row)));
        if is_wanted && !self.bad_data.quarantine {
            return Err(error);
        }
        let left_out = is_wanted.then(|| self.left_out(rows.start, rows.end, reason)).into_iter().collect();
        Ok(Piece { left_out, ..self.empty() })
    }

    /// Of documents from `first_row` on those that are wanted, from where they are wanted.
    fn pick(&self, first_row: u64, documents: DocumentBatch) -> Result<Picked> {
        let end_row = first_row + documents.len() as u64;
        let Some(wanted) = &self.wanted else {
            return Ok(Picked { rows: (first_row..end_row).collect(), begins: Vec::new(), documents });
        };
        let place_of = |row| wanted.partition_point(|wanted| wanted.row < row);
        let wanted = &wanted[place_of(first_row)..place_of(end_row)];
        let mut picked = documents.select(wanted.iter().map(|wanted| (wanted.row - first_row) as usize));
        for (index, wanted) in wanted.iter().enumerate().filter(|(_, wanted)| wanted.byte_offset > 0) {
            let length = picked.document(index).len();
            picked = picked.begun_at(index, wanted.byte_offset).ok_or_else(|| {
                let place = Place::row(self.shard.path(), self.unit.row_group, wanted.row);
                let byte = wanted.byte_offset;
                let reason =
                    format!("a document of {length} bytes is to be continued at byte {byte}: {place}");
                Error::State { reason }
            })?;
        }
        Ok(Picked {
            rows: wanted.iter().map(|wanted| wanted.row).collect(),
            begins: wanted.iter().map(|wanted| wanted.byte_offset).collect(),
            documents: picked,
        })
    }

    /// Appends the tokens of every document that has any, and takes the others out; `None` when all are to end.
    fn tokenize(
        &self,
        picked: &mut Picked,
        encoder: &mut DocumentEncoder,
        tokens: &mut TokenBatch,
        others: &OtherThreads<'_>,
    ) -> Result<Option<Vec<Quarantined>>> {
        let Picked { rows, begins, documents } = picked;
        let (mut is_bad, mut left_out, mut done) = (vec![false; documents.len()], Vec::new(), 0);
        loop {
            let is_rest = |index: usize| begins.get(done + index).is_some_and(|&byte| byte > 0);
            let rest = documents.slice(done..documents.len());
            let failed = match encode(&rest, is_rest, encoder, tokens, others) {
                Ok(Encoded::All) => break,
                Ok(Encoded::Stopped) => return Ok(None),
                Ok(Encoded::Refused(refused)) => return Err(self.refused(refused, rows)),
                Err(failed) => failed,
            };
            tokens.discard_unended();
            let index = done + failed.document;
            done = index + 1;
            match failed.error {
                EncodeError::InvalidUtf8 { .. } if self.bad_data.replace_invalid_utf8 => {
                    // U+FFFD takes three bytes, and the text is made twice.
                    let most = 3 * documents.document(index).len();
                    let charged = tokens.account().map(|account| account.charge(2 * most)).transpose();
                    let refused = |refused| self.refused(refused, rows);
                    let _charge = charged.map_err(refused)?;
                    tokens.cover(most, 0).map_err(refused)?;
                    let text = String::from_utf8_lossy(documents.document(index));
                    let replaced = DocumentBatch::from_texts([text.as_bytes()]);
                    let encoded = encoder.encode_batch(&replaced, tokens);
                    encoded.map_err(|failed| self.error(rows[index], failed.error))?;
                }
                error @ EncodeError::Panic { .. } => return Err(self.error(rows[index], error)),
                error if self.bad_data.quarantine => {
                    is_bad[index] = true;
                    left_out.push(self.left_out(rows[index], rows[index] + 1, error.to_string()));
                }
                error => return Err(self.error(rows[index], error)),
            }
        }
        if !left_out.is_empty() {
            *documents = documents.select((0..documents.len()).filter(|&index| !is_bad[index]));
            let mut is_bad = is_bad.into_iter();
            rows.retain(|_| is_bad.next() == Some(false));
        }
        Ok(Some(left_out))
    }

    fn refused(&self, refused: Refused, rows: &[u64]) -> Error {
        let row = rows.first().copied().unwrap_or(self.unit.start);
        refused.at(Place::row(self.shard.path(), self.unit.row_group, row))
    }

    fn empty(&self) -> Piece {
        let (rows, num_bytes, left_out) = (Vec::new(), Vec::new(), Vec::new());
        let (source, ordinal, group) = (self.source, self.ordinal, self.group);
        Piece { source, ordinal, group, rows, num_bytes, tokens: Arc::default(), left_out }
    }

    fn left_out(&self, start: u64, end: u64, reason: String) -> Quarantined {
        let Unit { shard, row_group, .. } = self.unit;
        Quarantined { shard, row_group, start, end, reason }
    }

    fn error(&self, row: u64, error: EncodeError) -> Error {
        let place = Place::row(self.shard.path(), self.unit.row_group, row);
        match error {
            EncodeError::InvalidUtf8 { byte } => Error::InvalidUtf8 { place, byte },
            EncodeError::Conversation { message, reason } => Error::Conversation { place, message, reason },
            other => Error::Tokenize { place, reason: other.to_string() },
        }
    }
}
