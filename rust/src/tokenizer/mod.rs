//! Text → ids, equal to what tiktoken and Hugging Face tokenizers give.
//!
//! ```text
//! tokenizer.json, .tiktoken, bundled ─→ Definition ─→ Tokenizer (tables, shared) ─→ Encoder (caches, one per thread)
//!                                                          text ─→ pretokens ─→ ids
//! ```
//! ```
//! use nanofast::tokenizer::Tokenizer;
//! let tokenizer = Tokenizer::from_name("r50k_base")?;
//! let mut ids = Vec::new();
//! tokenizer.encoder().encode(b"hello world", &mut ids)?;
//! assert_eq!(ids, [31373, 995]);
//! assert_eq!(tokenizer.decode_bytes(&ids)?, b"hello world");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod bounded;
pub mod bpe;
mod bundled;
mod byte_level;
mod cache;
mod chat;
mod chunk;
mod count;
mod definition;
mod encode_error;
mod encoder;
mod encoding;
mod file;
mod finder;
mod hf_json;
mod hf_json_parts;
mod hf_json_write;
mod idle;
mod misses;
mod native;
mod oniguruma;
mod pattern;
pub mod pretokenize;
mod probe;
mod ranks;
mod rewrite;
mod spans;
mod tiktoken_file;
mod training;
mod vocab;

use std::path::Path;
use std::sync::Arc;

pub use chat::{ChatEncoder, ChatTemplate, Part as TemplatePart, Renderer, Turn};
pub use chunk::LookUps;
pub use definition::{Definition, Frame, Merges, Normalizer, SpecialToken};
pub use encode_error::{DocumentError, EncodeError};
pub use encoder::{DEFAULT_CACHE_BYTES, Encoder};
pub use encoding::{DocumentEncoder, Encoding};
pub use pattern::{Pattern, Stage};
pub use rewrite::{Part, Rewriter};
pub use training::{PretokenCounts, Training};
pub use vocab::{MAX_IDS, MAX_TOKEN_BYTES, Vocabulary, VocabularyBuilder};

use crate::error::{Error, Result};
use bpe::heap::HeapMerger;
use bpe::{PairTable, long, medium, small};
use encoder::Splitter;
use file::Format;
use idle::Idle;
use pretokenize::{Family, FamilySplitter, RegexSplitter};

/// A vocabulary with everything derived from it. A clone shares all of it.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    tables: Arc<Tables>,
    /// Encoders that no thread is using; kept, since their caches are warm.
    idle: Arc<Idle>,
}

/// What encoders share.
#[derive(Debug)]
pub(crate) struct Tables {
    definition: Definition,
    pairs: PairTable,
    splitter: Splitter,
    /// What happens to every text first; none where that is nothing.
    rewriter: Option<Rewriter>,
    fingerprint: String,
}

impl Tables {
    /// The id of a pretoken that is taken whole before any merge.
    fn whole_id(&self, pretoken: &[u8]) -> Option<u32> {
        self.definition.whole_pretokens.then(|| self.definition.vocabulary.id(pretoken)).flatten()
    }

    /// Appends the ids of a pretoken that no cache knows.
    fn merge(&self, heap: &mut HeapMerger, pretoken: &[u8], out: &mut Vec<u32>) {
        if let Some(id) = self.whole_id(pretoken) {
            return out.push(id);
        }
        let mut ids = [0; medium::MAX_BYTES];
        let count = match (pretoken.len(), ids.first_chunk_mut()) {
            (..=small::MAX_BYTES, Some(ids)) => small::merge(&self.pairs, pretoken, ids),
            (..=medium::MAX_BYTES, _) => medium::merge(&self.pairs, pretoken, &mut ids),
            _ => return self.merge_long(heap, pretoken, out),
        };
        out.extend_from_slice(&ids[..count]);
    }

