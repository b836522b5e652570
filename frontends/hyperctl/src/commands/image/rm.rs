//! `hyperctl image rm`: takes names from images, and images from the store.

use image_builder::store::Removed;

use crate::error::{Error, Result};
use crate::output;

use super::{Users, open};

/// Remove images that no pod uses: a name takes its image along if it is its last
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Names, digests, or beginnings of digests
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

pub fn run(args: &Args) -> Result<u8> {
    let store = open()?;
    for wanted in &args.images {
        let users = Users::now()?;
        let removed = store.remove(wanted, &|image| users.of(image)).map_err(|err| {
            Error::from(err).hint("`hyperctl image ls` lists the images, `hyperctl ps` the pods")
        })?;
        output::print(said(&removed))?;
    }
    Ok(0)
}

/// A line for each thing that is gone, in docker's words.
pub fn said(removed: &Removed) -> String {
    let names = removed.names.iter().map(|name| format!("Untagged: {name}\n"));
    names.chain(removed.images.iter().map(|digest| format!("Deleted: {digest}\n"))).collect()
}
