//! Damaged bytes are an error of the rows that they lie in, or change nothing.

use std::fs;

use nanofast::source::{ParquetWriter, find_shards, open_shard};
use parquet::basic::{Compression, Encoding};
use tempfile::TempDir;

use crate::oracle::{Layout, column_values, write};
use crate::{is_long, read, read_all, sample, shared};

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
