//! Documents → tokens for one step: giants in parts, so that several threads work on one, and each can be stopped in the
//! middle of it.
//!
//! ```text
//! documents   [a][b][ g i a n t ........ ][c]        encode [a b], [giant's parts one by one], [c]
//! tokens      a a a b g g g g | g g g | g g c c      borders of the giant between its parts
//! ```
//! The borders go with the tokens: a state that is taken in the middle of a giant names the last one, and a restored
//! loader tokenizes from there.

mod parts;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parts::Next;
pub(crate) use parts::Parts;

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

/// The other threads.
pub(crate) struct OtherThreads<'a> {
    /// Shows them the parts of a giant, which they may help with.
    pub(crate) offer: &'a dyn Fn(&Arc<Parts>),
    /// Tells them that there may be one more to help with.
    pub(crate) came_on: &'a dyn Fn(),
    /// All are to end.
    pub(crate) stopping: &'a AtomicBool,
}

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
        DocumentEncoder::Conversations(_) => most_tokens_of_conversations(documents),
        DocumentEncoder::Texts(_) => documents.iter().map(|text| most_tokens(text.len())).sum(),
    }
}

fn most_tokens_of_conversations(documents: &DocumentBatch) -> usize {
    documents.num_bytes() + documents.len() * FRAME_TOKENS
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
    others: &OtherThreads<'_>,
) -> Result<Encoded, DocumentError> {
    match encode_all(documents, is_rest, encoder, tokens, others) {
        Ok(()) if others.stopping.load(Ordering::Relaxed) => Ok(Encoded::Stopped),
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
    others: &OtherThreads<'_>,
) -> Result<(), Halt> {
    let encoder = match encoder {
        DocumentEncoder::Texts(encoder) => encoder,
        DocumentEncoder::Conversations(encoder) => {
            tokens.cover(most_tokens_of_conversations(documents), 0)?;
            return Ok(encoder.encode_batch(documents, tokens)?);
        }
    };
    let is_giant = |&index: &usize| documents.document(index).len() >= GIANT_BYTES || is_rest(index);
    let mut from = 0;
    let num_documents = documents.len();
    for giant in (0..num_documents).filter(is_giant) {
        encode_small(documents, from..giant, encoder, tokens)?;
        from = giant + 1;
        encode_giant(documents, giant, encoder, tokens, others)?;
    }
    encode_small(documents, from..num_documents, encoder, tokens)
}

fn encode_small(
    documents: &DocumentBatch,
    range: std::ops::Range<usize>,
    encoder: &mut Encoder,
    tokens: &mut TokenBatch,
) -> Result<(), Halt> {
    let first = range.start;
    tokens.cover(range.clone().map(|index| documents.document(index).len()).sum(), 0)?;
    let encoded = encoder.encode_range(documents, range, tokens);
    Ok(encoded.map_err(|failed| DocumentError { document: first + failed.document, ..failed })?)
}

fn encode_giant(
    documents: &DocumentBatch,
    document: usize,
    encoder: &mut Encoder,
    tokens: &mut TokenBatch,
    others: &OtherThreads<'_>,
) -> Result<(), Halt> {
    let text = documents.document(document);
    // What is no UTF-8 is refused as a whole, with the place of its first bad byte.
    let cuts = str::from_utf8(text).map_or_else(|_| Vec::new(), |text| encoder.cuts(text, PART_BYTES));
    let (first, mut borders) = (tokens.num_tokens(), Vec::with_capacity(cuts.len()));
    let ends = cuts.into_iter().chain([text.len()]).collect();
    let parts = Offered(Arc::new(Parts::new(documents, document, ends, tokens.account().cloned())));
    (others.offer)(&parts.0);
    while let Some(next) = parts.0.next(encoder) {
        let (Next::Encode(range) | Next::Append(range, ..)) = &next;
        let num_tokens = tokens.num_tokens() - first;
        if range.start > 0 {
            borders.push(Border { byte: range.start as u64, token: num_tokens });
        }
        let left = expected(num_tokens, range.start, text.len());
        match next {
            Next::Encode(range) => {
                let part = &text[range];
                tokens.reserve(part.len(), left + part.len())?;
                let encoded = encoder.encode(part, tokens.values_mut());
                encoded.map_err(|error| Halt::Failed(DocumentError { document, error }))?;
            }
            Next::Append(_, part, _charge) => {
                tokens.reserve(part.len(), left + part.len())?;
                tokens.values_mut().extend_from_slice(&part);
            }
        }
        // Relaxed: the flag is all that is said.
        if others.stopping.load(Ordering::Relaxed) {
            return Err(Halt::Stopped);
        }
        parts.0.appended();
        (others.came_on)();
    }
    tokens.end_document();
    tokens.set_borders(borders);
    Ok(())
}

/// Parts that are taken back when their owner ends.
struct Offered(Arc<Parts>);

impl Drop for Offered {
    fn drop(&mut self) {
        self.0.withdraw();
    }
}

/// Tokens that the rest of a document will have, by its beginning: so that memory grows a few times and not by doubling.
fn expected(num_tokens: usize, num_bytes: usize, all_bytes: usize) -> usize {
    let left = (all_bytes - num_bytes) as u128;
    match num_bytes {
        0 => all_bytes / TYPICAL_BYTES_A_TOKEN,
        done => (num_tokens as u128 * left / done as u128 * 33 / 32) as usize,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::Account;
    use crate::pool::Pool;
    use crate::tokenizer::{Encoding, Tokenizer};

    /// Some 5 MB: 20 parts.
    fn giant() -> String {
        (0..400_000_u64).map(|number| format!("{} words, ", number * number % 99_991)).collect()
    }

    /// The tokens of a giant among others and its borders, encoded by one who shows its parts to `offer`.
    fn encoded(
        tokenizer: &Tokenizer,
        account: &Arc<Account>,
        offer: &dyn Fn(&Arc<Parts>),
    ) -> (Vec<u32>, Vec<Border>) {
        let documents = DocumentBatch::from_texts(["before", &giant(), "behind"]);
        let mut encoder = Encoding::Texts(tokenizer.clone()).encoder(0);
        let mut tokens = TokenBatch::pooled(&Pool::within(account), 0, account.charge(0).unwrap()).unwrap();
        let others = OtherThreads { offer, came_on: &|| {}, stopping: &AtomicBool::new(false) };
        let all = encode(&documents, |_| false, &mut encoder, &mut tokens, &others);
        assert!(matches!(all, Ok(Encoded::All)));
        let borders = (0..tokens.document(1).len()).step_by(1000).map(|token| tokens.border(1, token));
        let borders = borders.collect();
        (tokens.into_parts().0, borders)
    }

    #[test]
    fn parts_that_others_encoded_are_the_same() {
        let tokenizer = Tokenizer::from_name("r50k_base").unwrap();
        let account = Account::unlimited();
        let alone = encoded(&tokenizer, &account, &|_| {});
        assert!(alone.1.len() > 1000 && alone.1.last().unwrap().byte > 4_000_000);
        let mut whole = Vec::new();
        tokenizer.encoder().encode(giant().as_bytes(), &mut whole).unwrap();
        assert_eq!(alone.0[1..=whole.len()], whole);
        let most_are_done_before = |parts: &Arc<Parts>| {
            let mut encoder = tokenizer.encoder();
            while parts.wants_help() {
                parts.help(&mut encoder);
            }
            assert_eq!(parts.num_ahead(), 16);
        };
        assert_eq!(encoded(&tokenizer, &account, &most_are_done_before), alone);
        std::thread::scope(|scope| {
            let by_threads = |parts: &Arc<Parts>| {
                for _ in 0..3 {
                    let (parts, tokenizer) = (parts.clone(), tokenizer.clone());
                    scope.spawn(move || {
                        let mut encoder = tokenizer.encoder_with(0);
                        while !parts.is_over() {
                            parts.help(&mut encoder);
                        }
                    });
                }
            };
            assert_eq!(encoded(&tokenizer, &account, &by_threads), alone);
        });
        assert_eq!(account.used(), 0, "all that was charged is given back");
    }

    #[test]
    fn parts_that_others_had_no_memory_for_are_encoded_by_the_owner() {
        let tokenizer = Tokenizer::from_name("r50k_base").unwrap();
        let alone = encoded(&tokenizer, &Account::unlimited(), &|_| {});
        let account = Account::new(40 << 20);
        let all_is_taken = |parts: &Arc<Parts>| {
            let _rest = account.charge(account.free()).unwrap();
            let mut encoder = tokenizer.encoder();
            while parts.wants_help() {
                parts.help(&mut encoder);
            }
            assert_eq!(parts.num_ahead(), 0);
        };
        assert_eq!(encoded(&tokenizer, &account, &all_is_taken), alone);
        assert_eq!(account.used(), 0);
    }
}
