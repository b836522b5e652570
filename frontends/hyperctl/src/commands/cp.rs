//! `hyperctl cp`: files between the host and a running container, either way.

use hyperstart::Container;

use crate::copy::place::Location;
use crate::copy::{download, upload};
use crate::error::{Context as _, Error, Result};
use crate::pod::client;
use crate::pod::store::Store;

const NOTES: &str = "\
One of SRC and DST is POD:PATH, or POD/NAME:PATH of a further container; the other is a path of the host, or - for a
tar stream on standard input or output. A path of a container begins at its root.

A file is copied to DST, or into it if it is a directory. So is a directory; where DST does not exist, it is made a copy of
SRC. SRC/. means what is in the directory SRC. The directory above DST must exist. Files that are there are replaced, a
directory is not replaced by a file, nor a file by a directory.

Modes and times are kept; extended attributes are not. On the host, files are yours and lose their set-user-id bits, in
the container they are root's, unless -a is given.";

/// Copy files between a running container and the host
#[derive(Debug, clap::Args)]
#[command(after_help = NOTES)]
pub struct Args {
    /// Keep owners (and set-user-id bits) as they are
    #[arg(short, long)]
    archive: bool,
    /// Copy what a symbolic link SRC leads to
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// POD:PATH, a path, or -
    #[arg(value_name = "SRC", allow_hyphen_values = true)]
    source: String,
    /// A path, POD:PATH, or -
    #[arg(value_name = "DST", allow_hyphen_values = true)]
    destination: String,
}

/// What the flags say.
#[derive(Debug, Clone, Copy)]
pub struct Flags {
    pub archive: bool,
    pub follow: bool,
}

pub async fn run(args: Args) -> Result<u8> {
    let flags = Flags { archive: args.archive, follow: args.follow_link };
    let operation = || format!("copy {:?} to {:?}", args.source, args.destination);
    let source = Location::parse(&args.source)?;
    let destination = Location::parse(&args.destination)?;
    match (&source, &destination) {
        (Location::Container { pod, path }, Location::Host(_) | Location::Stream) => {
            let (_sandbox, container) = connect(pod).await.context(operation)?;
            match &destination {
                Location::Stream => download::to_stream(&container, path, flags).await,
                Location::Host(to) => download::to_host(&container, path, to, flags).await,
                Location::Container { .. } => Ok(()), // said above not to be
            }
            .context(operation)?;
        }
        (Location::Host(_) | Location::Stream, Location::Container { pod, path }) => {
            let (_sandbox, container) = connect(pod).await.context(operation)?;
            match &source {
                Location::Stream => upload::from_stream(&container, path, flags).await,
                Location::Host(from) => upload::from_host(&container, from, path, flags).await,
                Location::Container { .. } => Ok(()), // said above not to be
            }
            .context(operation)?;
        }
        (Location::Container { .. }, Location::Container { .. }) => {
            return Err(Error::new("cp: both SRC and DST are in a container"));
        }
        (Location::Host(_) | Location::Stream, Location::Host(_) | Location::Stream) => {
            return Err(Error::new("cp: neither SRC nor DST is in a container")
                .hint("POD:PATH is a path in a container"));
        }
    }
    Ok(0)
}

async fn connect(pod: &str) -> Result<(hyperstart::Sandbox, Container)> {
    let pod = Store::open()?.find_container(pod, None)?;
    client::connect(&pod).await
}
