//! The Python extension `nanofast._nanofast`: one thin file a class, nothing decided here.

mod chat;
mod error;
mod loader;
mod reading;
mod tokenizer;
mod writer;

use pyo3::prelude::*;

/// Native parts of nanofast; use them through the package.
#[pymodule(name = "_nanofast", gil_used = false)]
fn extension(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("DEBUG_BUILD", cfg!(debug_assertions))?;
    tokenizer::register(module)?;
    chat::register(module)?;
    loader::register(module)?;
    reading::register(module)?;
    writer::register(module)
}
