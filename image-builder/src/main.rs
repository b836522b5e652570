//! `image-builder`: arguments in, library calls, one line about each file that was made.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool speaks there")]

use clap::{Args, Parser, Subcommand, ValueEnum};
use image_builder::container::{Format, Request};
use image_builder::cpio::Compression;
use image_builder::error::{Context, Error, Result};
use image_builder::limits::Limits;
use image_builder::manifest::Manifest;
use image_builder::output::Written;
use image_builder::progress::{Terminal, size};
use image_builder::{Image, ImageConfig, busybox, config, container, cpio, erofs, guest, output};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Builds guest images and container images, the same bytes from the same input.
///
/// Each image FILE gets a description beside it, of the same name ending in .json, with its size and SHA-256. A file
/// appears whole or not at all. Nothing needs root.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make the guest's first root for machines without pmem: a cpio archive.
    Initrd(Initrd),
    /// Make the guest's root for pmem: an EROFS image that is mapped, not read (DAX).
    Rootfs(Rootfs),
    /// Make a container image from a directory or an archive.
    Container(Container),
    /// Make the default container image from a static busybox.
    Busybox(Busybox),
}

#[derive(Args)]
struct Initrd {
    /// The program that becomes PID 1: a static ELF file
    #[arg(long, value_name = "PATH")]
    init: PathBuf,
    /// Where the archive goes, for example target/guest/initrd.img
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// How it is stored; lz4 needs CONFIG_RD_LZ4 in the guest's kernel
    #[arg(long, value_enum, default_value_t = Compress::None)]
    compress: Compress,
}

#[derive(Clone, Copy, ValueEnum)]
enum Compress {
    None,
    Lz4,
}

#[derive(Args)]
struct Rootfs {
    /// The program that becomes PID 1: a static ELF file
    #[arg(long, value_name = "PATH")]
    init: PathBuf,
    /// Where the image goes, for example target/guest/rootfs.erofs
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    shape: Shape,
}

#[derive(Args)]
struct Shape {
    /// Make the file's length a multiple of this many MiB: 2 for pmem on x86-64
    #[arg(long, value_name = "MIB", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=1024))]
    align: u64,
}

impl Shape {
    fn options(&self) -> erofs::Options {
        erofs::Options { alignment: self.align << 20, ..erofs::Options::default() }
    }
}

#[derive(Args)]
struct Busybox {
    /// A static busybox; Debian has one in the package busybox-static. It is run once, to list its applets
    #[arg(long, value_name = "PATH", default_value = "/bin/busybox")]
    binary: PathBuf,
    /// A file with the applets' names, instead of running the program (for one of another architecture)
    #[arg(long, value_name = "FILE")]
    applets: Option<PathBuf>,
    /// What the image is called
    #[arg(long, default_value = "busybox")]
    name: String,
    /// Where the image goes, for example target/guest/images/busybox.erofs
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    shape: Shape,
}

/// Layers are merged in memory: nothing is unpacked on this machine, and no root is needed. Every blob is checked against
/// its digest. What leaves its tree (.., absolute paths, paths through links), comes twice, or is larger than the limits
/// is refused by name, and no image is made.
#[derive(Args)]
struct Container {
    /// A root directory, an OCI layout, or an archive made by docker save, podman save or docker export
    #[arg(long, value_name = "SOURCE")]
    from: PathBuf,
    /// What the source is
    #[arg(long, value_enum, default_value_t = SourceFormat::Auto)]
    format: SourceFormat,
    /// Which image, if the source holds several: its name or digest
    #[arg(long, value_name = "REFERENCE")]
    image: Option<String>,
    /// For which machine, as OCI names it (amd64, arm64) [default: this one's]
    #[arg(long, value_name = "NAME")]
    arch: Option<String>,
    /// What the image is called [default: as in the source, else the output's name]
    #[arg(long)]
    name: Option<String>,
    /// Where the image goes, for example target/guest/images/NAME.erofs
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// The most that its files and decompressed layers may take, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 16 << 10, value_parser = clap::value_parser!(u64).range(1..=16 << 20))]
    max_size: u64,
    /// No file is newer than this many seconds after 1970; archives keep their times without it, directories get 1970
    #[arg(long, value_name = "SECONDS", env = "SOURCE_DATE_EPOCH")]
    mtime: Option<u64>,
    /// Everything belongs to root, whoever owns it in the source
    #[arg(long)]
    root_owned: bool,
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    shape: Shape,
}

