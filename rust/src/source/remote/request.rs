//! One request, made until it succeeds: waits that double, a total time-out, and nothing believed that was not checked.

use std::future::Future;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use object_store::path::Path as Key;
use object_store::{GetOptions, GetRange, GetResult, ObjectMeta};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::Object;
use super::cache::Cache;
use super::failure::Failure;
use super::http::Http;
use super::runtime::{Pending, Threads};
use super::store::Store;
use super::url::Scheme;
use crate::error::Result;
use crate::pool::Pooled;
use crate::source::location::StorageSettings;

/// The first wait before another try; each is twice the one before, and a random part of it.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Tries of what has no time-out of its own, or is answered without sense.
const TRIES: usize = 5;

/// Slower than this a transfer is begun anew: a quarter of what a bad line gives.
const LEAST_BYTES_PER_SECOND: u64 = 64 << 10;

/// What all objects of a loader share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) threads: Arc<Threads>,
    pub(super) http: Http,
    pub(super) cache: Option<Arc<Cache>>,
    pub(super) plan_folder: Option<PathBuf>,
    time: Duration,
    stall: Duration,
}

impl Shared {
    pub(super) fn new(settings: &StorageSettings) -> Result<Self> {
        let cache = settings
            .cache_folder
            .clone()
            .map(|folder| Cache::new(folder, settings.cache_limit_bytes).map(Arc::new));
        Ok(Self {
            threads: Threads::get()?,
            http: Http::default(),
            cache: cache.transpose()?,
            plan_folder: settings.plan_folder.clone(),
            time: Duration::from_secs_f64(settings.timeout_seconds),
            stall: Duration::from_secs_f64(settings.stall_seconds),
        })
    }

    /// Waits for `work`, which gets the whole time but no second try.
    pub(super) fn wait<T: Send + 'static>(
        &self,
        work: impl Future<Output = std::result::Result<T, Failure>> + Send + 'static,
    ) -> std::result::Result<T, Failure> {
        self.begin(work).wait()
    }

    /// Begins `work`, which gets the whole time.
    pub(super) fn begin<T: Send + 'static>(
        &self,
        work: impl Future<Output = std::result::Result<T, Failure>> + Send + 'static,
    ) -> Pending<T> {
        let time = self.time;
        self.threads
            .begin(async move { timeout(time, work).await.unwrap_or(Err(Failure::TimedOut(time, None))) })
    }
}

/// What `attempt` gives, tried again while that may help, for as long as `time` (none: a few times).
pub(super) async fn patiently<T, F>(
    time: Option<Duration>,
    mut attempt: impl FnMut() -> F,
) -> std::result::Result<T, Failure>
where
    F: Future<Output = std::result::Result<T, Failure>>,
{
    let end = time.map(|time| Instant::now() + time);
    let (mut wait, mut tries, mut last) = (FIRST_WAIT, 0, None);
    let over = |last| Failure::TimedOut(time.unwrap_or_default(), last);
    loop {
        let result = match end {
            Some(end) => timeout_at(end, attempt()).await.unwrap_or_else(|_| Err(over(last.clone()))),
            None => attempt().await,
        };
        let failure = match result {
            Err(failure) if failure.is_transient() => failure,
            result => return result,
        };
        tries += 1;
        let pause = match &failure {
            Failure::Busy(_, Some(asked)) => (*asked).max(wait),
            _ => wait.mul_f64(0.5 + 0.5 * chance()),
        };
        wait = (wait * 2).min(LONGEST_WAIT);
        match end {
            Some(end) if Instant::now() + pause >= end => return Err(over(Some(Arc::new(failure)))),
            None if tries >= TRIES => return Err(failure),
            Some(_) if tries >= TRIES && matches!(failure, Failure::Nonsense(_)) => return Err(failure),
            _ => {}
        }
        last = Some(Arc::new(failure));
        sleep(pause).await;
    }
}

/// A number from 0 to 1 that nobody can foresee: who were refused together do not come back together.
fn chance() -> f64 {
    RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64
}

/// What a server says of an object: size, and what it calls the version.
pub(super) type Stated = (u64, Option<String>);

/// Versions that are times of writing begin so: no server takes them for ETags.
const WRITTEN: &str = "written ";

