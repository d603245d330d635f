//! Walks a text window by window and writes down where its pretokens start.

use super::classes::{Classes, LETTER, LOWER, MARK, NEWLINE, NUMBER, SPACE, UPPER, decode};
use super::family::Family;
use super::isa::Isa;
use super::scalar;
use super::window::{Window, low_bits, with_contractions};

const WIDTH: usize = 64;

/// Appends to `starts` where the pretokens of `text[from..]` start, relative to `from`, until the text ends or `starts`
/// has no room for a window more. Returns where the first pretoken begins that is not in it, or the text's length.
///
/// # Safety
/// The processor has the instructions of `I`. `text` is UTF-8 and `from` is where a pretoken starts.
#[inline(always)]
#[expect(unsafe_code, reason = "calls the operations of one processor family")]
pub(super) unsafe fn fill<I: Isa>(
    family: Family,
    text: &[u8],
    from: usize,
    starts: &mut Starts<'_>,
) -> usize {
    let classes = Classes::get();
    let mut at = from;
    while at < text.len() {
        let Some(room) = starts.room() else { return at };
        let (base, rest) = ((at - from) as u32, &text[at..]);
        // Windows with text behind them are the common ones: compiled by themselves, with what they know as constants.
        // SAFETY: the caller's.
        let decided = unsafe {
            match rest.first_chunk() {
                Some(bytes) if rest.len() > WIDTH => {
                    starts_in::<I, false>(family, classes, text, at, I::load(bytes), WIDTH)
                }
                _ => starts_in::<I, true>(family, classes, text, at, I::load_part(rest), rest.len()),
            }
        };
        if decided.is_last {
            // SAFETY: the caller's.
            unsafe { I::positions(decided.starts, base, room) };
            starts.advance(decided.starts.count_ones() as usize);
            return text.len();
        }
        // The next window begins at the last border that can be seen without deciding, so that it need not wait for this
        // one; else at the last start.
        let borders = if decided.borders != 0 { decided.borders } else { decided.starts };
        let last = 63 - borders.leading_zeros();
        if last == 0 {
            room[0] = base;
            starts.advance(1);
            at = scalar::next(family, text, at);
            continue;
        }
        let before_last = decided.starts & ((1 << last) - 1);
        // SAFETY: the caller's.
        unsafe { I::positions(before_last, base, room) };
        starts.advance(before_last.count_ones() as usize);
        at += last as usize;
    }
    text.len()
}

/// [`fill`], compiled for each family by itself, so that masks which it does not use are not computed.
///
/// # Safety
/// As [`fill`].
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[inline(always)]
#[expect(unsafe_code, reason = "calls the operations of one processor family")]
pub(super) unsafe fn fill_by_family<I: Isa>(
    family: Family,
    text: &[u8],
    from: usize,
    starts: &mut Starts<'_>,
) -> usize {
    // SAFETY: the caller's.
    unsafe {
        match family {
            Family::Gpt2 => fill::<I>(Family::Gpt2, text, from, starts),
            Family::Gpt4 { digits, whole_tail } => {
                fill::<I>(Family::Gpt4 { digits, whole_tail }, text, from, starts)
            }
            Family::Gpt4o => fill::<I>(Family::Gpt4o, text, from, starts),
            Family::DeepSeek => scalar::fill(family, text, from, starts),
        }
    }
}

struct Decided {
    /// One bit a byte of the window; behind the last border they may be wrong, if there is one.
    starts: u64,
    /// Some of the starts, known at once; what lies before them is decided.
    borders: u64,
    /// Whether the decision covers the end of the text.
    is_last: bool,
}

