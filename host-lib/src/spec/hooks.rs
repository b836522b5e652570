//! Which hooks of a spec are whose.

use oci_spec::runtime::{Hook, Spec};

/// The hooks of a spec that run on the host (OCI `hooks`), each list in its order.
///
/// The guest refuses them by name, so whoever makes containers of foreign specs takes them out with
/// [`take_host_hooks`] and runs them, or leaves them in to have such specs refused:
///
/// | list | when | if one fails |
/// |---|---|---|
/// | `prestart`, then `create_runtime` | the sandbox is there, before the container is created | the container is not created |
/// | `poststart` | the container was started | a warning |
/// | `poststop` | the container was removed, or is not there because one of the first failed | a warning |
///
/// `createContainer` and `startContainer` stay in the spec: the guest runs them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostHooks {
    /// Deprecated by OCI, and still called before `create_runtime`.
    pub prestart: Vec<Hook>,
    /// Before the container is created.
    pub create_runtime: Vec<Hook>,
    /// After the container was started.
    pub poststart: Vec<Hook>,
    /// After the container was removed.
    pub poststop: Vec<Hook>,
}

impl HostHooks {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Takes the host's hooks out of a spec; what is left is for the guest.
pub fn take_host_hooks(spec: &mut Spec) -> HostHooks {
    let Some(mut hooks) = spec.hooks().clone() else { return HostHooks::default() };
    let taken = HostHooks {
        prestart: hooks.prestart_mut().take().unwrap_or_default(),
        create_runtime: hooks.create_runtime_mut().take().unwrap_or_default(),
        poststart: hooks.poststart_mut().take().unwrap_or_default(),
        poststop: hooks.poststop_mut().take().unwrap_or_default(),
    };
    spec.set_hooks(Some(hooks));
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_hooks_are_taken_and_the_guests_stay() {
        let hook = |path: &str| serde_json::json!([{ "path": path }]);
        let mut spec: Spec = serde_json::from_value(serde_json::json!({
            "ociVersion": "1.2.0",
            "hooks": {
                "prestart": hook("/a"), "createRuntime": hook("/b"), "createContainer": hook("/c"),
                "startContainer": hook("/d"), "poststart": hook("/e"), "poststop": hook("/f"),
            },
        }))
        .unwrap();
        let taken = take_host_hooks(&mut spec);
        let paths = [taken.prestart, taken.create_runtime, taken.poststart, taken.poststop]
            .map(|list| list[0].path().display().to_string());
        assert_eq!(paths, ["/a", "/b", "/e", "/f"]);
        let left = serde_json::to_value(spec.hooks()).unwrap();
        assert_eq!(
            left,
            serde_json::json!({ "createContainer": hook("/c"), "startContainer": hook("/d") })
        );
        assert!(take_host_hooks(&mut spec).is_empty());
        assert!(take_host_hooks(&mut Spec::default()).is_empty());
    }
}
