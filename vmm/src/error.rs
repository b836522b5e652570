//! Why a VM did not start, or stopped serving: one variant for each reason that a person acts on differently.
//!
//! A message names the object and, where there is one, the next step. Text that comes from elsewhere (QEMU's stderr,
//! the guest's console) is quoted at the end, shortened, and made safe for a terminal.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::machine::MachineKind;
use crate::process::Exit;

/// The result of this crate's operations.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a VM did not start, or stopped serving.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The description cannot work.
    Machine {
        /// The board asked for.
        kind: MachineKind,
        /// What is wrong with the description.
        reason: String,
    },
    /// QEMU is not installed, or not where it was said to be.
    QemuMissing {
        /// The name or path that was looked for.
        binary: PathBuf,
    },
    /// A part of the guest (`kernel`, `initrd`, `rootfs`) is missing or unreadable.
    GuestFile {
        /// Which part.
        part: &'static str,
        /// Where it should be.
        path: PathBuf,
        /// Why it cannot be read.
        cause: io::Error,
    },
    /// A disk or shared directory of the caller's is missing or unusable.
    Attachment {
        /// `disk` or `share`.
        part: &'static str,
        /// What was asked to be attached.
        path: PathBuf,
        /// Why it cannot be.
        cause: io::Error,
    },
    /// The accelerator that was asked for does not work on this host.
    Accel {
        /// Why not, and what to do.
        reason: String,
    },
    /// The transport that was asked for does not work on this host.
    Transport {
        /// Which one.
        transport: &'static str,
        /// Why not, and what to do.
        reason: String,
    },
    /// QEMU ended at once: it does not know, or does not allow, one of its arguments.
    QemuRefused {
        /// How it ended.
        exit: Exit,
        /// What it said.
        stderr: String,
    },
    /// The host has not enough memory for this guest.
    HostMemory {
        /// Guest memory asked for, in MiB.
        memory_mib: u32,
        /// Who says so, in which words.
        detail: String,
    },
    /// The guest was given less memory than its kernel and root need.
    GuestMemory {
        /// Guest memory asked for, in MiB.
        memory_mib: u32,
        /// What shows it.
        detail: String,
    },
    /// The guest's kernel panicked before the guest was ready.
    GuestPanicked {
        /// The kernel's own line about it.
        line: String,
        /// init's last step, if it had begun.
        step: Option<String>,
        /// The console's last lines.
        console: String,
    },
    /// The VM ended before the guest was ready, without a kernel panic on the console.
    VmEnded {
        /// How QEMU ended.
        exit: Exit,
        /// init's last step, if it had begun.
        step: Option<String>,
        /// What QEMU said.
        stderr: String,
        /// The console's last lines.
        console: String,
    },
    /// QEMU has stopped the guest, which stands still now.
    VmStopped {
        /// QEMU's run state, such as `internal-error`.
        status: String,
        /// What QEMU said: its beginning.
        stderr: String,
    },
    /// The guest did not say that it is ready within the deadline.
    NotReady {
        /// How long was waited.
        waited: Duration,
        /// init's last step, if it had begun.
        step: Option<String>,
        /// What QEMU said.
        stderr: String,
        /// The console's last lines.
        console: String,
    },
    /// The guest said something else than the READY line.
    NotOurGuest {
        /// What it said, shortened.
        said: String,
    },
    /// A helper daemon did not start, or ended.
    Daemon {
        /// Its name.
        name: &'static str,
        /// What happened.
        detail: String,
        /// What it said.
        stderr: String,
    },
    /// No slot is free for one more disk.
    NoSlot {
        /// How many the machine has.
        slots: usize,
    },
    /// QMP, QEMU's control channel, did not answer as it must.
    Qmp {
        /// The command.
        command: String,
        /// What happened.
        detail: String,
    },
    /// A system call on something of ours failed.
    Io {
        /// What was attempted, on which object.
        operation: String,
        /// Why it failed.
        cause: io::Error,
    },
}

