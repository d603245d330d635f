//! Writes one compact table per bundled vocabulary: every token's bytes, in the order of their ids.
//!
//! ```text
//! count: u32 LE | count lengths: u8, 0 where an id is no mergeable token | the tokens' bytes, one after another
//! ```
//! The tokens come from `tiktoken-rs`; tests hold the tables against the published files.

use std::path::Path;
use std::{env, error, fs};

use tiktoken_rs::CoreBPE;

type Result<T> = std::result::Result<T, Box<dyn error::Error>>;

/// Name, loader, and one past the last mergeable id.
type Source = (&'static str, fn() -> anyhow::Result<CoreBPE>, u32);

const SOURCES: [Source; 4] = [
    ("r50k_base", tiktoken_rs::r50k_base, 50_256),
    ("p50k_base", tiktoken_rs::p50k_base, 50_281),
    ("cl100k_base", tiktoken_rs::cl100k_base, 100_256),
    ("o200k_base", tiktoken_rs::o200k_base, 199_998),
];

fn main() -> Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    let folder = env::var("OUT_DIR")?;
    for (name, load, count) in SOURCES {
        let table = table(&load()?, count)?;
        fs::write(Path::new(&folder).join(format!("{name}.vocab")), table)?;
    }
    Ok(())
}

fn table(bpe: &CoreBPE, count: u32) -> Result<Vec<u8>> {
    let specials = bpe.special_tokens();
    let (mut lengths, mut bytes) = (Vec::new(), Vec::new());
    for id in 0..count {
        let mut token = bpe.decode_bytes(&[id]).unwrap_or_default();
        if str::from_utf8(&token).is_ok_and(|text| specials.contains(text)) {
            token.clear();
        }
        lengths.push(u8::try_from(token.len())?);
        bytes.extend_from_slice(&token);
    }
    Ok([&count.to_le_bytes()[..], &lengths, &bytes].concat())
}
