//! Huge pages for a hugetlbfs volume: taken from the guest's memory when it is mounted, given back with it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Code, Context, Error, Result};
use crate::log;
use crate::textfile;

const POOLS: &str = "/sys/kernel/mm/hugepages";

/// So many pages of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HugePages {
    page_bytes: u64,
    count: u64,
}

impl HugePages {
    /// `pagesize=` and `size=` of the options, which Kata's runtimes always give.
    pub fn parse(options: &[String]) -> Result<Self> {
        let number = |name: &str| {
            let options = options.iter().flat_map(|option| option.split(','));
            let value = options.filter_map(|option| option.strip_prefix(name)).next_back();
            value.and_then(bytes).filter(|bytes| *bytes > 0).ok_or_else(|| {
                let message = format!("hugetlbfs: option \"{name}\" is missing or no size");
                Error::new(Code::InvalidArgument, message)
            })
        };
        let page_bytes = number("pagesize=")?;
        Ok(Self { page_bytes, count: number("size=")?.div_ceil(page_bytes) })
    }

    /// Adds them to the kernel's pool, all or none; blocks while the kernel makes room.
    pub fn take(&self) -> Result<()> {
        let Self { page_bytes, count } = *self;
        let what = || format!("take {count} huge pages of {page_bytes} bytes");
        let pool = self.pool();
        if !pool.exists() {
            let sizes: Vec<String> = fs::read_dir(POOLS)
                .map(|list| list.flatten().map(|entry| entry.file_name().display().to_string()))
                .map(Iterator::collect)
                .unwrap_or_default();
            let message = format!("this guest has {}", sizes.join(", "));
            return Err(Error::new(Code::Unimplemented, message)).context(what);
        }
        let short = |have: &str| {
            let message = format!("the guest has memory for {have}: give its VM more");
            Err(Error::new(Code::ResourceExhausted, message)).context(what)
        };
        // The kernel would take all there is before it gives up, and kill for it.
        let available = available_bytes()? / page_bytes;
        if count > available {
            return short(&available.to_string());
        }
        let before = read(&pool)?;
        let wanted = before.saturating_add(count);
        fs::write(&pool, wanted.to_string()).context(what)?;
        let got = read(&pool)?;
        if got >= wanted {
            return Ok(());
        }
        fs::write(&pool, before.to_string()).context(what)?;
        short(&got.saturating_sub(before).to_string())
    }

    /// Gives them back. A page that somebody still has goes when it is free.
    pub fn give_back(&self) {
        let pool = self.pool();
        let given = read(&pool)
            .and_then(|have| Ok(fs::write(&pool, have.saturating_sub(self.count).to_string())?));
        if let Err(err) = given {
            log::warn!("give back {} huge pages: {err}", self.count);
        }
    }

    fn pool(&self) -> PathBuf {
        let name = format!("hugepages-{}kB/nr_hugepages", self.page_bytes / 1024);
        Path::new(POOLS).join(name)
    }
}

fn read(pool: &Path) -> Result<u64> {
    let text = textfile::read(pool)?;
    text.trim().parse().map_err(|_err| {
        Error::new(Code::Internal, format!("read {pool:?}: {text:?} is not a number"))
    })
}

fn available_bytes() -> Result<u64> {
    let meminfo = textfile::read(Path::new("/proc/meminfo"))?;
    let kib = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = kib.and_then(|text| text.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    Ok(kib.unwrap_or_default().saturating_mul(1024))
}

/// As the kernel's memparse: `2M`, `1g`, `2097152`.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit: u64 = match text.get(digits.len()..)?.to_ascii_lowercase().as_str() {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[&str]) -> Result<HugePages> {
        HugePages::parse(&options.iter().map(|&option| option.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn pages_are_counted_up() {
        let two_mib = 2 << 20;
        for (options, count) in [
            (vec!["pagesize=2M", "size=4194304"], 2),
            (vec!["mode=1777,pagesize=2097152,size=3m"], 2),
            (vec!["size=1k", "pagesize=2m"], 1),
        ] {
            assert_eq!(parse(&options).unwrap(), HugePages { page_bytes: two_mib, count });
        }
        for bad in
            [vec![], vec!["pagesize=2M"], vec!["pagesize=0,size=1"], vec!["pagesize=2x,size=1"]]
        {
            assert_eq!(parse(&bad).unwrap_err().code(), Code::InvalidArgument, "{bad:?}");
        }
        assert!(parse(&["pagesize=2M", "size=99999999999999g"]).is_err(), "more than there are");
    }
}
