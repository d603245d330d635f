//! All counters of a loader, as the dictionary that `metrics()` gives.

use std::path::PathBuf;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::loader::{Loader, Queues};
use crate::metrics::{Metrics, Stage};
use crate::quarantine::{BadFile, Quarantined};
use crate::state::Ledger;

/// What a loader has counted so far.
pub(super) struct Counters {
    metrics: Arc<Metrics>,
    ledger: Ledger,
    queues: Queues,
    limit_bytes: usize,
    quarantine: Vec<(PathBuf, Quarantined)>,
    bad_files: Vec<BadFile>,
    shares: Vec<(u64, u64)>,
}

impl Counters {
    pub(super) fn of(loader: &mut Loader) -> Self {
        Self {
            metrics: loader.metrics().clone(),
            ledger: loader.ledger(),
            queues: loader.queues(),
            limit_bytes: loader.config().memory_limit_bytes,
            quarantine: loader.quarantine(),
            bad_files: loader.identity().bad_files.clone(),
            shares: loader.shares(),
        }
    }

    pub(super) fn into_dict(self, py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
        let Self { metrics, queues, .. } = &self;
        let dict = PyDict::new(py);
        dict.set_item("ledger", counts(py, &self.ledger)?)?;
        dict.set_item("tokenized", metrics.tokenized_so_far())?;
        let stages = PyDict::new(py);
        for stage in Stage::ALL {
            stages.set_item(stage.name(), metrics.stage_seconds(stage))?;
        }
        dict.set_item("stage_seconds", stages)?;
        dict.set_item("cache_hit_rate", metrics.cache_hit_rate())?;
        let waits = metrics.waits();
        dict.set_item("wait_seconds", waits.total_seconds())?;
        dict.set_item("wait_p50_seconds", waits.quantile_seconds(0.5))?;
        dict.set_item("wait_p99_seconds", waits.quantile_seconds(0.99))?;
        dict.set_item("wait_max_seconds", waits.max_seconds())?;
        dict.set_item("ready_batches", queues.ready_batches)?;
        dict.set_item("read_ahead_bytes", queues.read_ahead_bytes)?;
        dict.set_item("shared_row_group_bytes", queues.shared_row_group_bytes)?;
        let memory = PyDict::new(py);
        memory.set_item("limit_bytes", self.limit_bytes)?;
        memory.set_item("used_bytes", queues.memory.used_bytes)?;
        memory.set_item("peak_bytes", queues.memory.peak_bytes)?;
        memory.set_item("reserved_bytes", queues.memory.reserved_bytes)?;
        dict.set_item("memory", memory)?;
        let left_out = metrics.left_out_so_far().into_iter().map(|it| (it.place.to_string(), it.reason));
        dict.set_item("left_out", left_out.collect::<Vec<_>>())?;
        dict.set_item("quarantine", quarantined(py, self.bad_files, self.quarantine)?)?;
        dict.set_item("shares", self.shares)?;
        Ok(dict)
    }
}

/// Where every token went.
fn counts<'py>(py: Python<'py>, ledger: &Ledger) -> PyResult<Bound<'py, PyDict>> {
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
        ("cut", ledger.cut),
        ("left_out_long", ledger.left_out_long),
        ("left_out_unlearned", ledger.left_out_unlearned),
        ("waiting", ledger.waiting()),
    ] {
        counts.set_item(name, count)?;
    }
    Ok(counts)
}

/// What was left out for being bad: whole files, and parts of files.
fn quarantined(
    py: Python<'_>,
    bad_files: Vec<BadFile>,
    parts: Vec<(PathBuf, Quarantined)>,
) -> PyResult<Bound<'_, PyList>> {
    let list = PyList::empty(py);
    for file in bad_files {
        let part = PyDict::new(py);
        part.set_item("file", file.name)?;
        part.set_item("reason", file.reason)?;
        list.append(part)?;
    }
    for (path, Quarantined { row_group, start, end, reason, .. }) in parts {
        let part = PyDict::new(py);
        part.set_item("file", path.file_name().unwrap_or_default())?;
        part.set_item("row_group", row_group)?;
        part.set_item("rows", (start, end))?;
        part.set_item("reason", reason)?;
        list.append(part)?;
    }
    Ok(list)
}
