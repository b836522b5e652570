//! How far a pull is: a bar for each blob that is on its way, and a line for each that is there.
//!
//! On a terminal the bars are below the lines and go when they are full. Elsewhere there are only the lines.

use std::cell::RefCell;
use std::collections::HashMap;

use hyperstart_registry::{self as registry, Digest};
use image_builder::progress as builder;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output;
use crate::units::traffic;

const TEMPLATE: &str = "{prefix} {bar:30} {bytes} of {total_bytes}, {bytes_per_sec}";

pub struct Bars {
    all: MultiProgress,
    blobs: RefCell<HashMap<Digest, ProgressBar>>,
    /// The step of the import.
    step: RefCell<Option<ProgressBar>>,
    is_quiet: bool,
}

impl Bars {
    pub fn new(is_quiet: bool) -> Bars {
        let all = MultiProgress::new(); // nothing is drawn where standard error is no terminal
        if is_quiet {
            all.set_draw_target(ProgressDrawTarget::hidden());
        }
        Bars { all, blobs: RefCell::default(), step: RefCell::default(), is_quiet }
    }

    /// A line above the bars.
    pub fn say(&self, line: &str) {
        if !self.is_quiet {
            self.all.suspend(|| output::say(line));
        }
    }

    fn bar(&self, prefix: &str, size: u64, have: u64) -> ProgressBar {
        let bar = self.all.add(ProgressBar::new(size).with_prefix(prefix.to_owned()));
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_position(have);
        bar.reset_eta(); // the speed is that of what comes
        bar
    }

    /// The end of a blob's bar.
    fn clear(&self, blob: &Digest) -> Option<ProgressBar> {
        let bar = self.blobs.borrow_mut().remove(blob);
        bar.inspect(ProgressBar::finish_and_clear)
    }
}

impl Drop for Bars {
    /// What is said next, be it why the pull has failed, is not said below half a bar.
    fn drop(&mut self) {
        if let Err(err) = self.all.clear() {
            drop(err); // a terminal that is gone needs no progress
        }
    }
}

impl registry::Progress for Bars {
    fn begin(&self, blob: &Digest, size: u64, have: u64) {
        if have > 0 {
            let (have, size) = (traffic(have), traffic(size));
            self.say(&format!("{}: {have} of {size} are there, going on", blob.short()));
        }
        self.blobs.borrow_mut().insert(blob.clone(), self.bar(blob.short(), size, have));
    }

    fn at(&self, blob: &Digest, bytes: u64) {
        if let Some(bar) = self.blobs.borrow().get(blob) {
            bar.set_position(bytes);
        }
    }

    fn done(&self, blob: &Digest) {
        if let Some(bar) = self.clear(blob) {
            let size = traffic(bar.length().unwrap_or_default());
            self.say(&format!("{}: {size}", blob.short()));
        }
    }

    fn kept(&self, blob: &Digest, size: u64) {
        self.say(&format!("{}: {}, already there", blob.short(), traffic(size)));
    }

    fn again(&self, blob: &Digest, cause: &str) {
        self.say(&format!("{}: {cause}; trying again", blob.short()));
    }
}

impl builder::Progress for Bars {
    fn begin(&self, step: &str, total: u64) {
        self.step.replace(Some(self.bar(step, total, 0)));
    }

    fn advance(&self, bytes: u64) {
        if let Some(bar) = &*self.step.borrow() {
            bar.inc(bytes);
        }
    }

    fn end(&self) {
        if let Some(bar) = self.step.take() {
            bar.finish_and_clear();
        }
    }

    fn warn(&self, message: &str) {
        self.all.suspend(|| output::warn(message));
    }
}
