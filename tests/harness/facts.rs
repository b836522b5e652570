//! The probe's answers: `name=value` lines.

/// What the probe said, in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts(Vec<(String, String)>);

impl Facts {
    /// Reads lines; one without `=` is a fault of the probe's.
    pub fn parse(text: &str) -> Self {
        let fact = |line: &str| {
            let (name, value) =
                line.split_once('=').unwrap_or_else(|| panic!("probe said {line:?}"));
            (name.to_owned(), value.to_owned())
        };
        Self(text.lines().map(fact).collect())
    }

    /// The value of a fact that must be there.
    pub fn get(&self, name: &str) -> &str {
        self.find(name).unwrap_or_else(|| panic!("no fact {name:?} among {:#?}", self.0))
    }

    /// The value of a fact that may be missing. The last one counts, as the last mount on a path does.
    pub fn find(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(have, _)| have == name).map(|(_, value)| value.as_str())
    }

    /// A fact that is a number.
    pub fn number(&self, name: &str) -> u64 {
        let value = self.get(name);
        value.parse().unwrap_or_else(|_| panic!("{name} is {value:?}, which is no number"))
    }

    /// All values of one name.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.0.iter().filter(|(have, _)| have == name).map(|(_, value)| value.as_str()).collect()
    }

    /// Names that begin with `prefix`, without it, and their values.
    pub fn below(&self, prefix: &str) -> Vec<(&str, &str)> {
        self.0
            .iter()
            .filter_map(|(name, value)| Some((name.strip_prefix(prefix)?, value.as_str())))
            .collect()
    }
}
