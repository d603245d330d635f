//! Any bytes as a shard: an error or texts, never a panic, and the same rows wherever reading begins.
//!
//! Input: the file. Seeds worth having: small parquet files of many writers.
#![no_main]

use std::io::Write;
use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use nanofast::account::Account;
use nanofast::pool::Pool;
use nanofast::source::{Shard, open_shard};

/// Declared sizes beyond it are refused before anything is allocated.
static POOL: LazyLock<Arc<Pool<u8>>> = LazyLock::new(|| Pool::within(&Account::new(256 << 20)));

/// Rows of one row group, `None` where they are broken.
fn rows(shard: &Shard, row_group: usize, start: u64, end: u64) -> Vec<Option<Vec<u8>>> {
    let mut rows = Vec::new();
    let mut reader = shard.reader(row_group, start..end, &POOL).expect("an unchanged file");
    loop {
        match reader.next_batch() {
            Ok(None) => return rows,
            Ok(Some((first_row, batch))) => {
                assert_eq!(first_row, start + rows.len() as u64);
                rows.extend(batch.iter().map(|text| Some(text.to_vec())));
            }
            Err(_) => match reader.broken() {
                Some(broken) => rows.extend(broken.rows.clone().map(|_| None)),
                None => return rows,
            },
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(bytes).expect("space for it");
    for column in ["text", "string_col", "name"] {
        let Ok(shard) = open_shard(file.path(), column) else { continue };
        for (row_group, group) in shard.row_groups().iter().enumerate().take(4) {
            // A footer may claim any number of rows; nulls take no bytes.
            let end = group.num_rows.min(2000);
            let whole = rows(&shard, row_group, 0, end);
            let start = end / 3;
            let part = rows(&shard, row_group, start, end);
            if whole.len() as u64 == end {
                assert!(whole[start as usize..] == part);
            }
        }
    }
});
