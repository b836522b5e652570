//! A guest's event as text, in docker's words: what it was, of whom, and the rest in brackets.

use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

use hyperstart::{ContainerId, Event, Happened};
use serde_json::Value;

use crate::error::Result;
use crate::pod::store::Store;
use crate::time;

/// What containers are called; ids are the guest's.
pub struct Names<'a> {
    store: &'a Store,
    known: BTreeMap<String, String>,
}

impl<'a> Names<'a> {
    pub fn new(store: &'a Store) -> Names<'a> {
        Names { store, known: BTreeMap::new() }
    }

    /// The name; of a container that is gone with its record, the id.
    fn of(&mut self, id: &str) -> Result<String> {
        if !self.known.contains_key(id) {
            let pods = self.store.list()?;
            self.known.extend(pods.into_iter().map(|pod| (pod.state.id, pod.state.name)));
        }
        Ok(self.known.get(id).cloned().unwrap_or_else(|| id.to_string()))
    }
}

/// An event's parts. The object is a container's id, a device, or nothing.
struct Parts<'a> {
    kind: &'static str,
    action: String,
    container: Option<&'a ContainerId>,
    object: &'a str,
    attributes: Vec<(&'static str, String)>,
}

fn parts(what: &Happened) -> Parts<'_> {
    let of = |container, action: &str, attributes| Parts {
        kind: "container",
        action: action.to_string(),
        container: Some(container),
        object: "",
        attributes,
    };
    let guest = |kind, action: &str, object, attributes| Parts {
        kind,
        action: action.to_string(),
        container: None,
        object,
        attributes,
    };
    match what {
        Happened::ContainerCreated(id) => of(id, "create", vec![]),
        Happened::ContainerStarted(id) => of(id, "start", vec![]),
        Happened::ContainerPaused(id) => of(id, "pause", vec![]),
        Happened::ContainerResumed(id) => of(id, "unpause", vec![]),
        Happened::ContainerRemoved(id) => of(id, "destroy", vec![]),
        Happened::Oom(id) => of(id, "oom", vec![]),
        Happened::ExecStarted(id, exec) => {
            of(id, "exec_start", vec![("execID", exec.as_str().to_string())])
        }
        Happened::ProcessExited(id, None, status) => {
            of(id, "die", vec![("exitCode", status.code().to_string())])
        }
        Happened::ProcessExited(id, Some(exec), status) => {
            let exec = ("execID", exec.as_str().to_string());
            of(id, "exec_die", vec![exec, ("exitCode", status.code().to_string())])
        }
        Happened::DeviceAdded(path) => guest("device", "add", path, vec![]),
        Happened::DeviceRemoved(path) => guest("device", "remove", path, vec![]),
        Happened::LowMemory(pressure) => {
            let first = pressure.split("\\n").next().unwrap_or_default();
            guest("guest", "low_memory", "", vec![("pressure", first.to_string())])
        }
        Happened::Other(number) => guest("guest", &format!("event_{number}"), "", vec![]),
        _ => guest("guest", "event", "", vec![]), // hyperstart::Happened is non-exhaustive
    }
}

/// The container that it happened to.
pub fn container(what: &Happened) -> Option<&ContainerId> {
    parts(what).container
}

/// Milliseconds since 1970, by the guest's clock.
pub fn millis(event: &Event) -> u64 {
    u64::try_from(nanos(event) / 1_000_000).unwrap_or(u64::MAX)
}

fn nanos(event: &Event) -> u128 {
    event.time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()
}

/// `2026-11-21T10:41:08.123Z container die web (exitCode=0, id=0123456789ab, seq=7)`
pub fn line(pod: &str, event: &Event, names: &mut Names<'_>) -> Result<String> {
    let Parts { kind, action, container, object, mut attributes } = parts(&event.what);
    let name = match container {
        Some(id) => {
            attributes.push(("id", id.as_str().to_string()));
            names.of(id.as_str())?
        }
        None if object.is_empty() => pod.to_string(),
        None => {
            attributes.push(("pod", pod.to_string()));
            object.to_string()
        }
    };
    attributes.push(("seq", event.sequence.to_string()));
    let attributes: Vec<String> = attributes.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let time = time::rfc3339(millis(event));
    Ok(format!("{time} {kind} {action} {name} ({})\n", attributes.join(", ")))
}

/// Docker's object, and the event's number.
pub fn json(pod: &str, event: &Event, names: &mut Names<'_>) -> Result<String> {
    let Parts { kind, action, container, object, attributes } = parts(&event.what);
    let mut all: BTreeMap<&str, String> = attributes.into_iter().collect();
    all.insert("pod", pod.to_string());
    if let Some(id) = container {
        all.insert("name", names.of(id.as_str())?);
    }
    let nanos = u64::try_from(nanos(event)).unwrap_or(u64::MAX);
    let value = serde_json::json!({
        "Type": kind,
        "Action": action,
        "Actor": {
            "ID": container.map_or(object, ContainerId::as_str),
            "Attributes": all,
        },
        "time": nanos / 1_000_000_000,
        "timeNano": nanos,
        "seq": event.sequence,
    });
    Ok(format!("{}\n", Value::to_string(&value)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hyperstart::ExecId;

    use super::*;

    fn event(what: Happened) -> Event {
        Event { sequence: 7, time: UNIX_EPOCH + Duration::from_millis(1_795_257_668_123), what }
    }

    #[test]
    fn lines_are_dockers() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::below(dir.path()).unwrap();
        let mut names = Names::new(&store);
        names.known.insert("0123456789ab".into(), "web".into());
        let (id, exec) = (ContainerId::new("0123456789ab").unwrap(), ExecId::new("e1").unwrap());
        let mut shown = |what| line("web", &event(what), &mut names).unwrap();
        assert_eq!(
            shown(Happened::ContainerPaused(id.clone())),
            "2026-11-21T10:41:08.123Z container pause web (id=0123456789ab, seq=7)\n"
        );
        assert!(
            shown(Happened::ExecStarted(id, exec)).contains("exec_start web (execID=e1, id=0123")
        );
        assert!(
            shown(Happened::DeviceAdded("/d".into())).ends_with("device add /d (pod=web, seq=7)\n")
        );
        let gone = ContainerId::new("ffff").unwrap();
        assert!(shown(Happened::Oom(gone)).contains("container oom ffff ("));
        let low = shown(Happened::LowMemory("some avg10=1\\nfull avg10=0".into()));
        assert!(low.contains("guest low_memory web (pressure=some avg10=1, seq=7)"), "{low}");
    }

    #[test]
    fn an_object_has_dockers_properties() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::below(dir.path()).unwrap();
        let id = ContainerId::new("ffff").unwrap();
        let text = json("web", &event(Happened::ContainerCreated(id)), &mut Names::new(&store));
        let value: Value = serde_json::from_str(text.unwrap().trim_end()).unwrap();
        assert_eq!((&value["Action"], &value["Actor"]["ID"]), (&"create".into(), &"ffff".into()));
        assert_eq!(
            (&value["seq"], &value["timeNano"]),
            (&7.into(), &1_795_257_668_123_000_000_u64.into())
        );
    }
}
