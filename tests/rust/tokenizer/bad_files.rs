//! Vocabulary files that are none, contradict themselves, or were made to cost time and memory.

use std::fs;

use nanofast::tokenizer::Tokenizer;
use serde_json::json;

use super::files::{hf_json, load};

const PATTERN: &str = r"\S+|\s+";

/// The `.tiktoken` lines of the 256 bytes and of `more`.
fn ranks(more: &[&[u8]]) -> Vec<u8> {
    use base64::Engine;
    let bytes = (0..=255_u8).map(|byte| vec![byte]);
    let tokens = bytes.chain(more.iter().map(|token| token.to_vec()));
    let encode = |token: &[u8]| base64::engine::general_purpose::STANDARD.encode(token);
    tokens.enumerate().flat_map(|(rank, token)| format!("{} {rank}\n", encode(&token)).into_bytes()).collect()
}

#[test]
fn a_file_that_lost_lines_is_refused() {
    let whole = ranks(&[b"ab", b"cd", b"ef"]);
    let lines: Vec<&[u8]> = whole.split_inclusive(|&byte| byte == b'\n').collect();
    let without = |lost: usize| [&lines[..lost], &lines[lost + 1..]].concat().concat();
    let load =
        |bytes: &[u8], specials: &[(String, u32)]| Tokenizer::from_tiktoken(bytes, PATTERN, specials, "test");
    assert!(load(&whole, &[]).is_ok());
    let error = load(&without(257), &[]).unwrap_err().to_string();
    assert!(error.contains("no token has id 257, and tokens go up to 258"), "{error}");
    // A special token may stand there, as in p50k; and ids behind the last token may be kept free, as in cl100k.
    assert!(load(&without(257), &[("<|x|>".into(), 257)]).is_ok());
    assert!(load(&whole, &[("<|x|>".into(), 900)]).is_ok());
    let error = load(&without(97), &[]).unwrap_err().to_string();
    assert!(error.contains("no token for the single byte 0x61"), "{error}");
}

#[test]
fn what_a_file_is_instead_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let piece = [&[0x0a, 0x0e, 0x0a, 5][..], b"<unk>", &[0x15, 0, 0, 0, 0, 0x18, 2]].concat();
    for (name, content, expected) in [
        ("tokenizer.pkl", &b"\x80\x04\x95\x01"[..], "it is a pickle, which can run any code"),
        ("tokenizer.json", b"\x80\x05\x95\x01", "it is a pickle"),
        ("old.pickle", b"(dp0\n", "it is a pickle"),
        ("tokenizer.pt", b"PK\x03\x04", "it is a zip archive"),
        ("a.json.gz", b"\x1f\x8b\x08", "compressed with gzip"),
        ("a.json.zst", b"\x28\xb5\x2f\xfd", "compressed with zstd"),
        ("tokenizer.model", &piece, "it is a SentencePiece model"),
        ("empty.json", b" \n", "it is empty"),
        ("tokenizer.json", b"[1]", "it does not begin with `{`"),
        ("vocab.txt", b"[PAD]\n[UNK]\n", "neither a tokenizer.json nor a .tiktoken file"),
        ("merges.txt", b"#version: 0.2\na b\n", "neither a tokenizer.json nor a .tiktoken file"),
    ] {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        let error = Tokenizer::from_file(&path, Some(PATTERN), None).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains(name), "{name}: {error}");
    }
    let error = Tokenizer::from_file(folder.path(), None, None).unwrap_err().to_string();
    assert!(error.contains("it is a folder"), "{error}");
    let error = Tokenizer::from_file(&folder.path().join("none"), None, None).unwrap_err().to_string();
    assert!(error.contains("no such file or folder"), "{error}");
}

