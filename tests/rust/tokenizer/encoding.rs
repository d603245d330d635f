//! Ids are those of tiktoken-rs, whatever the text, the caches and the order of documents.

use std::sync::LazyLock;

use nanofast::ragged::{DocumentBatch, TokenBatch};
use nanofast::tokenizer::{DocumentError, EncodeError, Encoder, Tokenizer};
use proptest::prelude::*;
use tiktoken_rs::CoreBPE;

use super::cases;

type Load = fn() -> anyhow::Result<CoreBPE>;
type Loaded = (&'static str, Tokenizer, CoreBPE);

static LOADED: LazyLock<Vec<Loaded>> = LazyLock::new(|| {
    let bundled: [(&str, Load); 4] = [
        ("r50k_base", tiktoken_rs::r50k_base),
        ("p50k_base", tiktoken_rs::p50k_base),
        ("cl100k_base", tiktoken_rs::cl100k_base),
        ("o200k_base", tiktoken_rs::o200k_base),
    ];
    let load = |(name, load): (_, Load)| {
        (name, Tokenizer::from_name(name).expect("it is bundled"), load().expect("it is bundled"))
    };
    bundled.map(load).into()
});

fn encoded(encoder: &mut Encoder, text: &str) -> Vec<u32> {
    let mut ids = Vec::new();
    encoder.encode(text.as_bytes(), &mut ids).unwrap();
    ids
}

/// Caches of every kind: none, so small that they are full at once, and the usual ones.
fn encoders(tokenizer: &Tokenizer) -> [Encoder; 3] {
    [tokenizer.encoder_with(0), tokenizer.encoder_with(1 << 16), tokenizer.encoder_with(8 << 20)]
}

#[test]
fn gives_the_ids_of_tiktoken() {
    for (name, tokenizer, peer) in &*LOADED {
        for encoder in &mut encoders(tokenizer) {
            for text in cases::known() {
                let expected = peer.encode_ordinary(&text);
                for _ in 0..2 {
                    assert_eq!(encoded(encoder, &text), expected, "{name} {text:?}");
                }
                assert_eq!(tokenizer.decode_bytes(&expected).unwrap(), text.as_bytes());
            }
        }
    }
}

#[test]
fn a_batch_gives_what_its_documents_give() {
    for (name, tokenizer, peer) in &*LOADED {
        let texts = cases::known();
        let batch = DocumentBatch::from_texts(&texts);
        for encoder in &mut encoders(tokenizer) {
            let mut out = TokenBatch::new();
            out.push(&[1, 2, 3]);
            encoder.encode_batch(&batch, &mut out).unwrap();
            assert_eq!(out.len(), texts.len() + 1);
            for (index, text) in texts.iter().enumerate() {
                assert_eq!(out.document(index + 1), peer.encode_ordinary(text), "{name} {text:?}");
            }
        }
    }
}

#[test]
fn a_bad_document_is_named_and_those_before_it_are_kept() {
    let tokenizer = &LOADED[0].1;
    let batch = DocumentBatch::from_texts([&b"one two"[..], b"", b"three", b"bad \xff byte", b"never"]);
    let mut out = TokenBatch::new();
    let error = tokenizer.encoder().encode_batch(&batch, &mut out).unwrap_err();
    assert_eq!(error, DocumentError { document: 3, error: EncodeError::InvalidUtf8 { byte: 4 } });
    assert_eq!(out.len(), 3);
    assert_eq!(tokenizer.decode_bytes(out.document(2)).unwrap(), b"three");
    assert!(out.document(1).is_empty());
}

#[test]
fn an_encoder_goes_on_after_a_bad_document() {
    let mut encoder = LOADED[0].1.encoder();
    let mut ids = vec![7];
    let error = encoder.encode(b"fine \xe2\x82", &mut ids).unwrap_err();
    assert_eq!(error, EncodeError::InvalidUtf8 { byte: 5 });
    assert_eq!(ids, [7]);
    assert_eq!(encoded(&mut encoder, "hello world"), [31373, 995]);
}

#[test]
fn special_tokens_are_plain_text_unless_allowed() {
    let (_, tokenizer, peer) = &LOADED[2];
    let text = "a<|endoftext|> b<|fim_prefix|>";
    let mut encoder = tokenizer.encoder();
    assert_eq!(encoded(&mut encoder, text), peer.encode_ordinary(text));
    let allowed = tokenizer.allow(&["<|endoftext|>"]).unwrap();
    let mut ids = Vec::new();
    encoder.encode_with(&allowed, text, &mut ids).unwrap();
    let set = ["<|endoftext|>"].into_iter().collect();
    assert_eq!(ids, peer.encode(text, &set).unwrap().0);
    let error = tokenizer.allow(&["<|nonsense|>"]).unwrap_err().to_string();
    assert!(error.contains("`<|nonsense|>` is no special token (has: `<|endoftext|>`"), "{error}");
}

#[test]
fn parts_between_cuts_have_the_ids_of_the_whole() {
    let known = cases::known();
    let text: String =
        known.iter().filter(|text| text.len() < 1000).flat_map(|text| [text, " and "]).collect();
    for (name, tokenizer, _) in &*LOADED {
        let mut encoder = tokenizer.encoder_with(1 << 20);
        let whole = encoded(&mut encoder, &text);
        for apart in [1, 3000] {
            let cuts = encoder.cuts(&text, apart);
            let borders: Vec<_> = std::iter::once(0).chain(cuts).chain([text.len()]).collect();
            let parts = borders.windows(2).flat_map(|part| encoded(&mut encoder, &text[part[0]..part[1]]));
            let parts: Vec<_> = parts.collect();
            assert_eq!(parts, whole, "{name} {borders:?}");
        }
    }
    let (_, tokenizer, _) = &LOADED[0];
    assert!(tokenizer.encoder_with(1 << 20).cuts(&text, 1).len() > 5);
}

#[test]
fn long_runs_take_time_in_proportion_to_their_length() {
    // No expectation on time: quadratic work on these would not end.
    for (name, tokenizer, _) in &*LOADED {
        let mut encoder = tokenizer.encoder_with(1 << 20);
        for piece in ["a", " ", "1", "\n", "\u{301}", "!", "\u{4e2d}", "aA", "\n ", "'s"] {
            let text = piece.repeat((1 << 18) / piece.len());
            let ids = encoded(&mut encoder, &text);
            assert!(tokenizer.decode_bytes(&ids).unwrap() == text.as_bytes(), "{name} {piece:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn gives_the_ids_of_tiktoken_on_any_text(texts in proptest::collection::vec(cases::texts(), 1..4)) {
        for (name, tokenizer, peer) in &*LOADED {
            let mut encoder = tokenizer.encoder_with(1 << 20);
            for text in texts.iter().chain(&texts) {
                prop_assert_eq!(encoded(&mut encoder, text), peer.encode_ordinary(text), "{} {:?}", name, text);
            }
        }
    }
}
