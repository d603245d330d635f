//! A folder that keeps what was read, shared by processes: written aside and renamed, the least recently used first out.
//!
//! ```text
//! FOLDER/lock            who writes holds it; its content is the sum of all sizes
//! FOLDER/<name>.block    bytes of one version of one object, and their CRC-32; the time of writing is that of last use
//! ```
//! The sum is raised before a file is written, so the folder never holds more than its limit. A process that is killed in
//! between leaves the sum too high and a file without its name; the next time that room is made both are put right.
//! Readers need no lock: a file is whole or absent, and one that is removed while it is open can still be read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::Object;
use crate::error::{Error, Place, Result};
use crate::source::shard::hash;

/// Bytes behind the content: its checksum.
const CHECKSUM_BYTES: usize = 4;

/// What is left of the limit when room is made, in tenths: so that it is made now and then and not each time.
const KEPT_TENTHS: u64 = 9;

/// Ending of files that have no name yet.
const WRITING: &str = "writing";

#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
    limit_bytes: u64,
}

/// The name of a range of an object, of the version that it has.
pub(super) fn name_of(object: &Object, range: &Range<u64>) -> String {
    let version = object.version.as_deref().unwrap_or_default();
    let known = format!("{}\n{}\n{version}", object.path.display(), object.size_bytes);
    format!("{}-{}-{}.block", &hash(known.as_bytes())[..32], range.start, range.end)
}

impl Cache {
    pub(super) fn new(folder: PathBuf, limit_bytes: u64) -> Result<Self> {
        fs::create_dir_all(&folder).map_err(|source| Error::io(Place::shard(&folder), source))?;
        Ok(Self { folder, limit_bytes })
    }

    /// Puts what is kept under `name` into `bytes`, if it is there and whole. It counts as used.
    pub(super) fn get(&self, name: &str, length: usize, bytes: &mut Vec<u8>) -> bool {
        let path = self.folder.join(name);
        let Ok(mut file) = OpenOptions::new().read(true).write(true).open(&path) else { return false };
        bytes.resize(length, 0);
        let mut checksum = [0; CHECKSUM_BYTES];
        let mut read = || {
            file.read_exact(bytes)?;
            file.read_exact(&mut checksum)?;
            file.read(&mut [0])
        };
        if !matches!(read(), Ok(0)) || crc32fast::hash(bytes).to_le_bytes() != checksum {
            // A machine that lost its power may leave a name without content.
            let _ = fs::remove_file(&path);
            return false;
        }
        let _ = file.set_modified(SystemTime::now());
        true
    }

    /// Keeps bytes under `name`, where there is room for them. A folder that refuses is no failure.
    pub(super) fn put(&self, name: &str, bytes: &[u8]) {
        let _ = self.try_put(name, bytes);
    }

    fn try_put(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let size = (bytes.len() + CHECKSUM_BYTES) as u64;
        if size > self.limit_bytes {
            return Ok(());
        }
        let lock = self.folder.join("lock");
        let mut lock = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(lock)?;
        lock.lock()?;
        let path = self.folder.join(name);
        if path.exists() {
            return Ok(());
        }
        let mut text = String::new();
        lock.read_to_string(&mut text)?;
        let sum = match text.trim().parse::<u64>() {
            Ok(sum) if sum.saturating_add(size) <= self.limit_bytes => sum,
            _ => self.make_room(size)?,
        };
        lock.rewind()?;
        lock.set_len(0)?;
        write!(lock, "{}", sum + size)?;
        let aside = path.with_extension(WRITING);
        let mut file = File::create(&aside)?;
        file.write_all(bytes)?;
        file.write_all(&crc32fast::hash(bytes).to_le_bytes())?;
        fs::rename(aside, path)
    }

    /// Removes what was not used for longest until there is room for `size`; the bytes that are left. What is being
    /// written was left by somebody who was killed: whoever writes holds the lock.
    fn make_room(&self, size: u64) -> io::Result<u64> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if is_named(&path, WRITING) {
                fs::remove_file(path)?;
            } else if is_named(&path, "block")
                && let Ok(metadata) = fs::metadata(&path)
            {
                files.push((metadata.modified()?, metadata.len(), path));
            }
        }
        files.sort();
        let mut sum: u64 = files.iter().map(|(_, size, _)| size).sum();
        let wanted = (self.limit_bytes / 10 * KEPT_TENTHS).min(self.limit_bytes - size);
        for (_, size, path) in &files {
            if sum <= wanted {
                break;
            }
            // A reader that found it broken may have been first.
            let _ = fs::remove_file(path);
            sum -= size;
        }
        Ok(sum)
    }
}

fn is_named(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(folder: &Path) -> u64 {
        let blocks = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let blocks = blocks.filter(|path| !path.ends_with("lock"));
        blocks.map(|path| fs::metadata(path).unwrap().len()).sum()
    }

    fn got(cache: &Cache, name: &str, length: usize) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        cache.get(name, length, &mut bytes).then_some(bytes)
    }

    #[test]
    fn the_least_recently_used_goes_first_and_the_limit_holds() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().into(), 1040).unwrap();
        let bytes = |number: u8| vec![number; 100];
        for number in 0..10 {
            cache.put(&format!("{number}.block"), &bytes(number));
            let age = std::time::Duration::from_secs(100 - u64::from(number));
            let file =
                OpenOptions::new().write(true).open(folder.path().join(format!("{number}.block"))).unwrap();
            file.set_modified(SystemTime::now() - age).unwrap();
        }
        assert_eq!(sizes(folder.path()), 1040);
        assert_eq!(got(&cache, "0.block", 100), Some(bytes(0))); // used: no longer the oldest
        cache.put("10.block", &bytes(10));
        assert!(sizes(folder.path()) <= 1040);
        assert_eq!(got(&cache, "10.block", 100), Some(bytes(10)));
        assert_eq!(got(&cache, "0.block", 100), Some(bytes(0)));
        assert_eq!(got(&cache, "1.block", 100), None);
        cache.put("large.block", &vec![0; 2000]);
        assert_eq!(got(&cache, "large.block", 2000), None);
    }

    #[test]
    fn a_broken_block_is_none_and_litter_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().into(), 250).unwrap();
        cache.put("a.block", &[1; 100]);
        let mut stored = fs::read(folder.path().join("a.block")).unwrap();
        stored[7] ^= 1;
        fs::write(folder.path().join("a.block"), &stored).unwrap();
        assert_eq!(got(&cache, "a.block", 100), None);
        assert!(!folder.path().join("a.block").exists());
        fs::write(folder.path().join("b.writing"), vec![0; 500]).unwrap();
        for name in ["c.block", "d.block", "e.block"] {
            cache.put(name, &[2; 100]);
        }
        assert!(sizes(folder.path()) <= 250);
        assert!(!folder.path().join("b.writing").exists());
    }
}
