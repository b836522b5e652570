//! `hyperctl image inspect`: all that is known of an image, as JSON for programs.

use image_builder::store::Stored;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::guest::GuestDir;
use crate::image;
use crate::output;

/// Print all that is known of images, as a JSON array
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Names or digests; of an image that came with the guest also its path
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

pub fn run(args: &Args) -> Result<u8> {
    let store = super::open()?;
    let mut values = Vec::new();
    for wanted in &args.images {
        values.push(match store.find(wanted)? {
            Some(stored) => describe(&stored),
            None => describe_guests(wanted)?,
        });
    }
    output::print(format!("{}\n", serde_json::to_string_pretty(&values)?))?;
    Ok(0)
}

fn describe(image: &Stored) -> Value {
    let layers = image
        .layers
        .iter()
        .map(|layer| json!({ "diff_id": layer.diff_id, "path": layer.path, "size": layer.size }));
    json!({
        "names": image.names,
        "digest": image.digest,
        "architecture": image.architecture,
        "size": image.size,
        "layers": layers.collect::<Vec<_>>(),
        "config": image.config,
    })
}

/// One that lies beside the guest's files, or anywhere.
fn describe_guests(wanted: &str) -> Result<Value> {
    let missing = |err: Error| err.hint("`hyperctl image ls` lists what there is");
    let image = image::find(GuestDir::locate, wanted).map_err(missing)?;
    let description = image.description;
    Ok(json!({
        "names": [description.name],
        "digest": description.source,
        "architecture": description.architecture,
        "size": description.size,
        "layers": [{ "path": image.layers.first(), "size": description.size, "sha256": description.sha256 }],
        "config": description.config,
    }))
}
