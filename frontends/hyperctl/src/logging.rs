//! The logger of the crates below us, whose few warnings go to standard error like our own.
//!
//! `HYPERSTART_LOG=error|warn|info|debug|trace` says how much; a wrong word is as good as none.

use log::{LevelFilter, Log, Metadata, Record};

use crate::output;

struct StandardError;

impl Log for StandardError {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // tokio's and mio's own steps are nobody's business here.
        metadata.target().starts_with("hyper") || metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            output::warn(record.args());
        }
    }

    fn flush(&self) {}
}

pub fn init() {
    let asked = std::env::var("HYPERSTART_LOG").ok();
    let level = asked.and_then(|level| level.parse().ok()).unwrap_or(LevelFilter::Warn);
    // An error only means that there is a logger already, and this is called once.
    if log::set_logger(&StandardError).is_ok() {
        log::set_max_level(level);
    }
}
