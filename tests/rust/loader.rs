//! The whole chain in Rust, without Python: shards on disk, threads, ring, states.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use nanofast::config::{BadData, LoaderConfig, Overflow, Packing, PlanConfig};
use nanofast::loader::{Loader, NextBatch};
use nanofast::source::{ParquetWriter, find_shards, open_shards};
use nanofast::state::LoaderState;
use nanofast::tokenizer::Tokenizer;

const ROW_GROUP_DOCUMENTS: usize = 20;

fn write_shards(folder: &Path, num_shards: usize, documents_each: usize) -> Vec<PathBuf> {
    for shard in 0..num_shards {
        let path = folder.join(format!("shard_{shard:05}.parquet"));
        let mut writer = ParquetWriter::create(&path, "text", ROW_GROUP_DOCUMENTS).unwrap();
        let text = |document: usize| {
            (0..document * 7 % 90)
                .map(|word| format!("word{} ", (word * 31 + shard) % 500))
                .collect::<String>()
        };
        writer.write((0..documents_each).map(text)).unwrap();
        writer.close().unwrap();
    }
    find_shards(&[folder.to_path_buf()]).unwrap()
}

fn config(packing: Packing, plan: PlanConfig) -> LoaderConfig {
    LoaderConfig {
        plan,
        batch_size: 3,
        sequence_length: 50,
        packing,
        text_column: "text".into(),
        bad_data: BadData::default(),
        exclude: Vec::new(),
        return_documents: false,
        mixture: None,
        bos_id: 50256,
        pad_id: 50256,
        rank: 0,
        world_size: 1,
        num_threads: 3,
        num_slots: 3,
        memory_limit_bytes: 64 << 20,
        chat: None,
    }
}

fn loader(paths: &[PathBuf], config: LoaderConfig) -> Loader {
    static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| Tokenizer::from_name("r50k_base").unwrap());
    let shards = open_shards(paths, &config.text_column).unwrap();
    Loader::new(config, shards, TOKENIZER.clone()).unwrap()
}

/// The columns of the next batch that are delivered, `None` at the end. What a slot holds behind them means nothing.
fn next(loader: &mut Loader) -> Option<Vec<i32>> {
    loop {
        match loader.next_batch(Duration::from_secs(1)).unwrap() {
            NextBatch::Pending => {}
            NextBatch::End => return None,
            NextBatch::Batch(sequence, shape) => {
                loader.accept();
                let row_length = loader.config().sequence_length + 1;
                let rows = loader.tokens(sequence).unwrap().chunks_exact(row_length);
                let tokens = rows.flat_map(|row| &row[..shape.width]).copied().collect();
                loader.release(sequence);
                return Some(tokens);
            }
        }
    }
}

const PACKINGS: [Packing; 5] = [
    Packing::Concat,
    Packing::BestFit(Overflow::Carry),
    Packing::BestFit(Overflow::Crop),
    Packing::BestFit(Overflow::Pad),
    Packing::OnePerRow,
];

#[test]
fn the_number_of_threads_and_slots_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let paths = write_shards(folder.path(), 2, 90);
    for packing in PACKINGS {
        let plan = PlanConfig { lanes: 4, shuffle: true, epochs: Some(3), ..PlanConfig::default() };
        let streams = [(1, 2), (2, 3), (8, 16)].map(|(num_threads, num_slots)| {
            let config = LoaderConfig { num_threads, num_slots, ..config(packing, plan.clone()) };
            let mut loader = loader(&paths, config);
            let stream: Vec<_> = std::iter::from_fn(|| next(&mut loader)).collect();
            let ledger = loader.ledger();
            assert_eq!((ledger.waiting(), ledger.documents), (0, 3 * 180), "{packing:?}");
            stream
        });
        assert!(streams[0].len() > 20 && streams[0] == streams[1] && streams[0] == streams[2], "{packing:?}");
    }
}

/// The least memory limit that a loader can be made with, as its refusal says.
fn least_memory(paths: &[PathBuf], config: &LoaderConfig) -> usize {
    let config = LoaderConfig { memory_limit_bytes: 0, ..config.clone() };
    let shards = open_shards(paths, "text").unwrap();
    let refused = Loader::new(config, shards, Tokenizer::from_name("r50k_base").unwrap()).err().unwrap();
    let message = refused.to_string();
    let number = message.split("must be at least ").nth(1).and_then(|rest| rest.split(':').next());
    number.unwrap_or_else(|| panic!("{message}")).parse().unwrap()
}

