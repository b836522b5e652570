//! `make bench`: what the guest costs, beside what it must cost (the same kernel with an init that does nothing) and what
//! it may cost.
//!
//! Guest instructions under QEMU's `-icount` and sizes repeat, and are what counts. Wall times are shown beside them and
//! are no pass mark: on a shared machine they vary by a factor of two. A missed budget is said in the table, and does
//! not fail the run: the table is the result.
//!
//! `bench [TEXT...]` measures the groups whose name holds one of the words: `sizes`, `boot`, `work`, `memory`, `wall`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a bench may fail loudly
#![allow(clippy::print_stdout, clippy::print_stderr)] // it prints a table

mod count;
mod limit;
mod measure;
mod table;

use harness::guest;
use table::Table;

/// A group of rows, and what measures it.
type Group = (&'static str, fn(&mut Table));

const GROUPS: [Group; 5] = [
    ("sizes", measure::sizes),
    ("boot", measure::boot),
    ("work", measure::work),
    ("memory", measure::memory),
    ("wall", measure::wall),
];

fn main() {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let mut table = Table::default();
    for (name, measure) in GROUPS {
        if asked.is_empty() || asked.iter().any(|word| name.contains(word.as_str())) {
            eprintln!("bench: {name}");
            measure(&mut table);
        }
    }
    print!("{}", table.text());
    let path = guest::workspace().join("target/bench.json");
    std::fs::write(&path, table.json()).expect("write target/bench.json");
    println!("\nwritten to {}", path.display());
}
