//! What a kernel, an initrd and a root image must be, looked up before a VM is started with them, so that who brings
//! their own is told what is wrong with it and not shown a console that stands still.
//!
//! A kernel's configuration is read where one lies beside it: `kernel.config` with a `kernel.json` that is about this
//! kernel (ours), or a distribution's `config-VERSION` beside `vmlinuz-VERSION`. Of any other kernel the boot shows what
//! is missing.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::machine::{Boot, Machine, PmemKind};

/// The largest configuration that is read, in bytes: a distribution's has 300 KiB.
const MAX_CONFIG: u64 = 4 << 20;
/// The most of an ELF file's notes that is looked at, in bytes.
const MAX_NOTES: u64 = 64 << 10;
const ELF_MAGIC: &[u8] = b"\x7fELF";
const X86_64: u64 = 62;
const PT_NOTE: u64 = 4;
/// XEN_ELFNOTE_PHYS32_ENTRY: the PVH entry.
const PVH_ENTRY: u32 = 18;
const EROFS_MAGIC: &[u8] = &0xe0f5_e1e2_u32.to_le_bytes();

/// How archives begin that a kernel may unpack, and the option that it takes.
const ARCHIVES: [(&[u8], Option<&str>); 8] = [
    (b"070701", None),
    (b"070702", None),
    (b"\x1f\x8b", Some("RD_GZIP")),
    (b"\x28\xb5\x2f\xfd", Some("RD_ZSTD")),
    (b"\x02\x21\x4c\x18", Some("RD_LZ4")),
    (b"\xfd7zXZ\0", Some("RD_XZ")),
    (b"BZh", Some("RD_BZIP2")),
    (b"\x5d\0\0", Some("RD_LZMA")),
];

/// Refuses a file that no kernel of this machine can be.
pub(crate) fn check_kernel(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    let head = head(&file)?;
    if head.get(..4) == Some(ELF_MAGIC) {
        return check_vmlinux(&file, &head);
    }
    let is_bzimage =
        head.get(0x1fe..0x200) == Some(&[0x55, 0xaa]) && head.get(0x202..0x206) == Some(b"HdrS");
    match is_bzimage {
        true => Ok(()),
        false => Err(other("neither a vmlinux (ELF) nor a bzImage")),
    }
}

fn check_vmlinux(file: &File, head: &[u8]) -> io::Result<()> {
    if head.get(4..6) != Some(&[2, 1]) || number(head, 18, 2) != Some(X86_64) {
        return Err(other("an ELF file of another processor than x86-64"));
    }
    match has_pvh_entry(file, head) {
        true => Ok(()),
        false => Err(other(
            "no PVH entry, so it cannot be booted directly: CONFIG_PVH=y, or use its bzImage",
        )),
    }
}

/// Whether a note says where the kernel is entered (PVH). A file that ends too early has none.
fn has_pvh_entry(file: &File, head: &[u8]) -> bool {
    let (Some(table), Some(size), Some(count)) =
        (number(head, 32, 8), number(head, 54, 2), number(head, 56, 2))
    else {
        return false;
    };
    (0..count).any(|index| {
        let at = usize::try_from(index * size).ok().zip(usize::try_from(table).ok());
        let Some(at) = at.and_then(|(offset, table)| table.checked_add(offset)) else {
            return false;
        };
        let field = |offset: usize, size| number(head, at.checked_add(offset)?, size);
        match (field(0, 4), field(8, 8), field(32, 8)) {
            (Some(PT_NOTE), Some(start), Some(length)) => notes_have_pvh(file, start, length),
            _ => false,
        }
    })
}

fn notes_have_pvh(file: &File, start: u64, length: u64) -> bool {
    let mut notes = vec![0; usize::try_from(length.min(MAX_NOTES)).unwrap_or_default()];
    if file.read_exact_at(&mut notes, start).is_err() {
        return false;
    }
    // A note is the lengths of its name and of what it describes, its kind, its name: elf(5).
    let words: Vec<&[u8]> = notes.chunks(4).collect();
    let kind = PVH_ENTRY.to_le_bytes();
    words.windows(4).any(|note| match note {
        [length, _, found, name] => *length == [4, 0, 0, 0] && *found == kind && *name == b"Xen\0",
        _ => false,
    })
}

