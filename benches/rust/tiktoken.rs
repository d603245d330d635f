//! tiktoken-rs in a process of its own, for `benches/python/bench_tokenizer.py`.
//!
//! `tiktoken VOCABULARY THREADS` loads one and says `ready`. A line with the path of a file of texts (each behind its
//! length, 4 bytes) reads that file; an empty line is a pass over the texts read last. Each is answered by a line: the
//! number of texts, or of tokens. Called with anything else (`cargo test --benches`), it encodes a word.

use std::io::{BufRead as _, Write as _};
use std::thread;

use anyhow::{Context as _, bail};
use tiktoken_rs::CoreBPE;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [vocabulary, threads] = &arguments[..] else {
        anyhow::ensure!(!encoding("r50k_base")?.encode_ordinary("word").is_empty());
        return Ok(());
    };
    let threads = threads.parse()?;
    // One each: threads that share one wait for each other's regular expression.
    let encodings = vec![encoding(vocabulary)?; threads];
    let mut parts = vec![vec!["a".to_owned()]; threads];
    count_tokens(&encodings, &parts);
    answer("ready")?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        if line.is_empty() {
            answer(count_tokens(&encodings, &parts))?;
        } else {
            parts = deal(read_texts(&std::fs::read(line)?)?, threads);
            answer(parts.iter().map(Vec::len).sum::<usize>())?;
        }
    }
    Ok(())
}

fn answer(what: impl std::fmt::Display) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{what}")?;
    out.flush()
}

fn encoding(vocabulary: &str) -> anyhow::Result<CoreBPE> {
    match vocabulary {
        "r50k_base" => tiktoken_rs::r50k_base(),
        "p50k_base" => tiktoken_rs::p50k_base(),
        "cl100k_base" => tiktoken_rs::cl100k_base(),
        "o200k_base" => tiktoken_rs::o200k_base(),
        _ => bail!("tiktoken-rs has no {vocabulary}"),
    }
}

fn read_texts(mut bytes: &[u8]) -> anyhow::Result<Vec<String>> {
    let mut texts = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let length = u32::from_le_bytes(*length) as usize;
        let (text, rest) = rest.split_at_checked(length).context("a text that is cut")?;
        texts.push(std::str::from_utf8(text)?.to_owned());
        bytes = rest;
    }
    Ok(texts)
}

/// Parts of about as many bytes.
fn deal(texts: Vec<String>, threads: usize) -> Vec<Vec<String>> {
    let total: usize = texts.iter().map(String::len).sum();
    let (mut parts, mut begun) = (vec![Vec::new(); threads], 0);
    for text in texts {
        let part = (begun * threads / total.max(1)).min(threads - 1);
        begun += text.len();
        parts[part].push(text);
    }
    parts
}

fn count_tokens(encodings: &[CoreBPE], parts: &[Vec<String>]) -> usize {
    let count = |(encoding, texts): (&CoreBPE, &Vec<String>)| {
        texts.iter().map(|text| encoding.encode_ordinary(text).len()).sum::<usize>()
    };
    thread::scope(|scope| {
        let all: Vec<_> = encodings.iter().zip(parts).map(|both| scope.spawn(move || count(both))).collect();
        all.into_iter().map(|one| one.join().expect("no panic")).sum()
    })
}
