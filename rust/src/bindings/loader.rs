//! `NativeLoader`: the loader without tensors (`opening` makes it). Python owns the ring's memory and makes tensors of
//! its slots.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use numpy::PyArray1;
use numpy::PyReadwriteArray2;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::error::to_py;
use super::metrics::Counters;
use crate::error::Error;
use crate::lane::BatchShape;
use crate::loader::{Loader, NextBatch, Origin};
use crate::plan::Plan;
use crate::ring::SlotMemory;
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

    pub(super) fn over(loader: Loader) -> Self {
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
    module.add_function(wrap_pyfunction!(merge_states, module)?)
}
