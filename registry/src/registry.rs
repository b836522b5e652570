//! A registry as a server of HTTP: which scheme it is spoken to in, its challenges, redirects, and answers that say no.
//!
//! TLS always, but for plain HTTP to this machine itself, where docker does the same, or where the user allows it. On
//! this machine plain HTTP is tried first, and TLS when the answer says that it was meant. A redirect never leads from
//! TLS to plain HTTP, and no password follows one to another host (reqwest's doing).

use crate::credentials::Credentials;
use crate::error::{Error, Result, quoted};
use crate::reference::{Reference, is_loopback};
use crate::tls;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode, Url};
use serde::Deserialize;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const CONNECT_MAX: Duration = Duration::from_secs(30);
/// How long nothing at all may come.
const SILENCE_MAX: Duration = Duration::from_secs(60);
const REDIRECTS_MAX: usize = 5;
/// What is read of the words of a registry that says no.
const WORDS_MAX: usize = 16 << 10;

/// How a registry is spoken to.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Plain HTTP to any host.
    pub plain_http: bool,
    pub credentials: Credentials,
    pub retry: Retry,
}

/// What is done about failures that may be over in a moment.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// How often something is tried without any progress.
    pub attempts: u32,
    /// The pause before the second attempt; each later one is twice as long.
    pub pause: Duration,
}

impl Default for Retry {
    fn default() -> Retry {
        Retry { attempts: 4, pause: Duration::from_millis(500) }
    }
}

impl Retry {
    /// Waits before attempt number `attempt`, counted from 1.
    pub(crate) async fn pause(&self, attempt: u32) {
        tokio::time::sleep(self.pause * 2_u32.saturating_pow(attempt.min(8) - 1)).await;
    }
}

/// One repository of a registry.
pub struct Registry {
    client: Client,
    base: Url,
    policy: Scheme,
    authorization: Mutex<Option<HeaderValue>>,
    pub(crate) reference: Reference,
    pub(crate) credentials: Credentials,
    pub(crate) retry: Retry,
}

/// Where plain HTTP may go.
#[derive(Clone, Copy, Debug)]
enum Scheme {
    Tls,
    PlainToLoopback,
    Plain,
}

impl Scheme {
    fn allows(self, url: &Url) -> bool {
        match (url.scheme(), self) {
            ("https", _) | ("http", Scheme::Plain) => true,
            ("http", Scheme::PlainToLoopback) => url.host_str().is_some_and(is_loopback),
            _ => false,
        }
    }
}

/// The distribution-spec's form of an error.
#[derive(Deserialize)]
struct Refusal {
    errors: Vec<Cause>,
}

#[derive(Deserialize)]
struct Cause {
    code: String,
    #[serde(default)]
    message: String,
}

impl Registry {
    /// The registry that has the image. Nothing is asked of a registry elsewhere yet.
    pub async fn connect(reference: Reference, options: Options) -> Result<Registry> {
        let policy = match (options.plain_http, is_loopback(reference.address())) {
            (true, _) => Scheme::Plain,
            (false, true) => Scheme::PlainToLoopback,
            (false, false) => Scheme::Tls,
        };
        let client = client(policy, is_loopback(reference.address()))?;
        let scheme = match policy {
            Scheme::Tls => "https",
            Scheme::Plain | Scheme::PlainToLoopback => "http",
        };
        let base = base_url(scheme, &reference)?;
        let mut registry = Registry {
            client,
            base,
            policy,
            authorization: Mutex::default(),
            reference,
            credentials: options.credentials,
            retry: options.retry,
        };
        if matches!(policy, Scheme::PlainToLoopback) && !registry.speaks_plain().await? {
            registry.base = base_url("https", &registry.reference)?;
        }
        Ok(registry)
    }

    /// Whether a server on this machine takes plain HTTP: one that wants TLS answers 400, or not in HTTP.
    async fn speaks_plain(&self) -> Result<bool> {
        match self.client.get(self.base.clone()).send().await {
            Ok(response) => Ok(response.status() != StatusCode::BAD_REQUEST),
            Err(err) if err.is_connect() || err.is_timeout() => Err(self.explain(&err)),
            Err(_) => Ok(false),
        }
    }

    pub(crate) fn allows(&self, url: &Url) -> bool {
        self.policy.allows(url)
    }

    /// Gets something of the repository: an answer that says yes. Failures that may pass are tried again.
    pub(crate) async fn get(&self, path: &str, headers: &HeaderMap) -> Result<Response> {
        let path = format!("{}/{path}", self.reference.repository());
        let url = self.base.join(&path).map_err(|err| Error::new(err.to_string()))?;
        let mut attempt = 1;
        loop {
            match self.get_once(&url, headers).await {
                Err(err) if err.is_passing() && attempt < self.retry.attempts => {
                    self.retry.pause(attempt).await;
                    attempt += 1;
                }
                outcome => return outcome,
            }
        }
    }

