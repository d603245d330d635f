//! Pretoken starts in a window of 64 bytes, decided with arithmetic on bit masks.
//!
//! ```text
//! text       T h e   c a t ' s   m a t
//! letters    1 1 1 . 1 1 1 . 1 . 1 1 1       one bit a character, the first character in bit 0
//! starts     1 . . 1 . . . 1 . 1 . . .
//! ```
//! A window begins at the start of a pretoken and nothing in the patterns looks back, so windows share no state. Near its
//! end a window leaves undecided what depends on text behind it; the next window begins at the last start that is
//! decided. What no window can decide (one pretoken as long as the window, a rare mix of scripts) is left to `scalar`.

use super::family::Family;
use super::scalar::contraction;

/// Characters of a window by class, one bit each; `spaces` includes `newlines`, and `blanks` are U+0020.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Window {
    pub(super) letters: u64,
    pub(super) numbers: u64,
    pub(super) spaces: u64,
    pub(super) newlines: u64,
    pub(super) blanks: u64,
    pub(super) apostrophes: u64,
    pub(super) slashes: u64,
    pub(super) upper: u64,
    pub(super) lower: u64,
    pub(super) marks: u64,
    /// Characters in the window, 1 to 64.
    pub(super) num_chars: u32,
    /// Whether the text ends with the window.
    pub(super) is_last: bool,
}

/// What a window says.
pub(super) struct Decision {
    /// Starts of pretokens, one bit a character; bit 0 is set.
    pub(super) starts: u64,
    /// Apostrophes that begin a contraction if the text after them is one.
    pub(super) apostrophes: u64,
    /// Whether it covers all of the window, but for whitespace at its end.
    pub(super) is_whole: bool,
    /// Whether it covers the end of the text.
    pub(super) is_last: bool,
}

#[inline(always)]
pub(super) fn low_bits(count: u32) -> u64 {
    if count >= 64 { !0 } else { (1 << count) - 1 }
}

/// The bits of `run` from each bit of `seeds` (all of them in `run`) up to the end of its run.
#[inline(always)]
fn flood(run: u64, seeds: u64) -> u64 {
    ((run.wrapping_add(seeds) ^ run) | seeds) & run
}

impl Window {
    /// The pretoken starts that are certain. Contractions are not in them.
    #[inline(always)]
    pub(super) fn decide(mut self, family: Family) -> Decision {
        let num_chars = self.num_chars;
        if family == Family::Gpt4o {
            self.leave_out_mixed_scripts();
        }
        let decision = self.decide_ascii(family, false);
        Decision { is_whole: self.num_chars == num_chars, ..decision }
    }

    /// As `decide` for a window of ASCII, which has no mixed scripts. `with_end`: starts at the window's end that are not
    /// certain may be among them.
    #[inline(always)]
    pub(super) fn decide_ascii(&self, family: Family, with_end: bool) -> Decision {
        let (starts, apostrophes) = match family {
            Family::Gpt2 => self.gpt2(),
            Family::Gpt4 { digits, whole_tail } => self.gpt4(digits, whole_tail),
            Family::Gpt4o => self.gpt4o(),
            Family::DeepSeek => unreachable!("it is split character by character"),
        };
        let starts = if with_end { starts } else { starts & self.certain() };
        Decision { starts: starts | 1, apostrophes, is_whole: true, is_last: self.is_last }
    }

    /// All of the window but a whitespace run that reaches its end, whose first character is still certain to be a start.
    #[inline(always)]
    fn certain(&self) -> u64 {
        let all = low_bits(self.num_chars);
        let not_spaces = all & !self.spaces;
        if self.is_last {
            return all;
        }
        // The bit behind the last character that is no whitespace, and everything below it.
        let keep = 65 - not_spaces.leading_zeros();
        all & low_bits(keep)
    }

    #[inline(always)]
    fn others(&self) -> u64 {
        low_bits(self.num_chars) & !(self.letters | self.numbers | self.spaces)
    }

    /// The last characters of whitespace runs that something follows in the window.
    #[inline(always)]
    fn last_spaces(&self, spaces: u64) -> u64 {
        spaces & (!self.spaces & low_bits(self.num_chars)) >> 1
    }

    #[inline(always)]
    fn gpt2(&self) -> (u64, u64) {
        let (letters, numbers, spaces, others) = (self.letters, self.numbers, self.spaces, self.others());
        let changes = (letters & !(letters << 1)) | (numbers & !(numbers << 1)) | (others & !(others << 1));
        let starts = changes & !(self.blanks << 1);
        let space_starts = (spaces & !(spaces << 1)) | self.last_spaces(spaces);
        (starts | space_starts, self.apostrophes & starts)
    }

    #[inline(always)]
    fn gpt4(&self, digits: u32, whole_tail: bool) -> (u64, u64) {
        let others = self.others();
        let absorbed = flood(self.newlines, self.newlines & others << 1);
        self.words_groups_and_spaces(others, absorbed, digits, whole_tail)
    }

