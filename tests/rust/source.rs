//! Reading shards, held to the parquet crate's own column reader: every codec, encoding and page version; ranges of
//! rows; damage that costs its own rows and no others; files that are no shard of ours.
//!
//! `NANOFAST_TEST_LONG=1` damages many more bytes.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "source/oracle.rs"]
mod oracle;

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use nanofast::account::Account;
use nanofast::error::{Error, Kind};
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

#[test]
fn rejects_damaged_files_cleanly() {
    let Some(folder) = shared("parquet/bad_data") else { return };
    for path in find_shards(&[folder]).unwrap() {
        for (column, expected) in column_values(&path) {
            match open_shard(&path, &column) {
                Err(error) => assert!(error.to_string().contains("parquet"), "{error}"),
                Ok(shard) => {
                    let found: Result<Vec<_>, _> = read_all(&shard).into_iter().collect();
                    match (found, expected) {
                        (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{}", path.display()),
                        (Ok(_), Err(reason)) => panic!("{}: {column} is read, but {reason}", path.display()),
                        (Err(_), _) => {}
                    }
                }
            }
        }
    }
}

fn message(path: &Path, column: &str) -> String {
    open_shard(path, column).unwrap_err().to_string()
}

#[test]
fn refuses_encrypted_files_as_encrypted() {
    let Some(folder) = shared("parquet/data") else { return };
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "encrypted") {
            let message = message(&path, "byte_array_field");
            assert!(message.contains("encrypted"), "{}: {message}", path.display());
            count += 1;
        }
    }
    assert!(count > 3);
}

#[test]
fn refuses_columns_by_type_and_names_those_that_would_do() {
    let Some(folder) = shared("parquet/data") else { return };
    let refused = |file: &str, column| {
        let error = open_shard(folder.join(file), column).unwrap_err();
        assert_eq!(error.kind(), Kind::Type, "{error}");
        error.to_string()
    };
    assert!(refused("list_columns.parquet", "utf8_list").contains("is list<string>; expected text"));
    assert!(refused("list_columns.parquet", "int64_list").contains("is list<int64>; expected text"));
    assert!(refused("nullable.impala.parquet", "nested_struct").contains("is struct<"));
    assert!(refused("alltypes_plain.parquet", "id").contains("is int32; expected text"));
    assert!(
        refused("alltypes_plain.parquet", "id")
            .contains("columns that would do: `date_string_col`, `string_col`")
    );
    assert!(refused("byte_array_decimal.parquet", "value").contains("is decimal (binary)"));
    assert!(
        refused("unknown-logical-type.parquet", "column with unknown type").contains("is unknown (binary)")
    );
    assert!(refused("repeated_primitive_no_list.parquet", "String_list").contains("is list<string>"));
    let missing = message(&folder.join("alltypes_plain.parquet"), "body");
    assert!(missing.contains("column `body` not in") && missing.contains("`string_col`"), "{missing}");
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
fn a_damaged_page_is_named_with_its_rows_and_the_others_are_read() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.parquet");
    let texts: Vec<_> = (0..90).map(|i| format!("{i:065000}")).collect();
    let mut writer = ParquetWriter::create(&path, "text", 90).unwrap();
    writer.write(&texts).unwrap();
    writer.close().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let found = read_all(&open_shard(&path, "text").unwrap());
    let broken: Vec<_> = (0..90).filter(|&row| found[row].is_err()).collect();
    assert_eq!(broken, (34..51).collect::<Vec<_>>());
    assert!((0..90).all(|row| broken.contains(&row) || found[row].as_deref() == Ok(texts[row].as_bytes())));
    let message = found[40].as_ref().unwrap_err();
    for part in ["a.parquet`, row group 0, row 34", "whose checksum is", "(rows 34 to 50 are lost)"] {
        assert!(message.contains(part), "{message}");
    }
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

#[test]
fn says_what_is_wrong_with_a_file_that_is_no_shard() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.parquet");
    let is = |bytes: &[u8], expected: &str| {
        fs::write(&path, bytes).unwrap();
        let message = message(&path, "text");
        assert!(message.contains("a.parquet") && message.contains(expected), "{message}");
    };
    is(b"", "0 bytes");
    is(b"PAR1", "4 bytes");
    is(b"not a parquet file at all", "ends with `all`".replace("all", " all").as_str());
    is(b"PAR1\x00\x00\x00\x00\xff\xff\xff\x00PAR1", "a footer of 16777223 bytes in a file of 16");
    is(b"PAR1\x00\x00\x00\x00\x00\x00\x00\x00PAR1", "a footer that cannot be read");
    is(b"PAR1\x00\x00\x00\x00\x00\x00\x00\x00PARE", "encrypted");
    assert_eq!(open_shard(folder.path().join("b"), "text").unwrap_err().kind(), Kind::NotFound);
    assert_eq!(open_shard(folder.path(), "text").unwrap_err().kind(), Kind::Io);
}

