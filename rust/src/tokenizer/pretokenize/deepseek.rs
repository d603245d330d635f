//! DeepSeek V3's three expressions in one pass, one character at a time.
//!
//! ```text
//! \p{N}{1,3}              numbers, three at most; what lies between them is cut on:
//! [一-龥぀-ゟ゠-ヿ]+       stretches of ideographs and kana, and stretches without them; each of both is cut on,
//!                         and where it ends, `(?!\S)` holds:
//! [!-~][A-Za-z]+          one ASCII symbol and its letters
//! .?[\p{L}\p{M}]+         a word, with any one character before it that is no letter, symbol or newline
//!  ?[\p{P}\p{S}]+[\r\n]*  symbols and their newlines; then whitespace as in GPT-4's pattern
//! ```
//! Characters that none of these match (control characters, unassigned ones) are a pretoken together, up to the next match.
//! Nothing looks back: where a pretoken ends depends only on what follows its start.

use super::classes::{Classes, LETTER, MARK, NEWLINE, NUMBER, SPACE, SYMBOL, decode};

const WORD: u8 = LETTER | MARK;

/// Where the pretoken that begins at `start` ends. `text` is UTF-8, `start` is inside it and begins a character.
pub(super) fn next(text: &[u8], start: usize) -> usize {
    let classes = Classes::get();
    if classes.at(text, start).0 & NUMBER != 0 {
        return numbers(text, start, classes);
    }
    let stretch = Stretch { text, classes, of_ideographs: is_ideograph(decode(text, start).0) };
    let (class, length) = stretch.class(start);
    let after = start + length;
    if text[start].is_ascii_punctuation() && text.get(after).is_some_and(u8::is_ascii_alphabetic) {
        let is_letter = |byte: &&u8| byte.is_ascii_alphabetic();
        return after + text[after..].iter().take_while(is_letter).count();
    }
    let may_lead = class & (NEWLINE | LETTER | SYMBOL) == 0;
    if class & WORD != 0 || (may_lead && stretch.class(after).0 & WORD != 0) {
        return stretch.run(after, WORD);
    }
    let symbols = start + usize::from(text[start] == b' ');
    if stretch.class(symbols).0 & SYMBOL != 0 {
        return stretch.run(stretch.run(symbols, SYMBOL), NEWLINE);
    }
    if class & SPACE != 0 { stretch.spaces(start) } else { stretch.unmatched(after) }
}

/// What the second expression matches.
fn is_ideograph(code_point: u32) -> bool {
    matches!(code_point, 0x3040..=0x30ff | 0x4e00..=0x9fa5)
}

/// The end of at most three numbers.
fn numbers(text: &[u8], mut at: usize, classes: &Classes) -> usize {
    for _ in 0..3 {
        let (class, length) = classes.at(text, at);
        if class & NUMBER == 0 {
            break;
        }
        at += length;
    }
    at
}

/// The part of a text that the third expression sees at once.
struct Stretch<'a> {
    text: &'a [u8],
    classes: &'static Classes,
    of_ideographs: bool,
}

impl Stretch<'_> {
    /// Class bits and length of the character at `at`; zeros where the stretch ends.
    #[inline(always)]
    fn class(&self, at: usize) -> (u8, usize) {
        let (class, length, is_ideograph) = match self.text.get(at) {
            Some(&byte) if byte < 0x80 => (self.classes.ascii()[usize::from(byte)], 1, false),
            Some(_) => {
                let (code_point, length) = decode(self.text, at);
                (self.classes.of(code_point), length, is_ideograph(code_point))
            }
            None => return (0, 0),
        };
        if class & NUMBER != 0 || is_ideograph != self.of_ideographs { (0, 0) } else { (class, length) }
    }

    /// The end of the run from `at` of characters with any of `classes`.
    #[inline(always)]
    fn run(&self, mut at: usize, classes: u8) -> usize {
        loop {
            let (class, length) = self.class(at);
            if class & classes == 0 {
                return at;
            }
            at += length;
        }
    }

    /// The end of the whitespace pretoken at `start`.
    fn spaces(&self, start: usize) -> usize {
        let end = self.run(start, SPACE);
        if let Some(newline) = self.text[start..end].iter().rposition(|byte| matches!(byte, b'\r' | b'\n')) {
            return start + newline + 1;
        }
        if self.class(end).1 == 0 {
            return end;
        }
        // The last character goes to what follows, where another is left.
        let last = (start..end).rev().find(|&at| self.text[at] & 0xc0 != 0x80).unwrap_or(start);
        if last > start { last } else { end }
    }

    /// The end of the characters that nothing matches, of which one ends at `at`.
    fn unmatched(&self, mut at: usize) -> usize {
        loop {
            let (class, length) = self.class(at);
            let is_matched = class & (WORD | SYMBOL | SPACE) != 0 || self.class(at + length).0 & WORD != 0;
            if length == 0 || is_matched {
                return at;
            }
            at += length;
        }
    }
}
