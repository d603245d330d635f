//! Vocabulary files: what is read, what is refused and in which words.

use nanofast::tokenizer::{Frame, MAX_IDS, Merges, Tokenizer};
use serde_json::{Value, json};

/// A byte-level `tokenizer.json` with the 256 bytes (as the characters from U+0100 on are awkward to write, ids follow the
/// alphabet's own order) and the merges given.
pub(crate) fn hf_json(merges: &[(&str, &str)]) -> Value {
    let mut alphabet: Vec<char> = ('!'..='~').chain('\u{a1}'..='\u{ac}').chain('\u{ae}'..='\u{ff}').collect();
    alphabet.extend((0x100..0x100 + 68).filter_map(char::from_u32));
    let mut vocab: serde_json::Map<String, Value> =
        alphabet.iter().enumerate().map(|(id, it)| (it.to_string(), id.into())).collect();
    for (left, right) in merges {
        let id = vocab.len();
        vocab.entry(format!("{left}{right}")).or_insert(id.into());
    }
    let merges: Vec<String> = merges.iter().map(|(left, right)| format!("{left} {right}")).collect();
    json!({
        "added_tokens": [],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
        "post_processor": null,
        "model": {"type": "BPE", "vocab": vocab, "merges": merges},
    })
}

pub(crate) fn load(file: &Value) -> nanofast::Result<Tokenizer> {
    Tokenizer::from_hf_json(file.to_string().as_bytes(), "test.json")
}

fn ids(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    let mut ids = Vec::new();
    tokenizer.encoder().encode(text.as_bytes(), &mut ids).unwrap();
    ids
}

#[test]
fn merges_go_by_their_place_in_the_list() {
    // By rank of the result `ab` (256) would come before `bc` (257).
    let mut file = hf_json(&[("a", "b"), ("b", "c"), ("c", "d")]);
    file["model"]["merges"] = json!([["b", "c"], ["a", "b"], ["c", "d"]]);
    let tokenizer = load(&file).unwrap();
    assert!(matches!(tokenizer.definition().merges, Merges::List(_)));
    let text = |text| {
        ids(&tokenizer, text)
            .iter()
            .map(|&id| tokenizer.token_bytes(id).unwrap().to_vec())
            .collect::<Vec<_>>()
    };
    assert_eq!(text("abcd"), [&b"a"[..], b"bc", b"d"]);
    assert_eq!(text("abd"), [&b"ab"[..], b"d"]);
}

#[test]
fn a_whole_pretoken_is_taken_before_merges_only_where_the_file_says_so() {
    let mut file = hf_json(&[("a", "b"), ("b", "c")]);
    file["model"]["vocab"]["abc"] = json!(258);
    assert_eq!(ids(&load(&file).unwrap(), "abc").len(), 2);
    file["model"]["ignore_merges"] = json!(true);
    assert_eq!(ids(&load(&file).unwrap(), "abc"), [258]);
}

#[test]
fn tokens_that_are_not_special_are_always_taken() {
    let mut file = hf_json(&[("a", "b")]);
    file["added_tokens"] = json!([
        {"id": 300, "content": "<tool>", "special": false, "normalized": false},
        {"id": 301, "content": "<|end|>", "special": true, "normalized": false},
    ]);
    let tokenizer = load(&file).unwrap();
    let found = ids(&tokenizer, "ab<tool>ab<|end|>");
    assert_eq!(found[..3], [256, 300, 256]);
    assert!(!found.contains(&301));
    assert_eq!(tokenizer.decode_bytes(&found).unwrap(), b"ab<tool>ab<|end|>");
    assert_eq!(tokenizer.vocab_size(), 302);
}

#[test]
fn text_is_composed_where_the_file_says_so() {
    let mut file = hf_json(&[("a", "b")]);
    let plain = load(&file).unwrap();
    file["normalizer"] = json!({"type": "NFC"});
    let composed = load(&file).unwrap();
    assert_eq!(ids(&composed, "cafe\u{301} ab"), ids(&plain, "caf\u{e9} ab"));
    assert_ne!(ids(&plain, "cafe\u{301} ab"), ids(&plain, "caf\u{e9} ab"));
    assert_ne!(plain.fingerprint(), composed.fingerprint());
}

