//! Which files a user means: a file, a folder, a glob, or several of these.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::error::{Error, Place, Result};

/// Endings of shards of text …
pub(super) const SHARDS: [&str; 1] = ["parquet"];

/// … and of conversations.
pub(super) const CONVERSATIONS: [&str; 3] = ["parquet", "jsonl", "ndjson"];

/// The shards that `specs` name, in order: each file itself; the `*.parquet` files of each folder in the order of their
/// names, hidden ones (`.` or `_` in front) left out; the files that each glob matches in the order of their paths.
///
/// # Errors
/// A path that does not exist, and a folder or glob without a shard.
pub fn find_shards(specs: &[PathBuf]) -> Result<Vec<PathBuf>> {
    find(specs, &SHARDS)
}

pub(super) fn find(specs: &[PathBuf], extensions: &[&str]) -> Result<Vec<PathBuf>> {
    let mut shards = Vec::new();
    for spec in specs {
        if spec.is_dir() {
            shards.extend(in_folder(spec, extensions)?);
        } else if spec.exists() {
            shards.push(spec.clone());
        } else if spec.to_string_lossy().contains(['*', '?', '[']) {
            shards.extend(matching(spec)?);
        } else {
            return Err(Error::NotFound { path: spec.clone() });
        }
    }
    match shards.is_empty() {
        true => Err(Error::NoShards { path: PathBuf::new(), found: "an empty list".into() }),
        false => Ok(shards),
    }
}

fn in_folder(folder: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>> {
    let failed = |source| Error::io(Place::shard(folder), source);
    let (mut shards, mut num_files, mut num_folders) = (Vec::new(), 0, 0);
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            num_folders += 1;
        } else if is_shard(&path, extensions) {
            shards.push(path);
        } else {
            num_files += 1;
        }
    }
    if shards.is_empty() {
        let found =
            format!("{num_files} other files and {num_folders} folders; `**/*.parquet` looks into folders");
        return Err(Error::NoShards { path: folder.into(), found });
    }
    shards.sort_by(|a, b| a.file_name().cmp(&b.file_name()));
    Ok(shards)
}

/// Whether a name is that of a shard which a folder offers.
pub(super) fn is_shard(path: &Path, extensions: &[&str]) -> bool {
    let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(['.', '_']));
    let is_known = |extension: &OsStr| extensions.iter().any(|known| extension == *known);
    !hidden && path.extension().is_some_and(is_known)
}

fn matching(pattern: &Path) -> Result<Vec<PathBuf>> {
    let text = pattern.to_string_lossy();
    let rule = |source: glob::PatternError| Error::config("data", &text, format!("no valid glob: {source}"));
    let mut shards = Vec::new();
    for path in glob::glob(&text).map_err(rule)? {
        let path = path.map_err(|error| Error::io(Place::shard(error.path()), error.into()))?;
        if path.is_file() {
            shards.push(path);
        }
    }
    if shards.is_empty() {
        return Err(Error::NoShards { path: pattern.into(), found: "no file matches".into() });
    }
    shards.sort();
    Ok(shards)
}
