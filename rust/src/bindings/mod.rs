//! The Python module.
mod error;
mod tokenizer;
use pyo3::prelude::*;
#[pymodule]
fn _nanofast(m: &Bound<'_, PyModule>) -> PyResult<()> {
    tokenizer::register(m)
}
