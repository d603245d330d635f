//! Writes two compact tables per bundled vocabulary: every token's bytes, and every way to cut a token into two others.
//!
//! ```text
//! name.vocab   count: u32 LE | count lengths: u8, 0 where an id is no mergeable token | the tokens' bytes
//! name.pairs   count numbers of cuts: u8 | for each cut: left id, right id, 3 bytes LE each
//! ```
//! Finding the cuts is most of what loading would cost (2.4 million look-ups for o200k).
//! The tokens come from `tiktoken-rs`; tests hold the tables against the published files.

use std::collections::HashMap;
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
        let tokens = tokens(&load()?, count);
        let folder = Path::new(&folder);
        fs::write(folder.join(format!("{name}.vocab")), vocabulary(&tokens)?)?;
        fs::write(folder.join(format!("{name}.pairs")), pairs(&tokens)?)?;
    }
    Ok(())
}

/// Tokens by id; empty where an id is no mergeable token.
fn tokens(bpe: &CoreBPE, count: u32) -> Vec<Vec<u8>> {
    let specials = bpe.special_tokens();
    let token = |id| {
        let token = bpe.decode_bytes(&[id]).unwrap_or_default();
        let is_special = str::from_utf8(&token).is_ok_and(|text| specials.contains(text));
        if is_special { Vec::new() } else { token }
    };
    (0..count).map(token).collect()
}

fn vocabulary(tokens: &[Vec<u8>]) -> Result<Vec<u8>> {
    let lengths =
        tokens.iter().map(|token| u8::try_from(token.len())).collect::<std::result::Result<Vec<_>, _>>()?;
    let count = u32::try_from(tokens.len())?;
    Ok([&count.to_le_bytes()[..], &lengths, &tokens.concat()].concat())
}

fn pairs(tokens: &[Vec<u8>]) -> Result<Vec<u8>> {
    let ids: HashMap<&[u8], u32> = (0..).zip(tokens).map(|(id, token)| (&**token, id)).collect();
    let (mut counts, mut pairs) = (Vec::new(), Vec::new());
    for token in tokens {
        let cuts = (1..token.len()).filter_map(|at| Some((ids.get(&token[..at])?, ids.get(&token[at..])?)));
        let before = pairs.len();
        for (left, right) in cuts {
            pairs.extend_from_slice(&left.to_le_bytes()[..3]);
            pairs.extend_from_slice(&right.to_le_bytes()[..3]);
        }
        counts.push(u8::try_from((pairs.len() - before) / 6)?);
    }
    Ok([counts, pairs].concat())
}
