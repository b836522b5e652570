//! Nodes and links in /dev, and what the cgroup lets this container do with devices.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use rustix::fs::{CWD, FileType, Mode, major, makedev, minor, mknodat};
use rustix::process::geteuid;
use serde_json::Value;

use super::expected::{Expected, number, text};
use super::{Findings, compare};

const LINKS: [(&str, &str); 4] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
];
const DEVICES: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];
/// Which of `DEFAULTS` a container may use without a rule: those above, the console, ptmx, and all pseudo-terminals.
const ALLOWED: [(u32, Option<u32>); 9] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(1)),
    (5, Some(2)),
    (136, None),
];

/// "Dev symbolic links" of runtime-linux.md, and /dev/ptmx as config-linux.md has it among the default devices.
pub fn default_links(_: &Expected) -> Findings {
    let mut findings = Vec::new();
    for (link, target) in LINKS {
        findings.extend(compare(link, target, fs::read_link(link)?.to_string_lossy().as_ref()));
    }
    let ptmx = fs::read_link("/dev/ptmx")?;
    if !["pts/ptmx", "/dev/pts/ptmx"].contains(&ptmx.to_string_lossy().as_ref()) {
        findings.push(format!("/dev/ptmx expected pts/ptmx, got {ptmx:?}"));
    }
    Ok(findings)
}

/// Character devices with these numbers that anybody may use; what the spec lists under such a path is its own.
pub fn default_devices(expected: &Expected) -> Findings {
    let listed = expected.list("/linux/devices");
    let mut findings = Vec::new();
    for (path, major_number, minor_number) in DEVICES {
        if listed.iter().any(|device| text(device, "path") == path) {
            continue;
        }
        let meta = fs::metadata(path)?;
        let got = (meta.file_type().is_char_device(), major(meta.rdev()), minor(meta.rdev()));
        findings.extend(compare(path, (true, major_number, minor_number), got));
        findings.extend(compare(path, 0o666, meta.mode() & 0o777));
    }
    Ok(findings)
}

pub fn kinds(expected: &Expected) -> Findings {
    each(expected, |device, meta| {
        let wanted = text(device, "type").replace('u', "c");
        let kind = meta.file_type();
        let got = match () {
            () if kind.is_char_device() => "c",
            () if kind.is_block_device() => "b",
            () if kind.is_fifo() => "p",
            () => "none of them",
        };
        compare("", wanted.as_str(), got)
    })
}

pub fn numbers(expected: &Expected) -> Findings {
    each(expected, |device, meta| {
        if text(device, "type") == "p" {
            return Vec::new();
        }
        let wanted = ["major", "minor"].map(|name| number(device, name).unwrap_or(0));
        compare("", wanted, [major(meta.rdev()), minor(meta.rdev())].map(u64::from))
    })
}

/// Without one, anybody may read and write.
pub fn modes(expected: &Expected) -> Findings {
    each(expected, |device, meta| {
        let wanted = number(device, "fileMode").unwrap_or(0o666) & 0o7777;
        compare("", format!("{wanted:o}"), format!("{:o}", meta.mode() & 0o7777))
    })
}

pub fn uids(expected: &Expected) -> Findings {
    each(expected, |device, meta| {
        compare("", number(device, "uid").unwrap_or(0), u64::from(meta.uid()))
    })
}

pub fn gids(expected: &Expected) -> Findings {
    each(expected, |device, meta| {
        compare("", number(device, "gid").unwrap_or(0), u64::from(meta.gid()))
    })
}

fn each(expected: &Expected, look: impl Fn(&Value, &fs::Metadata) -> Vec<String>) -> Findings {
    let mut findings = Vec::new();
    for device in expected.list("/linux/devices") {
        let path = text(device, "path");
        let meta = fs::symlink_metadata(path);
        let meta = meta.map_err(|err| io::Error::other(format!("{path}: {err}")))?;
        findings.extend(look(device, &meta).iter().map(|finding| format!("{path} {finding}")));
    }
    Ok(findings)
}

