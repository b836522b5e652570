//! `hyperctl pull` as its users run it, against registries on this machine: no VM, and nothing that is not in the store.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails says where"
)]

#[path = "../../../registry/tests/pull/support/mod.rs"]
#[allow(
    dead_code,
    reason = "shared with the tests of the crate registry, which use other parts of it"
)]
mod support;

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use hyperstart_registry::Digest;
use image_builder::store::Store;
use tempfile::TempDir;

use support::hostile::{Answer, Server};
use support::image::{INDEX, Parts, index, noise};
use support::real::{DockerRegistry, LOGIN};

const PATIENCE: Duration = Duration::from_secs(600);

/// A user with a store and a docker configuration of their own.
struct User {
    directory: TempDir,
}

impl User {
    fn new() -> User {
        let user = User { directory: tempfile::tempdir().unwrap() };
        fs::create_dir(user.path("docker")).unwrap();
        user
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn store(&self) -> Store {
        Store::open(&self.path("store")).unwrap()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hyperctl"));
        command.args(words);
        self.furnish(&mut command);
        command
    }

    fn furnish(&self, command: &mut Command) {
        command
            .env("HYPERSTART_STORE_DIR", self.path("store"))
            .env("DOCKER_CONFIG", self.path("docker"))
            .env_remove("SSL_CERT_FILE")
            .stdin(Stdio::null());
    }

    /// What a pull prints: the image's digest.
    fn pull(&self, words: &[&str]) -> (String, String) {
        let output = self.command(&[&["pull"], words].concat()).output().unwrap();
        let (stdout, stderr) = texts(&output);
        assert!(output.status.success(), "{words:?}: {stderr}");
        (stdout.trim().to_owned(), stderr)
    }

    /// Why a pull fails, as its user reads it. The store has nothing of it.
    fn refusal(&self, words: &[&str]) -> String {
        refusal(&mut self.command(&[&["pull"], words].concat()))
    }
}

fn refusal(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let (stdout, stderr) = texts(&output);
    assert_eq!(output.status.code(), Some(125), "{command:?}: {stdout}{stderr}");
    assert_eq!(stdout, "");
    stderr
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr))
}

/// An archive with one file in it.
fn layer(name: &str, bytes: &[u8]) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(name), bytes).unwrap();
    let output =
        Command::new("tar").arg("-C").arg(directory.path()).args(["-cf", "-", name]).output();
    output.unwrap().stdout
}

/// How often a registry was asked for a blob.
fn fetches(registry: &DockerRegistry, blob: &[u8]) -> usize {
    let digest = Digest::of(blob).to_string();
    registry.log(&["response completed", "http.request.method=GET", &digest]).len()
}

/// An image of our architecture out of an index is in the store after a pull; one that shares a layer with it brings the
/// rest alone; one that is there costs no blob at all; and nothing stays in downloads/.
#[tokio::test]
async fn an_image_is_in_the_store_after_a_pull() {
    let registry = DockerRegistry::start().await;
    let (base, upper) = (layer("base", &noise(1, 100_000)), layer("upper", b"one"));
    let one = Parts::new("amd64", &[&base, &upper]);
    let arm = Parts::new("arm64", &[&base]);
    for image in [&one, &arm] {
        registry.push("app", &image.digest().to_string(), image).await;
    }
    registry.put_manifest("app", "1", INDEX, &index(&[("arm64", &arm), ("amd64", &one)])).await;
    let two = Parts::new("amd64", &[&base, &layer("upper", b"two")]);
    registry.push("app", "2", &two).await;

    let user = User::new();
    let name = format!("{}/app:1", registry.address);
    let (digest, said) = user.pull(&[&name]);
    assert_eq!(digest, one.digest().to_string(), "{said}");
    let stored = user.store().find(&name).unwrap().unwrap();
    assert_eq!((stored.names, stored.layers.len()), (vec![name.clone()], 2));
    assert_eq!(fetches(&registry, &base), 1);

    let (digest, said) = user.pull(&[&format!("{}/app:2", registry.address)]);
    assert_eq!(digest, two.digest().to_string());
    assert!(said.contains("already there"), "{said}");
    let pinned = format!("{}/app@{}", registry.address, one.digest());
    let output = user.command(&["image", "pull", "-q", &pinned]).output().unwrap();
    assert_eq!(texts(&output), (format!("{}\n", one.digest()), String::new()));
    assert_eq!((fetches(&registry, &base), fetches(&registry, &upper)), (1, 1));
    assert_eq!(user.store().list().unwrap().len(), 2);
    assert_eq!(fs::read_dir(user.path("store/downloads")).unwrap().count(), 0);
}

