//! The mount table of this process, as proc_pid_mountinfo(5) has it.

use std::fs;
use std::io;

#[derive(Clone, Debug)]
pub struct Mount {
    pub target: String,
    /// Of the mount.
    pub options: Vec<String>,
    /// `shared:N`, `master:N`, …
    pub tags: Vec<String>,
    pub fstype: String,
    pub source: String,
    /// Of the filesystem.
    pub super_options: Vec<String>,
}

impl Mount {
    /// As the OCI specification names it.
    pub fn propagation(&self) -> String {
        let has = |prefix: &str| self.tags.iter().any(|tag| tag.starts_with(prefix));
        match (has("shared:"), has("master:"), has("unbindable")) {
            (true, false, false) => "shared".to_owned(),
            (false, true, false) => "slave".to_owned(),
            (false, false, true) => "unbindable".to_owned(),
            (false, false, false) => "private".to_owned(),
            _ => self.tags.join(","),
        }
    }

    pub fn has(&self, option: &str) -> bool {
        self.options.iter().any(|own| own == option)
    }

    /// Whether it is mounted at the path or below it.
    pub fn is_within(&self, path: &str) -> bool {
        let rest = self.target.strip_prefix(path.trim_end_matches('/'));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// In the order in which they were made.
pub fn read() -> io::Result<Vec<Mount>> {
    let wrong = |line: &str| io::Error::other(format!("mountinfo: {line:?}"));
    fs::read_to_string("/proc/self/mountinfo")?
        .lines()
        .map(|line| parse(line).ok_or_else(|| wrong(line)))
        .collect()
}

/// `ID PARENT MAJOR:MINOR ROOT TARGET OPTIONS TAGS... - FSTYPE SOURCE SUPER_OPTIONS`
fn parse(line: &str) -> Option<Mount> {
    let (of_mount, of_filesystem) = line.split_once(" - ")?;
    let mut words = of_mount.split(' ').skip(4);
    let target = unescape(words.next()?);
    let options = list(words.next()?);
    let tags = words.map(str::to_owned).collect();
    let mut words = of_filesystem.split(' ');
    let (fstype, source) = (words.next()?.to_owned(), unescape(words.next()?));
    Some(Mount { target, options, tags, fstype, source, super_options: list(words.next()?) })
}

fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::to_owned).collect()
}

/// The kernel writes four characters as octal.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}
