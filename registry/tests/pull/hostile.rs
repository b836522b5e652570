//! What a registry says that is not so, not an image, too much, or meant for somebody else.

use std::fs;
use std::path::Path;

use hyperstart_registry::Digest;
use serde_json::{Value, json};

use crate::support::hostile::{Answer, Request, Server};
use crate::support::image::{INDEX, MANIFEST, Parts, descriptor, index, noise};
use crate::support::{options, options_with_login, pull, refusal};

/// Files below a directory that hold something.
fn files(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false if fs::metadata(&path).unwrap().len() > 0 => {
                found.push(entry.file_name().to_string_lossy().into_owned());
            }
            false => {}
        }
    }
    found
}

/// Why a pull from a registry fails that answers for manifests as said.
async fn manifest_refusal(answer: Answer) -> String {
    let server = Server::start(move |request| match request.path.contains("/manifests/") {
        true => answer.clone(),
        false => Answer::new(200, "{}"),
    });
    let downloads = tempfile::tempdir().unwrap();
    let why = refusal(&server.image(), options(), downloads.path()).await;
    assert_eq!(fs::read_dir(downloads.path()).unwrap().count(), 0, "{why}");
    assert!(server.requests("/blobs/").is_empty(), "{why}");
    why
}

fn served(bytes: &[u8], media_type: &str) -> Answer {
    Answer::new(200, bytes).with("Content-Type", media_type)
}

/// Bytes that have another digest than the manifest promised are not kept, and nothing of the image appears.
#[tokio::test]
async fn a_blob_with_another_digest_is_refused() {
    let layer = noise(1, 1000);
    let image = Parts::new("amd64", &[&layer]);
    let digest = Digest::of(&layer).to_string();
    let server = Server::with_image(&image, move |request, mut answer| {
        if request.path.ends_with(&digest) {
            answer.body[500] ^= 1;
        }
        answer
    });
    let downloads = tempfile::tempdir().unwrap();
    let why = refusal(&server.image(), options(), downloads.path()).await;
    assert!(why.contains(&Digest::of(&layer).to_string()), "{why}");
    assert!(why.contains("its bytes have the digest"), "{why}");
    let config = Digest::of(&image.config).as_hex().to_owned();
    assert_eq!(files(downloads.path()), [config], "the configuration was right");
}

/// A manifest that is not the one of its digest is refused, whoever promised that digest.
#[tokio::test]
async fn a_manifest_with_another_digest_is_refused() {
    let image = Parts::new("amd64", &[&noise(1, 10)]);
    let other = Digest::of(b"other").to_string();
    let header = served(&image.manifest, MANIFEST).with("Docker-Content-Digest", &other);
    assert!(manifest_refusal(header).await.contains(&format!("{other} was promised")));

    let server = Server::with_image(&image, |_, answer| answer);
    let downloads = tempfile::tempdir().unwrap();
    let name = format!("{}/x@{other}", server.address);
    let why = refusal(&name, options(), downloads.path()).await;
    assert!(why.contains(&format!("{other} was promised")), "{why}");

    let listed = index(&[("amd64", &Parts::new("amd64", &[&noise(2, 10)]))]);
    let server = Server::start(move |request| match request.path.ends_with("/manifests/1") {
        true => served(&listed, INDEX),
        false if request.path.contains("/manifests/") => served(&image.manifest, MANIFEST),
        false => Answer::new(200, "{}"),
    });
    let why = refusal(&server.image(), options(), downloads.path()).await;
    assert!(why.contains("was promised"), "{why}");
}