/// A pull that is killed in the middle of a blob goes on from there when it is run again.
#[tokio::test]
async fn a_killed_pull_goes_on_where_it_was() {
    let archive = layer("large", &noise(1, 300_000));
    let image = Parts::new("amd64", &[&archive]);
    let digest = Digest::of(&archive).to_string();
    let path = digest.clone();
    // The first answer about the layer stops after a half of it, and the connection stays.
    let server = Server::with_image(&image, move |request, answer| {
        let is_first = request.path.ends_with(&path) && request.from().is_none();
        if is_first { answer.stalled(150_000) } else { answer }
    });
    let user = User::new();
    let mut pull = user.command(&["pull", &server.image()]);
    let mut child = pull.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let part = || find(&user.path("store"), "part");
    let begun = Instant::now();
    while part().is_none_or(|path| fs::metadata(path).unwrap().len() < 150_000) {
        assert!(begun.elapsed() < PATIENCE && child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(user.store().list().unwrap(), []);

    let (pulled, said) = user.pull(&[&server.image()]);
    assert_eq!(pulled, image.digest().to_string());
    assert!(said.contains("going on"), "{said}");
    let offsets: Vec<_> = server.requests(&digest).iter().map(|request| request.from()).collect();
    assert_eq!(offsets, [None, Some(150_000)]);
}

fn find(directory: &Path, extension: &str) -> Option<PathBuf> {
    for entry in fs::read_dir(directory).ok()?.flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|own| own == extension) {
            return Some(path);
        }
        if let Some(found) = path.is_dir().then(|| find(&path, extension)).flatten() {
            return Some(found);
        }
    }
    None
}

/// A layer that is not what its digest says, or not an archive, changes nothing in the store.
#[tokio::test]
async fn a_bad_layer_leaves_the_store_as_it_was() {
    let archive = layer("x", &noise(1, 1000));
    let digest = Digest::of(&archive).to_string();
    let honest = Parts::new("amd64", &[&archive]);
    let bad = Server::with_image(&honest, move |request, mut answer| {
        if request.path.ends_with(&digest) {
            answer.body[600] ^= 1;
        }
        answer
    });
    let garbage = Server::with_image(&Parts::new("amd64", &[&noise(2, 1000)]), |_, answer| answer);
    let page = Server::start(|_| Answer::new(200, "<html>").with("Content-Type", "text/html"));
    for (server, named) in
        [(&bad, "its bytes have the digest"), (&garbage, "layer sha256:"), (&page, "\"text/html\"")]
    {
        let user = User::new();
        let why = user.refusal(&[&server.image()]);
        assert!(why.contains(named) && why.contains("hyperctl: pull"), "{named}: {why}");
        assert_eq!(user.store().list().unwrap(), []);
        assert_eq!(find(&user.path("store"), "erofs"), None);
    }
}

