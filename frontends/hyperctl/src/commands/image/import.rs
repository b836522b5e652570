//! `hyperctl image import`: an image from a file or a directory of this host into the store.

use std::path::PathBuf;

use image_builder::container::Format;
use image_builder::limits::Limits;
use image_builder::progress::Terminal;
use image_builder::store::Request;

use crate::error::Result;
use crate::output;

/// Take an image into the store: an OCI layout, what docker save or podman save wrote, a root directory
///
/// Each layer becomes an EROFS image, which is made once and shared by all pods. Nothing is unpacked on this host. Every
/// blob is checked against its digest; what is hostile or over the limits is refused by name, and the store stays as it was.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A directory or an archive
    source: PathBuf,
    /// What to call it (may be repeated) [default: as its source does]
    #[arg(short, long = "name", value_name = "NAME[:TAG]")]
    names: Vec<String>,
    /// What the source is
    #[arg(long, value_enum, default_value_t = Format::Auto)]
    format: Format,
    /// Which image, if the source holds several: its name or digest
    #[arg(long, value_name = "REFERENCE")]
    image: Option<String>,
    /// For which machine, as OCI names it (amd64, arm64) [default: this one's]
    #[arg(long, value_name = "NAME")]
    arch: Option<String>,
    /// The most that its files may take, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 16 << 10, value_parser = clap::value_parser!(u64).range(1..=16 << 20))]
    max_size: u64,
    /// Take device nodes beside null, zero, full, random, urandom, tty, console, ptmx, tun and fuse
    #[arg(long)]
    any_device: bool,
}

pub fn run(args: &Args) -> Result<u8> {
    let names: Vec<&str> = args.names.iter().map(String::as_str).collect();
    let request = Request {
        format: args.format,
        reference: args.image.as_deref(),
        architecture: args.arch.as_deref(),
        limits: Limits {
            content: args.max_size << 20,
            is_any_device: args.any_device,
            ..Limits::default()
        },
        names: &names,
        ..Request::new(&args.source)
    };
    let image = super::open()?.import(&request, &Terminal::new("hyperctl"))?;
    if image.names.is_empty() {
        output::warn("the image has no name: --name gives it one");
    }
    output::print(format!("{}\n", image.digest))?;
    Ok(0)
}
