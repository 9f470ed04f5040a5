//! The conditions that a request must meet for a route to take it.

use std::borrow::Cow;

use http::request::Parts;
use http::{HeaderName, Method};

use crate::http::path;
use crate::http::reference::without_port;
use crate::pattern::Pattern;
use crate::proxy::config;

/// The conditions of one route. All of them must hold.
#[derive(Debug)]
pub struct RouteConditions {
    pub(super) hosts: Box<[Pattern]>,
    pub(super) paths: Box<[Pattern]>,
    methods: Box<[Method]>,
    pub(super) headers: Box<[(HeaderName, ValuePatterns)]>,
    /// Conditions on query parameters, by patterns for their names.
    parameters: Box<[(Pattern, ValuePatterns)]>,
}

/// Patterns for a value, which must match one of them.
#[derive(Debug)]
pub(super) struct ValuePatterns {
    any: Box<[Pattern]>,
    case: config::LetterCase,
}

impl ValuePatterns {
    fn new(config: &config::ValueMatchConfig) -> Self {
        let case = config.case();
        let pattern = |text: &String| match case {
            config::LetterCase::Exact => Pattern::new(text),
            config::LetterCase::Ignore => Pattern::new(&text.to_ascii_lowercase()),
        };
        Self {
            any: config.patterns().as_slice().iter().map(pattern).collect(),
            case,
        }
    }

    fn take(&self, value: &str) -> bool {
        let value = match self.case {
            config::LetterCase::Exact => Cow::Borrowed(value),
            config::LetterCase::Ignore => Cow::Owned(value.to_ascii_lowercase()),
        };
        self.any.iter().any(|pattern| pattern.matches(&value))
    }
}

impl RouteConditions {
    /// Whether one of the patterns is for this host, and not for all hosts.
    pub(super) fn names_host(&self, host: &str) -> bool {
        let mut patterns = self.hosts.iter().filter(|pattern| pattern.as_str() != "*");
        patterns.any(|pattern| pattern.matches(host))
    }

    pub fn new(config: &config::RouteMatchConfig) -> Self {
        fn all(list: &Option<config::OneOrMany>) -> &[String] {
            list.as_ref().map_or(&[][..], config::OneOrMany::as_slice)
        }
        let host = |text: &String| Pattern::new(&config::normal_host_pattern(text));
        let path = |text: &String| Pattern::new(&path::text::pattern(text));
        Self {
            hosts: all(&config.host).iter().map(host).collect(),
            paths: all(&config.path).iter().map(path).collect(),
            methods: all(&config.method)
                .iter()
                .filter_map(|m| m.parse().ok())
                .collect(),
            headers: config
                .header
                .iter()
                .filter_map(|(name, values)| Some((name.parse().ok()?, ValuePatterns::new(values))))
                .chain(config.tls.iter().map(|tls| {
                    let (name, values) = tls.field();
                    (name, ValuePatterns::new(&values))
                }))
                .collect(),
            parameters: config
                .query
                .iter()
                .map(|(name, values)| (Pattern::new(name), ValuePatterns::new(values)))
                .collect(),
        }
    }

    /// Whether the route would take a request to `host` if it had this path.
    pub fn takes(&self, host: &str, parts: &Parts, path: &str) -> bool {
        let any = |patterns: &[Pattern], text: &str| {
            patterns.is_empty() || patterns.iter().any(|p| p.matches(text))
        };
        any(&self.paths, path)
            && (self.hosts.is_empty() || any(&self.hosts, without_port(host)))
            && (self.methods.is_empty() || self.methods.contains(&parts.method))
            && self.headers.iter().all(|(name, values)| {
                let mut lines = parts.headers.get_all(name).iter();
                lines.any(|value| value.to_str().is_ok_and(|text| values.take(text)))
            })
            && (self.parameters.is_empty() || self.takes_query(parts.uri.query().unwrap_or("")))
    }

