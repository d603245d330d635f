//! What happens to a text before it is split: some special tokens are taken out of it, and it may be normalized.
//!
//! ```text
//! text       Hello <tool_call> cafe◌́        raw tokens are found in the text as it is
//! parts      Hello  151657  café            then what lies between is normalized, and normalized tokens are found in that
//! ```
//! Each part is split and merged by itself, as in tiktoken and Hugging Face tokenizers. Where matches overlap, the leftmost
//! wins, and of those the longest. Composition is that of the Unicode version that Hugging Face tokenizers use (their own crate).

use std::borrow::Cow;

use aho_corasick::{AhoCorasick, MatchKind};
use unicode_normalization_alignments::{IsNormalized, UnicodeNormalization, is_nfc_quick};

use super::definition::{Definition, Normalizer, SpecialToken};
use super::vocab::shown;
use crate::error::{Error, Result};

/// Special tokens that are to be found in texts, and the normalizer.
#[derive(Clone, Debug)]
pub struct Rewriter {
    raw: Option<Finder>,
    normalized: Option<Finder>,
    normalizer: Normalizer,
}

/// A part of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// To be split and merged.
    Text(Cow<'a, str>),
    /// A special token.
    Special(u32),
}

#[derive(Clone, Debug)]
struct Finder {
    automaton: AhoCorasick,
    ids: Vec<u32>,
}

impl Finder {
    fn new(tokens: &[(String, u32)]) -> std::result::Result<Option<Self>, String> {
        if tokens.is_empty() {
            return Ok(None);
        }
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(tokens.iter().map(|(content, _)| content))
            .map_err(|error| format!("cannot search for its special tokens: {error}"))?;
        Ok(Some(Self { automaton, ids: tokens.iter().map(|&(_, id)| id).collect() }))
    }

    fn cut<'a>(&self, text: &'a str, mut plain: impl FnMut(&'a str) -> Vec<Part<'a>>) -> Vec<Part<'a>> {
        let (mut parts, mut done) = (Vec::new(), 0);
        for found in self.automaton.find_iter(text) {
            parts.extend(plain(&text[done..found.start()]));
            parts.push(Part::Special(self.ids[found.pattern().as_usize()]));
            done = found.end();
        }
        parts.extend(plain(&text[done..]));
        parts
    }
}

impl Rewriter {
    /// A rewriter that finds the tokens which are never plain text, and those that `allowed` picks.
    pub(super) fn new(definition: &Definition, allowed: impl Fn(&SpecialToken) -> bool) -> Result<Self> {
        let refuse = |reason| Error::Vocabulary { name: definition.name.clone(), reason };
        let (mut raw, mut normalized) = (Vec::new(), Vec::new());
        for token in definition.specials.iter().filter(|token| !token.plain_text || allowed(token)) {
            if token.strip_left || token.strip_right || token.single_word {
                let content = shown(token.content.as_bytes());
                return Err(refuse(format!(
                    "special token {content} with lstrip, rstrip or single_word is not supported"
                )));
            }
            match token.normalized && definition.normalizer != Normalizer::None {
                true => normalized.push((composed(&token.content), token.id)),
                false => raw.push((token.content.clone(), token.id)),
            }
        }
        Ok(Self {
            raw: Finder::new(&raw).map_err(refuse)?,
            normalized: Finder::new(&normalized).map_err(refuse)?,
            normalizer: definition.normalizer,
        })
    }

    /// Whether `text` goes through as it is.
    pub fn keeps(&self, text: &str) -> bool {
        let found = |finder: &Option<Finder>| finder.as_ref().is_some_and(|it| it.automaton.is_match(text));
        !found(&self.raw) && !found(&self.normalized) && self.is_normalized(text)
    }

    fn is_normalized(&self, text: &str) -> bool {
        match self.normalizer {
            Normalizer::None => true,
            // Characters below U+0300 are composed and combine with nothing before them.
            Normalizer::Nfc => {
                text.is_ascii()
                    || text.chars().all(|it| it < '\u{300}')
                    || is_nfc_quick(text.chars()) == IsNormalized::Yes
            }
        }
    }

    /// The parts of `text`, none of them empty.
    pub fn parts<'a>(&self, text: &'a str) -> Vec<Part<'a>> {
        match &self.raw {
            Some(finder) => finder.cut(text, |text| self.normalized_parts(text)),
            None => self.normalized_parts(text),
        }
    }

    fn normalized_parts<'a>(&self, text: &'a str) -> Vec<Part<'a>> {
        let plain = |text: Cow<'a, str>| if text.is_empty() { vec![] } else { vec![Part::Text(text)] };
        let text = if self.is_normalized(text) { Cow::Borrowed(text) } else { Cow::Owned(composed(text)) };
        match (&self.normalized, text) {
            (None, text) => plain(text),
            (Some(finder), Cow::Borrowed(text)) => finder.cut(text, |text| plain(text.into())),
            (Some(finder), Cow::Owned(text)) => {
                let owned = |part| match part {
                    Part::Text(text) => Part::Text(Cow::Owned(text.into_owned())),
                    Part::Special(id) => Part::Special(id),
                };
                let parts = finder
                    .cut(&text, |text| if text.is_empty() { vec![] } else { vec![Part::Text(text.into())] });
                parts.into_iter().map(owned).collect()
            }
        }
    }
}

fn composed(text: &str) -> String {
    text.nfc().map(|(character, _)| character).collect()
}
