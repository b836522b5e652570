//! Builds guest images and container images: the same input gives the same bytes, on every machine.
//!
//! ```text
//! guest, busybox, dir, container (oci, docker -> layers)    sources: each makes a Tree
//!                        |
//!                      tree, content                        names and metadata in memory, bytes where they are
//!                        |
//!                   cpio, erofs -> output                   writers: one file that appears whole or not at all
//!                        |
//!                      store                                container images by digest, a layer an EROFS image
//! ```
//! Nothing is extracted to the host's file system and nothing needs root: a hostile archive can at most be refused.

pub mod additions;
pub mod busybox;
pub mod config;
pub mod container;
pub mod content;
pub mod cpio;
pub mod digest;
mod dir;
mod docker;
pub mod erofs;
pub mod error;
mod files;
pub mod guest;
mod image;
pub mod info_block;
mod layers;
pub mod limits;
pub mod manifest;
mod merge;
mod oci;
pub mod output;
mod overlay;
mod place;
pub mod progress;
mod spool;
pub mod store;
mod stream;
mod tar;
pub mod tree;
pub mod verity;

pub use config::{Image, ImageConfig};
pub use digest::Digest;
pub use error::{Error, ErrorKind, Result};
