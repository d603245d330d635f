//! Opening a loader: from keywords to settings, from settings to a `NativeLoader`.

use std::path::PathBuf;

use pyo3::prelude::*;

use super::chat::ChatArguments;
use super::error::to_py;
use super::loader::NativeLoader;
use super::remote;
use super::token_files;
use super::tokenizer::PyTokenizer;
use crate::config::{
    BadData, Deal, DocumentName, LoaderConfig, MixtureConfig, Packing, PlanConfig, RunOut, Split,
};
use crate::error::Error;
use crate::loader::{Loader, SourceShards};
use crate::source::{self, ConversationSource, Storage};
use crate::windows::Shuffle;

/// A loader over text or conversations: one data set, or the sources of a mixture.
#[pyfunction]
#[pyo3(signature = (sources, tokenizer, *, text_column, split, batch_size, sequence_length, packing, overflow, rank,
    world_size, lanes, unit_documents, deal, shuffle, shuffle_window, seed, epochs, drop_last, shares_end, bos_id,
    pad_id, num_threads, num_slots, memory_limit_bytes, on_bad_data, invalid_utf8, exclude, return_documents,
    weights = None, run_out = "repeat", chat_json = None, remote_json = None))]
#[expect(clippy::too_many_arguments, reason = "they are the keywords that Python has")]
fn open_loader(
    py: Python<'_>,
    sources: Vec<(String, Vec<PathBuf>)>,
    tokenizer: &PyTokenizer,
    text_column: String,
    split: Option<&str>,
    batch_size: usize,
    sequence_length: usize,
    packing: &str,
    overflow: &str,
    rank: usize,
    world_size: usize,
    lanes: Option<usize>,
    unit_documents: Option<u64>,
    deal: &str,
    shuffle: bool,
    shuffle_window: u64,
    seed: u64,
    epochs: Option<u64>,
    drop_last: bool,
    shares_end: bool,
    bos_id: u32,
    pad_id: u32,
    num_threads: usize,
    num_slots: usize,
    memory_limit_bytes: usize,
    on_bad_data: &str,
    invalid_utf8: &str,
    exclude: Vec<(String, usize, u64)>,
    return_documents: bool,
    weights: Option<Vec<f64>>,
    run_out: &str,
    chat_json: Option<&str>,
    remote_json: Option<&str>,
) -> PyResult<NativeLoader> {
    let settings = || {
        let chat = chat_json.map(ChatArguments::parse).transpose()?;
        let config = LoaderConfig {
            plan: PlanConfig {
                split: Split::parse(split)?,
                lanes: lanes.unwrap_or_else(|| LoaderConfig::default_lanes(world_size)),
                unit_documents,
                deal: Deal::parse(deal)?,
                shuffle,
                seed,
                shuffle_window,
                epochs,
                drop_last,
            },
            batch_size,
            sequence_length,
            packing: Packing::parse(packing, overflow)?,
            text_column,
            bad_data: BadData::parse(on_bad_data, invalid_utf8)?,
            exclude: exclude
                .into_iter()
                .map(|(file, row_group, row)| DocumentName { file, row_group, row })
                .collect(),
            return_documents,
            mixture: match weights {
                Some(weights) => Some(MixtureConfig { weights, run_out: RunOut::parse(run_out)? }),
                None => None,
            },
            bos_id,
            pad_id,
            rank,
            world_size,
            num_threads,
            num_slots,
            memory_limit_bytes,
            chat: chat.as_ref().map(ChatArguments::config).transpose()?,
        };
        config.validate()?;
        Ok((config, chat, remote::storage(remote_json)?))
    };
    let (config, chat, storage) = settings().map_err(to_py)?;
    let tokenizer = tokenizer.inner().clone();
    let mut loader = remote::interruptible(py, || {
        let conversations = chat.as_ref().map(ChatArguments::source).transpose()?;
        let is_mixture = config.mixture.is_some();
        let opened = sources.into_iter().map(|(name, paths)| {
            let opened = open_source(name.clone(), &paths, &config, &storage, conversations.as_ref());
            opened.map_err(|error| match is_mixture {
                true => Error::Source { name, error: Box::new(error) },
                false => error,
            })
        });
        let sources = opened.collect::<Result<Vec<_>, _>>()?;
        match chat {
            Some(chat) => Loader::over_sources(config, sources, chat.renderer(tokenizer)?),
            None => Loader::over_sources(config, sources, tokenizer),
        }
    })?;
    if shares_end {
        loader.share_end();
    }
    Ok(NativeLoader::over(loader))
}

/// The shards of one source.
fn open_source(
    name: String,
    paths: &[PathBuf],
    config: &LoaderConfig,
    storage: &Storage,
    conversations: Option<&ConversationSource>,
) -> Result<SourceShards, Error> {
    if let Some(conversations) = conversations {
        let shards = source::open_conversations(&storage.find_conversations(paths)?, conversations)?;
        return Ok(SourceShards { name, shards, bad_files: Vec::new() });
    }
    let (paths, column) = (storage.find_shards(paths)?, &config.text_column);
    let (shards, bad_files) = match config.bad_data.quarantine {
        true => source::open_readable_shards(&paths, column)?,
        false => (source::open_shards(&paths, column)?, Vec::new()),
    };
    Ok(SourceShards { name, shards, bad_files })
}

/// A loader over token files.
#[pyfunction]
#[pyo3(signature = (paths, *, format, dtype, vocab_size, split, batch_size, sequence_length, shuffle, rank,
    world_size, lanes, seed, epochs, drop_last, pad_id, num_threads, num_slots))]
#[expect(clippy::too_many_arguments, reason = "they are the keywords that Python has")]
fn open_token_file_loader(
    py: Python<'_>,
    paths: Vec<PathBuf>,
    format: Option<&str>,
    dtype: Option<&str>,
    vocab_size: u32,
    split: Option<&str>,
    batch_size: usize,
    sequence_length: usize,
    shuffle: &str,
    rank: usize,
    world_size: usize,
    lanes: Option<usize>,
    seed: u64,
    epochs: Option<u64>,
    drop_last: bool,
    pad_id: u32,
    num_threads: usize,
    num_slots: usize,
) -> PyResult<NativeLoader> {
    let make = || {
        let config = LoaderConfig {
            plan: PlanConfig {
                split: Split::parse(split)?,
                lanes: lanes.unwrap_or_else(|| LoaderConfig::default_lanes(world_size)),
                seed,
                epochs,
                drop_last,
                ..PlanConfig::default()
            },
            batch_size,
            sequence_length,
            packing: Packing::Concat,
            text_column: String::new(),
            bos_id: pad_id,
            pad_id,
            rank,
            world_size,
            num_threads,
            num_slots,
            memory_limit_bytes: 0,
            bad_data: BadData::default(),
            exclude: Vec::new(),
            return_documents: false,
            mixture: None,
            chat: None,
        };
        config.validate()?;
        let shuffle = Shuffle::parse(shuffle)?;
        let files = token_files::open(&paths, format, dtype)?;
        Loader::over_token_files(config, files, shuffle, vocab_size)
    };
    py.detach(make).map(NativeLoader::over).map_err(to_py)
}

/// Lets the threads of this process share a few heaps, for the sake of `memory_limit_bytes`; done before threads begin.
#[pyfunction]
fn share_heaps() {
    crate::account::share_heaps();
}

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(open_loader, module)?)?;
    module.add_function(wrap_pyfunction!(open_token_file_loader, module)?)?;
    module.add_function(wrap_pyfunction!(share_heaps, module)?)
}
