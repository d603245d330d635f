//! The Python extension `nanofast._nanofast`: one thin file a class, nothing decided here. What makes loaders (`opening`) and
//! ids (`encoding`) lies beside the classes.

mod arrow;
mod chat;
mod encoding;
mod error;
mod loader;
mod metrics;
mod opening;
mod reading;
mod remote;
mod texts;
mod token_files;
mod tokenizer;
mod training;
mod writer;

use pyo3::prelude::*;

use crate::tokenizer::pretokenize::Implementation;

/// Native parts of nanofast; use them through the package.
#[pymodule(name = "_nanofast", gil_used = false)]
fn extension(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("DEBUG_BUILD", cfg!(debug_assertions))?;
    module.add("SPLITTER", Implementation::available()[0].name())?;
    tokenizer::register(module)?;
    chat::register(module)?;
    loader::register(module)?;
    opening::register(module)?;
    reading::register(module)?;
    token_files::register(module)?;
    training::register(module)?;
    writer::register(module)
}
