//! The probe's checks, and the cases that have twins for them: read from their sources.

use std::fs;
use std::path::Path;

/// The names of the probe's checks, as its table lists them.
pub fn checks() -> Vec<String> {
    let text = include_str!("../probe/src/conform/mod.rs");
    let table = text.split("const CHECKS").nth(1).unwrap().split("];").next().unwrap();
    table
        .lines()
        .filter_map(|line| Some(line.trim().strip_prefix("(\"")?.split('"').next()?.to_owned()))
        .collect()
}

/// The cases that have twins, in one text.
pub fn conformance() -> String {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases/conformance");
    let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
    entries.map(|entry| fs::read_to_string(entry.path()).unwrap()).collect()
}
