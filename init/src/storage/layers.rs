//! `erofs.multi-layer`: the disks of one root, each a storage of its own, in one request. `X-kata.overlay-lower` marks a
//! read-only EROFS layer, the topmost first; `X-kata.overlay-upper` the disk to write to; all name the root's mount point.
//!
//! They become a mount for each disk beside the root, and an overlay of them, so that they are counted and taken down as
//! any other storage is.

use std::borrow::Cow;
use std::path::Path;

use super::overlay::CREATE_DIRECTORY;
use super::{Storage, check_mount_point};
use crate::error::{Code, Context, Error, Result};

const DRIVER: &str = "erofs.multi-layer";
/// Options for the guest, not for mount(2).
const OURS: &str = "X-kata.";
const MARK: &str = "X-kata.multi-layer=true";
const UPPER: &str = "X-kata.overlay-upper";
const LOWER: &str = "X-kata.overlay-lower";
/// What containerd's snapshotter asks for: the two directories that an overlay takes.
const DIRECTORIES: [&str; 2] =
    ["X-kata.mkdir.path={{ mount 0 }}/upper", "X-kata.mkdir.path={{ mount 0 }}/work"];
/// overlayfs takes 500 layers; a page of options takes fewer.
const LAYERS_MAX: usize = 64;

/// The same storages, with the disks of such a root as what is mounted for it. The overlay comes last.
pub fn expand(storages: &[Storage]) -> Result<Cow<'_, [Storage]>> {
    let is_layer = |storage: &&Storage| {
        storage.driver == DRIVER || storage.options.iter().any(|option| option == MARK)
    };
    let layers: Vec<&Storage> = storages.iter().filter(is_layer).collect();
    let Some(first) = layers.first() else { return Ok(Cow::Borrowed(storages)) };
    let root = &first.mount_point;
    check_mount_point(root)?;
    let mut expanded: Vec<Storage> =
        storages.iter().filter(|storage| !is_layer(storage)).cloned().collect();
    expanded.extend(stack(root, &layers).context(|| format!("layers of {root:?}"))?);
    Ok(Cow::Owned(expanded))
}

fn stack(root: &Path, layers: &[&Storage]) -> Result<Vec<Storage>> {
    let invalid = |message: &str| Error::new(Code::InvalidArgument, message);
    if layers.len() > LAYERS_MAX {
        return Err(invalid(&format!("{} disks: {LAYERS_MAX} at the most", layers.len())));
    }
    let beside = root.parent().unwrap_or(root).join("multi-layer");
    let (mut mounts, mut lower, mut upper) = (Vec::new(), Vec::new(), None);
    for layer in layers {
        if layer.mount_point != root {
            let message = format!("{:?}: another mount point", layer.mount_point);
            return Err(invalid(&message));
        }
        check_options(layer)?;
        let marked = |mark: &str| layer.options.iter().any(|option| option == mark);
        let is_upper = marked(UPPER) || !marked(LOWER) && layer.fstype != "erofs";
        let name = match (is_upper, &upper) {
            (true, Some(_)) => return Err(invalid("two disks to write to")),
            (true, None) => "upper".to_owned(),
            (false, _) => format!("lower-{}", lower.len()),
        };
        let mount_point = beside.join(name);
        if is_upper {
            upper = Some(mount_point.clone());
        } else {
            lower.push(mount_point.display().to_string());
        }
        mounts.push(mount(layer, mount_point));
    }
    let upper = upper.ok_or_else(|| invalid("no disk to write to"))?;
    if lower.is_empty() {
        return Err(invalid("no read-only layer"));
    }
    let (upper, work) = (upper.join("upper"), upper.join("work"));
    mounts.push(Storage {
        driver: "overlayfs".to_owned(),
        source: "overlay".to_owned(),
        fstype: "overlay".to_owned(),
        driver_options: [&upper, &work]
            .map(|directory| format!("{CREATE_DIRECTORY}{}", directory.display()))
            .into(),
        options: vec![
            format!("lowerdir={}", lower.join(":")),
            format!("upperdir={}", upper.display()),
            format!("workdir={}", work.display()),
        ],
        mount_point: root.to_owned(),
        ..Storage::default()
    });
    Ok(mounts)
}

