//! What a user calls an image: `[HOST[:PORT]/]NAME[:TAG][@DIGEST]`, as docker reads it.
//!
//! The first part is a host when it holds a dot or a colon or is `localhost`; a name without one is docker.io's.

use crate::digest::Digest;
use crate::error::{Error, Result, quoted};
use std::fmt;
use std::net::Ipv4Addr;

/// Longer than any name can be: 255 for a name, 128 for a tag, 71 for a digest, and a host.
const LENGTH_MAX: usize = 1024;

#[derive(Clone, Debug)]
pub struct Reference {
    inner: oci_client::Reference,
    digest: Option<Digest>,
}

impl Reference {
    pub fn parse(text: &str) -> Result<Reference> {
        let refused = |cause: &str| {
            Error::new(format!("image {}: {cause}", quoted(text)))
                .hint("an image in a registry is called HOST[:PORT]/NAME[:TAG|@DIGEST]")
        };
        if text.len() > LENGTH_MAX {
            return Err(refused("the name is too long"));
        }
        let inner =
            oci_client::Reference::try_from(text).map_err(|err| refused(&err.to_string()))?;
        // `NAME/x` is of a host by the crate's grammar, and of docker.io as it is split.
        if inner.repository().bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(refused("repository name must be lowercase"));
        }
        let digest = inner.digest().map(Digest::parse).transpose();
        let digest = digest.map_err(|err| refused(err.message()))?;
        Ok(Reference { inner, digest })
    }

    /// The registry's host, with its port if that was said, as the user knows it.
    pub fn host(&self) -> &str {
        self.inner.registry()
    }

    /// Where that registry is reached, which may be another host.
    pub(crate) fn address(&self) -> &str {
        self.inner.resolve_registry()
    }

    pub(crate) fn repository(&self) -> &str {
        self.inner.repository()
    }

    pub(crate) fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What names the manifest in a request: the digest if there is one, else the tag.
    pub(crate) fn manifest_name(&self) -> String {
        match &self.digest {
            Some(digest) => digest.to_string(),
            None => self.inner.tag().unwrap_or("latest").to_owned(),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.inner)
    }
}

/// Whether a host, with or without a port, is this machine itself: what goes there passes no wire.
pub(crate) fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((name, _port)) => name,
        None => host.rsplit_once(':').map_or(host, |(name, _port)| name),
    };
    let is_name = name.eq_ignore_ascii_case("localhost");
    is_name || name == "::1" || name.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_docker_reads_them() {
        for (text, host, repository, manifest) in [
            ("alpine", "docker.io", "library/alpine", "latest"),
            ("me/tool:1", "docker.io", "me/tool", "1"),
            ("localhost/x", "localhost", "x", "latest"),
            ("127.0.0.1:5000/a/b:c", "127.0.0.1:5000", "a/b", "c"),
            ("host.example/x:1.2-rc", "host.example", "x", "1.2-rc"),
        ] {
            let reference = Reference::parse(text).unwrap();
            assert_eq!((reference.host(), reference.repository()), (host, repository), "{text}");
            assert_eq!(reference.manifest_name(), manifest, "{text}");
        }
        let digest = Digest::of(b"x");
        let both = Reference::parse(&format!("h:1/x:tag@{digest}")).unwrap();
        assert_eq!(both.manifest_name(), digest.to_string(), "the digest decides");
    }

    #[test]
    fn what_is_no_name_is_refused_with_the_form_of_one() {
        let upper = format!("h:1/x@sha256:{}", "A".repeat(64));
        let long = "a".repeat(5000);
        for bad in [
            "",
            "UPPER",
            "UPPER/x",
            "h:1/X",
            "h:1/",
            "h:1/x:",
            "h:1/../x",
            "h:1/x y",
            "x@sha256:1",
            &upper,
            &long,
        ] {
            let err = Reference::parse(bad).unwrap_err();
            assert!(err.hint_text().unwrap().contains("HOST[:PORT]/NAME"), "{bad}: {err}");
        }
    }

    #[test]
    fn this_machine_is_known_by_its_names() {
        for host in ["localhost", "localhost:5000", "127.0.0.1", "127.9.9.9:1", "[::1]:5000"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["docker.io", "10.0.0.1:5000", "localhost.example", "127.0.0.1.example:5000"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
