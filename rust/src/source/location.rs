//! Where shards lie: in a file here, or as an object behind a URL. Nothing above this folder knows the difference.
//!
//! ```text
//! specs ─▶ Storage::find ─▶ locations ─▶ ShardFile: bytes by position
//! ```

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::find;
use super::remote::{Object, Remote};
use crate::error::Result;

/// Bytes of a request: at 50 MB/s a connection, as object stores give, the 40 ms that a block takes are about what they
/// let wait for the first byte; three under way at once then give the whole of it. A terabyte is half a million requests.
pub(crate) const BLOCK_BYTES: u64 = 2 << 20;

/// What begins a URL that shards are read from.
const SCHEMES: [&str; 6] = ["s3://", "gs://", "az://", "http://", "https://", "hf://"];

/// Whether a path is such a URL.
pub(super) fn is_url(path: &Path) -> bool {
    path.to_str().is_some_and(|path| SCHEMES.iter().any(|scheme| path.starts_with(scheme)))
}

/// A file, or an object with its size and ETag as they were when it was found.
#[derive(Clone, Debug)]
pub enum Location {
    /// A file.
    Local(PathBuf),
    /// An object.
    Remote(Arc<Object>),
}

impl Location {
    /// The path, or the URL without anything secret.
    pub fn path(&self) -> &Path {
        match self {
            Self::Local(path) => path,
            Self::Remote(object) => object.path(),
        }
    }
}

impl<P: Into<PathBuf>> From<P> for Location {
    fn from(path: P) -> Self {
        Self::Local(path.into())
    }
}

/// How objects are found and read.
#[derive(Clone, Deserialize)]
pub struct StorageSettings {
    /// Credentials and endpoints, by the names that the environment has for them.
    pub options: Vec<(String, String)>,
    /// Folder that keeps what was read; none: nothing is kept.
    pub cache_folder: Option<PathBuf>,
    /// Most bytes that the folder may hold.
    pub cache_limit_bytes: u64,
    /// Folder that keeps what footers say; none: they are read each time.
    pub plan_folder: Option<PathBuf>,
    /// Seconds after which a read that does not succeed is an error, retries and waits included.
    pub timeout_seconds: f64,
    /// Seconds without a byte after which a request is made again.
    pub stall_seconds: f64,
}

impl Default for StorageSettings {
    fn default() -> Self {
        Self {
            options: Vec::new(),
            cache_folder: None,
            cache_limit_bytes: 0,
            plan_folder: None,
            timeout_seconds: 120.0,
            stall_seconds: 20.0,
        }
    }
}

impl fmt::Debug for StorageSettings {
    /// Without the options: they hold credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StorageSettings").field("cache_folder", &self.cache_folder).finish_non_exhaustive()
    }
}

/// Finds shards, here and behind URLs.
#[derive(Clone, Debug, Default)]
pub struct Storage {
    settings: StorageSettings,
}

impl Storage {
    /// With these settings for what is not here.
    pub fn new(settings: StorageSettings) -> Self {
        Self { settings }
    }

    /// The shards that `specs` name, in order: as `find_shards` for files; of URLs an object itself, the `*.parquet`
    /// objects of a folder in the order of their names, or what a glob matches.
    ///
    /// # Errors
    /// As `find_shards`; and a server that cannot be reached or refuses.
    pub fn find_shards(&self, specs: &[PathBuf]) -> Result<Vec<Location>> {
        self.find(specs, &find::SHARDS)
    }

    /// As `find_shards`, for conversations.
    ///
    /// # Errors
    /// As `find_shards`.
    pub fn find_conversations(&self, specs: &[PathBuf]) -> Result<Vec<Location>> {
        self.find(specs, &find::CONVERSATIONS)
    }

    fn find(&self, specs: &[PathBuf], extensions: &[&str]) -> Result<Vec<Location>> {
        if !specs.iter().any(|spec| is_url(spec)) {
            return Ok(find::find(specs, extensions)?.into_iter().map(Location::Local).collect());
        }
        let remote = Remote::new(&self.settings)?;
        let mut locations = Vec::new();
        for spec in specs {
            match spec.to_str().filter(|_| is_url(spec)) {
                Some(url) => {
                    locations.extend(remote.find(url, extensions)?.into_iter().map(Location::Remote));
                }
                None => {
                    let found = find::find(std::slice::from_ref(spec), extensions)?;
                    locations.extend(found.into_iter().map(Location::Local));
                }
            }
        }
        Ok(locations)
    }
}

#[cfg(all(test, not(feature = "remote")))]
mod tests {
    use super::*;

    #[test]
    fn a_build_without_remote_reading_says_so() {
        let error = Storage::default().find_shards(&["s3://bucket/a".into()]).unwrap_err();
        assert!(error.to_string().contains("built without remote reading"), "{error}");
    }
}