#[test]
fn the_memory_limit_changes_nothing_and_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let paths = write_shards(folder.path(), 2, 90);
    for packing in PACKINGS {
        for (shuffle, num_threads) in [(false, 1), (true, 5)] {
            let plan = PlanConfig {
                lanes: 3,
                shuffle,
                shuffle_window: 40,
                epochs: Some(2),
                ..PlanConfig::default()
            };
            let config = LoaderConfig { num_threads, ..config(packing, plan) };
            let least = least_memory(&paths, &config);
            let streams = [256 << 20, least].map(|memory_limit_bytes| {
                let mut loader = loader(&paths, LoaderConfig { memory_limit_bytes, ..config.clone() });
                let stream: Vec<_> = std::iter::from_fn(|| next(&mut loader)).collect();
                let memory = loader.queues().memory;
                assert!(memory.reserved_bytes < memory.peak_bytes && memory.peak_bytes <= memory_limit_bytes);
                stream
            });
            assert!(streams[0].len() > 20 && streams[0] == streams[1], "{packing:?} {shuffle} {num_threads}");
        }
    }
}

#[test]
fn a_loader_restored_from_any_batch_goes_on_with_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let paths = write_shards(folder.path(), 2, 90);
    for packing in PACKINGS {
        for shuffle in [false, true] {
            let plan = PlanConfig { lanes: 2, shuffle, shuffle_window: 40, ..PlanConfig::default() };
            let config = config(packing, plan);
            let mut first = loader(&paths, config.clone());
            let (mut states, mut batches) = (vec![first.state()], Vec::new());
            for _ in 0..40 {
                batches.push(next(&mut first).unwrap());
                states.push(first.state());
            }
            for (number, state) in states[..36].iter().enumerate() {
                let mut second = loader(&paths, LoaderConfig { num_threads: 2, ..config.clone() });
                second.restore(state).unwrap();
                assert_eq!(&second.state(), state);
                for (offset, batch) in batches[number..number + 4].iter().enumerate() {
                    assert_eq!(
                        next(&mut second).as_ref(),
                        Some(batch),
                        "{packing:?} {shuffle} {number}+{offset}"
                    );
                    assert_eq!(second.state(), states[number + offset + 1]);
                }
            }
        }
    }
}

#[test]
fn ranks_together_see_the_rounds_of_one() {
    let folder = tempfile::tempdir().unwrap();
    let paths = write_shards(folder.path(), 1, 90);
    let plan = PlanConfig { lanes: 4, ..PlanConfig::default() };
    let whole = config(Packing::BestFit(Overflow::Carry), plan);
    let mut single = loader(&paths, whole.clone());
    let rounds: Vec<_> = (0..40).map(|_| next(&mut single).unwrap()).collect();
    let mut ranks: Vec<_> =
        (0..4).map(|rank| loader(&paths, LoaderConfig { rank, world_size: 4, ..whole.clone() })).collect();
    let states = rounds[..20].chunks(4).map(|round| {
        for (rank, batch) in ranks.iter_mut().zip(round) {
            assert_eq!(next(rank).as_ref(), Some(batch));
        }
        LoaderState::merge(ranks.iter().map(Loader::state).collect()).unwrap()
    });
    let state = states.last().unwrap();
    let mut halves: Vec<_> =
        (0..2).map(|rank| loader(&paths, LoaderConfig { rank, world_size: 2, ..whole.clone() })).collect();
    halves.iter_mut().for_each(|half| half.restore(&state).unwrap());
    for round in rounds[20..].chunks(4) {
        for (turn, batch) in round.iter().enumerate() {
            assert_eq!(next(&mut halves[turn % 2]).as_ref(), Some(batch));
        }
    }
}

#[test]
fn an_error_is_raised_again_and_a_closed_loader_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let paths = write_shards(folder.path(), 1, 90);
    let mut loader = loader(&paths, config(Packing::Concat, PlanConfig::default()));
    std::fs::remove_file(&paths[0]).unwrap();
    let messages: Vec<_> = (0..3)
        .map(|_| {
            loop {
                match loader.next_batch(Duration::from_secs(5)) {
                    Err(error) => break error.to_string(),
                    Ok(NextBatch::Batch(sequence, _)) => loader.release(sequence),
                    Ok(other) => panic!("{other:?}"),
                }
            }
        })
        .collect();
    assert!(messages[0].contains("shard_00000.parquet"), "{}", messages[0]);
    assert!(messages.iter().all(|message| *message == messages[0]));
    loader.close();
    assert!(loader.next_batch(Duration::ZERO).unwrap_err().to_string().contains("closed"));
}
