//! The kernel command line, read once and passed down. The names are Kata's where Kata has one
//! (docs/kernel.md lists them all); a parameter that is not ours is the kernel's or another's and is left alone.

use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use crate::error::{Code, Context, Error, Result};

/// Where the host waits for the guest's word that it is ready: a vsock port of the host's.
pub type ReadyPort = u32;

/// A day: what is not there by then will not come.
const HOTPLUG_SECONDS: RangeInclusive<u64> = 0..=86_400;
/// A page, to the largest that Kata's documents show, eight times over. 0 is the kernel's own default.
const PIPE_BYTES: RangeInclusive<u32> = 4 << 10..=16 << 20;
const OUTPUT_RING_BYTES: RangeInclusive<usize> = 4 << 10..=16 << 20;
/// The port that Kata's own clients try.
const DEBUG_CONSOLE_PORT: u32 = 1026;
/// All but VMADDR_PORT_ANY, vsock(7), and 0, which is nobody's.
const VSOCK_PORTS: RangeInclusive<u32> = 1..=u32::MAX - 1;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `agent.log`: a level of Kata's.
    pub log_level: log::LevelFilter,
    /// Where the log can be had over vsock (`agent.log_vport`); none: nowhere but on the console and by ReadLog.
    pub log_port: Option<u32>,
    /// How long a device that a request names may take to appear (`agent.hotplug_timeout`, seconds).
    pub hotplug_timeout: Duration,
    /// The vsock port that the API listens on (`agent.server_addr=vsock://-1:PORT`).
    pub agent_port: u32,
    /// `hyperstart.ready`; none: the host finds out by connecting, as Kata's runtimes do.
    pub ready_port: Option<ReadyPort>,
    /// The size of a process's pipes (`agent.container_pipe_size`); none: the kernel's default.
    pub pipe_bytes: Option<u32>,
    /// How much of an output is kept for those who have not read it yet (`hyperstart.output_ring`).
    pub output_ring_bytes: usize,
    /// The vsock port of a shell for the host (`agent.debug_console`, `agent.debug_console_vport`); none: there is none.
    pub debug_console: Option<u32>,
    /// Names of ours and of Kata's that ask for what this guest does not do; docs/kernel.md has the reasons.
    pub ignored: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            log_level: log::LevelFilter::Warn,
            log_port: None,
            hotplug_timeout: Duration::from_secs(3),
            agent_port: hyperstart_protocol::AGENT_PORT,
            ready_port: None,
            pipe_bytes: None,
            output_ring_bytes: 64 << 10,
            debug_console: None,
            ignored: Vec::new(),
        }
    }
}

impl Config {
    pub fn read() -> Result<Self> {
        let line = std::fs::read_to_string("/proc/cmdline")
            .context(|| "read \"/proc/cmdline\"".to_owned())?;
        Self::parse(&line)
    }

    fn parse(line: &str) -> Result<Self> {
        let mut config = Self::default();
        let mut console = Console { is_asked: false, port: DEBUG_CONSOLE_PORT };
        for parameter in line.split_ascii_whitespace() {
            if !parameter.starts_with("agent.") && !parameter.starts_with("hyperstart.") {
                continue;
            }
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let set = console.set(name, value).unwrap_or_else(|| config.set(name, value));
            set.ok_or_else(|| {
                Error::new(
                    Code::InvalidArgument,
                    format!("kernel parameter {name}: bad value {value:?}"),
                )
            })?;
        }
        config.debug_console = console.is_asked.then_some(console.port);
        Ok(config)
    }

    /// None: a value that cannot be.
    fn set(&mut self, name: &str, value: &str) -> Option<()> {
        match name {
            "agent.log" => self.log_level = level(value)?,
            "agent.log_vport" => self.log_port = optional_port(value)?,
            "agent.hotplug_timeout" => {
                self.hotplug_timeout = Duration::from_secs(within(value, HOTPLUG_SECONDS)?);
            }
            "agent.server_addr" => {
                self.agent_port = within(value.strip_prefix("vsock://-1:")?, VSOCK_PORTS)?;
            }
            "agent.container_pipe_size" => {
                self.pipe_bytes =
                    if value == "0" { None } else { Some(within(value, PIPE_BYTES)?) };
            }
            "hyperstart.ready" => self.ready_port = Some(within(value, VSOCK_PORTS)?),
            "hyperstart.output_ring" => {
                self.output_ring_bytes = within(value, OUTPUT_RING_BYTES)?;
            }
            _ => self.ignored.push(name.to_owned()),
        }
        Some(())
    }
}

/// Two parameters that are one, in either order. A port alone asks for nothing, as in Kata.
struct Console {
    is_asked: bool,
    port: u32,
}

