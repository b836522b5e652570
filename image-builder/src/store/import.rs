//! From a source to the store. Layers that are there already are not read again; the others are written, still without
//! names, and get them when all of them are good: an import that is refused leaves the store as it was.

use super::record::{self, LayerRecord, Record};
use super::{Store, Stored, lock, name};
use crate::config::{ImageConfig, architecture};
use crate::container::{self, Format, Opened};
use crate::digest::Digest;
use crate::erofs::{self, Draft, Options};
use crate::error::{Context, Error, Result};
use crate::image::{Layer, Reader, Source, warn};
use crate::layers::{LeftOut, Lower};
use crate::limits::{Budget, Limits};
use crate::merge::merge;
use crate::output::{Hidden, Output};
use crate::overlay;
use crate::progress::Progress;
use crate::spool::Spool;
use crate::tree::Tree;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// What to import.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// An OCI layout, an archive of one, what `docker save` or `podman save` wrote, a root directory, or an archive of
    /// one. An OCI layout may lack the blobs of layers that the store has ([`Store::has_layer`]).
    pub source: &'a Path,
    pub format: Format,
    /// Which image, where the source holds several: a name or a digest.
    pub reference: Option<&'a str>,
    /// As OCI names it; `None` is this machine's.
    pub architecture: Option<&'a str>,
    pub limits: Limits,
    /// What to call it instead of what its source does.
    pub names: &'a [&'a str],
}

impl<'a> Request<'a> {
    /// All that is in this source, by its own names.
    pub fn new(source: &'a Path) -> Request<'a> {
        Request {
            source,
            format: Format::Auto,
            reference: None,
            architecture: None,
            limits: Limits::default(),
            names: &[],
        }
    }
}

/// An image whose layers are ready, and what its source calls it.
struct Ready {
    digest: Digest,
    config: ImageConfig,
    names: Vec<String>,
    layers: Vec<LayerRecord>,
}

impl Store {
    /// Takes an image in. What is there already stays; a name that meant another image means this one from then on.
    pub fn import(&self, request: &Request<'_>, progress: &dyn Progress) -> Result<Stored> {
        let operation = || format!("import {:?}", request.source);
        let asked: Result<Vec<String>> =
            request.names.iter().map(|text| name::whole(text)).collect();
        let asked = asked.context(operation)?;
        for part in ["layers/sha256", "chains/sha256", "images/sha256"] {
            self.make(part).context(operation)?;
        }
        let _lock = lock::share(&self.directory).context(operation)?;
        let mut import = Import::new(self, request, progress).context(operation)?;
        let Ready { digest, config, names, layers } = import.read().context(operation)?;
        // what a source calls its image may be no name, or a tag alone; then it has none
        let own = names.iter().filter(|text| text.contains(['/', ':']));
        let own = own.filter_map(|text| name::whole(text).ok()).collect();
        let names = if asked.is_empty() { own } else { asked };
        let architecture = request.architecture.unwrap_or(architecture()).to_owned();
        let record = Record::new(digest, architecture, config, layers);
        self.commit(import.staged, record, names).context(operation)
    }

    /// Whether the store has this layer on these ones, lowest first: then its blob is not needed.
    pub fn has_layer(&self, below: &[Digest], diff_id: &Digest) -> Result<bool> {
        Ok(self.known_layer(&chain_id(below, diff_id), diff_id)?.is_some())
    }

    fn known_layer(&self, chain_id: &Digest, diff_id: &Digest) -> Result<Option<LayerRecord>> {
        for chain_id in [None, Some(chain_id.clone())] {
            let mut layer = LayerRecord { diff_id: diff_id.clone(), chain_id, size: 0 };
            let path = self.directory.join(layer.path());
            match fs::metadata(&path) {
                Ok(stat) => {
                    layer.size = stat.len();
                    return Ok(Some(layer));
                }
                Err(err) if err.kind() == std::io::ErrorKind::NotFound => {}
                Err(err) => return Err(err).context(|| format!("look for {path:?}")),
            }
        }
        Ok(None)
    }

