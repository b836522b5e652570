//! Builds guest images and container images: the same input gives the same bytes, on every machine.
//!
//! ```text
//! guest, busybox, dir, container (oci, docker -> layers)    sources: each makes a Tree
//!                        |
//!                      tree, content                        names and metadata in memory, bytes where they are
//!                        |
//!                   cpio, erofs -> output                   writers: one file that appears whole or not at all
//! ```
//! Nothing is extracted to the host's file system and nothing needs root: a hostile archive can at most be refused.

pub mod busybox;
pub mod config;
pub mod container;
pub mod content;
pub mod cpio;
mod digest;
mod dir;
mod docker;
pub mod erofs;
pub mod error;
pub mod guest;
mod image;
mod layers;
pub mod limits;
pub mod manifest;
mod merge;
mod oci;
pub mod output;
pub mod progress;
mod spool;
mod store;
mod stream;
mod tar;
pub mod tree;

pub use config::{Image, ImageConfig};
pub use error::{Error, ErrorKind, Result};
