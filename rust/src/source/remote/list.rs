//! Which objects a URL names: itself, those of a folder, or those that a glob matches; in the order of files here.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::ObjectMeta;
use object_store::path::Path as Key;

use super::Object;
use super::failure::Failure;
use super::request::{Stated, look_up, patiently, stated};
use super::store::Store;
use super::url::{RemoteUrl, Scheme};
use crate::error::{Error, Result};
use crate::source::find::is_shard;

/// Objects that are looked up at once, where there is no list.
const IN_FLIGHT: usize = 64;

/// The key of an object, and what is known of it.
type Listed = (String, Option<Stated>);

pub(super) fn find(store: &Arc<Store>, url: &RemoteUrl, extensions: &[&str]) -> Result<Vec<Arc<Object>>> {
    let shown = PathBuf::from(url.shown(&url.key));
    let failed = |failure: Failure| failure.at(&shown, url.scheme);
    let is_glob = url.scheme != Scheme::Web && url.key.contains(['*', '?', '[']);
    let is_folder = url.key.is_empty() || url.key.ends_with('/');
    if is_glob {
        let rule = |source| Error::config("data", shown.display(), format!("no valid glob: {source}"));
        let pattern = glob::Pattern::new(&url.key).map_err(rule)?;
        let front = url.key.find(['*', '?', '[']).unwrap_or_default();
        let (folder, rest) = url.key.split_at(url.key[..front].rfind('/').map_or(0, |slash| slash + 1));
        let listed = list(store, folder, rest.contains('/')).map_err(failed)?;
        let options = glob::MatchOptions { require_literal_separator: true, ..Default::default() };
        let mut found: Vec<Listed> =
            listed.into_iter().filter(|(key, _)| pattern.matches_with(key, options)).collect();
        found.sort_by(|(one, _), (other, _)| Path::new(one).cmp(Path::new(other)));
        if found.is_empty() {
            return Err(Error::NoShards { path: shown, found: "no object matches".into() });
        }
        return objects(store, found).map_err(failed);
    }
    if !is_folder {
        match object(store, &url.key) {
            Ok(object) => return Ok(vec![object]),
            Err(Failure::NotFound) if url.scheme != Scheme::Web => {}
            Err(failure) => return Err(failed(failure)),
        }
    }
    let folder = if is_folder { url.key.clone() } else { format!("{}/", url.key) };
    let listed = match list(store, &folder, false) {
        Ok(listed) if listed.is_empty() => return Err(failed(Failure::NotFound)),
        Ok(listed) => listed,
        Err(failure) => return Err(failed(failure)),
    };
    let (mut found, num_others) = (Vec::new(), listed.len());
    found.extend(listed.into_iter().filter(|(key, _)| is_shard(Path::new(key), extensions)));
    if found.is_empty() {
        return Err(Error::NoShards { path: shown, found: format!("{num_others} other objects") });
    }
    found.sort_by(|(one, _), (other, _)| Path::new(one).file_name().cmp(&Path::new(other).file_name()));
    objects(store, found).map_err(failed)
}

fn made(
    store: &Arc<Store>,
    key: &str,
    (size_bytes, version): Stated,
) -> std::result::Result<Arc<Object>, Failure> {
    Ok(Arc::new(Object {
        path: PathBuf::from(store.url.shown(key)),
        key: store.key(key)?,
        store: store.clone(),
        size_bytes,
        version,
        tail: Mutex::default(),
    }))
}

/// The object of one key.
fn object(store: &Arc<Store>, key: &str) -> std::result::Result<Arc<Object>, Failure> {
    if store.url.scheme == Scheme::Hub {
        let folder = key.rfind('/').map_or("", |slash| &key[..=slash]);
        let listed = list(store, folder, false)?;
        let found = listed.into_iter().find(|(listed, _)| listed == key);
        let (key, stated) = found.ok_or(Failure::NotFound)?;
        return made(store, &key, stated.unwrap_or_default());
    }
    let mut objects = objects(store, vec![(key.into(), None)])?;
    objects.pop().ok_or(Failure::NotFound)
}

