//! `image-builder`: arguments in, library calls, one line about each file that was made.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool speaks there")]

use clap::{Args, Parser, Subcommand, ValueEnum};
use image_builder::cpio::Compression;
use image_builder::error::{Context, Error, Result};
use image_builder::manifest::Manifest;
use image_builder::output::Written;
use image_builder::progress::{Terminal, size};
use image_builder::{Image, busybox, config, cpio, erofs, guest};
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

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Initrd(arguments) => initrd(&arguments),
        Command::Rootfs(arguments) => rootfs(&arguments),
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
