//! Names of servers, as clients ask for them (SNI) and as certificates and policies list them.
//!
//! A name is compared in lower case and without a dot at its end. An address is no name
//! (RFC 6066 §3). A wildcard stands for exactly one label (RFC 9525 §6.3).

use std::borrow::Cow;
use std::net::IpAddr;

use foldhash::HashMap;

/// A name in the form in which names are compared. None if it is an address, or no name.
pub fn canonical(name: &str) -> Option<Cow<'_, str>> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_name = !name.is_empty()
        && name.len() <= 253
        && name.split('.').all(is_label)
        && name.parse::<IpAddr>().is_err();
    is_name.then(|| match name.bytes().any(|b| b.is_ascii_uppercase()) {
        true => Cow::Owned(name.to_ascii_lowercase()),
        false => Cow::Borrowed(name),
    })
}

/// Whether this is a label of a host name. A label in another script is written as an A-label
/// (RFC 5890 §2.3.2.1).
fn is_label(label: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    (1..=63).contains(&label.len()) && label.bytes().all(allowed)
}

/// A name, or all names with one more label in front, as in `*.example.com`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum ServerNamePattern {
    Exact(Box<str>),
    /// What follows the `*.`.
    Wildcard(Box<str>),
}

impl ServerNamePattern {
    /// Reads a name as it is written in a certificate or in YAML. None if it is no name.
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix("*.") {
            Some(parent) => canonical(parent).map(|parent| Self::Wildcard(parent.into())),
            None => canonical(text).map(|name| Self::Exact(name.into())),
        }
    }

    /// Whether it covers this canonical name.
    pub fn covers(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => **exact == *name,
            Self::Wildcard(parent) => parent_of(name) == Some(parent),
        }
    }

    /// Whether some name is covered by both.
    pub fn meets(&self, other: &Self) -> bool {
        self.covers_all_of(other) || other.covers_all_of(self)
    }

    /// Whether it covers every name that the other one covers.
    pub fn covers_all_of(&self, other: &Self) -> bool {
        match other {
            Self::Exact(name) => self.covers(name),
            Self::Wildcard(_) => self == other,
        }
    }
}

impl std::fmt::Display for ServerNamePattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Wildcard(parent) => write!(f, "*.{parent}"),
        }
    }
}

/// The name without its first label.
fn parent_of(name: &str) -> Option<&str> {
    name.split_once('.').map(|(_, parent)| parent)
}

/// Values by the names that they are for: an exact name goes before a wildcard.
#[derive(Clone, Debug)]
pub struct ServerNameTable<V> {
    exact: HashMap<Box<str>, V>,
    wildcards: HashMap<Box<str>, V>,
}

impl<V> Default for ServerNameTable<V> {
    fn default() -> Self {
        Self {
            exact: HashMap::default(),
            wildcards: HashMap::default(),
        }
    }
}

impl<V: Default> ServerNameTable<V> {
    /// The value of a pattern, which is made if there is none.
    pub fn entry(&mut self, pattern: &ServerNamePattern) -> &mut V {
        match pattern {
            ServerNamePattern::Exact(name) => self.exact.entry(name.clone()).or_default(),
            ServerNamePattern::Wildcard(parent) => {
                self.wildcards.entry(parent.clone()).or_default()
            }
        }
    }
}

impl<V> ServerNameTable<V> {
    /// The value for a canonical name.
    pub fn get(&self, name: &str) -> Option<&V> {
        let wildcard = || self.wildcards.get(parent_of(name)?);
        self.exact.get(name).or_else(wildcard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> ServerNamePattern {
        ServerNamePattern::parse(text).unwrap()
    }

    #[test]
    fn names_are_compared_without_case_and_last_dot() {
        assert_eq!(canonical("Shop.Example.COM.").unwrap(), "shop.example.com");
        let label = "x".repeat(64);
        for text in [
            "",
            ".",
            "a..b",
            "10.0.0.1",
            "::1",
            "bücher.example",
            "a b",
            &label,
            "*.a.b",
        ] {
            assert_eq!(canonical(text), None, "{text:?}");
        }
        assert!(canonical("xn--bcher-kva.example").is_some());
    }

    #[test]
    fn a_wildcard_is_exactly_one_label() {
        let wildcard = pattern("*.Example.com");
        for (name, covered) in [
            ("a.example.com", true),
            ("example.com", false),
            ("a.b.example.com", false),
            ("a.example.org", false),
        ] {
            assert_eq!(wildcard.covers(name), covered, "{name}");
        }
        assert!(wildcard.covers_all_of(&pattern("b.example.com")));
        assert!(!pattern("a.example.com").covers_all_of(&wildcard));
        assert_eq!(ServerNamePattern::parse("a.*.com"), None);
        assert_eq!(ServerNamePattern::parse("*"), None);
    }

    #[test]
    fn an_exact_name_goes_before_a_wildcard() {
        let mut table = ServerNameTable::<u8>::default();
        *table.entry(&pattern("*.example.com")) = 1;
        *table.entry(&pattern("a.example.com")) = 2;
        for (name, value) in [
            ("a.example.com", Some(2)),
            ("b.example.com", Some(1)),
            ("example.com", None),
            ("c.b.example.com", None),
        ] {
            assert_eq!(table.get(name).copied(), value, "{name}");
        }
    }
}
