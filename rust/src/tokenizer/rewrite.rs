//! What happens to a text before it is split: some special tokens are taken out of it, and it may be normalized.
//!
//! ```text
//! text       Hello <tool_call> cafe◌́        raw tokens are found in the text as it is
//! parts      Hello  151657  café            then what lies between is normalized, and normalized tokens are found in that
//! ```
//! Each part is split and merged by itself, as in tiktoken and Hugging Face tokenizers. Composition is that of the Unicode
//! version that Hugging Face tokenizers use (their own crate).

use std::borrow::Cow;
use std::ops::Range;

use unicode_normalization_alignments::{IsNormalized, UnicodeNormalization, is_nfc_quick};

use super::definition::{Definition, Normalizer, SpecialToken};
use super::finder::{Cut, Finder};
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

/// Bytes of the parts of a text, and where they come from in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stretch {
    /// These bytes of the text as they are.
    Same(Range<usize>),
    /// So many bytes that stand for these of the text.
    Composed(usize, Range<usize>),
    /// A special token, with what it takes of the text.
    Special(Range<usize>),
}

impl Rewriter {
    /// A rewriter that finds the tokens which are never plain text, and those that `allowed` picks.
    pub(super) fn new(definition: &Definition, allowed: impl Fn(&SpecialToken) -> bool) -> Result<Self> {
        let normalizer = definition.normalizer;
        let finder = |normalized: bool| {
            let tokens = definition.specials.iter().filter(|token| token.normalized == normalized);
            let content = |token: &SpecialToken| match normalized {
                true if normalizer == Normalizer::Nfc => composed(&token.content),
                _ => token.content.clone(),
            };
            Finder::new(tokens, content, |token| !token.plain_text || allowed(token))
        };
        let refuse = |reason| Error::Vocabulary { name: definition.name.clone(), reason };
        Ok(Self {
            raw: finder(false).map_err(refuse)?,
            normalized: finder(true).map_err(refuse)?,
            normalizer,
        })
    }

    /// Whether `text` goes through as it is.
    pub fn keeps(&self, text: &str) -> bool {
        let found = |finder: &Option<Finder>| finder.as_ref().is_some_and(|it| it.finds_any(text));
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
        let mut parts = Vec::new();
        for cut in cuts(&self.raw, text) {
            match cut {
                Cut::Special(id, _) => parts.push(Part::Special(id)),
                Cut::Plain(range) => self.add_normalized(&text[range], &mut parts),
            }
        }
        parts
    }

    fn add_normalized<'a>(&self, text: &'a str, parts: &mut Vec<Part<'a>>) {
        let whole = if self.is_normalized(text) { Cow::Borrowed(text) } else { Cow::Owned(composed(text)) };
        for cut in cuts(&self.normalized, &whole) {
            parts.push(match (cut, &whole) {
                (Cut::Special(id, _), _) => Part::Special(id),
                (Cut::Plain(range), Cow::Borrowed(text)) => Part::Text(Cow::Borrowed(&text[range])),
                (Cut::Plain(range), Cow::Owned(text)) => Part::Text(Cow::Owned(text[range].to_owned())),
            });
        }
    }

    /// Where the bytes of the parts come from.
    pub(super) fn stretches(&self, text: &str) -> Vec<Stretch> {
        let mut stretches = Vec::new();
        for cut in cuts(&self.raw, text) {
            match cut {
                Cut::Special(_, range) => stretches.push(Stretch::Special(range)),
                Cut::Plain(range) => self.add_stretches(text, range, &mut stretches),
            }
        }
        stretches
    }

    fn add_stretches(&self, text: &str, range: Range<usize>, stretches: &mut Vec<Stretch>) {
        let plain = &text[range.clone()];
        if self.is_normalized(plain) {
            let moved = |it: Range<usize>| range.start + it.start..range.start + it.end;
            stretches.extend(cuts(&self.normalized, plain).into_iter().map(|cut| match cut {
                Cut::Special(_, it) => Stretch::Special(moved(it)),
                Cut::Plain(it) => Stretch::Same(moved(it)),
            }));
            return;
        }
        let (whole, sources) = aligned(plain, range.start);
        let source_of = |it: &Range<usize>| sources[it.start].start..sources[it.end - 1].end;
        for cut in cuts(&self.normalized, &whole) {
            match cut {
                Cut::Special(_, it) => stretches.push(Stretch::Special(source_of(&it))),
                Cut::Plain(it) => {
                    stretches.extend(whole[it.clone()].char_indices().map(|(at, character)| {
                        let bytes = it.start + at..it.start + at + character.len_utf8();
                        Stretch::Composed(character.len_utf8(), source_of(&bytes))
                    }))
                }
            }
        }
    }
}

fn cuts(finder: &Option<Finder>, text: &str) -> Vec<Cut> {
    match finder {
        Some(finder) => finder.cuts(text),
        None if text.is_empty() => Vec::new(),
        None => vec![Cut::Plain(0..text.len())],
    }
}

fn composed(text: &str) -> String {
    text.nfc().map(|(character, _)| character).collect()
}

/// `text` composed, and for each of its bytes where its character comes from, counted from `start`.
fn aligned(text: &str, start: usize) -> (String, Vec<Range<usize>>) {
    let (mut whole, mut sources) = (String::new(), Vec::new());
    let mut lengths = text.chars().map(char::len_utf8);
    let mut source = start..start;
    for (character, change) in text.nfc() {
        // 1: an additional character of the one before; 0: one for one; -n: one for 1 + n.
        let taken: usize = lengths.by_ref().take(usize::try_from(1 - change).unwrap_or(0)).sum();
        if taken > 0 {
            source = source.end..source.end + taken;
        }
        whole.push(character);
        sources.extend(std::iter::repeat_n(source.clone(), character.len_utf8()));
    }
    (whole, sources)
}
