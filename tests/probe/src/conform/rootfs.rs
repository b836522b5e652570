//! The root, the names of the system, and what hooks have left.

use std::fs::{self, OpenOptions};
use std::io;

use rustix::fs::{StatVfsMountFlags, statvfs};
use rustix::system::uname;

use super::expected::Expected;
use super::{Findings, compare, mountinfo};

/// The flag of the mount, and a file that can or cannot be made.
pub fn readonly(expected: &Expected) -> Findings {
    let wanted = expected.is_true("/root/readonly");
    let flag = statvfs("/")?.f_flag.contains(StatVfsMountFlags::RDONLY);
    let mut findings = compare("/ read-only", wanted, flag);
    let name = format!("/.conform-{}", std::process::id());
    let made = OpenOptions::new().write(true).create_new(true).open(&name);
    let refused = made.as_ref().is_err_and(|err| err.kind() == io::ErrorKind::ReadOnlyFilesystem);
    if made.is_ok() {
        fs::remove_file(&name)?;
    }
    findings.extend(compare(
        "a new file in / is refused as on a read-only filesystem",
        wanted,
        refused,
    ));
    Ok(findings)
}

pub fn hostname(expected: &Expected) -> Findings {
    let Some(name) = expected.text("/hostname") else { return Ok(Vec::new()) };
    Ok(compare("", name, uname().nodename().to_string_lossy().as_ref()))
}

pub fn domainname(expected: &Expected) -> Findings {
    let Some(name) = expected.text("/domainname") else { return Ok(Vec::new()) };
    Ok(compare("", name, fs::read_to_string("/proc/sys/kernel/domainname")?.trim_end()))
}

/// The propagation of the root's own mount; without one it is private.
pub fn propagation(expected: &Expected) -> Findings {
    let wanted = expected.text("/linux/rootfsPropagation").unwrap_or("private");
    let wanted = wanted.strip_prefix('r').unwrap_or(wanted);
    let table = mountinfo::read()?;
    let root = table.iter().rfind(|mount| mount.target == "/");
    let root = root.ok_or_else(|| io::Error::other("no / in /proc/self/mountinfo"))?;
    let got = root.propagation();
    // With nobody outside to be a slave of, a mount is private: mount_namespaces(7).
    let alone = wanted == "slave" && got == "private";
    Ok(if alone { Vec::new() } else { compare("", wanted, got.as_str()) })
}

/// Where hooks of a test write: a line each, in the order in which they ran.
const HOOKS_FILE: &str = "/annotations/hyperstart.test.hooks-file";
/// The lifecycle's order, of the hooks that run before the program.
const BEFORE: [&str; 4] = ["prestart", "createRuntime", "createContainer", "startContainer"];

/// Each hook's last argument is the line that it writes.
pub fn hooks(expected: &Expected) -> Findings {
    let Some(file) = expected.text(HOOKS_FILE) else { return Ok(Vec::new()) };
    let hooks = BEFORE.iter().flat_map(|kind| expected.list(&format!("/hooks/{kind}")));
    let last = |hook: &'_ serde_json::Value| {
        hook.get("args").and_then(|args| args.as_array()?.last()?.as_str()).map(str::to_owned)
    };
    let wanted: Vec<String> = hooks.filter_map(last).collect();
    let said = fs::read_to_string(file)?;
    Ok(compare("", wanted, said.lines().map(str::to_owned).collect::<Vec<_>>()))
}
