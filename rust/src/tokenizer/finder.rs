//! Finding special tokens in a text, as Hugging Face tokenizers do.
//!
//! Where matches overlap, the leftmost wins, and of those the longest. A token that is plain text is found with the others
//! and left where it is, so that it hides what it overlaps.

use std::ops::Range;

use aho_corasick::{AhoCorasick, MatchKind};

use super::definition::SpecialToken;

/// Tokens to find, all in one pass.
#[derive(Clone, Debug)]
pub(super) struct Finder {
    automaton: AhoCorasick,
    tokens: Vec<Wanted>,
}

#[derive(Clone, Copy, Debug)]
struct Wanted {
    id: u32,
    is_taken: bool,
    strip_left: bool,
    strip_right: bool,
    single_word: bool,
}

/// A piece of a text; all pieces together are the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// Text without special tokens, not empty.
    Plain(Range<usize>),
    /// A special token, with the whitespace that it takes.
    Special(u32, Range<usize>),
}

impl Finder {
    /// A finder of `tokens`, spelled as `content` says, that takes those which `is_taken` picks; none when it picks none.
    pub(super) fn new<'a>(
        tokens: impl Iterator<Item = &'a SpecialToken>,
        content: impl Fn(&SpecialToken) -> String,
        is_taken: impl Fn(&SpecialToken) -> bool,
    ) -> Result<Option<Self>, String> {
        let wanted = |token: &SpecialToken| Wanted {
            id: token.id,
            is_taken: is_taken(token),
            strip_left: token.strip_left,
            strip_right: token.strip_right,
            single_word: token.single_word,
        };
        let (contents, tokens): (Vec<String>, Vec<Wanted>) =
            tokens.map(|token| (content(token), wanted(token))).unzip();
        if !tokens.iter().any(|token| token.is_taken) {
            return Ok(None);
        }
        let automaton = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(contents);
        let automaton =
            automaton.map_err(|error| format!("cannot search for its special tokens: {error}"))?;
        Ok(Some(Self { automaton, tokens }))
    }

    /// The matches that are taken, without the whitespace around them.
    fn found<'a>(&'a self, text: &'a str) -> impl Iterator<Item = (Wanted, Range<usize>)> + 'a {
        let matches = self.automaton.find_iter(text);
        let found = matches.map(|found| (self.tokens[found.pattern().as_usize()], found.range()));
        found.filter(|(token, range)| token.is_taken && (!token.single_word || is_single(text, range)))
    }

    /// Whether there is a token to take in `text`.
    pub(super) fn finds_any(&self, text: &str) -> bool {
        self.found(text).next().is_some()
    }

    /// The pieces of `text`.
    pub(super) fn cuts(&self, text: &str) -> Vec<Cut> {
        let (mut cuts, mut done) = (Vec::new(), 0);
        for (token, Range { mut start, mut end }) in self.found(text) {
            if start < done {
                continue; // in the whitespace that the token before has taken
            }
            if token.strip_left {
                start = text[..start].trim_end().len().max(done);
            }
            if token.strip_right {
                end = text.len() - text[end..].trim_start().len();
            }
            if done < start {
                cuts.push(Cut::Plain(done..start));
            }
            cuts.push(Cut::Special(token.id, start..end));
            done = end;
        }
        if done < text.len() {
            cuts.push(Cut::Plain(done..text.len()));
        }
        cuts
    }
}

/// Whether no character of a word is beside `range`.
fn is_single(text: &str, range: &Range<usize>) -> bool {
    let is_word = |character: char| regex_syntax::is_word_character(character);
    let before = text[..range.start].chars().next_back();
    let after = text[range.end..].chars().next();
    !before.is_some_and(is_word) && !after.is_some_and(is_word)
}