impl Error {
    /// An [`Error::Io`] for `operation`, to be given to `map_err`.
    pub(crate) fn io(operation: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let operation = operation.into();
        move |cause| Self::Io { operation, cause }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Machine { kind, reason } => write!(f, "machine {}: {reason}", kind.name()),
            Self::QemuMissing { binary } => write!(
                f,
                "qemu {binary:?}: not found: install it with `apt install qemu-system-x86`, or name it in HYPERSTART_QEMU"
            ),
            Self::GuestFile { part, path, cause } => {
                write!(f, "guest {part} {path:?}: {cause}: build it with `make kernel image`")
            }
            Self::Attachment { part, path, cause } => write!(f, "{part} {path:?}: {cause}"),
            Self::Accel { reason } => write!(f, "accelerator: {reason}"),
            Self::Transport { transport, reason } => write!(f, "transport {transport}: {reason}"),
            Self::QemuRefused { exit, stderr } => {
                write!(f, "qemu: it {exit} before the guest ran{}", Quote("it said", stderr))
            }
            Self::HostMemory { memory_mib, detail } => write!(
                f,
                "guest memory of {memory_mib} MiB: the host has not enough: {detail}: ask for less, or stop other VMs"
            ),
            Self::GuestMemory { memory_mib, detail } => {
                write!(
                    f,
                    "guest: {memory_mib} MiB of memory are not enough for it: {detail}: give it more"
                )
            }
            Self::GuestPanicked { line, step, console } => {
                write!(
                    f,
                    "guest kernel panicked: {line}{}{}{}",
                    panic_hint(line),
                    Step(step),
                    Quote("console", console)
                )
            }
            Self::VmEnded { exit, step, stderr, console } => write!(
                f,
                "vm: qemu {exit} before the guest was ready{}{}{}",
                Step(step),
                Quote("qemu said", stderr),
                Quote("console", console)
            ),
            Self::VmStopped { status, stderr } => write!(
                f,
                "vm: qemu has stopped the guest ({status}): if it runs by KVM, this host cannot: use HYPERSTART_ACCEL=tcg{}",
                Quote("qemu said", stderr)
            ),
            Self::NotReady { waited, step, stderr, console } => write!(
                f,
                "guest: not ready after {:.1} s{}{}{}",
                waited.as_secs_f64(),
                Step(step),
                Quote("qemu said", stderr),
                Quote("console", console)
            ),
            Self::NotOurGuest { said } => {
                write!(
                    f,
                    "guest: it said {said:?} where it must say that it is ready: the image is not ours, or of another version"
                )
            }
            Self::Daemon { name, detail, stderr } => {
                write!(f, "daemon {name}: {detail}{}", Quote("it said", stderr))
            }
            Self::NoSlot { slots } => write!(f, "no free slot for a disk: the machine has {slots}"),
            Self::Qmp { command, detail } => write!(f, "qmp {command}: {detail}"),
            Self::Io { operation, cause } => write!(f, "{operation}: {cause}"),
        }
    }
}

/// The next step, of those panics that are about the guest's files.
fn panic_hint(line: &str) -> &'static str {
    match line {
        _ if line.contains("dm-verity") => {
            ": a block of the root image is not what its root hash was made of: build the image again"
        }
        _ if line.contains("Unable to mount root fs") => {
            ": the kernel found no root that it can mount: it needs CONFIG_EROFS_FS, CONFIG_BLK_DEV_PMEM and CONFIG_VIRTIO_PMEM \
             for a rootfs, CONFIG_BLK_DEV_INITRD for an initrd, built in"
        }
        _ if line.contains("No working init found") || line.contains("Requested init") => {
            ": the image has no program /init: make it with `image-builder`"
        }
        _ => "",
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::GuestFile { cause, .. }
            | Self::Attachment { cause, .. }
            | Self::Io { cause, .. } => Some(cause),
            Self::Machine { .. }
            | Self::QemuMissing { .. }
            | Self::Accel { .. }
            | Self::Transport { .. }
            | Self::QemuRefused { .. }
            | Self::HostMemory { .. }
            | Self::GuestMemory { .. }
            | Self::GuestPanicked { .. }
            | Self::VmEnded { .. }
            | Self::VmStopped { .. }
            | Self::NotReady { .. }
            | Self::NotOurGuest { .. }
            | Self::Daemon { .. }
            | Self::NoSlot { .. }
            | Self::Qmp { .. } => None,
        }
    }
}

/// init's last step, as the end of a sentence.
struct Step<'a>(&'a Option<String>);

impl fmt::Display for Step<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(step) => write!(f, "; init's last step: {step}"),
            None => f.write_str("; init never ran"),
        }
    }
}

/// Text from elsewhere, indented under a title; nothing at all when there is none.
struct Quote<'a>(&'static str, &'a str);

impl fmt::Display for Quote<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(title, text) = self;
        if text.trim().is_empty() {
            return Ok(());
        }
        write!(f, "\n  {title}:")?;
        for line in text.trim_end().lines() {
            write!(f, "\n    {line}")?;
        }
        Ok(())
    }
}
