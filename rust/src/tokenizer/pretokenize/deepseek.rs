//! DeepSeek V3's three expressions in one pass, one character at a time.
//!
//! ```text
//! \p{N}{1,3}            numbers, and
//! [一-龥぀-ゟ゠-ヿ]+     ideographs and kana: what lies between them is a stretch with an end of its own, where `(?!\S)` holds
//! [!-~][A-Za-z]+        within a stretch: one ASCII symbol and its letters,
//! .?[\p{L}\p{M}]+         a word with any one character before it that is no letter, symbol or newline,
//!  ?[\p{P}\p{S}]+[\r\n]*  symbols, their newlines, and whitespace as in GPT-4's pattern
//! ```
//! Characters that none of these match (control characters, unassigned ones) are pretokens together, up to the next match.
//! Nothing looks back: where a pretoken ends depends only on what follows its start.

use super::classes::{Classes, LETTER, MARK, NEWLINE, NUMBER, SPACE, SYMBOL, decode};

/// Ideographs and kana, as the second expression has them; they are in no class of the third.
const IDEOGRAPH: u16 = 1 << 8;
const WORD: u16 = (LETTER | MARK) as u16;
const SYMBOLS: u16 = SYMBOL as u16;
const SPACES: u16 = SPACE as u16;
const NEWLINES: u16 = NEWLINE as u16;
const NUMBERS: u16 = NUMBER as u16;
/// What begins one of the third expression's matches by itself.
const ALWAYS_MATCHES: u16 = WORD | SYMBOLS | SPACES;

/// Where the pretoken that begins at `start` ends. `text` is UTF-8, `start` is inside it and begins a character.
pub(super) fn next(text: &[u8], start: usize) -> usize {
    let cursor = Cursor { text, classes: Classes::get() };
    let (class, length) = cursor.class(start);
    let after = start + length;
    if class & NUMBERS != 0 {
        return cursor.numbers(start);
    }
    if class == IDEOGRAPH {
        return cursor.run(after, IDEOGRAPH);
    }
    if text[start].is_ascii_punctuation() && text.get(after).is_some_and(u8::is_ascii_alphabetic) {
        let is_letter = |byte: &&u8| byte.is_ascii_alphabetic();
        return after + text[after..].iter().take_while(is_letter).count();
    }
    let may_lead = class & (NEWLINES | LETTER as u16 | SYMBOLS) == 0;
    if may_lead && cursor.class(after).0 & WORD != 0 {
        return cursor.run(after, WORD);
    }
    if class & WORD != 0 {
        return cursor.run(after, WORD);
    }
    let symbols = start + usize::from(text[start] == b' ');
    if cursor.class(symbols).0 & SYMBOLS != 0 {
        let end = cursor.run(symbols, SYMBOLS);
        let is_newline = |byte: &&u8| matches!(byte, b'\r' | b'\n');
        return end + text[end..].iter().take_while(is_newline).count();
    }
    if class & SPACES != 0 {
        return cursor.spaces(start);
    }
    cursor.unmatched(after)
}

struct Cursor<'a> {
    text: &'a [u8],
    classes: &'static Classes,
}

impl Cursor<'_> {
    /// Class bits and length at `at`; length 0 at the end.
    #[inline(always)]
    fn class(&self, at: usize) -> (u16, usize) {
        match self.text.get(at) {
            Some(&byte) if byte < 0x80 => (self.classes.ascii()[usize::from(byte)].into(), 1),
            Some(_) => {
                let (code_point, length) = decode(self.text, at);
                let is_ideograph = matches!(code_point, 0x3040..=0x30ff | 0x4e00..=0x9fa5);
                (if is_ideograph { IDEOGRAPH } else { self.classes.of(code_point).into() }, length)
            }
            None => (0, 0),
        }
    }

    /// The end of the run from `at` of characters with any of `classes`.
    #[inline(always)]
    fn run(&self, mut at: usize, classes: u16) -> usize {
        loop {
            let (class, length) = self.class(at);
            if class & classes == 0 {
                return at;
            }
            at += length;
        }
    }

    /// The end of at most three numbers.
    fn numbers(&self, mut at: usize) -> usize {
        for _ in 0..3 {
            let (class, length) = self.class(at);
            if class & NUMBERS == 0 {
                break;
            }
            at += length;
        }
        at
    }

    /// The end of the whitespace pretoken at `start`.
    fn spaces(&self, start: usize) -> usize {
        let end = self.run(start, SPACES);
        if let Some(newline) = self.text[start..end].iter().rposition(|byte| matches!(byte, b'\r' | b'\n')) {
            return start + newline + 1;
        }
        let (class, length) = self.class(end);
        if length == 0 || class & (NUMBERS | IDEOGRAPH) != 0 {
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
            let is_matched = class & (ALWAYS_MATCHES | NUMBERS | IDEOGRAPH) != 0;
            if length == 0 || is_matched || self.class(at + length).0 & WORD != 0 {
                return at;
            }
            at += length;
        }
    }
}