#[test]
fn the_special_tokens_around_a_text_are_found() {
    let mut file = hf_json(&[("a", "b")]);
    file["added_tokens"] = json!([{"id": 300, "content": "<s>", "special": true}, {"id": 301, "content": "</s>", "special": true}]);
    assert_eq!(load(&file).unwrap().bos_id(), None);
    let special = |id: &str| json!({"SpecialToken": {"id": id, "type_id": 0}});
    let template = json!({
        "type": "TemplateProcessing",
        "single": [special("<s>"), {"Sequence": {"id": "A", "type_id": 0}}, special("</s>")],
        "pair": [],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [300], "tokens": ["<s>"]}},
    });
    let byte_level = json!({"type": "ByteLevel", "trim_offsets": true});
    let roberta = json!({"type": "RobertaProcessing", "sep": ["</s>", 301], "cls": ["<s>", 300]});
    for post_processor in
        [template.clone(), json!({"type": "Sequence", "processors": [byte_level, template]}), roberta]
    {
        file["post_processor"] = post_processor;
        let tokenizer = load(&file).unwrap();
        assert_eq!(tokenizer.bos_id(), Some(300));
        assert_eq!(tokenizer.definition().frame, Frame { before: vec![300], after: vec![301] });
        let again = Tokenizer::from_hf_json(&tokenizer.to_hf_json(), "written").unwrap();
        assert_eq!(again.definition().frame, tokenizer.definition().frame);
    }
    file["added_tokens"][0]["content"] = json!("<|bos|>");
    file["post_processor"] = json!({"type": "BertProcessing", "sep": ["</s>", 301], "cls": ["<s>", 999]});
    assert!(load(&file).unwrap_err().to_string().contains("names id 999, which no token has"));
}

#[test]
fn added_tokens_are_found_as_their_flags_say() {
    let mut file = hf_json(&[]);
    let added = |id: u32, content: &str, flag: &str| {
        let mut token = json!({"id": id, "content": content, "special": false, "normalized": false});
        token[flag] = json!(true);
        token
    };
    file["added_tokens"] = json!([
        added(300, "<l>", "lstrip"),
        added(301, "<r>", "rstrip"),
        added(302, "one", "single_word"),
        added(303, "norm", "normalized"),
        added(304, "<x>norm", "special"),
        added(305, "<x>", "lstrip"),
    ]);
    let tokenizer = load(&file).unwrap();
    for (text, expected) in [
        ("a \u{a0}<l> b", "a|<l>| |b"),
        ("a <r> \n b", "a| |<r>|b"),
        ("<r>  <l>x", "<r>|<l>|x"),
        ("one None one, alone \u{e9}one", "one| |N|o|n|e| |one|,| |a|l|o|n|e| |\u{c3}|\u{a9}|o|n|e"),
        ("abnorm", "a|b|norm"),
        // A special token is plain text, and hides the tokens that it overlaps.
        ("<x>norm <x>", "<|x|>|norm|<x>"),
    ] {
        let pieces: Vec<String> = ids(&tokenizer, text)
            .iter()
            .map(|&id| match tokenizer.token_bytes(id).unwrap() {
                [byte] => char::from(*byte).to_string(),
                token => String::from_utf8(token.to_vec()).unwrap(),
            })
            .collect();
        assert_eq!(pieces.join("|"), expected, "{text:?}");
        let found = ids(&tokenizer, text);
        let spans = tokenizer.spans(None, text, &found).unwrap();
        assert!(spans.windows(2).all(|pair| pair[0].end == pair[1].start), "{spans:?}");
        assert_eq!(spans.last().map(|span| span.end), Some(text.len()));
    }
}

#[test]
fn tokens_of_composed_text_span_what_it_was_made_of() {
    let mut file = hf_json(&[("c", "a")]);
    file["normalizer"] = json!({"type": "NFC"});
    let tokenizer = load(&file).unwrap();
    let text = "cae\u{301}a \u{2126}";
    let found = ids(&tokenizer, text);
    let spans = tokenizer.spans(None, text, &found).unwrap();
    // The composed letter and the sign's replacement have two tokens each.
    assert_eq!(spans, [0..2, 2..5, 2..5, 5..6, 6..7, 7..10, 7..10]);
}

#[test]
fn merges_out_of_order_have_no_ranks() {
    assert!(load(&hf_json(&[("a", "b"), ("ab", "c")])).unwrap().to_tiktoken().is_ok());
    let mut file = hf_json(&[("a", "b"), ("b", "c"), ("ab", "c")]);
    file["model"]["merges"] = json!(["b c", "a b", "ab c"]);
    let error = load(&file).unwrap().to_tiktoken().unwrap_err().to_string();
    assert!(error.contains("merge 1, which gives `ab` (id 256), is not in the order of ids"), "{error}");
    file["model"]["merges"] = json!(["a b", "b c"]);
    let error = load(&file).unwrap().to_tiktoken().unwrap_err().to_string();
    assert!(error.contains("its merges do not make token `abc`"), "{error}");
}

#[test]
fn its_own_file_is_exact() {
    let mut file = hf_json(&[("a", "b"), ("ab", "c")]);
    file["added_tokens"] = json!([{"id": 300, "content": "<tool>", "special": false, "normalized": true}]);
    file["normalizer"] = json!({"type": "Sequence", "normalizers": [{"type": "NFC"}]});
    for tokenizer in [load(&file).unwrap(), Tokenizer::from_name("p50k_base").unwrap()] {
        let again = Tokenizer::from_json(&tokenizer.to_bytes(), "again").unwrap();
        assert_eq!(again.fingerprint(), tokenizer.fingerprint());
        assert_eq!(again.definition().specials, tokenizer.definition().specials);
        assert_eq!(ids(&again, "abcab <tool> cafe\u{301}"), ids(&tokenizer, "abcab <tool> cafe\u{301}"));
    }
}

