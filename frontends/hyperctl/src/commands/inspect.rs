//! `hyperctl inspect`: all that is known of a pod, as JSON for programs (an array, as docker prints one).

use serde_json::{Value, json};

use crate::error::Result;
use crate::output;
use crate::pod::client;
use crate::pod::state::{State, Status};
use crate::pod::store::{Pod, Store};
use crate::time;

/// Print all that is known of pods, as a JSON array
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Names, ids, or beginnings of ids
    #[arg(required = true, value_name = "POD")]
    pods: Vec<String>,
}

pub async fn run(args: &Args) -> Result<u8> {
    let store = Store::open()?;
    let mut values = Vec::new();
    for name in &args.pods {
        let pod = store.find(name)?;
        let guest = guest(&pod).await;
        values.push(describe(&pod, &guest)?);
    }
    output::print(format!("{}\n", serde_json::to_string_pretty(&values)?))?;
    Ok(0)
}

/// What the guest has found out about its own root; null where it cannot be asked and has left no word.
async fn guest(pod: &Pod) -> Value {
    match client::receipt_of(pod).await {
        Ok(receipt) => json!({
            "root": {
                "mode": receipt.boot_mode,
                "fstype": receipt.root_fstype,
                "dax": receipt.root_dax,
                "verity": receipt.root_verity,
            },
            "memory_total_bytes": receipt.mem_total_bytes,
            "memory_available_bytes": receipt.mem_available_bytes,
        }),
        Err(err) => {
            log::debug!("inspect {:?}: {err}", pod.state.name);
            Value::Null
        }
    }
}

/// The state file's content; times as people and programs read them, and where the files are.
fn describe(pod: &Pod, guest: &Value) -> Result<Value> {
    let State {
        id,
        name,
        pod: of,
        image,
        status,
        created,
        host_pid,
        vm,
        address,
        process,
        steps,
        mounts,
        ..
    } = &pod.state;
    Ok(json!({
        "id": id,
        "name": name,
        "pod": of,
        "image": image,
        "created": time::rfc3339(*created),
        "state": describe_status(status),
        "host_pid": host_pid,
        "vm": vm,
        "guest": guest,
        "address": address,
        "process": process,
        "mounts": mounts,
        "steps": steps,
        "directory": pod.dir,
    }))
}

fn describe_status(status: &Status) -> Value {
    match status {
        Status::Booting => json!({"status": "booting"}),
        Status::Running { since } => json!({"status": "running", "since": time::rfc3339(*since)}),
        Status::Exited { at, exit_code, error } => json!({
            "status": "exited",
            "at": time::rfc3339(*at),
            "exit_code": exit_code,
            "error": error,
        }),
    }
}
