//! The log as Kata has it: JSON lines on a vsock port, for one client of the host's at a time.
//!
//! A client gets what is kept, then each line as it comes; one that comes back gets what is kept again.

use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio_vsock::VsockListener;

use super::vsock::{self, ShortWrites};
use crate::error::Result;
use crate::log::{self, KEPT};

/// Serves clients one after the other for as long as the guest lives.
pub async fn serve(listener: VsockListener) {
    loop {
        let (input, output) = split(vsock::next_of_host(&listener).await);
        tokio::select! {
            result = send(output) => if let Err(err) = result {
                log::debug!("log stream: {err}"); // the client is gone
            },
            () = hung_up(input) => {}
        }
    }
}

async fn send(mut output: WriteHalf<ShortWrites>) -> Result<()> {
    let ring = log::ring();
    let mut next = 0;
    loop {
        // As much as is kept, which is whole lines.
        let part = ring.wait_read(next, KEPT).await?;
        next = part.offset + part.data.len() as u64;
        output.write_all(json_lines(&String::from_utf8_lossy(&part.data)).as_bytes()).await?;
    }
}

/// Nothing is expected of the client: what it sends is dropped.
async fn hung_up(mut input: ReadHalf<ShortWrites>) {
    let mut dropped = [0; 64];
    while input.read(&mut dropped).await.is_ok_and(|count| count > 0) {}
}

/// Of lines of the ring: `TIME LEVEL: MESSAGE`, or `TIME MESSAGE` for a step of the boot.
fn json_lines(lines: &str) -> String {
    let mut json = String::with_capacity(lines.len() * 2);
    for line in lines.lines() {
        let (time, message) = line.split_once(' ').unwrap_or(("", line));
        let (level, message) = level(message);
        json.push_str("{\"msg\":\"");
        for character in message.chars() {
            // Control characters are escaped in the ring.
            if matches!(character, '"' | '\\') {
                json.push('\\');
            }
            json.push(character);
        }
        for part in ["\",\"level\":\"", level, "\",\"ts\":\"", time] {
            json.push_str(part);
        }
        json.push_str("\",\"name\":\"hyperstart\",\"source\":\"init\"}\n");
    }
    json
}

/// slog's names of levels, which Kata's runtimes read.
fn level(message: &str) -> (&'static str, &str) {
    let levels = [
        ("error: ", "ERRO"),
        ("warn: ", "WARN"),
        ("info: ", "INFO"),
        ("debug: ", "DEBG"),
        ("trace: ", "TRCE"),
    ];
    let found = levels
        .iter()
        .find_map(|(prefix, name)| message.strip_prefix(prefix).map(|message| (*name, message)));
    found.unwrap_or(("INFO", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_an_object() {
        let lines = "2026-11-21T17:53:51.0Z warn: Start: exec \"a\\tb\": é\n2026-11-21T17:53:52.0Z mounts\n";
        assert_eq!(
            json_lines(lines),
            "{\"msg\":\"Start: exec \\\"a\\\\tb\\\": é\",\"level\":\"WARN\",\
             \"ts\":\"2026-11-21T17:53:51.0Z\",\"name\":\"hyperstart\",\"source\":\"init\"}\n\
             {\"msg\":\"mounts\",\"level\":\"INFO\",\
             \"ts\":\"2026-11-21T17:53:52.0Z\",\"name\":\"hyperstart\",\"source\":\"init\"}\n"
        );
    }
}
