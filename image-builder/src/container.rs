//! From any source to the tree and the configuration of a container image.

use crate::config::{ImageConfig, architecture};
use crate::dir;
use crate::docker;
use crate::error::{Context, Error, Result};
use crate::files::Files;
use crate::image::{Layer, Source, flatten};
use crate::limits::{Budget, Limits};
use crate::oci;
use crate::progress::Progress;
use crate::spool::Spool;
use crate::stream::{Blob, Bounded, Compression};
use crate::tree::{Time, Tree};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::rc::Rc;

/// What a source is. The words are those of the command lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Seen from what is in it
    Auto,
    /// A directory that becomes the root
    #[value(name = "dir")]
    Directory,
    /// A tar archive of a root file system (docker export)
    #[value(name = "rootfs")]
    RootfsArchive,
    /// An OCI image layout, or an archive of one
    Oci,
    /// What docker save writes
    Docker,
}

/// What to build from.
pub struct Request<'a> {
    pub source: &'a Path,
    pub format: Format,
    /// Which image, where the source holds several: a name or a digest.
    pub reference: Option<&'a str>,
    /// As OCI names it; `None` is this machine's.
    pub architecture: Option<&'a str>,
    pub limits: Limits,
    /// No file is newer than this; `None` keeps the times of archives, and dates a directory's files 1970.
    pub mtime: Option<u64>,
    /// Whether everything belongs to root, whoever owns it in the source.
    pub is_root_owned: bool,
}

/// What was built.
pub struct Built {
    pub tree: Tree,
    pub config: ImageConfig,
    pub architecture: String,
    /// What the image is called where it comes from.
    pub name: Option<String>,
    /// The digest of what it was made from; empty where that has none.
    pub digest: String,
}

/// Reads a source. Decompressed contents wait in a nameless file on the file system of `scratch`, and are read from
/// there, or from the source, when the image is written: the source must not change before that.
pub fn build(request: &Request<'_>, scratch: &Path, progress: &dyn Progress) -> Result<Built> {
    let source = request.source;
    let mut budget = Budget::new(request.limits);
    let mut spool = Spool::new(scratch)?;
    let mut built = open(source, request.format, &mut budget, &mut spool, progress)
        .and_then(|opened| read(opened, request, &mut budget, &mut spool, progress))
        .context(|| format!("read {source:?}"))?;
    let latest = request.mtime.map(Time::seconds);
    built.tree.for_each_meta(|meta| {
        meta.mtime = latest.map_or(meta.mtime, |latest| meta.mtime.min(latest));
        if request.is_root_owned {
            (meta.uid, meta.gid) = (0, 0);
        }
    });
    Ok(built)
}

/// A source whose format is known.
pub(crate) enum Opened {
    Directory,
    RootfsArchive(Blob),
    Oci(Files),
    Docker(Files),
}

pub(crate) fn open(
    path: &Path,
    format: Format,
    budget: &mut Budget,
    spool: &mut Spool,
    progress: &dyn Progress,
) -> Result<Opened> {
    let stat = std::fs::metadata(path)?;
    if stat.is_dir() {
        return open_directory(path, format);
    }
    if !stat.is_file() {
        return Err(Error::refused("neither a directory nor a regular file"));
    }
    let file = Rc::new(File::open(path)?);
    let blob = Blob { file, offset: 0, length: stat.len() };
    match format {
        Format::Directory => Err(Error::refused("it is a file, not a directory")),
        Format::RootfsArchive => Ok(Opened::RootfsArchive(blob)),
        Format::Oci => {
            Files::archive(plain(blob, budget, spool, progress)?, budget).map(Opened::Oci)
        }
        Format::Docker => {
            Files::archive(plain(blob, budget, spool, progress)?, budget).map(Opened::Docker)
        }
        Format::Auto => {
            let files = Files::archive(plain(blob, budget, spool, progress)?, budget)?;
            recognise(files)
        }
    }
}

fn open_directory(path: &Path, format: Format) -> Result<Opened> {
    let files = || Files::directory(path);
    match format {
        Format::Directory => Ok(Opened::Directory),
        Format::RootfsArchive => Err(Error::refused("it is a directory, not an archive")),
        Format::Oci => files().map(Opened::Oci),
        Format::Docker => files().map(Opened::Docker),
        // index.json alone may be anybody's file; oci-layout is there to tell
        Format::Auto if files()?.has("oci-layout") && files()?.has("index.json") => {
            files().map(Opened::Oci)
        }
        Format::Auto => Ok(Opened::Directory),
    }
}

/// OCI before Docker's own form: recent `docker save` writes both, and only OCI has a digest for every blob.
fn recognise(files: Files) -> Result<Opened> {
    if files.has("oci-layout") && files.has("index.json") {
        return Ok(Opened::Oci(files));
    }
    if files.has("manifest.json") {
        return Ok(Opened::Docker(files));
    }
    Err(Error::refused(
        "an archive with neither index.json (OCI) nor manifest.json (docker save); \
         if it holds a root file system itself (docker export), add --format rootfs",
    ))
}

/// An archive that may be compressed as a whole, as one that is not.
fn plain(
    blob: Blob,
    budget: &mut Budget,
    spool: &mut Spool,
    progress: &dyn Progress,
) -> Result<Blob> {
    let compression = blob.compression()?;
    if compression == Compression::None {
        return Ok(blob);
    }
    progress.begin("decompressing", 0);
    let start = spool.end();
    let limit = budget.limits().content;
    let mut stream = Bounded::new(compression.open(blob.reader()), limit, limit);
    let mut buffer = vec![0; 256 << 10];
    loop {
        let size = stream.read(&mut buffer)?;
        let Some(piece) = buffer.get(..size).filter(|piece| !piece.is_empty()) else {
            break;
        };
        spool.append(piece)?;
        progress.advance(size as u64);
    }
    spool.flush()?;
    progress.end();
    Ok(Blob { file: Rc::clone(spool.file()), offset: start, length: spool.end() - start })
}

fn read(
    opened: Opened,
    request: &Request<'_>,
    budget: &mut Budget,
    spool: &mut Spool,
    progress: &dyn Progress,
) -> Result<Built> {
    let wanted = request.architecture.unwrap_or(architecture());
    let source = match opened {
        Opened::Directory => {
            let tree = dir::read(request.source, budget, progress)?;
            let architecture = wanted.to_owned();
            let (config, name, digest) = (ImageConfig::default(), None, String::new());
            return Ok(Built { tree, config, architecture, name, digest });
        }
        Opened::RootfsArchive(blob) => Source {
            layers: vec![Layer { blob: Ok(blob), digest: None, diff_id: None }],
            config: ImageConfig::default(),
            names: Vec::new(),
            digest: String::new(),
        },
        Opened::Oci(files) => oci::load(&files, request.reference, wanted)?,
        Opened::Docker(files) => docker::load(&files, request.reference, wanted)?,
    };
    let tree = flatten(&source.layers, budget, spool, progress)?;
    let Source { config, names, digest, .. } = source;
    let name = names.into_iter().next();
    Ok(Built { tree, config, architecture: wanted.to_owned(), name, digest })
}
