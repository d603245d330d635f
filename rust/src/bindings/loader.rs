//! `NativeLoader`: the loader without tensors. Python owns the ring's memory and makes tensors of its slots.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use numpy::PyArray1;
use numpy::PyReadwriteArray2;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::chat::ChatArguments;
use super::error::to_py;
use super::metrics::Counters;
use super::remote;
use super::token_files;
use super::tokenizer::PyTokenizer;
use crate::config::{
    BadData, Deal, DocumentName, LoaderConfig, MixtureConfig, Packing, PlanConfig, RunOut, Split,
};
use crate::error::Error;
use crate::lane::BatchShape;
use crate::loader::{Loader, NextBatch, Origin, SourceShards};
use crate::plan::Plan;
use crate::ring::SlotMemory;
use crate::source::{self, ConversationSource, Storage};
use crate::state::LoaderState;
use crate::sync::lock;
use crate::windows::Shuffle;

/// How long a wait holds out before Python may handle a signal.
const WAIT_SLICE: Duration = Duration::from_millis(50);

/// A fetched batch: sequence number, slot, columns in use, learned targets, whether any token is not learned.
type Fetched = (u64, usize, usize, usize, bool);

/// The loader of one rank, without tensors.
#[pyclass(frozen, module = "nanofast._nanofast")]
pub(super) struct NativeLoader {
    // Dropped first: its threads have ended before the memory's owner is let go.
    loader: Mutex<Loader>,
    owner: Mutex<Option<Py<PyAny>>>,
    /// The process that asked for the first batch; 0 before.
    process: AtomicU32,
    lanes: usize,
    plan: (u64, u64, u64),
}

impl NativeLoader {
    /// Uses the loader, unless another process began to: a thread that is not in this one may hold the lock. Nothing of
    /// Python runs while it is held, and nobody waits for it in the way of other Python threads.
    fn with<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut Loader) -> Result<T, Error> + Send,
    ) -> PyResult<T> {
        self.refuse_forked()?;
        let result = match self.loader.try_lock() {
            Ok(mut loader) => work(&mut loader),
            Err(_) => py.detach(|| work(&mut lock(&self.loader))),
        };
        result.map_err(to_py)
    }

    fn over(loader: Loader) -> Self {
        let plans = loader.plans();
        let num_units = plans.iter().map(Plan::num_units).sum();
        let num_documents = plans.iter().map(Plan::num_documents).sum();
        Self {
            lanes: loader.config().plan.lanes,
            plan: (num_units, num_documents, plans[0].unit_documents()),
            loader: Mutex::new(loader),
            owner: Mutex::new(None),
            process: AtomicU32::new(0),
        }
    }

    fn refuse_forked(&self) -> PyResult<()> {
        match self.is_forked() {
            true => Err(to_py(Error::Forked)),
            false => Ok(()),
        }
    }

    fn is_forked(&self) -> bool {
        // Relaxed: a fork copies the whole memory, and within a process the value is set before it matters.
        ![0, std::process::id()].contains(&self.process.load(Ordering::Relaxed))
    }
}

