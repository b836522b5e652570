//! The guest's own root: init, and the empty directories that it mounts over. The initrd and the DAX image are made
//! from this one tree, so they differ only in their format.
//!
//! `/dev/console` is in it because the kernel opens it for PID 1 before anything can be mounted.

use crate::content::Content;
use crate::error::{Context, Error, Result};
use crate::tree::{DeviceClass, Kind, Meta, Tree};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::rc::Rc;

/// Directories that init mounts over or looks into.
const DIRECTORIES: [(&str, u16); 7] = [
    ("dev", 0o755),
    ("proc", 0o555),
    ("sys", 0o555),
    ("run", 0o755),
    ("tmp", 0o1777),
    ("etc", 0o755),
    ("root", 0o700),
];

/// The tree of a guest whose PID 1 is the program at `init`, which must be a static ELF file.
pub fn tree(init: &Path) -> Result<Tree> {
    let file = File::open(init).context(|| {
        format!("open init {init:?} (build it: cargo build --profile tiny -p hyperstart-init)")
    })?;
    check_program(&file).context(|| format!("use {init:?} as init"))?;
    let length = file.metadata().context(|| format!("stat {init:?}"))?.len();
    let mut tree = Tree::default();
    for (path, mode) in DIRECTORIES {
        tree.put(path, Meta::root_owned(mode), Kind::directory())?;
    }
    let console = Kind::Device { class: DeviceClass::Char, major: 5, minor: 1 };
    tree.put("dev/console", Meta::root_owned(0o600), console)?;
    let content = Content::stretch(&Rc::new(file), 0, length);
    tree.put("init", Meta::root_owned(0o755), Kind::File(content))?;
    Ok(tree)
}

/// Refuses what cannot be PID 1 of an image that holds nothing else: no ELF file, or one that asks for an interpreter.
fn check_program(file: &File) -> Result<()> {
    const HEAD: u64 = 4096; // program headers lie at the start of a program
    let mut head = Vec::new();
    file.take(HEAD).read_to_end(&mut head).context(|| "read".into())?;
    if head.get(..5) != Some(b"\x7fELF\x02") {
        return Err(Error::refused("not a 64-bit ELF program"));
    }
    match interpreter(&head) {
        true => Err(Error::refused(
            "it is dynamically linked, and the image has no libraries: link it statically",
        )),
        false => Ok(()),
    }
}

/// Whether a 64-bit ELF file has a `PT_INTERP` program header (elf(5)).
fn interpreter(head: &[u8]) -> bool {
    const PT_INTERP: u32 = 3;
    let number = |at: usize, size: usize| {
        let bytes = head.get(at..at + size)?;
        Some(bytes.iter().rev().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte)))
    };
    let (Some(table), Some(size), Some(count)) = (number(32, 8), number(54, 2), number(56, 2))
    else {
        return false;
    };
    (0..count).any(|index| {
        let at = table.checked_add(index * size).and_then(|at| usize::try_from(at).ok());
        at.filter(|at| *at < head.len()).and_then(|at| number(at, 4)) == Some(u64::from(PT_INTERP))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_and_a_dynamic_program_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("init");
        std::fs::write(&script, "#!/bin/sh\n").unwrap();
        assert!(tree(&script).unwrap_err().to_string().contains("not a 64-bit ELF program"));
        let own = std::env::current_exe().unwrap();
        assert!(tree(&own).unwrap_err().to_string().contains("dynamically linked"));
    }

    #[test]
    fn a_missing_init_says_how_it_is_built() {
        let err = tree(Path::new("/nowhere/init")).unwrap_err().to_string();
        assert!(err.contains("cargo build"), "{err}");
    }
}