#[test]
fn a_format_is_known_by_its_content() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.model");
    fs::write(&path, ranks(&[b"ab"])).unwrap();
    assert_eq!(Tokenizer::from_file(&path, Some(PATTERN), None).unwrap().vocab_size(), 257);
    let error = Tokenizer::from_file(&path, None, None).unwrap_err().to_string();
    assert!(error.contains("it holds no split pattern; pass pattern="), "{error}");
    fs::write(&path, hf_json(&[]).to_string()).unwrap();
    assert_eq!(Tokenizer::from_file(&path, None, None).unwrap().vocab_size(), 256);
    let error = Tokenizer::from_file(&path, None, Some(&[])).unwrap_err().to_string();
    assert!(error.contains("it holds its own pattern and special tokens"), "{error}");
}

#[test]
fn other_kinds_of_vocabulary_are_refused_by_name() {
    let refused = |change: serde_json::Value, at: &str, expected: &str| {
        let mut file = hf_json(&[("a", "b")]);
        *file.pointer_mut(at).unwrap() = change;
        let error = load(&file).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    refused(
        json!({"type": "WordPiece", "unk_token": "[UNK]", "vocab": {"a": 0}}),
        "/model",
        "its model is WordPiece",
    );
    refused(json!({"type": "Unigram", "unk_id": 0, "vocab": [["a", 0.5]]}), "/model", "its model is Unigram");
    refused(json!({"type": "WordLevel", "vocab": {"a": 0}}), "/model", "its model is WordLevel");
    let fallback = json!({"type": "BPE", "byte_fallback": true, "vocab": {"a": 0}, "merges": []});
    refused(fallback, "/model", "byte fallback (SentencePiece style)");
    refused(json!({"type": "Metaspace", "replacement": "_"}), "/pre_tokenizer", "pre-tokenizer Metaspace");
    refused(json!({"type": "NFKC"}), "/normalizer", "normalizer NFKC");
}

#[test]
fn what_costs_too_much_is_refused_before_it_does() {
    let nested = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    for place in ["model", "normalizer", "pre_tokenizer", "post_processor", "added_tokens"] {
        let mut file = hf_json(&[]);
        file[place] = json!("here");
        let text = file.to_string().replace("\"here\"", &nested);
        assert!(Tokenizer::from_hf_json(text.as_bytes(), "nested").is_err(), "{place}");
    }
    let mut file = hf_json(&[]);
    file["added_tokens"] =
        (0..1_000_000).map(|id| json!({"id": 300 + id, "content": format!("<{id}>")})).collect();
    let error = load(&file).unwrap_err().to_string();
    assert!(error.contains("more than 65536 elements at line 1 column"), "{error}");
    let mut file = hf_json(&[]);
    file["added_tokens"] = json!([{"id": 300, "content": "x".repeat(2 << 20)}]);
    let error = load(&file).unwrap_err().to_string();
    assert!(error.contains("special tokens of 2097152 bytes together"), "{error}");
    let mut file = hf_json(&[]);
    file["pre_tokenizer"] =
        json!({"type": "Split", "pattern": {"String": "x".repeat(1 << 20)}, "behavior": "Isolated"});
    file["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [file["pre_tokenizer"], {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]});
    let error = load(&file).unwrap_err().to_string();
    assert!(error.contains("a split pattern of"), "{error}");
    // A gigabyte without a line's end, as long as a test may make it.
    let error = Tokenizer::from_tiktoken(&[b'A'; 1 << 24], PATTERN, &[], "line").unwrap_err().to_string();
    assert!(error.contains("line 1: 16777216 bytes"), "{error}");
    // Tokens that are long, and not many: all ways to cut them would take minutes.
    let long: Vec<Vec<u8>> = (0..200_u8).map(|at| [vec![at], vec![b'x'; 4000]].concat()).collect();
    let long: Vec<&[u8]> = long.iter().map(Vec::as_slice).collect();
    let error = Tokenizer::from_tiktoken(&ranks(&long), PATTERN, &[], "long").unwrap_err().to_string();
    assert!(error.contains("too long to cut in every way"), "{error}");
}
