//! `TokenFiles` for Python: what is in pre-tokenized files, and windows of them.

use std::path::PathBuf;

use numpy::ndarray::Array2;
use numpy::{IntoPyArray, PyArray2};
use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;

use super::error::to_py;
use crate::token_file::{Format, TokenFiles, Width};

/// (format, dtype, where the ids begin in bytes, number of ids)
type Facts = (&'static str, &'static str, u64, u64);

#[pyclass(frozen, name = "TokenFiles", module = "nanofast._nanofast")]
pub(super) struct PyTokenFiles {
    files: TokenFiles,
}

/// Opens files as users name format and dtype.
pub(super) fn open(
    paths: &[PathBuf],
    format: Option<&str>,
    dtype: Option<&str>,
) -> crate::Result<TokenFiles> {
    TokenFiles::open(paths, format.map(Format::parse).transpose()?, dtype.map(Width::parse).transpose()?)
}

#[pymethods]
impl PyTokenFiles {
    #[new]
    #[pyo3(signature = (paths, format = None, dtype = None))]
    fn new(py: Python<'_>, paths: Vec<PathBuf>, format: Option<&str>, dtype: Option<&str>) -> PyResult<Self> {
        let files = py.detach(|| open(&paths, format, dtype)).map_err(to_py)?;
        Ok(Self { files })
    }

    /// What each file is.
    fn facts(&self) -> Vec<Facts> {
        let facts = |file| {
            let layout = self.files.layout(file);
            (layout.format.name(), layout.width.name(), layout.data_offset, layout.num_tokens)
        };
        (0..self.files.len()).map(facts).collect()
    }

    /// int32 `[len(places), length]`: `length` ids from each (file, first id) on, all below `vocab_size`.
    fn read<'py>(
        &self,
        py: Python<'py>,
        places: Vec<(usize, u64)>,
        length: usize,
        vocab_size: u32,
    ) -> PyResult<Bound<'py, PyArray2<i32>>> {
        for &(file, start) in &places {
            let all = if file < self.files.len() { self.files.layout(file).num_tokens } else { 0 };
            if start.checked_add(length as u64).is_none_or(|end| end > all) {
                return Err(PyIndexError::new_err(format!(
                    "{length} ids from {start} of file {file} are not there"
                )));
            }
        }
        let ids = py.detach(|| {
            let mut ids = Array2::zeros((places.len(), length));
            let mut bytes = Vec::new();
            for (mut row, &(file, start)) in ids.rows_mut().into_iter().zip(&places) {
                let row = row.as_slice_mut().unwrap_or_default();
                self.files.read(file, start, row, vocab_size, &mut bytes)?;
            }
            Ok(ids)
        });
        Ok(ids.map_err(to_py)?.into_pyarray(py))
    }
}

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyTokenFiles>()
}
