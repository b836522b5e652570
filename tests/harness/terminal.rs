//! A command on a terminal of its own, as a person has it: a controlling one, with a size and modes.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Instant;

use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::PATIENCE;
use crate::command::{code, wait};

/// A command that runs on a terminal.
pub struct Session {
    child: Child,
    /// The person's side.
    master: File,
    /// The command's side, held open to look at its modes.
    slave: OwnedFd,
    output: Receiver<Vec<u8>>,
    screen: String,
}

impl Session {
    /// Starts a command on a new terminal of this size.
    pub fn start(command: &Command, columns: u16, rows: u16) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("open a terminal");
        grantpt(&master).expect("grantpt");
        unlockpt(&master).expect("unlockpt");
        let name = ptsname(&master, Vec::new()).expect("ptsname");
        let slave = open(name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())
            .expect("open a pts");
        tcsetwinsize(&master, size(columns, rows)).expect("set a terminal's size");
        let side = || Stdio::from(slave.try_clone().expect("share a terminal"));
        // setsid(1): a session of its own, with this as its controlling terminal.
        let mut started = Command::new("setsid");
        started.arg("--ctty").arg("--wait").arg(command.get_program()).args(command.get_args());
        started.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let child = started
            .stdin(side())
            .stdout(side())
            .stderr(side())
            .spawn()
            .expect("start on a terminal");
        let master = File::from(master);
        let output = pump(master.try_clone().expect("share a terminal"));
        Self { child, master, slave, output, screen: String::new() }
    }

    /// Types.
    pub fn types(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).expect("type");
    }

    /// Changes the size, as dragging a window's corner does.
    pub fn resize(&mut self, columns: u16, rows: u16) {
        tcsetwinsize(&self.master, size(columns, rows)).expect("resize a terminal");
    }

    /// Waits until the text has appeared; what came before is not looked at again.
    pub fn shows(&mut self, text: &str) {
        let begun = Instant::now();
        loop {
            if let Some(at) = self.screen.find(text) {
                self.screen.drain(..at + text.len());
                return;
            }
            let left = PATIENCE.saturating_sub(begun.elapsed());
            match self.output.recv_timeout(left) {
                Ok(bytes) => self.screen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(_) => panic!("{text:?} has not appeared; the terminal shows {:?}", self.screen),
            }
        }
    }

    /// Whether the text has appeared by now, since what was looked at before.
    pub fn has_shown(&mut self, text: &str) -> bool {
        while let Ok(bytes) = self.output.try_recv() {
            self.screen.push_str(&String::from_utf8_lossy(&bytes));
        }
        self.screen.contains(text)
    }

    /// Whether the terminal gives every key to the command as it is typed, without an echo.
    pub fn is_raw(&self) -> bool {
        let modes = tcgetattr(&self.slave).expect("a terminal's modes").local_modes;
        !modes.intersects(LocalModes::ICANON | LocalModes::ECHO)
    }

    /// The id of `setsid`, whose child is the command.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the command's end and gives its exit code.
    pub fn wait(&mut self) -> i32 {
        code(wait(&mut self.child))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.child.kill().expect("kill a command");
        }
    }
}

fn size(columns: u16, rows: u16) -> Winsize {
    Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 }
}

/// Reads the terminal in the background, until its last user is gone (EIO then, pty(7)).
fn pump(mut master: File) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut buffer = vec![0; 4096];
        while let Ok(count @ 1..) = master.read(&mut buffer) {
            if sender.send(buffer[..count].to_owned()).is_err() {
                break;
            }
        }
    });
    receiver
}
