//! Ids are those of the definition and of tiktoken-rs, whatever the text, the caches and the order of documents.

use nanofast::ragged::{DocumentBatch, TokenBatch};
use nanofast::tokenizer::{DocumentError, EncodeError, Encoder};
use proptest::prelude::*;

use super::agreement::{SUBJECTS, Subject, encoders};
use super::cases;

fn encoded(encoder: &mut Encoder, text: &str) -> Vec<u32> {
    let mut ids = Vec::new();
    encoder.encode(text.as_bytes(), &mut ids).unwrap();
    ids
}

#[test]
fn everything_agrees_on_the_known_cases() {
    // The slow twin is quadratic in a pretoken's length. Twice, so that caches are met empty and full.
    let texts: Vec<String> = cases::known().into_iter().filter(|text| text.len() < 1000).collect();
    for subject in &*SUBJECTS {
        subject.check(&texts);
        subject.check(&texts);
    }
}

#[test]
fn a_batch_gives_what_its_documents_give() {
    for Subject { name, tokenizer, peer, .. } in &*SUBJECTS {
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
    let tokenizer = &SUBJECTS[0].tokenizer;
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
    let mut encoder = SUBJECTS[0].tokenizer.encoder();
    let mut ids = vec![7];
    let error = encoder.encode(b"fine \xe2\x82", &mut ids).unwrap_err();
    assert_eq!(error, EncodeError::InvalidUtf8 { byte: 5 });
    assert_eq!(ids, [7]);
    assert_eq!(encoded(&mut encoder, "hello world"), [31373, 995]);
}

#[test]
fn special_tokens_are_plain_text_unless_allowed() {
    let Subject { tokenizer, peer, .. } = &SUBJECTS[2];
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
    for Subject { name, tokenizer, .. } in &*SUBJECTS {
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
    let Subject { tokenizer, .. } = &SUBJECTS[0];
    assert!(tokenizer.encoder_with(1 << 20).cuts(&text.repeat(8), 1).len() > 5);
}

/// A letter for a number, by its highest bits.
fn letter(random: u64) -> char {
    char::from(b'a' + (random >> 59) as u8 % 26)
}

#[test]
fn long_runs_take_time_in_proportion_to_their_length() {
    // No expectation on time: quadratic work on these would not end.
    for Subject { name, tokenizer, .. } in &*SUBJECTS {
        let mut encoder = tokenizer.encoder_with(1 << 20);
        let random: String =
            (0_u64..1 << 18).map(|at| letter(at.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
        let pieces = ["a", " ", "1", "\n", "\u{301}", "!", "\u{4e2d}", "aA", "\n ", "'s", &random];
        for piece in pieces {
            let text = piece.repeat((1 << 18) / piece.len());
            let ids = encoded(&mut encoder, &text);
            assert!(tokenizer.decode_bytes(&ids).unwrap() == text.as_bytes(), "{name} {piece:?}");
            assert_eq!(encoder.count(None, &text), Ok(ids.len()));
        }
    }
}

/// Few by default; as many as `PROPTEST_CASES` says in the long profile.
fn cases() -> u32 {
    if cases::is_long() { ProptestConfig::default().cases } else { 48 }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: cases(), ..ProptestConfig::default() })]
    #[test]
    fn everything_agrees_on_any_text(texts in proptest::collection::vec(cases::texts(), 1..4)) {
        let texts: Vec<String> = texts.iter().chain(&texts).cloned().collect();
        for subject in &*SUBJECTS {
            subject.check(&texts);
        }
    }
}
