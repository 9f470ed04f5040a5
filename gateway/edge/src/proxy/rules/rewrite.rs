//! Rewrites: the origin is asked for another path than the client has asked for.
//!
//! The client's URL is what everything else goes by: the key, purges, `Cache-Status`, the log, and
//! plugins. So what an answer says about locations is brought back into the client's space when it
//! arrives, before anything is invalidated by it.
//!
//! Invariant: the path for the origin is in normal form, and in every form in which an origin may
//! read it, it begins with what the rule puts before it. So no spelling of a path leads out of the
//! place that a rewrite gives it.

pub mod config;

use http::header::{CONTENT_LOCATION, HeaderName, LOCATION};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, StatusCode, Uri};

use super::template::{TemplatePiece, TemplateSource, TextTemplate, ValueForm};
use crate::cache::coalesce::{LoadFailure, LoadFailureScope, StaleUse};
use crate::http::{forward, path, reference};
use crate::proxy::context::normal_host;
use config::{LocationRewrite, RewriteConfig};

/// How the path of a route's requests is changed for the origin.
pub struct PathRewrite {
    change: PathChange,
    locations: LocationRewrite,
}

enum PathChange {
    /// Both without a slash at their end; empty for none.
    Prefixes {
        strip: Box<str>,
        add: Box<str>,
    },
    Whole(TextTemplate),
}

/// A path that a rewrite would lead out of its place, or that is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnsafeRewrite;

impl From<UnsafeRewrite> for LoadFailure {
    fn from(_: UnsafeRewrite) -> Self {
        let detail = "the path can be read in more than one way after it was rewritten";
        let failure = Self::new(StatusCode::BAD_REQUEST, "http_request_error", detail);
        Self {
            stale: StaleUse::Never,
            ..failure.blamed_on(LoadFailureScope::PerhapsThisRequest)
        }
    }
}

/// Where an answer comes from, in both spaces.
#[derive(Clone, Copy)]
pub struct AnswerOrigin<'a> {
    /// The client's request.
    pub parts: &'a Parts,
    pub host: &'a str,
    pub scheme: &'a str,
    /// What the origin was asked for.
    pub asked: &'a Uri,
}

impl PathRewrite {
    /// None: paths stay as they are.
    pub fn new(config: &RewriteConfig) -> Option<Self> {
        let change = match &config.path {
            Some(template) => PathChange::of(TextTemplate::parse(template).ok()?),
            None => PathChange::Prefixes {
                strip: config.strip_prefix.as_deref().unwrap_or_default().into(),
                add: config.add_prefix.as_deref().unwrap_or_default().into(),
            },
        };
        if matches!(&change, PathChange::Prefixes { strip, add } if strip.is_empty() && add.is_empty())
        {
            return None;
        }
        Some(Self {
            change,
            locations: config.locations,
        })
    }

    /// What the origin is asked for in place of `uri`.
    ///
    /// # Errors
    /// If no origin may be asked for what comes out.
    pub fn target(
        &self,
        uri: &Uri,
        source: TemplateSource<'_>,
    ) -> Result<PathAndQuery, UnsafeRewrite> {
        let path = self.path(uri.path(), source)?;
        path::with_query(&path, uri).map_err(|_| UnsafeRewrite)
    }

    fn path(&self, given: &str, source: TemplateSource<'_>) -> Result<String, UnsafeRewrite> {
        // `OPTIONS *` has no path.
        if !given.starts_with('/') {
            return Ok(given.to_owned());
        }
        let (path, before) = match &self.change {
            PathChange::Prefixes { strip, add } => {
                let rest = behind(given, strip).unwrap_or(given);
                (format!("{add}{rest}"), &**add)
            }
            PathChange::Whole(template) => {
                let filled = String::from_utf8(template.fill(source, ValueForm::Url));
                (filled.map_err(|_| UnsafeRewrite)?, fixed_folder(template))
            }
        };
        let is_inside = |path: &str| path.starts_with('/') && behind(path, before).is_some();
        let is_new = path.contains("//") && !given.contains("//");
        if is_new || path::normal(&path) != path || !is_inside(&path) {
            return Err(UnsafeRewrite);
        }
        let readings = path::readings(&path).map_err(|_| UnsafeRewrite)?;
        match readings.iter().all(|reading| is_inside(reading)) {
            true => Ok(path),
            false => Err(UnsafeRewrite),
        }
    }

