//! Texts → ids for `Tokenizer`: one or many, on one thread or several, into memory of their own or of the caller's.

use std::ops::Range;

use pyo3::prelude::*;

use super::error::to_py;
use super::texts::{Invalid, Text};
use super::tokenizer::PyTokenizer;
use crate::error::Error;
use crate::pipeline::share_out;
use crate::ragged::{DocumentBatch, TokenBatch};
use crate::tokenizer::{DocumentError, EncodeError, Encoder, Rewriter, Tokenizer};

/// Text whose ids are made at once where they are copied: they are still near then.
const PART_BYTES: usize = 1 << 18;

/// How texts are taken.
pub(super) struct Options {
    pub(super) invalid: Invalid,
    /// Finds the special tokens that are asked for; none where no one is.
    pub(super) allowed: Option<Rewriter>,
}

impl Options {
    pub(super) fn new(
        tokenizer: &Tokenizer,
        allowed_special: &[String],
        replace_invalid: bool,
    ) -> PyResult<Self> {
        let contents: Vec<&str> = allowed_special.iter().map(String::as_str).collect();
        let allowed =
            (!contents.is_empty()).then(|| tokenizer.allow(&contents)).transpose().map_err(to_py)?;
        Ok(Self { invalid: Invalid::new(replace_invalid), allowed })
    }
}

impl PyTokenizer {
    pub(super) fn encode_all(
        &self,
        documents: &DocumentBatch,
        options: &Options,
        num_threads: usize,
    ) -> PyResult<(Vec<u32>, Vec<usize>)> {
        let encode = |range: Range<usize>| {
            let (mut out, first) = (TokenBatch::new(), range.start);
            self.with_encoder(|encoder, _| encode_range(encoder, options, documents, range, &mut out))
                .map_err(|error| failed(first, error))
                .map(|()| out)
        };
        if num_threads < 2 || documents.len() < 2 {
            return encode(0..documents.len()).map(TokenBatch::into_parts);
        }
        // Several parts a thread, since texts differ in length.
        let parts = parts(documents, documents.num_bytes() / (4 * num_threads) + 1);
        let encoded = share_out(num_threads, &parts, |part| encode(part.clone()));
        let (mut values, mut offsets) = (Vec::new(), vec![0]);
        for batch in encoded {
            let (more, ends) = batch?.into_parts();
            offsets.extend(ends[1..].iter().map(|end| end + values.len()));
            values.extend_from_slice(&more);
        }
        Ok((values, offsets))
    }

    /// Writes the ids of `documents` to the front of `out`, as far as they fit; returns where each document begins.
    pub(super) fn encode_all_to(
        &self,
        documents: &DocumentBatch,
        options: &Options,
        out: &mut [u32],
    ) -> PyResult<Vec<i64>> {
        let (mut offsets, mut written) = (vec![0], 0);
        self.with_encoder(|encoder, ids| {
            let mut part = TokenBatch::from_values(std::mem::take(ids));
            for range in parts(documents, PART_BYTES) {
                part.clear();
                let first = range.start;
                encode_range(encoder, options, documents, range, &mut part)
                    .map_err(|error| failed(first, error))?;
                if let Some(place) = out.get_mut(written..written + part.num_tokens()) {
                    place.copy_from_slice(part.values_mut());
                }
                offsets.extend(part.ends().iter().map(|end| (written + end) as i64));
                written += part.num_tokens();
            }
            *ids = part.into_parts().0;
            Ok(offsets)
        })
    }

    /// The ids of `text`, with which `work` may do as it likes before their memory is used again.
    pub(super) fn with_ids<R: Send>(
        &self,
        text: &Bound<'_, PyAny>,
        options: &Options,
        work: impl FnOnce(&str, &mut Vec<u32>) -> R + Send,
    ) -> PyResult<R> {
        let py = text.py();
        let text = Text::new(text, options.invalid, || "text".into())?;
        let result = py.detach(|| {
            let text = text.utf8(options.invalid)?;
            self.with_encoder(|encoder, ids| {
                encode(encoder, options.allowed.as_ref(), &text, ids)?;
                Ok(work(&text, ids))
            })
        });
        result.map_err(|error: EncodeError| to_py(error.at("text")))
    }
}

fn encode(
    encoder: &mut Encoder,
    allowed: Option<&Rewriter>,
    text: &str,
    out: &mut Vec<u32>,
) -> Result<(), EncodeError> {
    match allowed {
        Some(allowed) => encoder.encode_with(allowed, text, out),
        None => encoder.encode_str(text, out),
    }
}

/// Refuses an array with `room` for fewer than `count` ids.
pub(super) fn fits(count: usize, room: usize) -> PyResult<()> {
    if count <= room {
        return Ok(());
    }
    let rule = format!("there are {count} tokens; pass a larger array");
    Err(to_py(Error::config("out", format!("{room} ids"), rule)))
}

/// The error of a document of a part that begins with document `first`.
fn failed(first: usize, error: DocumentError) -> PyErr {
    to_py(error.error.at(&format!("texts[{}]", first + error.document)))
}

fn encode_range(
    encoder: &mut Encoder,
    options: &Options,
    documents: &DocumentBatch,
    range: Range<usize>,
    out: &mut TokenBatch,
) -> Result<(), DocumentError> {
    match &options.allowed {
        Some(allowed) => encode_range_with(encoder, allowed, documents, range, out),
        None => encoder.encode_range(documents, range, out),
    }
}

/// Encodes documents with special tokens that are asked for.
fn encode_range_with(
    encoder: &mut Encoder,
    allowed: &Rewriter,
    documents: &DocumentBatch,
    range: Range<usize>,
    out: &mut TokenBatch,
) -> Result<(), DocumentError> {
    for (document, index) in range.enumerate() {
        let text = str::from_utf8(documents.document(index))
            .map_err(|error| EncodeError::InvalidUtf8 { byte: error.valid_up_to() });
        let encoded = text.and_then(|text| encoder.encode_with(allowed, text, out.values_mut()));
        encoded.map_err(|error| DocumentError { document, error })?;
        out.end_document();
    }
    Ok(())
}

/// Ranges of documents that have `most` bytes or little more.
fn parts(documents: &DocumentBatch, most: usize) -> Vec<Range<usize>> {
    let (mut parts, mut start, mut num_bytes) = (Vec::new(), 0, 0);
    for (index, text) in documents.iter().enumerate() {
        num_bytes += text.len();
        if num_bytes >= most {
            parts.push(start..index + 1);
            (start, num_bytes) = (index + 1, 0);
        }
    }
    if start < documents.len() {
        parts.push(start..documents.len());
    }
    parts
}
