//! The one place where errors become Python exceptions: classes of `nanofast.errors`, each also a built-in.

use pyo3::prelude::*;

use crate::error::{Error, Kind};

/// The exception for an error, its message the error's own.
pub(crate) fn to_py(error: Error) -> PyErr {
    let class = match error.kind() {
        Kind::NotFound => "NotFoundError",
        Kind::Io => "ReadError",
        Kind::Type => "WrongTypeError",
        Kind::Value => "InvalidError",
        Kind::Memory => "OutOfMemoryError",
        Kind::Runtime => "LoaderError",
    };
    Python::attach(|py| {
        let exception = py
            .import("nanofast.errors")
            .and_then(|errors| errors.getattr(class)?.call1((error.to_string(),)));
        exception.map_or_else(|import_error| import_error, PyErr::from_value)
    })
}
