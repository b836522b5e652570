//! Mount options as mount(8) writes them: the ones that are flags of mount(2), and the rest for the filesystem.

use nix::mount::MsFlags;

use crate::error::{Code, Error, Result};

#[derive(Debug, PartialEq, Eq)]
pub struct MountOptions {
    pub flags: MsFlags,
    pub data: String,
}

const FLAGS: &[(&str, MsFlags)] = &[
    ("ro", MsFlags::MS_RDONLY),
    ("nosuid", MsFlags::MS_NOSUID),
    ("nodev", MsFlags::MS_NODEV),
    ("noexec", MsFlags::MS_NOEXEC),
    ("sync", MsFlags::MS_SYNCHRONOUS),
    ("dirsync", MsFlags::MS_DIRSYNC),
    ("noatime", MsFlags::MS_NOATIME),
    ("nodiratime", MsFlags::MS_NODIRATIME),
    ("relatime", MsFlags::MS_RELATIME),
    ("strictatime", MsFlags::MS_STRICTATIME),
    ("bind", MsFlags::MS_BIND),
    ("rbind", MsFlags::MS_BIND.union(MsFlags::MS_REC)),
];

/// What a fresh mount is anyway.
const DEFAULTS: &[&str] =
    &["", "defaults", "rw", "suid", "dev", "exec", "async", "atime", "diratime"];

impl MountOptions {
    pub fn parse(options: &[String]) -> Self {
        let mut flags = MsFlags::empty();
        let mut data = Vec::new();
        for option in options.iter().flat_map(|option| option.split(',')) {
            if let Some((_, flag)) = FLAGS.iter().find(|(name, _)| *name == option) {
                flags |= *flag;
            } else if !DEFAULTS.contains(&option) {
                data.push(option);
            }
        }
        Self { flags, data: data.join(",") }
    }
}

/// `local` takes the mode of its directory, in octal; 0777 as Kata's runtimes ask for.
pub fn directory_mode(options: &[String]) -> Result<u32> {
    let mut mode = 0o777;
    for option in options {
        let value =
            option.strip_prefix("mode=").and_then(|value| u32::from_str_radix(value, 8).ok());
        mode = value.filter(|mode| *mode <= 0o7777).ok_or_else(|| {
            Error::new(
                Code::Unimplemented,
                format!("option {option:?} of \"local\": not supported"),
            )
        })?;
    }
    Ok(mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[&str]) -> MountOptions {
        MountOptions::parse(&options.iter().map(|&option| option.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn flags_go_to_mount_and_the_rest_to_the_filesystem() {
        let parsed = parse(&["ro", "dax=always", "nodev", "defaults", "size=64m,mode=1777"]);
        assert_eq!(parsed.flags, MsFlags::MS_RDONLY | MsFlags::MS_NODEV);
        assert_eq!(parsed.data, "dax=always,size=64m,mode=1777");
    }

    #[test]
    fn a_mode_is_octal_and_anything_else_is_refused() {
        assert_eq!(directory_mode(&["mode=0750".to_owned()]).unwrap(), 0o750);
        for bad in ["mode=8", "mode=17777", "fsgid=5"] {
            assert_eq!(
                directory_mode(&[bad.to_owned()]).unwrap_err().code(),
                Code::Unimplemented,
                "{bad}"
            );
        }
    }
}
