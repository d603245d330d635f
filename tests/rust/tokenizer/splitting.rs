//! Every way to split gives what the pattern's own expression gives.

use std::sync::LazyLock;

use nanofast::tokenizer::pretokenize::{Family, RegexSplitter};
use nanofast::tokenizer::{Pattern, Stage};
use proptest::prelude::*;

use super::agreement::check_splitters;
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

type Loaded = (&'static str, Family, RegexSplitter);

pub(super) static LOADED: LazyLock<Vec<Loaded>> = LazyLock::new(|| {
    let load = |(name, pattern): (&'static str, Pattern)| {
        let family = Family::of(&pattern).unwrap_or_else(|| panic!("{name} is well known"));
        (name, family, RegexSplitter::new(name, &pattern).expect("the pattern compiles"))
    };
    let single = PATTERNS.iter().map(|&(name, regex)| (name, Pattern::tiktoken(regex)));
    single.chain([("DeepSeek", deepseek())]).map(load).collect()
});

/// DeepSeek V3's three expressions, as its `tokenizer.json` has them.
fn deepseek() -> Pattern {
    let stage = |regex: &str| Stage { regex: regex.into(), oniguruma: true, keep_gaps: true };
    let symbols = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"##;
    let rest =
        "[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+";
    let ideographs = "[\u{4e00}-\u{9fa5}\u{3040}-\u{309f}\u{30a0}-\u{30ff}]+";
    Pattern { stages: vec![stage(r"\p{N}{1,3}"), stage(ideographs), stage(&format!("{symbols}|{rest}"))] }
}

fn check(text: &str) {
    for (name, family, slow) in &*LOADED {
        check_splitters(name, *family, &mut slow.clone(), text);
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
    cases::is_long()
        || scalar < '\u{600}'
        || ('\u{2000}'..'\u{2100}').contains(&scalar)
        || u32::from(scalar) % 97 == 0
}

#[test]
fn an_unknown_pattern_has_no_family() {
    assert_eq!(Family::of(&Pattern::tiktoken(r"\S+|\s+")), None);
    assert_eq!(Family::of(&Pattern { stages: Vec::new() }), None);
}

#[test]
fn a_pattern_that_engines_read_differently_has_a_family_under_one_of_them() {
    let mut pattern = Pattern::tiktoken(PATTERNS[2].1);
    assert!(PATTERNS[2].1.contains(r"\p{N}{1,3}+") && Family::of(&pattern).is_some());
    pattern.stages[0].oniguruma = true;
    assert_eq!(Family::of(&pattern), None);
    let mut splitter = RegexSplitter::new("cl100k", &pattern).unwrap();
    assert_eq!(splitter.split("1234567").unwrap(), std::slice::from_ref(&(0..7)));
    for (name, regex) in &PATTERNS[3..] {
        let mut pattern = Pattern::tiktoken(regex);
        pattern.stages[0].oniguruma = true;
        assert!(Family::of(&pattern).is_some(), "{name} is read alike by both");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_implementation_splits_any_text_like_the_expression(text in cases::texts()) {
        check(&text);
    }
}
