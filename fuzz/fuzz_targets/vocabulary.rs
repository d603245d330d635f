//! Any bytes as a vocabulary file of each kind: an error, or a tokenizer whose ids stand for the text that they came from.
//!
//! Input: the file. Seeds worth having: small tokenizer.json files, and lines of a .tiktoken file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nanofast::tokenizer::{Normalizer, Tokenizer};

const TEXT: &str = "A naïve 日本語 test\n\n  of 1234 things'll do 🙂";

fuzz_target!(|bytes: &[u8]| {
    let read = [
        Tokenizer::from_json(bytes, "fuzz"),
        Tokenizer::from_tiktoken(bytes, r"\p{L}+|\p{N}+|[^\p{L}\p{N}]+", &[], "fuzz"),
    ];
    for tokenizer in read.into_iter().flatten() {
        let mut ids = Vec::new();
        let encoded = tokenizer.encoder().encode(TEXT.as_bytes(), &mut ids);
        if encoded.is_ok() && tokenizer.definition().normalizer == Normalizer::None {
            let decoded = tokenizer.decode_bytes(&ids).expect("its own ids");
            assert_eq!(String::from_utf8_lossy(&decoded), TEXT);
        }
        let again = Tokenizer::from_bytes(&tokenizer.to_bytes(), "again").expect("its own file");
        assert_eq!(again.fingerprint(), tokenizer.fingerprint());
    }
});
