//! Training gives the merges of its definition, whatever the order of texts and the number of counters.

use std::collections::BTreeMap;

use nanofast::tokenizer::{Merges, PretokenCounts, Tokenizer, Training};
use proptest::prelude::*;

const WORDS: &str = r"\S+|\s+";

fn training(num_merges: usize) -> Training {
    Training { pattern: WORDS.into(), vocab_size: 257 + num_merges, specials: vec!["<|bos|>".into()] }
}

fn trained(training: &Training, parts: &[&[String]]) -> Tokenizer {
    let count = |texts: &&[String]| {
        let mut counts = PretokenCounts::new(training, usize::MAX).unwrap();
        texts.iter().for_each(|text| counts.add(text.as_bytes()).unwrap());
        counts
    };
    let mut parts = parts.iter().map(count);
    let mut total = parts.next().unwrap();
    parts.for_each(|part| total.absorb(part).unwrap());
    training.run(total, |_| true).unwrap().unwrap()
}

fn merges(tokenizer: &Tokenizer) -> Vec<(Vec<u8>, Vec<u8>)> {
    let Merges::List(list) = &tokenizer.definition().merges else { panic!("training lists merges") };
    let bytes = |id| tokenizer.token_bytes(id).unwrap().to_vec();
    list.iter().map(|&(left, right)| (bytes(left), bytes(right))).collect()
}

/// Training as it is defined: count all pairs of all words anew before each merge.
fn by_definition(texts: &[String], num_merges: usize, id_of: impl Fn(u8) -> u32) -> Vec<(u32, u32)> {
    let mut words: BTreeMap<&str, i64> = BTreeMap::new();
    let ends = |text: &str| text.chars().next().is_some_and(char::is_whitespace);
    for text in texts {
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let is_space = ends(rest);
            let end = rest.find(|it: char| it.is_whitespace() != is_space).unwrap_or(rest.len());
            *words.entry(&rest[..end]).or_default() += 1;
            rest = &rest[end..];
        }
    }
    let mut words: Vec<(Vec<u32>, i64)> =
        words.iter().map(|(word, count)| (word.bytes().map(&id_of).collect(), *count)).collect();
    let mut merges = Vec::new();
    for id in (256..).take(num_merges) {
        let mut counts: BTreeMap<(u32, u32), i64> = BTreeMap::new();
        for (word, count) in &words {
            word.windows(2).for_each(|pair| *counts.entry((pair[0], pair[1])).or_default() += count);
        }
        // The most frequent, and of equals the smallest pair: the first of the map.
        let Some(most) = counts.values().max() else { break };
        let pair = *counts.iter().find(|(_, count)| *count == most).unwrap().0;
        merges.push(pair);
        for (word, _) in &mut words {
            let mut merged = Vec::new();
            for &symbol in &*word {
                merged.push(symbol);
                if let [.., left, right] = *merged
                    && (left, right) == pair
                    && merged.len() > 1
                {
                    merged.truncate(merged.len() - 2);
                    merged.push(id);
                }
            }
            *word = merged;
        }
    }
    merges
}

#[test]
fn progress_is_told_and_can_stop_it() {
    let training = training(600);
    let text: String = (0..5000).map(|number: u32| format!("{} ", number * number)).collect();
    let mut counts = PretokenCounts::new(&training, usize::MAX).unwrap();
    counts.add(text.as_bytes()).unwrap();
    let mut told = Vec::new();
    let stopped = training.run(counts, |done| {
        told.push(done);
        told.len() < 2
    });
    assert!(stopped.unwrap().is_none());
    assert_eq!(told, [0, 256]);
}

#[test]
fn what_cannot_be_trained_is_refused_in_words() {
    let refused = |training: &Training| training.check().unwrap_err().to_string();
    let small = Training { vocab_size: 256, ..training(0) };
    assert!(refused(&small).starts_with("vocab_size = 256: at least 257"));
    let bad = Training { pattern: "(unclosed".into(), ..training(0) };
    assert!(PretokenCounts::new(&bad, 0).unwrap_err().to_string().contains("bad split pattern"));
    let mut counts = PretokenCounts::new(&training(0), 200).unwrap();
    let error = counts.add(b"many distinct words in a row").unwrap_err().to_string();
    assert!(error.contains("more than the limit of 200; train on less text (max_bytes=)"), "{error}");
    let error = PretokenCounts::new(&training(0), 200).unwrap().add(b"ab\xff").unwrap_err().to_string();
    assert!(error.contains("byte 2"), "{error}");
}

#[test]
fn a_text_that_is_used_up_gives_fewer_tokens() {
    let tokenizer = trained(&training(100), &[&["abc abc".into()]]);
    assert_eq!(merges(&tokenizer).len(), 2);
    assert_eq!(tokenizer.bos_id(), Some(258));
    let again = Tokenizer::from_tiktoken(
        &tokenizer.to_tiktoken().unwrap(),
        WORDS,
        &[("<|bos|>".into(), 258)],
        "again",
    );
    assert_eq!(again.unwrap().vocab_size(), tokenizer.vocab_size());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn merges_are_those_of_the_definition(
        texts in proptest::collection::vec("[ab ]{0,12}|[a-f]{1,6}( [a-f]{1,6}){0,5}", 1..12),
        split in any::<prop::sample::Index>(),
    ) {
        let training = training(40);
        let (one, other) = texts.split_at(split.index(texts.len()));
        let tokenizer = trained(&training, &[other, one]);
        let byte_id = |byte: u8| tokenizer.definition().vocabulary.id(&[byte]).unwrap();
        let expected = by_definition(&texts, 40, byte_id);
        prop_assert_eq!(&tokenizer.definition().merges, &Merges::List(expected));
        let at_once = trained(&training, &[&texts]);
        prop_assert_eq!(at_once.fingerprint(), tokenizer.fingerprint());
        // Merging by rank gives the same ids, so the vocabulary can be written as ranks.
        prop_assert!(tokenizer.to_tiktoken().is_ok());
    }
}
