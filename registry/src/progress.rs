//! What a pull says on its way. The library calls it, a front end decides what is seen.

use crate::digest::Digest;

/// Several blobs are on their way at a time.
pub trait Progress {
    /// A blob of `size` bytes begins, of which `have` are there from an earlier pull.
    fn begin(&self, blob: &Digest, size: u64, have: u64);
    /// So many of its bytes are there.
    fn at(&self, blob: &Digest, bytes: u64);
    /// All of it is there, and its digest is right.
    fn done(&self, blob: &Digest);
    /// It is not fetched: it is there from an earlier pull, or from another image.
    fn kept(&self, blob: &Digest, size: u64);
    /// The connection broke, and is tried again.
    fn again(&self, blob: &Digest, cause: &str);
}

/// Says nothing.
#[derive(Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _blob: &Digest, _size: u64, _have: u64) {}
    fn at(&self, _blob: &Digest, _bytes: u64) {}
    fn done(&self, _blob: &Digest) {}
    fn kept(&self, _blob: &Digest, _size: u64) {}
    fn again(&self, _blob: &Digest, _cause: &str) {}
}
