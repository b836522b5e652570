//! The signals that reach hyperctl while a VM or a process is in its care.
//!
//! One listener from the first moment on, so that there is no instant in which a signal would end us by default and
//! leave the terminal raw or a VM behind. What a signal means depends on the moment: while a VM boots it ends the
//! boot, later it is forwarded to the container's process.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::{Context as _, Result};

/// Signal numbers, as signal(7) has them on x86 and arm64.
pub const SIGHUP: u32 = 1;
pub const SIGINT: u32 = 2;
pub const SIGQUIT: u32 = 3;
pub const SIGKILL: u32 = 9;
pub const SIGUSR1: u32 = 10;
pub const SIGUSR2: u32 = 12;
pub const SIGTERM: u32 = 15;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// To be forwarded to the process, under this number.
    Forward(u32),
    /// The terminal has another size.
    Resize,
}

pub struct Signals {
    hangup: Signal,
    interrupt: Signal,
    quit: Signal,
    terminate: Signal,
    user1: Signal,
    user2: Signal,
    resize: Signal,
}

impl Signals {
    pub fn listen() -> Result<Signals> {
        let listen = |kind| signal(kind).context(|| "listen for signals".into());
        Ok(Signals {
            hangup: listen(SignalKind::hangup())?,
            interrupt: listen(SignalKind::interrupt())?,
            quit: listen(SignalKind::quit())?,
            terminate: listen(SignalKind::terminate())?,
            user1: listen(SignalKind::user_defined1())?,
            user2: listen(SignalKind::user_defined2())?,
            resize: listen(SignalKind::window_change())?,
        })
    }

    /// Cancel safe: a signal that is not handed out by a cancelled call comes with the next one.
    pub async fn next(&mut self) -> Event {
        tokio::select! {
            _ = self.hangup.recv() => Event::Forward(SIGHUP),
            _ = self.interrupt.recv() => Event::Forward(SIGINT),
            _ = self.quit.recv() => Event::Forward(SIGQUIT),
            _ = self.terminate.recv() => Event::Forward(SIGTERM),
            _ = self.user1.recv() => Event::Forward(SIGUSR1),
            _ = self.user2.recv() => Event::Forward(SIGUSR2),
            _ = self.resize.recv() => Event::Resize,
        }
    }

    /// The next signal that would end a process by default, for the time in which there is nobody to forward it to.
    pub async fn next_ending(&mut self) -> u32 {
        loop {
            match self.next().await {
                Event::Forward(signal) => return signal,
                Event::Resize => {}
            }
        }
    }
}

/// A signal as the user writes it: `9`, `KILL` or `SIGKILL`, any case.
pub fn parse(text: &str) -> std::result::Result<u32, String> {
    if let Ok(number) = text.parse::<u32>() {
        return if (1..=64).contains(&number) {
            Ok(number)
        } else {
            Err(format!("signal numbers are 1 to 64, not {number}"))
        };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    NAMES
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, number)| *number)
        .ok_or_else(|| format!("there is no signal {text:?}"))
}

/// signal(7), the numbers of x86 and arm64.
const NAMES: &[(&str, u32)] = &[
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_read_as_kill_reads_them() {
        assert_eq!(parse("9"), Ok(9));
        assert_eq!(parse("KILL"), Ok(9));
        assert_eq!(parse("sigterm"), Ok(15));
        assert!(parse("0").is_err());
        assert!(parse("65").is_err());
        assert!(parse("SIGNOPE").unwrap_err().contains("SIGNOPE"));
    }
}