/// Refuses what no kernel unpacks; gives the option that unpacks it.
pub(crate) fn check_initrd(path: &Path) -> io::Result<Option<&'static str>> {
    let head = head(&File::open(path)?)?;
    let known = ARCHIVES.iter().find(|(magic, _)| head.starts_with(magic));
    known.map(|(_, option)| *option).ok_or_else(|| other("not a cpio archive, compressed or not"))
}

/// Refuses what is not EROFS, by the name of what it is.
pub(crate) fn check_rootfs(path: &Path) -> io::Result<()> {
    let head = head(&File::open(path)?)?;
    if head.get(1024..1028) == Some(EROFS_MAGIC) {
        return Ok(());
    }
    let what = match () {
        () if head.get(1080..1082) == Some(&[0x53, 0xef]) => "an ext4 image",
        () if head.starts_with(b"hsqs") => "a squashfs image",
        () if head.starts_with(b"070701") => "a cpio archive: it is for --initrd",
        () if head.get(510..512) == Some(&[0x55, 0xaa]) => "a disk with partitions",
        () => "no EROFS image",
    };
    Err(other(format!("{what}; a root is EROFS, as `image-builder rootfs` makes it")))
}

/// Refuses a kernel whose configuration is at hand and lacks what this machine needs, naming the option.
pub(crate) fn check_config(
    machine: &Machine,
    is_ours: bool,
    needs: &[(&str, &str)],
) -> io::Result<()> {
    let Some(path) = config_beside(&machine.kernel, is_ours) else { return Ok(()) };
    let mut config = String::new();
    File::open(&path)?.take(MAX_CONFIG).read_to_string(&mut config)?;
    for (option, reason) in needs {
        let line = format!("CONFIG_{option}=");
        let value = config.lines().find_map(|have| have.strip_prefix(&line));
        match value {
            Some("y") => {}
            Some("m") => {
                return Err(other(format!(
                    "CONFIG_{option}=m in {path:?}: it is needed built in (=y) {reason}; init loads no modules"
                )));
            }
            Some(_) | None => {
                return Err(other(format!(
                    "CONFIG_{option} is off in {path:?}: it is needed {reason}"
                )));
            }
        }
    }
    Ok(())
}

/// What the boot of this machine takes, in the kernel's words and ours.
pub(crate) fn needs(
    machine: &Machine,
    unpacks: Option<&'static str>,
    verity: bool,
) -> Vec<(&'static str, &'static str)> {
    let mut needs = vec![
        ("TMPFS", "for /run"),
        ("DEVTMPFS", "for /dev"),
        ("CGROUPS", "for containers"),
        ("OVERLAY_FS", "for containers"),
    ];
    needs.push(match machine.kind.has_pci() {
        true => ("VIRTIO_PCI", "for the devices of a q35 or pc"),
        false => ("VIRTIO_MMIO_CMDLINE_DEVICES", "for the devices of a microvm"),
    });
    match &machine.boot {
        Boot::Initrd(_) => needs.push(("BLK_DEV_INITRD", "for an initrd")),
        Boot::Rootfs(_) => {
            needs.extend([
                ("EROFS_FS", "for the root image"),
                ("BLK_DEV_PMEM", "for a root in persistent memory"),
                ("FS_DAX", "for a root that is mapped"),
            ]);
            needs.push(match machine.pmem {
                PmemKind::VirtioPmem => ("VIRTIO_PMEM", "for a root in persistent memory"),
                PmemKind::Nvdimm => ("ACPI_NFIT", "for a root on an nvdimm"),
            });
        }
    }
    needs.extend(unpacks.map(|option| (option, "for this compression of the initrd")));
    if verity {
        needs.extend([
            ("DM_VERITY", "for a root that is checked (verity)"),
            ("DM_INIT", "for a root that is checked (dm-mod.create)"),
            ("CRYPTO_SHA256", "for a root that is checked (verity)"),
        ]);
    }
    needs
}

fn config_beside(kernel: &Path, is_ours: bool) -> Option<PathBuf> {
    let name = kernel.file_name()?.to_str()?;
    let version = name.strip_prefix("vmlinuz-").or_else(|| name.strip_prefix("vmlinux-"));
    let path = match version {
        Some(version) => kernel.with_file_name(format!("config-{version}")),
        None if is_ours => kernel.with_file_name("kernel.config"),
        None => return None,
    };
    fs::metadata(&path).is_ok_and(|metadata| metadata.is_file()).then_some(path)
}