/// A number that no driver of the guest has: what a rule without numbers is tried with.
const NOBODYS: u32 = 241;

/// For each rule, a node of its kind and number: is it made, and opened, as the last rule that speaks of it says? Root
/// alone can tell, if he has CAP_MKNOD: others are refused before any rule is asked.
pub fn rules(expected: &Expected) -> Findings {
    let mut findings = Vec::new();
    if !geteuid().is_root() {
        return Ok(findings);
    }
    for rule in expected.list("/linux/resources/devices") {
        let kinds = match text(rule, "type") {
            "c" => "c",
            "b" => "b",
            _ => "bc",
        };
        let pick = |name: &str| {
            let listed = rule.get(name).and_then(Value::as_i64).and_then(|n| u32::try_from(n).ok());
            listed.unwrap_or(NOBODYS)
        };
        for kind in kinds.chars() {
            let device = Device { kind, major: pick("major"), minor: pick("minor") };
            findings.extend(device.try_out(expected)?);
        }
    }
    Ok(findings)
}

struct Device {
    kind: char,
    major: u32,
    minor: u32,
}

impl Device {
    fn try_out(&self, expected: &Expected) -> Findings {
        let Self { kind, major, minor } = self;
        let path = format!("/dev/.conform-{}", std::process::id());
        let file_type =
            if *kind == 'b' { FileType::BlockDevice } else { FileType::CharacterDevice };
        let mode = Mode::from_raw_mode(0o600);
        let made = mknodat(CWD, &path, file_type, mode, makedev(*major, *minor));
        let made = verdict(made.map_err(io::Error::from))?;
        let name = format!("{kind} {major}:{minor}");
        let mut findings = compare(&format!("{name} mknod"), self.is_allowed(expected, 'm'), made);
        if made {
            let read = verdict(File::open(&path).map(drop));
            let write = verdict(OpenOptions::new().write(true).open(&path).map(drop));
            fs::remove_file(&path)?;
            findings.extend(compare(
                &format!("{name} read"),
                self.is_allowed(expected, 'r'),
                read?,
            ));
            findings.extend(compare(
                &format!("{name} write"),
                self.is_allowed(expected, 'w'),
                write?,
            ));
        }
        Ok(findings)
    }

    fn is_allowed(&self, expected: &Expected, access: char) -> bool {
        let is_default = self.kind == 'c'
            && ALLOWED.iter().any(|(major, minor)| {
                *major == self.major && minor.is_none_or(|minor| minor == self.minor)
            });
        let rules = expected.list("/linux/resources/devices");
        let decided = rules.iter().rev().find(|rule| self.is_spoken_of(rule, access));
        let decided = decided.map(|rule| rule.get("allow").and_then(Value::as_bool) == Some(true));
        let is_given = expected.list("/linux/devices").iter().any(|device| {
            text(device, "type").replace('u', "c") == self.kind.to_string()
                && number(device, "major") == Some(self.major.into())
                && number(device, "minor") == Some(self.minor.into())
        });
        is_default || decided.unwrap_or(is_given)
    }

    fn is_spoken_of(&self, rule: &Value, access: char) -> bool {
        let is_kind = match text(rule, "type") {
            "" | "a" => true,
            kind => kind == self.kind.to_string(),
        };
        let is = |name: &str, own: u32| match rule.get(name).and_then(Value::as_i64) {
            None | Some(-1) => true,
            Some(listed) => listed == i64::from(own),
        };
        is_kind
            && is("major", self.major)
            && is("minor", self.minor)
            && (text(rule, "access").contains(access) || text(rule, "access").is_empty())
    }
}

/// The cgroup's refusal is EPERM; that no driver answers comes after it.
fn verdict(result: io::Result<()>) -> io::Result<bool> {
    match result.as_ref().map_err(io::Error::raw_os_error) {
        Ok(()) | Err(Some(libc::ENXIO | libc::ENODEV)) => Ok(true),
        Err(Some(libc::EPERM)) => Ok(false),
        Err(_) => result.map(|()| true),
    }
}