/// Objects of keys, each looked up that no list told of.
fn objects(store: &Arc<Store>, listed: Vec<Listed>) -> std::result::Result<Vec<Arc<Object>>, Failure> {
    if listed.iter().all(|(_, stated)| stated.is_some()) {
        return listed
            .into_iter()
            .map(|(key, stated)| made(store, &key, stated.unwrap_or_default()))
            .collect();
    }
    let looking = store.clone();
    store
        .shared
        .threads
        .begin(async move {
            let looked_up = listed.into_iter().map(|(key, stated)| {
                let store = looking.clone();
                async move {
                    let stated = match stated {
                        Some(stated) => stated,
                        None => look_up(&store, &store.key(&key)?).await?,
                    };
                    made(&store, &key, stated)
                }
            });
            stream::iter(looked_up).buffered(IN_FLIGHT).try_collect().await
        })
        .wait()
}

/// What lies in a folder (empty, or with `/` at its end), and below it where `deep`.
fn list(store: &Arc<Store>, folder: &str, deep: bool) -> std::result::Result<Vec<Listed>, Failure> {
    match store.url.scheme {
        Scheme::Hub => of_hub(store, folder, deep),
        Scheme::Web => of_page(store, folder),
        _ => of_bucket(store, folder, deep),
    }
}

fn of_bucket(store: &Arc<Store>, folder: &str, deep: bool) -> std::result::Result<Vec<Listed>, Failure> {
    let front = folder.trim_end_matches('/');
    let front = (!front.is_empty()).then(|| Key::parse(front)).transpose().map_err(|_| Failure::NotFound)?;
    let objects = store.objects.clone();
    let found: Vec<ObjectMeta> = store.shared.wait(async move {
        patiently(None, || async {
            let found = match deep {
                true => objects.list(front.as_ref()).try_collect().await,
                false => objects.list_with_delimiter(front.as_ref()).await.map(|found| found.objects),
            };
            found.map_err(|error| Failure::of(&error))
        })
        .await
    })?;
    Ok(found.into_iter().map(|meta| (meta.location.to_string(), Some(stated(&meta)))).collect())
}

fn of_hub(store: &Arc<Store>, folder: &str, deep: bool) -> std::result::Result<Vec<Listed>, Failure> {
    let hub = store.hub.clone().ok_or(Failure::NotFound)?;
    let tree = hub.tree(store.url.clone(), folder.trim_end_matches('/').into(), deep);
    let entries = store.shared.wait(tree)?;
    let files = entries.into_iter().filter(|entry| entry.kind == "file");
    Ok(files.map(|entry| (entry.path, Some((entry.size, Some(entry.oid))))).collect())
}

/// The links of an index page to what lies in its folder.
fn of_page(store: &Arc<Store>, folder: &str) -> std::result::Result<Vec<Listed>, Failure> {
    let no_page = || Failure::Nonsense("the folder's page cannot be read".into());
    let mut page = ::url::Url::parse(&store.url.place).map_err(|_| no_page())?;
    page.set_path(folder);
    let (http, asked) = (store.shared.http.clone(), page.to_string());
    let (body, _) = store.shared.wait(async move { patiently(None, || http.get(&asked)).await })?;
    page.set_query(None);
    let folder = page.path().to_string();
    let text = String::from_utf8_lossy(&body);
    let linked = text.split("href=").skip(1).filter_map(|rest| {
        let quote = rest.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
        let link = rest[1..].split(quote).next()?;
        let linked = page.join(link).ok().filter(|linked| linked.host_str() == page.host_str())?;
        let name = linked.path().strip_prefix(&folder)?;
        (!name.is_empty() && !name.contains('/')).then(|| linked.path().trim_start_matches('/').to_string())
    });
    let mut found: Vec<String> = linked.collect();
    found.sort();
    found.dedup();
    Ok(found.into_iter().map(|key| (key, None)).collect())
}
