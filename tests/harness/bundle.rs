//! An OCI bundle on the host: a rootfs that is a plain directory, and a config.json to change.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::command::{Place, Said};
use crate::guest;

/// What `runc spec` writes, short of a terminal.
const CONFIG: &str = include_str!("../cases/bundle/config.json");
/// `alice` is in two more groups than her own.
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1001::/home/alice:/bin/sh\n";
const GROUP: &str = "root:x:0:\nalice:x:1001:\nwheel:x:10:alice\naudio:x:29:bob,alice\n";

/// A bundle in a place. Its config is written when it is run.
pub struct Bundle {
    pub directory: PathBuf,
    pub config: Value,
}

impl Bundle {
    /// The probe, busybox by its usual names, users, and the directories that an image has.
    pub fn new(place: &Place, name: &str) -> Self {
        let directory = place.path(name);
        let rootfs = directory.join("rootfs");
        for made in ["bin", "dev", "proc", "sys", "tmp", "etc", "root", "home/alice", "expect"] {
            fs::create_dir_all(rootfs.join(made)).expect("make a directory");
        }
        let busybox = rootfs.join("bin/busybox");
        fs::copy("/bin/busybox", busybox).expect("copy /bin/busybox (apt install busybox-static)");
        for applet in
            ["cat", "head", "hostname", "id", "kill", "ln", "ls", "rm", "sh", "sleep", "stat", "wc"]
        {
            std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(applet))
                .expect("make a link");
        }
        fs::copy(guest::payload("probe"), rootfs.join("probe")).expect("copy the probe");
        fs::write(rootfs.join("etc/passwd"), PASSWD).expect("write a file");
        fs::write(rootfs.join("etc/group"), GROUP).expect("write a file");
        let config = serde_json::from_str(CONFIG).expect("a config.json");
        Self { directory, config }
    }

    pub fn rootfs(&self) -> PathBuf {
        self.directory.join("rootfs")
    }

    /// Puts an expectation into the rootfs; the value is its path in there.
    pub fn expect(&self, name: &str, config: &Value) -> String {
        let path = format!("expect/{name}.json");
        fs::write(self.rootfs().join(&path), config.to_string()).expect("write an expectation");
        format!("/{path}")
    }

    pub fn args<const N: usize>(&mut self, words: [&str; N]) {
        put(&mut self.config, "/process/args", Vec::from(words).into());
    }

    pub fn write(&self) {
        let text = serde_json::to_string_pretty(&self.config).expect("write JSON");
        fs::write(self.directory.join("config.json"), text).expect("write config.json");
    }

    /// `hyperctl run --rm --bundle`, without input.
    pub fn run(&self, place: &Place) -> Said {
        self.write();
        place.run(["run", "--rm", "--bundle", self.directory.to_str().expect("a name in UTF-8")])
    }
}

/// Puts a value at a JSON pointer (RFC 6901); objects on the way there are made, `-` is a new item of a list.
pub fn put(config: &mut Value, pointer: &str, value: Value) {
    let mut at = config;
    for name in pointer.split('/').skip(1) {
        at = if let Value::Array(list) = at {
            if name == "-" {
                list.push(Value::Null);
            }
            let last = list.len().saturating_sub(1);
            let index = if name == "-" { last } else { name.parse().expect("an index") };
            list.get_mut(index).unwrap_or_else(|| panic!("{pointer}: no such item"))
        } else {
            &mut at[name]
        };
    }
    *at = value;
}

/// Takes what is at a JSON pointer away.
pub fn take(config: &mut Value, pointer: &str) {
    let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
    let parent = config.pointer_mut(parent).unwrap_or_else(|| panic!("{pointer}: no parent"));
    let taken = match parent {
        Value::Array(list) => Some(list.remove(name.parse().expect("an index"))),
        other => other.as_object_mut().and_then(|object| object.remove(name)),
    };
    assert!(taken.is_some(), "{pointer}: not there");
}
