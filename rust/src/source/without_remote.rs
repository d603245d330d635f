//! What stands for `remote/` in a build without the feature `remote`: an error in words, and objects that cannot be.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::location::{Location, StorageSettings};
use super::shard::Shard;
use crate::error::{Error, Result};
use crate::pool::Pool;

/// There is none.
#[derive(Debug)]
pub enum Object {}

impl Object {
    pub(super) fn path(&self) -> &Path {
        match *self {}
    }

    pub(super) fn size_bytes(&self) -> u64 {
        match *self {}
    }

    pub(super) fn tag(&self) -> u64 {
        match *self {}
    }
}

#[derive(Debug)]
pub(super) struct Reader(Arc<Object>);

impl Reader {
    pub(super) fn new(object: Arc<Object>) -> Self {
        Self(object)
    }

    pub(super) fn expect(&self, _: Range<u64>, _: &Arc<Pool<u8>>) {
        match *self.0 {}
    }

    pub(super) fn read_into(&self, _: &mut Vec<u8>, _: u64) -> Result<()> {
        match *self.0 {}
    }
}

/// Footers that are fetched ahead: of files none.
#[derive(Debug)]
pub(super) struct Tails;

impl Tails {
    pub(super) fn of(_: &[Location]) -> Self {
        Self
    }

    pub(super) fn next(&mut self, _: &Location) -> Result<()> {
        Ok(())
    }
}

/// Plans of objects are kept, those of files are not.
pub(super) fn planned(
    _: &[Location],
    _: &str,
    make: impl FnOnce() -> Result<Vec<Shard>>,
) -> Result<Vec<Shard>> {
    make()
}

#[derive(Debug)]
pub(super) enum Remote {}

impl Remote {
    pub(super) fn new(_: &StorageSettings) -> Result<Self> {
        let rule =
            "is built without remote reading; build with the feature `remote`, or fetch the files first";
        Err(Error::config("data", "a URL, and nanofast", rule))
    }

    pub(super) fn find(&self, _: &str, _: &[&str]) -> Result<Vec<Arc<Object>>> {
        match *self {}
    }
}
