//! What a tokenizer is, before any table is built: vocabulary, merges, split pattern, special tokens, normalizer.
//!
//! Every file format is parsed into a [`Definition`]; `Tokenizer` is built from it and nothing else, and the fingerprint
//! is that of the definition.

use std::fmt::Write;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::pattern::Pattern;
use super::vocab::{MAX_IDS, Vocabulary, shown};
use crate::error::{Error, Result};

/// More special tokens than this are refused: the largest sets in use have about a thousand.
const MAX_SPECIALS: usize = 1 << 16;

/// Everything that decides which ids come out.
#[derive(Clone, Debug)]
pub struct Definition {
    /// A name for messages: the vocabulary's own, or its file's.
    pub name: String,
    /// Token bytes and ids.
    pub vocabulary: Vocabulary,
    /// Which two tokens merge, and in which order.
    pub merges: Merges,
    /// Whether a pretoken that is a token as a whole is taken before any merge (tiktoken, `ignore_merges`).
    pub whole_pretokens: bool,
    /// How text is cut into pretokens.
    pub pattern: Pattern,
    /// Tokens outside of merging, in the order of their ids.
    pub specials: Vec<SpecialToken>,
    /// What is done to text first.
    pub normalizer: Normalizer,
    /// The BOS that the file names in its post-processor.
    pub declared_bos: Option<u32>,
}

/// The order of merges.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Merges {
    /// Two tokens merge when their bytes together are a token; the smallest id goes first (tiktoken).
    ByRank,
    /// Listed pairs of ids; the first listed goes first (Hugging Face).
    List(Vec<(u32, u32)>),
}

/// What is done to text before it is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalizer {
    /// Nothing.
    None,
    /// Unicode canonical composition.
    Nfc,
}

/// A token outside of merging.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpecialToken {
    /// Its text.
    pub content: String,
    /// Its id.
    pub id: u32,
    /// Whether its text in a document is plain text unless asked for. A token that is not (Hugging Face's added tokens with
    /// `"special": false`) is always taken as one.
    pub plain_text: bool,
    /// Whether an always-taken token is looked for in normalized text.
    pub normalized: bool,
    /// Whether it takes the whitespace on its left with it.
    pub strip_left: bool,
    /// Whether it takes the whitespace on its right with it.
    pub strip_right: bool,
    /// Whether it is taken only between characters that are no word characters.
    pub single_word: bool,
}

impl SpecialToken {
    /// A token whose text in a document is plain text unless asked for.
    pub fn new(content: &str, id: u32) -> Self {
        Self {
            content: content.into(),
            id,
            plain_text: true,
            normalized: false,
            strip_left: false,
            strip_right: false,
            single_word: false,
        }
    }
}

impl Definition {
    /// Sorts the special tokens and checks them against each other and the vocabulary.
    pub(super) fn check(&mut self) -> Result<()> {
        let name = &self.name;
        let refuse = |reason| Err(Error::Vocabulary { name: name.clone(), reason });
        if self.specials.len() > MAX_SPECIALS {
            return refuse(format!(
                "{} special tokens; at most {MAX_SPECIALS} are taken",
                self.specials.len()
            ));
        }
        self.specials.sort_by_key(|special| special.id);
        for special in &self.specials {
            let (content, id) = (shown(special.content.as_bytes()), special.id);
            if special.content.is_empty() {
                return refuse(format!("special token {id} is empty; remove it"));
            }
            if id as usize >= MAX_IDS {
                return refuse(format!("special token {content} has id {id}; ids go up to {}", MAX_IDS - 1));
            }
            let token = self.vocabulary.token(id);
            if !token.is_empty() && token != special.content.as_bytes() {
                return refuse(format!(
                    "id {id} is both the token {} and the special token {content}",
                    shown(token)
                ));
            }
        }
        for pair in self.specials.windows(2) {
            if pair[0].id == pair[1].id {
                let (one, other) = (shown(pair[0].content.as_bytes()), shown(pair[1].content.as_bytes()));
                return refuse(format!("id {} is both of the special tokens {one} and {other}", pair[0].id));
            }
        }
        let mut contents: Vec<&str> = self.specials.iter().map(|special| &*special.content).collect();
        contents.sort_unstable();
        if let Some(pair) = contents.windows(2).find(|pair| pair[0] == pair[1]) {
            return refuse(format!("special token {} has two ids", shown(pair[0].as_bytes())));
        }
        Ok(())
    }

    /// Hex of a SHA-256 over everything that decides ids; names of files and vocabularies are not in it.
    pub(super) fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        let mut field = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        field(b"nanofast tokenizer 1");
        field(&(self.vocabulary.num_tokens() as u64).to_le_bytes());
        let mut tokens = Vec::with_capacity(self.vocabulary.num_ids() * 16);
        for (id, token) in self.vocabulary.iter() {
            tokens.extend_from_slice(&id.to_le_bytes());
            tokens.extend_from_slice(&(token.len() as u32).to_le_bytes());
            tokens.extend_from_slice(token);
        }
        field(&tokens);
        match &self.merges {
            Merges::ByRank => field(b"by rank"),
            Merges::List(pairs) => {
                field(b"by list");
                let bytes: Vec<u8> =
                    pairs.iter().flat_map(|(a, b)| [a.to_le_bytes(), b.to_le_bytes()].concat()).collect();
                field(&bytes);
            }
        }
        field(&[u8::from(self.whole_pretokens), self.normalizer as u8]);
        self.pattern.describe(&mut field);
        for special in &self.specials {
            field(special.content.as_bytes());
            field(&special.id.to_le_bytes());
            let SpecialToken { plain_text, normalized, strip_left, strip_right, single_word, .. } = *special;
            field(&[plain_text, normalized, strip_left, strip_right, single_word].map(u8::from));
        }
        field(&self.declared_bos.map_or([0xff; 4], u32::to_le_bytes));
        hash.finalize().iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("a string takes any text");
            hex
        })
    }

    /// The id that begins a document: `<|bos|>`, else the one the file declares, else `<|endoftext|>`.
    pub(super) fn bos_id(&self) -> Option<u32> {
        let named = |name: &str| {
            self.specials.iter().find(|special| special.content == name).map(|special| special.id)
        };
        named("<|bos|>").or(self.declared_bos).or_else(|| named("<|endoftext|>"))
    }
}
