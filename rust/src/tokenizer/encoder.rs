//! Text → ids, one encoder per thread: it owns the buffers and caches, and shares the tables.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::Tables;
use super::bpe::heap::HeapMerger;
use super::cache::{Caches, LongCache, key_of};
use super::chunk::{Chunk, LookUps};
use super::encode_error::{DocumentError, EncodeError};
use super::pretokenize::{FamilySplitter, RegexSplitter, Starts};
use super::probe::fetch_far;
use super::rewrite::{Part, Rewriter};
use crate::error::said;
use crate::ragged::{DocumentBatch, TokenBatch};

/// Memory that an encoder's caches take at most, unless told otherwise. Warm MB/s on English with r50k and o200k, then on
/// 60 languages with cl100k: 24 MiB give 480–650, 400 and 165; 32 MiB 480, 540 and 300; 48 MiB 730, 660 and 360 (Zen 4).
pub const DEFAULT_CACHE_BYTES: usize = 48 << 20;

/// Encodes documents of one tokenizer, one at a time or many.
#[derive(Debug)]
pub struct Encoder {
    tables: Arc<Tables>,
    splitter: Splitter,
    chunk: Chunk,
    caches: Caches,
    /// What its caches take at most.
    cache_bytes: usize,
    heap: HeapMerger,
}

/// How a tokenizer splits.
#[derive(Clone, Debug)]
pub(super) enum Splitter {
    Family(FamilySplitter),
    /// An expression shares scratch memory between its users, so every encoder has a clone.
    Regex(RegexSplitter),
}

impl Encoder {
    pub(super) fn new(tables: Arc<Tables>, cache_bytes: usize) -> Self {
        let mut caches = Caches::new(cache_bytes);
        let splitter = tables.splitter.clone();
        let chunk = Chunk::new(Self::remember_vocabulary(&tables, &mut caches));
        Self { splitter, chunk, caches, cache_bytes, heap: HeapMerger::default(), tables }
    }

    /// What its caches take at most.
    pub(super) fn cache_bytes(&self) -> usize {
        self.cache_bytes
    }

    pub(super) fn tables(&self) -> Arc<Tables> {
        Arc::clone(&self.tables)
    }

    pub(super) fn splitter(&self) -> &Splitter {
        &self.splitter
    }

    /// Puts the tokens that are taken whole into the caches, so that the first documents find them there. Returns whether
    /// every one that text can hold is there: a pretoken that is not found is then no token.
    fn remember_vocabulary(tables: &Tables, caches: &mut Caches) -> bool {
        let definition = &tables.definition;
        if !definition.whole_pretokens {
            return true;
        }
        let vocabulary = &definition.vocabulary;
        // A byte that is in no UTF-8 has no key.
        let is_text = |id: u32, token: &[u8]| {
            !token.contains(&0xff) && vocabulary.unreachable().binary_search(&id).is_err()
        };
        let tokens: Vec<(u32, &[u8])> = vocabulary.iter().filter(|&(id, token)| is_text(id, token)).collect();
        let (mut complete, mut places) = (true, Vec::new());
        for tokens in tokens.chunks(64) {
            places.clear();
            for (_, token) in tokens {
                let key = key_of(token, 0, token.len());
                let home = caches.short.home(key);
                fetch_far(caches.short.entries(), home);
                places.push((key, home));
            }
            for (&place, (id, token)) in places.iter().zip(tokens) {
                complete &= caches.remember(place, token, &[*id]);
            }
        }
        complete
    }

    /// How often the caches knew a pretoken, since the last call. A pattern that is not well known is not counted.
    pub fn take_counts(&mut self) -> LookUps {
        self.chunk.take_counts()
    }

    /// Sets a flag that ends what would take long.
    pub fn stop_with(&mut self, stopping: Option<Arc<AtomicBool>>) {
        self.chunk.heap_mut().stop_with(stopping.clone());
        self.heap.stop_with(stopping);
    }

    /// Whether something was ended by the flag: what came out may be anything, and the encoder is to be dropped.
    pub fn was_stopped(&self) -> bool {
        self.heap.was_stopped() || self.chunk.heap().was_stopped()
    }

    /// Appends the ids of one document to `out`; special tokens' texts are plain text.
    ///
    /// # Errors
    /// When `text` is not UTF-8, or its split pattern fails on it; `out` is then as it was.
    pub fn encode(&mut self, text: &[u8], out: &mut Vec<u32>) -> Result<(), EncodeError> {
        let text = validated(text)?;
        self.encode_str(text, out)
    }

