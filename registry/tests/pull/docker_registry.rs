//! Pulls from Debian's docker-registry on this machine.

use std::fs;

use hyperstart_registry::Digest;
use serde_json::Value;

use crate::support::image::{INDEX, MANIFEST, Parts, index, noise};
use crate::support::real::{DockerRegistry, LOGIN};
use crate::support::{options, options_with_login, pull, refusal};

fn config_with(host: &str, login: (&str, &str)) -> String {
    use base64::Engine as _;
    let auth = format!("{}:{}", login.0, login.1);
    let auth = base64::engine::general_purpose::STANDARD.encode(auth);
    format!(r#"{{"auths": {{"{host}": {{"auth": "{auth}"}}}}}}"#)
}

/// A name, a digest and an index of several architectures lead to the image of ours, byte for byte.
#[tokio::test]
async fn an_image_arrives_as_it_was_pushed() {
    let registry = DockerRegistry::start().await;
    let ours = Parts::new("amd64", &[&noise(1, 300_000), &noise(2, 10), &noise(1, 300_000)]);
    let other = Parts::new("arm64", &[&noise(3, 10)]);
    registry.push("team/app", &other.digest().to_string(), &other).await;
    registry.push("team/app", "1.0", &ours).await;
    let both = index(&[("arm64", &other), ("amd64", &ours)]);
    registry.put_manifest("team/app", "multi", INDEX, &both).await;
    let prefix = format!("{}/team/app", registry.address);
    for reference in [
        format!("{prefix}:1.0"),
        format!("{prefix}:multi"),
        format!("{prefix}@{}", ours.digest()),
        format!("{prefix}@{}", Digest::of(&both)),
    ] {
        let downloads = tempfile::tempdir().unwrap();
        let (image, layout) = pull(&reference, options(), downloads.path()).await.unwrap();
        assert_eq!(image.digest, ours.digest(), "{reference}");
        for blob in ours.blobs().chain([&ours.manifest]) {
            let path = layout.path().join("blobs/sha256").join(Digest::of(blob).as_hex());
            assert!(fs::read(path).unwrap() == *blob, "{reference}");
        }
        let index = fs::read(layout.path().join("index.json")).unwrap();
        let index: Value = serde_json::from_slice(&index).unwrap();
        let named = &index["manifests"][0]["annotations"]["io.containerd.image.name"];
        assert_eq!(named, &Value::from(reference));
        assert_eq!(index["manifests"][0]["mediaType"], MANIFEST);
        layout.remove().unwrap();
        assert_eq!(fs::read_dir(downloads.path()).unwrap().count(), 0, "nothing is left behind");
    }
}

/// What is there from a pull that was cut off is not asked for again; what is wrong with it is found.
#[tokio::test]
async fn a_pull_goes_on_where_it_stopped() {
    let registry = DockerRegistry::start().await;
    let (large, small) = (noise(1, 2_000_000), noise(2, 1000));
    let image = Parts::new("amd64", &[&large, &small]);
    registry.push("app", "1", &image).await;
    let name = format!("{}/app:1", registry.address);
    let downloads = tempfile::tempdir().unwrap();
    let blobs = downloads.path().join(format!("sha256-{}/blobs/sha256", image.digest().as_hex()));
    fs::create_dir_all(&blobs).unwrap();
    let part = blobs.join(Digest::of(&large).as_hex()).with_extension("part");
    fs::write(&part, &large[..1_500_000]).unwrap();
    let (_, layout) = pull(&name, options(), downloads.path()).await.unwrap();
    drop(layout);
    let ranges = registry.log(&["http.response.status=206", "http.response.written=500000"]);
    assert_eq!(ranges.len(), 1, "{:#?}", registry.log(&["blobs"]));
    let gets = registry.log(&["response completed", "http.request.method=GET", "/blobs/"]).len();

    let (_, layout) = pull(&name, options(), downloads.path()).await.unwrap();
    drop(layout);
    let again = registry.log(&["response completed", "http.request.method=GET", "/blobs/"]).len();
    assert_eq!(gets, again, "all of it is there");

    let whole = blobs.join(Digest::of(&large).as_hex());
    fs::write(&whole, noise(3, large.len())).unwrap();
    fs::write(&part, noise(4, 1000)).unwrap();
    let (_, layout) = pull(&name, options(), downloads.path()).await.unwrap();
    assert!(fs::read(&whole).unwrap() == large, "what was wrong was fetched again");
    layout.remove().unwrap();
}

/// An unknown tag, name, digest and architecture are each named.
#[tokio::test]
async fn what_is_not_there_is_named() {
    let registry = DockerRegistry::start().await;
    let arm = Parts::new("arm64", &[&noise(1, 10)]);
    registry.push("app", &arm.digest().to_string(), &arm).await;
    registry.push("app", "arm", &arm).await;
    registry.put_manifest("app", "index", INDEX, &index(&[("arm64", &arm)])).await;
    let missing = Digest::of(b"missing").to_string();
    for (rest, named) in [
        ("app:nope", "MANIFEST_UNKNOWN"),
        ("other:1", "no such name, tag or digest"),
        (&format!("app@{missing}"), &missing),
        ("app:arm", "no image for \"linux/amd64\": there is \"linux/arm64\""),
        ("app:index", "no image for \"linux/amd64\": there is \"linux/arm64\""),
    ] {
        let downloads = tempfile::tempdir().unwrap();
        let name = format!("{}/{rest}", registry.address);
        let why = refusal(&name, options(), downloads.path()).await;
        assert!(why.contains(named), "{name}: {why}");
    }
}

/// A protected registry is pulled from with the login of docker's configuration file, and with no other.
#[tokio::test]
async fn a_login_is_needed_and_must_be_right() {
    let registry = DockerRegistry::protected().await;
    let image = Parts::new("amd64", &[&noise(1, 1000)]);
    registry.push("app", "1", &image).await;
    let name = format!("{}/app:1", registry.address);
    let downloads = tempfile::tempdir().unwrap();
    let config = registry.path("config.json");
    let options = || options_with_login(&config);

    let why = refusal(&name, options(), downloads.path()).await;
    assert!(why.contains("wants a name and a password") && why.contains("docker login"), "{why}");
    fs::write(&config, config_with("other:1", LOGIN)).unwrap();
    let why = refusal(&name, options(), downloads.path()).await;
    assert!(why.contains("none for it in") && why.contains("config.json"), "{why}");
    fs::write(&config, config_with(&registry.address, ("me", "wrong"))).unwrap();
    let why = refusal(&name, options(), downloads.path()).await;
    assert!(why.contains("the name \"me\" or its password in"), "{why}");
    assert!(why.contains("is refused") && !why.contains("wrong"), "{why}");
    assert_eq!(fs::read_dir(downloads.path()).unwrap().count(), 0);

    fs::write(&config, config_with(&registry.address, LOGIN)).unwrap();
    pull(&name, options(), downloads.path()).await.unwrap();
}
