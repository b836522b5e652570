//! Whose users a container's are: the guest's own, or a range of ids that may do nothing there (`--userns`).
//!
//! All containers of a pod have the same range: they are told apart by their other namespaces. It is not the default
//! because a first container takes 16 % more of the guest's instructions with it (9.3 M instead of 8.0 M), and
//! because its capabilities do not reach the pod's network: no ping, no port below 1024.

use clap::ValueEnum;
use hyperstart::Storage;
use hyperstart::spec::map_ids;
use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The container's root in the guest: beyond all users that an image knows.
const FIRST_ID: u32 = 100_000;

#[derive(Clone, Copy, Debug, Default, clap::Args, Deserialize, Serialize)]
pub struct UserNamespaceFlags {
    /// Who root of the container is in its guest: root (host, what auto means) or nobody (private, in a user namespace
    /// with an image that is mapped: 16 % more of the guest's work to start). A bundle's config.json says it itself
    #[arg(long, value_enum, value_name = "MODE", default_value_t)]
    pub userns: Mode,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    // Its own word, so that it can come to mean another.
    #[default]
    Auto,
    Host,
    Private,
}

impl UserNamespaceFlags {
    /// What contradicts other flags is refused.
    pub fn check(self, bundle: bool, privileged: bool) -> Result<()> {
        if self.userns != Mode::Private {
            return Ok(());
        }
        if bundle {
            return Err(Error::new("--userns=private: not with --bundle")
                .hint("its config.json decides: linux.namespaces and linux.uidMappings"));
        }
        if privileged {
            return Err(Error::new("--userns=private: not with --privileged")
                .hint("--cap-add ALL gives all capabilities over what is the container's own"));
        }
        Ok(())
    }

    pub fn edit_spec(self, spec: &mut Spec) {
        if self.is_private() {
            map_ids(spec, FIRST_ID);
        }
    }

    /// The container's root file system, whose owners are the container's own users then.
    pub fn root(self, overlay: Storage) -> Storage {
        if self.is_private() { overlay.idmapped(FIRST_ID) } else { overlay }
    }

    fn is_private(self) -> bool {
        self.userns == Mode::Private
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(userns: Mode) -> UserNamespaceFlags {
        UserNamespaceFlags { userns }
    }

    #[test]
    fn the_container_and_its_root_say_the_same_of_ids() {
        let id = hyperstart::ContainerId::new("c").unwrap();
        let plain = hyperstart::spec::default_spec(&id, oci_spec::runtime::Process::default());
        let overlay = Storage::overlay(&id, &[]);
        let mut spec = plain.clone();
        flags(Mode::Private).edit_spec(&mut spec);
        let linux = spec.linux().as_ref().unwrap();
        for mappings in [linux.uid_mappings(), linux.gid_mappings()] {
            let mapping = mappings.as_ref().unwrap()[0];
            assert_eq!((mapping.container_id(), mapping.host_id()), (0, FIRST_ID));
        }
        let root = flags(Mode::Private).root(overlay.clone());
        assert_eq!(root, overlay.clone().idmapped(FIRST_ID));
        let mut spec = plain.clone();
        flags(Mode::Host).edit_spec(&mut spec);
        assert_eq!((spec, flags(Mode::Host).root(overlay.clone())), (plain, overlay));
    }

    #[test]
    fn only_the_mode_that_maps_contradicts_other_flags() {
        for (bundle, privileged) in [(true, false), (false, true)] {
            assert!(flags(Mode::Private).check(bundle, privileged).is_err());
            assert!(flags(Mode::Host).check(bundle, privileged).is_ok());
            assert!(flags(Mode::Auto).check(bundle, privileged).is_ok());
        }
        assert!(flags(Mode::Private).check(false, false).is_ok());
    }
}
