//! The mounts that a process sees: proc_pid_mountinfo(5).

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub id: u64,
    pub parent: u64,
    /// Which directory of the filesystem it shows.
    pub root: String,
    pub target: String,
    /// Of the mount.
    pub options: Vec<String>,
    /// `shared:N`, `master:N`, `unbindable`; none of them: private.
    pub propagation: Vec<String>,
    pub fstype: String,
    pub source: String,
    /// Of the filesystem.
    pub super_options: Vec<String>,
}

impl Mount {
    pub fn has(&self, option: &str) -> bool {
        self.options.iter().any(|have| have == option)
    }

    pub fn super_has(&self, option: &str) -> bool {
        self.super_options.iter().any(|have| have == option)
    }

    /// The number of its peer group, or of the group that it gets events from.
    pub fn group(&self, kind: &str) -> Option<u64> {
        self.propagation
            .iter()
            .find_map(|tag| tag.strip_prefix(kind)?.strip_prefix(':')?.parse().ok())
    }
}

/// All of them, in the kernel's order.
#[derive(Clone, Debug)]
pub struct Mounts(Vec<Mount>);

impl Mounts {
    /// Reads what a process has printed of its `/proc/self/mountinfo`; a line that is none fails the test.
    pub fn parse(text: &str) -> Self {
        let mount =
            |line: &str| parse(line).unwrap_or_else(|| panic!("not of mountinfo: {line:?}"));
        Self(text.lines().map(mount).collect())
    }

    pub fn all(&self) -> &[Mount] {
        &self.0
    }

    /// The mount on a path; of several the last, which covers the others.
    pub fn at(&self, target: &str) -> &Mount {
        self.find(target).unwrap_or_else(|| panic!("nothing on {target:?} among {:#?}", self.0))
    }

    pub fn find(&self, target: &str) -> Option<&Mount> {
        self.0.iter().rev().find(|mount| mount.target == target)
    }
}

fn parse(line: &str) -> Option<Mount> {
    let (front, back) = line.split_once(" - ")?;
    let front: Vec<&str> = front.split(' ').collect();
    let back: Vec<&str> = back.split(' ').collect();
    let list = |text: &str| text.split(',').map(str::to_owned).collect();
    Some(Mount {
        id: front.first()?.parse().ok()?,
        parent: front.get(1)?.parse().ok()?,
        root: (*front.get(3)?).to_owned(),
        target: (*front.get(4)?).to_owned(),
        options: list(front.get(5)?),
        propagation: front.get(6..)?.iter().map(|&tag| tag.to_owned()).collect(),
        fstype: (*back.first()?).to_owned(),
        source: (*back.get(1)?).to_owned(),
        super_options: list(back.get(2)?),
    })
}
