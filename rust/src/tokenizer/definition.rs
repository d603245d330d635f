//! What a tokenizer is, before any table is built: vocabulary, merges, split pattern, special tokens, normalizer.
//!
//! Every file format is parsed into a [`Definition`]; `Tokenizer` is built from it and nothing else, and the fingerprint
//! is that of the definition.

use std::fmt::Write;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::bounded::{MAX_MERGES, at_most};
use super::pattern::Pattern;
use super::vocab::{MAX_IDS, Vocabulary, shown};
use crate::error::{Error, Result};

/// More special tokens than this are refused: the largest sets in use have about a thousand.
pub(super) const MAX_SPECIALS: usize = 1 << 16;

/// Bytes of all special tokens' texts together: what the automaton that finds them is built from.
const MAX_SPECIAL_BYTES: usize = 1 << 20;

/// Squares of the lengths of all tokens, summed up: bytes to hash while all cuts are looked for, about a second. GPT-4o's
/// vocabulary has 13 million.
const MAX_CUT_BYTES: u64 = 1 << 30;

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
    /// What a document gets around it where that is asked for.
    pub frame: Frame,
}

/// The special tokens that a file's post-processor puts around a text; the first of them is the BOS that it declares.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// Ids before the text's own.
    pub before: Vec<u32>,
    /// Ids behind them.
    pub after: Vec<u32>,
}

/// The order of merges.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Merges {
    /// Two tokens merge when their bytes together are a token; the smallest id goes first (tiktoken).
    ByRank,
    /// Listed pairs of ids; the first listed goes first (Hugging Face).
    List(#[serde(deserialize_with = "at_most::<_, _, MAX_MERGES>")] Vec<(u32, u32)>),
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
        let special_bytes: usize = self.specials.iter().map(|special| special.content.len()).sum();
        if special_bytes > MAX_SPECIAL_BYTES {
            return refuse(format!(
                "special tokens of {special_bytes} bytes together; at most {MAX_SPECIAL_BYTES} are taken"
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
        if let Some(id) = self.missing_id() {
            let last = self.vocabulary.num_ids() - 1;
            return refuse(format!(
                "no token has id {id}, and tokens go up to {last}; expected all ids in between: is the file complete?"
            ));
        }
        let framing = self.frame.before.iter().chain(&self.frame.after);
        let is_special = |id: u32| self.specials.binary_search_by_key(&id, |special| special.id).is_ok();
        if let Some(id) = framing.copied().find(|&id| self.vocabulary.token(id).is_empty() && !is_special(id))
        {
            return refuse(format!("its post-processor names id {id}, which no token has"));
        }
        // Merging by rank needs every way to cut every token.
        let cut_bytes: u64 = match self.merges {
            Merges::ByRank => self.vocabulary.iter().map(|(_, token)| (token.len() as u64).pow(2)).sum(),
            Merges::List(_) => 0,
        };
        if cut_bytes > MAX_CUT_BYTES {
            return refuse(format!(
                "its tokens are too long to cut in every way (squares of their lengths: {cut_bytes}; at most \
                 {MAX_CUT_BYTES})"
            ));
        }
        self.pattern.check().or_else(refuse)
    }

    /// The first id below the last token's that neither a token nor a special token has. A file that lost lines shows itself
    /// by it; ids between the last token and the special tokens may be kept free.
    fn missing_id(&self) -> Option<u32> {
        let mut specials = self.specials.iter().map(|special| special.id).peekable();
        (0..self.vocabulary.num_ids() as u32).find(|&id| {
            while specials.next_if(|&special| special < id).is_some() {}
            self.vocabulary.token(id).is_empty() && specials.peek() != Some(&id)
        })
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
        for ids in [&self.frame.before, &self.frame.after] {
            field(&ids.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<_>>());
        }
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
        let declared = self.frame.before.first().copied();
        named("<|bos|>").or(declared).or_else(|| named("<|endoftext|>"))
    }
}
