//! `Priority` (RFC 9218): which of several answers a client wants first.
//!
//! The value is a structured dictionary. What is no dictionary says nothing; parameters that are
//! unknown, out of range or of the wrong type are ignored one by one (RFC 9218 §4, §5).
//! [`server`](crate::server) orders the answers of a connection of HTTP/3 by it.

use http::{HeaderMap, HeaderName};
use sfv::{BareItem, Dictionary, ListEntry, Parser};

const PRIORITY: HeaderName = HeaderName::from_static("priority");

/// The urgency of which there is none less urgent.
pub const LEAST_URGENT: u8 = 7;

/// What a client or an origin said of an answer. What it did not say is `None`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PriorityParameters {
    /// From 0, the most urgent, to 7.
    pub urgency: Option<u8>,
    /// Whether a part of the answer is of use already, so that several may share the connection.
    pub is_incremental: Option<bool>,
}

impl PriorityParameters {
    /// Those of a message. None if it has no such field, or one that can't be read.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut lines = headers.get_all(PRIORITY).iter();
        let first = lines.next()?.as_bytes();
        let Some(second) = lines.next() else {
            return Self::parse(first);
        };
        // Several lines are one field value, joined by a comma (RFC 9651 §4.2).
        let start = [first, b", ", second.as_bytes()].concat();
        let joined = lines.fold(start, |all, line| [&all, line.as_bytes()].join(&b", "[..]));
        Self::parse(&joined)
    }

    /// Those of a value. None if it is no dictionary.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let dictionary: Dictionary = Parser::new(value).parse().ok()?;
        let item = |key: &str| match dictionary.get(key) {
            Some(ListEntry::Item(item)) => Some(&item.bare_item),
            _ => None,
        };
        let urgency = match item("u") {
            Some(BareItem::Integer(urgency)) => u8::try_from(*urgency).ok(),
            _ => None,
        };
        let is_incremental = match item("i") {
            Some(BareItem::Boolean(is_incremental)) => Some(*is_incremental),
            _ => None,
        };
        Some(Self {
            urgency: urgency.filter(|urgency| *urgency <= LEAST_URGENT),
            is_incremental,
        })
    }

    /// These where they say something, else the others (RFC 9218 §8).
    #[must_use]
    pub fn or(self, others: Self) -> Self {
        Self {
            urgency: self.urgency.or(others.urgency),
            is_incremental: self.is_incremental.or(others.is_incremental),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn said(urgency: Option<u8>, is_incremental: Option<bool>) -> Option<PriorityParameters> {
        Some(PriorityParameters {
            urgency,
            is_incremental,
        })
    }

    #[test]
    fn what_is_said_is_read_and_the_rest_ignored() {
        for (value, expected) in [
            ("", said(None, None)),
            ("u=0", said(Some(0), None)),
            ("u=7, i", said(Some(7), Some(true))),
            ("i=?0", said(None, Some(false))),
            ("u=5;x=1, i;y, z=(1 2)", said(Some(5), Some(true))),
            ("u=1, u=2", said(Some(2), None)),
            ("u=8", said(None, None)),
            ("u=-1, i", said(None, Some(true))),
            ("u=1.5", said(None, None)),
            ("u=\"1\"", said(None, None)),
            ("u", said(None, None)),
            ("i=1", said(None, None)),
            ("u=(1)", said(None, None)),
            ("u=300, i", said(None, Some(true))),
            ("U=1", None),
            ("u=1,", None),
            ("u=", None),
            ("u 1", None),
            ("\u{e4}", None),
        ] {
            assert_eq!(
                PriorityParameters::parse(value.as_bytes()),
                expected,
                "{value}"
            );
        }
    }

    #[test]
    fn lines_are_one_value_and_none_is_none() {
        let mut headers = HeaderMap::new();
        assert_eq!(PriorityParameters::of(&headers), None);
        headers.append("priority", HeaderValue::from_static("u=1"));
        assert_eq!(PriorityParameters::of(&headers), said(Some(1), None));
        headers.append("priority", HeaderValue::from_static("i"));
        headers.append("priority", HeaderValue::from_static("x"));
        assert_eq!(PriorityParameters::of(&headers), said(Some(1), Some(true)));
        headers.append("priority", HeaderValue::from_static("="));
        assert_eq!(PriorityParameters::of(&headers), None);
    }

    #[test]
    fn what_an_origin_says_goes_before_parameter_by_parameter() {
        let client = PriorityParameters {
            urgency: Some(5),
            is_incremental: Some(true),
        };
        let origin = PriorityParameters {
            urgency: Some(1),
            is_incremental: None,
        };
        assert_eq!(Some(origin.or(client)), said(Some(1), Some(true)));
    }

    proptest! {
        #[test]
        fn no_octets_make_it_panic(octets in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = PriorityParameters::parse(&octets);
        }
    }
}