/// The first 4 KiB, or as much as there is.
fn head(file: &File) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    file.take(4096).read_to_end(&mut head)?;
    Ok(head)
}

fn number(bytes: &[u8], at: usize, size: usize) -> Option<u64> {
    let field = bytes.get(at..at.checked_add(size)?)?;
    Some(field.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
}

fn other(reason: impl Into<String>) -> io::Error {
    io::Error::other(reason.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), bytes).unwrap();
        file
    }

    fn elf(machine: u8, note: &[u8]) -> Vec<u8> {
        let mut elf = vec![0; 64 + 56];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        (elf[18], elf[32], elf[54], elf[56]) = (machine, 64, 56, 1);
        (elf[64], elf[72], elf[96]) = (4, 120, u8::try_from(note.len()).unwrap());
        elf.extend(note);
        elf
    }

    const PVH: &[u8] = b"\x04\0\0\0\x08\0\0\0\x12\0\0\0Xen\0\0\0\0\x01\0\0\0\0";

    #[test]
    fn a_kernel_is_a_pvh_vmlinux_or_a_bzimage() {
        check_kernel(file(&elf(62, PVH)).path()).unwrap();
        let mut bzimage = vec![0; 4096];
        bzimage[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        bzimage[0x202..0x206].copy_from_slice(b"HdrS");
        check_kernel(file(&bzimage).path()).unwrap();
        for (bytes, reason) in [
            (&elf(183, PVH)[..], "another processor"),
            (&elf(62, b"\x04\0\0\0\x08\0\0\0\x11\0\0\0Xen\0")[..], "no PVH entry"),
            (b"\x7fELF\x02\x01", "another processor"),
            (b"#!/bin/sh\n", "neither"),
            (b"", "neither"),
        ] {
            let err = check_kernel(file(bytes).path()).unwrap_err().to_string();
            assert!(err.contains(reason), "{err}");
        }
        let mut wild = elf(62, PVH);
        wild[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(check_kernel(file(&wild).path()).is_err(), "a table beyond the file");
    }

    #[test]
    fn an_initrd_and_a_root_are_what_they_are_called() {
        assert_eq!(check_initrd(file(b"070701abc").path()).unwrap(), None);
        assert_eq!(check_initrd(file(b"\x1f\x8b\x08").path()).unwrap(), Some("RD_GZIP"));
        assert!(check_initrd(file(b"\x7fELF").path()).is_err());
        let mut erofs = vec![0; 2048];
        erofs[1024..1028].copy_from_slice(EROFS_MAGIC);
        check_rootfs(file(&erofs).path()).unwrap();
        let mut ext4 = vec![0; 2048];
        ext4[1080..1082].copy_from_slice(&[0x53, 0xef]);
        let err = check_rootfs(file(&ext4).path()).unwrap_err().to_string();
        assert!(err.contains("ext4") && err.contains("image-builder rootfs"), "{err}");
        assert!(check_rootfs(file(b"070701").path()).unwrap_err().to_string().contains("--initrd"));
    }

    #[test]
    fn an_option_that_is_off_or_a_module_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let machine = Machine::new(dir.path().join("vmlinuz-1.2"), Boot::Rootfs("/r".into()));
        let needs = needs(&machine, None, true);
        let mut config: String =
            needs.iter().map(|(name, _)| format!("CONFIG_{name}=y\n")).collect();
        check_config(&machine, false, &needs).unwrap(); // none at hand: the boot will show
        fs::write(dir.path().join("config-1.2"), &config).unwrap();
        check_config(&machine, false, &needs).unwrap();
        config = config.replace("CONFIG_EROFS_FS=y", "CONFIG_EROFS_FS=m");
        fs::write(dir.path().join("config-1.2"), &config).unwrap();
        let err = check_config(&machine, false, &needs).unwrap_err().to_string();
        assert!(err.contains("CONFIG_EROFS_FS=m") && err.contains("built in"), "{err}");
        config = config.replace("CONFIG_EROFS_FS=m", "# CONFIG_EROFS_FS is not set");
        fs::write(dir.path().join("config-1.2"), &config).unwrap();
        let err = check_config(&machine, false, &needs).unwrap_err().to_string();
        assert!(err.contains("CONFIG_EROFS_FS is off"), "{err}");
    }
}
