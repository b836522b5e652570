//! The kernel command line, read once and passed down. The names are Kata's where Kata has one
//! (docs/kernel.md lists them); a parameter that is not ours is the kernel's or another's and is left alone.

use std::time::Duration;

use crate::error::{Code, Context, Error, Result};

/// Where the host waits for the guest's word that it is ready: a vsock port of the host's.
pub type ReadyPort = u32;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub log_level: log::LevelFilter,
    /// How long a device that a request names may take to appear (`agent.hotplug_timeout`, seconds).
    pub hotplug_timeout: Duration,
    /// The vsock port that the API listens on (`agent.server_addr=vsock://-1:PORT`).
    pub agent_port: u32,
    /// `hyperstart.ready`; none: the host finds out by connecting, as Kata's runtimes do.
    pub ready_port: Option<ReadyPort>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            log_level: log::LevelFilter::Warn,
            hotplug_timeout: Duration::from_secs(3),
            agent_port: hyperstart_protocol::AGENT_PORT,
            ready_port: None,
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
        for parameter in line.split_ascii_whitespace() {
            let Some((name, value)) = parameter.split_once('=') else { continue };
            let bad = || {
                Error::new(
                    Code::InvalidArgument,
                    format!("kernel parameter {name}: bad value {value:?}"),
                )
            };
            match name {
                "agent.log" => config.log_level = value.parse().map_err(|_| bad())?,
                "agent.hotplug_timeout" => {
                    config.hotplug_timeout = Duration::from_secs(value.parse().map_err(|_| bad())?);
                }
                "agent.server_addr" => {
                    let port = value.strip_prefix("vsock://-1:").ok_or_else(bad)?;
                    config.agent_port = port.parse().map_err(|_| bad())?;
                }
                "hyperstart.ready" => config.ready_port = Some(value.parse().map_err(|_| bad())?),
                _ => {}
            }
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_its_parameters_among_others() {
        let config = Config::parse(
            "console=ttyS0 quiet agent.log=debug agent.hotplug_timeout=7 agent.server_addr=vsock://-1:99 \
             hyperstart.ready=1028 root=/dev/pmem0\n",
        )
        .unwrap();
        assert_eq!(config.log_level, log::LevelFilter::Debug);
        assert_eq!(config.hotplug_timeout, Duration::from_secs(7));
        assert_eq!(config.agent_port, 99);
        assert_eq!(config.ready_port, Some(1028));
    }

    #[test]
    fn an_empty_line_gives_the_defaults() {
        assert_eq!(Config::parse("").unwrap(), Config::default());
    }

    #[test]
    fn a_bad_value_is_named() {
        for line in [
            "agent.log=loud",
            "agent.hotplug_timeout=-1",
            "hyperstart.ready=x",
            "agent.server_addr=unix:///x",
        ] {
            let err = Config::parse(line).unwrap_err();
            let name = line.split('=').next().unwrap();
            assert!(err.message().contains(name), "{err}");
        }
    }
}
