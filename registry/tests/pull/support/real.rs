//! Debian's docker-registry on a free port of this machine, and a client that pushes to it.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hyperstart_registry::Digest;
use reqwest::header::{CONTENT_TYPE, LOCATION};
use reqwest::{Client, Response};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tempfile::TempDir;

use super::image::Parts;

const PATIENCE: Duration = Duration::from_secs(600);
/// "me" and "s:cret", as `htpasswd -B` writes it.
const HTPASSWD: &str = "me:$2b$05$abcdefghijklmnopqrstuu49bmewiittwnvuj/vFgzYzqzdo5wdXG\n";
pub const LOGIN: (&str, &str) = ("me", "s:cret");

pub struct DockerRegistry {
    pub address: String,
    process: Child,
    directory: TempDir,
    client: Client,
    is_protected: bool,
    scheme: &'static str,
}

impl DockerRegistry {
    pub async fn start() -> DockerRegistry {
        DockerRegistry::with("http", "", tempfile::tempdir().unwrap(), client(&[])).await
    }

    /// One that wants a name and a password.
    pub async fn protected() -> DockerRegistry {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("htpasswd"), HTPASSWD).unwrap();
        let auth = "auth: { htpasswd: { realm: test, path: htpasswd } }\n";
        DockerRegistry::with("http", auth, directory, client(&[])).await
    }

    /// One that speaks TLS with this certificate and key, which are in `cert.pem` and `key.pem` of its directory.
    pub async fn with_tls(certificate: &str, key: &str) -> DockerRegistry {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("cert.pem"), certificate).unwrap();
        fs::write(directory.path().join("key.pem"), key).unwrap();
        let trusted = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
        DockerRegistry::with("https", "", directory, client(&[trusted])).await
    }

    async fn with(
        scheme: &'static str,
        more: &str,
        directory: TempDir,
        client: Client,
    ) -> DockerRegistry {
        // The port is free now; another may take it first, so this is tried again.
        for _ in 0..10 {
            let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let address = free.to_string();
            let mut process = spawn(directory.path(), &address, scheme, more);
            if answers(&client, scheme, &address, &mut process).await {
                let is_protected = more.contains("htpasswd");
                return DockerRegistry {
                    address,
                    process,
                    directory,
                    client,
                    is_protected,
                    scheme,
                };
            }
            process.kill().and_then(|()| process.wait()).unwrap();
        }
        panic!("docker-registry: {}", log(directory.path()));
    }

    /// Puts the image's parts into the repository `name`, and its manifest under `reference`.
    pub async fn push(&self, name: &str, reference: &str, image: &Parts) {
        for blob in image.blobs() {
            let url = format!("{}://{}/v2/{name}/blobs/uploads/", self.scheme, self.address);
            let begun = self.sent(self.client.post(url)).await;
            let place = begun.headers()[LOCATION].to_str().unwrap();
            let url = format!("{place}&digest={}", Digest::of(blob));
            self.sent(self.client.put(url).body(blob.clone())).await;
        }
        let media_type = super::image::MANIFEST;
        self.put_manifest(name, reference, media_type, &image.manifest).await;
    }

    pub async fn put_manifest(&self, name: &str, reference: &str, media_type: &str, bytes: &[u8]) {
        let url = format!("{}://{}/v2/{name}/manifests/{reference}", self.scheme, self.address);
        let request = self.client.put(url).header(CONTENT_TYPE, media_type);
        self.sent(request.body(bytes.to_vec())).await;
    }

    async fn sent(&self, request: reqwest::RequestBuilder) -> Response {
        let request = match self.is_protected {
            true => request.basic_auth(LOGIN.0, Some(LOGIN.1)),
            false => request,
        };
        let response = request.send().await.unwrap();
        assert!(response.status().is_success(), "{response:?}\n{}", log(self.directory.path()));
        response
    }

    /// The lines of its log that have all these words.
    pub fn log(&self, words: &[&str]) -> Vec<String> {
        let log = log(self.directory.path());
        let has_all = |line: &&str| words.iter().all(|word| line.contains(word));
        log.lines().filter(has_all).map(str::to_owned).collect()
    }

    /// A file in the registry's own directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        self.process.kill().and_then(|()| self.process.wait()).unwrap();
    }
}

fn spawn(directory: &Path, address: &str, scheme: &str, more: &str) -> Child {
    let tls = if scheme == "https" { ", tls: { certificate: cert.pem, key: key.pem }" } else { "" };
    let config = format!(
        "version: 0.1\nlog: {{ formatter: text }}\nstorage: {{ filesystem: {{ rootdirectory: data }} }}\n\
         http: {{ addr: \"{address}\"{tls} }}\n{more}"
    );
    fs::write(directory.join("config.yml"), config).unwrap();
    let log = fs::File::create(directory.join("log")).unwrap();
    Command::new(program())
        .args(["serve", "config.yml"])
        .current_dir(directory)
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .stdin(Stdio::null())
        .spawn()
        .unwrap_or_else(|err| panic!("start docker-registry: {err}; `make setup` brings it"))
}

/// Where `make setup` has put it, or the one in PATH.
fn program() -> PathBuf {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    let cache = variable("HYPERSTART_CACHE")
        .or_else(|| Some(variable("XDG_CACHE_HOME")?.join("hyperstart")))
        .or_else(|| Some(variable("HOME")?.join(".cache/hyperstart")));
    let ours = cache.map(|cache| cache.join("tools/bin/docker-registry"));
    ours.filter(|path| path.exists()).unwrap_or_else(|| "docker-registry".into())
}

async fn answers(client: &Client, scheme: &str, address: &str, process: &mut Child) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if process.try_wait().unwrap().is_some() {
            return false;
        }
        if client.get(format!("{scheme}://{address}/v2/")).send().await.is_ok() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    false
}

fn log(directory: &Path) -> String {
    fs::read_to_string(directory.join("log")).unwrap_or_default()
}

/// HTTP that believes these certificates alone, whatever this machine has.
fn client(trusted: &[CertificateDer<'static>]) -> Client {
    let mut roots = rustls::RootCertStore::empty();
    assert_eq!(roots.add_parsable_certificates(trusted.iter().cloned()), (trusted.len(), 0));
    let provider = rustls::crypto::ring::default_provider();
    let tls = rustls::ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Client::builder().tls_backend_preconfigured(tls).no_proxy().build().unwrap()
}
