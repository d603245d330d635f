//! Where in a text its tokens are.
//!
//! A token of a part that normalization changed stands for whole characters of the text; the tokens of one such character
//! share its span. All others have spans to the byte, one after the other.

use std::ops::Range;

use super::Tokenizer;
use super::encode_error::EncodeError;
use super::encoder::Splitter;
use super::rewrite::{Rewriter, Stretch};

impl Tokenizer {
    /// The bytes of `text` that each of its `ids` stands for, where `rewriter` (see [`allow`](Self::allow)) was used to encode
    /// it, or none was.
    ///
    /// # Errors
    /// When the split pattern drops text and fails on this one.
    pub fn spans(
        &self,
        rewriter: Option<&Rewriter>,
        text: &str,
        ids: &[u32],
    ) -> Result<Vec<Range<usize>>, EncodeError> {
        let stretches = match rewriter.or(self.tables.rewriter.as_ref()) {
            Some(rewriter) => rewriter.stretches(text),
            None => vec![Stretch::Same(0..text.len())],
        };
        let stretches = self.without_gaps(text, stretches)?;
        let mut walk = Walk { stretches: stretches.into_iter(), current: Stretch::Same(0..0) };
        Ok(ids.iter().map(|&id| walk.token(self.token_bytes(id).map_or(0, <[u8]>::len))).collect())
    }

    /// The stretches without the text that the pattern matches nowhere and drops.
    fn without_gaps(&self, text: &str, stretches: Vec<Stretch>) -> Result<Vec<Stretch>, EncodeError> {
        let keeps_gaps = self.definition().pattern.stages.iter().all(|stage| stage.keep_gaps);
        let Splitter::Regex(splitter) = &self.tables.splitter else { return Ok(stretches) };
        if keeps_gaps {
            return Ok(stretches);
        }
        let (mut splitter, mut kept) = (splitter.clone(), Vec::new());
        for stretch in stretches {
            let range = match stretch {
                Stretch::Same(range) => range,
                Stretch::Special(_) => {
                    kept.push(stretch);
                    continue;
                }
                Stretch::Composed(..) => {
                    let reason =
                        "normalized text has no offsets under a split pattern that drops text".into();
                    return Err(EncodeError::Split { reason });
                }
            };
            let pieces =
                splitter.split(&text[range.clone()]).map_err(|reason| EncodeError::Split { reason })?;
            let moved = |piece: &Range<usize>| range.start + piece.start..range.start + piece.end;
            kept.extend(pieces.iter().map(|piece| Stretch::Same(moved(piece))));
        }
        Ok(kept)
    }
}

struct Walk {
    stretches: std::vec::IntoIter<Stretch>,
    /// What is left of the stretch that the last token ended in.
    current: Stretch,
}

impl Walk {
    /// The span of the next token, which has `length` bytes.
    fn token(&mut self, length: usize) -> Range<usize> {
        let (mut left, mut start) = (length, None);
        loop {
            match &mut self.current {
                Stretch::Same(range) if range.start == range.end => {}
                Stretch::Composed(0, _) => {}
                Stretch::Special(range) => {
                    let span = range.clone();
                    self.current = Stretch::Same(0..0);
                    return span;
                }
                Stretch::Same(range) => {
                    let taken = left.min(range.len());
                    let first = *start.get_or_insert(range.start);
                    (range.start, left) = (range.start + taken, left - taken);
                    if left == 0 {
                        return first..range.start;
                    }
                }
                Stretch::Composed(bytes, range) => {
                    let taken = left.min(*bytes);
                    let first = *start.get_or_insert(range.start);
                    (*bytes, left) = (*bytes - taken, left - taken);
                    if left == 0 {
                        return first..range.end;
                    }
                }
            }
            match self.stretches.next() {
                Some(next) => self.current = next,
                // Not reached with the ids of the text itself.
                None => return start.map_or(0..0, |first| first..first),
            }
        }
    }
}
