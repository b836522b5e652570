//! Which files of its images a VM gets as disks: all layers where there is room for them, so that pods have those in
//! common that their images have; else an image's layers as one.
//!
//! ```text
//! layers of all images, each once  <= room     as they are
//!                                  >  room     the image with the most layers is flattened, then the next one
//! ```

use std::path::PathBuf;

use crate::error::Result;
use crate::image::Image;

/// Those that several images have in common, and the layer that one image has twice, are one disk.
pub fn each_once<'a>(layers: impl IntoIterator<Item = &'a PathBuf>) -> Vec<PathBuf> {
    let mut once: Vec<PathBuf> = Vec::new();
    for layer in layers {
        if !once.contains(layer) {
            once.push(layer.clone());
        }
    }
    once
}

/// Of a layer that an image has twice the higher one says all that the lower one does, and overlayfs takes no directory
/// twice.
pub fn topmost(layers: &[PathBuf]) -> Vec<PathBuf> {
    let is_last = |(index, layer): (usize, &PathBuf)| {
        let higher = layers.get(index + 1..).unwrap_or_default();
        (!higher.contains(layer)).then(|| layer.clone())
    };
    layers.iter().enumerate().filter_map(is_last).collect()
}

/// Flattens images until what is not yet `there` of all their layers fits. What does not fit even so is for the VM to
/// refuse.
pub fn fit(images: &mut [Image], there: impl Fn(&PathBuf) -> bool, room: usize) -> Result<()> {
    for _ in 0..images.len() {
        let all = each_once(images.iter().flat_map(|image| &image.layers));
        let needed = all.iter().filter(|layer| !there(layer)).count();
        let stacked = images.iter_mut().filter(|image| image.layers.len() > 1);
        match stacked.max_by_key(|image| image.layers.len()) {
            Some(image) if needed > room => image.flatten()?,
            Some(_) | None => break,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(names: &[&str]) -> Vec<PathBuf> {
        names.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn layers_that_images_have_in_common_are_attached_once() {
        let all = paths(&["base", "one", "base", "two"]);
        assert_eq!(each_once(&all), paths(&["base", "one", "two"]));
    }

    #[test]
    fn of_a_layer_that_comes_twice_the_higher_one_counts() {
        let layers = paths(&["empty", "a", "empty", "b"]);
        assert_eq!(topmost(&layers), paths(&["a", "empty", "b"]));
    }

    /// Files alone cannot be flattened, so whether there is room for them is the VM's to say.
    #[test]
    fn what_fits_is_left_alone() {
        let mut images = [Image::of_files(paths(&["a", "b"])), Image::of_files(paths(&["b"]))];
        for room in [2, 1] {
            fit(&mut images, |_| false, room).unwrap();
            assert_eq!(images[0].layers, paths(&["a", "b"]));
        }
    }
}
