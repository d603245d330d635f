//! A URL and what the environment says → the store behind it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::path::Path as Key;
use object_store::{BackoffConfig, ObjectStore, RetryConfig};

use super::failure::{Failure, innermost};
use super::hub::Hub;
use super::request::Shared;
use super::url::{RemoteUrl, Scheme};
use crate::error::{Error, Result};
use crate::source::location::StorageSettings;

/// A bucket, a container, a data set of the hub, or a web server.
pub(super) struct Store {
    pub(super) url: RemoteUrl,
    pub(super) objects: Arc<dyn ObjectStore>,
    pub(super) shared: Arc<Shared>,
    pub(super) hub: Option<Hub>,
    /// What lies between the store's root and the keys that are shown: of the hub the path of a commit.
    pub(super) root: Key,
}

impl fmt::Debug for Store {
    /// By what may be shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.url.shown)
    }
}

/// Whether to try again, and when, is decided in `request`.
fn once() -> RetryConfig {
    RetryConfig { max_retries: 0, backoff: BackoffConfig::default(), ..RetryConfig::default() }
}

/// The options that a store knows, by the names of the environment.
fn known<K: FromStr>(settings: &StorageSettings) -> impl Iterator<Item = (K, String)> {
    let known = |(name, value): &(String, String)| {
        let key = name.to_ascii_lowercase().parse().ok()?;
        Some((key, value.clone()))
    };
    settings.options.iter().filter_map(known)
}

impl Store {
    pub(super) fn of(url: &RemoteUrl, settings: &StorageSettings, shared: Arc<Shared>) -> Result<Self> {
        let failed = |error: object_store::Error| {
            // Builders speak of settings: their innermost error names one and holds no value of it.
            let reason = format!("settings of the store: {}", innermost(&error));
            Error::Remote { path: PathBuf::from(url.shown.trim_end_matches('/')), reason }
        };
        let of_environment = |prefix: &str| {
            let options = settings.options.iter().filter(|(name, _)| name.starts_with(prefix)).cloned();
            StorageSettings { options: options.collect(), ..StorageSettings::default() }
        };
        let http = shared.http.clone();
        let objects: Arc<dyn ObjectStore> = match url.scheme {
            Scheme::S3 => {
                let mut builder = AmazonS3Builder::new();
                for (key, value) in known(&of_environment("AWS_")) {
                    builder = builder.with_config(key, value);
                }
                let builder =
                    builder.with_bucket_name(&url.place).with_retry(once()).with_http_connector(http);
                Arc::new(builder.build().map_err(failed)?)
            }
            Scheme::Google => {
                let mut builder = GoogleCloudStorageBuilder::new();
                for (key, value) in known(&of_environment("GOOGLE_")) {
                    builder = builder.with_config(key, value);
                }
                let builder =
                    builder.with_bucket_name(&url.place).with_retry(once()).with_http_connector(http);
                Arc::new(builder.build().map_err(failed)?)
            }
            Scheme::Azure => {
                let mut builder = MicrosoftAzureBuilder::new();
                for (key, value) in known(&of_environment("AZURE_")) {
                    builder = builder.with_config(key, value);
                }
                let builder =
                    builder.with_container_name(&url.place).with_retry(once()).with_http_connector(http);
                Arc::new(builder.build().map_err(failed)?)
            }
            Scheme::Web => {
                let builder =
                    HttpBuilder::new().with_url(&url.place).with_retry(once()).with_http_connector(http);
                Arc::new(builder.build().map_err(failed)?)
            }
            Scheme::Hub => {
                let hub = Hub::new(settings, &shared.http)
                    .map_err(|failure| failure.at(url.shown.as_ref(), url.scheme))?;
                let commit = shared
                    .wait(hub.commit(url))
                    .map_err(|failure| failure.at(url.shown.trim_end_matches('/').as_ref(), url.scheme))?;
                let root = Key::from(format!("datasets/{}/resolve/{commit}", url.place));
                let builder = HttpBuilder::new().with_url(&hub.endpoint).with_retry(once());
                let builder = builder.with_http_connector(hub.http.clone());
                let mut pinned = url.clone();
                pinned.revision = commit;
                let objects = Arc::new(builder.build().map_err(failed)?);
                return Ok(Self { url: pinned, objects, shared, hub: Some(hub), root });
            }
        };
        Ok(Self { url: url.clone(), objects, shared, hub: None, root: Key::default() })
    }

    /// The key of an object as the store knows it.
    pub(super) fn key(&self, shown: &str) -> std::result::Result<Key, Failure> {
        let key = match self.url.scheme {
            Scheme::Web => Key::from_url_path(shown),
            _ => Key::parse(shown),
        };
        let key = key.map_err(|_| Failure::NotFound)?;
        Ok(Key::from_iter(self.root.parts().chain(key.parts())))
    }
}
