//! Every way to merge gives what the definition gives.

use nanofast::tokenizer::bpe::group::{GROUP, Group};
use nanofast::tokenizer::bpe::{PairTable, heap::HeapMerger, long, medium, naive, small};
use nanofast::tokenizer::{Merges, Tokenizer, Vocabulary, VocabularyBuilder};
use proptest::prelude::*;

fn check(vocabulary: &Vocabulary, pairs: &PairTable, pretokens: &[Vec<u8>]) {
    for pretoken in pretokens {
        let expected = naive_ids(pairs, pretoken);
        let mut found = Vec::new();
        HeapMerger::default().merge(pairs, pretoken, &mut found);
        assert_eq!(found, expected, "heap, {pretoken:?}");
        for sizes in [&[4][..], &[7, 20], &long::SIZES] {
            found.clear();
            let length = |id| vocabulary.token(id).len();
            long::merge(pairs, &mut HeapMerger::default(), length, sizes, pretoken, &mut found);
            assert_eq!(found, expected, "windows of {sizes:?}, {pretoken:?}");
        }
        if pretoken.len() <= medium::MAX_BYTES {
            let mut ids = [0; medium::MAX_BYTES];
            let count = medium::merge(pairs, pretoken, &mut ids);
            assert_eq!(ids[..count], expected, "medium, {pretoken:?}");
        }
        if (1..=small::MAX_BYTES).contains(&pretoken.len()) {
            let mut ids = [0; small::MAX_BYTES];
            let count = small::merge(pairs, pretoken, &mut ids);
            assert_eq!(ids[..count], expected, "small, {pretoken:?}");
        }
    }
    check_groups::<1>(pairs, pretokens);
    check_groups::<2>(pairs, pretokens);
    check_groups::<4>(pairs, pretokens);
}

fn naive_ids(pairs: &PairTable, pretoken: &[u8]) -> Vec<u32> {
    let mut ids = Vec::new();
    naive::merge(pairs, pretoken, &mut ids);
    ids
}

/// Whole groups, and a last one that is not full.
fn check_groups<const REGISTERS: usize>(pairs: &PairTable, pretokens: &[Vec<u8>]) {
    let mut group = Group::<REGISTERS>::default();
    let lengths = 1..=Group::<REGISTERS>::MAX_BYTES;
    let fitting: Vec<&Vec<u8>> = pretokens.iter().filter(|it| lengths.contains(&it.len())).collect();
    for pretokens in fitting.chunks(GROUP) {
        for (index, pretoken) in (1..).zip(pretokens) {
            assert_eq!(group.push(pretoken), index == GROUP);
        }
        group.merge(pairs);
        for (index, pretoken) in pretokens.iter().enumerate() {
            assert_eq!(group.ids(index), naive_ids(pairs, pretoken), "group of {REGISTERS}, {pretoken:?}");
        }
    }
}

/// A vocabulary of single bytes and of what `pairs` (indices into the tokens so far) give, with the merges in that order.
fn vocabulary(pairs: &[(usize, usize)]) -> (Vocabulary, Vec<(u32, u32)>) {
    let mut tokens: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
    // Few bytes, so that pairs meet.
    let mut usable: Vec<u32> = (u32::from(b'a')..u32::from(b'e')).collect();
    let mut merges = Vec::new();
    for (left, right) in pairs {
        let (left, right) = (usable[left % usable.len()], usable[right % usable.len()]);
        let token = [&*tokens[left as usize], &*tokens[right as usize]].concat();
        if token.len() > 200 {
            continue;
        }
        let known = tokens.iter().position(|it| *it == token);
        let id = known.unwrap_or_else(|| {
            tokens.push(token);
            usable.push(tokens.len() as u32 - 1);
            tokens.len() - 1
        });
        assert!(id < tokens.len());
        merges.push((left, right));
    }
    let mut builder = VocabularyBuilder::new("test");
    for (id, token) in tokens.iter().enumerate() {
        builder.insert(id as u64, token).unwrap();
    }
    (builder.build().unwrap(), merges)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn merges_listed_in_any_order_are_applied_as_defined(
        pairs in proptest::collection::vec((0..64_usize, 0..64_usize), 0..60),
        order in any::<prop::sample::Index>(),
        pretokens in proptest::collection::vec("[a-d]{1,90}|a{1,160}|(ab|c){30,90}", 1..20),
    ) {
        let (vocabulary, mut merges) = vocabulary(&pairs);
        if !merges.is_empty() {
            let middle = order.index(merges.len());
            merges.rotate_left(middle);
        }
        let pretokens: Vec<Vec<u8>> = pretokens.into_iter().map(String::into_bytes).collect();
        check(&vocabulary, &PairTable::new("test", &vocabulary, &Merges::List(merges)).unwrap(), &pretokens);
        check(&vocabulary, &PairTable::new("test", &vocabulary, &Merges::ByRank).unwrap(), &pretokens);
    }
}

#[test]
fn a_bundled_vocabulary_merges_as_defined() {
    let tokenizer = Tokenizer::from_name("r50k_base").unwrap();
    let vocabulary = &tokenizer.definition().vocabulary;
    let pairs = PairTable::new("r50k_base", vocabulary, &Merges::ByRank).unwrap();
    let mut pretokens: Vec<Vec<u8>> =
        vocabulary.iter().step_by(53).map(|(_, token)| token.to_vec()).collect();
    let words = [
        "antidisestablishmentarianism",
        " unbelievablyLongIdentifierName_with_parts",
        "\u{4e2d}\u{6587}\u{5b57}",
    ];
    pretokens.extend(words.map(|word| word.as_bytes().to_vec()));
    pretokens.extend([b"abcdefghijklmnopqrstuvwxyz".repeat(40), b"the ".repeat(99), vec![b' '; 1200]]);
    pretokens.extend([vec![0xff; 16], vec![0; 16], vec![b'a'; 64], vec![b' '; 63], (0..=255).collect()]);
    check(vocabulary, &pairs, &pretokens);
}

#[test]
fn merging_a_megabyte_is_quick() {
    // Quadratic merging would not end.
    let tokenizer = Tokenizer::from_name("r50k_base").unwrap();
    let pairs = PairTable::new("r50k_base", &tokenizer.definition().vocabulary, &Merges::ByRank).unwrap();
    let (mut ids, text) = (Vec::new(), vec![b'a'; 1 << 20]);
    HeapMerger::default().merge(&pairs, &text, &mut ids);
    assert_eq!(tokenizer.decode_bytes(&ids).unwrap(), text);
}
