//! How a registry is told who we are: HTTP's Basic scheme, or a token of a server that the registry names
//! (distribution-spec; docker's "Token Authentication Specification").
//!
//! A password goes to the registry that it is for, or to the server of tokens that this registry names, and nowhere
//! over plain HTTP but where that was allowed for the registry itself.

use crate::credentials::{Login, Server};
use crate::error::{Context, Error, Result, quoted};
use crate::registry::{Registry, read_bounded};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_auth::ChallengeParser;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{StatusCode, Url};
use serde::Deserialize;

/// No honest token is longer.
const TOKEN_MAX: usize = 256 << 10;

#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String> },
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl Registry {
    /// What answers the challenge in these headers.
    pub(crate) async fn answer(&self, headers: &HeaderMap) -> Result<HeaderValue> {
        let host = self.reference.host();
        let operation = || format!("authenticate to {host:?}");
        let challenge = challenge(headers).context(operation)?;
        let server = Server { host, address: self.reference.address() };
        let login = self.credentials.find(server).await.context(operation)?;
        match challenge {
            Challenge::Basic => match login {
                Some(login) => basic(&login).context(operation),
                None => Err(self.unknown()).context(operation),
            },
            Challenge::Bearer { realm, service } => {
                let token = self.token(&realm, service.as_deref(), login).await;
                token.context(operation)
            }
        }
    }

    async fn token(
        &self,
        realm: &str,
        service: Option<&str>,
        login: Option<Login>,
    ) -> Result<HeaderValue> {
        let mut url = Url::parse(realm)
            .map_err(|err| Error::new(format!("server of tokens {}: {err}", quoted(realm))))?;
        if !self.allows(&url) {
            let cause = format!("server of tokens {}: not over TLS", quoted(realm));
            return Err(Error::new(cause).hint("--plain-http allows it for this registry"));
        }
        let scope = format!("repository:{}:pull", self.reference.repository());
        if let Some(service) = service {
            url.query_pairs_mut().append_pair("service", service);
        }
        url.query_pairs_mut().append_pair("scope", &scope);
        let mut headers = HeaderMap::new();
        if let Some(login) = &login {
            headers.insert(AUTHORIZATION, basic(login)?);
        }
        let response = self.send_to(&url, &headers).await?;
        let status = response.status();
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(login.map_or_else(|| self.unknown(), |login| self.refused(&login)));
        }
        if !status.is_success() {
            return Err(Error::new(format!("server of tokens {}: {status}", quoted(realm))));
        }
        let body = read_bounded(response, TOKEN_MAX).await.context(|| "read token".into())?;
        bearer(&body)
    }

    /// The login was given, and is not believed.
    pub(crate) fn refused(&self, login: &Login) -> Error {
        let (place, user) = (self.credentials.place(), &login.user);
        Error::new(format!("the name {user:?} or its password in {place} is refused"))
            .hint(format!("`docker login {}` writes another", self.reference.host()))
    }

    /// There is no login, and one is needed.
    pub(crate) fn unknown(&self) -> Error {
        let (place, host) = (self.credentials.place(), self.reference.host());
        Error::new(format!("it wants a name and a password, and there are none for it in {place}"))
            .hint(format!(
                "`docker login {host}` writes them; or the image's name is wrong: some registries \
                 say this of what they do not have"
            ))
    }

    /// Why a registry refuses what was sent with an answer to its challenge.
    pub(crate) async fn denied(&self) -> Error {
        let host = self.reference.host();
        let server = Server { host, address: self.reference.address() };
        let err = match self.credentials.find(server).await {
            Ok(Some(login)) => self.refused(&login),
            Ok(None) => self.unknown(),
            Err(err) => err,
        };
        err.within(format!("authenticate to {host:?}"))
    }
}

fn challenge(headers: &HeaderMap) -> Result<Challenge> {
    let mut offered = Vec::new();
    let mut basic = None;
    for header in headers.get_all(WWW_AUTHENTICATE) {
        let text = header.to_str().map_err(|_| Error::new("its challenge is not text"))?;
        for one in ChallengeParser::new(text) {
            let one = one.map_err(|_| Error::new(format!("challenge {}", quoted(text))))?;
            let parameter = |name: &str| {
                let found = one.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                found.map(|(_, value)| value.to_unescaped())
            };
            if one.scheme.eq_ignore_ascii_case("bearer") {
                let realm = parameter("realm");
                let realm = realm.ok_or_else(|| Error::new("its challenge names no realm"))?;
                return Ok(Challenge::Bearer { realm, service: parameter("service") });
            }
            if one.scheme.eq_ignore_ascii_case("basic") {
                basic = Some(Challenge::Basic);
            }
            offered.push(quoted(one.scheme));
        }
    }
    basic.ok_or_else(|| match offered.is_empty() {
        true => Error::new("it refuses us and does not say what it wants"),
        false => Error::new(format!("scheme {}: not supported", offered.join(", "))),
    })
}

fn basic(login: &Login) -> Result<HeaderValue> {
    secret("Basic", &STANDARD.encode(format!("{}:{}", login.user, login.password)))
}

fn bearer(body: &[u8]) -> Result<HeaderValue> {
    let token: Token =
        serde_json::from_slice(body).map_err(|err| Error::new(format!("read token: {err}")))?;
    match token.token.or(token.access_token) {
        Some(token) => secret("Bearer", &token),
        None => Err(Error::new("read token: there is none in the answer")),
    }
}

fn secret(scheme: &str, text: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("{scheme} {text}"))
        .map_err(|_| Error::new("read token: it holds what no header can"))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&str]) -> Result<Challenge> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_str(value).unwrap());
        }
        challenge(&headers)
    }

    #[test]
    fn a_token_is_preferred_to_a_password() {
        let bearer = Challenge::Bearer { realm: "https://t/x".into(), service: Some("s".into()) };
        let text = r#"Bearer realm="https://t/x",service="s",scope="repository:x:pull""#;
        assert_eq!(read(&["Basic realm=\"r\"", text]).unwrap(), bearer);
        assert_eq!(read(&["Basic realm=\"r\""]).unwrap(), Challenge::Basic);
    }

    #[test]
    fn what_cannot_be_answered_is_named() {
        for (values, cause) in [
            (&[][..], "does not say"),
            (&["Negotiate abc=1"], "Negotiate"),
            (&["Bearer service=\"s\""], "no realm"),
            (&["=,=\"Basic"], "challenge"),
        ] {
            let err = read(values).unwrap_err().to_string();
            assert!(err.contains(cause), "{values:?}: {err}");
        }
    }

    #[test]
    fn a_token_has_one_of_two_names() {
        for body in [r#"{"token": "abc"}"#, r#"{"access_token": "abc", "expires_in": 60}"#] {
            assert_eq!(bearer(body.as_bytes()).unwrap().to_str().unwrap(), "Bearer abc");
        }
        for bad in ["{}", "[", r#"{"token": "a\nb"}"#] {
            assert!(bearer(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