/// ETags without their quotes, which some lists leave out; where there is none, the time of writing.
pub(super) fn stated(found: &ObjectMeta) -> Stated {
    let written = || {
        let written = found.last_modified;
        (written.timestamp() != 0).then(|| format!("{WRITTEN}{}", written.to_rfc3339()))
    };
    let etag = found.e_tag.as_ref().map(|etag| etag.trim_matches('"').to_string());
    let etag = etag.map(|etag| if etag.starts_with("W/") { format!("{etag}\"") } else { etag });
    (found.size, etag.or_else(written))
}

/// Size and version of the object `key`, asked for by a HEAD; of web servers by its first byte, since who may read need
/// not be allowed more (a signature is for one verb), and since it shows whether there are ranges.
pub(super) async fn look_up(store: &Store, key: &Key) -> std::result::Result<Stated, Failure> {
    patiently(Some(store.shared.time), || async {
        let is_web = matches!(store.url.scheme, Scheme::Web | Scheme::Hub);
        let options = match is_web {
            true => GetOptions { range: Some(GetRange::Bounded(0..1)), ..GetOptions::default() },
            false => GetOptions { head: true, ..GetOptions::default() },
        };
        let found = answer(store, key, options).await?;
        Ok(stated(&found.meta))
    })
    .await
}

async fn answer(store: &Store, key: &Key, options: GetOptions) -> std::result::Result<GetResult, Failure> {
    let stall = store.shared.stall;
    let answer = timeout(stall, store.objects.get_opts(key, options)).await;
    answer.map_err(|_| Failure::Stalled(stall))?.map_err(|error| Failure::of(&error))
}

/// Bytes of an object, of the very one that was found, in `memory`.
pub(super) async fn read(
    object: &Object,
    range: Range<u64>,
    memory: Pooled<u8>,
) -> std::result::Result<Pooled<u8>, Failure> {
    // An attempt that is broken off leaves it for the next one.
    let memory = Mutex::new(memory);
    patiently(Some(object.store.shared.time), || read_once(object, range.clone(), &memory)).await?;
    Ok(memory.into_inner())
}

async fn read_once(
    object: &Object,
    range: Range<u64>,
    memory: &Mutex<Pooled<u8>>,
) -> std::result::Result<(), Failure> {
    let (store, length) = (&object.store, range.end - range.start);
    // A commit of the hub does not change, and its storage has ETags of its own.
    let expected = object.version.as_ref().filter(|_| store.url.scheme != Scheme::Hub);
    let is_strong = |version: &&String| !version.starts_with("W/") && !version.starts_with(WRITTEN);
    let if_match = expected.filter(is_strong).map(|version| format!("\"{version}\""));
    let options =
        GetOptions { range: Some(GetRange::Bounded(range.clone())), if_match, ..GetOptions::default() };
    let found = answer(store, &object.key, options).await.map_err(|failure| match (failure, expected) {
        (Failure::Changed(what, _, found), Some(expected)) => Failure::Changed(what, expected.clone(), found),
        (failure, _) => failure,
    })?;
    let (size, version) = stated(&found.meta);
    if size != object.size_bytes {
        let bytes = |size: u64| format!("{size} bytes");
        return Err(Failure::Changed("size", bytes(object.size_bytes), bytes(size)));
    }
    if let (Some(expected), Some(found)) = (expected, version)
        && *expected != found
    {
        return Err(Failure::Changed("version", expected.clone(), found));
    }
    if found.range != range {
        return Err(Failure::Nonsense("the server gives another range than asked for".into()));
    }
    let stall = store.shared.stall;
    let end = Instant::now() + 2 * stall + Duration::from_secs(length / LEAST_BYTES_PER_SECOND);
    let mut bytes = memory.lock().await;
    bytes.clear();
    bytes.reserve_exact(length as usize);
    let mut body = found.into_stream();
    loop {
        let next = timeout(stall, timeout_at(end, body.next())).await;
        let Ok(Ok(next)) = next else { return Err(Failure::Stalled(stall)) };
        match next {
            Some(Ok(part)) if bytes.len() + part.len() > length as usize => {
                return Err(Failure::Short(length, (bytes.len() + part.len()) as u64));
            }
            Some(Ok(part)) => bytes.extend_from_slice(&part),
            Some(Err(error)) => return Err(Failure::of(&error)),
            None => break,
        }
    }
    match bytes.len() as u64 {
        found if found == length => Ok(()),
        found => Err(Failure::Short(length, found)),
    }
}
