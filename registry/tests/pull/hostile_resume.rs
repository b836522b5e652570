//! Blobs that come in pieces: connections that break, ranges that are not what was asked for.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use hyperstart_registry::{Digest, Options, Retry};

use crate::support::hostile::{Answer, Request, Server};
use crate::support::image::{Parts, noise};
use crate::support::{options, pull, refusal};

const SIZE: usize = 100_000;

/// An image of one layer, and that layer.
fn image() -> (Parts, Vec<u8>) {
    let layer = noise(1, SIZE);
    (Parts::new("amd64", &[&layer]), layer)
}

/// The offsets from which the layer was asked for, one a request.
fn offsets(server: &Server, layer: &[u8]) -> Vec<usize> {
    let requests = server.requests(&Digest::of(layer).to_string());
    requests.iter().map(|request| request.from().unwrap_or(0)).collect()
}

/// A registry whose answers about the layer go through `twist`.
fn server(twist: impl Fn(&Request, Answer) -> Answer + Send + Sync + 'static) -> Server {
    let (image, layer) = image();
    let digest = Digest::of(&layer).to_string();
    Server::with_image(&image, move |request, answer| match request.path.ends_with(&digest) {
        true => twist(request, answer),
        false => answer,
    })
}

/// A blob that is cut off is refused, and the next pull asks for the rest alone.
#[tokio::test]
async fn a_truncated_blob_is_refused_and_continued_by_the_next_pull() {
    let (_, layer) = image();
    let broken = Arc::new(AtomicBool::new(true));
    let is_broken = Arc::clone(&broken);
    let server =
        server(move |request, answer| match (is_broken.load(Ordering::SeqCst), request.from()) {
            (true, None) => answer.cut(60_000),
            (true, Some(_)) => answer.cut(0),
            (false, _) => answer,
        });
    let downloads = tempfile::tempdir().unwrap();
    let why = refusal(&server.image(), options(), downloads.path()).await;
    assert!(why.contains("the connection broke") && why.contains("goes on from there"), "{why}");
    broken.store(false, Ordering::SeqCst);
    let before = offsets(&server, &layer).len();
    let (_, layout) = pull(&server.image(), options(), downloads.path()).await.unwrap();
    assert_eq!(offsets(&server, &layer)[before..], [60_000]);
    let path = layout.path().join("blobs/sha256").join(Digest::of(&layer).as_hex());
    assert!(fs::read(path).unwrap() == layer);
}

/// A connection that breaks again and again is no failure while each brings something.
#[tokio::test]
async fn a_pull_outlives_connections_that_break() {
    let (_, layer) = image();
    let server = server(|_, answer| answer.cut(15_000));
    let downloads = tempfile::tempdir().unwrap();
    pull(&server.image(), options(), downloads.path()).await.unwrap();
    let expected: Vec<usize> = (0..7).map(|number| number * 15_000).collect();
    assert_eq!(offsets(&server, &layer), expected);
}

/// More than was promised, and less, is refused when the registry says so and when it does not.
#[tokio::test]
async fn another_length_than_promised_is_refused() {
    for (twist, named) in [
        (
            (|answer| Answer { length: Some(SIZE - 1), ..answer }) as fn(Answer) -> Answer,
            "were promised",
        ),
        (|answer| Answer { endless: true, ..answer }, "more than the 100000 bytes promised"),
        (
            |answer| Answer { length: Some(SIZE * 2), body: answer.body.repeat(2), ..answer },
            "on offer",
        ),
    ] {
        let server = server(move |_, answer| twist(answer));
        let downloads = tempfile::tempdir().unwrap();
        let why = refusal(&server.image(), options(), downloads.path()).await;
        assert!(why.contains(named), "{named}: {why}");
    }
}

/// A registry that knows no ranges is asked for all of it; one that answers another range is not believed; and one that
/// finds the range out of the blob is asked anew.
#[tokio::test]
async fn a_range_is_what_was_asked_for() {
    let (image, layer) = image();
    for (name, status, range, works) in [
        ("no ranges", 200, None, true),
        ("not satisfiable", 416, None, true),
        ("another start", 206, Some("bytes 0-99999/100000"), false),
        ("another total", 206, Some("bytes 60000-99999/1000000"), false),
        ("none said", 206, None, false),
    ] {
        let whole = layer.clone();
        let server = server(move |request, answer| match (request.from(), range) {
            (None, _) => answer,
            (Some(_), Some(range)) => {
                Answer::new(status, &whole[60_000..]).with("Content-Range", range)
            }
            (Some(_), None) => Answer::new(status, whole.clone()),
        });
        let downloads = tempfile::tempdir().unwrap();
        let directory = format!("sha256-{}/blobs/sha256", image.digest().as_hex());
        let blobs = downloads.path().join(directory);
        fs::create_dir_all(&blobs).unwrap();
        let blob = blobs.join(Digest::of(&layer).as_hex());
        fs::write(blob.with_extension("part"), &layer[..60_000]).unwrap();
        match works {
            true => {
                pull(&server.image(), options(), downloads.path()).await.unwrap();
                assert!(fs::read(blob).unwrap() == layer, "{name}");
            }
            false => {
                let why = refusal(&server.image(), options(), downloads.path()).await;
                assert!(why.contains("bytes from 60000 of 100000 were asked for"), "{name}: {why}");
            }
        }
    }
}

/// A part that holds other bytes than the blob's is found out by the digest, and fetched from the start.
#[tokio::test]
async fn a_spoilt_part_is_fetched_again() {
    let (image, layer) = image();
    let server = server(|_, answer| answer);
    let downloads = tempfile::tempdir().unwrap();
    let directory = format!("sha256-{}/blobs/sha256", image.digest().as_hex());
    let blobs = downloads.path().join(directory);
    fs::create_dir_all(&blobs).unwrap();
    let blob = blobs.join(Digest::of(&layer).as_hex());
    for spoilt in [noise(9, 60_000), noise(9, SIZE), noise(9, SIZE * 2)] {
        fs::write(blob.with_extension("part"), &spoilt).unwrap();
        let (_, layout) = pull(&server.image(), options(), downloads.path()).await.unwrap();
        assert!(fs::read(&blob).unwrap() == layer);
        drop(layout);
        fs::remove_file(&blob).unwrap();
    }
    assert_eq!(offsets(&server, &layer), [60_000, 0, 0, 0]);
}

/// A registry that is busy is asked again, but not for ever.
#[tokio::test]
async fn a_busy_registry_is_asked_again() {
    let (image, _) = image();
    let count = AtomicUsize::new(0);
    let server = Server::with_image(&image, move |request, answer| {
        let is_busy =
            request.path != "/v2/" && count.fetch_add(1, Ordering::SeqCst).is_multiple_of(2);
        if is_busy { Answer::new(503, "") } else { answer }
    });
    let downloads = tempfile::tempdir().unwrap();
    pull(&server.image(), options(), downloads.path()).await.unwrap();

    let server = Server::with_image(&image, |request, answer| match request.path.as_str() {
        "/v2/" => answer,
        _ => Answer::new(429, ""),
    });
    let retry = Retry { attempts: 3, ..options().retry };
    let options = Options { retry, ..Options::default() };
    let why = refusal(&server.image(), options, downloads.path()).await;
    assert!(why.contains("429"), "{why}");
    assert_eq!(server.requests("/manifests/").len(), 3);
}
