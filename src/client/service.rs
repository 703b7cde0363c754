//! The service as the verbs see it: a request, and its answer or why there is none.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, AUTHORIZATION, HeaderValue, USER_AGENT};
use hyper::http::request::Builder;
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader, Lines};
use tokio::time::timeout;
use tokio_util::io::StreamReader;

use super::Failure;
use super::answer::{Answer, Problem};
use super::args::ServiceArgs;
use crate::exit::Exit;

const TOKEN_VARIABLE: &str = "TASK_RECORDER_TOKEN";
const OUR_USER_AGENT: &str = concat!("task-recorder/", env!("CARGO_PKG_VERSION"));
/// How much of an answer that is no stream is read, in bytes: 1,000 tasks with long errors.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// How much of an answer that is not the service's own is shown.
const SHOWN_CHARS_MAX: usize = 200;

/// The body of a request.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A service that can be asked.
#[derive(Debug)]
pub(super) struct Service {
    /// Without a slash at its end.
    base: String,
    token: Option<HeaderValue>,
    answer_within: Duration,
    pool: Client<HttpsConnector<HttpConnector>, Body>,
}

/// An answer that comes line by line.
pub(super) struct AnswerLines {
    lines: Lines<BufReader<Box<dyn AsyncRead + Send + Unpin>>>,
    base: String,
}

impl Service {
    pub(super) fn new(options: &ServiceArgs) -> Result<Self, Failure> {
        let base = base(&options.url)?;
        let token = token(options.token_file.as_deref())?;
        let pool = Client::builder(TokioExecutor::new()).build(connector(options)?);
        Ok(Self { base, token, answer_within: options.answer_within, pool })
    }

    /// The beginning of a request; `path` is with its query.
    pub(super) fn request(&self, method: Method, path: &str) -> Builder {
        let mut request =
            Request::builder().method(method).uri(self.place(path)).header(USER_AGENT, OUR_USER_AGENT);
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token);
        }
        request
    }

    /// The answer to a request, once its head is there, if it is a success. `longer` is what is waited for on purpose.
    pub(super) async fn send(
        &self,
        request: Builder,
        body: Body,
        longer: Duration,
    ) -> Result<Response<Incoming>, Failure> {
        let request = request.body(body).map_err(|error| usage(format!("no request: {error}")))?;
        let limit = self.answer_within.saturating_add(longer);
        let response = match timeout(limit, self.pool.request(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) if error.is_connect() => {
                return Err(Failure::new(Exit::Unavailable, self.unreachable(&innermost(&error))));
            }
            Ok(Err(error)) => return Err(Failure::unanswered(self.unreachable(&innermost(&error)))),
            Err(_elapsed) => return Err(self.too_slow(limit)),
        };
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        Err(self.refusal(status, &self.whole(response).await.unwrap_or_default()))
    }

    /// The whole answer, as JSON of this shape.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        request: Builder,
        body: Body,
        longer: Duration,
    ) -> Result<Answer<T>, Failure> {
        let response = self.send(request.header(ACCEPT, "application/json"), body, longer).await?;
        let text = self.whole(response).await?;
        let value = serde_json::from_slice(&text).map_err(|error| self.foreign(&error))?;
        Ok(Answer { text, value })
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Answer<T>, Failure> {
        self.ask(self.request(Method::GET, path), no_body(), Duration::ZERO).await
    }

    /// The answer, line by line.
    pub(super) fn lines(&self, response: Response<Incoming>) -> AnswerLines {
        let pieces = response.into_body().into_data_stream().map_err(io::Error::other);
        let reader: Box<dyn AsyncRead + Send + Unpin> = Box::new(StreamReader::new(pieces));
        AnswerLines { lines: BufReader::new(reader).lines(), base: self.base.clone() }
    }

    async fn whole(&self, response: Response<Incoming>) -> Result<Bytes, Failure> {
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect();
        match timeout(self.answer_within, body).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) => Err(broken_off(&self.base, &*error)),
            Err(_elapsed) => Err(self.too_slow(self.answer_within)),
        }
    }

    /// What the service says, or how somebody else in its place answers.
    fn refusal(&self, status: StatusCode, body: &[u8]) -> Failure {
        if let Ok(problem) = serde_json::from_slice::<Problem>(body) {
            return Failure::new(problem.exit(status), problem.detail);
        }
        let shown: String = String::from_utf8_lossy(body).chars().take(SHOWN_CHARS_MAX).collect();
        let shown = super::output::plain(&shown);
        let message = format!("{} answers {status}, not as a task-recorder does: {shown}", self.base);
        match status.as_u16() {
            401 | 403 => Failure::new(Exit::NotAllowed, message),
            408 | 429 => Failure::new(Exit::Unavailable, message),
            // A proxy may have passed the request on.
            500.. => Failure::unanswered(message),
            _ => usage(message),
        }
    }

    /// An answer that is not of this shape.
    pub(super) fn foreign(&self, error: &serde_json::Error) -> Failure {
        Failure::new(
            Exit::Unhealthy,
            format!("{} does not answer as a task-recorder does: {error}", self.base),
        )
    }

    /// Where a path is, for people.
    pub(super) fn place(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn unreachable(&self, why: &str) -> String {
        format!("cannot reach {}: {why}", self.base)
    }

    fn too_slow(&self, limit: Duration) -> Failure {
        Failure::unanswered(self.unreachable(&format!("no answer within {limit:?} (--answer-within)")))
    }
}

