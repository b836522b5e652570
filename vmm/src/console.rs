//! The guest's console: kept in a bounded log, and understood as far as a failed boot needs it.
//!
//! QEMU writes the console to its stdout, which is a pipe: of a VM that outlives its owner one with a name, that QEMU
//! itself holds open, so that an heir goes on reading where its predecessor was killed. A task here copies it to the log and through a [`Transcript`], which
//! keeps the last lines, the kernel's panic line and init's last step. A guest that writes for ever fills no disk: at
//! [`LOG_LIMIT`] the log is moved to `NAME.old` and begun anew. What the guest writes is data, never terminal
//! control: the transcript holds printable text only (the log has the raw bytes).

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions as FileOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ChildStdout;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::{OpenOptions, Receiver};
use tokio::sync::watch;

use crate::error::{Error, Result};

/// The size at which the log is begun anew, in bytes; there is one older part.
pub const LOG_LIMIT: u64 = 4 << 20;
/// How many lines an error quotes.
const TAIL_LINES: usize = 12;
/// The longest line that is kept whole, in bytes.
const MAX_LINE: usize = 400;
/// How the kernel says that it is lost.
const PANIC_MARK: &str = "Kernel panic - not syncing";
/// How init begins the line of each boot step.
const STEP_MARK: &str = "init: ";

/// What a console has said, as far as it matters.
#[derive(Clone, Debug, Default)]
pub struct Transcript {
    tail: VecDeque<String>,
    line: Vec<u8>,
    panic: Option<String>,
    step: Option<String>,
}

impl Transcript {
    /// Takes the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            match byte {
                b'\n' => self.end_line(),
                _ if self.line.len() < MAX_LINE => self.line.push(byte),
                _ => {}
            }
        }
    }

    /// The kernel's own line about its panic, if there was one.
    pub fn panic(&self) -> Option<&str> {
        self.panic.as_deref()
    }

    /// init's last step, without its mark.
    pub fn step(&self) -> Option<&str> {
        self.step.as_deref()
    }

    /// The last lines, the unfinished one included.
    pub fn tail(&self) -> String {
        let mut lines: Vec<&str> = self.tail.iter().map(String::as_str).collect();
        let unfinished = printable(&self.line);
        if !unfinished.is_empty() {
            lines.push(&unfinished);
        }
        lines.join("\n")
    }

    fn end_line(&mut self) {
        let line = printable(&std::mem::take(&mut self.line));
        if line.is_empty() {
            return;
        }
        let said = without_timestamp(&line);
        if self.panic.is_none() && said.starts_with(PANIC_MARK) {
            self.panic = Some(said.to_owned());
        }
        if let Some(step) = said.strip_prefix(STEP_MARK) {
            self.step = Some(step.to_owned());
        }
        if self.tail.len() == TAIL_LINES {
            self.tail.pop_front();
        }
        self.tail.push_back(line);
    }
}

/// The line as text without control characters and escape sequences' starts, and without spaces at its end.
pub(crate) fn printable(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let visible: String =
        text.chars().map(|c| if c == '\t' { ' ' } else { c }).filter(|c| !c.is_control()).collect();
    visible.trim_end().to_owned()
}

/// A kernel line without its `[    0.123456] `.
fn without_timestamp(line: &str) -> &str {
    let stripped = line.strip_prefix('[').and_then(|rest| rest.split_once("] "));
    match stripped {
        Some((time, said)) if time.trim().bytes().all(|b| b.is_ascii_digit() || b == b'.') => said,
        Some(_) | None => line,
    }
}

/// What the console's reader has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Progress {
    panicked: bool,
    closed: bool,
}

/// A console that is being read.
#[derive(Debug)]
pub struct Console {
    log: PathBuf,
    transcript: Arc<Mutex<Transcript>>,
    progress: watch::Receiver<Progress>,
}

impl Console {
    /// Copies `stdout` to the log at `path` and through a transcript, until its end.
    ///
    /// # Errors
    /// [`Error::Io`] if the log cannot be made.
    pub fn read(stdout: ChildStdout, path: &Path) -> Result<Self> {
        let log = Log::create(path).map_err(Error::io(format!("make console log {path:?}")))?;
        let pipe = Receiver::from_owned_fd(stdout.into()).map_err(Error::io("read the console"))?;
        Ok(Self::copy(pipe, log, Transcript::default()))
    }

    /// The same of a pipe with a name.
    ///
    /// # Errors
    /// [`Error::Io`] if the log cannot be made.
    pub fn read_named(pipe: Receiver, path: &Path) -> Result<Self> {
        let log = Log::create(path).map_err(Error::io(format!("make console log {path:?}")))?;
        Ok(Self::copy(pipe, log, Transcript::default()))
    }

    /// Goes on with a log that another owner has begun.
    ///
    /// # Errors
    /// [`Error::Io`] if the pipe or the log cannot be opened.
    pub fn resume(pipe: &Path, path: &Path) -> Result<Self> {
        let operation = || format!("go on with console log {path:?}");
        let said = fs::read(path).unwrap_or_default(); // none: it was being begun anew
        let mut transcript = Transcript::default();
        transcript.push(&said);
        let log = Log::append(path).map_err(Error::io(operation()))?;
        let pipe = OpenOptions::new().open_receiver(pipe).map_err(Error::io(operation()))?;
        Ok(Self::copy(pipe, log, transcript))
    }