    /// As [`encode`](Self::encode), for text that is known to be UTF-8.
    ///
    /// # Errors
    /// When the split pattern fails on the text; `out` is then as it was.
    pub fn encode_str(&mut self, text: &str, out: &mut Vec<u32>) -> Result<(), EncodeError> {
        let before = out.len();
        let result = self.add(0, text, text.as_bytes(), &|_| text.as_bytes(), out, &mut |_| {});
        self.finish(&|_| text.as_bytes(), out, &mut |_| {});
        if result.is_err() {
            out.truncate(before);
        }
        result
    }

    /// As [`encode_str`](Self::encode_str), with the special tokens that `rewriter` finds (see `Tokenizer::allow`).
    ///
    /// # Errors
    /// When the split pattern fails on the text; `out` is then as it was.
    pub fn encode_with(
        &mut self,
        rewriter: &Rewriter,
        text: &str,
        out: &mut Vec<u32>,
    ) -> Result<(), EncodeError> {
        let before = out.len();
        let result = self.add_parts(rewriter.parts(text), out);
        if result.is_err() {
            out.truncate(before);
        }
        result
    }

    /// Bytes of `text` about `apart` apart at which tokenizing can begin anew: the ids of the parts between them are those
    /// of the whole. They are starts of pretokens; there are none where normalization, special tokens or a pattern that
    /// may look back leave none.
    pub fn cuts(&self, text: &str, apart: usize) -> Vec<usize> {
        let mut cuts = Vec::new();
        let rewrites = self.tables.rewriter.as_ref().is_some_and(|it| !it.keeps(text));
        let Splitter::Family(splitter) = self.splitter else { return cuts };
        if rewrites {
            return cuts;
        }
        let (mut buffer, mut at) = ([0; 1024], 0);
        loop {
            at = splitter.fill(text, at, &mut Starts::new(&mut buffer));
            if at == text.len() {
                return cuts;
            }
            if at - cuts.last().copied().unwrap_or(0) >= apart {
                cuts.push(at);
            }
        }
    }

    fn add_parts(&mut self, parts: Vec<Part<'_>>, out: &mut Vec<u32>) -> Result<(), EncodeError> {
        for part in parts {
            match part {
                Part::Special(id) => out.push(id),
                Part::Text(text) => {
                    let result =
                        self.add_plain(0, &text, text.as_bytes(), &|_| text.as_bytes(), out, &mut |_| {});
                    self.finish(&|_| text.as_bytes(), out, &mut |_| {});
                    result?;
                }
            }
        }
        Ok(())
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
        self.encode_range(documents, 0..documents.len(), out)
    }

    /// As [`encode_batch`](Self::encode_batch), for documents `range` alone; an error counts from its first.
    ///
    /// # Errors
    /// As [`encode_batch`](Self::encode_batch).
    pub fn encode_range(
        &mut self,
        documents: &DocumentBatch,
        range: Range<usize>,
        out: &mut TokenBatch,
    ) -> Result<(), DocumentError> {
        let text_of = |index| documents.document(range.start + index);
        self.encode_texts(
            range.len(),
            text_of,
            |index| validated(text_of(index)).map(|text| (text, text.as_bytes())),
            out,
        )
    }

