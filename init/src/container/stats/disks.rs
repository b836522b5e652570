//! `io.stat`: what a cgroup has read from disks and written to them.

/// One disk's counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Disk {
    pub major: u32,
    pub minor: u32,
    pub read_bytes: u64,
    pub written_bytes: u64,
    pub discarded_bytes: u64,
    pub reads: u64,
    pub writes: u64,
    pub discards: u64,
}

/// `MAJ:MIN rbytes=N wbytes=N rios=N wios=N dbytes=N dios=N` a line. A disk that was not used has no numbers, or no line.
pub fn parse(text: &str) -> Vec<Disk> {
    text.lines().filter_map(disk).collect()
}

fn disk(line: &str) -> Option<Disk> {
    let (device, counters) = line.trim_end().split_once(' ')?;
    let (major, minor) = device.split_once(':')?;
    let mut disk =
        Disk { major: major.parse().ok()?, minor: minor.parse().ok()?, ..Disk::default() };
    for (name, value) in counters.split(' ').filter_map(|word| word.split_once('=')) {
        let Ok(value) = value.parse() else { continue };
        match name {
            "rbytes" => disk.read_bytes = value,
            "wbytes" => disk.written_bytes = value,
            "dbytes" => disk.discarded_bytes = value,
            "rios" => disk.reads = value,
            "wios" => disk.writes = value,
            "dios" => disk.discards = value,
            _ => {} // of the cost model: cost.usage
        }
    }
    Some(disk)
}
