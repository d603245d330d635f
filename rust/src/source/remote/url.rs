//! URLs: what they name, and what of them may be shown.
//!
//! ```text
//! s3://bucket/key   gs://bucket/key   az://container/key   https://host/path   hf://datasets/owner/name@revision/path
//! ```

use ::url::Url;

use crate::error::{Error, Result};

/// The protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    S3,
    Google,
    Azure,
    Web,
    Hub,
}

/// A URL, taken apart.
#[derive(Clone)]
pub(super) struct RemoteUrl {
    pub(super) scheme: Scheme,
    /// Bucket, container, or `owner/name` of a data set; of the web scheme, user, host and query with an empty path.
    pub(super) place: String,
    /// What lies in front of the key in what is shown, with the `/`.
    pub(super) shown: String,
    /// Of the hub: branch, tag or commit.
    pub(super) revision: String,
    /// Key of an object, or front of keys.
    pub(super) key: String,
}

impl RemoteUrl {
    pub(super) fn parse(url: &str) -> Result<Self> {
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        let scheme = match scheme {
            "s3" => Scheme::S3,
            "gs" => Scheme::Google,
            "az" => Scheme::Azure,
            "hf" => return Self::parse_hub(rest),
            _ => return Self::parse_web(url),
        };
        let (place, key) = rest.split_once('/').unwrap_or((rest, ""));
        if place.contains('@') {
            let rule = "credentials do not belong into a URL; they are read from the environment";
            return Err(Error::config("data", "a URL with `@` before its path", rule));
        }
        if place.is_empty() {
            return Err(Error::config("data", format!("`{url}`"), "expected a bucket behind `://`"));
        }
        let name = ["s3", "gs", "az"][scheme as usize];
        Ok(Self {
            scheme,
            place: place.into(),
            shown: format!("{name}://{place}/"),
            revision: String::new(),
            key: key.into(),
        })
    }

    fn parse_hub(rest: &str) -> Result<Self> {
        let wrong = || {
            let rule = "expected hf://datasets/OWNER/NAME, then @REVISION and /FOLDER or /FILE where wanted";
            Error::config("data", format!("`hf://{rest}`"), rule)
        };
        let mut parts = rest.strip_prefix("datasets/").ok_or_else(wrong)?.splitn(3, '/');
        let (owner, name, key) = (parts.next(), parts.next(), parts.next().unwrap_or_default());
        let (Some(owner), Some(name)) = (owner.filter(|part| !part.is_empty()), name) else {
            return Err(wrong());
        };
        let (name, revision) = name.split_once('@').unwrap_or((name, "main"));
        let at = if revision == "main" { String::new() } else { format!("@{revision}") };
        Ok(Self {
            scheme: Scheme::Hub,
            place: format!("{owner}/{name}"),
            shown: format!("hf://datasets/{owner}/{name}{at}/"),
            revision: revision.into(),
            key: key.into(),
        })
    }

    fn parse_web(url: &str) -> Result<Self> {
        let mut place = Url::parse(url).map_err(|source| {
            // The URL itself may hold a password.
            Error::config("data", "a URL", format!("cannot be understood: {source}"))
        })?;
        let key = place.path().trim_start_matches('/').to_string();
        place.set_fragment(None);
        place.set_path("");
        let mut shown = place.clone();
        shown.set_query(None);
        // A URL with a host has a place for both.
        let _ = (shown.set_username(""), shown.set_password(None));
        Ok(Self {
            scheme: Scheme::Web,
            place: place.into(),
            shown: shown.into(),
            revision: String::new(),
            key,
        })
    }

    /// The URL of a key, as messages show it.
    pub(super) fn shown(&self, key: &str) -> String {
        format!("{}{key}", self.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_has_no_credentials() {
        let shown = |url| {
            let url = RemoteUrl::parse(url).unwrap();
            url.shown(&url.key)
        };
        assert_eq!(shown("https://user:word@host:81/a/b.parquet?sig=x#y"), "https://host:81/a/b.parquet");
        assert_eq!(shown("s3://bucket/a/b.parquet"), "s3://bucket/a/b.parquet");
        assert_eq!(shown("hf://datasets/o/n@v1/a.parquet"), "hf://datasets/o/n@v1/a.parquet");
        for wrong in ["s3://key:word@bucket/a", "http://user:word@/", "http://us:word@ho st/"] {
            let error = RemoteUrl::parse(wrong).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(!error.is_empty() && !error.contains("word"), "{wrong}: {error}");
        }
    }

    #[test]
    fn the_hub_names_owner_name_revision_and_path() {
        let url = RemoteUrl::parse("hf://datasets/o/n@v1/a/b.parquet").unwrap();
        assert_eq!((&*url.place, &*url.revision, &*url.key), ("o/n", "v1", "a/b.parquet"));
        assert_eq!(RemoteUrl::parse("hf://datasets/o/n").unwrap().revision, "main");
        for wrong in ["hf://o/n/a.parquet", "hf://datasets/o"] {
            assert!(RemoteUrl::parse(wrong).is_err(), "{wrong}");
        }
    }
}
