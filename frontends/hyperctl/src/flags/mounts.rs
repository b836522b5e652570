//! What a container is given to mount, in docker's words: `-v SOURCE:DIR[:ro]` and `--mount type=…,source=…,target=…`.
//! Here is what the words mean; `mounts` has what becomes of it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::limits::bytes;

#[derive(Clone, Debug, Default, clap::Args, Deserialize, Serialize)]
pub struct MountFlags {
    /// A directory of this host, or a volume by its name, at DIR
    #[arg(short, long = "volume", value_name = "SOURCE:DIR[:ro]", value_parser = volume)]
    volumes: Vec<MountFlag>,
    /// The same by keys, and more kinds: type=bind|volume|block|tmpfs,source=SOURCE,target=DIR[,readonly]
    #[arg(long = "mount", value_name = "KEY=VALUE,...", value_parser = mount)]
    mounts: Vec<MountFlag>,
}

/// One of them.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct MountFlag {
    pub source: Source,
    /// Absolute, in the container.
    pub target: PathBuf,
    pub read_only: bool,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A directory or file of the host.
    Bind(PathBuf),
    /// A directory that hyperctl keeps, by its name.
    Volume(String),
    /// A file or device of the host with a file system on it.
    Block(PathBuf),
    /// Memory of the guest, with these options.
    Tmpfs(Vec<String>),
}

impl MountFlags {
    /// In the order of the kinds of words, and among those as they were said.
    pub fn all(&self) -> impl Iterator<Item = &MountFlag> {
        self.volumes.iter().chain(&self.mounts)
    }
}

/// Docker's rule for the names of volumes.
pub fn is_volume_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    first
        && name.len() <= 128
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

fn volume(text: &str) -> Result<MountFlag, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts[..] {
        [source, target] => (source, target, ""),
        [source, target, options] => (source, target, options),
        _ => return Err("SOURCE:DIR or SOURCE:DIR:ro; for memory there is --tmpfs DIR".to_owned()),
    };
    let mut read_only = false;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        read_only = match option {
            "ro" => true,
            "rw" => false,
            other => return Err(format!("option {other:?}: only ro and rw are known")),
        };
    }
    let source = match source.starts_with(['/', '.', '~']) {
        true => Source::Bind(absolute(source)?),
        false => Source::Volume(volume_name(source)?),
    };
    Ok(MountFlag { source, target: check_target(target)?, read_only })
}

fn mount(text: &str) -> Result<MountFlag, String> {
    let (mut kind, mut source, mut target) = ("volume", None, None);
    let (mut read_only, mut options) = (false, Vec::new());
    for word in text.split(',') {
        let (key, value) =
            word.split_once('=').map_or((word, None), |(key, value)| (key, Some(value)));
        let said = || value.filter(|value| !value.is_empty()).ok_or(format!("{key}: no value"));
        match key {
            "type" => kind = said()?,
            "source" | "src" => source = Some(said()?),
            "target" | "destination" | "dst" => target = Some(said()?),
            "readonly" | "ro" => read_only = is_true(key, value)?,
            "tmpfs-size" => options.push(format!("size={}", bytes(said()?)?)),
            "tmpfs-mode" => options.push(format!("mode={}", mode(said()?)?)),
            other => return Err(format!("{other:?}: no such key")),
        }
    }
    let target = check_target(target.ok_or("target=DIR is missing")?)?;
    if kind != "tmpfs" && !options.is_empty() {
        return Err("tmpfs-size and tmpfs-mode: they are of type=tmpfs".to_owned());
    }
    let needed = || source.ok_or(format!("source=… is missing for type={kind}"));
    let source = match kind {
        "bind" => Source::Bind(absolute(needed()?)?),
        "block" => Source::Block(absolute(needed()?)?),
        "volume" => Source::Volume(volume_name(needed()?)?),
        "tmpfs" if source.is_some() => return Err("source: a tmpfs has none".to_owned()),
        "tmpfs" => Source::Tmpfs(options),
        other => return Err(format!("type {other:?}: bind, volume, block and tmpfs are known")),
    };
    Ok(MountFlag { source, target, read_only })
}

fn is_true(key: &str, value: Option<&str>) -> Result<bool, String> {
    match value {
        None | Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(other) => Err(format!("{key}={other}: true or false")),
    }
}

fn mode(text: &str) -> Result<&str, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o7777 => Ok(text),
        _ => Err(format!("tmpfs-mode={text}: octal, such as 1777")),
    }
}

fn volume_name(name: &str) -> Result<String, String> {
    if is_volume_name(name) {
        return Ok(name.to_owned());
    }
    Err(format!("{name:?}: neither a path (/DIR, ./DIR) nor a volume's name"))
}

/// A host works in another directory than we do.
fn absolute(path: &str) -> Result<PathBuf, String> {
    std::path::absolute(path).map_err(|err| format!("{path:?}: {err}"))
}

fn check_target(target: &str) -> Result<PathBuf, String> {
    let path = Path::new(target);
    let leads_up = path.components().any(|part| part == std::path::Component::ParentDir);
    if !path.is_absolute() || target.trim_end_matches('/').is_empty() || leads_up {
        return Err(format!("{target:?} is not an absolute path below the root"));
    }
    Ok(path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flag(source: Source, read_only: bool) -> MountFlag {
        MountFlag { source, target: "/data".into(), read_only }
    }

    #[test]
    fn volumes_are_paths_or_names() {
        assert_eq!(volume("/srv:/data").unwrap(), flag(Source::Bind("/srv".into()), false));
        assert_eq!(volume("/srv:/data:ro").unwrap(), flag(Source::Bind("/srv".into()), true));
        assert_eq!(volume("db:/data:rw").unwrap(), flag(Source::Volume("db".into()), false));
        let here = std::env::current_dir().unwrap().join("x");
        assert_eq!(volume("./x:/data").unwrap(), flag(Source::Bind(here), false));
        for bad in [
            "/data",
            "a:b:c:d",
            "/srv:data",
            "/srv:/",
            "/srv:/data:z",
            "-x:/data",
            ":/data",
            "/srv:/a/../b",
        ] {
            assert!(volume(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn mounts_have_keys() {
        for (text, expected) in [
            ("type=bind,source=/srv,target=/data", flag(Source::Bind("/srv".into()), false)),
            ("type=bind,src=/srv,dst=/data,readonly", flag(Source::Bind("/srv".into()), true)),
            ("source=db,destination=/data,ro=true", flag(Source::Volume("db".into()), true)),
            (
                "type=block,source=/dev/sdb,target=/data,ro=0",
                flag(Source::Block("/dev/sdb".into()), false),
            ),
            (
                "type=tmpfs,target=/data,tmpfs-size=1m,tmpfs-mode=700",
                flag(Source::Tmpfs(vec!["size=1048576".into(), "mode=700".into()]), false),
            ),
        ] {
            assert_eq!(mount(text).unwrap(), expected, "{text}");
        }
        for bad in [
            "type=bind,source=/srv",
            "type=bind,target=/data",
            "type=nfs,source=/srv,target=/data",
            "type=bind,source=/srv,target=/data,bind-propagation=shared",
            "type=bind,source=/srv,target=/data,tmpfs-size=1m",
            "type=tmpfs,source=/srv,target=/data",
            "type=tmpfs,target=/data,tmpfs-mode=9",
            "type=bind,source=,target=/data",
            "type=bind,source=/srv,target=/data,ro=perhaps",
        ] {
            assert!(mount(bad).is_err(), "{bad}");
        }
    }
}