impl AnswerLines {
    /// The next line; none at the end of the answer. Nothing for longer than `silence_max` is an error.
    pub(super) async fn next(&mut self, silence_max: Duration) -> Result<Option<String>, Failure> {
        match timeout(silence_max, self.lines.next_line()).await {
            Ok(Ok(line)) => Ok(line),
            Ok(Err(error)) => Err(broken_off(&self.base, &error)),
            Err(_elapsed) => Err(broken_off(&self.base, &io::Error::from(io::ErrorKind::TimedOut))),
        }
    }
}

fn broken_off(base: &str, error: &(dyn std::error::Error + 'static)) -> Failure {
    let why = innermost(error);
    Failure::unanswered(format!("the answer of {base} broke off: {why}"))
}

/// The cause of all causes, which is the one that people know.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

pub(super) fn usage(message: impl Into<String>) -> Failure {
    Failure::new(Exit::Usage, message)
}

pub(super) fn no_body() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

pub(super) fn body(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// `?name=value&…`; nothing where there are no pairs.
pub(super) fn query(pairs: &[(&str, String)]) -> String {
    if pairs.is_empty() {
        return String::new();
    }
    form_urlencoded::Serializer::for_suffix(String::from("?"), 1).extend_pairs(pairs).finish()
}

fn base(url: &str) -> Result<String, Failure> {
    let wrong = |why: &str| usage(format!("{url:?} is no URL of a service: {why}"));
    let uri: Uri = url.parse().map_err(|error: hyper::http::uri::InvalidUri| wrong(&error.to_string()))?;
    let authority = uri.authority().ok_or_else(|| wrong("it lacks http:// or https:// and a host"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(wrong("it begins neither with http:// nor with https://"));
    }
    if authority.as_str().contains('@') {
        return Err(wrong("a secret does not belong into it; the token is in TASK_RECORDER_TOKEN or a file"));
    }
    if uri.query().is_some() {
        return Err(wrong("it has a query"));
    }
    Ok(url.trim_end_matches('/').to_owned())
}

/// From the file, or from the environment.
fn token(file: Option<&Path>) -> Result<Option<HeaderValue>, Failure> {
    let (token, place) = match file {
        Some(path) => {
            let place = path.display().to_string();
            let text = std::fs::read_to_string(path)
                .map_err(|error| usage(format!("the token cannot be read from {place}: {error}")))?;
            (text, place)
        }
        None => match std::env::var(TOKEN_VARIABLE) {
            Ok(text) => (text, TOKEN_VARIABLE.to_owned()),
            Err(std::env::VarError::NotPresent) => return Ok(None),
            Err(error) => return Err(usage(format!("{TOKEN_VARIABLE}: {error}"))),
        },
    };
    let token = token.trim();
    if token.is_empty() {
        return Err(usage(format!("{place} holds no token")));
    }
    let mut value = HeaderValue::try_from(format!("Bearer {token}"))
        .map_err(|_foreign| usage(format!("the token in {place} holds characters that no header takes")))?;
    value.set_sensitive(true);
    Ok(Some(value))
}

fn connector(options: &ServiceArgs) -> Result<HttpsConnector<HttpConnector>, Failure> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(options.answer_within));
    let provider = Arc::new(ring::default_provider());
    let wrong = |error: &dyn std::fmt::Display| Failure::new(Exit::Unhealthy, format!("no TLS: {error}"));
    let builder = HttpsConnectorBuilder::new();
    let builder = match &options.ca_file {
        None => builder.with_provider_and_webpki_roots(provider).map_err(|error| wrong(&error))?,
        Some(path) => {
            let unusable = |why: &dyn std::fmt::Display| {
                usage(format!("no certificates can be read from {}: {why}", path.display()))
            };
            let mut roots = rustls::RootCertStore::empty();
            for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unusable(&error))? {
                let certificate = certificate.map_err(|error| unusable(&error))?;
                roots.add(certificate).map_err(|error| unusable(&error))?;
            }
            if roots.is_empty() {
                return Err(unusable(&"it holds none"));
            }
            let config = rustls::ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .map_err(|error| wrong(&error))?;
            builder.with_tls_config(config.with_root_certificates(roots).with_no_client_auth())
        }
    };
    Ok(builder.https_or_http().enable_http1().wrap_connector(tcp))
}
