//! The HTTP client under the stores: redirects, user names in URLs, and answers that are worth another try.
//!
//! HTTP/1.1 alone: many ranged reads are many connections, which is also what gives object stores their throughput.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ::http::header::{AUTHORIZATION, LOCATION, RETRY_AFTER};
use ::http::uri::Authority;
use ::http::{HeaderValue, Method, Request, Response, Uri};
use ::url::Url;
use async_trait::async_trait;
use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector as Connect, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpResponseBody, HttpService,
};

use super::failure::{Failure, innermost};

/// Redirects that are followed: a hub sends to a storage, which may send on.
const REDIRECTS: usize = 5;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);

/// Bytes that are taken from a connection at once.
const READ_BYTES: usize = 256 << 10;

/// How long a connection stays open that nobody uses.
const IDLE: Duration = Duration::from_secs(30);

/// Hosts that give a machine's own credentials: who is nowhere near them has none.
const METADATA_HOSTS: [&str; 3] = ["169.254.169.254", "169.254.170.2", "metadata.google.internal"];

type Body = Full<Bytes>;

/// Clients with their connections. Those for TLS are made when first needed: they read the system's certificates.
#[derive(Debug, Default)]
struct Clients {
    plain: OnceLock<Client<HttpConnector, Body>>,
    secure: OnceLock<Result<Client<HttpsConnector<HttpConnector>, Body>, String>>,
}

/// The client.
#[derive(Clone, Debug, Default)]
pub(super) struct Http {
    clients: Arc<Clients>,
    /// A token for one host and port: goes to no other.
    token: Option<Arc<(String, HeaderValue)>>,
}

impl Http {
    /// As `self`, with a bearer token for the host of `url`.
    pub(super) fn with_token(&self, url: &str, token: &str) -> Result<Self, Failure> {
        let host = url.parse::<Uri>().ok().and_then(|uri| uri.authority().map(ToString::to_string));
        let mut header = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| Failure::Nonsense("the token has characters that no token has".into()))?;
        header.set_sensitive(true);
        let token = host.map(|host| Arc::new((host, header)));
        Ok(Self { clients: self.clients.clone(), token })
    }

    fn plain(&self) -> &Client<HttpConnector, Body> {
        self.clients.plain.get_or_init(|| builder().build(connector()))
    }

    fn secure(&self) -> Result<&Client<HttpsConnector<HttpConnector>, Body>, Failure> {
        let client = self.clients.secure.get_or_init(|| {
            let tls = HttpsConnectorBuilder::new().with_native_roots();
            let tls = tls.map_err(|source| format!("no certificates of the system: {source}"))?;
            let mut connector = connector();
            connector.enforce_http(false);
            Ok(builder().build(tls.https_only().enable_http1().wrap_connector(connector)))
        });
        client.as_ref().map_err(|reason| Failure::Status(0, reason.clone()))
    }

    /// A GET with its redirects, as a body in memory, and the link to a next page.
    pub(super) async fn get(&self, url: &str) -> Result<(Bytes, Option<String>), Failure> {
        let request = Request::get(url).body(Bytes::new());
        let request = request.map_err(|_| Failure::Nonsense("a URL that cannot be asked for".into()))?;
        let response = self.send(request).await?;
        match response.status().as_u16() {
            200 => {}
            404 => return Err(Failure::NotFound),
            status @ (401 | 403) => return Err(Failure::Refused(status)),
            status => return Err(Failure::Status(status, String::new())),
        }
        let next = response.headers().get("link").and_then(|link| next_page(link.to_str().ok()?));
        let body = response.into_body().collect().await;
        let body = body.map_err(|error| Failure::Broken(innermost(&error)))?;
        Ok((body.to_bytes(), next))
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<hyper::body::Incoming>, Failure> {
        let (mut parts, body) = request.into_parts();
        let signed_for = parts.uri.authority().cloned();
        for _ in 0..=REDIRECTS {
            let mut request = Request::new(Full::new(body.clone()));
            *request.method_mut() = parts.method.clone();
            *request.headers_mut() = parts.headers.clone();
            let (uri, user) = without_user(&parts.uri)?;
            let host = uri.host().unwrap_or_default().to_string();
            let server = uri.authority().map(ToString::to_string).unwrap_or_default();
            if let Some(user) = user {
                request.headers_mut().insert(AUTHORIZATION, user);
            } else if let Some(token) = self.token.as_ref().filter(|token| token.0 == server) {
                request.headers_mut().insert(AUTHORIZATION, token.1.clone());
            }
            let is_secure = uri.scheme_str() == Some("https");
            *request.uri_mut() = uri;
            let answer = match is_secure {
                true => self.secure()?.request(request).await,
                false => self.plain().request(request).await,
            };
            let response = answer.map_err(|error| match METADATA_HOSTS.contains(&&*host) {
                true => Failure::NoCredentials,
                false => Failure::of_connection(&error),
            })?;
            let status = response.status();
            if status.is_server_error() || matches!(status.as_u16(), 408 | 429) {
                return Err(Failure::Busy(status.as_u16(), retry_after(&response)));
            }
            let next = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
            let (Some(next), true) = (next, status.is_redirection() && parts.method == Method::GET) else {
                return Ok(response);
            };
            let base = Url::parse(&parts.uri.to_string()).ok();
            let next = base.and_then(|base| base.join(next).ok()).and_then(|next| next.as_str().parse().ok());
            let next: Uri = next.ok_or_else(|| Failure::Nonsense("a redirect to nowhere".into()))?;
            if is_secure && next.scheme_str() != Some("https") {
                return Err(Failure::Status(302, "a redirect from https to http".into()));
            }
            parts.uri = next;
            if parts.uri.authority() != signed_for.as_ref() {
                parts.headers.remove(AUTHORIZATION);
            }
        }
        Err(Failure::Status(302, "more redirects than are followed".into()))
    }
}

