//! How many bytes of text a second does one thread decode, from file to documents, against the parquet crate's own
//! column reader? `cargo bench --bench decode` (web_en where it is at hand, else a file written here).

use std::fs::File;
use std::hint::black_box;
use std::path::{Path, PathBuf};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use nanofast::pool::Pool;
use nanofast::source::{ParquetWriter, Shard, find_shards, open_shard};
use parquet::column::reader::get_typed_column_reader;
use parquet::data_type::ByteArrayType;
use parquet::file::reader::{FileReader, SerializedFileReader};

/// Row groups a pass: about 7 MB of text each, more than fits into a cache.
const ROW_GROUPS: usize = 4;

fn shard_path() -> PathBuf {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/corpus/web_en");
    if let Ok(shards) = find_shards(&[corpus]) {
        return shards[0].clone();
    }
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("decode.parquet");
    let text = |i: u64| {
        let words = (0..800 + i % 700).map(|j| (i * 31 + j * j * 17) % 9973);
        words.map(|word| format!("{word:x}")).collect::<Vec<_>>().join(" ")
    };
    let mut writer = ParquetWriter::create(&path, "text", 1024).expect("a writable target folder");
    writer.write((0..1024 * ROW_GROUPS as u64).map(text)).expect("space on the disk");
    writer.close().expect("space on the disk");
    path
}

/// Number of texts, and their bytes.
fn ours(shard: &Shard) -> (usize, usize) {
    let (mut texts, mut bytes) = (0, 0);
    for group in 0..ROW_GROUPS {
        let mut reader =
            shard.reader(group, 0..shard.num_rows(group), &Pool::new()).expect("an unchanged file");
        while let Some((_, batch)) = reader.next_batch().expect("an intact file") {
            texts += batch.len();
            bytes += black_box(batch).num_bytes();
        }
    }
    (texts, bytes)
}

fn crates(path: &Path) -> (usize, usize) {
    let reader = SerializedFileReader::new(File::open(path).expect("a file")).expect("a parquet file");
    let (mut texts, mut bytes) = (0, 0);
    for group in 0..ROW_GROUPS {
        let group = reader.get_row_group(group).expect("a row group");
        let leaves = group.metadata().columns();
        let leaf =
            leaves.iter().position(|leaf| leaf.column_path().string() == "text").expect("a text column");
        let column = group.get_column_reader(leaf).expect("a column");
        let mut column = get_typed_column_reader::<ByteArrayType>(column);
        loop {
            let (mut values, mut levels) = (Vec::new(), Vec::new());
            let (rows, ..) =
                column.read_records(32, Some(&mut levels), None, &mut values).expect("an intact file");
            if rows == 0 {
                break;
            }
            texts += rows;
            bytes += black_box(values).iter().map(|value| value.len()).sum::<usize>();
        }
    }
    (texts, bytes)
}

fn decode(criterion: &mut Criterion) {
    let path = shard_path();
    let shard = open_shard(&path, "text").expect("a text shard");
    let (texts, bytes) = ours(&shard);
    assert_eq!((texts, bytes), crates(&path), "both read the same texts");
    let mut group = criterion.benchmark_group("decode");
    group.throughput(Throughput::Bytes(bytes as u64));
    group.bench_function("nanofast", |bencher| bencher.iter(|| ours(&shard)));
    group.bench_function("parquet column reader", |bencher| bencher.iter(|| crates(&path)));
    group.bench_function("open", |bencher| bencher.iter(|| open_shard(&path, "text")));
    group.finish();
}

criterion_group!(benches, decode);
criterion_main!(benches);
