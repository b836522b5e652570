//! What the user says about a container, in docker's words: one file a subject, each with its flags, what is wrong about
//! them, and the edit of the OCI spec that they mean. An edit changes what the spec has, so a bundle's can be edited too.

pub mod devices;
pub mod filesystem;
pub mod identity;
pub mod limits;
pub mod mounts;
pub mod privileges;
pub mod security;
pub mod user_namespace;

use hyperstart::{ContainerOptions, Storage};
use oci_spec::runtime::{Process, Spec};
use serde::{Deserialize, Serialize};

use devices::{DeviceFlag, DeviceFlags};
use filesystem::FilesystemFlags;
use identity::IdentityFlags;
use limits::LimitFlags;
use mounts::MountFlags;
use privileges::PrivilegeFlags;
use security::SecurityFlags;
use user_namespace::UserNamespaceFlags;

/// All of them, as `run` takes them.
#[derive(Clone, Debug, Default, clap::Args, Deserialize, Serialize)]
#[command(next_help_heading = "Container")]
pub struct ContainerFlags {
    #[command(flatten)]
    pub limits: LimitFlags,
    #[command(flatten)]
    pub privileges: PrivilegeFlags,
    #[command(flatten)]
    pub security: SecurityFlags,
    #[command(flatten)]
    pub devices: DeviceFlags,
    #[command(flatten)]
    pub filesystem: FilesystemFlags,
    #[command(flatten)]
    pub mounts: MountFlags,
    #[command(flatten)]
    pub identity: IdentityFlags,
    #[command(flatten)]
    pub user_namespace: UserNamespaceFlags,
}

impl ContainerFlags {
    /// What the container's own process gets, and an exec after it.
    pub fn edit_process(&self, process: &mut Process) {
        self.limits.edit_process(process);
        self.privileges.edit_process(process);
        self.security.edit_process(process);
    }

    /// What the rest of the spec gets.
    pub fn edit_spec(&self, spec: &mut Spec) {
        self.limits.edit_spec(spec);
        self.filesystem.edit_spec(spec);
        self.identity.edit_spec(spec);
        self.privileges.edit_spec(spec); // after all these: it takes confinement away, whoever asked for it
        self.security.edit_spec(spec); // but not what was asked for by name
        self.user_namespace.edit_spec(spec);
    }

    /// What the guest is told beside the spec.
    pub fn options(&self, storages: Vec<Storage>) -> ContainerOptions {
        let all = self.privileges.devices();
        let devices = all.iter().chain(&self.devices.devices).map(DeviceFlag::to_guest).collect();
        ContainerOptions { storages, init: self.identity.init, devices }
    }
}
