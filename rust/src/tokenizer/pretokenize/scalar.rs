//! The well-known patterns, one character at a time: the twin of the windows, their way out of hard cases, and the
//! splitter of machines without them.
//!
//! Nothing looks back: where a pretoken ends depends only on what follows its start.

use super::classes::{Classes, LETTER, LOWER, MARK, NEWLINE, NUMBER, SPACE, UPPER};
use super::deepseek;
use super::family::Family;
use super::windows::Starts;

/// Where the pretoken that begins at `start` ends. `text` is UTF-8, `start` is inside it and begins a character.
pub(super) fn next(family: Family, text: &[u8], start: usize) -> usize {
    let cursor = Cursor { text, classes: Classes::get() };
    match family {
        Family::Gpt2 => cursor.gpt2(start),
        Family::Gpt4 { digits, whole_tail } => cursor.gpt4(start, digits, whole_tail),
        Family::Gpt4o => cursor.gpt4o(start),
        Family::DeepSeek => deepseek::next(text, start),
    }
}

/// As `FamilySplitter::fill`.
pub(super) fn fill(family: Family, text: &[u8], from: usize, starts: &mut Starts<'_>) -> usize {
    let mut at = from;
    while at < text.len() {
        let Some(room) = starts.room() else { break };
        room[0] = (at - from) as u32;
        starts.advance(1);
        at = next(family, text, at);
    }
    at
}

/// Bytes of the contraction that begins with the apostrophe at `at`; 0 where none does.
///
/// Ignoring case, `s` is also the long s, U+017F: its fold is `s`.
#[inline]
pub(super) fn contraction(text: &[u8], at: usize, ignore_case: bool) -> usize {
    let lower = |byte: u8| if ignore_case { byte.to_ascii_lowercase() } else { byte };
    let rest = &text[at + 1..];
    match *rest {
        [one, ..] if matches!(lower(one), b's' | b'd' | b'm' | b't') => 2,
        [one, two, ..] if matches!((lower(one), lower(two)), (b'l', b'l') | (b'v' | b'r', b'e')) => 3,
        [0xc5, 0xbf, ..] if ignore_case => 3,
        _ => 0,
    }
}

struct Cursor<'a> {
    text: &'a [u8],
    classes: &'static Classes,
}

