//! The bench: what a guest costs, in figures that repeat, beside what it may cost.
//!
//! ```text
//! measure_*.rs ── figures ──> table.rs ──> a table for people, target/bench.json for programs
//!                                ^
//!                  budgets.rs: what is measured, in which unit, and its budget with the source
//! ```
//! A figure is a size, a count of guest instructions or an amount of guest memory: these repeat. Wall times stand
//! beside them and are judged by nobody. A budget that is missed is said in the table; the exit code tells only whether
//! everything could be measured. How each figure is taken: docs/bench.md.
#![allow(clippy::print_stdout, clippy::print_stderr)] // a program for people at a terminal

mod budgets;
mod counter;
mod figures;
mod limit;
mod measure_boot;
mod measure_container;
mod measure_image;
mod measure_import;
mod measure_layers;
mod measure_load;
mod measure_memory;
mod measure_size;
mod measure_smallest;
mod measure_throughput;
mod measure_wall;
mod table;

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result};
use harness::guest;

use figures::Figures;

type Measure = fn(&mut Figures) -> Result<()>;

/// What is measured, in order: what needs the most quiet first.
const MEASURES: [(&str, Measure); 11] = [
    ("sizes", measure_size::measure),
    ("boot", measure_boot::measure),
    ("container and exec", measure_container::measure),
    ("layers of an image", measure_layers::measure),
    ("wall times", measure_wall::measure),
    ("stdout throughput", measure_throughput::measure),
    ("memory", measure_memory::measure),
    ("image", measure_image::measure),
    ("smallest guest", measure_smallest::measure),
    ("image import", measure_import::measure),
    ("load", measure_load::measure),
];

fn main() -> Result<()> {
    let only: Vec<String> = std::env::args().skip(1).collect();
    let mut figures = Figures::default();
    for (name, measure) in MEASURES {
        if !only.is_empty() && !only.iter().any(|word| name.contains(word.as_str())) {
            continue;
        }
        let begun = Instant::now();
        measure(&mut figures).with_context(|| format!("measure {name}"))?;
        eprintln!("bench: {name}: {:.0} s", begun.elapsed().as_secs_f64());
    }
    let rows = table::rows(&figures)?;
    println!("\n{}", table::text(&rows));
    let path = guest::workspace().join("target/bench.json");
    fs::write(&path, table::json(&rows)).with_context(|| format!("write {path:?}"))
}
