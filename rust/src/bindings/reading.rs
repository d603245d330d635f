//! Looking into parquet files: which there are, a footer as JSON, a row group's documents as bytes.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use super::remote::{self, Named, PyLocation, interruptible};
use crate::pool::Pool;
use crate::ragged::DocumentBatch;
use crate::source::{self, Location, RowGroupReader, Shard};
use crate::sync::lock;

/// The shards that a file, folder, glob or URL names, in the order in which the loader reads them.
#[pyfunction]
#[pyo3(signature = (path, remote_json = None))]
fn find_shards(py: Python<'_>, path: PathBuf, remote_json: Option<&str>) -> PyResult<Vec<PyLocation>> {
    let found = interruptible(py, || remote::storage(remote_json)?.find_shards(&[path]))?;
    Ok(found.into_iter().map(PyLocation::from).collect())
}

/// What the footer says, as JSON: size_bytes, num_rows, created_by, columns, row_groups.
#[pyfunction]
fn read_footer(py: Python<'_>, path: Named<'_>) -> PyResult<String> {
    let location = path.into();
    let facts = interruptible(py, || source::file_facts(&location))?;
    serde_json::to_string(&facts).map_err(|error| pyo3::exceptions::PyValueError::new_err(error.to_string()))
}

/// The documents of a row group; nulls are empty.
#[pyfunction]
#[pyo3(signature = (path, row_group, column = "text"))]
fn read_row_group<'py>(
    py: Python<'py>,
    path: Named<'py>,
    row_group: usize,
    column: &str,
) -> PyResult<Bound<'py, PyList>> {
    let location: Location = path.into();
    let read = || -> crate::Result<Vec<DocumentBatch>> {
        let shard = source::open_shard(location, column)?;
        let mut reader = shard.reader(row_group, 0..shard.num_rows(row_group), &Pool::new())?;
        let mut batches = Vec::new();
        while let Some((_, batch)) = reader.next_batch()? {
            batches.push(batch);
        }
        Ok(batches)
    };
    let batches = interruptible(py, read)?;
    PyList::new(
        py,
        batches.iter().flat_map(DocumentBatch::iter).map(|text| PyBytes::new(py, text)).collect::<Vec<_>>(),
    )
}

/// An iterator over the documents of a whole file, of which it holds a few hundred kilobytes at a time.
#[pyclass(frozen, module = "nanofast._nanofast")]
struct DocumentReader {
    position: Mutex<Position>,
}

struct Position {
    shard: Shard,
    pool: Arc<Pool<u8>>,
    row_group: usize,
    reader: Option<RowGroupReader>,
    batch: DocumentBatch,
    next: usize,
}

impl Position {
    /// Makes `batch[next]` the next document; false behind the last one.
    fn advance(&mut self) -> crate::Result<bool> {
        while self.next == self.batch.len() {
            let Some(reader) = &mut self.reader else {
                if self.row_group == self.shard.row_groups().len() {
                    return Ok(false);
                }
                let rows = 0..self.shard.num_rows(self.row_group);
                self.reader = Some(self.shard.reader(self.row_group, rows, &self.pool)?);
                self.row_group += 1;
                continue;
            };
            match reader.next_batch()? {
                Some((_, batch)) => (self.batch, self.next) = (batch, 0),
                None => self.reader = None,
            }
        }
        Ok(true)
    }
}

#[pymethods]
impl DocumentReader {
    #[new]
    #[pyo3(signature = (path, column = "text"))]
    fn new(py: Python<'_>, path: Named<'_>, column: &str) -> PyResult<Self> {
        let location: Location = path.into();
        let shard = interruptible(py, || source::open_shard(location, column))?;
        let (pool, batch) = (Pool::new(), DocumentBatch::new());
        let position = Position { shard, pool, row_group: 0, reader: None, batch, next: 0 };
        Ok(Self { position: Mutex::new(position) })
    }

    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let mut position = lock(&self.position);
        let position: &mut Position = &mut position;
        if position.next == position.batch.len() && !interruptible(py, || position.advance())? {
            return Ok(None);
        }
        position.next += 1;
        Ok(Some(PyBytes::new(py, position.batch.document(position.next - 1))))
    }
}

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<DocumentReader>()?;
    module.add_class::<PyLocation>()?;
    module.add_function(wrap_pyfunction!(find_shards, module)?)?;
    module.add_function(wrap_pyfunction!(read_footer, module)?)?;
    module.add_function(wrap_pyfunction!(read_row_group, module)?)
}