/// Nothing is held in memory that is larger than what it can honestly be, said beforehand or not.
#[tokio::test]
async fn what_is_too_large_is_refused() {
    let said = Answer { length: Some(5 << 20), ..served(b"{", MANIFEST) };
    assert!(manifest_refusal(said).await.contains("more than 4194304 bytes"));
    let endless = Answer { endless: true, ..served(&[b' '; 65536], MANIFEST) };
    assert!(manifest_refusal(endless).await.contains("more than 4194304 bytes"));

    let image = Parts::new("amd64", &[&noise(1, 10)]);
    for (pointer, value, named) in [
        ("/layers/0/size", json!(1_u64 << 50), "--max-size"),
        ("/layers/0/size", json!(-1), "size -1"),
        ("/config/size", json!(1 << 30), "too many"),
        ("/layers/0/digest", json!("sha512:00"), "only sha256"),
        ("/layers/0/digest", json!("sha256:../../../etc/passwd"), "hexadecimal"),
        ("/layers", json!(vec![descriptor(crate::support::image::LAYER, b"x"); 600]), "600 layers"),
    ] {
        let image = image.clone().with(pointer, value);
        let why = manifest_refusal(served(&image.manifest, MANIFEST)).await;
        assert!(why.contains(named), "{pointer}: {why}");
    }
    let errors = Answer { endless: true, status: 404, ..served(&[b'x'; 4096], "text/plain") };
    assert!(manifest_refusal(errors).await.contains("404"), "an endless page of error");
}

/// What is no container image is refused by the name of what it is.
#[tokio::test]
async fn what_is_no_image_is_refused_by_name() {
    let image = Parts::new("amd64", &[&noise(1, 10)]);
    let v1 = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    let schema_1 = br#"{"schemaVersion": 1, "name": "x", "fsLayers": []}"#;
    let helm =
        image.clone().with("/config/mediaType", json!("application/vnd.cncf.helm.config.v1+json"));
    let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    let foreign_layer = image.clone().with("/layers/0/mediaType", json!(foreign));
    let arm = Parts::new("arm64", &[&noise(1, 10)]);
    for (answer, named) in [
        (served(schema_1, v1), "schema 1: not supported"),
        (served(b"<html>log in</html>", "text/html; charset=utf-8"), "media type \"text/html\""),
        (served(b"\x1f\x8b", "application/octet-stream"), "application/octet-stream"),
        (served(&helm.manifest, MANIFEST), "helm.config"),
        (served(&foreign_layer.manifest, MANIFEST), foreign),
        (served(&image.manifest, INDEX), "but it was served as"),
        (
            served(&index(&[("arm64", &arm), ("s390x", &arm)]), INDEX),
            "\"linux/arm64\", \"linux/s390x\"",
        ),
        (served(b"{\"schemaVersion\": 2", MANIFEST), "EOF"),
    ] {
        let why = manifest_refusal(answer).await;
        assert!(why.contains(named), "{named}: {why}");
    }
}

/// Words of a registry's cannot reach the terminal as they are.
#[tokio::test]
async fn words_of_a_registry_are_escaped() {
    let words = json!({ "errors": [{ "code": "X\u{1b}[2J", "message": "y\n".repeat(5000) }] });
    let why = manifest_refusal(Answer::new(403, words.to_string())).await;
    assert!(why.contains("\\u{1b}[2J") && !why.contains('\u{1b}') && why.len() < 1000, "{why}");
}

/// An index that leads to itself ends.
#[tokio::test]
async fn indexes_within_indexes_end() {
    let mut documents: Vec<Vec<u8>> = vec![Parts::new("amd64", &[]).manifest];
    for _ in 0..6 {
        let inner = documents.last().unwrap();
        let media_type = if documents.len() == 1 { MANIFEST } else { INDEX };
        let entry = descriptor(media_type, inner);
        let outer = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [entry] });
        documents.push(outer.to_string().into_bytes());
    }
    let server = Server::start(move |request| {
        let named = |bytes: &&Vec<u8>| request.path.ends_with(&Digest::of(bytes).to_string());
        let document = documents.iter().find(named).unwrap_or(&documents[6]);
        let parsed: Value = serde_json::from_slice(document).unwrap();
        served(document, parsed["mediaType"].as_str().unwrap())
    });
    let downloads = tempfile::tempdir().unwrap();
    let why = refusal(&server.image(), options(), downloads.path()).await;
    assert!(why.contains("too deep"), "{why}");
}

