//! What the tests of images share: archives made by hand (honest or not), and a reader of EROFS that is written from
//! the format's description and not from our writer.
#![allow(dead_code, reason = "each test file uses its part")]

pub mod erofs;
pub mod layout;
pub mod tar;

use image_builder::container::{self, Built, Format, Request};
use image_builder::limits::Limits;
use image_builder::progress::Silent;
use image_builder::{Result, erofs as writer};
use std::path::Path;

/// A request with nothing special about it.
pub fn request(source: &Path) -> Request<'_> {
    Request {
        source,
        format: Format::Auto,
        reference: None,
        architecture: Some("amd64"),
        limits: Limits::default(),
        mtime: None,
        is_root_owned: false,
    }
}

/// Builds an image of a request and reads it back.
pub fn build(request: &Request<'_>) -> Result<(Built, erofs::Files)> {
    let scratch = tempfile::tempdir().unwrap();
    let built = container::build(request, scratch.path(), &Silent)?;
    let output = scratch.path().join("image.erofs");
    writer::write(&built.tree, &writer::Options::default(), &output, &Silent)?;
    let files = erofs::read(&std::fs::read(&output).unwrap());
    Ok((built, files))
}

/// A tar archive of a root, as an image.
pub fn rootfs(archive: &[u8]) -> Result<erofs::Files> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("root.tar");
    std::fs::write(&path, archive).unwrap();
    let request = Request { format: Format::RootfsArchive, ..request(&path) };
    build(&request).map(|(_, files)| files)
}

/// The message with which a tar archive of a root is refused.
pub fn refusal(archive: &[u8]) -> String {
    match rootfs(archive) {
        Ok(files) => panic!("it was accepted: {:?}", files.keys()),
        Err(err) => err.to_string(),
    }
}
