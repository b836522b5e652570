//! `hyperctl` as its users run it, in a place of its own, and a look at what it leaves behind.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::PATIENCE;
use crate::guest;

/// What a command said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The exit code, or 128 + the signal's number.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Said {
    /// The stdout of a command that must have been content.
    pub fn ok(&self) -> &str {
        assert_eq!(self.code, 0, "{self:#?}");
        &self.stdout
    }
}

/// A user's place: state and temporary files in directories that nothing else uses.
pub struct Place {
    directory: TempDir,
    binary: PathBuf,
    environment: Vec<(String, String)>,
}

impl Place {
    pub fn new() -> Self {
        guest::file("vmlinux");
        guest::file("initrd.img");
        guest::file("images/busybox.erofs");
        // Short: sockets below it have 108 bytes for their names (unix(7)).
        let directory = tempfile::Builder::new().prefix("hc").tempdir().expect("make a directory");
        fs::create_dir(directory.path().join("tmp")).expect("make a directory");
        Self { directory, binary: guest::binary("hyperctl"), environment: Vec::new() }
    }

    /// Sets a variable for all commands to come.
    pub fn set(&mut self, name: &str, value: impl AsRef<Path>) {
        self.environment.push((name.to_owned(), value.as_ref().display().to_string()));
    }

    /// The state directory.
    pub fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// A file or directory of this place, for the test's own use.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A `hyperctl` command that is not started.
    pub fn command<const N: usize>(&self, words: [&str; N]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(words);
        self.furnish(&mut command);
        command
    }

    /// Gives any program the environment of this place.
    pub fn furnish(&self, command: &mut Command) {
        command
            .env("HYPERSTART_STATE_DIR", self.state())
            .env("HYPERSTART_STORE_DIR", self.path("store"))
            .env("HYPERSTART_VOLUME_DIR", self.path("volumes"))
            .env("TMPDIR", self.directory.path().join("tmp"));
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
    }

    /// Runs `hyperctl` to its end.
    pub fn run<const N: usize>(&self, words: [&str; N]) -> Said {
        self.run_with_input(words, b"")
    }

    /// Runs `hyperctl` to its end, with words that a test has put together.
    pub fn run_words(&self, words: &[&str]) -> Said {
        let mut command = self.command([]);
        command.args(words);
        finish(command, b"")
    }

    /// Runs `hyperctl` with an input that ends.
    pub fn run_with_input<const N: usize>(&self, words: [&str; N], input: &[u8]) -> Said {
        finish(self.command(words), input)
    }

    /// Ids of processes that were started from this place and still run. Every one of them has its environment.
    pub fn processes(&self) -> Vec<(u32, String)> {
        let mark = format!("HYPERSTART_STATE_DIR={}", self.state().display());
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").expect("list /proc").flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            // A process may be gone since it was listed.
            let Ok(environment) = fs::read(entry.path().join("environ")) else { continue };
            if environment.split(|&byte| byte == 0).any(|variable| variable == mark.as_bytes()) {
                let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
                found.push((pid, String::from_utf8_lossy(&words).replace('\0', " ")));
            }
        }
        found
    }

    /// Waits until no process of this place runs, and then finds nothing of a pod on disk.
    pub fn assert_nothing_left(&self) {
        let begun = Instant::now();
        loop {
            let left = (self.processes(), self.files());
            if left.0.is_empty() && left.1.is_empty() {
                return;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "left behind: processes {:#?}, files {:#?}",
                left.0,
                left.1
            );
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// What lies in the temporary directory, and below `pods`.
    fn files(&self) -> Vec<PathBuf> {
        let mut left = Vec::new();
        for directory in [self.directory.path().join("tmp"), self.state().join("pods")] {
            // Without a pod there is no such directory.
            let Ok(entries) = fs::read_dir(directory) else { continue };
            let is_lock = |path: &PathBuf| path.ends_with(".lock"); // one for all pods, for ever
            left.extend(entries.flatten().map(|entry| entry.path()).filter(|path| !is_lock(path)));
        }
        left
    }
}

impl Default for Place {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Place {
    /// Ends what a failed test has left running: each process by its id, and only those of this place.
    fn drop(&mut self) {
        for (pid, _) in self.processes() {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
            if let Err(errno) = nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL) {
                eprintln!("kill {pid}: {errno}"); // gone by itself
            }
        }
    }
}

/// Runs a command to its end, or fails the test when its deadline has passed.
pub fn finish(mut command: Command, input: &[u8]) -> Said {
    let mut child = start(command.stdin(Stdio::piped()));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // A command that does not read its input closes it; then there is nobody to give it to.
    let feed = thread::spawn(move || stdin.write_all(&input).is_ok());
    let said = finish_started(child);
    feed.join().unwrap();
    said
}

/// Starts a command whose output is for [`finish_started`].
pub fn start(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap_or_else(|err| panic!("{command:?}: {err}"))
}

/// Waits for the end of a started command and of its output.
pub fn finish_started(child: Child) -> Said {
    let (code, stdout, stderr) = finish_bytes(child);
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Said { code, stdout: text(stdout), stderr: text(stderr) }
}

/// The same of output that is no text: code, stdout, stderr.
pub fn finish_bytes(mut child: Child) -> (i32, Vec<u8>, Vec<u8>) {
    let (stdout, stderr) =
        (gather(child.stdout.take().unwrap()), gather(child.stderr.take().unwrap()));
    let status = wait(&mut child);
    // Whoever got the pipe from the command and stays would keep the output open for ever.
    let bytes = |gathered: Receiver<Vec<u8>>| {
        gathered.recv_timeout(PATIENCE).expect("the end of a command's output")
    };
    (code(status), bytes(stdout), bytes(stderr))
}

fn gather(mut stream: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("read a command's output");
        sender.send(bytes).is_ok() // else nobody waits for it any more
    });
    receiver
}

/// Waits for a child's end; one that outlives the deadline is killed, and the test fails.
pub fn wait(child: &mut Child) -> ExitStatus {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("wait for a command") {
            return status;
        }
        if begun.elapsed() > PATIENCE {
            child.kill().expect("kill a command");
            panic!("a command is not done after {} s", PATIENCE.as_secs());
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// The exit code, or 128 + the signal's number.
pub fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

/// Asks again until it is so, or fails the test.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what}: not within {} s", PATIENCE.as_secs());
        thread::sleep(Duration::from_millis(50));
    }
}
