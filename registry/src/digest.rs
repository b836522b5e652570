//! Digests as OCI writes them: `sha256:` and 64 hexadecimal digits (image-spec, descriptor.md, "Digests").

use crate::error::{Error, Result, quoted};
use sha2::{Digest as _, Sha256};
use std::fmt;

/// A SHA-256 digest. Only made from text that is one, so it is safe as a part of a path or an address.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(String);

impl Digest {
    pub fn parse(text: &str) -> Result<Digest> {
        let Some(digits) = text.strip_prefix("sha256:") else {
            return Err(Error::new(format!("digest {}: only sha256 is supported", quoted(text))));
        };
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        match digits.len() == 64 && digits.bytes().all(is_digit) {
            true => Ok(Digest(digits.into())),
            false => {
                let text = quoted(text);
                Err(Error::new(format!("digest {text}: not 64 hexadecimal digits in lower case")))
            }
        }
    }

    pub fn of(bytes: &[u8]) -> Digest {
        Digest::from_hash(Sha256::new_with_prefix(bytes))
    }

    pub(crate) fn from_hash(hash: Sha256) -> Digest {
        Digest(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The digits alone.
    pub fn as_hex(&self) -> &str {
        &self.0
    }

    /// The first digits, enough to tell the parts of an image apart.
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
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
}