#[test]
fn notices_files_that_change_or_vanish() {
    let folder = TempDir::new().unwrap();
    let path = sample(&folder, "a.parquet", &["one", "two"]);
    let shard = open_shard(&path, "text").unwrap();
    let bytes = fs::read(&path).unwrap();

    fs::write(&path, &bytes).unwrap();
    assert_eq!(read_all(&shard).len(), 2, "written again with the same bytes");

    let other = sample(&folder, "b.parquet", &["one", "2"]);
    fs::copy(other, &path).unwrap();
    let error = shard.reader(0, 0..2, &Pool::new()).unwrap_err();
    assert!(matches!(error, Error::Changed { .. }), "{error}");

    let mut changed = bytes.clone();
    let position = bytes.len() - 12;
    changed[position] ^= 1;
    fs::write(&path, &changed).unwrap();
    let error = shard.reader(0, 0..2, &Pool::new()).unwrap_err();
    assert!(matches!(error, Error::Changed { what: "footer", .. }), "{error}");

    fs::write(&path, &bytes).unwrap();
    let mut reader = shard.reader(0, 0..2, &Pool::new()).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_len(6).unwrap();
    let error = reader.next_batch().unwrap_err();
    assert!(matches!(error, Error::Changed { what: "size", .. }), "{error}");
    assert_eq!(reader.broken(), None, "a failure of the system loses no rows");

    fs::remove_file(&path).unwrap();
    assert_eq!(shard.reader(0, 0..2, &Pool::new()).unwrap_err().kind(), Kind::NotFound);
}

#[test]
fn truncations_and_bit_flips_are_errors_or_texts() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.parquet");
    let texts: Vec<_> = (0..300)
        .map(|i| (i % 7 > 0).then(|| format!("text {} {}", i % 5, "x".repeat(i)).into_bytes()))
        .collect();
    let (flips, cuts) = if is_long() { (10_000, 100) } else { (400, 20) };
    let encodings = [
        None,
        Some(Encoding::PLAIN),
        Some(Encoding::DELTA_LENGTH_BYTE_ARRAY),
        Some(Encoding::DELTA_BYTE_ARRAY),
    ];
    for (number, encoding) in encodings.into_iter().enumerate() {
        let codec = if number % 2 == 0 { Compression::SNAPPY } else { Compression::UNCOMPRESSED };
        let layout = Layout {
            codec,
            encoding,
            version_2: number > 1,
            nullable: true,
            page_bytes: 3000,
            group_rows: 90,
        };
        write(&path, &layout, &texts);
        let bytes = fs::read(&path).unwrap();
        let mut seed = 7_u64;
        let mut random = |limit: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as usize % limit
        };
        for round in 0..flips + cuts {
            let mut damaged = bytes.clone();
            if round < flips {
                // Half of the flips hit the footer, where structure is.
                let position = random(bytes.len());
                let position = if round % 2 == 0 { position } else { bytes.len() - 1 - position % 700 };
                damaged[position] ^= 1 << random(8);
            } else {
                damaged.truncate(random(bytes.len()));
            }
            fs::write(&path, damaged).unwrap();
            if let Ok(shard) = open_shard(&path, "text")
                && shard.row_counts().iter().sum::<u64>() < 100_000
            {
                read_all(&shard);
            }
        }
        println!("tried: {flips} flipped bits, {cuts} truncations");
    }
}

