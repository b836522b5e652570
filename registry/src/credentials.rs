//! Who a registry is told we are: what `docker login` has written (docker's config.json: auths, credHelpers, credsStore).
//!
//! The file is read when a registry asks, and no sooner. A credential helper is a program of the user's own
//! (`docker-credential-NAME`), named by that file and run as docker runs it.

use crate::error::{Context, Error, Result, quoted};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::env;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

/// No honest configuration is larger.
const FILE_MAX: u64 = 1 << 20;
/// Nor is what a helper says.
const ANSWER_MAX: u64 = 64 << 10;
/// A helper may ask its user for a key.
const PATIENCE: Duration = Duration::from_secs(120);
/// What helpers say when they know nothing (docker-credential-helpers, credentials/error.go).
const NOT_FOUND: &str = "credentials not found";

/// Where logins come from.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    file: Option<PathBuf>,
}

/// A name and its password.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    pub user: String,
    pub password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Login({:?})", self.user)
    }
}

/// The registry that a login is for.
#[derive(Clone, Copy, Debug)]
pub struct Server<'a> {
    /// As the user knows it.
    pub host: &'a str,
    /// As it is reached.
    pub address: &'a str,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Config {
    auths: Option<BTreeMap<String, Auth>>,
    cred_helpers: Option<BTreeMap<String, String>>,
    creds_store: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

impl Credentials {
    /// docker's own: `$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`.
    pub fn of_docker() -> Credentials {
        let named = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        let directory = named("DOCKER_CONFIG").map(PathBuf::from);
        let directory =
            directory.or_else(|| named("HOME").map(|home| PathBuf::from(home).join(".docker")));
        Credentials { file: directory.map(|directory| directory.join("config.json")) }
    }

    pub fn in_file(file: PathBuf) -> Credentials {
        Credentials { file: Some(file) }
    }

    /// Where one would look for a login, for a message.
    pub(crate) fn place(&self) -> String {
        match &self.file {
            Some(file) => format!("{file:?}"),
            None => "docker's configuration (there is no home directory)".into(),
        }
    }

    /// The login for a registry, if there is one.
    pub(crate) async fn find(&self, server: Server<'_>) -> Result<Option<Login>> {
        let Some(file) = &self.file else { return Ok(None) };
        let operation = || format!("read {file:?}");
        let config: Config = match read(file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|err| Error::new(err.to_string())),
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(err) => Err(err.into()),
        }
        .context(operation)?;
        let own = config.cred_helpers.iter().flatten().find(|(key, _)| server.is(key));
        if let Some(helper) = own.map(|(_, helper)| helper).or(config.creds_store.as_ref())
            && let Some(login) = ask(helper, &server.key()).await.context(operation)?
        {
            return Ok(Some(login));
        }
        match config.auths.iter().flatten().find(|(key, _)| server.is(key)) {
            Some((key, auth)) => auth.login().context(|| format!("read {file:?}: auths {key:?}")),
            None => Ok(None),
        }
    }
}

impl Server<'_> {
    /// Whether a key of the file means it: keys are hosts, or addresses as docker's first version wrote them.
    fn is(&self, key: &str) -> bool {
        let key = key.split_once("://").map_or(key, |(_scheme, rest)| rest);
        let host = key.split('/').next().unwrap_or(key);
        host == self.host || host == self.address
    }

    /// What a helper knows it by.
    fn key(&self) -> String {
        match self.host == self.address {
            true => self.host.to_owned(),
            false => format!("https://{}/v1/", self.address),
        }
    }
}

impl Auth {
    /// An entry without anything says that a helper has it.
    fn login(&self) -> Result<Option<Login>> {
        let is_set = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        for (token, name) in
            [(&self.identitytoken, "identitytoken"), (&self.registrytoken, "registrytoken")]
        {
            if is_set(token) {
                let cause = format!("{name}: only names with passwords are supported");
                return Err(Error::new(cause).hint("log in with a name and an access token"));
            }
        }
        if let Some(auth) = self.auth.as_ref().filter(|auth| !auth.is_empty()) {
            let text = STANDARD.decode(auth).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let text = text.ok_or_else(|| Error::new("auth: not base64"))?;
            let (user, password) =
                text.split_once(':').ok_or_else(|| Error::new("auth: not NAME:PASSWORD"))?;
            // docker pads what it writes
            let password = password.trim_matches('\0');
            return Ok(Some(Login { user: user.into(), password: password.into() }));
        }
        match (&self.username, &self.password) {
            (Some(user), Some(password)) => {
                Ok(Some(Login { user: user.clone(), password: password.clone() }))
            }
            (Some(_), None) | (None, Some(_)) | (None, None) => Ok(None),
        }
    }
}