    /// Tells the origin what is stripped, behind what a trusted proxy has stripped.
    pub fn tell_prefix(&self, client: &Uri, headers: &mut HeaderMap) {
        let PathChange::Prefixes { strip, .. } = &self.change else {
            return;
        };
        if strip.is_empty() || behind(client.path(), strip).is_none() {
            return;
        }
        let before = headers.get(&forward::PREFIX).map(HeaderValue::as_bytes);
        let before = before.unwrap_or_default();
        let before = before.strip_suffix(b"/").unwrap_or(before);
        if let Ok(value) = HeaderValue::from_bytes(&[before, strip.as_bytes()].concat()) {
            headers.insert(forward::PREFIX, value);
        }
    }

    /// Brings what an answer says about locations back into the client's space.
    pub fn bring_back(&self, headers: &mut HeaderMap, origin: AnswerOrigin<'_>) {
        if self.locations == LocationRewrite::Keep {
            return;
        }
        for name in [LOCATION, CONTENT_LOCATION] {
            self.bring_back_one(&name, headers, origin);
        }
    }

    fn bring_back_one(&self, name: &HeaderName, headers: &mut HeaderMap, at: AnswerOrigin<'_>) {
        let Some(said) = headers.get(name) else {
            return;
        };
        let back = self.back(&path::text::of_octets(said.as_bytes()), at);
        if let Some(back) = back.and_then(|back| HeaderValue::try_from(back).ok()) {
            headers.insert(name, back);
        }
    }

    /// The reference in the client's space. None: it points elsewhere.
    fn back(&self, said: &str, at: AnswerOrigin<'_>) -> Option<String> {
        let uri = reference::resolve(at.asked, at.scheme, said)?;
        let authority = uri.authority().map(http::uri::Authority::as_str);
        // Which port needs not be named depends on the scheme that the reference names.
        let scheme = uri.scheme_str().unwrap_or(at.scheme);
        if authority.is_some_and(|named| normal_host(named, scheme) != at.host) {
            return None;
        }
        let path = self.path_back(uri.path(), at)?;
        let query = uri
            .query()
            .map_or(String::new(), |query| format!("?{query}"));
        let fragment = said.split_once('#');
        let fragment = fragment.map_or(String::new(), |(_, fragment)| format!("#{fragment}"));
        let before = match (authority, said.starts_with("//")) {
            (None, _) => String::new(),
            (Some(authority), true) => format!("//{authority}"),
            (Some(authority), false) => format!("{scheme}://{authority}"),
        };
        Some(format!("{before}{path}{query}{fragment}"))
    }

    fn path_back(&self, path: &str, at: AnswerOrigin<'_>) -> Option<String> {
        let client = at.parts.uri.path();
        match &self.change {
            PathChange::Prefixes { strip, add } => {
                let is_stripped = !strip.is_empty() && behind(client, strip).is_some();
                let strip = if is_stripped { strip } else { "" };
                // An origin that knows its prefix has written the client's path already.
                if add.is_empty() && is_stripped && behind(path, strip).is_some() {
                    return None;
                }
                let rest = behind(path, add)?;
                Some(format!("{strip}{rest}"))
            }
            // Only what was asked for, and what is below it, has a place that is known.
            PathChange::Whole(_) => {
                let asked = at.asked.path();
                let rest = behind(path, asked.strip_suffix('/').unwrap_or(asked))?;
                if rest == "/" && path == asked {
                    return Some(client.to_owned());
                }
                Some(format!(
                    "{}{rest}",
                    client.strip_suffix('/').unwrap_or(client)
                ))
            }
        }
    }

    /// The rewrite in words.
    pub fn describe(&self) -> String {
        match &self.change {
            PathChange::Prefixes { strip, add } if add.is_empty() => {
                format!("rewrite: without {strip}")
            }
            PathChange::Prefixes { strip, add } if strip.is_empty() => {
                format!("rewrite: {add} before it")
            }
            PathChange::Prefixes { strip, add } => format!("rewrite: {add} in place of {strip}"),
            PathChange::Whole(template) => format!("rewrite: {template}"),
        }
    }
}

