//! `hyperctl ps`: the pods, as docker lists containers.

use crate::error::Result;
use crate::output;
use crate::pod::state::{State, Status};
use crate::pod::store::Store;
use crate::time;

/// The widest COMMAND that is shown whole.
const COMMAND_WIDTH: usize = 30;

/// List the pods and their further containers
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Exited pods too, not only the living
    #[arg(short, long)]
    all: bool,
    /// Only the ids
    #[arg(short, long)]
    quiet: bool,
}

pub fn run(args: &Args) -> Result<u8> {
    let mut pods = Store::open()?.list()?;
    pods.retain(|pod| args.all || !matches!(pod.state.status, Status::Exited { .. }));
    pods.reverse(); // the newest first
    if args.quiet {
        output::print(pods.iter().map(|pod| format!("{}\n", pod.state.id)).collect::<String>())?;
        return Ok(0);
    }
    let rows: Vec<[String; 6]> = pods.iter().map(|pod| row(&pod.state)).collect();
    output::print(output::table(["POD ID", "NAME", "IMAGE", "COMMAND", "STATUS", "VM"], &rows))?;
    Ok(0)
}

fn row(state: &State) -> [String; 6] {
    [
        state.id.clone(),
        state.name.clone(),
        printable(&state.image),
        format!("\"{}\"", shorten(&printable(&state.command()), COMMAND_WIDTH)),
        status(&state.status),
        match &state.pod {
            Some(pod) => format!("in {pod}"),
            None => {
                format!("{} {} CPU {} MiB", state.vm.machine, state.vm.cpus, state.vm.memory_mib)
            }
        },
    ]
}

fn status(status: &Status) -> String {
    match status {
        Status::Booting => "Booting".into(),
        Status::Running { since } => format!("Up {}", time::rough(time::since(*since))),
        Status::Exited { at, exit_code, .. } => {
            format!("Exited ({exit_code}) {} ago", time::rough(time::since(*at)))
        }
    }
}

/// A command's words can hold anything; a table's cell is one line without escapes.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn shorten(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_string();
    }
    let head: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{head}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_reads_as_dockers() {
        let now = time::unix_millis();
        assert_eq!(status(&Status::Running { since: now - 5_400 }), "Up 5 seconds");
        let exited = Status::Exited { at: now - 61_000, exit_code: 7, error: None };
        assert_eq!(status(&exited), "Exited (7) 1 minute ago");
    }

    #[test]
    fn cells_are_one_short_line() {
        assert_eq!(printable("a\n\x1b[2J"), "a??[2J");
        assert_eq!(shorten("abcdef", 4), "abc…");
        assert_eq!(shorten("abcd", 4), "abcd");
    }
}