/// `ENDS`: whether the text ends with the window.
///
/// # Safety
/// As [`fill`]; `vector` has the `length` bytes of `text` from `at`, then zeros; all 64, if not `ENDS`.
#[inline(always)]
#[expect(unsafe_code, reason = "calls the operations of one processor family")]
unsafe fn starts_in<I: Isa, const ENDS: bool>(
    family: Family,
    classes: &Classes,
    text: &[u8],
    at: usize,
    vector: I::Bytes,
    length: usize,
) -> Decided {
    let length = if ENDS { length } else { WIDTH };
    let valid = low_bits(length as u32);
    // SAFETY: the caller's, here and below.
    let high = unsafe { I::at_least(vector, 0x80) };
    // A blank behind a character that is no whitespace: no pattern takes it into the pretoken before.
    // SAFETY: as above.
    let (blanks, text_bytes) = unsafe { (I::equal(vector, b' '), I::at_least(vector, b' ' + 1)) };
    let borders = blanks & (text_bytes & !high) << 1;
    // SAFETY: as above.
    let class = unsafe { I::classes(vector, classes) };
    if high == 0 {
        // SAFETY: as above.
        let window = unsafe { window_of::<I>(vector, class, |mask| mask & valid, length as u32, ENDS) };
        let decision = window.decide_ascii(family, borders != 0);
        let starts =
            with_contractions(family, text, at, decision.starts, decision.apostrophes & valid) & valid;
        return Decided { starts, borders, is_last: decision.is_last };
    }
    // SAFETY: as above.
    let leads = unsafe { I::at_least(vector, 0xc0) };
    let heads = (!high | leads) & valid;
    let mut class = class;
    let mut rest = leads & valid;
    while rest != 0 {
        let byte = rest.trailing_zeros();
        rest &= rest - 1;
        // SAFETY: as above.
        class = unsafe { I::with(class, byte, classes.of(decode(text, at + byte as usize).0)) };
    }
    // SAFETY: as above.
    let chars = unsafe { I::mask(heads) };
    // SAFETY: as above.
    let window =
        unsafe { window_of::<I>(vector, class, |mask| I::extract(mask, chars), heads.count_ones(), ENDS) };
    let decision = window.decide(family);
    // SAFETY: as above.
    let (starts, apostrophes) =
        unsafe { (I::deposit(decision.starts, chars), I::deposit(decision.apostrophes, chars)) };
    let borders = if decision.is_whole { borders } else { 0 };
    let starts = with_contractions(family, text, at, starts, apostrophes) & valid;
    Decided { starts, borders, is_last: decision.is_last }
}

/// # Safety
/// As [`fill`].
#[inline(always)]
#[expect(unsafe_code, reason = "calls the operations of one processor family")]
unsafe fn window_of<I: Isa>(
    vector: I::Bytes,
    class: I::Bytes,
    chars: impl Fn(u64) -> u64,
    num_chars: u32,
    is_last: bool,
) -> Window {
    // SAFETY: the caller's.
    let (any, equal) =
        (|bits| chars(unsafe { I::any(class, bits) }), |byte| chars(unsafe { I::equal(vector, byte) }));
    Window {
        letters: any(LETTER),
        numbers: any(NUMBER),
        spaces: any(SPACE),
        newlines: any(NEWLINE),
        blanks: equal(b' '),
        apostrophes: equal(b'\''),
        slashes: equal(b'/'),
        upper: any(UPPER),
        lower: any(LOWER),
        marks: any(MARK),
        num_chars,
        is_last,
    }
}

/// Starts of pretokens in a buffer of fixed size.
#[derive(Debug)]
pub struct Starts<'a> {
    buffer: &'a mut [u32],
    length: usize,
}

impl<'a> Starts<'a> {
    /// Starts that go to the front of `buffer`.
    pub fn new(buffer: &'a mut [u32]) -> Self {
        Self { buffer, length: 0 }
    }

    /// Room for the starts of a window.
    #[inline(always)]
    pub(super) fn room(&mut self) -> Option<&mut [u32; WIDTH]> {
        self.buffer.get_mut(self.length..)?.first_chunk_mut()
    }

    #[inline(always)]
    pub(super) fn advance(&mut self, count: usize) {
        self.length += count;
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }
}
