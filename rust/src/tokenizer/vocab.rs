//! The vocabulary: token bytes ↔ id, as one arena and one open-addressing index.
//!
//! ```text
//! arena   H e l l o t h e ...        spans[id] = (start, length); length 0 where an id is no mergeable token
//! index   [id + 1 | 0 | id + 1 ...]  by hash of the bytes; whole bytes are compared, never hashes alone
//! ```
//! Special tokens are not in here: they never come out of merging.

use crate::error::{Error, Result};

/// Ids are below this, so that two of them and a priority fit the 64 bits of a pair-table entry, and one id is to spare.
pub const MAX_IDS: usize = (1 << 20) - 1;

/// No token is longer. The longest of the vocabularies in use has 256 bytes; the limit bounds the time that a hostile
/// file can cost while all splits of a token are looked up.
pub const MAX_TOKEN_BYTES: usize = 1 << 12;

/// An immutable map between token bytes and ids.
#[derive(Clone, Debug, Default)]
pub struct Vocabulary {
    arena: Vec<u8>,
    spans: Vec<Span>,
    index: Vec<u32>,
    shift: u32,
    num_tokens: usize,
    unreachable: Vec<u32>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Span {
    start: u32,
    length: u32,
}

/// Collects tokens in any order and checks them.
#[derive(Debug, Default)]
pub struct VocabularyBuilder {
    name: String,
    arena: Vec<u8>,
    spans: Vec<Span>,
    unreachable: Vec<u32>,
}

impl VocabularyBuilder {
    /// A builder whose errors name the vocabulary `name`.
    pub fn new(name: &str) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// A builder over `lengths[id]` bytes for each id in turn.
    pub(crate) fn from_lengths(name: &str, lengths: &[u8], bytes: &[u8]) -> Self {
        let mut start = 0;
        let span = |&length: &u8| {
            let span = Span { start, length: length.into() };
            start += span.length;
            span
        };
        let spans = lengths.iter().map(span).collect();
        Self { name: name.into(), arena: bytes.to_vec(), spans, unreachable: Vec::new() }
    }

    fn refuse(&self, reason: String) -> Error {
        Error::Vocabulary { name: self.name.clone(), reason }
    }

    /// Adds a token.
    ///
    /// # Errors
    /// When the id is taken or out of range, or the token is empty or longer than [`MAX_TOKEN_BYTES`].
    pub fn insert(&mut self, id: u64, token: &[u8]) -> Result<()> {
        if id >= MAX_IDS as u64 {
            let (token, most) = (shown(token), MAX_IDS - 1);
            return Err(self.refuse(format!("id {id} of token {token} is too large; ids go up to {most}")));
        }
        if token.is_empty() {
            return Err(self.refuse(format!("id {id} is an empty token; remove it")));
        }
        if token.len() > MAX_TOKEN_BYTES {
            let length = token.len();
            return Err(
                self.refuse(format!("id {id} has {length} bytes; a token has at most {MAX_TOKEN_BYTES}"))
            );
        }
        let slot = id as usize;
        if self.spans.len() <= slot {
            self.spans.resize(slot + 1, Span::default());
        }
        if self.spans[slot].length > 0 {
            let other = self.token(slot);
            return Err(self.refuse(format!(
                "id {id} is both {} and {}; ids are unique",
                shown(other),
                shown(token)
            )));
        }
        self.spans[slot] = Span { start: self.arena.len() as u32, length: token.len() as u32 };
        self.arena.extend_from_slice(token);
        Ok(())
    }

    /// Adds a token that can be decoded and never comes out of merging.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub(crate) fn insert_unreachable(&mut self, id: u64, token: &[u8]) -> Result<()> {
        self.insert(id, token)?;
        self.unreachable.push(id as u32);
        Ok(())
    }

    fn token(&self, id: usize) -> &[u8] {
        let span = self.spans[id];
        &self.arena[span.start as usize..][..span.length as usize]
    }

