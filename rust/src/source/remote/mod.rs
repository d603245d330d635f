//! Shards behind URLs: found, and read by ranges.
//!
//! ```text
//! URL ─▶ list ─▶ Object (name, size, ETag) ─▶ Reader: blocks ahead of who reads ─▶ cache folder
//!                                                                              └─▶ ranged GET, again until it succeeds
//! ```
//! `object_store` speaks the protocols, `http` carries them, `request` is patient, `runtime` holds the threads. Secrets
//! are in options and in stores; no name, message or state of an object has any.

mod cache;
mod failure;
mod http;
mod hub;
mod list;
mod plans;
mod read_ahead;
mod request;
mod runtime;
mod store;
mod url;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use object_store::path::Path as Key;
pub(super) use plans::planned;
pub(super) use read_ahead::{Reader, Tails};
use sha2::{Digest, Sha256};
use store::Store;

use self::url::RemoteUrl;
use super::location::StorageSettings;
use crate::error::Result;
use crate::sync::lock;

/// What a loader reads with: one for each time that data is opened.
#[derive(Debug)]
pub(super) struct Remote {
    settings: StorageSettings,
    shared: Arc<request::Shared>,
}

impl Remote {
    pub(super) fn new(settings: &StorageSettings) -> Result<Self> {
        Ok(Self { settings: settings.clone(), shared: Arc::new(request::Shared::new(settings)?) })
    }

    /// The objects that a URL names.
    pub(super) fn find(&self, url: &str, extensions: &[&str]) -> Result<Vec<Arc<Object>>> {
        let url = RemoteUrl::parse(url)?;
        let store = Arc::new(Store::of(&url, &self.settings, self.shared.clone())?);
        list::find(&store, &url, extensions)
    }
}

/// An object as it was when it was found. Whoever reads it later finds the same one or an error.
#[derive(Debug)]
pub struct Object {
    /// Its URL without anything secret.
    path: PathBuf,
    store: Arc<Store>,
    key: Key,
    size_bytes: u64,
    /// What the server calls its version: an ETag, or the time of its writing.
    version: Option<String>,
    /// The end of it, from the moment when it was fetched ahead until its footer is read.
    tail: Mutex<Option<Bytes>>,
}

impl Object {
    /// Its URL, as messages show it.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// A hash of its version.
    pub(super) fn tag(&self) -> u64 {
        let hash = Sha256::digest(self.version.as_deref().unwrap_or_default());
        hash.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    fn set_tail(&self, tail: Option<Bytes>) {
        *lock(&self.tail) = tail;
    }

    /// `length` bytes from `offset` on, if they were fetched ahead as part of the tail.
    fn in_tail(&self, offset: u64, length: usize) -> Option<Bytes> {
        let tail = lock(&self.tail).clone()?;
        let start = offset.checked_sub(self.size_bytes - tail.len() as u64)? as usize;
        (start + length <= tail.len()).then(|| tail.slice(start..start + length))
    }
}