    /// Appends the ids of a pretoken of any length that is not taken whole.
    fn merge_long(&self, heap: &mut HeapMerger, pretoken: &[u8], out: &mut Vec<u32>) {
        let length = |id| self.definition.vocabulary.token(id).len();
        long::merge(&self.pairs, heap, length, &long::SIZES, pretoken, out);
    }
}

/// The splitter of a pattern; messages call its vocabulary `name`.
fn splitter(name: &str, pattern: &Pattern) -> Result<Splitter> {
    Ok(match Family::of(pattern) {
        Some(family) => Splitter::Family(FamilySplitter::new(family)),
        None => Splitter::Regex(RegexSplitter::new(name, pattern)?),
    })
}

impl Tokenizer {
    /// A bundled vocabulary: `r50k_base`, `p50k_base`, `cl100k_base` or `o200k_base`.
    ///
    /// # Errors
    /// When the name is none of these.
    pub fn from_name(name: &str) -> Result<Self> {
        let (definition, cuts) = bundled::load(name)?;
        let pairs = PairTable::from_cuts(name, &definition.vocabulary, cuts)?;
        Self::with_pairs(definition, pairs)
    }

    /// Hugging Face's `tokenizer.json` of the byte-level BPE kind; messages call it `name`.
    ///
    /// # Errors
    /// When the file is no such tokenizer, saying what it is or what is wrong.
    pub fn from_hf_json(bytes: &[u8], name: &str) -> Result<Self> {
        Self::from_definition(hf_json::parse(bytes, name)?)
    }

    /// nanofast's own file, as [`to_bytes`](Self::to_bytes) gives it; messages call it `name`.
    ///
    /// # Errors
    /// When it is no such file, or of a version that this release does not know.
    pub fn from_bytes(bytes: &[u8], name: &str) -> Result<Self> {
        Self::from_definition(native::parse(bytes, name)?)
    }

    /// nanofast's own file: exact to the fingerprint, whatever format the tokenizer came from.
    pub fn to_bytes(&self) -> Vec<u8> {
        native::write(&self.tables.definition)
    }

    /// The `.tiktoken` file: tokens and ranks, without the pattern and the special tokens.
    ///
    /// # Errors
    /// When the text is normalized first, or merging by rank would give other ids: the format can say neither.
    pub fn to_tiktoken(&self) -> Result<Vec<u8>> {
        let definition = &self.tables.definition;
        let refuse = |reason: String| {
            let reason = format!("a .tiktoken file cannot hold it: {reason}; save it as .json");
            Error::Vocabulary { name: definition.name.clone(), reason }
        };
        if definition.normalizer != Normalizer::None {
            return Err(refuse("it normalizes its text".into()));
        }
        self.differs_by_rank().map_err(refuse)?;
        Ok(tiktoken_file::write(&definition.vocabulary))
    }

    /// Hugging Face's `tokenizer.json`, for any library that reads it.
    pub fn to_hf_json(&self) -> Vec<u8> {
        hf_json_write::write(&self.tables.definition, &self.tables.pairs)
    }

    /// The vocabulary in the file `path`, whatever its format; a `.tiktoken` file needs its split pattern, and its special
    /// tokens are not in it.
    ///
    /// # Errors
    /// When the file cannot be read or is no vocabulary, saying what it is instead; when a pattern or special tokens are
    /// given for a format that holds its own, or no pattern for one that does not.
    pub fn from_file(path: &Path, pattern: Option<&str>, specials: Option<&[(String, u32)]>) -> Result<Self> {
        let name = path.display().to_string();
        let refuse = |reason: String| Error::Vocabulary { name: name.clone(), reason };
        let bytes = file::read(path)?;
        match (file::format(path, &bytes).map_err(refuse)?, pattern) {
            (Format::Tiktoken, Some(pattern)) => {
                Self::from_tiktoken(&bytes, pattern, specials.unwrap_or_default(), &name)
            }
            (Format::Tiktoken, None) => Err(refuse("it holds no split pattern; pass pattern=".into())),
            (Format::Json, None) if specials.is_none() => Self::from_json(&bytes, &name),
            (Format::Json, _) => Err(refuse(
                "it holds its own pattern and special tokens; drop pattern= and special_tokens=".into(),
            )),
        }
    }

