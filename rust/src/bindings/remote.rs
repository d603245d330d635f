//! Data behind URLs: its settings from JSON, where a shard lies, and waits for a server that Ctrl-C ends.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::rc::Rc;

use pyo3::prelude::*;

use super::error::to_py;
use crate::error::Error;
use crate::source::{self, Location, Storage, StorageSettings};

/// How objects are found and read, as `nanofast.remote` says it; none: no option is set.
pub(super) fn storage(remote_json: Option<&str>) -> Result<Storage, Error> {
    let Some(json) = remote_json else { return Ok(Storage::default()) };
    let settings = serde_json::from_str::<StorageSettings>(json);
    let settings = settings.map_err(|error| Error::config("remote", "settings", error.to_string()))?;
    Ok(Storage::new(settings))
}

/// Does `work` without the GIL; a signal that Python has a handler for ends its waits for a server.
pub(super) fn interruptible<T: Send>(
    py: Python<'_>,
    work: impl FnOnce() -> Result<T, Error> + Send,
) -> PyResult<T> {
    let (result, signal) = py.detach(|| {
        let signal = Rc::new(RefCell::new(None));
        let seen = signal.clone();
        let gives_up = move || {
            let mut seen = seen.borrow_mut();
            *seen = seen.take().or_else(|| Python::attach(|py| py.check_signals()).err());
            seen.is_some()
        };
        let result = source::reading_until(gives_up, work);
        (result, signal.take())
    });
    match signal {
        Some(signal) => Err(signal),
        None => result.map_err(to_py),
    }
}

/// Where a shard lies: a path, or a URL with what reading it takes. Its text has nothing secret.
#[pyclass(frozen, name = "Location", module = "nanofast._nanofast")]
pub(super) struct PyLocation(Location);

impl From<Location> for PyLocation {
    fn from(location: Location) -> Self {
        Self(location)
    }
}

#[pymethods]
impl PyLocation {
    fn __str__(&self) -> String {
        self.0.path().to_string_lossy().into_owned()
    }

    fn __fspath__(&self) -> &OsStr {
        self.0.path().as_os_str()
    }

    fn __repr__(&self) -> String {
        format!("Location({:?})", self.0.path())
    }
}

/// A shard as Python names it.
#[derive(FromPyObject)]
pub(super) enum Named<'py> {
    #[pyo3(transparent)]
    Found(PyRef<'py, PyLocation>),
    #[pyo3(transparent)]
    Path(PathBuf),
}

impl From<Named<'_>> for Location {
    fn from(named: Named<'_>) -> Self {
        match named {
            Named::Found(location) => location.0.clone(),
            Named::Path(path) => path.into(),
        }
    }
}
