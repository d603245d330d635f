//! How many tokens a second does each rule pack, on one thread, and how far is that from copying them into the slot?
//! `cargo bench --bench packing`
//!
//! Documents are as long as web pages are (log-normal, about 900 tokens in the median and 1,700 in the mean).

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use nanofast::packing::naive::{Grouped, Naive, Rule};
use nanofast::packing::{
    Carry, Concat, Crop, Cursor, Document, Next, OnePerRow, Packer, Pad, Progress, Rows,
};
use nanofast::ragged::TokenBatch;
use nanofast::state::Address;

const BOS: u32 = 1;
const DOCUMENTS: u64 = 5000;
/// As nanochat trains: 32 rows of 2,048 tokens.
const BATCH_SIZE: usize = 32;
const ROW_LENGTH: usize = 2049;

fn packer(rule: Rule) -> Box<dyn Packer> {
    match rule {
        Rule::Concat => Box::new(Concat::new(Some(BOS), BOS)),
        Rule::Carry => Box::new(Carry::new(BOS, BOS)),
        Rule::Crop => Box::new(Crop::new(BOS, BOS)),
        Rule::Pad => Box::new(Pad::new(Some(BOS), BOS)),
        Rule::OnePerRow => Box::new(OnePerRow::new(Some(BOS), BOS)),
    }
}

/// The sum of twelve even numbers is nearly normal.
fn length(seed: &mut u64) -> usize {
    let mut even = || {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 40) as f64 / (1 << 24) as f64
    };
    let normal = (0..12).map(|_| even()).sum::<f64>() - 6.0;
    (6.8 + 1.1 * normal).exp() as usize
}

fn documents() -> Vec<Document> {
    let mut seed = 3;
    let mut tokens = TokenBatch::new();
    for _ in 0..DOCUMENTS {
        let length = length(&mut seed);
        tokens.values_mut().extend((0..length as u32).map(|token| token % 50_000 + 2));
        tokens.end_document();
    }
    let tokens = Arc::new(tokens);
    let document = |row| {
        let address = Address { source: 0, ordinal: row / 1000, row: row % 1000 };
        Document { address, group: row / 1000, num_bytes: 0, tokens: tokens.clone(), index: row as usize }
    };
    (0..DOCUMENTS).map(document).collect()
}

/// Packs every document; returns the rows of each batch where they are wanted.
fn pack(rule: Rule, documents: &[Document], keep: bool) -> Vec<Vec<i32>> {
    let mut packer = packer(rule);
    let mut documents = documents.iter();
    let mut memory = vec![0; BATCH_SIZE * ROW_LENGTH];
    let mut batches = Vec::new();
    loop {
        let mut rows = Rows::new(&mut memory, ROW_LENGTH, Cursor::default());
        let mut input = || documents.next().map_or(Next::End, |document| Next::Document(document.clone()));
        if packer.fill(&mut input, &mut rows) == Progress::Dry {
            return batches;
        }
        let width = rows.width();
        if keep {
            batches.extend(memory.chunks(ROW_LENGTH).map(|row| row[..width].to_vec()));
        }
        black_box(&memory);
    }
}

/// The floor: every token is copied into the slot once, in order.
fn copy(documents: &[Document]) {
    let mut memory = vec![0; BATCH_SIZE * ROW_LENGTH];
    let mut position = 0;
    for document in documents {
        for piece in document.tokens().chunks(ROW_LENGTH) {
            if position + piece.len() > memory.len() {
                position = 0;
                black_box(&memory);
            }
            for (to, &from) in memory[position..].iter_mut().zip(piece) {
                *to = from as i32;
            }
            position += piece.len();
        }
    }
    black_box(&memory);
}

fn packing(criterion: &mut Criterion) {
    let documents = documents();
    let lists: Vec<Grouped> =
        documents.iter().map(|document| (document.group, document.tokens().to_vec())).collect();
    let num_tokens = lists.iter().map(|(_, tokens)| tokens.len() as u64).sum();
    let mut group = criterion.benchmark_group("packing");
    group.throughput(Throughput::Elements(num_tokens)).sample_size(20);
    group.bench_function("copy", |bencher| bencher.iter(|| copy(&documents)));
    for rule in [Rule::Concat, Rule::Carry, Rule::Crop, Rule::Pad, Rule::OnePerRow] {
        let naive = Naive { rule, bos: Some(BOS), pad_id: BOS, row_length: ROW_LENGTH };
        let expected = naive.batches(&lists, BATCH_SIZE).into_iter().flatten();
        let found = pack(rule, &documents, true).into_iter();
        assert!(found.map(|row| row.into_iter().map(|token| token as u32).collect::<Vec<_>>()).eq(expected));
        group.bench_function(BenchmarkId::from_parameter(format!("{rule:?}")), |bencher| {
            bencher.iter(|| pack(rule, &documents, false))
        });
    }
    group.finish();
}

criterion_group!(benches, packing);
criterion_main!(benches);
