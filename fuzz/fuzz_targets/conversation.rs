//! Any bytes as lines of JSON in each layout: a reason, or ids that are as many as their marks and are decoded again.
//!
//! Input: the lines.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use nanofast::ragged::NOT_LEARNED;
use nanofast::source::{Layout, push_json};
use nanofast::tokenizer::{ChatTemplate, DEFAULT_CACHE_BYTES, Renderer, Tokenizer};

/// Every kind of part and turn.
const TEMPLATE: &str = r#"{
    "name": "fuzz", "bos": "<|bos|>", "pad": "<|end|>", "trim": false, "learned_roles": ["assistant"],
    "only_last_turn": false, "special_tokens": ["<|bos|>", "<|user|>", "<|assistant|>", "<|end|>", "<|tool|>"],
    "turns": {
        "user": {"start": "<|user|>", "end": "<|end|>", "after": ""},
        "assistant": {"start": "<|assistant|>", "end": "<|end|>", "after": "\n"}
    },
    "parts": {
        "python": {"start": "<|tool|>", "end": "<|end|>", "learned": true},
        "python_output": {"start": "<|tool|>", "end": "<|end|>", "learned": false}
    }
}"#;

static RENDERER: LazyLock<Renderer> = LazyLock::new(|| {
    let template: ChatTemplate = serde_json::from_str(TEMPLATE).expect("a template");
    let tokenizer = Tokenizer::from_name("r50k_base").expect("a bundled vocabulary");
    let tokenizer = tokenizer.with_special_tokens(&template.special_tokens).expect("new tokens");
    Renderer::new(template, tokenizer).expect("a template whose tokens are there")
});

fuzz_target!(|bytes: &[u8]| {
    let mut encoder = RENDERER.tokenizer().take_encoder(DEFAULT_CACHE_BYTES);
    for layout in ["messages", "sharegpt", "alpaca"] {
        let layout = Layout::parse(layout, None).expect("a layout");
        for line in bytes.split(|&byte| byte == b'\n') {
            let mut conversation = Vec::new();
            push_json(&mut conversation, line, &layout);
            if let Ok(tokens) = RENDERER.render(&mut encoder, &conversation, false) {
                let ids: Vec<u32> = tokens.iter().map(|token| token & !NOT_LEARNED).collect();
                RENDERER.tokenizer().decode_bytes(&ids).expect("its own ids");
            }
        }
    }
    RENDERER.tokenizer().give_back(encoder);
});
