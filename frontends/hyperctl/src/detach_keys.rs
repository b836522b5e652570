//! The keys that leave a container to itself: `ctrl-p,ctrl-q`, as in docker. Pure.
//!
//! What may become the sequence is held back; what does not go on as it goes to the container, a key later.

/// A sequence of keys, as `--detach-keys` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys(Vec<u8>);

impl Default for Keys {
    /// Docker's: Ctrl-P, Ctrl-Q.
    fn default() -> Keys {
        Keys(vec![0x10, 0x11])
    }
}

/// Reads docker's form: keys between commas, each a character or `ctrl-` and one. Empty: there is no such sequence.
pub fn parse(text: &str) -> Result<Keys, String> {
    let keys = text.split(',').filter(|_| !text.is_empty()).map(key);
    let keys: Option<Vec<u8>> = keys.collect();
    keys.map(Keys).ok_or_else(|| "keys such as ctrl-p,ctrl-q or x".to_string())
}

fn key(text: &str) -> Option<u8> {
    let (control, character) = match text.strip_prefix("ctrl-") {
        Some(character) => (true, character),
        None => (false, text),
    };
    match character.as_bytes() {
        [byte] if !control && byte.is_ascii_graphic() => Some(*byte),
        // As terminals make them: the letter without its upper bits.
        [byte @ (b'a'..=b'z' | b'@' | b'['..=b'_')] if control => Some(byte & 0x1f),
        _ => None,
    }
}

/// Watches what is typed for the sequence.
#[derive(Debug)]
pub struct Watch {
    keys: Keys,
    /// How many of the keys were typed last.
    matched: usize,
}

impl Watch {
    pub fn new(keys: Keys) -> Watch {
        Watch { keys, matched: 0 }
    }

    /// What of `typed` goes to the container, and whether the sequence is complete.
    pub fn pass(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let keys = self.keys.0.clone();
        let mut passed = Vec::with_capacity(typed.len());
        for byte in typed {
            while self.matched > 0 && keys.get(self.matched) != Some(byte) {
                // The longest end of what is held back that may still be a beginning.
                let held = keys.get(..self.matched).unwrap_or_default();
                let begins =
                    |length: &usize| held.ends_with(keys.get(..*length).unwrap_or_default());
                let rest = (0..self.matched).rev().find(begins).unwrap_or(0);
                passed.extend(held.iter().take(self.matched - rest));
                self.matched = rest;
            }
            if keys.get(self.matched) == Some(byte) {
                self.matched += 1;
            } else {
                passed.push(*byte);
            }
            if self.matched == keys.len() && !keys.is_empty() {
                self.matched = 0;
                return (passed, true);
            }
        }
        (passed, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(keys: &str, pieces: &[&[u8]]) -> (Vec<u8>, bool) {
        let mut watch = Watch::new(parse(keys).unwrap());
        let mut all = Vec::new();
        for piece in pieces {
            let (passed, detached) = watch.pass(piece);
            all.extend(passed);
            if detached {
                return (all, true);
            }
        }
        (all, false)
    }

    #[test]
    fn keys_are_read_as_dockers() {
        assert_eq!(parse("ctrl-p,ctrl-q"), Ok(Keys(vec![16, 17])));
        assert_eq!(parse("ctrl-@,ctrl-[,ctrl-_,a,~"), Ok(Keys(vec![0, 27, 31, b'a', b'~'])));
        assert_eq!(parse(""), Ok(Keys(vec![])));
        for bad in ["ctrl-", "ctrl-P", "ctrl-1", "ab", "a,,b", "\u{1}", "ü"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_sequence_detaches_and_anything_else_is_passed_on() {
        assert_eq!(typed("ctrl-p,ctrl-q", &[b"ls\x10\x11more"]), (b"ls".to_vec(), true));
        assert_eq!(typed("ctrl-p,ctrl-q", &[b"a\x10", b"\x11"]), (b"a".to_vec(), true));
        assert_eq!(typed("ctrl-p,ctrl-q", &[b"\x10", b"x\x11"]), (b"\x10x\x11".to_vec(), false));
        assert_eq!(typed("ctrl-p,ctrl-q", &[b"\x10\x10\x11"]), (b"\x10".to_vec(), true));
        assert_eq!(typed("a,a,b", &[b"aaab"]), (b"a".to_vec(), true));
        assert_eq!(typed("a,b,a,c", &[b"ababac"]), (b"ab".to_vec(), true));
        assert_eq!(typed("", &[b"\x10\x11"]), (b"\x10\x11".to_vec(), false));
    }
}
