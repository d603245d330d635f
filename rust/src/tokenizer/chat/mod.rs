//! Conversations → ids, each marked where it is not learned.
//!
//! ```text
//! conversations ─▶ sheet: special tokens and stretches of text ─▶ all texts encoded at once ─▶ woven together
//! ```
//! Texts of many conversations are encoded together, since one message is too short to keep an encoder busy. What is
//! said is encoded as it is: text that looks like a special token is text. Words of the template are encoded with what
//! follows or precedes them up to the next special token, as a template that makes one string of a conversation has it;
//! a token that reaches over the border of what is learned is learned. The parts of a message are encoded apart.

mod overlaps;
mod rules;
mod scribe;
mod sheet;
mod template;

use std::sync::Arc;

use rules::Rules;
use scribe::Scribe;
use sheet::{Place, Sheet};
pub use template::{ChatTemplate, Part, Turn};

use super::{DEFAULT_CACHE_BYTES, DocumentError, EncodeError, Encoder, Tokenizer};
use crate::error::Result;
use crate::ragged::{DocumentBatch, TokenBatch};

/// A template and the ids of its special tokens. A clone shares all of it.
#[derive(Clone, Debug)]
pub struct Renderer {
    tokenizer: Tokenizer,
    rules: Arc<Rules>,
    learns_all: bool,
}

impl Renderer {
    /// The template with a vocabulary.
    ///
    /// # Errors
    /// When the vocabulary lacks special tokens of the template, or the template contradicts itself.
    pub fn new(template: ChatTemplate, tokenizer: Tokenizer) -> Result<Self> {
        let rules = Arc::new(Rules::new(template, &tokenizer)?);
        Ok(Self { tokenizer, rules, learns_all: false })
    }

    /// With every token learned, whoever speaks.
    #[must_use]
    pub fn learning_all(self) -> Self {
        Self { learns_all: true, ..self }
    }

    /// The token that fills rows.
    pub fn pad_id(&self) -> u32 {
        self.rules.pad_id
    }

    /// Whether conversations begin with a BOS.
    pub fn has_bos(&self) -> bool {
        !self.rules.bos.is_empty()
    }

    /// The template.
    pub fn template(&self) -> &ChatTemplate {
        &self.rules.template
    }

    /// The vocabulary.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// An encoder: one per thread.
    pub fn encoder(&self) -> ChatEncoder {
        self.with(self.tokenizer.take_encoder(DEFAULT_CACHE_BYTES))
    }

    /// The same around an encoder of the vocabulary.
    pub(super) fn with(&self, encoder: Encoder) -> ChatEncoder {
        ChatEncoder { renderer: self.clone(), encoder, scratch: Scratch::default() }
    }

    /// The ids of one conversation with an encoder of the same vocabulary; tokens that are not learned carry
    /// `NOT_LEARNED`. With `prompts`, what stands in front of an assistant's answer follows.
    ///
    /// # Errors
    /// When it cannot be rendered.
    pub fn render(
        &self,
        encoder: &mut Encoder,
        conversation: &[u8],
        prompts: bool,
    ) -> std::result::Result<Vec<u32>, EncodeError> {
        let (documents, mut out) = (DocumentBatch::from_texts([conversation]), TokenBatch::new());
        self.encode(encoder, &mut Scratch::default(), &documents, prompts, &mut out)
            .map_err(|failed| failed.error)?;
        Ok(out.into_parts().0)
    }

    fn encode(
        &self,
        encoder: &mut Encoder,
        Scratch { sheet, encoded }: &mut Scratch,
        documents: &DocumentBatch,
        prompts: bool,
        out: &mut TokenBatch,
    ) -> std::result::Result<(), DocumentError> {
        sheet.clear();
        let mut result = Ok(());
        for (document, bytes) in documents.iter().enumerate() {
            let begun = sheet.mark();
            if let Err(error) = Scribe::new(&self.rules, document, bytes, sheet).write(prompts) {
                sheet.return_to(begun);
                result = Err(DocumentError { document, error });
                break;
            }
            sheet.end();
        }
        encoded.clear();
        let written = result.as_ref().map_or_else(|failed| failed.document, |()| documents.len());
        // A conversation is UTF-8 as a whole, or its texts are looked at one by one.
        let conversations: Vec<_> =
            documents.iter().take(written).map(|bytes| simdutf8::basic::from_utf8(bytes).ok()).collect();
        let text_of = |index| sheet.text(index, documents);
        let valid = |index| sheet.valid(index, documents, &conversations);
        if let Err(failed) = encoder.encode_texts(sheet.num_texts(), text_of, valid, encoded) {
            let Place { document, message } = sheet.place(failed.document);
            result = Err(DocumentError { document, error: in_message(failed.error, message) });
        }
        let num_documents = result.as_ref().map_or_else(|failed| failed.document, |()| documents.len());
        sheet.weave(encoded, num_documents, &self.tokenizer, self.learns_all, out);
        result
    }
}

/// Buffers that are used again.
#[derive(Debug, Default)]
struct Scratch {
    sheet: Sheet,
    encoded: TokenBatch,
}

/// Renders conversations of one template, many at once.
#[derive(Debug)]
pub struct ChatEncoder {
    renderer: Renderer,
    encoder: Encoder,
    scratch: Scratch,
}

impl ChatEncoder {
    /// What encodes the texts.
    pub fn inner(&mut self) -> &mut Encoder {
        &mut self.encoder
    }

    /// What encoded the texts.
    pub fn into_inner(self) -> Encoder {
        self.encoder
    }

    /// Appends each conversation of `documents` to `out`; tokens that are not learned carry `NOT_LEARNED`.
    ///
    /// # Errors
    /// The first conversation that cannot be rendered; `out` then holds those before it.
    pub fn encode_batch(
        &mut self,
        documents: &DocumentBatch,
        out: &mut TokenBatch,
    ) -> std::result::Result<(), DocumentError> {
        self.renderer.encode(&mut self.encoder, &mut self.scratch, documents, false, out)
    }
}

fn in_message(error: EncodeError, message: Option<usize>) -> EncodeError {
    let reason = match error {
        EncodeError::InvalidUtf8 { byte } => {
            format!("invalid UTF-8 at byte {byte}; re-encode the file, or leave the conversation out")
        }
        other => other.to_string(),
    };
    EncodeError::Conversation { message, reason }
}
