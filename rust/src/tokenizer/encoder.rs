//! Text → ids, one encoder per thread: it owns the buffers and caches, and shares the tables.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::Tables;
use super::bpe::heap::HeapMerger;
use super::pretokenize::RegexSplitter;
use crate::ragged::{DocumentBatch, TokenBatch};

/// Encodes documents of one tokenizer, one at a time.
#[derive(Debug)]
pub struct Encoder {
    tables: Arc<Tables>,
    splitter: RegexSplitter,
    merger: HeapMerger,
}

/// Why a text has no ids.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncodeError {
    /// It is not UTF-8.
    InvalidUtf8 {
        /// Byte offset of the first bad byte.
        byte: usize,
    },
    /// The split pattern's engine gave up on it.
    Split {
        /// What the engine said.
        reason: String,
    },
    /// A library panicked on it.
    Panic {
        /// The panic's message.
        reason: String,
    },
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidUtf8 { byte } => write!(f, "invalid UTF-8 at byte {byte}"),
            Self::Split { reason } => f.write_str(reason),
            Self::Panic { reason } => write!(f, "the encoder panicked: {reason}"),
        }
    }
}

impl std::error::Error for EncodeError {}

/// Why a batch has no ids from document `document` on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentError {
    /// Index of the document in its batch.
    pub document: usize,
    /// What is wrong with it.
    pub error: EncodeError,
}

impl fmt::Display for DocumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "document {}: {}", self.document, self.error)
    }
}

impl std::error::Error for DocumentError {}

impl Encoder {
    pub(super) fn new(tables: Arc<Tables>) -> Self {
        let splitter = tables.splitter.clone();
        Self { tables, splitter, merger: HeapMerger::default() }
    }

    /// Appends the ids of one document to `out`; special tokens' texts are plain text.
    ///
    /// # Errors
    /// When `text` is not UTF-8, or its split pattern fails on it; `out` is then as it was.
    pub fn encode(&mut self, text: &[u8], out: &mut Vec<u32>) -> Result<(), EncodeError> {
        match simdutf8::basic::from_utf8(text) {
            Ok(text) => self.encode_str(text, out),
            Err(_) => Err(EncodeError::InvalidUtf8 { byte: first_bad_byte(text) }),
        }
    }

    /// As [`encode`](Self::encode), for text that is known to be UTF-8.
    ///
    /// # Errors
    /// When the split pattern fails on the text; `out` is then as it was.
    pub fn encode_str(&mut self, text: &str, out: &mut Vec<u32>) -> Result<(), EncodeError> {
        let before = out.len();
        let result = catch_unwind(AssertUnwindSafe(|| self.encode_pieces(text, out)));
        let result = result.unwrap_or_else(|panic| Err(EncodeError::Panic { reason: message(&*panic) }));
        if result.is_err() {
            out.truncate(before);
        }
        result
    }

    /// Appends each document of `documents` to `out`.
    ///
    /// # Errors
    /// The first document that cannot be encoded; `out` then holds those before it.
    pub fn encode_batch(
        &mut self,
        documents: &DocumentBatch,
        out: &mut TokenBatch,
    ) -> Result<(), DocumentError> {
        for (document, text) in documents.iter().enumerate() {
            self.encode(text, out.values_mut()).map_err(|error| DocumentError { document, error })?;
            out.end_document();
        }
        Ok(())
    }

    fn encode_pieces(&mut self, text: &str, out: &mut Vec<u32>) -> Result<(), EncodeError> {
        let tables = &*self.tables;
        let pieces = self.splitter.split(text).map_err(|reason| EncodeError::Split { reason })?;
        for piece in pieces {
            let pretoken = &text.as_bytes()[piece.clone()];
            match tables.whole_id(pretoken) {
                Some(id) => out.push(id),
                None => self.merger.merge(&tables.pairs, pretoken, out),
            }
        }
        Ok(())
    }
}

fn first_bad_byte(text: &[u8]) -> usize {
    str::from_utf8(text).map_or_else(|error| error.valid_up_to(), |_| text.len())
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}
