//! Looking into parquet files: which there are, a footer as JSON, a row group's documents as bytes.

use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use super::error::to_py;
use crate::ragged::DocumentBatch;
use crate::source;

/// The shards that a file, folder or glob names, in the order in which the loader reads them.
#[pyfunction]
fn find_shards(py: Python<'_>, path: PathBuf) -> PyResult<Vec<PathBuf>> {
    py.detach(|| source::find_shards(&[path])).map_err(to_py)
}

/// What the footer says, as JSON: size_bytes, num_rows, created_by, columns, row_groups.
#[pyfunction]
fn read_footer(py: Python<'_>, path: PathBuf) -> PyResult<String> {
    let facts = py.detach(|| source::file_facts(&path)).map_err(to_py)?;
    serde_json::to_string(&facts).map_err(|error| pyo3::exceptions::PyValueError::new_err(error.to_string()))
}

/// The documents of a row group; nulls are empty.
#[pyfunction]
#[pyo3(signature = (path, row_group, column = "text"))]
fn read_row_group<'py>(
    py: Python<'py>,
    path: PathBuf,
    row_group: usize,
    column: &str,
) -> PyResult<Bound<'py, PyList>> {
    let read = || -> crate::Result<Vec<DocumentBatch>> {
        let shard = source::open_shard(&path, column)?;
        let mut reader = shard.reader(row_group, 0..shard.num_rows(row_group))?;
        let mut batches = Vec::new();
        while let Some((_, batch)) = reader.next_batch()? {
            batches.push(batch);
        }
        Ok(batches)
    };
    let batches = py.detach(read).map_err(to_py)?;
    PyList::new(
        py,
        batches.iter().flat_map(DocumentBatch::iter).map(|text| PyBytes::new(py, text)).collect::<Vec<_>>(),
    )
}

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(find_shards, module)?)?;
    module.add_function(wrap_pyfunction!(read_footer, module)?)?;
    module.add_function(wrap_pyfunction!(read_row_group, module)?)
}
