//! What `image-builder` can be asked, word by word.

use clap::{Args, Parser, Subcommand, ValueEnum};
use image_builder::additions::Addition;
use image_builder::container::Format;
use image_builder::error::{Error, Result};
use image_builder::{ImageConfig, erofs};
use std::path::PathBuf;

/// Builds guest images and container images, the same bytes from the same input.
///
/// Each image FILE gets a description beside it, of the same name ending in .json, with its size and SHA-256. A file
/// appears whole or not at all. Nothing needs root.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Make the guest's first root for machines without pmem: a cpio archive.
    Initrd(Initrd),
    /// Make the guest's root for pmem: an EROFS image that is mapped, not read (DAX).
    Rootfs(Rootfs),
    /// Make a container image from a directory or an archive.
    ///
    /// Layers are merged in memory: nothing is unpacked on this machine, and no root is needed. Every blob is checked against
    /// its digest. What leaves its tree (.., absolute paths, paths through links), comes twice, or is larger than the limits
    /// is refused by name, and no image is made.
    Container(Container),
    /// Make the default container image from a static busybox.
    Busybox(Busybox),
}

#[derive(Args)]
pub struct Initrd {
    /// The program that becomes PID 1: a static ELF file
    #[arg(long, value_name = "PATH")]
    pub init: PathBuf,
    /// Where the archive goes, for example target/guest/initrd.img
    #[arg(long, short, value_name = "FILE")]
    pub output: PathBuf,
    /// How it is stored; lz4 needs CONFIG_RD_LZ4 in the guest's kernel
    #[arg(long, value_enum, default_value_t = Compress::None)]
    pub compress: Compress,
    #[command(flatten)]
    pub more: More,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Compress {
    None,
    Lz4,
}

#[derive(Args)]
pub struct More {
    /// A file or directory for the guest's own root beside init (may be repeated); without DST it has the place of SRC
    #[arg(long, value_name = "SRC:DST")]
    pub add: Vec<Addition>,
    /// A list of the same, one a line
    #[arg(long, value_name = "LIST")]
    pub files: Vec<PathBuf>,
    /// A directory that is laid over the root, such as one with usr/sbin/iptables-save and its libraries (may be repeated)
    #[arg(long, value_name = "DIR")]
    pub overlay: Vec<PathBuf>,
    /// A static busybox with a name for each of its applets: an image for debugging, in which `agent.debug_console` on the
    /// kernel's command line gives the host a shell
    #[arg(long, value_name = "BUSYBOX")]
    pub debug_shell: Option<PathBuf>,
}

#[derive(Args)]
pub struct Rootfs {
    /// The program that becomes PID 1: a static ELF file
    #[arg(long, value_name = "PATH")]
    pub init: PathBuf,
    /// Where the image goes, for example target/guest/rootfs.erofs
    #[arg(long, short, value_name = "FILE")]
    pub output: PathBuf,
    #[command(flatten)]
    pub more: More,
    /// Append a hash tree, whose root the manifest has: no changed block of the image is read by a guest (dm-verity).
    /// Such a root is read, not mapped
    #[arg(long)]
    pub verity: bool,
    #[command(flatten)]
    pub shape: Shape,
}

#[derive(Args)]
pub struct Shape {
    /// Make the file's length a multiple of this many MiB: 2 for pmem on x86-64, 128 for nvdimms on arm64
    #[arg(long, value_name = "MIB", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=1024))]
    pub align: u64,
}

impl Shape {
    pub fn options(&self) -> erofs::Options {
        erofs::Options { alignment: self.align << 20, ..erofs::Options::default() }
    }
}

#[derive(Args)]
pub struct Busybox {
    /// A static busybox; Debian has one in the package busybox-static. It is run once, to list its applets
    #[arg(long, value_name = "PATH", default_value = "/bin/busybox")]
    pub binary: PathBuf,
    /// A file with the applets' names, instead of running the program (for one of another architecture)
    #[arg(long, value_name = "FILE")]
    pub applets: Option<PathBuf>,
    /// What the image is called
    #[arg(long, default_value = "busybox")]
    pub name: String,
    /// Where the image goes, for example target/guest/images/busybox.erofs
    #[arg(long, short, value_name = "FILE")]
    pub output: PathBuf,
    #[command(flatten)]
    pub shape: Shape,
}

#[derive(Args)]
pub struct Container {
    /// A root directory, an OCI layout, or an archive made by docker save, podman save or docker export
    #[arg(long, value_name = "SOURCE")]
    pub from: PathBuf,
    /// What the source is
    #[arg(long, value_enum, default_value_t = Format::Auto)]
    pub format: Format,
    /// Which image, if the source holds several: its name or digest
    #[arg(long, value_name = "REFERENCE")]
    pub image: Option<String>,
    /// For which machine, as OCI names it (amd64, arm64) [default: this one's]
    #[arg(long, value_name = "NAME")]
    pub arch: Option<String>,
    /// What the image is called [default: as in the source, else the output's name]
    #[arg(long)]
    pub name: Option<String>,
    /// Where the image goes, for example target/guest/images/NAME.erofs
    #[arg(long, short, value_name = "FILE")]
    pub output: PathBuf,
    /// The most that its files and decompressed layers may take, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 16 << 10, value_parser = clap::value_parser!(u64).range(1..=16 << 20))]
    pub max_size: u64,
    /// Take device nodes beside null, zero, full, random, urandom, tty, console, ptmx, tun and fuse
    #[arg(long)]
    pub any_device: bool,
    /// No file is newer than this many seconds after 1970; archives keep their times without it, directories get 1970
    #[arg(long, value_name = "SECONDS", env = "SOURCE_DATE_EPOCH")]
    pub mtime: Option<u64>,
    /// Everything belongs to root, whoever owns it in the source
    #[arg(long)]
    pub root_owned: bool,
    #[command(flatten)]
    pub change: Change,
    #[command(flatten)]
    pub shape: Shape,
}

/// What the image says about running it; each takes the place of what the source says.
#[derive(Args)]
pub struct Change {
    /// A word of what runs by default (may be repeated)
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    pub cmd: Vec<String>,
    /// A word of the entry point, which runs whatever the user says (may be repeated)
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    pub entrypoint: Vec<String>,
    /// A variable of the environment, added to the source's (may be repeated)
    #[arg(long, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// The directory to run in
    #[arg(long, value_name = "PATH")]
    pub workdir: Option<String>,
    /// Who runs it: USER[:GROUP], by name or number
    #[arg(long)]
    pub user: Option<String>,
    /// The signal that asks it to stop
    #[arg(long, value_name = "SIGNAL")]
    pub stop_signal: Option<String>,
}

impl Change {
    /// Refuses what no image may say, then puts it over what the source says.
    pub fn apply(self, config: &mut ImageConfig) -> Result<()> {
        for variable in self.env {
            let Some((name, _)) = variable.split_once('=').filter(|(name, _)| !name.is_empty())
            else {
                return Err(Error::refused(format!("--env {variable:?}: not NAME=VALUE")));
            };
            config.env.retain(|own| own.split_once('=').is_none_or(|(own, _)| own != name));
            config.env.push(variable);
        }
        if let Some(path) = self.workdir.as_ref().filter(|path| !path.starts_with('/')) {
            return Err(Error::refused(format!("--workdir {path:?}: not an absolute path")));
        }
        let replace = |own: &mut Vec<String>, words: Vec<String>| match words.is_empty() {
            true => {}
            false => *own = words,
        };
        replace(&mut config.cmd, self.cmd);
        replace(&mut config.entrypoint, self.entrypoint);
        config.working_dir =
            self.workdir.unwrap_or_else(|| std::mem::take(&mut config.working_dir));
        config.user = self.user.unwrap_or_else(|| std::mem::take(&mut config.user));
        config.stop_signal =
            self.stop_signal.unwrap_or_else(|| std::mem::take(&mut config.stop_signal));
        Ok(())
    }
}