impl Console {
    /// None: not its parameter. Some(None): a value that cannot be.
    fn set(&mut self, name: &str, value: &str) -> Option<Option<()>> {
        match name {
            "agent.debug_console" => Some(flag(value).map(|is_asked| self.is_asked = is_asked)),
            "agent.debug_console_vport" => {
                Some(within(value, VSOCK_PORTS).map(|port| self.port = port))
            }
            _ => None,
        }
    }
}

/// A name alone is yes.
fn flag(value: &str) -> Option<bool> {
    match value {
        "" | "1" | "true" => Some(true),
        "0" | "false" => Some(false),
        _ => None,
    }
}

/// Kata takes slog's names and those of logrus; what is above our highest is our highest.
fn level(value: &str) -> Option<log::LevelFilter> {
    match value {
        "warning" => Some(log::LevelFilter::Warn),
        "critical" | "fatal" | "panic" => Some(log::LevelFilter::Error),
        _ => value.parse().ok(),
    }
}

/// 0 is none, as in Kata.
fn optional_port(value: &str) -> Option<Option<u32>> {
    if value == "0" { Some(None) } else { within(value, VSOCK_PORTS).map(Some) }
}

fn within<T: FromStr + PartialOrd>(value: &str, range: RangeInclusive<T>) -> Option<T> {
    value.parse().ok().filter(|number| range.contains(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_its_parameters_among_others() {
        let config = Config::parse(
            "console=ttyS0 quiet agent.log=debug agent.hotplug_timeout=7 agent.server_addr=vsock://-1:99 \
             hyperstart.ready=1028 agent.log_vport=1025 agent.container_pipe_size=2097152 \
             hyperstart.output_ring=4096 root=/dev/pmem0\n",
        )
        .unwrap();
        let expected = Config {
            log_level: log::LevelFilter::Debug,
            log_port: Some(1025),
            hotplug_timeout: Duration::from_secs(7),
            agent_port: 99,
            ready_port: Some(1028),
            pipe_bytes: Some(2 << 20),
            output_ring_bytes: 4096,
            debug_console: None,
            ignored: Vec::new(),
        };
        assert_eq!(config, expected);
    }

    #[test]
    fn an_empty_line_gives_the_defaults_and_so_does_nought() {
        assert_eq!(Config::parse("").unwrap(), Config::default());
        let none = "agent.container_pipe_size=0 agent.log_vport=0";
        assert_eq!(Config::parse(none).unwrap(), Config::default());
    }

    #[test]
    fn a_debug_console_is_asked_for_by_its_own_name() {
        let port = |line: &str| Config::parse(line).unwrap().debug_console;
        assert_eq!(port("agent.debug_console"), Some(DEBUG_CONSOLE_PORT));
        assert_eq!(port("agent.debug_console_vport=7 agent.debug_console=true"), Some(7));
        assert_eq!(port("agent.debug_console agent.debug_console_vport=7"), Some(7));
        for line in ["", "agent.debug_console_vport=7", "agent.debug_console=false"] {
            assert_eq!(port(line), None, "{line}");
        }
    }

    #[test]
    fn levels_are_katas() {
        for (name, level) in [
            ("trace", log::LevelFilter::Trace),
            ("warning", log::LevelFilter::Warn),
            ("fatal", log::LevelFilter::Error),
            ("info", log::LevelFilter::Info),
        ] {
            assert_eq!(Config::parse(&format!("agent.log={name}")).unwrap().log_level, level);
        }
    }

    #[test]
    fn what_is_not_done_is_kept_by_name_and_the_kernels_is_not() {
        let line = "agent.trace=true agent.devmode psi=1 hyperstart.raedy=1028 systemd.unit=kata-containers.target";
        let ignored = Config::parse(line).unwrap().ignored;
        assert_eq!(ignored, ["agent.trace", "agent.devmode", "hyperstart.raedy"]);
    }

    #[test]
    fn a_bad_value_is_named() {
        for line in [
            "agent.log=loud",
            "agent.log",
            "agent.hotplug_timeout=-1",
            "agent.hotplug_timeout=86401",
            "hyperstart.ready=x",
            "hyperstart.ready=0",
            "agent.server_addr=unix:///x",
            "agent.server_addr=vsock://-1:4294967295",
            "agent.log_vport=-1",
            "agent.container_pipe_size=4095",
            "agent.container_pipe_size=16777217",
            "agent.container_pipe_size=-1",
            "hyperstart.output_ring=4095",
            "hyperstart.output_ring=16777217",
            "hyperstart.output_ring=64k",
            "agent.debug_console=maybe",
            "agent.debug_console_vport=0",
        ] {
            let err = Config::parse(line).unwrap_err();
            let name = line.split('=').next().unwrap();
            assert!(err.message().contains(name), "{err}");
        }
    }
}