impl Cursor<'_> {
    /// Class bits and length at `at`; length 0 at the end.
    #[inline(always)]
    fn class(&self, at: usize) -> (u8, usize) {
        match self.text.get(at) {
            Some(&byte) if byte < 0x80 => (self.classes.ascii()[usize::from(byte)], 1),
            Some(_) => self.classes.at(self.text, at),
            None => (0, 0),
        }
    }

    /// The end of the run from `at` whose classes satisfy `is`.
    #[inline(always)]
    fn run(&self, mut at: usize, is: impl Fn(u8) -> bool) -> usize {
        loop {
            let (class, length) = self.class(at);
            if length == 0 || !is(class) {
                return at;
            }
            at += length;
        }
    }

    fn gpt2(&self, start: usize) -> usize {
        if self.text[start] == b'\'' {
            let length = contraction(self.text, start, false);
            if length > 0 {
                return start + length;
            }
        }
        let body = start + usize::from(self.text[start] == b' ');
        let (class, length) = self.class(body);
        match class {
            _ if length == 0 => self.text.len(),
            class if class & LETTER != 0 => self.run(body, |it| it & LETTER != 0),
            class if class & NUMBER != 0 => self.run(body, |it| it & NUMBER != 0),
            class if class & SPACE == 0 => self.run(body, is_other),
            _ => self.all_but_last(start, self.run(start, |it| it & SPACE != 0)),
        }
    }

    fn gpt4(&self, start: usize, digits: u32, whole_tail: bool) -> usize {
        if self.text[start] == b'\'' {
            let length = contraction(self.text, start, true);
            if length > 0 {
                return start + length;
            }
        }
        let (class, length) = self.class(start);
        if class & LETTER != 0 {
            return self.run(start, |it| it & LETTER != 0);
        }
        if class & NUMBER != 0 {
            return self.digits(start, digits);
        }
        if class & NEWLINE == 0 && self.class(start + length).0 & LETTER != 0 {
            return self.run(start + length, |it| it & LETTER != 0);
        }
        self.other_or_space(start, whole_tail, |byte| matches!(byte, b'\r' | b'\n'))
    }

    fn gpt4o(&self, start: usize) -> usize {
        let (class, length) = self.class(start);
        if class & NUMBER != 0 {
            return self.digits(start, 3);
        }
        let lead = if class & (NEWLINE | LETTER) == 0 { Some(start + length) } else { None };
        let bare = Some(start).filter(|_| class & (LETTER | MARK) != 0);
        let candidates = [lead, bare];
        let word = candidates.iter().flatten().find_map(|&at| self.word_with_lower(at));
        if let Some(end) = word.or_else(|| candidates.iter().flatten().find_map(|&at| self.word_of_upper(at)))
        {
            let suffix =
                if self.text.get(end) == Some(&b'\'') { contraction(self.text, end, true) } else { 0 };
            return end + suffix;
        }
        self.other_or_space(start, false, |byte| matches!(byte, b'\r' | b'\n' | b'/'))
    }

    /// `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+` at `start`.
    fn word_with_lower(&self, start: usize) -> Option<usize> {
        let (mut at, mut after_caseless) = (start, None);
        loop {
            let (class, length) = self.class(at);
            if is_caseless(class) {
                after_caseless = Some(at + length);
            } else if class & UPPER == 0 {
                break;
            }
            at += length;
        }
        let end = self.run(at, |it| it & LOWER != 0 || is_caseless(it));
        // The second part needs one character at least; the first gives back as few as it can.
        if end > at { Some(end) } else { after_caseless }
    }

    /// `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+` at `start`, where no lower case follows.
    fn word_of_upper(&self, start: usize) -> Option<usize> {
        let end = self.run(start, |it| it & UPPER != 0 || is_caseless(it));
        (end > start).then_some(end)
    }

    fn digits(&self, start: usize, most: u32) -> usize {
        let (mut at, mut count) = (start, 0);
        loop {
            let (class, length) = self.class(at);
            if class & NUMBER == 0 || count == most {
                return at;
            }
            at += length;
            count += 1;
        }
    }

    /// ` ?[^\s\p{L}\p{N}]+` and the bytes that may follow it, or a part of a whitespace run.
    fn other_or_space(&self, start: usize, whole_tail: bool, may_follow: impl Fn(u8) -> bool) -> usize {
        let body = start + usize::from(self.text[start] == b' ');
        let end = self.run(body, is_other);
        if end > body {
            return self.text[end..]
                .iter()
                .position(|&byte| !may_follow(byte))
                .map_or(self.text.len(), |it| end + it);
        }
        let end = self.run(start, |it| it & SPACE != 0);
        if whole_tail && end == self.text.len() {
            return end;
        }
        match self.text[start..end].iter().rposition(|byte| matches!(byte, b'\r' | b'\n')) {
            Some(newline) => start + newline + 1,
            None => self.all_but_last(start, end),
        }
    }

    /// The whitespace run `start..end` without its last character, which goes to what follows; never empty.
    fn all_but_last(&self, start: usize, end: usize) -> usize {
        if end == self.text.len() {
            return end;
        }
        let is_start = |at: &usize| self.text[*at] & 0xc0 != 0x80;
        let last = (start..end).rev().find(is_start).unwrap_or(start);
        if last > start { last } else { end }
    }
}

fn is_other(class: u8) -> bool {
    class & (SPACE | LETTER | NUMBER) == 0
}

/// `[\p{Lm}\p{Lo}\p{M}]`: in both halves of a word of GPT-4o's pattern.
fn is_caseless(class: u8) -> bool {
    class & (LETTER | MARK) != 0 && class & (UPPER | LOWER) == 0
}