    /// A `.json` file of either kind: nanofast's own or Hugging Face's.
    ///
    /// # Errors
    /// As [`from_bytes`](Self::from_bytes) and [`from_hf_json`](Self::from_hf_json).
    pub fn from_json(bytes: &[u8], name: &str) -> Result<Self> {
        if native::is_native(bytes) { Self::from_bytes(bytes, name) } else { Self::from_hf_json(bytes, name) }
    }

    /// A `.tiktoken` file, its split pattern and its special tokens; messages call it `name`.
    ///
    /// # Errors
    /// When a line or the pattern is bad, or ids collide.
    pub fn from_tiktoken(
        bytes: &[u8],
        pattern: &str,
        specials: &[(String, u32)],
        name: &str,
    ) -> Result<Self> {
        Self::from_ranked(tiktoken_file::parse(bytes, name)?, pattern, specials, name)
    }

    /// Tokens whose ids are their ranks, as in a `tiktoken.Encoding`; messages call it `name`.
    ///
    /// # Errors
    /// When the pattern is bad or ids collide.
    pub fn from_ranks<'a>(
        ranks: impl IntoIterator<Item = (&'a [u8], u64)>,
        pattern: &str,
        specials: &[(String, u32)],
        name: &str,
    ) -> Result<Self> {
        let mut builder = VocabularyBuilder::new(name);
        for (token, rank) in ranks {
            builder.insert(rank, token)?;
        }
        Self::from_ranked(builder.build()?, pattern, specials, name)
    }

    fn from_ranked(
        vocabulary: Vocabulary,
        pattern: &str,
        specials: &[(String, u32)],
        name: &str,
    ) -> Result<Self> {
        Self::from_definition(Definition {
            name: name.into(),
            vocabulary,
            merges: Merges::ByRank,
            whole_pretokens: true,
            pattern: Pattern::tiktoken(pattern),
            specials: specials.iter().map(|(content, id)| SpecialToken::new(content, *id)).collect(),
            normalizer: Normalizer::None,
            frame: Frame::default(),
        })
    }

    /// Builds the tables of a definition.
    ///
    /// # Errors
    /// When the pattern does not compile, or ids or merges contradict each other.
    pub fn from_definition(mut definition: Definition) -> Result<Self> {
        definition.check()?;
        let pairs = PairTable::new(&definition.name, &definition.vocabulary, &definition.merges)?;
        Self::with_pairs(definition, pairs)
    }

    fn with_pairs(definition: Definition, pairs: PairTable) -> Result<Self> {
        let splitter = splitter(&definition.name, &definition.pattern)?;
        let always = definition.specials.iter().any(|special| !special.plain_text);
        let rewrites = always || definition.normalizer != Normalizer::None;
        let rewriter = rewrites.then(|| Rewriter::new(&definition, |_| false)).transpose()?;
        let fingerprint = definition.fingerprint();
        let tables = Tables { definition, pairs, splitter, rewriter, fingerprint };
        Ok(Self { tables: Arc::new(tables), idle: Arc::new(Idle::new()) })
    }

    /// An encoder whose caches take at most `cache_bytes`: one that was given back, with the caches that it filled, or a
    /// new one, for which one with other caches goes.
    pub fn take_encoder(&self, cache_bytes: usize) -> Encoder {
        self.idle.take(cache_bytes).unwrap_or_else(|| self.encoder_with(cache_bytes))
    }

    /// Keeps an encoder for whoever takes one next.
    pub fn give_back(&self, encoder: Encoder) {
        self.idle.give_back(encoder);
    }

