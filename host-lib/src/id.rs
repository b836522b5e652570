//! The names of containers and of the processes in them, checked once, so that no request can carry a bad one.
//!
//! The guest makes paths of them; hence no slash, no empty one, no `.` and `..`.

use std::fmt;
use std::str::FromStr;

use crate::error::{Code, Error, Result};

/// The longest id in bytes: NAME_MAX, see limits.h(0p).
const LENGTH_MAX: usize = 255;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $operation:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// Checks `id`.
            ///
            /// # Errors
            /// [`Code::InvalidArgument`]: it is not 1 to 255 characters of `A-Z a-z 0-9 _ . -`, or it is `.` or `..`.
            pub fn new(id: impl Into<String>) -> Result<Self> {
                let id = id.into();
                check(&id).map_err(|cause| {
                    let id = id.chars().take(LENGTH_MAX).collect::<String>();
                    Error::new(Code::InvalidArgument, $operation, format_args!("{id:?}"), cause)
                })?;
                Ok(Self(id))
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            /// Writes the id in quotes.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(id: &str) -> Result<Self> {
                Self::new(id)
            }
        }
    };
}

id! {
    /// Names a container in its sandbox.
    ContainerId, "name container"
}

id! {
    /// Names an exec, a process in a container besides the one that the container was made for.
    ExecId, "name exec"
}

fn check(id: &str) -> Result<(), &'static str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    match id {
        "" => Err("it is empty"),
        "." | ".." => Err("it names a directory"),
        _ if id.len() > LENGTH_MAX => Err("it is longer than 255 bytes"),
        _ if !id.bytes().all(allowed) => Err("it has other characters than A-Z a-z 0-9 _ . -"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_file_names_of_plain_characters() {
        let longest = "x".repeat(LENGTH_MAX);
        for good in ["a", "web-1.2_3", "..a", longest.as_str()] {
            assert_eq!(ContainerId::new(good).unwrap().as_str(), good);
        }
        let too_long = "x".repeat(LENGTH_MAX + 1);
        for bad in ["", ".", "..", "a/b", "a b", "ü", "a\0", "a\n", too_long.as_str()] {
            let err = ExecId::new(bad).unwrap_err();
            assert_eq!(err.code(), Code::InvalidArgument, "{bad:?}");
        }
    }
}
