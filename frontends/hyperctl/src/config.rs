//! A bundle's config.json, of any producer, made what the crate oci-spec reads.
//!
//! That crate leaves out properties that it does not know, as the specification asks ("Extensibility"), and stops at a
//! value that it does not know. Here is where it knows less than the specification.

use std::fs;
use std::path::Path;

use oci_spec::runtime::{Capability, Spec};
use serde::Deserialize;
use serde_json::Value;

use crate::error::{Context as _, Error, Result};
use crate::output;

/// Properties that the specification defines and the crate does not: it would leave them out in silence.
const UNREAD: [(&str, &str); 1] = [("/freebsd", "freebsd")];
/// Flags of `process.scheduler`: as the specification or Linux has them, and as the crate does.
const SCHEDULER_FLAGS: [(&str, &str); 2] = [
    ("SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_D_L_OVERRUN"),
    ("SCHED_FLAG_RESET_ON_FORK", "SCHED_RESET_ON_FORK"),
];

/// Reads `config.json` of a bundle.
pub fn load(bundle: &Path) -> Result<Spec> {
    let path = bundle.join("config.json");
    let text = fs::read(&path).context(|| format!("read {path:?}"));
    let text = text.map_err(|err| err.hint("an OCI bundle holds config.json and a rootfs"))?;
    let mut config: Value = serde_json::from_slice(&text).context(|| format!("read {path:?}"))?;
    refuse_unread(&config)?;
    rename_scheduler_flags(&mut config);
    for name in drop_unknown_capabilities(&mut config) {
        output::warn(format_args!("process.capabilities: {name:?} is not known, and not given"));
    }
    Spec::deserialize(config).context(|| format!("read {path:?}"))
}

fn refuse_unread(config: &Value) -> Result<()> {
    match UNREAD.iter().find(|(pointer, _)| config.pointer(pointer).is_some()) {
        Some((_, name)) => Err(Error::new(format!("{name}: not supported by this guest"))),
        None => Ok(()),
    }
}

fn rename_scheduler_flags(config: &mut Value) {
    let flags = config.pointer_mut("/process/scheduler/flags").and_then(Value::as_array_mut);
    for flag in flags.into_iter().flatten() {
        if let Some((_, name)) = SCHEDULER_FLAGS.iter().find(|(name, _)| flag == name) {
            *flag = (*name).into();
        }
    }
}

/// A capability that cannot be given is a warning, not an error (OCI, "Linux Process"). The value: those.
fn drop_unknown_capabilities(config: &mut Value) -> Vec<String> {
    let mut dropped = Vec::new();
    let sets = config.pointer_mut("/process/capabilities").and_then(Value::as_object_mut);
    for set in sets.into_iter().flat_map(|sets| sets.values_mut()).filter_map(Value::as_array_mut) {
        set.retain(|name| {
            let is_known = !name.is_string() || Capability::deserialize(name).is_ok();
            if !is_known {
                dropped.extend(name.as_str().map(str::to_owned));
            }
            is_known
        });
    }
    dropped.sort();
    dropped.dedup();
    dropped
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bundle's config.json with `process` put in.
    fn load_with(process: &str, more: &str) -> Result<Spec> {
        let bundle = tempfile::tempdir().unwrap();
        let config = format!(
            r#"{{"ociVersion": "1.3.0", {more} "process": {{"cwd": "/", "args": ["x"],
                "user": {{"uid": 0, "gid": 0}}, {process}}}}}"#
        );
        fs::write(bundle.path().join("config.json"), config).unwrap();
        load(bundle.path())
    }

    #[test]
    fn a_property_of_another_platform_is_refused_and_an_unknown_one_is_not() {
        let err = load_with(r#""env": []"#, r#""freebsd": {},"#).unwrap_err();
        assert!(err.to_string().contains("freebsd: not supported"), "{err}");
        load_with(r#""env": []"#, r#""com.example": {},"#).unwrap();
    }

    #[test]
    fn flags_of_the_scheduler_are_read_by_their_names() {
        let names = r#""scheduler": {"policy": "SCHED_BATCH", "flags":
            ["SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_RECLAIM"]}"#;
        let spec = load_with(names, "").unwrap();
        let scheduler = spec.process().as_ref().unwrap().scheduler().clone().unwrap();
        assert_eq!(scheduler.flags().as_ref().unwrap().len(), 3);
        assert!(load_with(&names.replace("RECLAIM", "NONE"), "").is_err());
    }

    #[test]
    fn an_unknown_capability_is_left_out() {
        let sets = r#""capabilities": {"bounding": ["CAP_KILL", "CAP_OF_TOMORROW"]}"#;
        let spec = load_with(sets, "").unwrap();
        let capabilities = spec.process().as_ref().unwrap().capabilities().clone().unwrap();
        assert_eq!(capabilities.bounding().as_ref().unwrap().len(), 1);
    }
}