    fn copy(pipe: Receiver, log: Log, transcript: Transcript) -> Self {
        let panicked = transcript.panic().is_some();
        let path = log.path.clone();
        let transcript = Arc::new(Mutex::new(transcript));
        let (report, progress) = watch::channel(Progress { panicked, closed: false });
        tokio::spawn(copy(pipe, log, Arc::clone(&transcript), report));
        Self { log: path, transcript, progress }
    }

    /// Where the log is.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// What was said until now.
    pub fn transcript(&self) -> Transcript {
        lock(&self.transcript).clone()
    }

    /// Waits until the kernel has panicked; for ever if it does not.
    pub async fn panicked(&self) {
        self.reached(|progress| progress.panicked).await;
    }

    /// Waits until all was read: QEMU has closed it, by ending.
    pub async fn closed(&self) {
        self.reached(|progress| progress.closed).await;
    }

    async fn reached(&self, wanted: impl FnMut(&Progress) -> bool) {
        if self.progress.clone().wait_for(wanted).await.is_err() {
            // The reader is gone without having reached it: it never will.
            std::future::pending::<()>().await;
        }
    }
}

fn lock(transcript: &Mutex<Transcript>) -> MutexGuard<'_, Transcript> {
    transcript.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn copy(
    mut pipe: Receiver,
    mut log: Log,
    transcript: Arc<Mutex<Transcript>>,
    report: watch::Sender<Progress>,
) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let bytes = match pipe.read(&mut buffer).await {
            Ok(0) => break,
            Ok(count) => buffer.get(..count).unwrap_or_default(),
            Err(err) => {
                log::warn!("read the console: {err}");
                break;
            }
        };
        log.write(bytes);
        let mut transcript = lock(&transcript);
        transcript.push(bytes);
        if transcript.panic().is_some() {
            report.send_modify(|progress| progress.panicked = true);
        }
    }
    report.send_modify(|progress| progress.closed = true);
}

/// The bounded file. A log that cannot be written is said once; the guest goes on.
struct Log {
    path: PathBuf,
    file: Option<File>,
    bytes: u64,
}

impl Log {
    fn create(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: Some(create_private(path)?), bytes: 0 })
    }

    fn append(path: &Path) -> io::Result<Self> {
        let file = FileOptions::new().append(true).create(true).mode(0o600).open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file: Some(file), bytes })
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Err(err) = self.try_write(bytes) {
            log::warn!("write console log {:?}: {err}: the rest is lost", self.path);
            self.file = None;
        }
    }

    fn try_write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        if self.bytes >= LOG_LIMIT {
            fs::rename(&self.path, self.path.with_added_extension("old"))?;
            *file = create_private(&self.path)?;
            self.bytes = 0;
        }
        self.bytes += bytes.len() as u64;
        file.write_all(bytes)
    }
}

/// An empty file of mode 0600, in place of whatever was there.
pub(crate) fn create_private(path: &Path) -> io::Result<File> {
    FileOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transcript(text: &str) -> Transcript {
        let mut transcript = Transcript::default();
        for chunk in text.as_bytes().chunks(7) {
            transcript.push(chunk); // lines come in pieces
        }
        transcript
    }

    #[test]
    fn a_panic_is_found_with_and_without_a_timestamp() {
        let panic = "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100";
        let stamped = transcript(&format!(
            "[    0.1] hello\r\n[    0.512345] {panic}\r\n[    0.6] CPU: 0\r\n"
        ));
        assert_eq!(stamped.panic(), Some(panic));
        assert_eq!(transcript(&format!("{panic}\n")).panic(), Some(panic));
        assert_eq!(transcript("init: a guest may say Kernel panic - not syncing\n").panic(), None);
        let first = transcript(&format!("{panic}\nKernel panic - not syncing: second\n"));
        assert_eq!(first.panic(), Some(panic));
    }

    #[test]
    fn the_last_step_of_init_is_kept() {
        let said = transcript("init: mounts\n[    0.3] init: listen\nsomething else\n");
        assert_eq!(said.step(), Some("listen"));
        assert_eq!(transcript("[    0.3] Run /init as init process\n").step(), None);
    }

    #[test]
    fn the_tail_is_bounded_printable_and_has_the_unfinished_line() {
        let text: String = (0..100).map(|n| format!("line {n}\r\n")).collect();
        let tail = transcript(&format!("{text}\x1b[2Jhalf a li")).tail();
        assert_eq!(tail.lines().count(), TAIL_LINES + 1);
        assert!(tail.ends_with("line 99\n[2Jhalf a li"), "{tail:?}");
        let long = transcript(&"x".repeat(1 << 20));
        assert_eq!(long.tail().len(), MAX_LINE);
    }

    #[test]
    fn the_log_begins_anew_at_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        let mut log = Log::create(&path).unwrap();
        let chunk = vec![b'x'; 1 << 20];
        for _ in 0..10 {
            log.write(&chunk);
        }
        assert!(fs::metadata(&path).unwrap().len() <= LOG_LIMIT);
        assert_eq!(fs::metadata(dir.path().join("console.log.old")).unwrap().len(), LOG_LIMIT);
    }
}
