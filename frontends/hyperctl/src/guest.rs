//! Where the guest's files are: kernel, initrd, rootfs, container images.
//!
//! `$HYPERSTART_GUEST_DIR` decides if it is set. Otherwise the place follows from where hyperctl itself lies: a build
//! tree keeps `target/release/hyperctl` beside `target/guest`, an installation `<prefix>/bin/hyperctl` beside
//! `<prefix>/lib/hyperstart`.

use std::env;
use std::path::{Path, PathBuf};

use crate::error::{Context as _, Error, Result};

const GUEST_DIR_VARIABLE: &str = "HYPERSTART_GUEST_DIR";

pub struct GuestDir(PathBuf);

impl GuestDir {
    pub fn locate() -> Result<GuestDir> {
        if let Some(dir) = env::var_os(GUEST_DIR_VARIABLE).filter(|dir| !dir.is_empty()) {
            return existing(PathBuf::from(dir));
        }
        let executable = env::current_exe().context(|| "find guest files".into())?;
        let candidates = candidates(&executable);
        match candidates.iter().find(|dir| dir.is_dir()) {
            Some(dir) => Ok(GuestDir(dir.clone())),
            None => Err(missing(&candidates)),
        }
    }

    #[cfg(test)]
    pub fn at(dir: &Path) -> GuestDir {
        GuestDir(dir.to_path_buf())
    }

    /// A file that a VM needs. `what` is the word for it in the error.
    pub fn file(&self, name: &str, what: &str) -> Result<PathBuf> {
        let path = self.0.join(name);
        if path.is_file() {
            return Ok(path);
        }
        Err(Error::new(format!("find {what} {path:?}: no such file")).hint(format!(
            "`make kernel image` builds the guest's files; or name one with --{what}"
        )))
    }

    pub fn images(&self) -> PathBuf {
        self.0.join("images")
    }
}

fn existing(dir: PathBuf) -> Result<GuestDir> {
    if dir.is_dir() {
        return Ok(GuestDir(dir));
    }
    Err(Error::new(format!("find guest files {dir:?}: no such directory")).hint(format!(
        "set {GUEST_DIR_VARIABLE} to the directory that holds vmlinux and initrd.img"
    )))
}

fn candidates(executable: &Path) -> Vec<PathBuf> {
    let Some(above) = executable.parent().and_then(Path::parent) else { return Vec::new() };
    vec![above.join("guest"), above.join("lib/hyperstart")]
}

fn missing(candidates: &[PathBuf]) -> Error {
    let tried: Vec<String> = candidates.iter().map(|dir| format!("{dir:?}")).collect();
    Error::new(format!("find guest files: none of {} is a directory", tried.join(", ")))
        .hint(format!("`make kernel image` builds them; {GUEST_DIR_VARIABLE} names another place"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_the_tree_and_an_installation_are_looked_in() {
        assert_eq!(
            candidates(Path::new("/src/target/release/hyperctl")),
            [PathBuf::from("/src/target/guest"), PathBuf::from("/src/target/lib/hyperstart")]
        );
        assert!(
            candidates(Path::new("/usr/bin/hyperctl"))
                .contains(&PathBuf::from("/usr/lib/hyperstart"))
        );
    }

    #[test]
    fn a_missing_kernel_is_named_with_the_step_that_makes_it() {
        let dir = tempfile::tempdir().unwrap();
        let err = GuestDir::at(dir.path()).file("vmlinux", "kernel").unwrap_err();
        assert!(err.to_string().contains("vmlinux"), "{err}");
        assert!(err.to_string().contains("--kernel"), "{err}");
    }
}
