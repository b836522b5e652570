//! What PID 1 serves and refuses: its tables, read from their sources.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

const FACES: [(&str, &str); 3] = [
    ("grpc.AgentService", "init/src/server/kata/mod.rs"),
    ("grpc.Health", "init/src/server/health.rs"),
    ("hyperstart.v1.Guest", "init/src/server/guest/mod.rs"),
];

/// A service, as one file of PID 1's lists it.
pub struct Face {
    pub service: String,
    /// A method, and the file that its handler is in.
    pub served: BTreeMap<String, String>,
    pub refused: BTreeSet<String>,
}

pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

pub fn faces() -> Vec<Face> {
    let read = |(service, path)| {
        Face::parse(service, path, &fs::read_to_string(workspace().join(path)).unwrap())
    };
    FACES.map(read).into()
}

impl Face {
    /// `.serve("Name", module::handler)` `.serve_waiting(…)` and the like; `NOT_SERVED` is what is refused.
    pub fn parse(service: &str, path: &str, text: &str) -> Self {
        let calls = text.split(".serve").skip(1).filter_map(|rest| {
            let (how, rest) = rest.split_once('(')?;
            let is_call = how.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase());
            let arguments = rest.split(')').next().filter(|_| is_call)?;
            let mut words = arguments.split(',').map(str::trim);
            let (name, handler) = (words.next()?, words.next()?);
            let module = handler.split_once("::").map(|(module, _)| module);
            Some((name.trim_matches('"').to_owned(), file_of(path, module)))
        });
        let list = text.split("const NOT_SERVED").nth(1);
        let list = list.and_then(|list| list.split("];").next()).unwrap_or_default();
        let refused = list.split('"').skip(1).step_by(2).map(str::to_owned).collect();
        Self { service: service.to_owned(), served: calls.collect(), refused }
    }
}

/// Where a module of the file at `path` is; a handler without a module is in that file.
fn file_of(path: &str, module: Option<&str>) -> String {
    let directory = path.rsplit_once('/').unwrap().0;
    module.map_or(path.to_owned(), |module| format!("{directory}/{module}.rs"))
}
