//! The same for several pods, in the order in which they were named: one that fails does not keep the others from it.
//!
//! As with docker, what was done is on standard output, a name a line, what was not on standard error, and the exit code
//! says whether there was any of the latter.

use std::future::Future;

use crate::error::{Context as _, OUR_FAILURE, Result};
use crate::output;
use crate::pod::store::{Pod, Store};

/// Does `work` for each of the pods that are `wanted`. `operation` is the word for it in an error.
pub async fn each<F: Future<Output = Result<()>>>(
    wanted: &[String],
    operation: &str,
    mut work: impl FnMut(Pod) -> F,
) -> Result<u8> {
    let store = Store::open()?;
    let mut code = 0;
    for name in wanted {
        let done = match store.find(name) {
            Ok(pod) => work(pod).await.context(|| format!("{operation} pod {name:?}")),
            Err(err) => Err(err),
        };
        match done {
            Ok(()) => output::print(format!("{name}\n"))?,
            Err(err) => {
                output::say(err);
                code = OUR_FAILURE;
            }
        }
    }
    Ok(code)
}