    /// As [`encode_batch`](Self::encode_batch), for `num_texts` texts wherever they lie; `valid` is `text_of` as UTF-8, and the
    /// same with what lies behind it in memory.
    pub(super) fn encode_texts<'a>(
        &mut self,
        num_texts: usize,
        text_of: impl Fn(usize) -> &'a [u8],
        valid: impl Fn(usize) -> Result<(&'a str, &'a [u8]), EncodeError>,
        out: &mut TokenBatch,
    ) -> Result<(), DocumentError> {
        let mut ends = Vec::with_capacity(num_texts);
        let mut end = |at| ends.push(at);
        let values = out.values_mut();
        let before = values.len();
        let mut result = Ok(());
        for document in 0..num_texts {
            let added = valid(document)
                .and_then(|(text, memory)| self.add(document, text, memory, &text_of, values, &mut end));
            if let Err(error) = added {
                result = Err(DocumentError { document, error });
                break;
            }
        }
        self.finish(&text_of, values, &mut end);
        // A document that failed halfway leaves no ids.
        values.truncate(ends.last().copied().unwrap_or(before));
        ends.into_iter().for_each(|at| out.end_document_at(at));
        result
    }

    /// Encodes `text`, all but what waits in the chunk for more; `memory` begins with it.
    fn add<'a>(
        &mut self,
        document: usize,
        text: &str,
        memory: &[u8],
        text_of: &impl Fn(usize) -> &'a [u8],
        out: &mut Vec<u32>,
        end: &mut impl FnMut(usize),
    ) -> Result<(), EncodeError> {
        if u32::try_from(text.len()).is_err() {
            return Err(EncodeError::TooLong { bytes: text.len() });
        }
        let parts = self.tables.rewriter.as_ref().filter(|it| !it.keeps(text)).map(|it| it.parts(text));
        match parts {
            None => self.add_plain(document, text, memory, text_of, out, end),
            Some(parts) => {
                self.finish(text_of, out, end);
                self.add_parts(parts, out)?;
                end(out.len());
                Ok(())
            }
        }
    }

    /// As `add`, for text that is split as it is.
    fn add_plain<'a>(
        &mut self,
        document: usize,
        text: &str,
        memory: &[u8],
        text_of: &impl Fn(usize) -> &'a [u8],
        out: &mut Vec<u32>,
        end: &mut impl FnMut(usize),
    ) -> Result<(), EncodeError> {
        let Splitter::Family(splitter) = self.splitter else {
            self.finish(text_of, out, end);
            self.encode_by_regex(text, out, |_| {})?;
            end(out.len());
            return Ok(());
        };
        if text.is_empty() {
            self.chunk.push_empty(document);
        }
        let mut at = 0;
        while at < text.len() {
            match self.push_segment(splitter, document, text, memory, at) {
                Some(next) => at = next,
                None => self.finish(text_of, out, end),
            }
        }
        Ok(())
    }

    /// Takes pretokens of `text[at..]` into the chunk and returns where they end; none when the chunk is full.
    pub(super) fn push_segment(
        &mut self,
        splitter: FamilySplitter,
        document: usize,
        text: &str,
        memory: &[u8],
        at: usize,
    ) -> Option<usize> {
        let mut starts = Starts::new(self.chunk.room()?);
        let next = splitter.fill(text, at, &mut starts);
        let count = starts.len();
        self.chunk.push(&self.caches.short, document, text.as_bytes(), memory, at, next, count);
        Some(next)
    }

    pub(super) fn finish<'a>(
        &mut self,
        text_of: &impl Fn(usize) -> &'a [u8],
        out: &mut Vec<u32>,
        end: &mut impl FnMut(usize),
    ) {
        if !self.chunk.is_empty() {
            self.chunk.finish(&self.tables, &mut self.caches, text_of, out, end);
        }
    }

    /// Splits by the pattern's own expression, which a library matches; `after_each` pretoken it may look at the ids.
    pub(super) fn encode_by_regex(
        &mut self,
        text: &str,
        out: &mut Vec<u32>,
        mut after_each: impl FnMut(&mut Vec<u32>),
    ) -> Result<(), EncodeError> {
        let Splitter::Regex(splitter) = &mut self.splitter else {
            unreachable!("the pattern is not well known")
        };
        let split = catch_unwind(AssertUnwindSafe(|| splitter.split(text).map(|_| ())));
        let split = split.map_err(|panic| {
            let reason = said(&*panic).unwrap_or("no message").into();
            EncodeError::Panic { reason }
        })?;
        split.map_err(|reason| EncodeError::Split { reason })?;
        for piece in splitter.pieces() {
            let pretoken = &text.as_bytes()[piece.clone()];
            let key = key_of(text.as_bytes(), piece.start, piece.len());
            let place = (key, self.caches.short.home(key));
            if !self.caches.recall(place, || LongCache::hash(pretoken), pretoken, out) {
                let before = out.len();
                self.tables.merge(&mut self.heap, pretoken, out);
                self.caches.remember(place, pretoken, &out[before..]);
            }
            after_each(out);
        }
        Ok(())
    }
}

/// A text as UTF-8.
pub(super) fn validated(text: &[u8]) -> Result<&str, EncodeError> {
    simdutf8::basic::from_utf8(text).map_err(|_| EncodeError::InvalidUtf8 { byte: first_bad_byte(text) })
}

fn first_bad_byte(text: &[u8]) -> usize {
    str::from_utf8(text).map_or_else(|error| error.valid_up_to(), |_| text.len())
}
