//! Which accelerator runs guest code.
//!
//! `/dev/kvm` existing does not mean that KVM can run a stock kernel: under nested virtualisation in software it
//! exists and the guest hangs. So KVM is taken only where the processor itself says that it can virtualise (`vmx` or
//! `svm` on x86), or where `/dev/kvm` opens on arm64; and only for a guest of the host's own architecture. Everything
//! else runs in TCG, which does the same more slowly. Under TCG the guest sees the host's time stamp counter, so its
//! frequency is looked up here too: a guest that is told need not measure. `HYPERSTART_ACCEL=kvm|tcg` overrides the
//! choice, not the facts: KVM that cannot be opened is an error and not a silent TCG.

use std::fs::{self, OpenOptions};
use std::io;

use crate::error::{Error, Result};

/// What runs guest code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accel {
    /// The host's kernel and processor.
    Kvm,
    /// QEMU's translator.
    Tcg,
}

impl Accel {
    /// The name that QEMU and `HYPERSTART_ACCEL` use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// The environment variable that overrides the choice.
pub const OVERRIDE: &str = "HYPERSTART_ACCEL";
/// The architecture of the guests that this crate starts.
const GUEST_ARCH: &str = "x86_64";

/// What the choice depends on.
#[derive(Debug)]
pub struct Host {
    /// As in [`std::env::consts::ARCH`].
    pub arch: &'static str,
    /// The processor's features, as `/proc/cpuinfo` has them.
    pub cpu_flags: String,
    /// The processor's clock in MHz, as `/proc/cpuinfo` has it.
    pub cpu_mhz: String,
    /// Whether `/dev/kvm` opens for reading and writing.
    pub kvm: io::Result<()>,
}

impl Host {
    /// Looks at this host.
    pub fn probe() -> Self {
        // Unreadable means no features: TCG then, which always works.
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let value = |names: [&str; 2]| {
            let line = cpuinfo.lines().find(|line| names.iter().any(|name| line.starts_with(name)));
            let (_, value) = line?.split_once(':')?;
            Some(value.trim().to_owned())
        };
        let cpu_flags = value(["flags", "Features"]).unwrap_or_default();
        let cpu_mhz = value(["cpu MHz", "cpu MHz"]).unwrap_or_default();
        let kvm = OpenOptions::new().read(true).write(true).open("/dev/kvm").map(drop);
        Self { arch: std::env::consts::ARCH, cpu_flags, cpu_mhz, kvm }
    }

    fn has_flag(&self, flag: &str) -> bool {
        self.cpu_flags.split_whitespace().any(|have| have == flag)
    }

    /// Whether KVM can be trusted with a guest of `guest_arch` here.
    fn kvm_works(&self, guest_arch: &str) -> bool {
        let virtualises = match self.arch {
            "x86_64" => self.has_flag("vmx") || self.has_flag("svm"),
            "aarch64" => true,
            _ => false,
        };
        self.arch == guest_arch && virtualises && self.kvm.is_ok()
    }

    /// Whether a guest under `accel` has RDRAND, and so needs no entropy device. TCG's `-cpu max` always has it.
    pub fn gives_rdrand(&self, accel: Accel) -> bool {
        match accel {
            Accel::Kvm => self.has_flag("rdrand"),
            Accel::Tcg => true,
        }
    }

