//! The mounts that are listed, in their order, with their options; and that there is no other.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

use serde_json::Value;

use super::expected::{Expected, text, texts};
use super::mountinfo::{self, Mount};
use super::{Findings, compare};

/// "Default Filesystems" of config-linux.md, and one more that programs expect.
const DEFAULTS: [(&str, &str); 6] = [
    ("/proc", "proc"),
    ("/sys", "sysfs"),
    ("/dev", "tmpfs"),
    ("/dev/pts", "devpts"),
    ("/dev/shm", "tmpfs"),
    ("/dev/mqueue", "mqueue"),
];

/// A listed mount and, if it is there, its place in the table.
struct Listed<'a> {
    value: &'a Value,
    destination: String,
    at: Option<usize>,
}

impl Listed<'_> {
    fn options(&self) -> Vec<&str> {
        texts(self.value, "options")
    }

    fn is_bind(&self) -> bool {
        text(self.value, "type") == "bind"
            || self.options().iter().any(|option| ["bind", "rbind"].contains(option))
    }
}

/// The first listed on a destination is the first made there, and so on.
fn listed<'a>(expected: &'a Expected, table: &[Mount]) -> Vec<Listed<'a>> {
    let mut taken = vec![false; table.len()];
    let place = |value: &'a Value| {
        let destination = clean(text(value, "destination"));
        let mut free = table.iter().zip(&mut taken).enumerate();
        let found = free.find(|(_, (mount, taken))| !**taken && mount.target == destination);
        let at = found.map(|(at, (_, taken))| {
            *taken = true;
            at
        });
        Listed { value, destination, at }
    };
    expected.list("/mounts").iter().map(place).collect()
}

fn clean(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    format!("/{}", parts.join("/"))
}

