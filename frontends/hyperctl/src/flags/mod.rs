//! What the user says about a container, in docker's words: one file a subject, each with its flags, what is wrong about
//! them, and the edit of the OCI spec that they mean. An edit changes what the spec has, so a bundle's can be edited too.

pub mod limits;

use oci_spec::runtime::{Process, Spec};
use serde::{Deserialize, Serialize};

use limits::LimitFlags;

/// All of them, as `run` takes them.
#[derive(Clone, Debug, Default, clap::Args, Deserialize, Serialize)]
#[command(next_help_heading = "Container")]
pub struct ContainerFlags {
    #[command(flatten)]
    pub limits: LimitFlags,
}

impl ContainerFlags {
    /// What the container's own process gets, and an exec after it.
    pub fn edit_process(&self, process: &mut Process) {
        self.limits.edit_process(process);
    }

    /// What the rest of the spec gets.
    pub fn edit_spec(&self, spec: &mut Spec) {
        self.limits.edit_spec(spec);
    }
}
