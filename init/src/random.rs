//! The kernel's random numbers: random(4).

use std::fs::OpenOptions;
use std::os::fd::AsFd;

use crate::error::{Code, Context, Error, Result};
use crate::sys;

/// More than any pool holds.
const SEED_MAX: usize = 4096;

/// Mixes `seed` into the pool, counts it for full, and has the generators begin anew from there: what this guest shares
/// with another that was the same machine until now is gone.
pub fn reseed(seed: &[u8]) -> Result<()> {
    if seed.is_empty() || seed.len() > SEED_MAX {
        let message = format!("reseed: {} bytes, not 1 to {SEED_MAX}", seed.len());
        return Err(Error::new(Code::InvalidArgument, message));
    }
    let device = OpenOptions::new().read(true).write(true).open("/dev/urandom");
    let device = device.context(|| "open \"/dev/urandom\"".to_owned())?;
    sys::random::add_entropy(device.as_fd(), seed).context(|| "RNDADDENTROPY".to_owned())?;
    sys::random::reseed(device.as_fd()).context(|| "RNDRESEEDCRNG".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_has_a_size() {
        for size in [0, SEED_MAX + 1] {
            let err = reseed(&vec![1; size]).unwrap_err();
            assert_eq!(err.code(), Code::InvalidArgument);
            assert!(err.message().contains(&format!("{size} bytes")), "{err}");
        }
    }
}
