//! The payload of the tests: one static binary that acts on command and says what it sees.
//!
//! `probe COMMAND ARGS...`. A command that acts does one thing that a container's process may do (exit, ignore
//! signals, write megabytes, leave orphans); `view` prints all that a process can find out about itself, one
//! `name=value` a line, so that a test compares facts and not the output of somebody's tools. It runs as an image's
//! only file: it needs no shell, no library and no `/proc` unless a command is about it.
//!
//! A wrong use of it is status 99 and a line on stderr, so that no test takes it for an answer.

mod act;
mod attack;
mod calls;
mod conform;
mod guest_state;
mod load;
mod scheduling;
mod view;

use std::io::{self, Write};
use std::process::ExitCode;

/// Said for a command that is unknown or badly used, or a system call that failed.
const MISUSED: u8 = 99;

/// What a command comes back with: its exit code.
type Outcome = io::Result<u8>;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let command = args.next().unwrap_or_default();
    let rest: Vec<String> = args.collect();
    match run(&command, &rest) {
        Ok(code) => ExitCode::from(code),
        Err(err) => {
            // If stderr is closed the exit code still says it.
            let said = writeln!(io::stderr(), "probe {command}: {err}");
            ExitCode::from(if said.is_ok() { MISUSED } else { MISUSED + 1 })
        }
    }
}

fn run(command: &str, args: &[String]) -> Outcome {
    match (command, args) {
        ("echo", words) => act::echo(words),
        ("exit", [code]) => parse(code),
        ("kill-self", [signal]) => act::kill_self(parse(signal)?),
        ("ignore-signals", []) => act::ignore_signals(),
        ("catch", [signal, code]) => act::catch(parse(signal)?, parse(code)?),
        ("panic", [message]) => act::panic_saying(message),
        ("hang", _) => act::sleep(u64::MAX), // a kernel's command line goes on after its words
        ("sleep", [milliseconds]) => act::sleep(parse(milliseconds)?),
        ("write", [stream, bytes]) => act::write(stream, parse(bytes)?),
        ("pour", [bytes]) => act::pour_out(parse(bytes)?),
        ("write-both", [bytes]) => act::write_both(parse(bytes)?),
        ("sum", []) => act::sum(),
        ("cat", []) => act::cat(),
        ("orphans", [count, milliseconds]) => act::orphans(parse(count)?, parse(milliseconds)?),
        ("orphans-at-once", [count]) => load::orphans_at_once(parse(count)?),
        ("fork-bomb", []) => load::fork_bomb(),
        ("hog", []) => load::hog(),
        ("fill", [path]) => load::fill(path),
        ("fill-with-files", [path]) => load::fill_with_files(path),
        ("allocate", [mebibytes]) => act::allocate(parse(mebibytes)?),
        ("hold", [mebibytes]) => act::hold(parse(mebibytes)?),
        ("read", paths) => act::read(paths),
        ("find", [path, text]) => act::find(path, text),
        ("open-write", [path]) => act::open_for_writing(path),
        ("make-node", [path]) => act::make_node(path),
        ("set-xattr", [path, name, value]) => act::set_xattr(path, name, value),
        ("xattr", [path, name]) => act::xattr(path, name),
        ("swap", [one, two]) => act::swap(one, two),
        ("resize", [columns, rows]) => act::await_size(parse(columns)?, parse(rows)?),
        ("vsock", [port]) => act::reach_vsock(parse(port)?),
        ("chase", []) => attack::chase(),
        ("nodes", numbers) => attack::nodes(numbers),
        ("all-nodes", []) => attack::all_nodes(),
        ("call-numbers", numbers) => attack::call_numbers(numbers),
        ("spoof-uevents", []) => attack::spoof_uevents(),
        ("listen-abstract", [name]) => attack::listen_abstract(name),
        ("hold-files", [count]) => attack::hold_files(parse(count)?),
        ("detach-device-rules", []) => attack::detach_device_rules(),
        ("calls", calls) => calls::make(calls),
        ("call-in-thread", [call]) => calls::make_in_a_thread(call),
        ("call-trapped", [call]) => calls::make_trapped(call),
        ("namespaces-of", [pid]) => view::print_namespaces(pid),
        ("scheduling", []) => scheduling::print(),
        ("conform", files) => conform::run(files),
        ("view", []) => view::print(),
        ("guest-state", [proc]) => guest_state::print(proc),
        ("guest", [proc, kmsg]) => view::print_guest(proc, kmsg),
        ("init-memory", [proc]) => view::print_init_memory(proc),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{args:?}: no such command, or not its arguments"),
        )),
    }
}

fn parse<T: std::str::FromStr>(word: &str) -> io::Result<T> {
    word.parse().map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("{word:?}: not a number in range"))
    })
}
