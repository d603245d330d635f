//! Reading shards, held to the parquet crate's own column reader: every codec, encoding and page version; ranges of
//! rows; damage that costs its own rows and no others; files that are no shard of ours.
//!
//! `NANOFAST_TEST_LONG=1` writes more files and damages many more bytes.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "source/damage.rs"]
mod damage;
#[path = "source/oracle.rs"]
mod oracle;
#[path = "source/refused.rs"]
mod refused;

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use nanofast::account::Account;
use nanofast::error::Kind;
use nanofast::pool::Pool;
use nanofast::source::{ParquetWriter, Shard, find_shards, open_shard};
use oracle::{Layout, column_values, write};
use parquet::basic::{Compression, Encoding};
use proptest::prelude::*;
use tempfile::TempDir;

fn is_long() -> bool {
    std::env::var_os("NANOFAST_TEST_LONG").is_some()
}

/// Optional data beside the project: many writers' files.
fn shared(path: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data").join(path);
    if !path.exists() {
        eprintln!("skipped: no {}", path.display());
    }
    path.exists().then_some(path)
}

/// Rows of a row group as texts; broken rows as what the error says.
fn read(shard: &Shard, row_group: usize, rows: Range<u64>) -> Vec<Result<Vec<u8>, String>> {
    let mut found = Vec::new();
    let mut reader = match shard.reader(row_group, rows.clone(), &Pool::new()) {
        Ok(reader) => reader,
        Err(error) => return vec![Err(error.to_string()); (rows.end - rows.start) as usize],
    };
    loop {
        match reader.next_batch() {
            Ok(None) => break,
            Ok(Some((first_row, batch))) => {
                assert!(!batch.is_empty());
                assert_eq!(first_row, rows.start + found.len() as u64, "batches are consecutive");
                found.extend(batch.iter().map(|text| Ok(text.to_vec())));
            }
            Err(error) => {
                let broken = reader.broken().expect("only damage is an error here").clone();
                assert!(broken.part.start <= broken.rows.start && broken.rows.end <= broken.part.end);
                let broken = broken.rows;
                assert_eq!(broken.start, rows.start + found.len() as u64);
                assert!(broken.start < broken.end);
                found.extend(broken.map(|_| Err(error.to_string())));
            }
        }
    }
    assert_eq!(found.len() as u64, rows.end - rows.start, "every row is accounted for");
    found
}

fn read_all(shard: &Shard) -> Vec<Result<Vec<u8>, String>> {
    let groups = 0..shard.row_groups().len();
    groups.flat_map(|group| read(shard, group, 0..shard.num_rows(group))).collect()
}

fn layout() -> impl Strategy<Value = Layout> {
    let codecs = vec![
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(Default::default()),
        Compression::BROTLI(Default::default()),
        Compression::LZ4,
        Compression::LZ4_RAW,
        Compression::ZSTD(Default::default()),
    ];
    let encodings = vec![
        None,
        Some(Encoding::PLAIN),
        Some(Encoding::DELTA_LENGTH_BYTE_ARRAY),
        Some(Encoding::DELTA_BYTE_ARRAY),
    ];
    let parts = (
        prop::sample::select(codecs),
        prop::sample::select(encodings),
        any::<bool>(),
        any::<bool>(),
        1..2000_usize,
        1..60_usize,
    );
    parts.prop_map(|(codec, encoding, version_2, nullable, page_bytes, group_rows)| Layout {
        codec,
        encoding,
        version_2,
        nullable,
        page_bytes,
        group_rows,
    })
}

fn texts() -> impl Strategy<Value = Vec<Option<Vec<u8>>>> {
    let text = prop_oneof![
        4 => "[a-c]{0,9}".prop_map(String::into_bytes),
        2 => "common front [a-z]{0,30}".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..700),
    ];
    prop::collection::vec(prop::option::weighted(0.85, text), 0..150)
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(if is_long() { 5000 } else { 200 })
    })]
    #[test]
    fn reads_every_codec_encoding_and_page_version(layout in layout(), texts in texts(), cut in any::<prop::sample::Index>()) {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("a.parquet");
        let expected = write(&path, &layout, &texts);
        let shard = open_shard(&path, "text").unwrap();
        let found: Vec<_> = read_all(&shard).into_iter().collect::<Result<_, _>>().unwrap();
        prop_assert_eq!(&found, &expected);
        prop_assert_eq!(shard.row_counts().iter().sum::<u64>(), texts.len() as u64);

        let mut first = 0;
        for (group, &rows) in shard.row_counts().iter().enumerate() {
            let start = cut.index(rows as usize + 1) as u64;
            let end = rows - cut.index((rows - start) as usize + 1) as u64;
            let part: Vec<_> = read(&shard, group, start..end).into_iter().collect::<Result<_, _>>().unwrap();
            prop_assert_eq!(&part[..], &expected[first + start as usize..first + end as usize]);
            first += rows as usize;
        }
    }

    #[test]
    fn a_broken_page_costs_its_own_rows_wherever_reading_begins(
        layout in layout(), texts in texts(), place in any::<prop::sample::Index>(), flip in 1..=255_u8, start in any::<prop::sample::Index>(),
    ) {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("a.parquet");
        let layout = Layout { group_rows: 1000, ..layout };
        write(&path, &layout, &texts);
        let mut bytes = fs::read(&path).unwrap();
        let shard = open_shard(&path, "text").unwrap();
        let footer = u32::from_le_bytes(bytes[bytes.len() - 8..bytes.len() - 4].try_into().unwrap()) as usize + 8;
        let data = bytes.len() - footer;
        bytes[4 + place.index(data.saturating_sub(4).max(1))] ^= flip;
        fs::write(&path, bytes).unwrap();
        for group in 0..shard.row_groups().len() {
            let rows = shard.num_rows(group);
            let whole = read(&shard, group, 0..rows);
            let start = start.index(rows as usize + 1) as u64;
            let part = read(&shard, group, start..rows);
            for (whole, part) in whole[start as usize..].iter().zip(&part) {
                prop_assert_eq!(whole.as_ref().ok(), part.as_ref().ok());
            }
        }
    }
}

