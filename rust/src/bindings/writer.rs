//! `ParquetWriter`: one text column, zstd, row groups of a fixed number of documents.

use std::path::PathBuf;
use std::sync::Mutex;

use pyo3::prelude::*;

use super::error::to_py;
use crate::source;
use crate::sync::lock;

/// Writes texts as a parquet shard; `close` makes the file complete.
#[pyclass(frozen, module = "nanofast._nanofast")]
struct ParquetWriter {
    writer: Mutex<source::ParquetWriter>,
}

#[pymethods]
impl ParquetWriter {
    #[new]
    #[pyo3(signature = (path, column = "text", row_group_documents = 1000))]
    fn new(path: PathBuf, column: &str, row_group_documents: usize) -> PyResult<Self> {
        let writer = source::ParquetWriter::create(path, column, row_group_documents).map_err(to_py)?;
        Ok(Self { writer: Mutex::new(writer) })
    }

    /// Appends documents.
    fn write(&self, py: Python<'_>, texts: Vec<String>) -> PyResult<()> {
        py.detach(|| lock(&self.writer).write(texts)).map_err(to_py)
    }

    /// Writes the footer.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| lock(&self.writer).close()).map_err(to_py)
    }
}

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<ParquetWriter>()
}
