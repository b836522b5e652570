//! A line that says what is being waited for, when that takes longer than one likes to wait without a word.
//!
//! Nothing is shown in the first second, nothing ever when standard error is no terminal, and the line is gone again
//! before anything else is printed: it is erased when the value is dropped.

use std::io::{self, IsTerminal as _};
use std::time::{Duration, Instant};

use crate::output;

const QUIET: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(250);

/// Shows `what` with the seconds that have passed, until it is dropped. Never ends by itself.
pub async fn show(what: &str) {
    let begun = Instant::now();
    if !io::stderr().is_terminal() {
        return std::future::pending().await;
    }
    tokio::time::sleep(QUIET).await;
    let _line = Line;
    loop {
        let seconds = begun.elapsed().as_secs_f32();
        paint(&format!("\r{what} ... {seconds:.1} s "));
        tokio::time::sleep(TICK).await;
    }
}

struct Line;

impl Drop for Line {
    fn drop(&mut self) {
        paint("\r\x1b[K");
    }
}

fn paint(text: &str) {
    if let Err(err) = output::print_error(text) {
        drop(err); // a terminal that is gone needs no progress
    }
}

/// `work`, with the line shown meanwhile.
pub async fn during<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::select! {
        biased;
        done = work => done,
        () = show(what) => std::future::pending().await,
    }
}