    /// The finished vocabulary.
    ///
    /// # Errors
    /// When two ids have the same bytes, or one of the 256 single bytes has no id.
    pub fn build(self) -> Result<Vocabulary> {
        let name = self.name;
        let refuse = |reason| Error::Vocabulary { name: name.clone(), reason };
        // A load of at most one half keeps probe sequences short.
        let bits = (self.spans.len().max(256) * 2).next_power_of_two().trailing_zeros();
        let mut vocabulary = Vocabulary {
            arena: self.arena,
            spans: self.spans,
            index: vec![0; 1 << bits],
            shift: 64 - bits,
            num_tokens: 0,
            unreachable: self.unreachable,
        };
        vocabulary.unreachable.sort_unstable();
        for id in 0..vocabulary.spans.len() as u32 {
            if vocabulary.token(id).is_empty() || vocabulary.unreachable.binary_search(&id).is_ok() {
                continue;
            }
            if let Err(other) = vocabulary.index_token(id) {
                let token = shown(vocabulary.token(id));
                return Err(refuse(format!("ids {other} and {id} are both {token}; tokens are unique")));
            }
            vocabulary.num_tokens += 1;
        }
        let missing = |byte: &u8| vocabulary.id(&[*byte]).is_none();
        if let Some(byte) = (0..=255).find(missing) {
            let remedy = "train with the whole byte alphabet";
            return Err(refuse(format!(
                "no token for the single byte {byte:#04x}; expected all 256 bytes; {remedy}"
            )));
        }
        Ok(vocabulary)
    }
}

impl Vocabulary {
    fn index_token(&mut self, id: u32) -> std::result::Result<(), u32> {
        let token = self.token(id);
        let mask = self.index.len() - 1;
        let mut slot = (hash(token) >> self.shift) as usize;
        while self.index[slot] != 0 {
            let other = self.index[slot] - 1;
            if self.token(other) == token {
                return Err(other);
            }
            slot = (slot + 1) & mask;
        }
        self.index[slot] = id + 1;
        Ok(())
    }

    /// The id of a token.
    #[inline]
    pub fn id(&self, token: &[u8]) -> Option<u32> {
        let mask = self.index.len() - 1;
        let mut slot = (hash(token) >> self.shift) as usize;
        loop {
            match self.index[slot] {
                0 => return None,
                entry if self.token(entry - 1) == token => return Some(entry - 1),
                _ => slot = (slot + 1) & mask,
            }
        }
    }

    /// The bytes of a token; empty where `id` is no mergeable token.
    #[inline]
    pub fn token(&self, id: u32) -> &[u8] {
        match self.spans.get(id as usize) {
            Some(span) => &self.arena[span.start as usize..][..span.length as usize],
            None => &[],
        }
    }

    /// One past the largest id.
    pub fn num_ids(&self) -> usize {
        self.spans.len()
    }

    /// How many tokens merging can give.
    pub fn num_tokens(&self) -> usize {
        self.num_tokens
    }

    /// Ids that decode and never come out of merging, in order.
    pub fn unreachable(&self) -> &[u32] {
        &self.unreachable
    }

    /// Ids and bytes of all tokens, in the order of ids.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &[u8])> {
        (0..self.spans.len() as u32).map(|id| (id, self.token(id))).filter(|(_, token)| !token.is_empty())
    }
}

/// Folded multiplication, eight bytes a step; the last step overlaps the one before. Collisions cost time, never correctness.
#[inline]
pub(crate) fn hash(token: &[u8]) -> u64 {
    const KEY: u64 = 0x9e37_79b9_7f4a_7c15;
    let fold = |state: u64, word: u64| {
        let product = u128::from(state ^ word) * u128::from(KEY);
        (product as u64) ^ ((product >> 64) as u64)
    };
    let mut state = KEY ^ token.len() as u64;
    let last = match (token.last_chunk::<8>(), token.first_chunk::<4>(), token.last_chunk::<4>()) {
        (Some(last), ..) => {
            let (words, _) = token[..token.len() - 1].as_chunks::<8>();
            for word in words {
                state = fold(state, u64::from_le_bytes(*word));
            }
            u64::from_le_bytes(*last)
        }
        (None, Some(first), Some(last)) => {
            u64::from(u32::from_le_bytes(*first)) << 32 | u64::from(u32::from_le_bytes(*last))
        }
        _ => token.iter().fold(0, |word, &byte| word << 8 | u64::from(byte)),
    };
    fold(fold(state, last), KEY)
}

/// A token as a message shows it: text in backticks, cut when long.
pub(crate) fn shown(token: &[u8]) -> String {
    let head = &token[..token.len().min(40)];
    let dots = if token.len() > head.len() { "…" } else { "" };
    format!("`{}{dots}`", String::from_utf8_lossy(head).escape_debug())
}
