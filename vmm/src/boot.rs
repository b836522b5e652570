//! Why a guest did not become ready: the evidence, and what follows from it.
//!
//! Pure: who waits collects what is known when the wait ends (`vm`), and [`explain`] makes the one error of it that
//! helps most. A kernel's panic explains an exit of QEMU, an exit explains a silence; so they are looked at in this
//! order.

use std::time::Duration;

use crate::console::Transcript;
use crate::error::Error;
use crate::process::Exit;

/// How long a boot may take if the caller knows no better: a minute also suffices under TCG on a busy machine.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(60);

/// Below this much guest memory, in MiB, a VM that ends without a word has not even unpacked its kernel.
const SMALL_GUEST: u32 = 64;
/// How much of QEMU's stderr an error quotes, in bytes: its end.
const STDERR_QUOTE: usize = 2000;

/// What is known when a wait for a guest has ended without it.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// How QEMU ended, if it has.
    pub exit: Option<Exit>,
    /// Guest memory, in MiB.
    pub memory_mib: u32,
    /// How long was waited.
    pub waited: Duration,
    /// What the console said.
    pub console: Transcript,
    /// What QEMU said.
    pub stderr: String,
}

/// The error that says why the guest is not ready.
pub fn explain(evidence: Evidence) -> Error {
    if let Some(detail) = too_small(&evidence) {
        return Error::GuestMemory { memory_mib: evidence.memory_mib, detail };
    }
    let Evidence { exit, memory_mib: _, waited, console, stderr } = evidence;
    let step = console.step().map(str::to_owned);
    let stderr = quote(&stderr);
    match (console.panic(), exit) {
        (Some(line), _) => {
            Error::GuestPanicked { line: line.to_owned(), step, console: console.tail() }
        }
        (None, Some(exit)) => Error::VmEnded { exit, step, stderr, console: console.tail() },
        (None, None) => Error::NotReady { waited, step, stderr, console: console.tail() },
    }
}

/// What shows that the guest has too little memory, if anything does.
fn too_small(evidence: &Evidence) -> Option<String> {
    let out_of_memory =
        |line: &&str| line.contains("deadlocked on memory") || line.contains("Out of memory");
    if let Some(line) = evidence.console.panic().filter(out_of_memory) {
        return Some(line.to_owned());
    }
    // A kernel that does not fit overwrites itself, and the processor resets.
    let silent = evidence.exit == Some(Exit::Status(0)) && evidence.console.tail().is_empty();
    let small = evidence.memory_mib < SMALL_GUEST && evidence.stderr.trim().is_empty();
    (silent && small).then(|| "the VM ended without a word".to_owned())
}

/// The error that says why QEMU ended before the guest ran, from its words.
pub fn explain_refusal(exit: Exit, stderr: &str, memory_mib: u32) -> Error {
    let stderr = quote(stderr);
    let no_memory = |line: &&str| {
        line.contains("Cannot allocate memory") || line.contains("cannot set up guest memory")
    };
    if let Some(line) = stderr.lines().find(no_memory) {
        return Error::HostMemory { memory_mib, detail: line.to_owned() };
    }
    if let Some(line) = stderr.lines().find(|line| line.contains("initrd is too large")) {
        return Error::GuestMemory { memory_mib, detail: line.to_owned() };
    }
    Error::QemuRefused { exit, stderr }
}

/// The end of what a program said, printable.
pub(crate) fn quote(stderr: &str) -> String {
    let start = stderr.ceil_char_boundary(stderr.len().saturating_sub(STDERR_QUOTE));
    let end = stderr.get(start..).unwrap_or_default();
    end.lines()
        .map(|line| crate::console::printable(line.as_bytes()))
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evidence(exit: Option<Exit>, console: &str) -> Evidence {
        let mut transcript = Transcript::default();
        transcript.push(console.as_bytes());
        Evidence {
            exit,
            memory_mib: 32,
            waited: Duration::from_millis(2500),
            console: transcript,
            stderr: String::new(),
        }
    }

    #[test]
    fn a_panic_explains_more_than_the_exit_that_follows() {
        let console =
            "init: mounts\n[    0.5] Kernel panic - not syncing: VFS: Unable to mount root fs\n";
        let err = explain(evidence(Some(Exit::Status(0)), console));
        assert!(matches!(err, Error::GuestPanicked { .. }));
        let text = err.to_string();
        assert!(
            text.starts_with("guest kernel panicked: Kernel panic - not syncing: VFS: Unable"),
            "{text}"
        );
        assert!(text.contains("init's last step: mounts"), "{text}");
    }

    #[test]
    fn an_exit_without_a_panic_quotes_both_sides() {
        let mut evidence = evidence(Some(Exit::Signal(9)), "init: listen\nhello\n");
        evidence.stderr = "qemu-system-x86_64: boo\n".into();
        let text = explain(evidence).to_string();
        assert!(
            text.contains("SIGKILL") && text.contains("boo") && text.contains("hello"),
            "{text}"
        );
    }

    #[test]
    fn a_silence_names_the_deadline_and_the_last_step() {
        let text = explain(evidence(None, "init: cgroups\n")).to_string();
        assert!(
            text.starts_with("guest: not ready after 2.5 s; init's last step: cgroups"),
            "{text}"
        );
        let text = explain(evidence(None, "")).to_string();
        assert!(text.ends_with("init never ran"), "{text}");
    }

    #[test]
    fn a_lack_of_memory_is_told_from_a_wrong_option() {
        let stderr = "qemu-system-x86_64: cannot set up guest memory 'microvm.ram': Cannot allocate memory\n";
        let err = explain_refusal(Exit::Status(1), stderr, 4096);
        assert!(
            err.to_string().starts_with("guest memory of 4096 MiB: the host has not enough"),
            "{err}"
        );
        let err = explain_refusal(Exit::Status(1), "qemu: -foo: invalid option\n", 64);
        assert!(matches!(&err, Error::QemuRefused { .. }));
        assert!(err.to_string().contains("invalid option"), "{err}");
    }

    #[test]
    fn a_guest_that_is_too_small_is_told_so() {
        let deadlock = "[    0.3] Kernel panic - not syncing: System is deadlocked on memory\n";
        let text = explain(evidence(Some(Exit::Status(0)), deadlock)).to_string();
        assert!(
            text.starts_with("guest: 32 MiB of memory are not enough for it: Kernel panic"),
            "{text}"
        );
        assert!(matches!(explain(evidence(Some(Exit::Status(0)), "")), Error::GuestMemory { .. }));
        assert!(matches!(explain(evidence(Some(Exit::Signal(9)), "")), Error::VmEnded { .. }));
        let large = Evidence { memory_mib: 64, ..evidence(Some(Exit::Status(0)), "") };
        assert!(matches!(explain(large), Error::VmEnded { .. }));
        let refusal =
            explain_refusal(Exit::Status(1), "qemu: initrd is too large, cannot support.", 1);
        assert!(matches!(refusal, Error::GuestMemory { .. }));
    }

    #[test]
    fn quotes_are_short_and_printable() {
        let long = format!("{}\x1b]0;evil\x07end", "é".repeat(5000));
        let quoted = quote(&long);
        assert!(quoted.len() <= STDERR_QUOTE && quoted.ends_with("]0;evilend"));
    }
}
