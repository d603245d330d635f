//! Documents → tokens for one step: giants in parts, so that a thread can be stopped in the middle of one.
//!
//! ```text
//! documents   [a][b][ g i a n t ........ ][c]        encode [a b], [giant's parts one by one], [c]
//! tokens      a a a b g g g g | g g g | g g c c      borders of the giant between its parts
//! ```
//! The borders go with the tokens: a state that is taken in the middle of a giant names the last one, and a restored
//! loader tokenizes from there.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::account::Refused;
use crate::ragged::{Border, DocumentBatch, TokenBatch};
use crate::tokenizer::{DocumentEncoder, DocumentError, Encoder};

/// From this size on a document is tokenized in parts: one takes some milliseconds.
const GIANT_BYTES: usize = 1 << 20;

/// Text of a part, about: what a restored loader tokenizes again of a giant, at most.
const PART_BYTES: usize = 256 << 10;

/// Of English and code with vocabularies of 50,000 and more.
const TYPICAL_BYTES_A_TOKEN: usize = 4;

/// Tokens that a conversation may have beside one a byte: its roles and ends.
const FRAME_TOKENS: usize = 64;

/// What became of the documents.
#[derive(Debug)]
pub(crate) enum Encoded {
    /// Every one is appended.
    All,
    /// `stopping` was set meanwhile, and the tokens are of no use.
    Stopped,
    /// There is no memory for the tokens.
    Refused(Refused),
}

/// Why it is not all.
enum Halt {
    Stopped,
    Refused(Refused),
    Failed(DocumentError),
}

impl From<Refused> for Halt {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<DocumentError> for Halt {
    fn from(error: DocumentError) -> Self {
        Self::Failed(error)
    }
}

/// Tokens that there has to be room for before documents are encoded: one a byte, and of giants as many as they usually
/// have; more is charged as they turn out to have more.
pub(crate) fn room(documents: &DocumentBatch, encoder: &DocumentEncoder) -> usize {
    match encoder {
        DocumentEncoder::Conversations(_) => documents.num_bytes() + documents.len() * FRAME_TOKENS,
        DocumentEncoder::Texts(_) => documents.iter().map(|text| most_tokens(text.len())).sum(),
    }
}

fn most_tokens(num_bytes: usize) -> usize {
    if num_bytes < GIANT_BYTES { num_bytes } else { num_bytes / TYPICAL_BYTES_A_TOKEN + PART_BYTES }
}

/// Appends every document. `is_rest` tells which documents are the rest of one: it is tokenized in the parts that it had
/// within the whole. Memory is charged before it is filled, for a token a byte.
pub(crate) fn encode(
    documents: &DocumentBatch,
    is_rest: impl Fn(usize) -> bool,
    encoder: &mut DocumentEncoder,
    tokens: &mut TokenBatch,
    stopping: &AtomicBool,
) -> Result<Encoded, DocumentError> {
    match encode_all(documents, is_rest, encoder, tokens, stopping) {
        Ok(()) if stopping.load(Ordering::Relaxed) => Ok(Encoded::Stopped),
        Ok(()) => Ok(Encoded::All),
        Err(Halt::Stopped) => Ok(Encoded::Stopped),
        Err(Halt::Refused(refused)) => Ok(Encoded::Refused(refused)),
        Err(Halt::Failed(error)) => Err(error),
    }
}

fn encode_all(
    documents: &DocumentBatch,
    is_rest: impl Fn(usize) -> bool,
    encoder: &mut DocumentEncoder,
    tokens: &mut TokenBatch,
    stopping: &AtomicBool,
) -> Result<(), Halt> {
    let encoder = match encoder {
        DocumentEncoder::Texts(encoder) => encoder,
        DocumentEncoder::Conversations(encoder) => {
            tokens.cover(documents.num_bytes() + documents.len() * FRAME_TOKENS, 0)?;
            return Ok(encoder.encode_batch(documents, tokens)?);
        }
    };
    let is_giant = |&index: &usize| documents.document(index).len() >= GIANT_BYTES || is_rest(index);
    let mut from = 0;
    let num_documents = documents.len();
    for giant in (0..num_documents).filter(is_giant) {
        encode_small(documents, from..giant, encoder, tokens)?;
        from = giant + 1;
        encode_giant(documents.document(giant), giant, encoder, tokens, stopping)?;
    }
    if from == 0 {
        tokens.cover(documents.num_bytes(), 0)?;
        encoder.encode_batch(documents, tokens)?;
    } else {
        encode_small(documents, from..num_documents, encoder, tokens)?;
    }
    Ok(())
}

fn encode_small(
    documents: &DocumentBatch,
    range: std::ops::Range<usize>,
    encoder: &mut Encoder,
    tokens: &mut TokenBatch,
) -> Result<(), Halt> {
    let (first, documents) = (range.start, documents.slice(range));
    tokens.cover(documents.num_bytes(), 0)?;
    let encoded = encoder.encode_batch(&documents, tokens);
    Ok(encoded.map_err(|failed| DocumentError { document: first + failed.document, ..failed })?)
}

fn encode_giant(
    text: &[u8],
    document: usize,
    encoder: &mut Encoder,
    tokens: &mut TokenBatch,
    stopping: &AtomicBool,
) -> Result<(), Halt> {
    // What is no UTF-8 is refused as a whole, with the place of its first bad byte.
    let cuts = str::from_utf8(text).map_or_else(|_| Vec::new(), |text| encoder.cuts(text, PART_BYTES));
    let first = tokens.num_tokens();
    let (mut begin, mut borders) = (0, Vec::with_capacity(cuts.len()));
    for end in cuts.into_iter().chain([text.len()]) {
        if begin > 0 {
            borders.push(Border { byte: begin as u64, token: tokens.num_tokens() - first });
        }
        let part = &text[begin..end];
        tokens.reserve(part.len(), expected(tokens.num_tokens() - first, begin, text.len()) + part.len())?;
        encoder
            .encode(part, tokens.values_mut())
            .map_err(|error| Halt::Failed(DocumentError { document, error }))?;
        // Relaxed: the flag is all that is said.
        if stopping.load(Ordering::Relaxed) {
            return Err(Halt::Stopped);
        }
        begin = end;
    }
    tokens.end_document();
    tokens.set_borders(borders);
    Ok(())
}

/// Tokens that the rest of a document will have, by its beginning: so that memory grows a few times and not by doubling.
fn expected(num_tokens: usize, num_bytes: usize, all_bytes: usize) -> usize {
    let left = (all_bytes - num_bytes) as u128;
    match num_bytes {
        0 => all_bytes / TYPICAL_BYTES_A_TOKEN,
        done => (num_tokens as u128 * left / done as u128 * 33 / 32) as usize,
    }
}
