//! One record, one line on the console: `init: warn: …`. The console is a serial line that costs the guest hundreds of
//! instructions a byte, so the default level is warn, and nothing is said twice.

pub use ::log::{LevelFilter, debug, error, info, warn};
use ::log::{Log, Metadata, Record};

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

/// Messages hold names from outside: control characters are shown as escapes, so that a record stays one line.
pub fn write_line(message: &str) {
    let mut line = String::with_capacity(message.len() + 8);
    line.push_str("init: ");
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
}

pub fn init(level: LevelFilter) {
    static CONSOLE: Console = Console;
    if ::log::set_logger(&CONSOLE).is_ok() {
        ::log::set_max_level(level);
    }
}