/// A login comes from docker's configuration, from a file that is named, or from the helper that it names.
#[tokio::test]
async fn a_login_is_docker_s() {
    let registry = DockerRegistry::protected().await;
    registry.push("app", "1", &Parts::new("amd64", &[&layer("x", b"x")])).await;
    let name = format!("{}/app:1", registry.address);
    let user = User::new();
    let why = user.refusal(&[&name]);
    assert!(
        why.contains("wants a name and a password") && why.contains("hint: `docker login"),
        "{why}"
    );

    let login = |password: &str| {
        let (name, host) = (LOGIN.0, &registry.address);
        format!(r#"{{"auths": {{"{host}": {{"username": "{name}", "password": "{password}"}}}}}}"#)
    };
    fs::write(user.path("docker/config.json"), login("wrong")).unwrap();
    assert!(user.refusal(&[&name]).contains("is refused"));
    fs::write(user.path("other.json"), login(LOGIN.1)).unwrap();
    user.pull(&["--authfile", user.path("other.json").to_str().unwrap(), &name]);

    let helper = user.path("docker-credential-test");
    let answer = format!(r#"{{"Username": "{}", "Secret": "{}"}}"#, LOGIN.0, LOGIN.1);
    let script = format!(
        "#!/bin/sh\n[ $1 = get ] && [ \"$(cat)\" = {} ] && echo '{answer}'\n",
        registry.address
    );
    fs::write(&helper, script).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(user.path("docker/config.json"), r#"{"credsStore": "test"}"#).unwrap();
    let path = format!("{}:{}", user.directory.path().display(), std::env::var("PATH").unwrap());
    let output = user.command(&["pull", &name]).env("PATH", path).output().unwrap();
    assert!(output.status.success(), "{:?}", texts(&output));
}

/// A registry that speaks TLS is believed when its certificate is one that SSL_CERT_FILE names, and only then.
#[tokio::test]
async fn a_certificate_must_be_trusted() {
    let image = Parts::new("amd64", &[&layer("x", b"x")]);
    let key = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let registry =
        DockerRegistry::with_tls(&key.cert.pem(), &key.signing_key.serialize_pem()).await;
    registry.push("app", "1", &image).await;
    let name = format!("{}/app:1", registry.address);
    let user = User::new();
    let why = user.refusal(&[&name]);
    assert!(why.contains("certificate") && why.contains("hint: SSL_CERT_FILE"), "{why}");
    let certificate = registry.path("cert.pem");
    let output = user.command(&["pull", &name]).env("SSL_CERT_FILE", certificate).output().unwrap();
    let (stdout, stderr) = texts(&output);
    assert_eq!(stdout.trim(), image.digest().to_string(), "{stderr}");
}

/// A short name is docker.io's: where there is no network, the host is named, and what to do.
#[test]
fn a_registry_out_of_reach_is_named() {
    let user = User::new();
    let mut command = Command::new("unshare"); // a network namespace of its own, where nothing is reached
    command.args(["--map-root-user", "--net", env!("CARGO_BIN_EXE_hyperctl"), "pull", "alpine"]);
    user.furnish(&mut command);
    let why = refusal(&mut command);
    assert!(
        why.contains("pull \"alpine\": ") && why.contains("reach registry \"docker.io\""),
        "{why}"
    );
    assert!(why.contains("hint: "), "{why}");
    let why = user.refusal(&["NOT/a-name"]);
    assert!(why.contains("HOST[:PORT]/NAME"), "{why}");
}

/// What is drawn on a terminal is a bar, and what is left there are lines.
#[tokio::test]
async fn a_terminal_sees_bars() {
    let archive = layer("x", &noise(1, 200_000));
    let digest = Digest::of(&archive).to_string();
    let image = Parts::new("amd64", &[&archive]);
    let server = Server::with_image(&image, move |request, answer| {
        let is_first = request.path.ends_with(&digest) && request.from().is_none();
        if is_first { answer.stalled(100_000) } else { answer }
    });
    let user = User::new();
    // script(1) gives it a terminal.
    let line = format!("stty cols 100; {} pull {}", env!("CARGO_BIN_EXE_hyperctl"), server.image());
    let mut command = Command::new("script");
    command.args(["-qefc", &line, "/dev/null"]).stdout(Stdio::piped());
    user.furnish(&mut command);
    let mut child = command.spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut seen = String::new();
    let mut piece = [0; 4096];
    while !(seen.contains("=>") && seen.contains(" of 2")) {
        let length = stdout.read(&mut piece).unwrap();
        assert!(length > 0, "{seen}");
        seen.push_str(&String::from_utf8_lossy(&piece[..length]));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}