    #[inline(always)]
    fn gpt4o(&self) -> (u64, u64) {
        let others = self.others();
        let may_follow = self.newlines | self.slashes;
        let absorbed = flood(may_follow, self.newlines & others << 1);
        let (starts, _) = self.words_groups_and_spaces(others & !absorbed, absorbed, 3, false);
        // Here contractions belong to the word before them, not to themselves.
        (starts | self.upper & self.lower << 1, self.apostrophes & self.letters << 1)
    }

    /// What GPT-4's and GPT-4o's patterns share; `absorbed` is what a run of `others` takes behind itself.
    #[inline(always)]
    fn words_groups_and_spaces(
        &self,
        others: u64,
        absorbed: u64,
        digits: u32,
        whole_tail: bool,
    ) -> (u64, u64) {
        let (letters, numbers) = (self.letters, self.numbers);
        let other_starts = others & !(others << 1) & !(self.blanks << 1);
        let single = other_starts & !(others >> 1);
        let spaces = self.spaces & !absorbed;
        // Any one character before letters, but not newlines, nor the last of several others.
        let before_letters = (spaces & !self.newlines) | single;
        let letter_starts = letters & !(letters << 1) & !(before_letters << 1);
        let number_starts = group_starts(numbers, digits);
        let space_starts = (spaces & !(spaces << 1)) | self.last_spaces(spaces & !self.newlines);
        let tail_starts = self.after_last_newlines(spaces, whole_tail);
        let starts = other_starts | letter_starts | number_starts | space_starts | tail_starts;
        (starts, self.apostrophes & single)
    }

    /// The first characters behind the last newline of whitespace runs.
    #[inline(always)]
    fn after_last_newlines(&self, spaces: u64, whole_tail: bool) -> u64 {
        let newlines = self.newlines & spaces;
        if newlines == 0 {
            return 0;
        }
        let plain = spaces & !newlines;
        let mut candidates = plain & newlines << 1;
        let mut starts = 0;
        while candidates != 0 {
            let first = candidates & candidates.wrapping_neg();
            candidates ^= first;
            let run = flood(plain, first);
            let behind = (run << 1) & !run;
            let at_end = behind == 0 || behind > low_bits(self.num_chars);
            if behind & newlines == 0 && !(whole_tail && at_end) {
                starts |= first;
            }
        }
        starts
    }

    /// Ends the window before the first character where GPT-4o's two kinds of words cannot be told apart by transitions:
    /// a mark that continues no word, or upper case behind a letter without case.
    #[inline(always)]
    fn leave_out_mixed_scripts(&mut self) {
        let caseless = (self.letters | self.marks) & !(self.upper | self.lower);
        if caseless == 0 {
            return;
        }
        let words = self.letters | self.marks;
        let hard = (self.marks & !(words << 1)) | (self.upper & caseless << 1);
        self.letters = words;
        if hard != 0 {
            self.end_before(hard.trailing_zeros().max(1));
        }
    }

    #[inline(always)]
    fn end_before(&mut self, num_chars: u32) {
        if num_chars >= self.num_chars {
            return;
        }
        let keep = low_bits(num_chars);
        let masks = [
            &mut self.letters,
            &mut self.numbers,
            &mut self.spaces,
            &mut self.newlines,
            &mut self.blanks,
            &mut self.apostrophes,
            &mut self.slashes,
            &mut self.upper,
            &mut self.lower,
            &mut self.marks,
        ];
        masks.into_iter().for_each(|mask| *mask &= keep);
        self.num_chars = num_chars;
        self.is_last = false;
    }
}

/// The starts of groups of at most `digits` in each run of `numbers`.
#[inline(always)]
fn group_starts(numbers: u64, digits: u32) -> u64 {
    let mut starts = numbers & !(numbers << 1);
    if digits == 1 {
        return numbers;
    }
    if digits >= 64 || numbers == 0 {
        return starts;
    }
    // Where the run goes on for a whole group.
    let mut whole = numbers;
    for distance in 1..=digits {
        whole &= numbers << distance;
    }
    let mut next = starts;
    loop {
        next = next << digits & whole;
        if next == 0 {
            return starts;
        }
        starts |= next;
    }
}

/// Moves starts to where contractions end: `starts` and `apostrophes` have one bit a byte of the window at `text[base]`.
#[inline(always)]
pub(super) fn with_contractions(
    family: Family,
    text: &[u8],
    base: usize,
    mut starts: u64,
    mut apostrophes: u64,
) -> u64 {
    let suffix = family == Family::Gpt4o;
    let mut consumed_until = 0;
    while apostrophes != 0 {
        let at = apostrophes.trailing_zeros();
        apostrophes &= apostrophes - 1;
        // The letters of a contraction are no word that could take another one.
        if suffix && at == consumed_until {
            continue;
        }
        let length = contraction(text, base + at as usize, family != Family::Gpt2) as u32;
        if length == 0 {
            continue;
        }
        consumed_until = at + length;
        let inside = low_bits(consumed_until.min(64)) & !low_bits(at + u32::from(!suffix));
        starts &= !inside;
        if consumed_until < 64 {
            starts |= 1 << consumed_until;
        }
    }
    starts
}
