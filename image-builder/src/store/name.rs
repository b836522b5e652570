//! Names of images as docker reads them: `alpine` is `docker.io/library/alpine:latest`, and is shown as `alpine:latest`.
//!
//! The grammar is the distribution project's (reference.go): `HOST[:PORT]/PATH[:TAG][@DIGEST]`. A first part is a host
//! if it has a dot or a colon, or is `localhost`.

use crate::digest::Digest;
use crate::error::{Error, Result};

const DEFAULT_HOST: &str = "docker.io";
const DEFAULT_PATH: &str = "library/";
const DEFAULT_TAG: &str = "latest";
/// The longest name, host and path together, and the longest tag.
const NAME_MAX: usize = 255;
const TAG_MAX: usize = 128;

/// The whole of a name that may be said short.
pub fn whole(text: &str) -> Result<String> {
    let refuse = |why: &str| {
        let shown = crate::tree::shown(text.as_bytes());
        Err(Error::refused(format!("image name {shown:?}: {why}")))
    };
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(Digest::parse(digest)?)),
        None => (text, None),
    };
    let (name, tag) = match rest.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')) {
        Some((name, tag)) => (name, Some(tag)),
        None => (rest, None),
    };
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return refuse("its tag is not 1 to 128 letters, digits, dots, dashes and underscores");
    }
    let (host, path) = match name.split_once('/').filter(|(first, _)| is_host(first)) {
        Some(("index.docker.io", path)) => (DEFAULT_HOST, path),
        Some((host, path)) => (host, path),
        None => (DEFAULT_HOST, name),
    };
    if !is_path(path) {
        return refuse("it is not of lower-case letters, digits, dots, dashes and underscores");
    }
    let library = if host == DEFAULT_HOST && !path.contains('/') { DEFAULT_PATH } else { "" };
    if host.len() + library.len() + path.len() >= NAME_MAX {
        return refuse("it is longer than 255 characters");
    }
    let tag = match (tag, &digest) {
        (Some(tag), _) => format!(":{tag}"),
        (None, None) => format!(":{DEFAULT_TAG}"),
        (None, Some(_)) => String::new(),
    };
    let digest = digest.map(|digest| format!("@{digest}")).unwrap_or_default();
    Ok(format!("{host}/{library}{path}{tag}{digest}"))
}

/// A whole name as a person would say it.
pub fn short(whole: &str) -> &str {
    let Some(path) = whole.strip_prefix("docker.io/") else {
        return whole;
    };
    path.strip_prefix(DEFAULT_PATH).unwrap_or(path)
}

/// The digest that a name ends in.
pub fn digest(text: &str) -> Option<Digest> {
    Digest::parse(text.rsplit_once('@').map_or(text, |(_, digest)| digest)).ok()
}

fn is_host(text: &str) -> bool {
    let is_name = text.contains(['.', ':']) || text == "localhost";
    let is_whole = text.split(['.', ':']).all(|part| !part.is_empty()) || text.starts_with('[');
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
    is_name && is_whole && text.bytes().all(is_letter)
}

fn is_path(text: &str) -> bool {
    text.split('/').all(|part| {
        let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let bytes = part.as_bytes();
        bytes.first().copied().is_some_and(is_letter)
            && bytes.last().copied().is_some_and(is_letter)
            && part.bytes().all(|byte| is_letter(byte) || b"._-".contains(&byte))
    })
}

fn is_tag(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=TAG_MAX).contains(&text.len())
        && text.bytes().next().is_some_and(is_word)
        && text.bytes().all(|byte| is_word(byte) || byte == b'.' || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_name_is_made_whole_as_docker_does() {
        let digest = Digest::of(b"x");
        for (text, meant, shown) in [
            ("alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            ("alpine:3.20", "docker.io/library/alpine:3.20", "alpine:3.20"),
            ("me/tool", "docker.io/me/tool:latest", "me/tool:latest"),
            ("index.docker.io/library/a", "docker.io/library/a:latest", "a:latest"),
            ("localhost/a", "localhost/a:latest", "localhost/a:latest"),
            ("127.0.0.1:5000/a/b:1", "127.0.0.1:5000/a/b:1", "127.0.0.1:5000/a/b:1"),
        ] {
            assert_eq!(whole(text).unwrap(), meant);
            assert_eq!(short(meant), shown);
            assert_eq!(whole(shown).unwrap(), meant);
        }
        let pinned = format!("a@{digest}");
        assert_eq!(whole(&pinned).unwrap(), format!("docker.io/library/a@{digest}"));
        assert_eq!(super::digest(&pinned), Some(digest));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long = "a".repeat(300);
        for text in [
            "",
            "A",
            "a b",
            "../a",
            "/a",
            "a//b",
            "a:",
            "a:b c",
            "-a",
            "a@sha256:0",
            "a\x1b",
            &long,
        ] {
            assert!(whole(text).is_err(), "{text:?}");
        }
    }
}
