//! Every way to split gives what the pattern's own expression gives.

use std::sync::LazyLock;

use nanofast::tokenizer::Pattern;
use nanofast::tokenizer::pretokenize::{Family, FamilySplitter, Implementation, RegexSplitter, Starts};
use proptest::prelude::*;

use super::cases;

/// A pattern of each family and variant, as its vocabulary spells it.
const PATTERNS: &[(&str, &str)] = &[
    ("r50k", r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"),
    ("GPT-2", r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"),
    (
        "cl100k",
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
    ),
    (
        "Llama 3",
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
    (
        "Qwen",
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
    (
        "nanochat",
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
    ),
    (
        "o200k",
        concat!(
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
            r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
            r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ),
    ),
];

/// All starts, through a buffer so small that it fills again and again.
fn starts(splitter: FamilySplitter, text: &str) -> Vec<usize> {
    let (mut starts, mut at, mut buffer) = (Vec::new(), 0, [0; 70]);
    while at < text.len() {
        let mut part = Starts::new(&mut buffer);
        let next = splitter.fill(text, at, &mut part);
        let count = part.len();
        assert!(next > at, "no progress at {at} of {text:?}");
        starts.extend(buffer[..count].iter().map(|&start| at + start as usize));
        at = next;
    }
    starts
}

type Loaded = (&'static str, Family, RegexSplitter);

static LOADED: LazyLock<Vec<Loaded>> = LazyLock::new(|| {
    let load = |&(name, regex): &(&'static str, &str)| {
        let pattern = Pattern::tiktoken(regex);
        let family = Family::of(&pattern).unwrap_or_else(|| panic!("{name} is well known"));
        (name, family, RegexSplitter::new(name, &pattern).expect("the pattern compiles"))
    };
    PATTERNS.iter().map(load).collect()
});

fn check(text: &str) {
    for (name, family, slow) in &*LOADED {
        let (family, mut slow) = (*family, slow.clone());
        let pieces = slow.split(text).unwrap();
        assert!(pieces.windows(2).all(|pair| pair[0].end == pair[1].start), "{name} leaves gaps in {text:?}");
        let expected: Vec<usize> = pieces.iter().map(|piece| piece.start).collect();
        for implementation in Implementation::available() {
            let splitter = FamilySplitter::with(family, implementation).unwrap();
            assert_eq!(starts(splitter, text), expected, "{name} {implementation:?} {text:?}");
        }
    }
}

#[test]
fn every_implementation_splits_like_the_expression() {
    cases::known().iter().for_each(|text| check(text));
}

#[test]
fn every_character_has_the_class_that_the_expression_gives_it() {
    // Each scalar between letters, digits and spaces; a thousand a text, so that windows see them side by side.
    let scalars: Vec<char> =
        (0..=0x10_ffff).filter_map(char::from_u32).filter(|it| is_sampled(*it)).collect();
    for chunk in scalars.chunks(1000) {
        check(&chunk.iter().map(|it| format!("{it}a {it}1{it}")).collect::<String>());
    }
}

/// All of the first planes' scripts thinly, Latin and punctuation wholly; every scalar in the long profile.
fn is_sampled(scalar: char) -> bool {
    let long = std::env::var("NANOFAST_TEST_PROFILE").is_ok_and(|profile| profile == "long");
    long || scalar < '\u{600}' || ('\u{2000}'..'\u{2100}').contains(&scalar) || u32::from(scalar) % 97 == 0
}

#[test]
fn an_unknown_pattern_has_no_family() {
    assert_eq!(Family::of(&Pattern::tiktoken(r"\S+|\s+")), None);
    assert_eq!(Family::of(&Pattern { stages: Vec::new() }), None);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_implementation_splits_any_text_like_the_expression(text in cases::texts()) {
        check(&text);
    }
}