    /// The frequency of the time stamp counter in kHz, if it is certain. The kernel shows it as the processor's clock
    /// where it can measure nothing else (no APERF/MPERF) and nothing scales it: in virtual machines, which is where
    /// TCG is used.
    pub fn tsc_khz(&self) -> Option<u32> {
        let certain = self.has_flag("hypervisor")
            && self.has_flag("constant_tsc")
            && !self.has_flag("aperfmperf");
        let (mhz, fraction) = self.cpu_mhz.split_once('.').filter(|_| certain)?;
        if fraction.len() != 3 {
            return None;
        }
        format!("{mhz}{fraction}").parse().ok().filter(|khz| *khz > 0)
    }
}

/// Chooses: what the caller asked for, else what `overriding` (the variable's value) says, else the best that works.
///
/// # Errors
/// [`Error::Accel`] if the variable's value is unknown, or KVM was asked for and cannot be used.
pub fn choose(host: &Host, asked: Option<Accel>, overriding: Option<&str>) -> Result<Accel> {
    let overriding = match overriding {
        None | Some("") => None,
        Some("kvm") => Some(Accel::Kvm),
        Some("tcg") => Some(Accel::Tcg),
        Some(other) => {
            return Err(Error::Accel {
                reason: format!("{OVERRIDE}={other:?}: it can be kvm or tcg"),
            });
        }
    };
    match asked.or(overriding) {
        Some(Accel::Tcg) => Ok(Accel::Tcg),
        Some(Accel::Kvm) => match &host.kvm {
            Ok(()) if host.arch == GUEST_ARCH => Ok(Accel::Kvm),
            Ok(()) => Err(Error::Accel {
                reason: format!("kvm: this host is {}, the guest {GUEST_ARCH}: use tcg", host.arch),
            }),
            Err(err) => Err(Error::Accel {
                reason: format!("kvm: open \"/dev/kvm\": {err}: use {OVERRIDE}=tcg"),
            }),
        },
        None if host.kvm_works(GUEST_ARCH) => Ok(Accel::Kvm),
        None => Ok(Accel::Tcg),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(arch: &'static str, flags: &str, kvm: bool) -> Host {
        let kvm = if kvm { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) };
        Host { arch, cpu_flags: flags.into(), cpu_mhz: "2599.998".into(), kvm }
    }

    #[test]
    fn kvm_needs_a_processor_that_virtualises() {
        let chosen = |host: &Host| choose(host, None, None).unwrap();
        assert_eq!(chosen(&host("x86_64", "fpu vmx sse", true)), Accel::Kvm);
        assert_eq!(chosen(&host("x86_64", "fpu svm", true)), Accel::Kvm);
        assert_eq!(chosen(&host("x86_64", "fpu hypervisor", true)), Accel::Tcg);
        assert_eq!(chosen(&host("x86_64", "fpu vmx", false)), Accel::Tcg);
        assert_eq!(chosen(&host("aarch64", "fp", true)), Accel::Tcg, "the guest is x86");
        assert!(host("aarch64", "fp", true).kvm_works("aarch64"));
        assert!(!host("aarch64", "fp", false).kvm_works("aarch64"));
    }

    #[test]
    fn the_caller_goes_before_the_variable_and_both_before_the_choice() {
        let nested = host("x86_64", "hypervisor", true);
        assert_eq!(choose(&nested, None, Some("kvm")).unwrap(), Accel::Kvm);
        assert_eq!(choose(&nested, Some(Accel::Tcg), Some("kvm")).unwrap(), Accel::Tcg);
        assert_eq!(choose(&host("x86_64", "vmx", true), None, Some("tcg")).unwrap(), Accel::Tcg);
        assert_eq!(choose(&nested, None, Some("")).unwrap(), Accel::Tcg);
    }

    #[test]
    fn what_cannot_be_is_an_error_and_not_a_silent_tcg() {
        let err = choose(&host("x86_64", "vmx", false), None, Some("kvm")).unwrap_err().to_string();
        assert!(err.contains("/dev/kvm") && err.contains("HYPERSTART_ACCEL=tcg"), "{err}");
        let err =
            choose(&host("aarch64", "", true), Some(Accel::Kvm), None).unwrap_err().to_string();
        assert!(err.contains("aarch64"), "{err}");
        let err = choose(&host("x86_64", "vmx", true), None, Some("hvf")).unwrap_err().to_string();
        assert!(err.contains("kvm or tcg"), "{err}");
    }

    #[test]
    fn the_counters_frequency_is_known_only_where_nothing_scales_it() {
        let virtual_machine = host("x86_64", "constant_tsc hypervisor", true);
        assert_eq!(virtual_machine.tsc_khz(), Some(2_599_998));
        assert_eq!(host("x86_64", "constant_tsc", true).tsc_khz(), None);
        assert_eq!(host("x86_64", "constant_tsc hypervisor aperfmperf", true).tsc_khz(), None);
        for odd in ["", "2600", "2.6 GHz", "0.000", "-1.000"] {
            let host =
                Host { cpu_mhz: odd.into(), ..host("x86_64", "constant_tsc hypervisor", true) };
            assert_eq!(host.tsc_khz(), None, "{odd}");
        }
    }

    #[test]
    fn rdrand_is_asked_of_the_host_only_under_kvm() {
        assert!(host("x86_64", "rdrand", true).gives_rdrand(Accel::Kvm));
        assert!(!host("x86_64", "sse", true).gives_rdrand(Accel::Kvm));
        assert!(host("x86_64", "sse", true).gives_rdrand(Accel::Tcg));
    }
}
