//! Documents → tokens for one step: giants in parts, so that a thread can be stopped in the middle of one.
//!
//! ```text
//! documents   [a][b][ g i a n t ........ ][c]        encode [a b], [giant's parts one by one], [c]
//! tokens      a a a b g g g g | g g g | g g c c      borders of the giant between its parts
//! ```
//! The borders go with the tokens: a state that is taken in the middle of a giant names the last one, and a restored
//! loader tokenizes from there.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::ragged::{Border, DocumentBatch, TokenBatch};
use crate::tokenizer::{DocumentEncoder, DocumentError, EncodeError, Encoder};

/// From this size on a document is tokenized in parts: one takes some milliseconds.
const GIANT_BYTES: usize = 1 << 20;

/// Text of a part, about: what a restored loader tokenizes again of a giant, at most.
const PART_BYTES: usize = 256 << 10;

/// Appends every document; false when `stopping` was set meanwhile, and the tokens are of no use. `is_rest` tells which
/// documents are the rest of one: it is tokenized in the parts that it had within the whole.
pub(crate) fn encode(
    documents: &DocumentBatch,
    is_rest: impl Fn(usize) -> bool,
    encoder: &mut DocumentEncoder,
    tokens: &mut TokenBatch,
    stopping: &AtomicBool,
) -> Result<bool, DocumentError> {
    // Relaxed: the flag is all that is said.
    let goes_on = || !stopping.load(Ordering::Relaxed);
    let encoder = match encoder {
        DocumentEncoder::Texts(encoder) => encoder,
        DocumentEncoder::Conversations(encoder) => {
            return encoder.encode_batch(documents, tokens).map(|()| goes_on());
        }
    };
    let is_giant = |&index: &usize| documents.document(index).len() >= GIANT_BYTES || is_rest(index);
    let mut from = 0;
    let num_documents = documents.len();
    for giant in (0..num_documents).filter(is_giant) {
        encode_small(documents, from..giant, encoder, tokens)?;
        from = giant + 1;
        if !encode_giant(documents.document(giant), encoder, tokens, stopping)
            .map_err(|error| DocumentError { document: giant, error })?
        {
            return Ok(false);
        }
    }
    if from == 0 {
        encoder.encode_batch(documents, tokens)?;
    } else {
        encode_small(documents, from..num_documents, encoder, tokens)?;
    }
    Ok(goes_on())
}

fn encode_small(
    documents: &DocumentBatch,
    range: std::ops::Range<usize>,
    encoder: &mut Encoder,
    tokens: &mut TokenBatch,
) -> Result<(), DocumentError> {
    let first = range.start;
    let encoded = encoder.encode_batch(&documents.slice(range), tokens);
    encoded.map_err(|failed| DocumentError { document: first + failed.document, ..failed })
}

fn encode_giant(
    text: &[u8],
    encoder: &mut Encoder,
    tokens: &mut TokenBatch,
    stopping: &AtomicBool,
) -> Result<bool, EncodeError> {
    // What is no UTF-8 is refused as a whole, with the place of its first bad byte.
    let cuts = str::from_utf8(text).map_or_else(|_| Vec::new(), |text| encoder.cuts(text, PART_BYTES));
    let first = tokens.values_mut().len();
    let (mut begin, mut borders) = (0, Vec::with_capacity(cuts.len()));
    for end in cuts.into_iter().chain([text.len()]) {
        if begin > 0 {
            borders.push(Border { byte: begin as u64, token: tokens.values_mut().len() - first });
        }
        encoder.encode(&text[begin..end], tokens.values_mut())?;
        if stopping.load(Ordering::Relaxed) {
            return Ok(false);
        }
        begin = end;
    }
    tokens.end_document();
    tokens.set_borders(borders);
    Ok(true)
}
