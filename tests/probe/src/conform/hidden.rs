//! Masked and read-only paths.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{StatVfsMountFlags, statvfs};

use super::Findings;
use super::expected::Expected;

/// A masked file reads as empty, a masked directory lists nothing and takes nothing. What is not there is hidden.
pub fn masked(expected: &Expected) -> Findings {
    let mut findings = Vec::new();
    for path in expected.texts("/linux/maskedPaths") {
        match fs::metadata(path) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => {}
            Err(err) => return Err(err),
            Ok(meta) if meta.is_dir() => {
                let entries = fs::read_dir(path)?.count();
                if entries != 0 {
                    findings.push(format!("{path} expected no entry, got {entries}"));
                }
                if takes_a_file(path)? {
                    findings.push(format!("{path} expected to take no file, got one"));
                }
            }
            Ok(_) => {
                let mut byte = [0];
                // A reader that is refused reads nothing either.
                if File::open(path)
                    .and_then(|mut file| file.read(&mut byte))
                    .is_ok_and(|got| got > 0)
                {
                    findings.push(format!("{path} expected to be empty, got content"));
                }
            }
        }
    }
    Ok(findings)
}

/// The mount is read-only, and what would write is refused. What is not there needs no protection.
pub fn read_only(expected: &Expected) -> Findings {
    let mut findings = Vec::new();
    for path in expected.texts("/linux/readonlyPaths") {
        let meta = match fs::metadata(path) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => continue,
            meta => meta?,
        };
        if !statvfs(path)?.f_flag.contains(StatVfsMountFlags::RDONLY) {
            findings.push(format!("{path} expected a read-only mount, got a writable one"));
        }
        let writable = if meta.is_dir() {
            takes_a_file(path)?
        } else {
            OpenOptions::new().write(true).open(path).is_ok()
        };
        if writable {
            findings.push(format!("{path} expected to refuse writing, got it opened"));
        }
    }
    Ok(findings)
}

/// Tries, and leaves nothing.
fn takes_a_file(directory: &str) -> io::Result<bool> {
    let name = Path::new(directory).join(format!(".conform-{}", std::process::id()));
    if OpenOptions::new().write(true).create_new(true).open(&name).is_err() {
        return Ok(false);
    }
    fs::remove_file(&name)?;
    Ok(true)
}
