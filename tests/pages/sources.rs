//! Which tests there are: read from the sources, since a test binary can not list another's.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Where tests are, and what is before their names in the table.
const ROOTS: [(&str, &str); 5] = [
    ("tests/cases", ""),
    ("init/src", "init::"),
    ("host-lib/src", "host-lib::"),
    ("frontends/hyperctl/src", "hyperctl::"),
    ("protocol/tests", "protocol::"),
];

/// The name of each test function as the table writes it, with the text of its body.
pub fn tests() -> BTreeMap<String, String> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut found = BTreeMap::new();
    for (root, prefix) in ROOTS {
        let directory = workspace.join(root);
        for path in files(&directory) {
            let text = fs::read_to_string(&path).unwrap();
            let module = module(path.strip_prefix(&directory).unwrap());
            for (name, body) in functions(&text) {
                let name = if prefix.is_empty() {
                    format!("{module}::{name}")
                } else {
                    format!("{prefix}{name}")
                };
                found.insert(name, body);
            }
        }
    }
    found
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// `a/b.rs` is `a::b`, `a/mod.rs` is `a`.
fn module(path: &Path) -> String {
    let parts: Vec<String> = path
        .with_extension("")
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .filter(|part| part != "mod")
        .collect();
    parts.join("::")
}

/// The functions that are marked as tests. A body ends where its closing brace is in the column of its `fn`.
fn functions(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if !matches!(line.trim(), "#[test]" | "#[tokio::test]") {
            continue;
        }
        let indent = &line[..line.len() - line.trim_start().len()];
        let Some(declaration) = lines.by_ref().find(|line| line.contains("fn ")) else { break };
        let name = declaration.split("fn ").nth(1).unwrap().split('(').next().unwrap();
        let end = format!("{indent}}}");
        let body: Vec<&str> = lines.by_ref().take_while(|line| *line != end).collect();
        found.push((name.to_owned(), body.join("\n")));
    }
    found
}