    /// Whether each required parameter is there with a value that matches.
    fn takes_query(&self, query: &str) -> bool {
        let pieces = || query.split('&').filter(|piece| !piece.is_empty());
        self.parameters.iter().all(|(wanted, values)| {
            pieces().any(|piece| {
                let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
                wanted.matches(&decoded(name)) && values.take(&decoded(value))
            })
        })
    }
}

/// Decodes a name or a value of a query as forms encode it.
fn decoded(text: &str) -> Cow<'_, str> {
    let spaced = match text.contains('+') {
        true => Cow::Owned(text.replace('+', " ")),
        false => Cow::Borrowed(text),
    };
    match spaced {
        Cow::Borrowed(text) => percent_encoding::percent_decode_str(text).decode_utf8_lossy(),
        Cow::Owned(text) => {
            let decoded = percent_encoding::percent_decode_str(&text).decode_utf8_lossy();
            Cow::Owned(decoded.into_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(method: &str, path: &str, headers: &[(&str, &str)]) -> Parts {
        let builder = http::Request::builder().method(method).uri(path);
        headers
            .iter()
            .fold(builder, |b, (name, value)| b.header(*name, *value))
            .body(())
            .unwrap()
            .into_parts()
            .0
    }

    #[test]
    fn every_given_part_must_hold() {
        let config: config::RouteMatchConfig = serde_yaml::from_str(
            "{host: '*.Example.com', path: [/a/*, /b], method: GET, header: {x-beta: 'on*'}}",
        )
        .unwrap();
        let matches = RouteConditions::new(&config);
        let takes = |host, parts: Parts| matches.takes(host, &parts, parts.uri.path());
        let beta = [("x-beta", "only")];
        assert!(takes("www.example.com:8080", parts("GET", "/a/1", &beta)));
        assert!(!takes("example.com", parts("GET", "/a/1", &beta)));
        assert!(!takes("www.example.com", parts("GET", "/c", &beta)));
        assert!(!takes("www.example.com", parts("POST", "/b", &beta)));
        assert!(!takes("www.example.com", parts("GET", "/b", &[])));
        assert!(
            RouteConditions::new(&config::RouteMatchConfig::default()).takes(
                "",
                &parts("PUT", "/", &[]),
                "/"
            )
        );
    }

    #[test]
    fn a_value_matches_one_of_a_list_and_in_any_case_where_that_is_said() {
        let config: config::RouteMatchConfig = serde_yaml::from_str(
            "{header: {cookie: ['*session=*', '*logged_in*'], user-agent: {any: '*Bot*', case: ignore}}}",
        )
        .unwrap();
        let matches = RouteConditions::new(&config);
        let takes = |cookie, agent| {
            let fields = [("cookie", cookie), ("user-agent", agent)];
            matches.takes("", &parts("GET", "/", &fields), "/")
        };
        assert!(takes("a=1; session=2", "a BOT"));
        assert!(takes("wp_logged_in=1", "bot"));
        assert!(!takes("Session=2", "bot"), "cookies' names have a case");
        assert!(!takes("session=2", "browser"));
    }

    #[test]
    fn parameters_are_compared_decoded() {
        let takes = |rule: &str, target: &str| {
            let config: config::RouteMatchConfig = serde_yaml::from_str(rule).unwrap();
            RouteConditions::new(&config).takes("", &parts("GET", target, &[]), "/")
        };
        let preview = "{query: {preview: '*', id: ['7', '8']}}";
        assert!(takes(preview, "/?id=7&preview"));
        assert!(takes(preview, "/?%70review=true&id=%38"));
        assert!(!takes(preview, "/?preview=1&id=9"));
        assert!(!takes(preview, "/"));
        assert!(takes("{query: {'*': '*'}}", "/?x"));
        assert!(!takes("{query: {'*': '*'}}", "/?"));
        assert!(takes("{query: {q: {any: 'a b', case: ignore}}}", "/?q=A+B"));
    }
}
