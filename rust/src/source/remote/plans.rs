//! What the footers of a list of objects say, kept in one file a list: later runs read it instead of the footers.
//!
//! A plan is found by the names, sizes and versions of all its objects, so one that is found is right. Processes that make
//! the same plan at once wait for the first of them.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use parquet::basic::{BrotliLevel, Compression, GzipLevel, ZstdLevel};
use serde::{Deserialize, Serialize};

use super::Object;
use crate::error::Result;
use crate::source::file::{Stamp, Version};
use crate::source::location::Location;
use crate::source::shard::{RowGroup, Shard, hash};

const VERSION: u32 = 1;

/// Plans that are kept: the newest.
const PLANS: usize = 64;

#[derive(Serialize, Deserialize)]
struct KeptPlan {
    version: u32,
    shards: Vec<KeptShard>,
}

#[derive(Serialize, Deserialize)]
struct KeptShard {
    footer: String,
    required: bool,
    row_groups: Vec<KeptGroup>,
}

/// Rows, bytes of the column, compressed bytes, offset, codec.
#[derive(Serialize, Deserialize)]
struct KeptGroup(u64, u64, u64, u64, u8);

/// The shards at `locations` with their column: as they were kept, else as `make` opens them.
pub(in crate::source) fn planned(
    locations: &[Location],
    column: &str,
    make: impl FnOnce() -> Result<Vec<Shard>>,
) -> Result<Vec<Shard>> {
    let Some(objects) = objects(locations) else { return make() };
    let Some(folder) = objects.first().and_then(|object| object.store.shared.plan_folder.clone()) else {
        return make();
    };
    let path = folder.join(format!("{}.json", key(&objects, column)));
    if let Some(shards) = load(&path, &objects) {
        return Ok(shards);
    }
    // Whoever cannot lock makes the plan as well as the others.
    let lock = fs::create_dir_all(&folder).and_then(|()| File::create(path.with_extension("lock")));
    let lock = lock.and_then(|lock| lock.lock().map(|()| lock)).ok();
    if let Some(shards) = lock.as_ref().and_then(|_| load(&path, &objects)) {
        return Ok(shards);
    }
    let shards = make()?;
    keep(&path, &shards);
    Ok(shards)
}

/// The objects, when all are some whose versions are known.
fn objects(locations: &[Location]) -> Option<Vec<Arc<Object>>> {
    let object = |location: &Location| match location {
        Location::Remote(object) if object.version.is_some() => Some(object.clone()),
        _ => None,
    };
    locations.iter().map(object).collect()
}

fn key(objects: &[Arc<Object>], column: &str) -> String {
    let mut text = format!("{VERSION}\n{column}\n");
    for object in objects {
        let version = object.version.as_deref().unwrap_or_default();
        text += &format!("{}\n{}\n{version}\n", object.path.display(), object.size_bytes);
    }
    hash(text.as_bytes())[..32].into()
}

fn load(path: &Path, objects: &[Arc<Object>]) -> Option<Vec<Shard>> {
    let plan: KeptPlan = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    if plan.version != VERSION || plan.shards.len() != objects.len() {
        return None;
    }
    plan.shards.into_iter().zip(objects).map(|(shard, object)| shard_of(shard, object)).collect()
}

fn shard_of(shard: KeptShard, object: &Arc<Object>) -> Option<Shard> {
    let row_group = |KeptGroup(num_rows, num_bytes, num_compressed_bytes, offset, codec)| {
        let codec = *CODECS.get(codec as usize)?;
        Some(RowGroup { num_rows, num_bytes, num_compressed_bytes, offset, codec: codec() })
    };
    Some(Shard {
        location: Location::Remote(object.clone()),
        stamp: Stamp { size_bytes: object.size_bytes, version: Version::Tag(object.tag()) },
        footer_hash: shard.footer,
        required: shard.required,
        row_groups: shard.row_groups.into_iter().map(row_group).collect::<Option<_>>()?,
        conversations: None,
    })
}

/// Written aside and renamed. A folder that refuses is no failure.
fn keep(path: &Path, shards: &[Shard]) {
    let group = |group: &RowGroup| {
        let codec = CODECS.iter().position(|codec| same(codec(), group.codec))?;
        Some(KeptGroup(
            group.num_rows,
            group.num_bytes,
            group.num_compressed_bytes,
            group.offset,
            codec as u8,
        ))
    };
    let shard = |shard: &Shard| {
        let row_groups = shard.row_groups.iter().map(group).collect::<Option<_>>()?;
        Some(KeptShard { footer: shard.footer_hash.clone(), required: shard.required, row_groups })
    };
    let Some(shards) = shards.iter().map(shard).collect::<Option<Vec<_>>>() else { return };
    let plan = KeptPlan { version: VERSION, shards };
    let write = || -> std::io::Result<()> {
        let aside = path.with_extension(format!("writing-{}", std::process::id()));
        fs::write(&aside, serde_json::to_vec(&plan)?)?;
        fs::rename(aside, path)?;
        forget_oldest(path.parent().unwrap_or(Path::new(".")))
    };
    let _ = write();
}

fn forget_oldest(folder: &Path) -> std::io::Result<()> {
    let mut plans = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            plans.push((fs::metadata(&path)?.modified()?, path));
        }
    }
    plans.sort();
    for (_, path) in plans.iter().rev().skip(PLANS) {
        fs::remove_file(path.with_extension("lock"))?;
        fs::remove_file(path)?;
    }
    Ok(())
}

/// What reads pages: the level is the writer's affair.
const CODECS: [fn() -> Compression; 8] = [
    || Compression::UNCOMPRESSED,
    || Compression::SNAPPY,
    || Compression::GZIP(GzipLevel::default()),
    || Compression::LZO,
    || Compression::BROTLI(BrotliLevel::default()),
    || Compression::LZ4,
    || Compression::ZSTD(ZstdLevel::default()),
    || Compression::LZ4_RAW,
];

fn same(one: Compression, other: Compression) -> bool {
    std::mem::discriminant(&one) == std::mem::discriminant(&other)
}
