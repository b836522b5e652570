//! System calls by name. A profile has hundreds of names, so they are looked up by their hash, in tables without a
//! pointer that the compiler makes of the readable one.

use super::table::TABLE;

const COUNT: usize = TABLE.len();
#[allow(clippy::indexing_slicing)] // by the compiler, which says so
const LENGTH: usize = {
    let (mut length, mut at) = (0, 0);
    while at < COUNT {
        length += TABLE[at].0.len();
        at += 1;
    }
    length
};

/// All names in one, and where each ends.
#[allow(clippy::indexing_slicing)] // by the compiler
static NAMES: ([u8; LENGTH], [u16; COUNT]) = {
    let (mut names, mut ends) = ([0; LENGTH], [0; COUNT]);
    let (mut end, mut at) = (0, 0);
    while at < COUNT {
        let name = TABLE[at].0.as_bytes();
        let mut byte = 0;
        while byte < name.len() {
            names[end] = name[byte];
            end += 1;
            byte += 1;
        }
        #[allow(clippy::cast_possible_truncation)] // some 4000 bytes
        {
            ends[at] = end as u16;
        }
        at += 1;
    }
    (names, ends)
};

#[allow(clippy::indexing_slicing)] // by the compiler
static NUMBERS: [u16; COUNT] = {
    let (mut numbers, mut at) = ([0; COUNT], 0);
    while at < COUNT {
        numbers[at] = TABLE[at].1;
        at += 1;
    }
    numbers
};

/// A power of two that leaves more than half of them empty.
const SLOTS: usize = 1024;
const _: () = assert!(COUNT < SLOTS / 2, "a search ends at an empty slot");

const fn slot(name: &[u8]) -> usize {
    let (mut hash, mut rest) = (0_u32, name);
    while let [byte, after @ ..] = rest {
        hash = hash.wrapping_mul(31).wrapping_add(*byte as u32);
        rest = after;
    }
    (hash ^ hash >> 10) as usize % SLOTS
}

/// Where in the table the name of a hash is, plus 1; 0 is an empty slot. Where it is taken, the next one is.
#[allow(clippy::indexing_slicing, clippy::cast_possible_truncation)] // by the compiler; COUNT is small
static INDEX: [u16; SLOTS] = {
    let (mut index, mut at) = ([0; SLOTS], 0);
    while at < COUNT {
        let mut slot = slot(TABLE[at].0.as_bytes());
        while index[slot] != 0 {
            slot = (slot + 1) % SLOTS;
        }
        at += 1;
        index[slot] = at as u16;
    }
    index
};

/// None where this machine has no such call.
pub fn number(name: &str) -> Option<u32> {
    let mut slot = slot(name.as_bytes());
    loop {
        let at = usize::from(*INDEX.get(slot)?).checked_sub(1)?;
        if nth(at)? == name.as_bytes() {
            return NUMBERS.get(at).copied().map(u32::from);
        }
        slot = (slot + 1) % SLOTS;
    }
}

/// For people.
pub fn name(number: u32) -> String {
    let at = NUMBERS.iter().position(|known| u32::from(*known) == number);
    let name = at.and_then(nth).map(String::from_utf8_lossy);
    name.map_or_else(|| number.to_string(), std::borrow::Cow::into_owned)
}

fn nth(at: usize) -> Option<&'static [u8]> {
    let (names, ends) = &NAMES;
    let start = at.checked_sub(1).map_or(Some(0), |before| ends.get(before).copied())?;
    names.get(usize::from(start)..usize::from(*ends.get(at)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_is_found_by_its_name_and_no_other_is() {
        assert!(TABLE.is_sorted_by(|one, next| one.0 < next.0), "no name is listed twice");
        for (listed, listed_number) in TABLE {
            assert_eq!(number(listed), Some(listed_number.into()), "{listed}");
            assert_eq!(name(listed_number.into()), listed);
            for wrong in [format!("{listed}~"), listed[1..].to_owned() + "~", listed.to_uppercase()]
            {
                assert_eq!(number(&wrong), None, "{wrong}");
            }
        }
        assert_eq!((number(""), name(9999).as_str()), (None, "9999"));
    }

    /// libc has the numbers from the kernel's own headers.
    #[test]
    fn numbers_are_those_of_the_kernel() {
        for (name, expected) in [
            ("read", libc::SYS_read),
            ("execve", libc::SYS_execve),
            ("clone3", libc::SYS_clone3),
            ("seccomp", libc::SYS_seccomp),
            ("openat2", libc::SYS_openat2),
            ("mseal", libc::SYS_mseal),
        ] {
            assert_eq!(number(name).map(i64::from), Some(expected), "{name}");
        }
    }
}
