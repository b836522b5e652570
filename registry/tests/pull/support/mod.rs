//! Registries of a test's own, and images to have in them.

pub mod hostile;
pub mod image;
pub mod real;

use std::path::Path;
use std::time::Duration;

use hyperstart_registry::credentials::Credentials;
use hyperstart_registry::{
    Image, Layout, Limits, Options, Reference, Registry, Result, Retry, Silent, fetch, resolve,
};

/// Tries again at once, and not often.
pub fn options() -> Options {
    let retry = Retry { attempts: 2, pause: Duration::from_millis(1) };
    Options { retry, ..Options::default() }
}

pub fn options_with_login(config: &Path) -> Options {
    Options { credentials: Credentials::in_file(config.to_owned()), ..options() }
}

/// Pulls an image into `downloads`; what is left there is looked at by the test.
pub async fn pull(name: &str, options: Options, downloads: &Path) -> Result<(Image, Layout)> {
    let registry = Registry::connect(Reference::parse(name)?, options).await?;
    let image = resolve(&registry, "amd64", Limits::default()).await?;
    let layout = Layout::open(downloads, &image.digest).await?;
    fetch(&registry, &image, &layout, &|_, _| false, &Silent).await?;
    Ok((image, layout))
}

/// Why a pull must fail, with its hint.
pub async fn refusal(name: &str, options: Options, downloads: &Path) -> String {
    match pull(name, options, downloads).await {
        Ok((image, _layout)) => panic!("{name} was pulled: {image:?}"),
        Err(err) => err.to_string(),
    }
}
