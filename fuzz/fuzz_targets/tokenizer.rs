//! Any texts, one after the other: splitters, encoders, their slow twins and tiktoken-rs agree on all bundled vocabularies.
#![no_main]

#[path = "../../tests/rust/tokenizer/agreement.rs"]
mod agreement;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|texts: Vec<String>| agreement::SUBJECTS.iter().for_each(|subject| subject.check(&texts)));
