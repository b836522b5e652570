//! `create_filesystem`: an ext4 on a disk that has nothing yet, by the tool of the guest's image where it carries one.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::Read;
use std::time::Duration;

use crate::error::{Code, Context, Error, Result};
use crate::offload::{self, tool};
use crate::reaper::Reaper;

pub const OPTION: &str = "create_filesystem";
const FSTYPE: &str = "ext4";
/// Tables of a large disk are written in seconds; the machine may be slow.
const DEADLINE: Duration = Duration::from_secs(120);
/// Every file system and partition table has a mark in here.
const LOOKED_AT: usize = 128 << 10;
/// A volume that lives as long as its sandbox: no journal, nothing kept for root, an inode for each 160 KiB, as Kata
/// makes it.
const WORDS: [&CStr; 11] = [
    c"mkfs.ext4",
    c"-q",
    c"-F",
    c"-O",
    c"^has_journal",
    c"-m",
    c"0",
    c"-i",
    c"163840",
    c"-I",
    c"256",
];

/// Refuses what cannot be made.
pub fn check(fstype: &str) -> Result<()> {
    if fstype == FSTYPE {
        return Ok(());
    }
    let message = format!("driver option {OPTION:?}: {fstype:?}: only {FSTYPE} is made");
    Err(Error::new(Code::Unimplemented, message))
}

/// Makes it. A disk with anything on it is left as it is, and refused.
pub async fn make(device: &str, reaper: &Reaper) -> Result<()> {
    let what = || format!("make {FSTYPE} on {device:?}");
    let blank = offload::collect(reaper, DEADLINE, 1, || Ok(vec![u8::from(is_blank(device)?)]));
    if blank.await.context(what)? != [1] {
        let message = "there is something on it, which is not overwritten";
        return Err(Error::new(Code::FailedPrecondition, message)).context(what);
    }
    let path = CString::new(device).map_err(|_nul| Error::new(Code::InvalidArgument, "a NUL"))?;
    let words: Vec<&CStr> = WORDS.into_iter().chain([path.as_c_str()]).collect();
    tool::run(reaper, DEADLINE, &words, &[]).await.map(drop).context(what)
}

fn is_blank(device: &str) -> Result<bool> {
    let mut start = Vec::with_capacity(LOOKED_AT);
    File::open(device)?.take(LOOKED_AT as u64).read_to_end(&mut start)?;
    Ok(start.iter().all(|byte| *byte == 0))
}
