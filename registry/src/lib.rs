//! Pulls container images from registries (OCI distribution-spec, docker's registry API v2) into an OCI layout.
//!
//! ```text
//! reference, credentials         what is asked for, and as whom
//!         |
//!     registry (tls, auth)       HTTP: which scheme, tokens, redirects, retries, bounded answers
//!         |
//! manifest, platform             which image of an index; what it is made of
//!         |
//!    blob -> layout              bytes into files, checked by digest on their way, resumed where they stopped
//! ```
//! References, manifests and their media types are those of the crate oci-client. Its client is not used: it holds
//! manifests, tokens and error pages in memory whatever their size, follows redirects from TLS to plain HTTP, and does
//! not say which range it was answered. The registry is not trusted here: what it sends is bounded before it is kept,
//! and believed when its digest is right.

mod auth;
mod blob;
pub mod credentials;
mod digest;
mod error;
mod layout;
mod manifest;
mod platform;
mod progress;
mod pull;
mod reference;
mod registry;
mod tls;

pub use digest::Digest;
pub use error::{Error, Result};
pub use layout::Layout;
pub use progress::{Progress, Silent};
pub use pull::{HasLayer, Image, Limits, fetch, resolve};
pub use reference::Reference;
pub use registry::{Options, Registry, Retry};
