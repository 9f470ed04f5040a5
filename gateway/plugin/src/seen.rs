//! What a loader saw of a request: another request that the cache treats as the same may differ in
//! it. `proxy` compares it with what the key covers.
//!
//! A plugin of our contract sees what its manifest `reads`, and the query. A `wasi:http` component
//! may look at anything; what it passes on unchanged ([`HandedOnFields`]) it certainly used.
//! Method, scheme, host and path are in every key.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use http::header::{COOKIE, HOST, HeaderMap, HeaderName};

use super::load_request::LoadRequest;
use super::log_text::one_line;
use super::reads::DeclaredReads;
use super::{check, names};

/// One field of a request.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum SeenField {
    Header(HeaderName),
    /// The cookie with this name.
    Cookie(Box<[u8]>),
    /// By the name as the request spells it; a piece that contains `;` is here as a whole.
    Parameter(Box<str>),
}

/// What a loader saw of a request.
#[derive(Clone, Default, Debug)]
pub struct RequestReads {
    /// Fields that the request has.
    pub fields: Vec<SeenField>,
    /// Fields that the loader would have read, and that the request does not have: the loader saw
    /// that.
    pub absent: Vec<SeenField>,
}

/// Bytes of a name that are shown to people.
const MAX_SHOWN: usize = 64;

impl RequestReads {
    /// What a plugin that declares these `reads` gets of a request.
    pub(super) fn declared(
        reads: &DeclaredReads,
        headers: &HeaderMap,
        query: Option<&str>,
    ) -> Self {
        let read = |name: &&HeaderName| is_news(name) && reads.reads_header(name);
        let headers_read = headers.keys().filter(read).cloned().map(SeenField::Header);
        let mut fields: Vec<SeenField> = headers_read.collect();
        let whole = reads.reads_header(&COOKIE);
        for (name, _) in cookies(headers) {
            if whole || reads.reads_cookie(name) {
                fields.push(SeenField::Cookie(name.into()));
            }
        }
        fields.extend(
            query
                .into_iter()
                .flat_map(parameters)
                .map(|(field, _)| field),
        );
        let absent = reads.named().filter(|field| match field {
            SeenField::Header(name) => {
                *name == COOKIE || is_news(name) && !headers.contains_key(name)
            }
            _ => true,
        });
        Self {
            absent: absent.collect(),
            fields,
        }
    }
}

/// What a `wasi:http` component passes on of the request that it answers.
pub(super) struct HandedOnFields {
    asked: Arc<LoadRequest>,
    fields: HashSet<SeenField>,
}

impl HandedOnFields {
    pub(super) fn of(asked: Arc<LoadRequest>) -> Self {
        Self {
            asked,
            fields: HashSet::new(),
        }
    }

    /// Notes the parts of an outgoing request that are unchanged from the incoming one.
    pub(super) fn note(&mut self, headers: &HeaderMap, query: Option<&str>) {
        let asked = &self.asked;
        for (name, value) in headers.iter().filter(|(name, _)| is_news(name)) {
            let mut given = asked.headers.get_all(name).iter();
            if !check::is_of_the_connection(name) && given.any(|line| line == value) {
                self.fields.insert(SeenField::Header(name.clone()));
            }
        }
        for pair in cookies(headers) {
            if cookies(&asked.headers).any(|given| given == pair) {
                self.fields.insert(SeenField::Cookie(pair.0.into()));
            }
        }
        let given: Vec<_> = asked.path_and_query.query().into_iter().collect();
        for (field, piece) in query.into_iter().flat_map(parameters) {
            let as_it_came = |(_, given): (_, &str)| given == piece;
            if given.iter().copied().flat_map(parameters).any(as_it_came) {
                self.fields.insert(field);
            }
        }
    }

    pub(super) fn seen(self) -> RequestReads {
        RequestReads {
            fields: self.fields.into_iter().collect(),
            absent: Vec::new(),
        }
    }
}

impl fmt::Display for SeenField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, name) = match self {
            Self::Header(name) => ("header", name.to_string()),
            Self::Cookie(name) => ("cookie", name.escape_ascii().to_string()),
            Self::Parameter(name) => ("query parameter", name.to_string()),
        };
        write!(f, "{kind} `{}`", one_line(&name, MAX_SHOWN))
    }
}

