//! What is no shard of ours, or no longer the one that was opened, is refused in words; and what is found where.

use std::fs;
use std::path::Path;

use nanofast::error::{Error, Kind};
use nanofast::pool::Pool;
use nanofast::source::{find_shards, open_shard};
use tempfile::TempDir;

use crate::{read_all, sample, shared};

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