    fn commit(
        &self,
        staged: Vec<(Hidden, PathBuf)>,
        record: Record,
        new: Vec<String>,
    ) -> Result<Stored> {
        let _lock = lock::names(&self.directory)?;
        let mut names = record::load_names(&self.directory)?;
        for (hidden, path) in staged {
            if !path.try_exists().context(|| format!("look for {path:?}"))? {
                hidden.show(&path).context(|| format!("name {path:?}"))?; // else another import was first
            }
        }
        record.save(&self.directory)?;
        names.extend(new.into_iter().map(|name| (name, record.digest.clone())));
        record::save_names(&self.directory, &names)?;
        Ok(record.stored(&self.directory, &names))
    }
}

struct Import<'a> {
    store: &'a Store,
    request: &'a Request<'a>,
    progress: &'a dyn Progress,
    budget: Budget,
    spool: Spool,
    left_out: LeftOut,
    /// Layers that are written and have no name yet.
    staged: Vec<(Hidden, PathBuf)>,
    /// The first so many layers as one tree; made when a layer leans on it.
    base: (usize, Tree),
}

impl<'a> Import<'a> {
    fn new(
        store: &'a Store,
        request: &'a Request<'a>,
        progress: &'a dyn Progress,
    ) -> Result<Import<'a>> {
        Ok(Import {
            store,
            request,
            progress,
            budget: Budget::new(request.limits),
            spool: Spool::new(&store.directory)?,
            left_out: LeftOut::new(),
            staged: Vec::new(),
            base: (0, Tree::default()),
        })
    }

    fn read(&mut self) -> Result<Ready> {
        let Request { source, format, architecture: wanted, reference, .. } = *self.request;
        let wanted = wanted.unwrap_or(architecture());
        let opened =
            container::open(source, format, &mut self.budget, &mut self.spool, self.progress)?;
        match opened {
            Opened::Directory => {
                let tree = crate::dir::read(source, &mut self.budget, self.progress)?;
                let layer = self.write_directory(tree)?;
                self.ready_without_digest(wanted, layer)
            }
            Opened::RootfsArchive(blob) => {
                let layer = Layer { blob: Ok(blob), digest: None, diff_id: None };
                let layer = self.layer(&[], &layer)?;
                self.ready_without_digest(wanted, layer)
            }
            Opened::Oci(files) => self.ready(crate::oci::load(&files, reference, wanted)?),
            Opened::Docker(files) => self.ready(crate::docker::load(&files, reference, wanted)?),
        }
    }

    fn ready(&mut self, source: Source) -> Result<Ready> {
        let count = source.layers.len();
        if count == 0 {
            return Err(Error::refused("image: it has no layers"));
        }
        if count > self.request.limits.layers {
            let limit = self.request.limits.layers;
            return Err(Error::too_large(format!("image: {count} layers, over {limit}")));
        }
        let total = source.layers.iter().map(Layer::length).sum();
        self.progress.begin("importing layers", total);
        let mut layers = Vec::new();
        for layer in &source.layers {
            let record = self.layer(&layers, layer).context(|| layer.name())?;
            layers.push(record);
        }
        self.progress.end();
        warn(std::mem::take(&mut self.left_out), self.progress);
        let Source { config, names, digest, .. } = source;
        Ok(Ready { digest: Digest::parse(&digest)?, config, names, layers })
    }

    /// What came without a configuration gets the digest of the one that it would have.
    fn ready_without_digest(&mut self, architecture: &str, layer: LayerRecord) -> Result<Ready> {
        let diff_ids = [layer.diff_id.to_string()];
        let rootfs = serde_json::json!({ "type": "layers", "diff_ids": diff_ids });
        let config = serde_json::json!({
            "architecture": architecture, "os": "linux", "config": {}, "rootfs": rootfs
        });
        warn(std::mem::take(&mut self.left_out), self.progress);
        let digest = Digest::of(config.to_string().as_bytes());
        Ok(Ready { digest, config: ImageConfig::default(), names: Vec::new(), layers: vec![layer] })
    }

    /// The layer, if it is in the store or on its way there.
    fn known(&self, below: &[LayerRecord], diff_id: &Digest) -> Result<Option<LayerRecord>> {
        let chain_id = chain_of(below, diff_id);
        let is_staged = |layer: &&LayerRecord| {
            layer.diff_id == *diff_id && layer.chain_id.as_ref().is_none_or(|own| *own == chain_id)
        };
        match below.iter().find(is_staged) {
            Some(layer) => Ok(Some(layer.clone())),
            None => self.store.known_layer(&chain_id, diff_id),
        }
    }

    /// Reads a layer and writes its image, unless it is there.
    fn layer(&mut self, below: &[LayerRecord], layer: &Layer) -> Result<LayerRecord> {
        if let Some(diff_id) = &layer.diff_id
            && let Some(known) = self.known(below, diff_id)?
        {
            self.progress.advance(layer.length());
            return Ok(known);
        }
        let mut draft = Draft::new(&self.store.directory)?;
        let budget = self.budget;
        let lower = Lower::new(None);
        let read = self.read_layer(layer, &lower, &mut draft);
        let (mut tree, diff_id) = match read {
            Err(_) if lower.is_asked() => {
                self.budget = budget; // what was read will be read again
                self.merge_base(below)?;
                draft = Draft::new(&self.store.directory)?;
                let base = std::mem::take(&mut self.base.1);
                let read = self.read_layer(layer, &Lower::new(Some(&base)), &mut draft);
                self.base.1 = base;
                read?
            }
            read => read?,
        };
        let leans = lower.is_asked() || overlay::leans(&tree);
        if leans {
            self.merge_base(below)?;
            overlay::settle(&mut tree, &self.base.1)?;
        }
        overlay::express(&mut tree);
        let (hidden, size) = draft.finish(&tree, &Options::default())?;
        let chain_id = leans.then(|| chain_of(below, &diff_id));
        Ok(self.stage(hidden, LayerRecord { diff_id, chain_id, size }))
    }

    fn read_layer(
        &mut self,
        layer: &Layer,
        lower: &Lower<'_>,
        draft: &mut Draft,
    ) -> Result<(Tree, Digest)> {
        let mut reader = Reader {
            layer,
            lower,
            budget: &mut self.budget,
            spool: draft.spool(),
            copies: true,
            left_out: &mut self.left_out,
        };
        reader.read(self.progress)
    }

    fn stage(&mut self, hidden: Hidden, layer: LayerRecord) -> LayerRecord {
        let path = self.store.directory.join(layer.path());
        self.staged.push((hidden, path));
        layer
    }

    /// Makes the base of all the layers below, from their images.
    fn merge_base(&mut self, below: &[LayerRecord]) -> Result<()> {
        for layer in below.get(self.base.0..).unwrap_or_default() {
            let path = self.store.directory.join(layer.path());
            let staged = self.staged.iter().find(|(_, own)| *own == path);
            let file = match staged {
                Some((hidden, _)) => hidden.file().try_clone(),
                None => File::open(&path),
            };
            let file = file.context(|| format!("open {path:?}"))?;
            let tree = erofs::read(&Rc::new(file)).context(|| format!("read {path:?}"))?;
            merge(&mut self.base.1, &tree)?;
        }
        self.base.0 = below.len();
        Ok(())
    }

    /// A directory is one layer, which is known by its image.
    fn write_directory(&mut self, tree: Tree) -> Result<LayerRecord> {
        let mut output = Output::create(&self.store.directory.join("layer"))?;
        erofs::write_to(&mut output, &tree, &Options::default(), self.progress)?;
        let (hidden, written) = output.seal()?;
        let diff_id =
            Digest::from_hex(&written.sha256).ok_or_else(|| Error::io("a digest that is none"))?;
        Ok(self.stage(hidden, LayerRecord { diff_id, chain_id: None, size: written.size }))
    }
}

fn chain_of(below: &[LayerRecord], diff_id: &Digest) -> Digest {
    let below: Vec<Digest> = below.iter().map(|layer| layer.diff_id.clone()).collect();
    chain_id(&below, diff_id)
}

/// The digest of a layer with all below it (OCI image-spec, config.md, "Layer ChainID").
fn chain_id(below: &[Digest], diff_id: &Digest) -> Digest {
    let mut ids = below.iter().chain([diff_id]);
    let first = ids.next().cloned().unwrap_or_else(|| diff_id.clone());
    ids.fold(first, |chain, id| Digest::of(format!("{chain} {id}").as_bytes()))
}
