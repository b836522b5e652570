//! One record, one line on the console: `init: warn: …`. The console is a serial line that costs the guest hundreds of
//! instructions a byte, so the default level is warn, and nothing is said twice. What the console got is kept in a
//! [`Ring`], with the time of day before it, for a host that asks for it.

mod ring;

use std::rc::Rc;

pub use ring::{KEPT, Ring};

pub use ::log::{LevelFilter, debug, error, info, warn};
use ::log::{Log, Metadata, Record};

use crate::clock::now_ns;

struct Console;

impl Log for Console {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= ::log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            write_line(&format!("{}: {}", level_name(record.level()), record.args()));
        }
    }

    fn flush(&self) {}
}

fn level_name(level: ::log::Level) -> &'static str {
    match level {
        ::log::Level::Error => "error",
        ::log::Level::Warn => "warn",
        ::log::Level::Info => "info",
        ::log::Level::Debug => "debug",
        ::log::Level::Trace => "trace",
    }
}

thread_local! {
    /// PID 1 has one thread. A child has a copy, which nobody reads.
    static RING: Rc<Ring> = Rc::default();
}

/// What was logged until now, and will be.
pub fn ring() -> Rc<Ring> {
    RING.with(Rc::clone)
}

/// Messages hold names from outside: control characters are shown as escapes, so that a record stays one line.
pub fn write_line(message: &str) {
    const PREFIX: &str = "init: ";
    let mut line = String::with_capacity(message.len() + 8);
    line.push_str(PREFIX);
    for character in message.chars() {
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line.push('\n');
    // Nobody is left to tell when the console itself fails.
    rustix::io::write(rustix::stdio::stderr(), line.as_bytes()).ok();
    RING.with(|ring| ring.push(now_ns(), line.strip_prefix(PREFIX).unwrap_or_default()));
}

pub fn init(level: LevelFilter) {
    static CONSOLE: Console = Console;
    if ::log::set_logger(&CONSOLE).is_ok() {
        ::log::set_max_level(level);
    }
}
