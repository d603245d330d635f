//! `PretokenCounts` for Python: counting texts, several counters at once, and training a tokenizer from them.

use std::sync::Mutex;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;

use super::error::to_py;
use super::tokenizer::PyTokenizer;
use crate::sync::lock;
use crate::tokenizer::{PretokenCounts, Training};

/// Counts of the pretokens of texts: one for each thread, absorbed into one that trains.
#[pyclass(frozen, name = "PretokenCounts", module = "nanofast._nanofast")]
struct PyPretokenCounts {
    training: Training,
    /// None once it was absorbed or trained from.
    counts: Mutex<Option<PretokenCounts>>,
}

impl PyPretokenCounts {
    fn take(&self) -> PyResult<PretokenCounts> {
        lock(&self.counts).take().ok_or_else(|| PyRuntimeError::new_err("these counts were used up"))
    }

    fn with<R>(&self, work: impl FnOnce(&mut PretokenCounts) -> PyResult<R>) -> PyResult<R> {
        match &mut *lock(&self.counts) {
            Some(counts) => work(counts),
            None => Err(PyRuntimeError::new_err("these counts were used up")),
        }
    }
}

#[pymethods]
impl PyPretokenCounts {
    #[new]
    fn new(
        pattern: String,
        vocab_size: usize,
        special_tokens: Vec<String>,
        limit_bytes: usize,
    ) -> PyResult<Self> {
        let training = Training { pattern, vocab_size, specials: special_tokens };
        training.check().map_err(to_py)?;
        let counts = PretokenCounts::new(&training, limit_bytes).map_err(to_py)?;
        Ok(Self { training, counts: Mutex::new(Some(counts)) })
    }

    /// Counts texts, without the GIL.
    fn add(&self, py: Python<'_>, texts: Vec<PyBackedBytes>) -> PyResult<()> {
        py.detach(|| self.with(|counts| texts.iter().try_for_each(|text| counts.add(text)).map_err(to_py)))
    }

    fn absorb(&self, py: Python<'_>, other: &Self) -> PyResult<()> {
        let other = other.take()?;
        py.detach(|| self.with(|counts| counts.absorb(other).map_err(to_py)))
    }

    /// Uses the counts up. `progress` is called with the number of merges so far, every few hundred of them.
    fn train(&self, py: Python<'_>, progress: Py<PyAny>) -> PyResult<PyTokenizer> {
        let counts = self.take()?;
        let mut failed = None;
        let goes_on = |num_merges: usize| {
            let told = Python::attach(|py| {
                py.check_signals()?;
                progress.call1(py, (num_merges,)).map(drop)
            });
            told.map_err(|error| failed = Some(error)).is_ok()
        };
        let trained = py.detach(|| self.training.run(counts, goes_on)).map_err(to_py)?;
        match (trained, failed) {
            (Some(tokenizer), _) => Ok(tokenizer.into()),
            (None, Some(error)) => Err(error),
            (None, None) => unreachable!("training stops early only where progress failed"),
        }
    }

    #[getter]
    fn num_text_bytes(&self) -> PyResult<u64> {
        self.with(|counts| Ok(counts.num_text_bytes()))
    }

    #[getter]
    fn num_pretokens(&self) -> PyResult<usize> {
        self.with(|counts| Ok(counts.len()))
    }
}

/// Adds this file's classes to the module.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyPretokenCounts>()
}
