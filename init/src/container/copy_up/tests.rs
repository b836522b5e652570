use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use super::*;

/// A directory of this test's own, with `from/` and an empty `to/`.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("hyperstart-copy-{name}-{}", std::process::id()));
        for directory in ["from", "to"] {
            fs::create_dir_all(path.join(directory)).unwrap();
        }
        Self(path)
    }

    fn copy(&self, mut budget: Budget) -> Result<()> {
        let [from, to] = ["from", "to"].map(|name| {
            openat(CWD, self.0.join(name), DIRECTORY | OFlags::PATH, Mode::empty()).unwrap()
        });
        copy_up(from.as_fd(), to.as_fd(), &Said { mode: true, ..Said::default() }, &mut budget)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

#[test]
fn what_is_there_is_copied_as_it_is() {
    let scratch = Scratch::new("all");
    let [from, to] = ["from", "to"].map(|name| scratch.0.join(name));
    fs::create_dir(from.join("d")).unwrap();
    fs::write(from.join("d/file"), "content").unwrap();
    fs::set_permissions(from.join("d/file"), fs::Permissions::from_mode(0o4711)).unwrap();
    fs::set_permissions(from.join("d"), fs::Permissions::from_mode(0o1750)).unwrap();
    symlink("/nowhere/else", from.join("link")).unwrap();
    mknodat(CWD, from.join("pipe"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    scratch.copy(Budget::default()).unwrap();
    assert_eq!(fs::read_to_string(to.join("d/file")).unwrap(), "content");
    assert_eq!(fs::read_link(to.join("link")).unwrap(), PathBuf::from("/nowhere/else"));
    assert!(fs::metadata(to.join("pipe")).unwrap().file_type().is_fifo(), "made, and not opened");
    for name in ["d", "d/file"] {
        let [was, is] = [&from, &to].map(|top| fs::metadata(top.join(name)).unwrap());
        let look = |stat: &fs::Metadata| (stat.mode(), stat.uid(), stat.gid(), stat.mtime());
        assert_eq!(look(&was), look(&is), "{name}");
    }
}

#[test]
fn too_much_is_an_error_that_says_so() {
    let scratch = Scratch::new("much");
    let from = scratch.0.join("from");
    fs::create_dir_all(from.join("a/b/c")).unwrap();
    fs::write(from.join("a/file"), "12345").unwrap();
    for (budget, what) in [
        (Budget { entries: 3, ..Budget::default() }, "entries"),
        (Budget { bytes: 4, ..Budget::default() }, "bytes"),
        (Budget { depth: 2, ..Budget::default() }, "directories in directories"),
    ] {
        let err = scratch.copy(budget).unwrap_err();
        assert_eq!(err.code(), Code::ResourceExhausted);
        assert!(err.message().ends_with(&format!("too many {what} to copy")), "{err}");
        fs::remove_dir_all(scratch.0.join("to")).unwrap();
        fs::create_dir(scratch.0.join("to")).unwrap();
    }
    scratch.copy(Budget { entries: 4, bytes: 5, depth: 3 }).unwrap();
}
