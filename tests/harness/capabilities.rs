//! Changes to the capabilities that a spec gives.

use std::collections::HashSet;

use oci_spec::runtime::{Capability, Spec};

/// Adds to what root has. A default seccomp profile stays the one of the capabilities before.
pub fn add_capabilities(spec: &mut Spec, more: &[Capability]) {
    let mut process = spec.process().clone().expect("a process");
    let mut sets = process.capabilities().clone().expect("capabilities");
    let mut set: HashSet<Capability> = sets.bounding().clone().unwrap_or_default();
    set.extend(more);
    sets.set_bounding(Some(set.clone())).set_effective(Some(set.clone())).set_permitted(Some(set));
    process.set_capabilities(Some(sets));
    spec.set_process(Some(process));
}