/// False for the cookie header, whose cookies are examined one by one, and for the host, which is
/// in every key.
fn is_news(name: &HeaderName) -> bool {
    *name != COOKIE && *name != HOST
}

fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    let lines = headers.get_all(COOKIE).into_iter();
    lines.flat_map(|line| names::cookies(line.as_bytes()))
}

/// A query's parameters, each with the piece that it comes from.
fn parameters(query: &str) -> impl Iterator<Item = (SeenField, &str)> {
    let pieces = query.split('&').filter(|piece| !piece.is_empty());
    pieces.map(|piece| {
        let name = match piece.split_once('=') {
            Some((name, _)) if !piece.contains(';') => name,
            _ => piece,
        };
        (SeenField::Parameter(name.into()), piece)
    })
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use http::{HeaderValue, Method};

    use super::*;
    use crate::declared::KeyRules;
    use crate::types;

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &'static str)| {
            let name = HeaderName::from_static(name);
            (name, HeaderValue::from_static(value))
        };
        lines.iter().map(line).collect()
    }

    fn shown(fields: &[SeenField]) -> Vec<String> {
        let mut shown: Vec<_> = fields.iter().map(SeenField::to_string).collect();
        shown.sort();
        shown
    }

    #[test]
    fn what_is_declared_and_there_is_seen_and_what_is_not_there_is_absent() {
        let texts = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        let reads = DeclaredReads::read(&types::Reads {
            headers: texts(&["x-a", "x-b", "y-*", "host"]),
            cookies: texts(&["id", "no"]),
        });
        let headers = map(&[
            ("x-a", "1"),
            ("y-1", "1"),
            ("z", "1"),
            ("host", "h"),
            ("cookie", "id=1; k=2"),
        ]);
        let seen = RequestReads::declared(&reads.unwrap(), &headers, Some("q=1&&p"));
        assert_eq!(
            shown(&seen.fields),
            [
                "cookie `id`",
                "header `x-a`",
                "header `y-1`",
                "query parameter `p`",
                "query parameter `q`"
            ]
        );
        assert_eq!(
            shown(&seen.absent),
            ["cookie `id`", "cookie `no`", "header `x-b`"]
        );
    }

    #[test]
    fn what_is_handed_on_as_it_came_is_seen() {
        let mut handed = HandedOnFields::of(Arc::new(LoadRequest {
            method: Method::GET,
            scheme: http::uri::Scheme::HTTP,
            host: "shop".into(),
            path_and_query: "/p?a=1&b=2".parse().unwrap(),
            headers: map(&[("x-a", "1"), ("x-b", "2"), ("cookie", "id=1; k=2")]),
            body: Default::default(),
            route: "test".into(),
            deadline: Instant::now(),
        }));
        let outgoing = map(&[
            ("x-a", "1"),
            ("x-b", "other"),
            ("x-c", "1"),
            ("cookie", "k=2"),
        ]);
        handed.note(&outgoing, Some("b=2&a=other"));
        assert_eq!(
            shown(&handed.seen().fields),
            ["cookie `k`", "header `x-a`", "query parameter `b`"]
        );
    }

    #[test]
    fn declared_rules_cover_what_they_put_into_the_key() {
        let rules = KeyRules::read(types::KeyRules {
            keep: None,
            drop: vec!["utm_*".into()],
            sort: false,
            headers: vec!["x-*".into()],
            cookies: vec!["id".into()],
        });
        let rules = rules.unwrap();
        let covers = |field| rules.covers(&field);
        assert!(covers(SeenField::Header(HeaderName::from_static("x-a"))));
        assert!(!covers(SeenField::Header(HeaderName::from_static("y"))));
        assert!(
            covers(SeenField::Cookie(b"id"[..].into()))
                && !covers(SeenField::Cookie(b"k"[..].into()))
        );
        assert!(covers(SeenField::Parameter("q".into())));
        assert!(!covers(SeenField::Parameter("utm_a".into())));
    }
}