    async fn get_once(&self, url: &Url, headers: &HeaderMap) -> Result<Response> {
        let response = self.send(url, headers).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return self.accepted(response).await;
        }
        // The first request, or a token that has run out.
        let answer = self.answer(response.headers()).await?;
        *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
        let response = self.send(url, headers).await?;
        match response.status() {
            StatusCode::UNAUTHORIZED => Err(self.denied().await),
            _ => self.accepted(response).await,
        }
    }

    async fn send(&self, url: &Url, headers: &HeaderMap) -> Result<Response> {
        let mut headers = headers.clone();
        if let Some(value) = self.authorization() {
            headers.insert(AUTHORIZATION, value);
        }
        self.send_to(url, &headers).await
    }

    fn authorization(&self) -> Option<HeaderValue> {
        self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends a request as it is, to any server.
    pub(crate) async fn send_to(&self, url: &Url, headers: &HeaderMap) -> Result<Response> {
        let request = self.client.get(url.clone()).headers(headers.clone());
        request.send().await.map_err(|err| self.explain(&err))
    }

    /// The response if it says yes, else why not.
    async fn accepted(&self, response: Response) -> Result<Response> {
        let status = response.status();
        // A range that is out of a blob: who asked for it knows what to do.
        if status.is_success() || status == StatusCode::RANGE_NOT_SATISFIABLE {
            return Ok(response);
        }
        let words = read_bounded(response, WORDS_MAX).await.unwrap_or_default();
        let words = match serde_json::from_slice::<Refusal>(&words) {
            Ok(Refusal { errors }) => errors.into_iter().next(),
            Err(_) => None,
        };
        let words = words.map_or_else(String::new, |cause| {
            format!(": {} {}", quoted(&cause.code), quoted(&cause.message))
        });
        let host = self.reference.host();
        let err = Error::new(format!("registry {host:?} says {status}{words}"));
        Err(match status {
            StatusCode::TOO_MANY_REQUESTS => err.passing().hint("it lets in more with a login"),
            StatusCode::FORBIDDEN => err.hint(format!("`docker login {host}` as who may")),
            StatusCode::NOT_FOUND => err.hint("the registry has no such name, tag or digest"),
            status if status.is_server_error() => err.passing(),
            _ => err,
        })
    }

    /// Why there was no answer.
    pub(crate) fn explain(&self, err: &reqwest::Error) -> Error {
        let (host, address) = (self.reference.host(), self.reference.address());
        let mut cause: &dyn std::error::Error = err;
        let mut is_certificate = false;
        while let Some(source) = cause.source() {
            cause = source;
            is_certificate |= cause.to_string().contains("certificate");
        }
        let cause = match err.is_timeout() {
            true => "no answer in time".into(),
            false => Error::from(std::io::Error::other(cause.to_string())).message().to_owned(),
        };
        let elsewhere = if host == address { String::new() } else { format!(" ({address:?})") };
        let explained = Error::new(format!("reach registry {host:?}{elsewhere}: {cause}"));
        match (is_certificate, err.is_connect() || err.is_redirect()) {
            (true, _) => explained.hint(tls::HINT),
            (false, true) => explained.hint(
                "the image's name begins with the registry's host; --plain-http speaks HTTP \
                 without TLS",
            ),
            (false, false) => explained.passing(),
        }
    }
}

fn base_url(scheme: &str, reference: &Reference) -> Result<Url> {
    let address = reference.address();
    Url::parse(&format!("{scheme}://{address}/v2/"))
        .map_err(|err| Error::new(format!("registry {address:?}: {err}")))
}

fn client(policy: Scheme, is_loopback: bool) -> Result<Client> {
    let redirects = Policy::custom(move |attempt| {
        if attempt.previous().len() > REDIRECTS_MAX {
            return attempt.error("too many redirects");
        }
        match policy.allows(attempt.url()) {
            true => attempt.follow(),
            false => attempt.error("it redirects to an address without TLS"),
        }
    });
    let builder = Client::builder()
        .tls_backend_preconfigured(tls::config()?)
        .redirect(redirects)
        .referer(false)
        .connect_timeout(CONNECT_MAX)
        .read_timeout(SILENCE_MAX)
        .user_agent(concat!("hyperctl/", env!("CARGO_PKG_VERSION")));
    // What is on this machine is reached through no proxy.
    let builder = if is_loopback { builder.no_proxy() } else { builder };
    builder.build().map_err(|err| Error::new(format!("set up HTTP: {err}")))
}

/// The body of a response, if it is no longer than `limit`.
pub(crate) async fn read_bounded(mut response: Response, limit: usize) -> Result<Vec<u8>> {
    let too_large = || Error::new(format!("the answer has more than {limit} bytes"));
    if response.content_length().is_some_and(|length| length > limit as u64) {
        return Err(too_large());
    }
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(broken)? {
        if body.len() + piece.len() > limit {
            return Err(too_large());
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

/// A connection that broke in the middle of a body.
pub(crate) fn broken(err: reqwest::Error) -> Error {
    let mut cause: &dyn std::error::Error = &err;
    while let Some(source) = cause.source() {
        cause = source;
    }
    match err.is_timeout() {
        true => Error::new("no more bytes came in time").passing(),
        false => Error::new(format!("the connection broke: {cause}")).passing(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_goes_where_it_may() {
        let allows = |policy: Scheme, url: &str| policy.allows(&Url::parse(url).unwrap());
        for policy in [Scheme::Tls, Scheme::PlainToLoopback, Scheme::Plain] {
            assert!(allows(policy, "https://elsewhere.example/x"));
            assert!(!allows(policy, "ftp://127.0.0.1/x"));
        }
        assert!(!allows(Scheme::Tls, "http://127.0.0.1/x"), "not even from TLS to this machine");
        assert!(allows(Scheme::PlainToLoopback, "http://127.0.0.1:1/x"));
        assert!(!allows(Scheme::PlainToLoopback, "http://elsewhere.example/x"));
        assert!(allows(Scheme::Plain, "http://elsewhere.example/x"));
    }

    #[tokio::test]
    async fn a_registry_that_cannot_be_reached_is_named() {
        let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let reference = Reference::parse(&format!("{unused}/x")).unwrap();
        let err = Registry::connect(reference, Options::default()).await.err().unwrap();
        let named = format!("reach registry \"{unused}\": Connection refused");
        assert_eq!(err.message(), named);
        assert!(err.hint_text().is_some_and(|hint| hint.contains("registry's host")), "{err}");
    }
}
