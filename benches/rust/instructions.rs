//! How many instructions do the hot loops take? `scripts/instructions.py` runs this under callgrind.
//!
//! `instructions LOOP REPETITIONS [SHARD]` does one loop so many times and prints its bytes of text; the difference of
//! two numbers of repetitions is the loop alone. Text is made here, the same everywhere, unless a shard is named.
//! Called with anything else (`cargo test --benches`), it does each once.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nanofast::packing::{Carry, Concat, Cursor, Document, Next, Packer, Progress, Rows};
use nanofast::pool::Pool;
use nanofast::ragged::{DocumentBatch, TokenBatch};
use nanofast::source::{ParquetWriter, open_shard};
use nanofast::state::Address;
use nanofast::tokenizer::{Encoder, Tokenizer};

const LOOPS: [&str; 5] = ["decode", "encode_cold", "encode_warm", "pack_best_fit", "fill_slot_concat"];
const DOCUMENTS: u64 = 256;
const BATCH_SIZE: usize = 8;
const ROW_LENGTH: usize = 2049;

/// A document of English-looking words, some of which come often.
fn document(number: u64) -> String {
    let (mut text, mut state) = (String::new(), number + 1);
    for _ in 0..400 + number * 37 % 900 {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        let rank = (state >> 33) % 5_000 * ((state >> 20) % 64) / 64;
        let mut word = (rank + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for _ in 0..2 + word % 8 {
            text.push((b'a' + (word >> 58) as u8 % 26) as char);
            word = word.wrapping_mul(0xd6e8_feb8_6659_fd93);
        }
        text.push_str(if state.is_multiple_of(11) { ", " } else { " " });
    }
    text
}

fn shard_path(named: Option<&str>) -> PathBuf {
    if let Some(named) = named {
        return PathBuf::from(named);
    }
    let name = format!("instructions_{}.parquet", std::process::id());
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let mut writer =
        ParquetWriter::create(&path, "text", DOCUMENTS as usize).expect("a writable target folder");
    writer.write((0..DOCUMENTS).map(document)).expect("space on the disk");
    writer.close().expect("space on the disk");
    path
}

/// The documents of the first row group.
fn decode(path: &Path) -> Vec<DocumentBatch> {
    let shard = open_shard(path, "text").expect("a text shard");
    let mut reader = shard.reader(0, 0..shard.num_rows(0), &Pool::new()).expect("an unchanged file");
    let mut batches = Vec::new();
    while let Some((_, batch)) = reader.next_batch().expect("an intact file") {
        batches.push(batch);
    }
    batches
}

fn encode(encoder: &mut Encoder, batches: &[DocumentBatch], out: &mut TokenBatch) {
    out.clear();
    for batch in batches {
        encoder.encode_batch(batch, out).expect("UTF-8");
    }
    black_box(out.num_tokens());
}

fn pack(mut packer: impl Packer, documents: &[Document], memory: &mut [i32]) {
    let mut documents = documents.iter();
    loop {
        let mut rows = Rows::new(memory, ROW_LENGTH, Cursor::default());
        let mut input = || documents.next().map_or(Next::End, |document| Next::Document(document.clone()));
        if packer.fill(&mut input, &mut rows) == Progress::Dry {
            return;
        }
        black_box(&memory);
    }
}

/// Returns the bytes of text that one repetition takes.
fn run(name: &str, repetitions: usize, path: &Path) -> usize {
    let batches = decode(path);
    let num_bytes = batches.iter().map(DocumentBatch::num_bytes).sum();
    if name == "decode" {
        (0..repetitions).for_each(|_| drop(black_box(decode(path))));
        return num_bytes;
    }
    let tokenizer = Tokenizer::from_name("r50k_base").expect("it is bundled");
    let mut out = TokenBatch::new();
    if name == "encode_cold" {
        (0..repetitions).for_each(|_| encode(&mut tokenizer.encoder(), &batches, &mut out));
        return num_bytes;
    }
    let mut encoder = tokenizer.encoder();
    encode(&mut encoder, &batches, &mut out);
    if name == "encode_warm" {
        (0..repetitions).for_each(|_| encode(&mut encoder, &batches, &mut out));
        return num_bytes;
    }
    let tokens = Arc::new(out);
    let documents: Vec<Document> = (0..batches.iter().map(DocumentBatch::len).sum::<usize>())
        .map(|index| {
            let address = Address { source: 0, ordinal: 0, row: index as u64 };
            Document { address, group: 0, num_bytes: 0, tokens: tokens.clone(), index }
        })
        .collect();
    let mut memory = vec![0; BATCH_SIZE * ROW_LENGTH];
    for _ in 0..repetitions {
        match name {
            "pack_best_fit" => pack(Carry::new(50_256, 50_256), &documents, &mut memory),
            _ => pack(Concat::new(Some(50_256), 50_256), &documents, &mut memory),
        }
    }
    num_bytes
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let named = arguments.first().is_some_and(|name| LOOPS.contains(&name.as_str()));
    let (names, repetitions, shard) = if named {
        let repetitions = arguments.get(1).map_or(1, |count| count.parse().expect("a number of repetitions"));
        (&arguments[..1], repetitions, arguments.get(2).map(String::as_str))
    } else {
        (&LOOPS.map(String::from)[..], 1, None)
    };
    let path = shard_path(shard);
    for name in names {
        println!("{name} {}", run(name, repetitions, &path));
    }
    if shard.is_none() {
        std::fs::remove_file(&path).expect("the file that was written");
    }
}