#[test]
fn reads_the_files_of_many_writers_as_the_parquet_crate_does() {
    let Some(folder) = shared("parquet/data") else { return };
    let mut num_columns = 0;
    for path in find_shards(&[folder]).unwrap() {
        for (column, expected) in column_values(&path) {
            let shard = open_shard(&path, &column).unwrap_or_else(|error| panic!("{column}: {error}"));
            let found = read_all(&shard).into_iter().collect::<Result<Vec<_>, _>>();
            if path.display().to_string().contains("corrupt-checksum") {
                assert!(found.unwrap_err().contains("checksum is"));
                continue;
            }
            let found = found.unwrap_or_else(|error| panic!("{column}: {error}"));
            if path.ends_with("nation.dict-malformed.parquet") {
                // pyarrow reads this one, the parquet crate does not.
                assert!(found.len() == 25 && expected.is_err());
                assert!(column != "name" || (found[0] == b"ALGERIA" && found[24] == b"UNITED STATES"));
                continue;
            }
            let expected = expected.unwrap_or_else(|reason| panic!("{}: {column}: {reason}", path.display()));
            assert!(found == expected, "{}: {column}", path.display());
            num_columns += 1;
        }
    }
    assert!(num_columns > 20, "{num_columns} columns");
}

#[test]
fn reads_the_corpora_as_the_parquet_crate_does() {
    for name in ["web_en", "multi", "hard"] {
        let Some(folder) = shared(&format!("corpus/{name}")) else { return };
        let path = &find_shards(&[folder]).unwrap()[0];
        let (_, expected) = column_values(path).into_iter().find(|(column, _)| column == "text").unwrap();
        let found = read_all(&open_shard(path, "text").unwrap());
        assert!(found.into_iter().collect::<Result<Vec<_>, _>>().unwrap() == expected.unwrap(), "{name}");
    }
}

fn sample(folder: &TempDir, name: &str, texts: &[&str]) -> PathBuf {
    let path = folder.path().join(name);
    let mut writer = ParquetWriter::create(&path, "text", 3).unwrap();
    writer.write(texts).unwrap();
    writer.close().unwrap();
    path
}

#[test]
fn writes_the_same_bytes_for_the_same_texts_and_reads_them_back() {
    let folder = TempDir::new().unwrap();
    let texts = ["one", "", "thr\u{e9}\u{1f600}", "four", "five", "six", "seven"];
    let (a, b) = (sample(&folder, "a.parquet", &texts), sample(&folder, "b.parquet", &texts));
    assert_eq!(fs::read(&a).unwrap(), fs::read(b).unwrap());
    let shard = open_shard(&a, "text").unwrap();
    assert_eq!(shard.row_counts(), [3, 3, 1]);
    let found: Vec<_> =
        read_all(&shard).into_iter().map(|text| String::from_utf8(text.unwrap()).unwrap()).collect();
    assert_eq!(found, texts);
    let columns = column_values(&a);
    assert_eq!(columns.len(), 1);
    assert_eq!(
        columns[0].1,
        Ok(texts.iter().map(|text| text.as_bytes().to_vec()).collect()),
        "others read it, too"
    );
    let empty = open_shard(sample(&folder, "empty.parquet", &[]), "text").unwrap();
    assert!(empty.row_counts().is_empty());
    let mut writer = ParquetWriter::create(folder.path().join("c.parquet"), "text", 1).unwrap();
    writer.close().unwrap();
    writer.close().unwrap();
    assert!(writer.write(["x"]).unwrap_err().to_string().contains("closed"));
}

#[test]
fn batches_hold_about_256_kib_and_share_the_pages() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.parquet");
    let mut writer = ParquetWriter::create(&path, "text", 10_000).unwrap();
    writer.write((0..3000).map(|i| format!("{i:1000}"))).unwrap();
    writer.write((0..7000).map(|_| "")).unwrap();
    writer.close().unwrap();
    let mut reader = open_shard(&path, "text").unwrap().reader(0, 0..10_000, &Pool::new()).unwrap();
    let mut sizes = Vec::new();
    while let Some((_, batch)) = reader.next_batch().unwrap() {
        sizes.push((batch.num_bytes(), batch.len()));
    }
    assert!(sizes[..11].iter().all(|&(bytes, _)| (262_144..263_144).contains(&bytes)), "{sizes:?}");
    assert!(sizes.iter().all(|&(_, rows)| rows <= 8192));
}

#[test]
fn a_page_beyond_the_memory_limit_is_refused_and_loses_nothing() {
    let folder = TempDir::new().unwrap();
    let path = sample(&folder, "a.parquet", &["a", &"b".repeat(5000)]);
    let shard = open_shard(&path, "text").unwrap();
    let mut reader = shard.reader(0, 0..2, &Pool::within(&Account::new(5000))).unwrap();
    let error = reader.next_batch().unwrap_err();
    assert_eq!((error.kind(), reader.broken()), (Kind::Memory, None));
    // The page, and as much again twice for the tokens of its texts.
    assert!(error.to_string().contains("at least 150"), "{error}");
    let mut reader = shard.reader(0, 0..2, &Pool::within(&Account::new(6000))).unwrap();
    assert_eq!(reader.next_batch().unwrap().unwrap().1.len(), 2);
}