#[test]
fn a_flipped_bit_of_a_shard_of_ours_is_an_error_or_changes_nothing() {
    let folder = TempDir::new().unwrap();
    let texts: Vec<_> = (0..9).map(|i| format!("text {i} {}", "y".repeat(i * 9))).collect();
    let path = sample(&folder, "a.parquet", &texts.iter().map(String::as_str).collect::<Vec<_>>());
    let bytes = fs::read(&path).unwrap();
    let expected = read_all(&open_shard(&path, "text").unwrap());
    let (mut num_errors, mut num_flips) = (0, 0);
    for position in 0..bytes.len() {
        for bit in (0..8).filter(|bit| is_long() || (position + bit) % 4 == 0) {
            num_flips += 1;
            let mut damaged = bytes.clone();
            damaged[position] ^= 1 << bit;
            fs::write(&path, damaged).unwrap();
            let Ok(shard) = open_shard(&path, "text") else {
                num_errors += 1;
                continue;
            };
            let found = read_all(&shard);
            assert_eq!(found.len(), expected.len(), "bit {bit} of byte {position} of {}", bytes.len());
            for (found, expected) in found.iter().zip(&expected) {
                num_errors += usize::from(found.is_err());
                assert!(
                    found.is_err() || found == expected,
                    "bit {bit} of byte {position} of {}",
                    bytes.len()
                );
            }
        }
    }
    println!("tried: {num_flips} flipped bits");
    assert!(num_errors > bytes.len());
}

#[test]
fn damage_to_real_text_is_an_error_or_changes_nothing() {
    let Some(folder) = shared("corpus/web_en") else { return };
    let shard = open_shard(&find_shards(&[folder]).unwrap()[0], "text").unwrap();
    let expected: Vec<_> = read(&shard, 3, 0..200);
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.parquet");
    let mut writer = ParquetWriter::create(&path, "text", 50).unwrap();
    writer.write(expected.iter().map(|text| str::from_utf8(text.as_ref().unwrap()).unwrap())).unwrap();
    writer.close().unwrap();
    let bytes = fs::read(&path).unwrap();
    let (flips, cuts) = if is_long() { (10_000, 100) } else { (60, 10) };
    for round in 0..flips + cuts {
        let mut damaged = bytes.clone();
        let position = (round * 7_919 + round * round * 104_729) % bytes.len();
        match round < flips {
            true => damaged[position] ^= 1 << (round % 8),
            false => damaged.truncate(position),
        }
        fs::write(&path, damaged).unwrap();
        let Ok(shard) = open_shard(&path, "text") else { continue };
        let found = read_all(&shard);
        assert_eq!(found.len(), expected.len(), "round {round}, byte {position}");
        let same = found.iter().zip(&expected).all(|(found, expected)| found.is_err() || found == expected);
        assert!(same, "round {round}, byte {position}");
        assert!(
            found.iter().filter(|text| text.is_ok()).count() >= 100,
            "a flip costs one row group at most"
        );
    }
    println!("tried: {flips} flipped bits, {cuts} truncations");
}

#[test]
fn finds_files_folders_globs_and_lists() {
    let folder = TempDir::new().unwrap();
    let root = folder.path();
    fs::create_dir_all(root.join("data/deep")).unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    for name in [
        "data/b.parquet",
        "data/a.parquet",
        "data/.c.parquet",
        "data/_d.parquet",
        "data/e.txt",
        "data/deep/f.parquet",
    ] {
        fs::write(root.join(name), "").unwrap();
    }
    let found = |specs: &[&str]| {
        let specs: Vec<_> = specs.iter().map(|spec| root.join(spec)).collect();
        find_shards(&specs).map(|shards| {
            let names = shards.iter().map(|shard| shard.strip_prefix(root).unwrap().display().to_string());
            names.collect::<Vec<_>>().join(" ")
        })
    };
    assert_eq!(found(&["data"]).unwrap(), "data/a.parquet data/b.parquet");
    assert_eq!(found(&["data/e.txt"]).unwrap(), "data/e.txt");
    assert_eq!(
        found(&["data/**/[a-f].parquet"]).unwrap(),
        "data/a.parquet data/b.parquet data/deep/f.parquet"
    );
    assert_eq!(found(&["data/b.parquet", "data/a.parquet"]).unwrap(), "data/b.parquet data/a.parquet");
    assert_eq!(found(&["data/deep", "data"]).unwrap(), "data/deep/f.parquet data/a.parquet data/b.parquet");
    assert!(found(&["nothing"]).unwrap_err().to_string().contains("no such file or folder"));
    assert!(found(&["empty"]).unwrap_err().to_string().contains("0 other files and 0 folders"));
    assert!(found(&["data/*.csv"]).unwrap_err().to_string().contains("no file matches"));
    assert!(found(&["data/[.parquet"]).unwrap_err().to_string().contains("no valid glob"));
    assert!(found(&[]).unwrap_err().to_string().contains("an empty list"));
}
