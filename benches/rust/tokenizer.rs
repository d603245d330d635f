//! What does encoding cost on one thread, by way of splitting, by cache limit, where nothing repeats, and to begin with?
//! `cargo bench --bench tokenizer` (web_en where it is at hand, else words made here).
//!
//! Ids go into memory that is reused. Beside other tokenizers: `benches/python/bench_tokenizer.py`.

use std::hint::black_box;
use std::path::Path;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use nanofast::pool::Pool;
use nanofast::ragged::{DocumentBatch, TokenBatch};
use nanofast::source::{find_shards, open_shard};
use nanofast::tokenizer::pretokenize::{Family, FamilySplitter, Implementation, Starts};
use nanofast::tokenizer::{DEFAULT_CACHE_BYTES, Encoder, Tokenizer};

/// Text of a pass; enough that English words fill the smaller limits.
const NUM_BYTES: usize = 30 << 20;
/// Without optimization, once.
const TEST_BYTES: usize = 100 << 10;

const VOCABULARIES: [&str; 3] = ["r50k_base", "cl100k_base", "o200k_base"];

fn num_bytes() -> usize {
    if std::env::args().any(|argument| argument == "--test") { TEST_BYTES } else { NUM_BYTES }
}

/// The first documents of the corpus.
fn documents(name: &str) -> Vec<String> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/corpus").join(name);
    let Ok(shards) = find_shards(&[corpus]) else { return vec![words(num_bytes(), 5_000)] };
    let shard = open_shard(&shards[0], "text").expect("a text shard");
    let (mut texts, mut left) = (Vec::new(), num_bytes());
    for group in 0..shard.row_counts().len() {
        let mut reader =
            shard.reader(group, 0..shard.num_rows(group), &Pool::new()).expect("an unchanged file");
        while let Some((_, batch)) = reader.next_batch().expect("an intact file") {
            for text in batch.iter() {
                texts.push(String::from_utf8(text.to_vec()).expect("UTF-8"));
                left = left.saturating_sub(text.len());
                if left == 0 {
                    return texts;
                }
            }
        }
    }
    texts
}

/// Text of `num_words` different words of 6 to 12 letters, in a fixed order without a pattern.
fn words(num_bytes: usize, num_words: u64) -> String {
    let (mut text, mut state) = (String::with_capacity(num_bytes + 16), 1_u64);
    while text.len() < num_bytes {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        let mut word = ((state >> 33) % num_words).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        text.push(' ');
        for _ in 0..6 + word % 7 {
            text.push((b'a' + (word >> 58) as u8 % 26) as char);
            word = word.wrapping_mul(0xd6e8_feb8_6659_fd93);
        }
    }
    text
}

fn encode(encoder: &mut Encoder, documents: &DocumentBatch, out: &mut TokenBatch) {
    out.clear();
    encoder.encode_batch(documents, out).expect("UTF-8");
    black_box(out.num_tokens());
}

fn split(criterion: &mut Criterion) {
    for name in ["web_en", "multi"] {
        let text = documents(name).concat();
        for vocabulary in VOCABULARIES {
            let tokenizer = Tokenizer::from_name(vocabulary).expect("it is bundled");
            let family = Family::of(&tokenizer.definition().pattern).expect("it is well known");
            let mut group = criterion.benchmark_group(format!("split {name} as {vocabulary}"));
            group.throughput(Throughput::Bytes(text.len() as u64)).sample_size(10);
            for implementation in Implementation::available() {
                let splitter = FamilySplitter::with(family, implementation).expect("it is available");
                let mut buffer = [0; 4096];
                group.bench_function(format!("{implementation:?}"), |bencher| {
                    bencher.iter(|| {
                        let mut at = 0;
                        while at < text.len() {
                            at = splitter.fill(&text, at, &mut Starts::new(&mut buffer));
                        }
                    });
                });
            }
        }
    }
}

fn first_and_later_passes(criterion: &mut Criterion) {
    for name in ["web_en", "multi"] {
        let batch = DocumentBatch::from_texts(documents(name));
        let mut group = criterion.benchmark_group(format!("encode {name}"));
        group.throughput(Throughput::Bytes(batch.num_bytes() as u64)).sample_size(10);
        for vocabulary in VOCABULARIES {
            let tokenizer = Tokenizer::from_name(vocabulary).expect("it is bundled");
            let (mut encoder, mut out) = (tokenizer.encoder(), TokenBatch::new());
            encode(&mut encoder, &batch, &mut out);
            group.bench_function(BenchmarkId::new("warm", vocabulary), |bencher| {
                bencher.iter(|| encode(&mut encoder, &batch, &mut out));
            });
            group.bench_function(BenchmarkId::new("cold", vocabulary), |bencher| {
                let pass = |mut encoder: Encoder| {
                    encode(&mut encoder, &batch, &mut out);
                    encoder
                };
                bencher.iter_batched(|| tokenizer.encoder(), pass, BatchSize::PerIteration);
            });
        }
    }
}

fn cache_limit(criterion: &mut Criterion) {
    let tokenizer = Tokenizer::from_name("cl100k_base").expect("it is bundled");
    for name in ["web_en", "multi"] {
        let batch = DocumentBatch::from_texts(documents(name));
        let mut group = criterion.benchmark_group(format!("warm {name} by cache limit, MiB"));
        group.throughput(Throughput::Bytes(batch.num_bytes() as u64)).sample_size(10);
        for mebibytes in [0, 1, 4, 12, 24, 48, 96] {
            let (mut encoder, mut out) = (tokenizer.encoder_with(mebibytes << 20), TokenBatch::new());
            encode(&mut encoder, &batch, &mut out);
            group.bench_function(BenchmarkId::from_parameter(mebibytes), |bencher| {
                bencher.iter(|| encode(&mut encoder, &batch, &mut out));
            });
        }
    }
}

/// Words that never come again: what do caches cost that are of no use?
fn nothing_repeats(criterion: &mut Criterion) {
    let tokenizer = Tokenizer::from_name("r50k_base").expect("it is bundled");
    let batch = DocumentBatch::from_texts([words(num_bytes() / 2, u64::MAX)]);
    let mut group = criterion.benchmark_group("nothing repeats");
    group.throughput(Throughput::Bytes(batch.num_bytes() as u64)).sample_size(10);
    for (name, limit) in [("no cache", 0), ("default cache", DEFAULT_CACHE_BYTES)] {
        let mut out = TokenBatch::new();
        group.bench_function(name, |bencher| {
            let pass = |mut encoder: Encoder| {
                encode(&mut encoder, &batch, &mut out);
                encoder
            };
            bencher.iter_batched(|| tokenizer.encoder_with(limit), pass, BatchSize::PerIteration);
        });
    }
}

/// From a name to the ids of one word: tables, then the encoder with its caches.
fn load(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("load");
    group.sample_size(10);
    for vocabulary in VOCABULARIES {
        group.bench_function(BenchmarkId::new("tables", vocabulary), |bencher| {
            bencher.iter(|| Tokenizer::from_name(vocabulary).expect("it is bundled"));
        });
        group.bench_function(BenchmarkId::new("tables and encoder", vocabulary), |bencher| {
            bencher.iter(|| {
                let mut ids = Vec::new();
                let mut encoder = Tokenizer::from_name(vocabulary).expect("it is bundled").encoder();
                encoder.encode(b"word", &mut ids).expect("UTF-8");
                encoder
            });
        });
    }
}

criterion_group!(benches, split, first_and_later_passes, cache_limit, nothing_repeats, load);
criterion_main!(benches);
