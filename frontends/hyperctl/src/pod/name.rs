//! What pods, containers and execs are called: the user's names, invented ones, random ids.

use crate::error::{Context as _, Error, Result};

/// Docker's rule for names: it must not be taken for an option or a path.
pub fn check(name: &str) -> Result<()> {
    let first = name.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
    let rest = name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
    if first && rest && name.len() <= 64 {
        return Ok(());
    }
    Err(Error::new(format!("name pod {name:?}: not a name"))
        .hint("letters, digits, '_', '.' and '-', a letter or digit first, 64 at most"))
}

/// `busybox-3f2a`: what it is, and enough of the id to be unique in practice; a clash is refused like any other.
pub fn invent(label: &str, id: &str) -> String {
    let base = label.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let base = base.strip_suffix(".erofs").unwrap_or(base);
    let base: String = base.chars().filter(char::is_ascii_alphanumeric).take(20).collect();
    let digits: String = id.chars().take(4).collect();
    if base.is_empty() { format!("pod-{digits}") } else { format!("{base}-{digits}") }
}

/// `N` random bytes in hexadecimal digits.
pub fn random_hex<const N: usize>() -> Result<String> {
    let mut bytes = [0u8; N];
    let length = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .context(|| "read random bytes".into())?;
    if length != N {
        return Err(Error::new(format!("read random bytes: {length} of {N}")));
    }
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_cannot_be_options_or_paths() {
        for good in ["web", "a.b-c_d", "9lives"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["", "-x", ".hidden", "a/b", "a b", &"x".repeat(65)] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_invented_name_says_what_it_is() {
        assert_eq!(invent("busybox", "3f2a9c000000"), "busybox-3f2a");
        assert_eq!(invent("/images/my_app.erofs", "3f2a9c000000"), "myapp-3f2a");
        assert_eq!(invent("/bundles/one/", "3f2a9c000000"), "one-3f2a");
        assert_eq!(invent("/", "3f2a9c000000"), "pod-3f2a");
    }
}