/// Verified layers, partitions and file systems to be made are other work, and are asked for by such options.
fn check_options(layer: &Storage) -> Result<()> {
    let known = |option: &String| {
        let directory = DIRECTORIES.iter().any(|known| {
            let mode = option.strip_prefix(known);
            mode.is_some_and(|mode| mode.is_empty() || mode.starts_with(':'))
        });
        directory || [MARK, UPPER, LOWER].contains(&option.as_str()) || !option.starts_with(OURS)
    };
    match layer.options.iter().find(|option| !known(option)) {
        None => Ok(()),
        Some(option) => Err(Error::new(
            Code::Unimplemented,
            format!("option {option:?}: not supported by this guest"),
        )),
    }
}

fn mount(layer: &Storage, mount_point: std::path::PathBuf) -> Storage {
    let driver = if layer.driver == DRIVER { "blk" } else { &layer.driver };
    let options = layer.options.iter().filter(|option| !option.starts_with(OURS));
    let mut options: Vec<String> = options.cloned().collect();
    if layer.fstype == "erofs" && !options.iter().any(|option| option == "ro") {
        options.push("ro".to_owned());
    }
    Storage { driver: driver.to_owned(), options, mount_point, ..layer.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(source: &str, fstype: &str, options: &[&str]) -> Storage {
        Storage {
            driver: DRIVER.to_owned(),
            source: source.to_owned(),
            fstype: fstype.to_owned(),
            options: options.iter().map(|&option| option.to_owned()).collect(),
            mount_point: "/run/kata-containers/c/rootfs".into(),
            ..Storage::default()
        }
    }

    #[test]
    fn disks_become_mounts_and_an_overlay() {
        let storages = [
            disk("02", "ext4", &[MARK, UPPER, "X-kata.mkdir.path={{ mount 0 }}/upper:0755"]),
            Storage { driver: "local".to_owned(), ..Storage::default() },
            disk("03", "erofs", &[MARK, LOWER, "ro"]),
            disk("04", "erofs", &[MARK, LOWER]),
        ];
        let expanded = expand(&storages).unwrap();
        let beside = Path::new("/run/kata-containers/c/multi-layer");
        assert_eq!(expanded.len(), 5);
        assert_eq!(expanded[0].driver, "local");
        assert_eq!(expanded[1].mount_point, beside.join("upper"));
        assert_eq!((expanded[1].driver.as_str(), expanded[1].options.len()), ("blk", 0));
        assert_eq!(
            (expanded[2].mount_point.as_path(), expanded[3].options.as_slice()),
            (beside.join("lower-0").as_path(), ["ro".to_owned()].as_slice())
        );
        let overlay = &expanded[4];
        assert_eq!(
            overlay.options[0],
            "lowerdir=/run/kata-containers/c/multi-layer/lower-0:/run/kata-containers/c/multi-layer/lower-1"
        );
        assert_eq!(overlay.driver_options.len(), 2);
        let plain = [Storage::default()];
        assert!(matches!(expand(&plain).unwrap(), Cow::Borrowed(_)));
    }

    #[test]
    fn what_is_no_root_is_refused() {
        let (upper, lower) = (disk("02", "ext4", &[UPPER]), disk("03", "erofs", &[LOWER]));
        let elsewhere = Storage { mount_point: "/run/other/rootfs".into(), ..lower.clone() };
        for (storages, words) in [
            (vec![upper.clone()], "no read-only layer"),
            (vec![lower.clone()], "no disk to write to"),
            (vec![upper.clone(), upper.clone(), lower.clone()], "two disks"),
            (vec![upper.clone(), elsewhere], "another mount point"),
            (
                vec![upper.clone(), disk("03", "erofs", &[LOWER, "X-kata.dmverity.mode=x"])],
                "dmverity",
            ),
            (
                vec![upper, disk("03", "erofs", &["X-kata.mkdir.path={{ mount 0 }}/../x"])],
                "mkdir.path",
            ),
        ] {
            let err = expand(&storages).unwrap_err();
            assert!(err.message().contains(words), "{words}: {err}");
        }
    }
}
