//! OCI `annotations`: kept as far as they are small, for a host that has nothing but its connection.

use std::collections::{BTreeMap, HashMap};

use crate::container::spec::Annotations;

/// Names and values of one container's, in bytes.
const BYTES_MAX: usize = 16 << 10;

/// In the order of their names for as long as there is room: one that has none is left out, and the rest is looked at.
pub fn kept(wire: &HashMap<String, String>) -> Annotations {
    let sorted: BTreeMap<&String, &String> = wire.iter().collect();
    let mut annotations = Annotations::default();
    let mut room = BYTES_MAX;
    for (name, value) in sorted {
        match room.checked_sub(name.len() + value.len()) {
            Some(rest) => {
                room = rest;
                annotations.kept.insert(name.clone(), value.clone());
            }
            None => annotations.truncated = true,
        }
    }
    annotations
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_one_does_not_push_out_the_small() {
        let large = ("a".to_owned(), "x".repeat(BYTES_MAX));
        let small = ("b".to_owned(), "y".to_owned());
        let both = kept(&HashMap::from([large, small.clone()]));
        assert_eq!(both.kept, BTreeMap::from([small.clone()]));
        assert!(both.truncated);
        let one = kept(&HashMap::from([small]));
        assert!(!one.truncated && one.kept.len() == 1);
        let fits = ("a".to_owned(), "x".repeat(BYTES_MAX - 1));
        assert!(!kept(&HashMap::from([fits])).truncated);
    }
}
