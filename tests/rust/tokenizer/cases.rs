//! Texts that splitters and encoders of others got wrong, and a strategy for more of their kind.

use proptest::prelude::*;

/// Pieces of which awkward texts are made: each class of the patterns, in one to four bytes.
pub(crate) const PIECES: &[&str] = &[
    " ",
    " ",
    " ",
    "\n",
    "\t",
    "\r\n",
    "\r",
    "'",
    "'",
    "'s",
    "'S",
    "'ll",
    "'RE",
    "'\u{17f}",
    "s",
    "t",
    "ll",
    "Ve",
    "d",
    "M",
    "a",
    "B",
    "abc",
    "Ab",
    "aB",
    "1",
    "12",
    "1234567",
    "!",
    "--",
    "/",
    "//",
    "\0",
    "\u{e9}",
    "\u{c9}",
    "\u{1c5}",
    "\u{2b0}",
    "\u{3000}",
    "\u{a0}",
    "\u{85}",
    "\u{2028}",
    "\u{200b}",
    "\u{1c}",
    "\u{4e2d}",
    "\u{6587}",
    "\u{bd}",
    "\u{2014}",
    "\u{301}",
    "\u{200d}",
    "\u{1f600}",
    "\u{1d7d8}",
    "\u{10ffff}",
    "\u{ff}",
    "\u{30a0}",
    "\u{3099}",
    "\u{378}",
    "\u{e000}",
    "\u{1f469}\u{200d}\u{1f467}",
    "\u{1f1e9}\u{1f1ea}",
    "<|endoftext|>",
];

/// Whether the long profile was asked for.
pub(crate) fn is_long() -> bool {
    std::env::var_os("NANOFAST_TEST_LONG").is_some()
}

/// Texts of `PIECES`, long enough for several windows, with runs.
pub(crate) fn awkward() -> impl Strategy<Value = String> {
    let piece = (0..PIECES.len(), prop_oneof![8 => 1..3_usize, 1 => 3..80_usize]);
    proptest::collection::vec(piece, 0..60)
        .prop_map(|pieces| pieces.into_iter().map(|(piece, times)| PIECES[piece].repeat(times)).collect())
}

/// Any text, or an awkward one.
pub(crate) fn texts() -> impl Strategy<Value = String> {
    prop_oneof![3 => awkward(), 1 => any::<String>()]
}

/// Cases with names of their own.
pub(crate) fn known() -> Vec<String> {
    let mut cases: Vec<String> = [
        "",
        "a",
        " ",
        "\n",
        "hello world",
        "\u{a0}'self'",
        "\n\n\u{b}",
        "minutes\n    \nThere",
        "minutes\n    \n",
        "   ",
        "a   ",
        "a  \n  ",
        "!\n/\n/abc",
        "don'ts DON'Ts don't's",
        "'s's'll'lll ''s !'s",
        "a\u{301}b \u{301}c !\u{301}d 1\u{301}",
        "ABC\u{4e2d}DEF \u{4e2d}ABC \u{4e2d}Abc AbC\u{4e2d}dE",
        "1234567 12 1\u{bd}\u{bd}\u{bd}\u{bd}2",
        "\u{2014}word \u{2014}\u{2014}word \u{2014} word",
        "<|endoftext|>",
        "\u{4e2d}\u{30a0}\u{30fb}\u{4e2d} \u{4e2d}!\u{4e2d}\u{3040}\u{3040}a  \u{4e2d} 1  2\u{3099}\u{301}",
        "\u{30a0}\r\n!\u{30a0}a \u{30a0} \n\u{30fb}\n\n",
        "\u{378}\u{378}a\u{378} \u{378}1\u{1}\u{2}\u{3}b\u{1}\u{301}\u{2}!a!\u{e9} !a",
        "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
    ]
    .map(str::to_owned)
    .into();
    // Pretokens and runs that end at, before and behind the ends of windows, keys and chunks.
    for length in [15, 16, 17, 63, 64, 65, 130, 513] {
        for piece in ["a", " ", "\n", "1", "!", "'", "\u{4e2d}", "\u{301}", "A", "\u{3000}"] {
            cases.push(piece.repeat(length));
            cases.push(format!("x{}'s y", piece.repeat(length)));
            cases.push(format!("{}\n{}z", " ".repeat(length), piece.repeat(3)));
        }
    }
    cases.push("one two\n".repeat(5000));
    cases
}