/// A redirect is followed to this machine, and not to an address that is reached without TLS elsewhere; a password goes
/// to no other host.
#[tokio::test]
async fn redirects_lead_nowhere_without_tls() {
    let image = Parts::new("amd64", &[&noise(1, 1000)]);
    let storage = Server::with_image(&image, |_, answer| answer);
    let target = storage.address;
    let front = Server::with_image(&image, move |request, answer| {
        match (request.path.contains("/blobs/"), request.header("authorization")) {
            (true, _) => {
                let place = format!("http://{target}{}", request.path);
                Answer::new(307, "").with("Location", place)
            }
            (false, None) => Answer::new(401, "").with("WWW-Authenticate", "Basic realm=\"x\""),
            (false, Some(_)) => answer,
        }
    });
    let downloads = tempfile::tempdir().unwrap();
    let config = downloads.path().join("config.json");
    let auth =
        json!({ "auths": { front.address.to_string(): { "username": "a", "password": "b" } } });
    fs::write(&config, auth.to_string()).unwrap();
    pull(&front.image(), options_with_login(&config), downloads.path()).await.unwrap();
    assert!(!storage.requests("/blobs/").is_empty());
    for request in storage.requests("") {
        assert_eq!(request.header("authorization"), None, "{request:?}");
    }

    let server =
        Server::with_image(&image, |request, answer| match request.path.contains("/blobs/") {
            true => Answer::new(307, "").with("Location", "http://elsewhere.invalid/blob"),
            false => answer,
        });
    let downloads = tempfile::tempdir().unwrap();
    let why = refusal(&server.image(), options(), downloads.path()).await;
    assert!(why.contains("redirects to an address without TLS"), "{why}");
}

/// A registry with a server of tokens; `realm` is where it says that one is.
fn with_tokens(image: &Parts, realm: Option<&'static str>, token: Answer) -> Server {
    Server::with_image(image, move |request: &Request, answer| {
        if request.path.starts_with("/token?") {
            return token.clone();
        }
        let host = request.header("host").unwrap();
        match request.header("authorization") {
            Some("Bearer good") => answer,
            Some(_) | None => {
                let realm = realm.map_or_else(|| format!("http://{host}/token"), str::to_owned);
                let challenge = format!("Bearer realm=\"{realm}\",service=\"s\"");
                Answer::new(401, "").with("WWW-Authenticate", challenge)
            }
        }
    })
}

/// Tokens are asked for this repository alone, and come from where no password can be overheard.
#[tokio::test]
async fn tokens_are_fetched_and_bounded() {
    let image = Parts::new("amd64", &[&noise(1, 1000)]);
    let good = Answer::new(200, r#"{"token": "good"}"#);
    let server = with_tokens(&image, None, good.clone());
    let downloads = tempfile::tempdir().unwrap();
    pull(&server.image(), options(), downloads.path()).await.unwrap();
    let asked = server.requests("/token?");
    assert_eq!(asked.len(), 1, "one token serves all: {asked:?}");
    assert_eq!(asked[0].path, "/token?service=s&scope=repository%3Ax%3Apull");

    for (realm, token, named) in [
        (Some("http://elsewhere.invalid/token"), good.clone(), "not over TLS"),
        (Some("file:///etc/passwd"), good, "not over TLS"),
        (
            None,
            Answer { endless: true, ..Answer::new(200, [b'x'; 65536]) },
            "more than 262144 bytes",
        ),
        (None, Answer::new(200, "{}"), "there is none in the answer"),
        (None, Answer::new(401, ""), "wants a name and a password"),
        (None, Answer::new(200, r#"{"token": "bad"}"#), "wants a name and a password"),
    ] {
        let server = with_tokens(&image, realm, token);
        let downloads = tempfile::tempdir().unwrap();
        let why = refusal(&server.image(), options(), downloads.path()).await;
        assert!(why.contains(named), "{named}: {why}");
    }
}