fn builder() -> hyper_util::client::legacy::Builder {
    let mut builder = Client::builder(TokioExecutor::new());
    builder.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE).http1_read_buf_exact_size(READ_BYTES);
    builder
}

fn connector() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT));
    connector
}

/// A URI without its user, and the user as a header.
fn without_user(uri: &Uri) -> Result<(Uri, Option<HeaderValue>), Failure> {
    let authority = uri.authority().map(Authority::as_str).unwrap_or_default();
    let Some((user, host)) = authority.rsplit_once('@') else { return Ok((uri.clone(), None)) };
    let nonsense = || Failure::Nonsense("a user name that cannot be used".into());
    let mut parts = uri.clone().into_parts();
    parts.authority = Some(host.parse().map_err(|_| nonsense())?);
    let user = percent_decoded(user).ok_or_else(nonsense)?;
    let user = if user.contains(':') { user } else { format!("{user}:") };
    let mut header =
        HeaderValue::from_str(&format!("Basic {}", BASE64_STANDARD.encode(user))).map_err(|_| nonsense())?;
    header.set_sensitive(true);
    Ok((Uri::from_parts(parts).map_err(|_| nonsense())?, Some(header)))
}

/// A part of a URL without its `%41`.
pub(super) fn percent_decoded(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend_from_slice(part.get(2..)?.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

fn retry_after<B>(response: &Response<B>) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// The URL in `<URL>; rel="next"`.
fn next_page(link: &str) -> Option<String> {
    let next = link.split(',').find(|part| part.contains("rel=\"next\""))?;
    Some(next.split_once('<')?.1.split_once('>')?.0.to_string())
}

#[async_trait]
impl HttpService for Http {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let failed = |failure| HttpError::new(HttpErrorKind::Unknown, failure);
        let response = self.send(Request::from_parts(parts, body)).await.map_err(failed)?;
        let (parts, body) = response.into_parts();
        let body = body.map_err(move |error: hyper::Error| failed(Failure::Broken(innermost(&error))));
        Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(body)))
    }
}

impl Connect for Http {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}
