//! The class of every character, as bits, from the tables of the expression engine that the references use.
//!
//! Two levels: `pages[code point / 256]` is a row of `rows`; equal rows are stored once (about 60 kB in all).

use std::collections::HashMap;
use std::sync::LazyLock;

use regex_syntax::hir::{Class, HirKind};

/// `\p{L}`
pub(super) const LETTER: u8 = 1;
/// `\p{N}`
pub(super) const NUMBER: u8 = 1 << 1;
/// `\s`
pub(super) const SPACE: u8 = 1 << 2;
/// `[\r\n]`
pub(super) const NEWLINE: u8 = 1 << 3;
/// `[\p{Lu}\p{Lt}]`
pub(super) const UPPER: u8 = 1 << 4;
/// `\p{Ll}`
pub(super) const LOWER: u8 = 1 << 5;
/// `\p{M}`
pub(super) const MARK: u8 = 1 << 6;
/// `[\p{P}\p{S}]`
pub(super) const SYMBOL: u8 = 1 << 7;

const SETS: [(&str, u8); 8] = [
    (r"\p{L}", LETTER),
    (r"\p{N}", NUMBER),
    (r"\s", SPACE),
    (r"[\r\n]", NEWLINE),
    (r"[\p{Lu}\p{Lt}]", UPPER),
    (r"\p{Ll}", LOWER),
    (r"\p{M}", MARK),
    (r"[\p{P}\p{S}]", SYMBOL),
];

const PAGE: usize = 256;
const NUM_PAGES: usize = 0x11_0000 / PAGE;

/// Classes of all code points.
#[derive(Debug)]
pub(super) struct Classes {
    pages: Box<[u16; NUM_PAGES]>,
    rows: Vec<[u8; PAGE]>,
}

static CLASSES: LazyLock<Classes> = LazyLock::new(Classes::new);

impl Classes {
    /// The one table of the process.
    pub(super) fn get() -> &'static Self {
        &CLASSES
    }

    fn new() -> Self {
        let mut flat = vec![0_u8; NUM_PAGES * PAGE];
        for (expression, bit) in SETS {
            let hir = regex_syntax::parse(expression).expect("the class expressions are constant");
            let HirKind::Class(Class::Unicode(class)) = hir.kind() else {
                unreachable!("{expression} is a class")
            };
            for range in class.iter() {
                flat[range.start() as usize..=range.end() as usize].iter_mut().for_each(|it| *it |= bit);
            }
        }
        let (mut rows, mut seen) = (Vec::new(), HashMap::new());
        let mut pages = Box::new([0; NUM_PAGES]);
        for (page, row) in pages.iter_mut().zip(flat.as_chunks::<PAGE>().0) {
            *page = *seen.entry(row).or_insert_with(|| {
                rows.push(*row);
                (rows.len() - 1) as u16
            });
        }
        Self { pages, rows }
    }

    /// The class bits of a code point; none above U+10FFFF.
    #[inline(always)]
    pub(super) fn of(&self, code_point: u32) -> u8 {
        let Some(&page) = self.pages.get(code_point as usize / PAGE) else { return 0 };
        self.rows[usize::from(page)][code_point as usize % PAGE]
    }

    /// The class bits and the length of the character that begins at `text[at]`, where `text` is UTF-8.
    #[inline(always)]
    pub(super) fn at(&self, text: &[u8], at: usize) -> (u8, usize) {
        let (code_point, length) = decode(text, at);
        (self.of(code_point), length)
    }

    /// The classes of ASCII.
    pub(super) fn ascii(&self) -> &[u8; 128] {
        self.rows[usize::from(self.pages[0])].first_chunk().expect("a row has 256 classes")
    }
}

/// The character at `text[at]` and its length; bytes beyond the text count as zero.
#[inline(always)]
pub(super) fn decode(text: &[u8], at: usize) -> (u32, usize) {
    let byte = |offset: usize| text.get(at + offset).map_or(0, |&byte| u32::from(byte));
    let rest = |offset: usize| byte(offset) & 0x3f;
    match byte(0) {
        first @ ..0x80 => (first, 1),
        first @ ..0xe0 => ((first & 0x1f) << 6 | rest(1), 2),
        first @ ..0xf0 => ((first & 0x0f) << 12 | rest(1) << 6 | rest(2), 3),
        first => ((first & 0x07) << 18 | rest(1) << 12 | rest(2) << 6 | rest(3), 4),
    }
}
