//! The programs that children are: where they are found, and how they are started.
//!
//! A child is either [`tied`] to its owner's life or [`loose`], for an heir: see `process`.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::mark::MARK;

/// Checks, once the death signal is set, that the owner has not died before; then becomes the program.
const RUN_IF_OWNER_LIVES: &str = r#"test "$PPID" = "$1" || exit 1; shift; exec "$@""#;

/// What root's children keep of its capabilities: to open files whoever owns them, and to give files in a share the
/// owners, modes and attributes that the guest says. Not mknod: no guest makes a device on the host.
const KEPT: &str = "-all,+chown,+dac_override,+fowner,+fsetid,+setfcap";

/// A command for `program` that the kernel kills when this process dies, and that can get no privilege any more.
pub(crate) fn tied(program: &Path) -> Command {
    tied_with(program, KEPT)
}

/// The same with other capabilities, in the words of setpriv(1).
pub(crate) fn tied_with(program: &Path, capabilities: &str) -> Command {
    let mut command = confined(capabilities);
    command.args(["--pdeathsig", "KILL"]);
    command.args(["--", "/bin/sh", "-c", RUN_IF_OWNER_LIVES, "sh"]);
    command.arg(std::process::id().to_string()).arg(program);
    command
}

/// A command for `program` that lives on when this process dies, and that can get no privilege any more. It is found by
/// its `mark`, the directory that its owner has for it.
pub(crate) fn loose(program: &Path, mark: &Path) -> Command {
    loose_with(program, mark, KEPT)
}

/// The same with other capabilities.
pub(crate) fn loose_with(program: &Path, mark: &Path, capabilities: &str) -> Command {
    let mut command = confined(capabilities);
    command.arg("--").arg(program).env(MARK, mark);
    command
}

/// What both begin with: a child can get no privilege, and has no more capabilities than it needs.
fn confined(capabilities: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.arg("--no-new-privs");
    if may_drop_capabilities() {
        command.args(["--bounding-set", capabilities]);
    }
    command
}

/// Whether we have capabilities that a child would inherit, as root does, and the one to take some away.
fn may_drop_capabilities() -> bool {
    const SETPCAP: u64 = 1 << 8;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default(); // without it none are dropped
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    rustix::process::geteuid().is_root() && effective.is_some_and(|set| set & SETPCAP != 0)
}

/// Where `name` is: itself if it holds a slash, else the first executable of that name in `directories`.
pub(crate) fn find_program(
    name: &Path,
    directories: impl IntoIterator<Item = PathBuf>,
) -> Option<PathBuf> {
    let is_executable = |path: &Path| {
        path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
    };
    if name.components().count() > 1 {
        return is_executable(name).then(|| name.to_owned());
    }
    directories.into_iter().map(|directory| directory.join(name)).find(|path| is_executable(path))
}

/// The directories of `PATH`.
pub(crate) fn search_path() -> Vec<PathBuf> {
    std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{Exit, Process};

    /// The shell in between refuses to become the program when its parent is not the owner.
    #[tokio::test]
    async fn a_child_whose_owner_died_first_does_not_start() {
        let mut command = Command::new("sh");
        command.args(["-c", RUN_IF_OWNER_LIVES, "sh", "1", "sleep", "1000"]);
        assert_eq!(Process::spawn("sh", command).unwrap().wait().await, Exit::Status(1));
    }

    #[test]
    fn programs_are_found_by_path_or_name() {
        assert_eq!(find_program(Path::new("/bin/sh"), []), Some("/bin/sh".into()));
        assert_eq!(find_program(Path::new("/etc/passwd"), []), None, "not executable");
        assert_eq!(
            find_program(Path::new("sh"), ["/nowhere".into(), "/bin".into()]),
            Some("/bin/sh".into())
        );
        assert_eq!(find_program(Path::new("no-such-program"), search_path()), None);
    }
}