/// Looks at each listed mount that is there: one that is not is the finding of `destinations` alone.
fn each(expected: &Expected, look: impl Fn(&Listed<'_>, &Mount) -> Findings) -> Findings {
    let table = mountinfo::read()?;
    let mut findings = Vec::new();
    for listed in listed(expected, &table) {
        if let Some(mount) = listed.at.and_then(|at| table.get(at)) {
            let found = look(&listed, mount)?;
            findings
                .extend(found.iter().map(|finding| format!("{} {finding}", listed.destination)));
        }
    }
    Ok(findings)
}

pub fn destinations(expected: &Expected) -> Findings {
    let table = mountinfo::read()?;
    let missing = listed(expected, &table).into_iter().filter(|listed| listed.at.is_none());
    Ok(missing.map(|listed| format!("{} expected a mount, got none", listed.destination)).collect())
}

/// A bind has no type of its own; `cgroup` is whichever version there is.
pub fn types(expected: &Expected) -> Findings {
    each(expected, |listed, mount| {
        let wanted = match text(listed.value, "type") {
            "cgroup" => "cgroup2",
            other => other,
        };
        if listed.is_bind() {
            Ok(Vec::new())
        } else {
            Ok(compare("", wanted, mount.fstype.as_str()))
        }
    })
}

/// What a bind shows is for its test to look into.
pub fn sources(expected: &Expected) -> Findings {
    each(expected, |listed, mount| {
        let wanted = text(listed.value, "source");
        if listed.is_bind() || wanted.is_empty() {
            return Ok(Vec::new());
        }
        Ok(compare("", wanted, mount.source.as_str()))
    })
}

/// An option, the word for it in the table, and whether that word is there. An access-time mode is the word that stands
/// for it, `strictatime` the absence of any.
const ATTRIBUTES: [(&str, &str, bool); 18] = [
    ("ro", "ro", true),
    ("rw", "ro", false),
    ("nosuid", "nosuid", true),
    ("suid", "nosuid", false),
    ("nodev", "nodev", true),
    ("dev", "nodev", false),
    ("noexec", "noexec", true),
    ("exec", "noexec", false),
    ("nosymfollow", "nosymfollow", true),
    ("symfollow", "nosymfollow", false),
    ("nodiratime", "nodiratime", true),
    ("diratime", "nodiratime", false),
    ("noatime", "noatime", true),
    ("strictatime", "strictatime", true),
    ("norelatime", "strictatime", true),
    ("relatime", "relatime", true),
    ("atime", "relatime", true),
    ("nostrictatime", "relatime", true),
];
/// Off where a new filesystem does not ask for them.
const OFF_UNLESS_LISTED: [&str; 4] = ["ro", "nosuid", "nodev", "noexec"];

/// The word for an option of the mount, and whether it is to be there.
fn attribute(option: &str) -> Option<(&'static str, bool)> {
    let found = ATTRIBUTES.iter().find(|(name, ..)| *name == option);
    found.map(|(_, word, is_set)| (*word, *is_set))
}

fn has(mount: &Mount, word: &str) -> bool {
    match word {
        "strictatime" => !mount.has("noatime") && !mount.has("relatime"),
        word => mount.has(word),
    }
}

/// The later of two options about one word wins.
fn wanted(options: &[(&'static str, bool)]) -> Vec<(&'static str, bool)> {
    let mut wanted: Vec<(&str, bool)> = Vec::new();
    for (word, is_set) in options {
        wanted.retain(|(known, _)| known != word);
        wanted.push((word, *is_set));
    }
    wanted
}

/// Those of the mount alone, and those of its filesystem.
pub fn options(expected: &Expected) -> Findings {
    each(expected, |listed, mount| {
        let options = listed.options();
        let own: Vec<_> = options.iter().filter_map(|option| attribute(option)).collect();
        let mut own = wanted(&own);
        if !listed.is_bind() {
            let is_recursive =
                |word: &str| recursive(&options).iter().any(|(known, _)| *known == word);
            for word in OFF_UNLESS_LISTED {
                if !own.iter().any(|(known, _)| *known == word) && !is_recursive(word) {
                    own.push((word, false));
                }
            }
        }
        let mut findings = Vec::new();
        for (word, is_set) in own {
            findings.extend(compare(word, is_set, has(mount, word)));
        }
        for option in options.iter().filter_map(|option| option.split_once('=')) {
            findings.extend(of_filesystem(option, mount)?);
        }
        Ok(findings)
    })
}

/// `key=value` as the kernel writes it back: sizes in KiB, modes without a leading zero; a mode of a tmpfs that is its
/// default is not written.
fn of_filesystem((key, value): (&str, &str), mount: &Mount) -> Findings {
    let value = match key {
        "mode" if mount.fstype == "tmpfs" => {
            let got = fs::symlink_metadata(&mount.target)?.mode() & 0o7777;
            return Ok(compare("mode", value.trim_start_matches('0'), format!("{got:o}").as_str()));
        }
        "size" => kib(value).ok_or_else(|| io::Error::other(format!("size {value:?}")))?,
        "mode" | "ptmxmode" => value.trim_start_matches('0').to_owned(),
        _ => value.to_owned(),
    };
    let got = mount.super_options.iter().filter_map(|option| option.split_once('='));
    let got = got.into_iter().find(|(known, _)| *known == key).map(|(_, value)| value);
    Ok(compare(key, Some(value.as_str()), got))
}

fn kib(size: &str) -> Option<String> {
    let digits = size.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().ok()?;
    let kib = match size.get(digits.len()..)? {
        "" => number / 1024,
        "k" | "K" => number,
        "m" | "M" => number << 10,
        "g" | "G" => number << 20,
        _ => return None,
    };
    Some(format!("{kib}k"))
}

/// `rro` and its like.
fn recursive(options: &[&str]) -> Vec<(&'static str, bool)> {
    let of_tree = options.iter().filter(|option| attribute(option).is_none());
    let own: Vec<_> = of_tree.filter_map(|option| attribute(option.strip_prefix('r')?)).collect();
    wanted(&own)
}

/// The mount and all below it.
pub fn recursive_options(expected: &Expected) -> Findings {
    let table = mountinfo::read()?;
    each(expected, |listed, _| {
        let mut findings = Vec::new();
        for (word, is_set) in recursive(&listed.options()) {
            for mount in table.iter().filter(|mount| mount.is_within(&listed.destination)) {
                let what = format!("{word} of {}", mount.target);
                findings.extend(compare(&what, is_set, has(mount, word)));
            }
        }
        Ok(findings)
    })
}

pub fn propagation(expected: &Expected) -> Findings {
    const KINDS: [&str; 4] = ["private", "shared", "slave", "unbindable"];
    each(expected, |listed, mount| {
        let is_kind = |kind: &&&str| {
            let names = |option: &&str| option == *kind || option.strip_prefix('r') == Some(kind);
            listed.options().iter().any(names)
        };
        let wanted = KINDS.iter().find(is_kind);
        Ok(wanted.map_or_else(Vec::new, |kind| compare("", *kind, mount.propagation().as_str())))
    })
}

/// The table is in the order of making.
pub fn order(expected: &Expected) -> Findings {
    let table = mountinfo::read()?;
    let there: Vec<(String, usize)> = listed(expected, &table)
        .into_iter()
        .filter_map(|listed| Some((listed.destination, listed.at?)))
        .collect();
    let wrong = there.windows(2).filter_map(|pair| match pair {
        [(first, before), (second, after)] if before > after => {
            Some(format!("{second} expected after {first}, got it before"))
        }
        _ => None,
    });
    Ok(wrong.collect())
}

/// Each mount is the root, listed, below a recursive bind, a default, or what hides a path.
pub fn no_other(expected: &Expected) -> Findings {
    let table = mountinfo::read()?;
    let listed = listed(expected, &table);
    let hidden = [expected.texts("/linux/maskedPaths"), expected.texts("/linux/readonlyPaths")];
    let hidden = hidden.concat();
    let devices = expected.list("/linux/devices");
    let is_explained = |mount: &Mount| {
        let target = mount.target.as_str();
        target == "/"
            || DEFAULTS.iter().any(|(path, _)| *path == target)
            || listed.iter().any(|listed| {
                listed.destination == target || listed.is_bind() && mount.is_within(&listed.destination)
            })
            || hidden.iter().any(|path| mount.is_within(path))
            || target == "/dev/console" && expected.is_true("/process/terminal")
            // In a user namespace nodes cannot be made, and are bound.
            || devices.iter().any(|device| text(device, "path") == target)
            || expected.at("/linux/uidMappings").is_some() && target.starts_with("/dev/")
    };
    let others = table.iter().filter(|mount| !is_explained(mount));
    Ok(others
        .map(|mount| format!("{} expected no mount, got {}", mount.target, mount.fstype))
        .collect())
}

/// What the last mount on each path is.
pub fn default_filesystems(expected: &Expected) -> Findings {
    let table = mountinfo::read()?;
    let listed = listed(expected, &table);
    let mut findings = Vec::new();
    for (path, fstype) in DEFAULTS {
        if !listed.iter().any(|listed| listed.destination == path) {
            let got = table.iter().rfind(|mount| mount.target == path);
            findings.extend(compare(path, Some(fstype), got.map(|mount| mount.fstype.as_str())));
        }
    }
    Ok(findings)
}
