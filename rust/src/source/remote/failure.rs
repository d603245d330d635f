//! Why a request failed, in words that hold nothing secret, and whether trying again may help.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::url::Scheme;
use crate::error::{Error, Place};

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// There is no such object.
    NotFound,
    /// The server wants other credentials (its status).
    Refused(u16),
    /// Nobody gave credentials, and the machine has none of its own.
    NoCredentials,
    /// The object is another one: what of it, as it was found first, and now.
    Changed(&'static str, String, String),
    /// The server answers that it cannot at the moment, and perhaps for how long.
    Busy(u16, Option<Duration>),
    /// Another status, with the server's word for it.
    Status(u16, String),
    /// The connection could not be made or broke.
    Broken(String),
    /// Nobody who is trusted vouches for the server.
    Untrusted(String),
    /// No byte came for so long.
    Stalled(Duration),
    /// Fewer or more bytes came than were announced.
    Short(u64, u64),
    /// The whole object instead of a part.
    NoRanges,
    /// An answer that makes no sense.
    Nonsense(String),
    /// The time is over; the last failure.
    TimedOut(Duration, Option<Arc<Failure>>),
    /// Nobody waits for it any longer.
    GivenUp,
}

impl Failure {
    /// Whether the same request may succeed a moment later; what makes no sense rarely does.
    pub(super) fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Busy(..) | Self::Broken(_) | Self::Stalled(_) | Self::Short(..) | Self::Nonsense(_)
        )
    }

    /// The failure behind an error of the store. Of its text nothing is taken over but statuses and words without
    /// secrets: URLs hold signatures, and bodies of refusals repeat what was signed.
    pub(super) fn of(error: &object_store::Error) -> Self {
        use object_store::Error as Store;
        if let Some(found) = chain(error).find_map(|error| error.downcast_ref::<Self>()) {
            return found.clone();
        }
        match error {
            Store::NotFound { .. } => Self::NotFound,
            Store::Precondition { .. } => Self::Changed("version", String::new(), "another".into()),
            Store::PermissionDenied { .. } => Self::Refused(403),
            Store::Unauthenticated { .. } => Self::Refused(401),
            // Of all that is asked for only ranges can be missing.
            Store::NotSupported { .. } => Self::NoRanges,
            _ => Self::of_text(error),
        }
    }

    /// What the layers of the store say in text alone.
    fn of_text(error: &object_store::Error) -> Self {
        for error in chain(error) {
            let text = error.to_string();
            if text.starts_with("Received redirect without LOCATION") {
                return Self::Status(301, "wrong region".into());
            }
            if let Some(rest) = text.split_once("status code: ").map(|(_, rest)| rest) {
                let status = rest.get(..3).and_then(|digits| digits.parse().ok()).unwrap_or(0);
                let word = rest.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>"));
                let word = word.map(|(word, _)| word).filter(|word| word.chars().all(char::is_alphanumeric));
                return Self::Status(status, word.unwrap_or_default().into());
            }
        }
        let last = chain(error).last().map(ToString::to_string).unwrap_or_default();
        let is_plain = last.len() < 120 && !last.contains("://") && !last.contains('?');
        Self::Nonsense(if is_plain { last } else { "an answer that cannot be understood".into() })
    }

    /// The failure behind a connection that broke. A certificate does not get better by asking again.
    pub(super) fn of_connection(error: &(dyn StdError + 'static)) -> Self {
        let reason = innermost(error);
        match reason.strip_prefix("invalid peer certificate: ") {
            Some(reason) => Self::Untrusted(reason.into()),
            None => Self::Broken(reason),
        }
    }

    /// As an error of the crate at `path`.
    pub(super) fn at(self, path: &Path, scheme: Scheme) -> Error {
        match self {
            Self::NotFound => Error::NotFound { path: path.into() },
            Self::Changed(what, expected, found) => {
                Error::Changed { path: path.into(), what, expected, found }
            }
            Self::GivenUp => Error::io(Place::shard(path), io::ErrorKind::Interrupted.into()),
            other => Error::Remote { path: path.into(), reason: format!("{other}{}", other.remedy(scheme)) },
        }
    }

    fn remedy(&self, scheme: Scheme) -> String {
        match self {
            Self::Refused(_) | Self::NoCredentials => format!("; {}", credentials(scheme)),
            Self::Status(301 | 400, _) if scheme == Scheme::S3 => {
                "; set AWS_REGION to the bucket's region, and check that a session token is still valid"
                    .into()
            }
            Self::Untrusted(reason) if reason == "UnknownIssuer" => {
                "; a server with a certificate of your own making needs SSL_CERT_FILE, a file with that of who signed it"
                    .into()
            }
            Self::NoRanges => "; a server that gives parts of files is needed: fetch the files first".into(),
            Self::TimedOut(..) => {
                "; check the network and the server, or raise timeout_seconds of nanofast.Remote".into()
            }
            _ => String::new(),
        }
    }
}

/// Where credentials are looked for.
fn credentials(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::S3 => {
            "read are AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, else AWS_PROFILE of the \
             credentials file, else the machine's role; with AWS_REGION and AWS_ENDPOINT_URL; public data needs \
             AWS_SKIP_SIGNATURE=true"
        }
        Scheme::Google => {
            "read are GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT, else what `gcloud auth \
             application-default login` left, else the machine's account; public data needs GOOGLE_SKIP_SIGNATURE=true"
        }
        Scheme::Azure => {
            "read are AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN, else \
             AZURE_CLIENT_ID, AZURE_CLIENT_SECRET and AZURE_TENANT_ID, else the machine's identity; public data needs \
             AZURE_SKIP_SIGNATURE=true"
        }
        Scheme::Hub => {
            "read is HF_TOKEN, else what `hf auth login` left; a gated data set also wants its terms accepted on its page"
        }
        Scheme::Web => "user name and password, or a signature that has not run out, belong into the URL",
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => write!(f, "there is no such object"),
            Self::Refused(status) => write!(f, "access is refused (HTTP {status})"),
            Self::NoCredentials => write!(f, "no credentials were found"),
            Self::Changed(what, expected, found) => write!(f, "{what} {found} instead of {expected}"),
            Self::Busy(status, _) => write!(f, "the server answers HTTP {status}"),
            Self::Status(status, word) if word.is_empty() => write!(f, "the server answers HTTP {status}"),
            Self::Status(status, word) => write!(f, "the server answers HTTP {status} ({word})"),
            Self::Broken(reason) => write!(f, "the connection failed ({reason})"),
            Self::Untrusted(reason) => write!(f, "the server's certificate is not trusted ({reason})"),
            Self::Stalled(time) => write!(f, "no byte came for {:.1} s", time.as_secs_f64()),
            Self::Short(expected, found) => write!(f, "{found} bytes came instead of {expected}"),
            Self::NoRanges => write!(f, "the server gives whole files only"),
            Self::Nonsense(reason) => write!(f, "{reason}"),
            Self::TimedOut(time, last) => {
                write!(f, "no success within {:.1} s", time.as_secs_f64())?;
                last.as_ref().map_or(Ok(()), |last| write!(f, "; at last {last}"))
            }
            Self::GivenUp => write!(f, "nobody waits for it"),
        }
    }
}

impl StdError for Failure {}

/// An error, its cause, the cause's cause, …
fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}

/// The innermost cause: of a broken connection what the system says.
pub(super) fn innermost(error: &(dyn StdError + 'static)) -> String {
    chain(error).last().map(ToString::to_string).unwrap_or_default()
}