#[pymethods]
impl NativeLoader {
    #[new]
    #[pyo3(signature = (sources, tokenizer, *, text_column, split, batch_size, sequence_length, packing, overflow, rank,
        world_size, lanes, unit_documents, deal, shuffle, shuffle_window, seed, epochs, drop_last, shares_end, bos_id,
        pad_id, num_threads, num_slots, memory_limit_bytes, on_bad_data, invalid_utf8, exclude, return_documents,
        weights = None, run_out = "repeat", chat_json = None, remote_json = None))]
    #[expect(clippy::too_many_arguments, reason = "they are the keywords of the Python class")]
    fn new(
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
    ) -> PyResult<Self> {
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
                let opened = open(name.clone(), &paths, &config, &storage, conversations.as_ref());
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
        Ok(Self::over(loader))
    }

    /// A loader over token files.
    #[staticmethod]
    #[pyo3(signature = (paths, *, format, dtype, vocab_size, split, batch_size, sequence_length, shuffle, rank,
        world_size, lanes, seed, epochs, drop_last, pad_id, num_threads, num_slots))]
    #[expect(clippy::too_many_arguments, reason = "they are the keywords of the Python class")]
    fn over_token_files(
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
    ) -> PyResult<Self> {
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
        py.detach(make).map(Self::over).map_err(to_py)
    }

    /// The number of lanes as resolved.
    #[getter]
    fn lanes(&self) -> usize {
        self.lanes
    }

    /// (units, documents) of an epoch over all lanes, and documents a unit (0: whole row groups).
    #[getter]
    fn plan(&self) -> (u64, u64, u64) {
        self.plan
    }

    /// Lends the ring's memory: the address of `len` int32, kept alive by `owner`.
    #[expect(unsafe_code, reason = "the one place where memory of torch or numpy comes in")]
    fn set_memory(&self, py: Python<'_>, address: usize, len: usize, owner: Py<PyAny>) -> PyResult<()> {
        // SAFETY: Python passes the address and length of a contiguous int32 array together with the object that owns
        // it; the owner is held here until the loader and with it every thread is gone, and Python reads a slot only
        // between fetching and releasing it.
        let memory = unsafe { SlotMemory::borrowed(address as *mut i32, len) };
        self.with(py, |loader| {
            loader.set_memory(memory);
            Ok(())
        })?;
        *lock(&self.owner) = Some(owner);
        Ok(())
    }

    /// Batch `sequence`, or None at the end of the last epoch. Waits up to `timeout_seconds` (for ever when None; then
    /// False means that it is not there yet), letting Python handle signals meanwhile. A batch that was fetched and not
    /// accepted is given again.
    #[pyo3(signature = (sequence, timeout_seconds = None))]
    fn fetch<'py>(
        &self,
        py: Python<'py>,
        sequence: u64,
        timeout_seconds: Option<f64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let start = Instant::now();
        let timeout = timeout_seconds.map(Duration::from_secs_f64);
        // Relaxed: see `is_forked`. Only the first to ask sets it.
        let _ = self.process.compare_exchange(0, std::process::id(), Ordering::Relaxed, Ordering::Relaxed);
        loop {
            let left =
                timeout.map_or(WAIT_SLICE, |timeout| timeout.saturating_sub(start.elapsed()).min(WAIT_SLICE));
            let mut next = self.with(py, |loader| loader.poll(sequence))?;
            if next == NextBatch::Pending && !left.is_zero() {
                // Others may use the loader while this thread waits.
                let waiter = self.with(py, Loader::waiter)?;
                py.detach(|| waiter.wait(left));
                next = self.with(py, |loader| loader.poll(sequence))?;
            }
            match next {
                NextBatch::Batch(sequence, shape) => {
                    let slot = self.with(py, |loader| {
                        if timeout_seconds.is_none() {
                            loader.waited(start);
                        }
                        Ok(loader.slot_of(sequence))
                    })?;
                    let fetched: Fetched = (sequence, slot, shape.width, shape.num_targets, shape.masked);
                    return fetched.into_pyobject(py).map(Bound::into_any);
                }
                NextBatch::End => return Ok(py.None().into_bound(py)),
                NextBatch::Pending if timeout.is_some_and(|timeout| start.elapsed() >= timeout) => {
                    return Ok(false.into_pyobject(py)?.to_owned().into_any());
                }
                NextBatch::Pending => py.check_signals()?,
            }
        }
    }

    /// Writes fetched batch `sequence` as inputs and targets, both `[B, width - 1]`; targets are -1 where nothing is learned.
    fn split<'py>(
        &self,
        py: Python<'py>,
        fetched: Fetched,
        mut inputs: PyReadwriteArray2<'py, i32>,
        mut targets: PyReadwriteArray2<'py, i64>,
    ) -> PyResult<()> {
        let (sequence, _, width, num_targets, masked) = fetched;
        let (inputs, targets) = (inputs.as_slice_mut()?, targets.as_slice_mut()?);
        self.refuse_forked()?;
        let shape = BatchShape { lane: 0, width, num_targets, masked };
        let split = || lock(&self.loader).split(sequence, shape, inputs, targets);
        py.detach(split).map_err(to_py)
    }

    /// What lies where in a fetched batch: for each stretch of a document its row, first column, number of positions,
    /// whether a BOS is the first; then file, row group and row of the document, its first token and number of tokens.
    fn origins<'py>(&self, py: Python<'py>, sequence: u64) -> PyResult<Bound<'py, PyArray1<i64>>> {
        let origins = self.with(py, |loader| Ok(loader.origins(sequence)))?;
        let numbers = origins.iter().flat_map(|Origin { span, unit }| {
            let (has_bos, num_tokens) = (i64::from(span.has_bos), span.num_tokens as i64);
            let place = [span.row as i64, span.column as i64, num_tokens + has_bos, has_bos];
            let document = [unit.shard as i64, unit.row_group as i64, span.address.row as i64];
            place.into_iter().chain(document).chain([span.first_token as i64, num_tokens])
        });
        Ok(PyArray1::from_iter(py, numbers))
    }

    /// Names of all files, in order.
    fn shard_names(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        self.with(py, |loader| Ok(loader.shard_names().into_iter().map(Into::into).collect()))
    }

    /// Number of the next batch to accept, counted since the threads started.
    fn next_to_accept(&self, py: Python<'_>) -> PyResult<u64> {
        self.with(py, |loader| Ok(loader.next_to_accept()))
    }

    /// The user holds the next fetched batch: it is what `state_json` describes from here on.
    fn accept(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, |loader| {
            loader.accept();
            Ok(())
        })
    }

    /// The user did not get batch `sequence` after all.
    fn take_back(&self, py: Python<'_>, sequence: u64) -> PyResult<()> {
        self.with(py, |loader| {
            loader.take_back(sequence);
            Ok(())
        })
    }

    /// Gives a slot back; a second time is harmless.
    fn release(&self, py: Python<'_>, sequence: u64) -> PyResult<()> {
        self.with(py, |loader| {
            loader.release(sequence);
            Ok(())
        })
    }

    /// (rounds that this rank is sure to have data for, whether there are no more). Waits up to `timeout_seconds` for
    /// more than `than`, or the end.
    fn known_rounds(&self, py: Python<'_>, than: u64, timeout_seconds: f64) -> PyResult<(u64, bool)> {
        let waiter = self.with(py, Loader::waiter)?;
        py.detach(|| waiter.known_rounds(than, Duration::from_secs_f64(timeout_seconds))).map_err(to_py)
    }

    /// Some rank has data for so many rounds.
    fn grant(&self, py: Python<'_>, rounds: u64) -> PyResult<()> {
        self.with(py, |loader| loader.grant(rounds))
    }

    /// Batches of another shape, or of other shares of a mixture's sources, from here on.
    #[pyo3(signature = (batch_size, sequence_length, weights = None))]
    fn reconfigure(
        &self,
        py: Python<'_>,
        batch_size: usize,
        sequence_length: usize,
        weights: Option<Vec<f64>>,
    ) -> PyResult<()> {
        self.refuse_forked()?;
        py.detach(|| lock(&self.loader).reconfigure(batch_size, sequence_length, weights)).map_err(to_py)
    }

    /// The state without its identity, as JSON.
    fn state_json(&self, py: Python<'_>) -> PyResult<String> {
        self.with(py, |loader| Ok(loader.state_json().to_string()))
    }

    /// What all states share, as JSON.
    fn identity_json(&self, py: Python<'_>) -> PyResult<String> {
        self.with(py, |loader| serde_json::to_string(loader.identity()).map_err(|error| damaged(&error)))
    }

    /// Goes on behind the batch that a state (with its identity, as JSON) describes.
    fn restore(&self, py: Python<'_>, state_json: &str) -> PyResult<()> {
        let value = serde_json::from_str(state_json).map_err(|error| to_py(damaged(&error)))?;
        self.refuse_forked()?;
        py.detach(|| lock(&self.loader).restore(&LoaderState::from_json(&value)?)).map_err(to_py)
    }

    /// Complete rounds, and batches delivered in the round at hand.
    fn position(&self, py: Python<'_>) -> PyResult<(u64, u64)> {
        self.with(py, |loader| Ok(loader.position()))
    }

    /// All counters.
    fn metrics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.with(py, |loader| Ok(Counters::of(loader)))?.into_dict(py)
    }

    /// Ends every thread. In a forked child there are none.
    fn close(&self, py: Python<'_>) {
        if !self.is_forked() {
            py.detach(|| {
                // The lock is not held while threads end: who waits for a batch learns of it at once.
                let ending = lock(&self.loader).begin_close();
                drop(ending);
            });
        }
    }
}

/// The shards of one source.
fn open(
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

/// Lets the threads of this process share a few heaps, for the sake of `memory_limit_bytes`; done before threads begin.
#[pyfunction]
fn share_heaps() {
    crate::account::share_heaps();
}

/// The states of all ranks as one, as JSON; the first has its identity, the others may lack theirs where it is the same.
#[pyfunction]
fn merge_states(states_json: Vec<String>) -> PyResult<String> {
    let merge = || {
        let values =
            states_json.iter().map(|state| serde_json::from_str(state).map_err(|error| damaged(&error)));
        let whole = LoaderState::merge(LoaderState::all_from_json(values)?)?;
        Ok(whole.to_json(&whole.identity.digest()).to_string())
    };
    merge().map_err(to_py)
}

fn damaged(error: &serde_json::Error) -> Error {
    Error::State { reason: format!("the state is damaged ({error}); take the one before it") }
}

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<NativeLoader>()?;
    module.add_function(wrap_pyfunction!(share_heaps, module)?)?;
    module.add_function(wrap_pyfunction!(merge_states, module)?)
}
