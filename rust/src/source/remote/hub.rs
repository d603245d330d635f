//! Data sets of the hub: a revision becomes a commit, whose files no longer change, and the commit's tree is their list.

use std::future::Future;

use serde::Deserialize;

use super::failure::Failure;
use super::http::Http;
use super::request::patiently;
use super::url::RemoteUrl;
use crate::source::location::StorageSettings;

/// Where the hub is, unless HF_ENDPOINT says otherwise.
const ENDPOINT: &str = "https://huggingface.co";

/// The hub.
#[derive(Clone)]
pub(super) struct Hub {
    pub(super) endpoint: String,
    /// With the token of HF_TOKEN, where there is one.
    pub(super) http: Http,
}

#[derive(Deserialize)]
struct Revision {
    sha: String,
}

/// A file or folder of the tree.
#[derive(Deserialize)]
pub(super) struct Entry {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) path: String,
    #[serde(default)]
    pub(super) size: u64,
    pub(super) oid: String,
}

fn parsed<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Failure> {
    serde_json::from_slice(body)
        .map_err(|_| Failure::Nonsense("the hub answers something else than JSON".into()))
}

impl Hub {
    pub(super) fn new(settings: &StorageSettings, http: &Http) -> Result<Self, Failure> {
        let option = |name: &str| settings.options.iter().find(|(known, _)| known == name);
        let endpoint =
            option("HF_ENDPOINT").map_or(ENDPOINT, |(_, url)| url).trim_end_matches('/').to_string();
        let http = match option("HF_TOKEN") {
            Some((_, token)) => http.with_token(&endpoint, token)?,
            None => http.clone(),
        };
        Ok(Self { endpoint, http })
    }

    /// The commit that a revision stands for.
    pub(super) fn commit(
        &self,
        url: &RemoteUrl,
    ) -> impl Future<Output = Result<String, Failure>> + Send + use<> {
        let (http, revision) = (self.http.clone(), encoded(&url.revision));
        let asked = format!("{}/api/datasets/{}/revision/{revision}", self.endpoint, url.place);
        async move {
            let (body, _) = http.get(&asked).await?;
            Ok(parsed::<Revision>(&body)?.sha)
        }
    }

    /// What lies in `folder` at the commit of `url`, with what lies below where `deep`.
    pub(super) async fn tree(
        self,
        url: RemoteUrl,
        folder: String,
        deep: bool,
    ) -> Result<Vec<Entry>, Failure> {
        let folder = folder.split('/').map(encoded).collect::<Vec<_>>().join("/");
        let slash = if folder.is_empty() { "" } else { "/" };
        let mut next = Some(format!(
            "{}/api/datasets/{}/tree/{}{slash}{folder}?recursive={deep}",
            self.endpoint, url.place, url.revision
        ));
        let mut entries = Vec::new();
        while let Some(page) = next {
            let (body, following) = patiently(None, || self.http.get(&page)).await?;
            entries.extend(parsed::<Vec<Entry>>(&body)?);
            next = following;
        }
        Ok(entries)
    }
}

/// A part of a path with everything escaped that is not plain.
fn encoded(part: &str) -> String {
    ::url::form_urlencoded::byte_serialize(part.as_bytes()).collect::<String>().replace('+', "%20")
}