#[test]
fn what_is_written_for_other_libraries_gives_the_same_ids() {
    let text = "It's 12345 of\n\n  them!!\n\u{4e2d}\u{6587} na\u{ef}ve \n  ";
    for name in ["r50k_base", "cl100k_base", "o200k_base"] {
        let tokenizer = Tokenizer::from_name(name).unwrap();
        let again = Tokenizer::from_hf_json(&tokenizer.to_hf_json(), "written").unwrap();
        assert_eq!(ids(&again, text), ids(&tokenizer, text), "{name}");
        assert_eq!(again.vocab_size(), tokenizer.vocab_size());
        assert_eq!(again.definition().specials, tokenizer.definition().specials);
    }
}

/// The file after `change`, and a part of the message that refuses it.
fn refused(change: impl FnOnce(&mut Value), expected: &str) {
    let mut file = hf_json(&[("a", "b")]);
    change(&mut file);
    let error = load(&file).expect_err(expected).to_string();
    assert!(error.starts_with("vocabulary `test.json`: "), "{error}");
    assert!(error.contains(expected), "{error:?} does not say {expected:?}");
}

#[test]
fn what_is_not_byte_level_bpe_is_refused_by_name() {
    refused(|file| file["model"] = json!({"type": "WordPiece", "vocab": {}}), "its model is WordPiece");
    refused(|file| file["model"] = json!({"type": "Unigram", "vocab": [["a", 0.5]]}), "its model is Unigram");
    refused(|file| file["model"]["byte_fallback"] = json!(true), "BPE with byte fallback");
    refused(|file| file["model"]["end_of_word_suffix"] = json!("</w>"), "an end-of-word suffix");
    refused(|file| file["model"]["dropout"] = json!(0.1), "dropout");
    refused(|file| file["pre_tokenizer"] = Value::Null, "no ByteLevel pre-tokenizer");
    refused(|file| file["pre_tokenizer"] = json!({"type": "Metaspace"}), "pre-tokenizer Metaspace");
    refused(|file| file["pre_tokenizer"]["add_prefix_space"] = json!(true), "add_prefix_space");
    refused(|file| file["normalizer"] = json!({"type": "Lowercase"}), "normalizer Lowercase");
}

#[test]
fn a_vocabulary_that_contradicts_itself_is_refused() {
    refused(|file| file["model"]["vocab"]["zz"] = json!(5), "id 5 is both");
    refused(|file| file["model"]["vocab"]["zz"] = json!(MAX_IDS), "is too large");
    refused(|file| file["model"]["merges"] = json!(["a zz"]), "merge 0 names `zz`, which is no token");
    refused(|file| file["model"]["merges"] = json!(["c d"]), "merge 0 names `cd`, which is no token");
    refused(|file| file["model"]["merges"] = json!(["ab"]), "is no pair");
    refused(
        |file| drop(file["model"]["vocab"].as_object_mut().unwrap().remove("a")),
        "no token for the single byte 0x61",
    );
    refused(
        |file| file["added_tokens"] = json!([{"id": 3, "content": "<x>", "special": true}]),
        "id 3 is both",
    );
    let twice = json!([{"id": 300, "content": "<x>"}, {"id": 301, "content": "<x>"}]);
    refused(|file| file["added_tokens"] = twice, "two ids");
    let split =
        json!({"type": "Split", "pattern": {"Regex": "(unclosed"}, "behavior": "Isolated", "invert": false});
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "use_regex": false});
    refused(
        |file| file["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [split, byte_level]}),
        "bad split pattern",
    );
}

#[test]
fn a_bad_tiktoken_file_is_refused_with_its_line() {
    let load = |text: &str| {
        Tokenizer::from_tiktoken(text.as_bytes(), r"\S+|\s+", &[], "test.tiktoken").unwrap_err().to_string()
    };
    for (text, expected) in [
        ("IQ== 0\nIg==\n", "line 2: expected `base64 rank`"),
        ("IQ== 0\n!!! 1\n", "line 2: bad base64"),
        ("IQ== minus\n", "line 1: rank \"minus\" is no whole number"),
        ("IQ== 0\nIg== 0\n", "id 0 is both"),
        ("IQ== 0\nIQ== 1\n", "ids 0 and 1 are both `!`"),
        ("IQ== 0\n", "no token for the single byte 0x00"),
        (&"A".repeat(1 << 20), "line 1: 1048576 bytes"),
    ] {
        assert!(load(text).contains(expected), "{:?} does not say {expected:?}", load(text));
    }
}