/// What the image says about running it; each takes the place of what the source says.
#[derive(Args)]
struct Change {
    /// A word of what runs by default (may be repeated)
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    cmd: Vec<String>,
    /// A word of the entry point, which runs whatever the user says (may be repeated)
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    entrypoint: Vec<String>,
    /// A variable of the environment, added to the source's (may be repeated)
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// The directory to run in
    #[arg(long, value_name = "PATH")]
    workdir: Option<String>,
    /// Who runs it: USER[:GROUP], by name or number
    #[arg(long)]
    user: Option<String>,
    /// The signal that asks it to stop
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum SourceFormat {
    /// Seen from what is in it
    Auto,
    /// A directory that becomes the root
    Dir,
    /// A tar archive of a root file system (docker export)
    Rootfs,
    /// An OCI image layout, or an archive of one
    Oci,
    /// What docker save writes
    Docker,
}

impl From<SourceFormat> for Format {
    fn from(format: SourceFormat) -> Format {
        match format {
            SourceFormat::Auto => Format::Auto,
            SourceFormat::Dir => Format::Directory,
            SourceFormat::Rootfs => Format::RootfsArchive,
            SourceFormat::Oci => Format::Oci,
            SourceFormat::Docker => Format::Docker,
        }
    }
}

impl Change {
    /// Refuses what no image may say, then puts it over what the source says.
    fn apply(self, config: &mut ImageConfig) -> Result<()> {
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

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Initrd(arguments) => initrd(&arguments),
        Command::Rootfs(arguments) => rootfs(&arguments),
        Command::Container(arguments) => container_image(arguments),
        Command::Busybox(arguments) => busybox_image(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("image-builder: {err}");
            ExitCode::FAILURE
        }
    }
}

fn initrd(arguments: &Initrd) -> Result<()> {
    let Initrd { init, output, compress } = arguments;
    let tree = guest::tree(init)?;
    let (compression, format) = match compress {
        Compress::None => (Compression::None, "cpio"),
        Compress::Lz4 => (Compression::Lz4, "cpio+lz4"),
    };
    check_output(output)?;
    let written = cpio::write(&tree, compression, output)?;
    Manifest::new(output, format, &written, &tree)?.store(output)?;
    report(output, &written);
    Ok(())
}

fn rootfs(arguments: &Rootfs) -> Result<()> {
    let Rootfs { init, output, shape } = arguments;
    let tree = guest::tree(init)?;
    check_output(output)?;
    let written = erofs::write(&tree, &shape.options(), output, &Terminal::default())?;
    Manifest::new(output, "erofs", &written, &tree)?.store(output)?;
    report(output, &written);
    Ok(())
}

fn container_image(arguments: Container) -> Result<()> {
    let output = &arguments.output;
    check_output(output)?;
    let request = Request {
        source: &arguments.from,
        format: arguments.format.into(),
        reference: arguments.image.as_deref(),
        architecture: arguments.arch.as_deref(),
        limits: Limits { content: arguments.max_size << 20, ..Limits::default() },
        mtime: arguments.mtime,
        is_root_owned: arguments.root_owned,
    };
    let progress = Terminal::default();
    let mut built = container::build(&request, output::directory_of(output)?, &progress)?;
    arguments.change.apply(&mut built.config)?;
    let written = erofs::write(&built.tree, &arguments.shape.options(), output, &progress)?;
    let stem =
        || output.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let image = Image {
        name: arguments.name.or(built.name).unwrap_or_else(stem),
        architecture: built.architecture,
        config: built.config,
        size: written.size,
        sha256: written.sha256.clone(),
        source: built.digest,
    };
    image.store(output)?;
    report(output, &written);
    Ok(())
}

fn busybox_image(arguments: &Busybox) -> Result<()> {
    let Busybox { binary, applets, name, output, shape } = arguments;
    let applets = match applets {
        Some(file) => read_words(file)?,
        None => busybox::applets(binary)?,
    };
    let tree = busybox::tree(binary, &applets)?;
    check_output(output)?;
    let written = erofs::write(&tree, &shape.options(), output, &Terminal::default())?;
    let image = Image {
        name: name.clone(),
        architecture: config::architecture().into(),
        config: busybox::config(),
        size: written.size,
        sha256: written.sha256.clone(),
        source: String::new(),
    };
    image.store(output)?;
    report(output, &written);
    Ok(())
}

fn read_words(file: &Path) -> Result<Vec<String>> {
    let bytes = config::read_bounded(file, config::JSON_MAX)?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Error::refused(format!("read {file:?}: not UTF-8")))?;
    Ok(text.split_whitespace().map(str::to_owned).collect())
}

/// The description lies beside the image, so the two must not be one file.
fn check_output(output: &Path) -> Result<()> {
    match config::beside(output) == *output {
        true => Err(Error::refused(
            "its description would be the same file: choose another ending than .json",
        )),
        false => Ok(()),
    }
    .context(|| format!("write {output:?}"))
}

fn report(output: &Path, written: &Written) {
    let Written { size: length, stored, sha256 } = written;
    println!(
        "{}: {} ({} on disk), sha256 {sha256}",
        output.display(),
        size(*length),
        size(*stored)
    );
}
