//! What went through each interface since it came: proc_net_dev(5), which tells it in one read for any namespace.

use std::path::Path;

use nix::unistd::Pid;

use crate::error::{Code, Context, Error, Result};
use crate::textfile;

/// What one interface counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    pub name: String,
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub rx_errors: u64,
    pub rx_dropped: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    pub tx_errors: u64,
    pub tx_dropped: u64,
}

/// Those of the interfaces that process `pid` sees: its network namespace may be its own.
pub fn counters_of(pid: Pid) -> Result<Vec<Counters>> {
    read(&format!("/proc/{pid}/net/dev"))
}

/// Those of the sandbox's own interfaces.
pub fn counters() -> Result<Vec<Counters>> {
    read("/proc/net/dev")
}

/// As many as the bound of such a file has: a container may have made any number in a network of its own.
fn read(path: &str) -> Result<Vec<Counters>> {
    let text = textfile::read(Path::new(path))?;
    parse(&text).context(|| format!("read {path:?}"))
}

/// Two lines of headings, then `name: 8 numbers received, 8 numbers sent`.
fn parse(text: &str) -> Result<Vec<Counters>> {
    let malformed = || Error::new(Code::Internal, "not as proc_net_dev(5) has it");
    text.lines().skip(2).map(|line| line_of(line).ok_or_else(malformed)).collect()
}

fn line_of(line: &str) -> Option<Counters> {
    let (name, numbers) = line.rsplit_once(':')?;
    let mut numbers = numbers.split_ascii_whitespace().map(|word| word.parse::<u64>().ok());
    let mut next = || numbers.next().flatten();
    let (rx_bytes, rx_packets, rx_errors, rx_dropped) = (next()?, next()?, next()?, next()?);
    for _fifo_frame_compressed_multicast in 0..4 {
        next()?;
    }
    let (tx_bytes, tx_packets, tx_errors, tx_dropped) = (next()?, next()?, next()?, next()?);
    let name = name.trim().to_owned();
    Some(Counters {
        name,
        rx_bytes,
        rx_packets,
        rx_errors,
        rx_dropped,
        tx_bytes,
        tx_packets,
        tx_errors,
        tx_dropped,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_an_interface() {
        let text = "Inter-|   Receive                            |  Transmit\n \
                    face |bytes packets errs drop fifo frame compressed multicast|bytes packets\n    \
                    lo:       1 2 0 0 0 0 0 0 1 2 0 0 0 0 0 0\n  \
                    eth0: 1500 10 3 4 5 6 7 8 9000 20 21 22 23 24 25 26\n";
        let found = parse(text).unwrap();
        assert_eq!(found.len(), 2);
        let eth0 = Counters {
            name: "eth0".to_owned(),
            rx_bytes: 1500,
            rx_packets: 10,
            rx_errors: 3,
            rx_dropped: 4,
            tx_bytes: 9000,
            tx_packets: 20,
            tx_errors: 21,
            tx_dropped: 22,
        };
        assert_eq!(found.last(), Some(&eth0));
    }

    #[test]
    fn a_line_that_is_short_is_an_error() {
        for bad in ["eth0 1 2", "eth0: 1 2 3", "eth0: 1 2 3 x 5 6 7 8 9 10 11 12"] {
            assert!(parse(&format!("\n\n{bad}\n")).is_err(), "{bad}");
        }
    }
}
