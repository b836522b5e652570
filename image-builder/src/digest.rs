//! Digests as OCI writes them: `sha256:` and 64 hexadecimal digits (image-spec, descriptor.md, "Digests").

use crate::error::{Error, Result};
use crate::output::hex;
use crate::tree::shown;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::io::{self, Read};

/// A SHA-256 digest. Only made from text that is one, so it is safe as a part of a path.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl TryFrom<String> for Digest {
    type Error = Error;

    fn try_from(text: String) -> Result<Digest> {
        Digest::parse(&text)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

impl Digest {
    pub fn parse(text: &str) -> Result<Digest> {
        let Some(digits) = text.strip_prefix("sha256:") else {
            let shown = shown(text.as_bytes());
            return Err(Error::unsupported(format!("digest {shown:?}: only sha256 is supported")));
        };
        Digest::from_hex(digits).ok_or_else(|| {
            Error::refused(format!(
                "digest {:?}: not 64 hexadecimal digits",
                shown(text.as_bytes())
            ))
        })
    }

    /// From the digits alone, in lower case.
    pub fn from_hex(digits: &str) -> Option<Digest> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        (digits.len() == 64 && digits.bytes().all(is_digit)).then(|| Digest(digits.into()))
    }

    pub fn of(bytes: &[u8]) -> Digest {
        Digest(hex(&Sha256::digest(bytes)))
    }

    /// The digits alone.
    pub fn as_hex(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A reader that takes the digest of all that goes through it.
pub struct Hashing<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Hashing<R> {
    pub fn new(inner: R) -> Hashing<R> {
        Hashing { inner, hash: Sha256::new() }
    }

    /// Reads to the end and gives the digest of everything.
    pub fn finish(mut self) -> Result<Digest> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(Digest(hex(&self.hash.finalize())))
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = self.inner.read(buffer)?;
        self.hash.update(buffer.get(..size).unwrap_or_default());
        Ok(size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_sha256_digest_is_one() {
        let good = Digest::of(b"");
        assert_eq!(Digest::parse(&good.to_string()).unwrap(), good);
        for bad in [
            "",
            "sha256:",
            "sha256:../../etc/passwd",
            "sha512:00",
            &good.to_string().to_uppercase(),
        ] {
            assert!(Digest::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_was_not_read_counts_too() {
        let mut hashing = Hashing::new(&b"hello"[..]);
        hashing.read_exact(&mut [0; 2]).unwrap();
        assert_eq!(hashing.finish().unwrap(), Digest::of(b"hello"));
    }
}