impl PathChange {
    /// A template that ends with the path puts a prefix before it.
    fn of(template: TextTemplate) -> Self {
        let add = match template.pieces() {
            [TemplatePiece::Path] => Some(""),
            [TemplatePiece::Text(text), TemplatePiece::Path] if !text.ends_with('/') => {
                Some(&**text)
            }
            _ => None,
        };
        match add.map(Into::into) {
            Some(add) => Self::Prefixes {
                strip: Box::default(),
                add,
            },
            None => Self::Whole(template),
        }
    }
}

/// What stands behind a prefix of whole segments, with its slash; `/` for nothing.
fn behind<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    match path.strip_prefix(prefix)? {
        "" => Some("/"),
        rest if rest.starts_with('/') => Some(rest),
        _ => None,
    }
}

/// The folders that every path of a template begins with.
fn fixed_folder(template: &TextTemplate) -> &str {
    match template.pieces() {
        [TemplatePiece::Text(text)] => text.strip_suffix('/').unwrap_or(text),
        [TemplatePiece::Text(text), ..] => &text[..text.rfind('/').unwrap_or(0)],
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use config::{prefix, template};

    fn rewrite((strip, add, path): (&str, &str, &str)) -> PathRewrite {
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let config = RewriteConfig {
            strip_prefix: given(strip),
            add_prefix: given(add),
            path: given(path),
            locations: LocationRewrite::Back,
        };
        for text in [strip, add].into_iter().filter(|text| !text.is_empty()) {
            prefix(text).unwrap();
        }
        if !path.is_empty() {
            template(path).unwrap();
        }
        PathRewrite::new(&config).unwrap()
    }

    fn parts(uri: &str) -> Option<Parts> {
        let request = http::Request::builder().uri(uri).body(()).ok()?;
        let mut parts = request.into_parts().0;
        path::arrive(&mut parts.uri).ok()?;
        Some(parts)
    }

    fn target(rule: (&str, &str, &str), parts: &Parts) -> Option<String> {
        let source = TemplateSource {
            parts,
            host: "a.example",
            scheme: "https",
            client: None,
            route: "api",
            request_id: None,
        };
        let target = rewrite(rule).target(&parts.uri, source).ok()?;
        Some(target.as_str().to_owned())
    }

    /// RW1, RW3 (traefik/traefik#3566).
    #[test]
    fn paths_are_rewritten_and_their_query_survives() {
        for (rule, given, expected) in [
            (("/api", "", ""), "/api/x?a=1&b=%2F", Some("/x?a=1&b=%2F")),
            (("/api", "", ""), "/api", Some("/")),
            (("/api", "", ""), "/api?a", Some("/?a")),
            (("/api", "", ""), "/api/", Some("/")),
            (("/api", "", ""), "/apis/x", Some("/apis/x")),
            (("/api", "/v2", ""), "/api/x", Some("/v2/x")),
            (("/api", "/v2", ""), "/other", Some("/v2/other")),
            (("", "/v2", ""), "/", Some("/v2/")),
            (
                ("", "", "/items/{path.2}"),
                "/old/7?q=1",
                Some("/items/7?q=1"),
            ),
            (("", "", "/items/{path.2}"), "/old", Some("/items/")),
            (("", "", "/v3{path}"), "/a/b", Some("/v3/a/b")),
            (
                ("", "", "/{route}/{scheme}/{host}"),
                "/",
                Some("/api/https/a.example"),
            ),
            (("", "", "/a{path.9}/b"), "/x", Some("/a/b")),
            (("", "", "/a/{path.9}/b"), "/x", None),
            // Nothing leads out of where the rule puts it.
            (("", "/v2", ""), "/x%2F..%2F..%2Fadmin", None),
            (("", "", "/items/{path.2}"), "/old/..%2F..%2Fadmin", None),
            (("", "/v2", ""), "/x%252F..%252F..%252Fadmin", None),
            (("", "/v2", ""), "/x%5C..%5C..%5Cadmin", None),
            (("", "/v2", ""), "/a%2Fb", Some("/v2/a%2Fb")),
            (("", "/v2", ""), "//a", Some("/v2//a")),
        ] {
            let found = target(rule, &parts(given).unwrap());
            assert_eq!(found.as_deref(), expected, "{rule:?} {given}");
        }
    }

    #[test]
    fn locations_come_back_into_the_clients_space() {
        let both = ("/api", "/v2", "");
        let strip = ("/api", "", "");
        for (rule, given, said, expected) in [
            (both, "/api/a/b", "/v2/x?y#z", Some("/api/x?y#z")),
            (both, "/api/a/b", "c", Some("/api/a/c")),
            (both, "/api/a/b", "../../v2", Some("/api/")),
            (
                both,
                "/api/a",
                "http://a.example/v2/x",
                Some("http://a.example/api/x"),
            ),
            (
                both,
                "/api/a",
                "HTTPS://A.example:443/v2/x",
                Some("https://A.example:443/api/x"),
            ),
            (
                both,
                "/api/a",
                "//a.example/v2/x",
                Some("//a.example/api/x"),
            ),
            (
                both,
                "/api/a",
                "http://a.example:80/v2/x",
                Some("http://a.example:80/api/x"),
            ),
            (
                both,
                "/api/a",
                "//a.example:443/v2/x",
                Some("//a.example:443/api/x"),
            ),
            (both, "/api/a", "http://a.example:443/v2/x", None),
            (
                both,
                "/api/a",
                "/v2/größe?ü",
                Some("/api/gr%C3%B6%C3%9Fe?%C3%BC"),
            ),
            (
                both,
                "/api/a",
                "com.example.app:/oauth2redirect?code=1",
                None,
            ),
            (both, "/api/a", "mailto:a@b.example", None),
            (both, "/api/a", "tel:+49123", None),
            (both, "/api/a", "intent:#Intent;end", None),
            (strip, "/api/a", "com.example.app:/oauth2redirect", None),
            (both, "/api/a", "https://other.example/v2/x", None),
            (both, "/api/a", "/login", None),
            (both, "/api/a", "/v22", None),
            (both, "/free", "/v2/x", Some("/x")),
            (strip, "/api/a", "/x", Some("/api/x")),
            (strip, "/api/a", "/", Some("/api/")),
            (strip, "/api/a", "/api/x", None),
            (
                ("", "", "/items/{path.2}"),
                "/old/7",
                "/items/7/",
                Some("/old/7/"),
            ),
            (
                ("", "", "/items/{path.2}"),
                "/old/7",
                "?page=2",
                Some("/old/7?page=2"),
            ),
            (("", "", "/items/{path.2}"), "/old/7", "/items/8", None),
        ] {
            let parts = parts(given).unwrap();
            let asked: Uri = target(rule, &parts).unwrap().parse().unwrap();
            let origin = AnswerOrigin {
                parts: &parts,
                host: "a.example",
                scheme: "https",
                asked: &asked,
            };
            let found = rewrite(rule).back(said, origin);
            assert_eq!(found.as_deref(), expected, "{rule:?} {given} {said}");
        }
    }

    proptest! {
        /// The normal form path law: what an origin is asked for is in normal form, and below what
        /// the rule puts before it, in whatever way an origin may read it.
        #[test]
        fn what_is_asked_for_is_in_normal_form_and_in_its_place(
            rule in prop::sample::select(vec![
                ("/api", "", ""), ("/api", "/v2/public", ""), ("", "/v2/public", ""),
                ("", "", "/v2/public/{path.2}"), ("", "", "/v2/public{path}"),
                ("", "", "/v2/public/x{path.1}y"),
            ]),
            given in "(/api)?(/|%2[fF]|%5[cC]|%252[fF]|;|\\.|%2[eE]|[a-c]|%3[fF]){0,10}",
        ) {
            let Some(parts) = parts(&format!("/{}", given.trim_start_matches('/'))) else {
                return Ok(());
            };
            if let Some(target) = target(rule, &parts) {
                prop_assert_eq!(&*path::normal(&target), &*target);
                let path = target.split('?').next().unwrap();
                let readings = path::readings(path).unwrap();
                if rule.0.is_empty() || !rule.1.is_empty() {
                    for reading in readings.iter().map(String::as_str).chain([path]) {
                        prop_assert!(behind(reading, "/v2/public").is_some(), "{} {}", path, reading);
                    }
                }
            }
        }
    }
}
