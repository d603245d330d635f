//! How a loader's documents become ids: as texts, or as conversations.

use super::{ChatEncoder, DocumentError, Encoder, Renderer, Tokenizer};
use crate::ragged::{DocumentBatch, TokenBatch};

/// What documents are, and with what they are encoded.
#[derive(Clone, Debug)]
pub enum Encoding {
    /// Texts.
    Texts(Tokenizer),
    /// Conversations (see `conversation`).
    Conversations(Renderer),
}

impl From<Tokenizer> for Encoding {
    fn from(tokenizer: Tokenizer) -> Self {
        Self::Texts(tokenizer)
    }
}

impl From<Renderer> for Encoding {
    fn from(renderer: Renderer) -> Self {
        Self::Conversations(renderer)
    }
}

impl Encoding {
    /// The vocabulary.
    pub fn tokenizer(&self) -> &Tokenizer {
        match self {
            Self::Texts(tokenizer) => tokenizer,
            Self::Conversations(renderer) => renderer.tokenizer(),
        }
    }

    /// Keeps an encoder's caches for whoever asks for one next.
    pub fn give_back(&self, encoder: DocumentEncoder) {
        self.tokenizer().give_back(match encoder {
            DocumentEncoder::Texts(encoder) => *encoder,
            DocumentEncoder::Conversations(encoder) => encoder.into_inner(),
        });
    }

    /// An encoder whose caches take at most `cache_bytes`: one per thread.
    pub fn encoder(&self, cache_bytes: usize) -> DocumentEncoder {
        let encoder = self.tokenizer().take_encoder(cache_bytes);
        match self {
            Self::Texts(_) => DocumentEncoder::Texts(Box::new(encoder)),
            Self::Conversations(renderer) => DocumentEncoder::Conversations(Box::new(renderer.with(encoder))),
        }
    }
}

/// Encodes documents of either kind.
#[derive(Debug)]
pub enum DocumentEncoder {
    /// Texts.
    Texts(Box<Encoder>),
    /// Conversations.
    Conversations(Box<ChatEncoder>),
}

impl DocumentEncoder {
    /// What encodes the texts.
    pub fn inner(&mut self) -> &mut Encoder {
        match self {
            Self::Texts(encoder) => encoder,
            Self::Conversations(encoder) => encoder.inner(),
        }
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
        match self {
            Self::Texts(encoder) => encoder.encode_batch(documents, out),
            Self::Conversations(encoder) => encoder.encode_batch(documents, out),
        }
    }
}
