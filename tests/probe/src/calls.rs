//! System calls by number, and what becomes of them: for filters.

use std::fs;
use std::io::{self, Write};
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;
use std::time::Duration;

use nix::libc;
use nix::sys::signal::{SigHandler, Signal, signal};

use crate::Outcome;

/// Each is `NUMBER` or `NUMBER:ARGUMENT:…`, arguments in hexadecimal: `call.INDEX=RESULT`, or `=errno:ERRNO`.
pub fn make(calls: &[String]) -> Outcome {
    for (index, text) in calls.iter().enumerate() {
        match call(text)? {
            Ok(result) => say(&format!("call.{index}={result}"))?,
            Err(err) => {
                say(&format!("call.{index}=errno:{}", err.raw_os_error().unwrap_or_default()))?
            }
        }
    }
    Ok(0)
}

/// A second thread makes the call, and the first says what is left of it: `threads=1` once it has gone.
pub fn make_in_a_thread(text: &str) -> Outcome {
    call_numbers(text)?; // misuse is said here
    let text = text.to_owned();
    thread::spawn(move || {
        call(&text).ok();
        thread::sleep(Duration::from_secs(3600)); // a thread that is left alone stays
    });
    let mut threads = 2;
    for _ in 0..100 {
        thread::sleep(Duration::from_millis(10));
        threads = fs::read_dir("/proc/self/task")?.count();
        if threads == 1 {
            break;
        }
    }
    say(&format!("threads={threads}"))?;
    Ok(0)
}

static CAUGHT: AtomicI32 = AtomicI32::new(0);

/// Makes the call with a handler for SIGSYS: `caught=31` if it was trapped, else `caught=0`.
#[allow(unsafe_code)] // signal(2)
pub fn make_trapped(text: &str) -> Outcome {
    extern "C" fn note(number: i32) {
        CAUGHT.store(number, Ordering::Relaxed);
    }
    // SAFETY: the handler stores to an atomic, which is async-signal-safe.
    unsafe { signal(Signal::SIGSYS, SigHandler::Handler(note)) }?;
    call(text)?.ok();
    say(&format!("caught={}", CAUGHT.load(Ordering::Relaxed)))?;
    Ok(0)
}

fn call_numbers(text: &str) -> io::Result<(i64, [u64; 6])> {
    let wrong = || io::Error::new(io::ErrorKind::InvalidInput, format!("{text:?}: not a call"));
    let mut words = text.split(':');
    let number = words.next().and_then(|word| word.parse().ok()).ok_or_else(wrong)?;
    let mut arguments = [0; 6];
    for (argument, word) in arguments.iter_mut().zip(&mut words) {
        *argument = u64::from_str_radix(word, 16).map_err(|_| wrong())?;
    }
    if words.next().is_some() { Err(wrong()) } else { Ok((number, arguments)) }
}

#[allow(unsafe_code)] // any system call
fn call(text: &str) -> io::Result<io::Result<i64>> {
    let (number, [a, b, c, d, e, f]) = call_numbers(text)?;
    // SAFETY: the tests name calls that take no pointer, or that get one that points nowhere: EFAULT.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    Ok(if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) })
}

fn say(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}
