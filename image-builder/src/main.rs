//! `image-builder`: arguments in, library calls, one line about each file that was made.
#![allow(clippy::print_stderr, reason = "a command-line tool speaks there")]

mod cli;

use clap::Parser;
use cli::{Busybox, Cli, Command, Compress, Container, Initrd, More, Rootfs};
use image_builder::container::Request;
use image_builder::cpio::Compression;
use image_builder::error::{Context, Error, Result};
use image_builder::limits::Limits;
use image_builder::manifest::Manifest;
use image_builder::output::Written;
use image_builder::progress::{Terminal, size};
use image_builder::tree::Tree;
use image_builder::{Image, additions, busybox, config, container, cpio, erofs, guest, output};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

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
    let Initrd { init, output, compress, more } = arguments;
    let tree = guest_tree(init, more)?;
    let (compression, format) = match compress {
        Compress::None => (Compression::None, "cpio"),
        Compress::Lz4 => (Compression::Lz4, "cpio+lz4"),
    };
    check_output(output)?;
    let written = cpio::write(&tree, compression, output)?;
    Manifest::new(output, format, &written, &tree)?.store(output)?;
    report(output, &written)
}

fn guest_tree(init: &Path, more: &More) -> Result<Tree> {
    let mut tree = guest::tree(init)?;
    let progress = Terminal::default();
    let More { add, files, overlay, debug_shell } = more;
    for addition in add {
        additions::add(&mut tree, addition, &progress)?;
    }
    for list in files {
        for addition in additions::read_list(list)? {
            additions::add(&mut tree, &addition, &progress)?;
        }
    }
    for directory in overlay {
        additions::overlay(&mut tree, directory, &progress)?;
    }
    if let Some(binary) = debug_shell {
        additions::below(&mut tree, busybox::tree(binary, &busybox::applets(binary)?)?)?;
    }
    Ok(tree)
}

fn rootfs(arguments: &Rootfs) -> Result<()> {
    let Rootfs { init, output, more, verity, shape } = arguments;
    let tree = guest_tree(init, more)?;
    check_output(output)?;
    let options = erofs::Options { verity: *verity, info_block: !verity, ..shape.options() };
    let written = erofs::write(&tree, &options, output, &Terminal::default())?;
    Manifest::new(output, "erofs", &written, &tree)?.store(output)?;
    report(output, &written)
}

fn container_image(arguments: Container) -> Result<()> {
    let output = &arguments.output;
    check_output(output)?;
    let request = Request {
        source: &arguments.from,
        format: arguments.format,
        reference: arguments.image.as_deref(),
        architecture: arguments.arch.as_deref(),
        limits: Limits {
            content: arguments.max_size << 20,
            is_any_device: arguments.any_device,
            ..Limits::default()
        },
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
    report(output, &written)
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
    report(output, &written)
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

fn report(output: &Path, written: &Written) -> Result<()> {
    let Written { size: length, stored, sha256, verity } = written;
    let (length, stored) = (size(*length), size(*stored));
    let mut line = format!("{}: {length} ({stored} on disk), sha256 {sha256}\n", output.display());
    if let Some(verity) = verity {
        line.push_str(&format!("{}: verity root hash {}\n", output.display(), verity.root_hash));
    }
    std::io::stdout().write_all(line.as_bytes()).context(|| "write to standard output".into())
}
