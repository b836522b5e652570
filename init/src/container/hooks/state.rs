//! The state of a container as a hook reads it (OCI runtime.md, "State").

use std::collections::BTreeMap;
use std::fmt::Write;

pub struct State<'a> {
    pub oci_version: &'a str,
    pub id: &'a str,
    /// A number.
    pub pid: String,
    pub bundle: &'a str,
    pub annotations: &'a BTreeMap<String, String>,
}

impl State<'_> {
    pub fn json(&self, status: &str) -> String {
        let mut json = String::from("{");
        for (name, value) in [("ociVersion", self.oci_version), ("id", self.id), ("status", status)]
        {
            member(&mut json, name, value);
            json.push(',');
        }
        json.push_str("\"pid\":");
        json.push_str(&self.pid);
        json.push(',');
        member(&mut json, "bundle", self.bundle);
        json.push_str(",\"annotations\":{");
        for (at, (name, value)) in self.annotations.iter().enumerate() {
            if at > 0 {
                json.push(',');
            }
            member(&mut json, name, value);
        }
        json.push_str("}}");
        json
    }
}

fn member(json: &mut String, name: &str, value: &str) {
    string(json, name);
    json.push(':');
    string(json, value);
}

/// RFC 8259, "Strings": what must be escaped is.
fn string(json: &mut String, text: &str) {
    json.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => json.extend(['\\', c]),
            c if c < ' ' => {
                // A String takes all that is written to it.
                write!(json, "\\u{:04x}", u32::from(c)).unwrap_or_default();
            }
            c => json.push(c),
        }
    }
    json.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_json_whatever_is_in_it() {
        let annotations = BTreeMap::from([
            ("com.example.key".to_owned(), "a \"b\" \\ \n\u{1f} é \u{1f600}".to_owned()),
            ("empty".to_owned(), String::new()),
        ]);
        let state = State {
            oci_version: "1.2.0",
            id: "web",
            pid: "42".to_owned(),
            bundle: "/run/b",
            annotations: &annotations,
        };
        assert_eq!(
            state.json("creating"),
            "{\"ociVersion\":\"1.2.0\",\"id\":\"web\",\"status\":\"creating\",\"pid\":42,\
             \"bundle\":\"/run/b\",\"annotations\":{\
             \"com.example.key\":\"a \\\"b\\\" \\\\ \\u000a\\u001f é \u{1f600}\",\"empty\":\"\"}}"
        );
    }
}
