//! `hyperctl image pull`, also `hyperctl pull`: an image from a registry into the store.
//!
//! It is fetched below the store's downloads/, where a pull that was cut off finds what there is, and imported from
//! there. Layers that the store has are not fetched.

use std::path::PathBuf;

use hyperstart_registry::credentials::Credentials;
use hyperstart_registry::{self as registry, Layout, Options, Reference, Registry};
use image_builder::config::architecture;
use image_builder::limits::Limits;
use image_builder::store::{Request, Store};
use image_builder::{Digest, container};

use crate::bars::Bars;
use crate::error::{Context as _, Result};
use crate::output;
use crate::progress;

const NOTES: &str = "\
A name without a host is docker.io's. What `docker login` has written is used: $DOCKER_CONFIG/config.json, else
~/.docker/config.json, and the credential helpers that it names. SSL_CERT_FILE names certificates to trust instead of
the machine's own. Run again, a pull that was cut off asks for the rest only.";

/// Pull an image from a registry into the image store
#[derive(Debug, clap::Args)]
#[command(after_help = NOTES)]
pub struct Args {
    /// Speak HTTP without TLS, to any host: whoever is between can read passwords and sees what is pulled
    #[arg(long)]
    plain_http: bool,
    /// Logins from this file instead of docker's
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// The most that the image's files and layers may take, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 16 << 10, value_parser = clap::value_parser!(u64).range(1..=16 << 20))]
    max_size: u64,
    /// Only print the digest
    #[arg(short, long)]
    quiet: bool,
    /// [HOST[:PORT]/]NAME[:TAG][@DIGEST]
    image: String,
}

pub async fn run(args: Args) -> Result<u8> {
    let operation = || format!("pull {:?}", args.image);
    let digest = pull(&args).await.context(operation)?;
    output::print(format!("{digest}\n"))?;
    Ok(0)
}

async fn pull(args: &Args) -> Result<Digest> {
    let reference = Reference::parse(&args.image)?;
    let name = reference.to_string();
    let store = super::open()?;
    let bars = Bars::new(args.quiet);
    let content = args.max_size << 20;
    let limits = registry::Limits { content, ..registry::Limits::default() };
    let asked = format!("ask registry {:?}", reference.host());
    let ask = async {
        let registry = Registry::connect(reference, options(args)).await?;
        let image = registry::resolve(&registry, architecture(), limits).await?;
        Ok::<_, registry::Error>((registry, image))
    };
    let (registry, image) = progress::during(&asked, ask).await?;
    bars.say(&format!("{name}: {}, {} layers", image.digest, image.layers()));
    let downloads = store.downloads()?;
    let turn = Layout::open(&downloads, &image.digest);
    let layout = progress::during("wait for another pull of this image", turn).await?;
    let has_layer = |below: &[String], own: &str| has_layer(&store, below, own).unwrap_or(false);
    registry::fetch(&registry, &image, &layout, &has_layer, &bars).await?;
    let names = [name.as_str()];
    let request = Request {
        format: container::Format::Oci,
        limits: Limits { content, ..Limits::default() },
        names: &names,
        ..Request::new(layout.path())
    };
    let stored = store.import(&request, &bars)?;
    layout.remove()?;
    Ok(stored.digest)
}

fn options(args: &Args) -> Options {
    let credentials = args.authfile.clone().map(Credentials::in_file);
    Options {
        plain_http: args.plain_http,
        credentials: credentials.unwrap_or_else(Credentials::of_docker),
        ..Options::default()
    }
}

/// What the store cannot say it does not have: then the blob is fetched.
fn has_layer(store: &Store, below: &[String], own: &str) -> image_builder::Result<bool> {
    let below = below.iter().map(|id| Digest::parse(id)).collect::<image_builder::Result<Vec<_>>>();
    store.has_layer(&below?, &Digest::parse(own)?)
}