fn read(path: &PathBuf) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > FILE_MAX {
        true => Err(io::Error::other(format!("more than {FILE_MAX} bytes"))),
        false => Ok(bytes),
    }
}

/// Asks a helper for the login of a server.
async fn ask(helper: &str, server: &str) -> Result<Option<Login>> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if helper.is_empty() || !helper.bytes().all(is_plain) {
        return Err(Error::new(format!("credential helper {}: not a name", quoted(helper))));
    }
    let program = format!("docker-credential-{helper}");
    let output = match tokio::time::timeout(PATIENCE, run(&program, server)).await {
        Ok(output) => output.context(|| format!("run credential helper {program:?}"))?,
        Err(_) => return Err(Error::new(format!("credential helper {program:?}: no answer"))),
    };
    let words = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return match words.contains(NOT_FOUND) {
            true => Ok(None),
            false => {
                let words = quoted(words.trim());
                Err(Error::new(format!(
                    "credential helper {program:?}: {}: {words}",
                    output.status
                )))
            }
        };
    }
    let answer: Answer = serde_json::from_str(&words)
        .map_err(|err| Error::new(format!("credential helper {program:?}: {err}")))?;
    match answer.username == "<token>" {
        true => Err(Error::new(format!(
            "credential helper {program:?}: identity token: only names with passwords are supported"
        ))),
        false => Ok(Some(Login { user: answer.username, password: answer.secret })),
    }
}

async fn run(program: &str, server: &str) -> io::Result<Output> {
    let mut child = Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(server.as_bytes()).await?;
    }
    let mut stdout = Vec::new();
    if let Some(pipe) = child.stdout.take() {
        pipe.take(ANSWER_MAX).read_to_end(&mut stdout).await?;
    }
    Ok(Output { status: child.wait().await?, stdout, stderr: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(config: &str, host: &str, address: &str) -> Result<Option<Login>> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.json");
        std::fs::write(&file, config).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(Credentials::in_file(file).find(Server { host, address }))
    }

    fn login(user: &str, password: &str) -> Option<Login> {
        Some(Login { user: user.into(), password: password.into() })
    }

    #[test]
    fn a_login_is_found_by_its_host_alone() {
        let config = r#"{"auths": {"h:1": {"auth": "bWU6cGE6c3M="}, "x": {"username": "a", "password": "b"},
            "https://hub.example/v1/": {"auth": "bWU6aHVi"}, "empty": {}}, "credHelpers": null}"#;
        let found = |host, address| find(config, host, address).unwrap();
        assert_eq!(found("h:1", "h:1"), login("me", "pa:ss"));
        assert_eq!(found("x", "x"), login("a", "b"));
        assert_eq!(found("short.example", "hub.example"), login("me", "hub"));
        for other in ["h", "h:12", "empty", "hub.example.evil"] {
            assert_eq!(found(other, other), None, "{other}");
        }
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        for (config, cause) in [
            (r#"{"auths": {"h": {"identitytoken": "x"}}}"#, "identitytoken"),
            (r#"{"auths": {"h": {"registrytoken": "x"}}}"#, "registrytoken"),
            (r#"{"auths": {"h": {"auth": "???"}}}"#, "base64"),
            (r#"{"auths": {"h": {"auth": "bm9jb2xvbg=="}}}"#, "NAME:PASSWORD"),
            (r#"{"credHelpers": {"h": "../../bin/sh"}}"#, "not a name"),
            (r#"{"credsStore": "is-not-installed"}"#, "docker-credential-is-not-installed"),
            ("{", "config.json"),
        ] {
            let err = find(config, "h", "h").unwrap_err().to_string();
            assert!(err.contains(cause), "{config}: {err}");
            assert!(err.contains("config.json"), "{err}");
        }
    }

    #[test]
    fn a_missing_file_is_no_failure_and_a_password_is_never_shown() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let none = Credentials::in_file("/nonexistent/config.json".into());
        let server = Server { host: "h", address: "h" };
        assert_eq!(runtime.block_on(none.find(server)).unwrap(), None);
        assert_eq!(format!("{:?}", login("me", "secret")), "Some(Login(\"me\"))");
    }
}