    /// An encoder: one per thread, kept for as long as there is text, since its caches fill with use.
    pub fn encoder(&self) -> Encoder {
        self.encoder_with(DEFAULT_CACHE_BYTES)
    }

    /// As [`encoder`](Self::encoder), with caches of at most `cache_bytes`.
    pub fn encoder_with(&self, cache_bytes: usize) -> Encoder {
        Encoder::new(Arc::clone(&self.tables), cache_bytes)
    }

    /// A rewriter that finds the special tokens `contents` in texts, for [`Encoder::encode_with`].
    ///
    /// # Errors
    /// When one of them is no special token.
    pub fn allow(&self, contents: &[&str]) -> Result<Rewriter> {
        let definition = &self.tables.definition;
        let unknown =
            |content: &&&str| !definition.specials.iter().any(|special| special.content == **content);
        if let Some(content) = contents.iter().find(unknown) {
            let names: Vec<_> =
                definition.specials.iter().take(16).map(|it| format!("`{}`", it.content)).collect();
            let reason = format!("`{content}` is no special token (has: {})", names.join(", "));
            return Err(Error::Vocabulary { name: definition.name.clone(), reason });
        }
        Rewriter::new(definition, |special| contents.contains(&&*special.content))
    }

    /// This tokenizer with further special tokens, which get the ids behind its last. Those that it has stay as they are.
    ///
    /// # Errors
    /// When ids run out.
    pub fn with_special_tokens(&self, contents: &[String]) -> Result<Self> {
        let mut definition = self.tables.definition.clone();
        for content in contents {
            if !definition.specials.iter().any(|special| special.content == *content) {
                let id = self.vocab_size() + definition.specials.len() - self.special_tokens().len();
                definition.specials.push(SpecialToken::new(content, id as u32));
            }
        }
        Self::from_definition(definition)
    }

    /// What the tokenizer was built from.
    pub fn definition(&self) -> &Definition {
        &self.tables.definition
    }

    /// Its name in messages.
    pub fn name(&self) -> &str {
        &self.tables.definition.name
    }

    /// One past the largest id, special tokens included.
    pub fn vocab_size(&self) -> usize {
        let specials = self.tables.definition.specials.last().map_or(0, |special| special.id as usize + 1);
        specials.max(self.tables.definition.vocabulary.num_ids())
    }

    /// The id that begins a document: `<|bos|>`, else the one the file declares, else `<|endoftext|>`.
    pub fn bos_id(&self) -> Option<u32> {
        self.tables.definition.bos_id()
    }

    /// Special tokens in the order of their ids.
    pub fn special_tokens(&self) -> &[SpecialToken] {
        &self.tables.definition.specials
    }

    /// The bytes that `id` stands for: a token's own, a special token's text; none where there is no such id.
    pub fn token_bytes(&self, id: u32) -> Option<&[u8]> {
        let definition = &self.tables.definition;
        match definition.specials.binary_search_by_key(&id, |special| special.id) {
            Ok(at) => Some(definition.specials[at].content.as_bytes()),
            Err(_) => Some(definition.vocabulary.token(id)).filter(|token| !token.is_empty()),
        }
    }

    /// The text of `ids`, as bytes: tokens may end within a character.
    ///
    /// # Errors
    /// When an id is not in the vocabulary.
    pub fn decode_bytes(&self, ids: &[u32]) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(ids.len() * 4);
        for (position, &id) in ids.iter().enumerate() {
            let token = self.token_bytes(id).ok_or_else(|| Error::Vocabulary {
                name: self.name().into(),
                reason: format!(
                    "no token has id {id} (position {position}); ids go from 0 to {}",
                    self.vocab_size() - 1
                ),
            })?;
            bytes.extend_from_slice(token);
        }
        Ok(bytes)
    }

    /// Hex of a SHA-256 over everything that decides ids.
    pub fn fingerprint(&self) -> &str {
        &self.tables.fingerprint
    }
}
