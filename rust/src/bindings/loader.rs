//! `NativeLoader`: the loader without tensors. Python owns the ring's memory and makes tensors of its slots.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::error::to_py;
use super::tokenizer::PyTokenizer;
use crate::config::{Deal, LoaderConfig, Packing, PlanConfig, Split};
use crate::error::Error;
use crate::loader::{Loader, NextBatch};
use crate::metrics::Stage;
use crate::ring::SlotMemory;
use crate::source;
use crate::state::LoaderState;
use crate::sync::lock;

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
}

#[pymethods]
impl NativeLoader {
    #[new]
    #[pyo3(signature = (paths, tokenizer, *, text_column, split, batch_size, sequence_length, packing, overflow, rank,
        world_size, lanes, unit_documents, deal, shuffle, shuffle_window, seed, epochs, bos_id, pad_id, num_threads,
        num_slots, memory_limit_bytes))]
    #[expect(clippy::too_many_arguments, reason = "they are the keywords of the Python class")]
    fn new(
        py: Python<'_>,
        paths: Vec<PathBuf>,
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
        bos_id: u32,
        pad_id: u32,
        num_threads: usize,
        num_slots: usize,
        memory_limit_bytes: usize,
    ) -> PyResult<Self> {
        let make = || {
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
                },
                batch_size,
                sequence_length,
                packing: Packing::parse(packing, overflow)?,
                text_column,
                bos_id,
                pad_id,
                rank,
                world_size,
                num_threads,
                num_slots,
                memory_limit_bytes,
            };
            config.validate()?;
            let tokenizer = tokenizer.inner().clone();
            py.detach(|| {
                let paths = source::find_shards(&paths)?;
                let shards = source::open_shards(&paths, &config.text_column)?;
                Loader::new(config, shards, tokenizer)
            })
        };
        let loader = make().map_err(to_py)?;
        Ok(Self { loader: Mutex::new(loader), owner: Mutex::new(None) })
    }

    /// int32 values in a slot.
    #[getter]
    fn slot_len(&self) -> usize {
        lock(&self.loader).config().slot_len()
    }

    /// The number of lanes as resolved.
    #[getter]
    fn lanes(&self) -> usize {
        lock(&self.loader).config().plan.lanes
    }

    /// (units, documents) of an epoch over all lanes, and documents a unit (0: whole row groups).
    #[getter]
    fn plan(&self) -> (u64, u64, u64) {
        let loader = lock(&self.loader);
        let plan = loader.plan();
        (plan.num_units(), plan.num_documents(), plan.unit_documents())
    }

    /// Lends the ring's memory: the address of `len` int32, kept alive by `owner`.
    #[expect(unsafe_code, reason = "the one place where memory of torch or numpy comes in")]
    fn set_memory(&self, address: usize, len: usize, owner: Py<PyAny>) {
        // SAFETY: Python passes the address and length of a contiguous int32 array together with the object that owns
        // it; the owner is held here until the loader and with it every thread is gone, and Python reads a slot only
        // between fetching and releasing it.
        let memory = unsafe { SlotMemory::borrowed(address as *mut i32, len) };
        lock(&self.loader).set_memory(memory);
        *lock(&self.owner) = Some(owner);
    }

    /// The next batch, or None at the end of the last epoch. Waits up to `timeout_seconds` (for ever when None; then
    /// False means that it is not there yet), letting Python handle signals meanwhile.
    #[pyo3(signature = (timeout_seconds = None))]
    fn fetch<'py>(&self, py: Python<'py>, timeout_seconds: Option<f64>) -> PyResult<Bound<'py, PyAny>> {
        let start = Instant::now();
        let timeout = timeout_seconds.map(Duration::from_secs_f64);
        loop {
            let left =
                timeout.map_or(WAIT_SLICE, |timeout| timeout.saturating_sub(start.elapsed()).min(WAIT_SLICE));
            let next = py.detach(|| lock(&self.loader).next_batch(left)).map_err(to_py)?;
            match next {
                NextBatch::Batch(sequence, header) => {
                    let loader = lock(&self.loader);
                    if timeout_seconds.is_none() {
                        loader.waited(start);
                    }
                    let fetched: Fetched =
                        (sequence, loader.slot_of(sequence), header.width, header.num_targets, header.masked);
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

    /// The user holds the next fetched batch: it is what `state_json` describes from here on.
    fn accept(&self) {
        lock(&self.loader).accept();
    }

    /// Gives a slot back.
    fn release(&self, sequence: u64) {
        lock(&self.loader).release(sequence);
    }

    /// The state without its identity, as JSON.
    fn state_json(&self) -> String {
        lock(&self.loader).state_json().to_string()
    }

    /// What all states share, as JSON.
    fn identity_json(&self) -> PyResult<String> {
        serde_json::to_string(lock(&self.loader).identity()).map_err(|error| to_py(damaged(&error)))
    }

    /// Goes on behind the batch that a state (with its identity, as JSON) describes.
    fn restore(&self, py: Python<'_>, state_json: &str) -> PyResult<()> {
        let value = serde_json::from_str(state_json).map_err(|error| to_py(damaged(&error)))?;
        py.detach(|| lock(&self.loader).restore(&LoaderState::from_json(&value)?)).map_err(to_py)
    }

    /// Complete rounds, and batches delivered in the round at hand.
    fn position(&self) -> (u64, u64) {
        lock(&self.loader).position()
    }

    /// All counters.
    fn metrics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let loader = lock(&self.loader);
        let (metrics, ledger) = (loader.metrics(), loader.ledger());
        let dict = PyDict::new(py);
        let counts = PyDict::new(py);
        for (name, count) in [
            ("documents", ledger.documents),
            ("bytes", ledger.bytes),
            ("read", ledger.read),
            ("learned", ledger.learned),
            ("masked", ledger.masked),
            ("bos", ledger.bos),
            ("padding", ledger.padding),
            ("cropped", ledger.cropped),
            ("carried", ledger.carried),
            ("waiting", ledger.waiting()),
        ] {
            counts.set_item(name, count)?;
        }
        dict.set_item("ledger", counts)?;
        let (documents, bytes, tokens) = metrics.tokenized_so_far();
        dict.set_item("tokenized", (documents, bytes, tokens))?;
        let stages = PyDict::new(py);
        for stage in Stage::ALL {
            stages.set_item(stage.name(), metrics.stage_seconds(stage))?;
        }
        dict.set_item("stage_seconds", stages)?;
        let waits = metrics.waits();
        dict.set_item("wait_seconds", waits.total_seconds())?;
        dict.set_item("wait_p50_seconds", waits.quantile_seconds(0.5))?;
        dict.set_item("wait_p99_seconds", waits.quantile_seconds(0.99))?;
        dict.set_item("wait_max_seconds", waits.max_seconds())?;
        dict.set_item("held_bytes", loader.held_bytes())?;
        Ok(dict)
    }

    /// Ends every thread.
    fn close(&self, py: Python<'_>) {
        py.detach(|| lock(&self.loader).close());
    }
}

/// The states of all ranks as one, all as JSON with their identities.
#[pyfunction]
fn merge_states(states_json: Vec<String>) -> PyResult<String> {
    let merge = || {
        let states: Result<Vec<_>, Error> = states_json
            .iter()
            .map(|state| {
                LoaderState::from_json(&serde_json::from_str(state).map_err(|error| damaged(&error))?)
            })
            .collect();
        let whole = LoaderState::merge(states?)?;
        Ok(whole.to_json(&whole.identity.digest()).to_string())
    };
    merge().map_err(to_py)
}

fn damaged(error: &serde_json::Error) -> Error {
    Error::State { reason: format!("the state is damaged ({error}); take the one before it") }
}

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<NativeLoader>()?;
    module.add_function(wrap_pyfunction!(merge_states, module)?)
}
