//! Errors and panics in every stage come out of the next call for a batch; and who begins which stage.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::{Loader, NextBatch};
use crate::config::{BadData, LoaderConfig, Packing, PlanConfig};
use crate::error::{Error, Place, Result};
use crate::metrics::Stage;
use crate::source::{ParquetWriter, open_shards};
use crate::tokenizer::Tokenizer;

type Fault = fn(Stage) -> Result<()>;

/// What comes of a loader of `lanes` lanes over `texts`, with what happens at the beginning of its stages.
fn with_loader<T>(
    texts: impl Iterator<Item = String>,
    lanes: usize,
    fault: Fault,
    then: impl FnOnce(&mut Loader) -> T,
) -> T {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let mut writer = ParquetWriter::create(&path, "text", 10).unwrap();
    writer.write(texts).unwrap();
    writer.close().unwrap();
    let config = LoaderConfig {
        plan: PlanConfig { lanes, ..PlanConfig::default() },
        batch_size: 2,
        sequence_length: 10,
        packing: Packing::Concat,
        text_column: "text".into(),
        bos_id: 50256,
        pad_id: 50256,
        rank: 0,
        world_size: 1,
        num_threads: 2,
        num_slots: 2,
        memory_limit_bytes: 256 << 20,
        bad_data: BadData::default(),
        exclude: Vec::new(),
        return_documents: false,
        mixture: None,
        chat: None,
    };
    let tokenizer = Tokenizer::from_name("r50k_base").unwrap();
    let mut loader = Loader::new(config, open_shards(&[path], "text").unwrap(), tokenizer).unwrap();
    loader.fault = fault;
    let result = then(&mut loader);
    loader.close();
    result
}

/// The message of the error that a loader raises whose stages go wrong like that; raised again, too.
fn message(fault: Fault) -> String {
    with_loader((0..100).map(|row| format!("row {row} of some words")), 2, fault, |loader| {
        let messages = [(); 2].map(|()| {
            loop {
                match loader.next_batch(Duration::from_secs(60)) {
                    Err(error) => break error.to_string(),
                    Ok(NextBatch::Batch(sequence, _)) => loader.release(sequence),
                    Ok(other) => panic!("no batch and no error: {other:?}"),
                }
            }
        });
        assert_eq!(messages[0], messages[1]);
        messages[0].clone()
    })
}

#[test]
fn a_giant_is_tokenized_by_several_threads() {
    static DECODED: AtomicUsize = AtomicUsize::new(0);
    static TOKENIZED: AtomicUsize = AtomicUsize::new(0);
    let count: Fault = |stage| {
        match stage {
            Stage::Decode => DECODED.fetch_add(1, Ordering::Relaxed),
            Stage::Tokenize => TOKENIZED.fetch_add(1, Ordering::Relaxed),
            _ => 0,
        };
        Ok(())
    };
    // Some 10 MB in 40 parts.
    let giant: String =
        (0..800_000_u64).map(|number| format!("{} words, ", number * number % 99_991)).collect();
    let is_helped = || {
        with_loader([giant.clone()].into_iter(), 1, count, |loader| {
            assert!(matches!(loader.next_batch(Duration::from_secs(60)), Ok(NextBatch::Batch(..))));
        });
        // Who reads tokenizes what it read; what was tokenized beside that are parts that others took.
        TOKENIZED.load(Ordering::Relaxed) > DECODED.load(Ordering::Relaxed)
    };
    // On a busy machine the other thread may come too late, once or twice.
    assert!((0..30).any(|_| is_helped()));
}

fn fails(stage: Stage, wanted: Stage) -> Result<()> {
    let place = Place::row_group("a.parquet", 3);
    match stage == wanted {
        true => Err(Error::io(place, io::Error::other("the disk is on fire"))),
        false => Ok(()),
    }
}

fn panics(stage: Stage, wanted: Stage) -> Result<()> {
    assert_ne!(stage, wanted, "a bug in a stage");
    Ok(())
}

#[test]
fn a_failure_in_any_stage_is_raised_with_its_place() {
    let failures: [Fault; 3] = [
        |stage| fails(stage, Stage::Decode),
        |stage| fails(stage, Stage::Tokenize),
        |stage| fails(stage, Stage::Pack),
    ];
    for failure in failures {
        let message = message(failure);
        assert!(message.contains("`a.parquet`, row group 3: the disk is on fire"), "{message}");
    }
}

#[test]
fn a_panic_in_any_stage_is_raised_with_its_place() {
    let panics: [(&str, Fault); 3] = [
        ("a.parquet`, row group", |stage| panics(stage, Stage::Decode)),
        ("a.parquet`, row group", |stage| panics(stage, Stage::Tokenize)),
        ("packing", |stage| panics(stage, Stage::Pack)),
    ];
    for (place, panic) in panics {
        let message = message(panic);
        assert!(message.contains(place) && message.contains("a bug in a stage"), "{message}");
        assert!(message.contains("lane "), "{message}");
    }
}
