//! Errors for Python.
use crate::error::{Error, Kind};
use pyo3::exceptions::*;
use pyo3::prelude::*;
pub(crate) fn to_py(error: Error) -> PyErr {
    let text = error.to_string();
    match error.kind() {
        Kind::NotFound => PyFileNotFoundError::new_err(text),
        Kind::Type => PyTypeError::new_err(text),
        _ => PyValueError::new_err(text),
    }
}
