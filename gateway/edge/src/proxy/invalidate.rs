//! What an unsafe request makes invalid in the cache: its own URL and the URLs that its answer
//! names (RFC 9111 §4.4), their groups and the groups that the answer names (RFC 9875), and what
//! the route's `invalidate` rules say.
//!
//! Decision: a method that is not known to be unsafe invalidates nothing, although RFC 9111 §4.4
//! counts it as unsafe. Anybody can send an unknown method, and many origins answer each of them
//! with 200 and the page. A rule may name any method.

use http::request::Parts;
use http::{HeaderMap, HeaderName, Method, StatusCode, Uri};
use smallvec::SmallVec;

use crate::cache::Cache;
use crate::cache::key::{KeyBuf, PurgeHash};
use crate::cache::purge::{PurgeKind, Selector};
use crate::cache::tags::groups;
use crate::http::cache_groups::CACHE_GROUP_INVALIDATION;
use crate::http::{path, reference};
use crate::proxy::config;
use crate::proxy::context::normal_host;
use crate::proxy::generation::Generation;

/// One `invalidate` rule, compiled.
pub struct InvalidateRule {
    on: Box<[Method]>,
    purge: Box<[config::PurgeRule]>,
    kind: PurgeKind,
}

impl InvalidateRule {
    pub fn new(config: &config::InvalidateConfig) -> Self {
        Self {
            on: config
                .on
                .iter()
                .filter_map(|method| method.parse().ok())
                .collect(),
            purge: config.purge.clone().into(),
            kind: if config.soft {
                PurgeKind::Soft
            } else {
                PurgeKind::Hard
            },
        }
    }
}

/// Methods that change something, in alphabetic order: those that the IANA registry calls unsafe,
/// and others in wide use (those of UPnP; those for caches are never passed on).
const UNSAFE: [&str; 35] = [
    "ACL",
    "BASELINE-CONTROL",
    "BIND",
    "CHECKIN",
    "CHECKOUT",
    "CONNECT",
    "COPY",
    "DELETE",
    "LABEL",
    "LINK",
    "LOCK",
    "M-SEARCH",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MKREDIRECTREF",
    "MKWORKSPACE",
    "MOVE",
    "NOTIFY",
    "ORDERPATCH",
    "PATCH",
    "POST",
    "PROPPATCH",
    "PUT",
    "REBIND",
    "SUBSCRIBE",
    "UNBIND",
    "UNCHECKOUT",
    "UNLINK",
    "UNLOCK",
    "UNSUBSCRIBE",
    "UPDATE",
    "UPDATEREDIRECTREF",
    "VERSION-CONTROL",
];

/// The hashes of the URLs and groups that one answer makes invalid.
type InvalidatedHashes = SmallVec<[PurgeHash; 8]>;

fn is_unsafe(method: &Method) -> bool {
    UNSAFE.contains(&method.as_str())
}

/// A request that an origin has answered.
pub struct AnsweredRequest<'a> {
    pub cache: &'a Cache,
    pub generation: &'a Generation,
    pub parts: &'a Parts,
    pub host: &'a str,
    pub scheme: &'a str,
}

impl AnsweredRequest<'_> {
    /// Purges what a request with this answer makes invalid: always if its method changes
    /// something, and by those of the route's rules that name the method.
    pub fn invalidate(&self, rules: &[InvalidateRule], status: StatusCode, response: &HeaderMap) {
        let succeeded = status.is_success() || status.is_redirection();
        let method = &self.parts.method;
        if is_unsafe(method) {
            // RFC 9875 §3 does not depend on the status: the origin itself has named these groups.
            let named = groups(response, &CACHE_GROUP_INVALIDATION, self.scheme, self.host);
            let mut numbers = InvalidatedHashes::from_slice(&named);
            if succeeded {
                self.add_changed(response, &mut numbers);
            }
            numbers.sort_unstable();
            numbers.dedup();
            self.cache.invalidate(&numbers);
        }
        if !succeeded {
            return;
        }
        for rule in rules.iter().filter(|rule| rule.on.contains(method)) {
            for purge in &rule.purge {
                self.apply(purge, rule.kind);
            }
        }
    }

    /// Adds the URLs that an unsafe request changed, and their groups.
    fn add_changed(&self, response: &HeaderMap, numbers: &mut InvalidatedHashes) {
        let Self { scheme, host, .. } = *self;
        // The request's own URL has passed through the route's plugin; URLs that the answer names
        // have not.
        let own = |headers| {
            let uri = &self.parts.uri;
            self.generation.key_of_seen(scheme, host, uri, headers)
        };
        self.add_resource(own, numbers);
        for name in [http::header::LOCATION, http::header::CONTENT_LOCATION] {
            if let Some(uri) = named_uri(response, &name, (scheme, host), &self.parts.uri) {
                let named = |headers| {
                    self.generation
                        .keys_of_get(scheme, host, &uri, headers)
                        .keys
                };
                self.add_resource(named, numbers);
            }
        }
    }

    /// Adds a URL that an unsafe request changed, by its keys for given headers, and the groups of
    /// the response stored there. It does not go further: the groups of other members of these
    /// groups are not added (RFC 9875 §2.2.1).
    fn add_resource<K: IntoIterator<Item = KeyBuf>>(
        &self,
        keys: impl Fn(HeaderMap) -> K,
        numbers: &mut InvalidatedHashes,
    ) {
        let headers = &self.parts.headers;
        for key in keys(headers.clone()) {
            numbers.extend_from_slice(&self.cache.groups_at(&key, headers));
        }
        let identities = keys(HeaderMap::new());
        numbers.extend(identities.into_iter().map(|key| key.identity()));
    }

    fn apply(&self, purge: &config::PurgeRule, kind: PurgeKind) {
        use config::PurgeRule::{Pattern as ByPattern, Prefix, Route, Tag, Url};
        let host = self.host;
        let (Url(template) | Prefix(template) | ByPattern(template) | Tag(template)
        | Route(template)) = purge;
        let Some(text) = expand(template, self.parts, host, matches!(purge, ByPattern(_))) else {
            tracing::debug!(
                template,
                "an `invalidate` rule refers to something that the request does not have, so it \
                 purges nothing"
            );
            return;
        };
        if text.is_empty() {
            // An empty prefix would match every URL.
            return;
        }
        let here = |text: &str| {
            if text.starts_with('/') {
                format!("{host}{text}")
            } else {
                text.to_owned()
            }
        };
        let selectors = match purge {
            Url(_) => match path::text::whole(&text).parse::<Uri>() {
                Ok(uri) => return self.purge_url(&uri, kind),
                Err(_) => return,
            },
            Prefix(_) => Selector::prefixes(&here(&text)),
            ByPattern(_) => Selector::patterns(&here(&text)),
            Tag(_) => vec![Selector::Tag(text)],
            Route(_) => vec![Selector::Route(text)],
        };
        for selector in &selectors {
            self.cache.purge_by_request(selector, kind);
        }
    }

    fn purge_url(&self, uri: &Uri, kind: PurgeKind) {
        let scheme = uri.scheme_str().unwrap_or(self.scheme);
        let authority = uri.authority();
        let host = authority.map_or(self.host, |authority| authority.as_str());
        for selector in self.generation.by_url(scheme, host, uri).selectors {
            self.cache.purge_by_request(&selector, kind);
        }
    }
}

/// The URI in `Location` or `Content-Location`, if it has the same origin as the request.
pub fn named_uri(
    response: &HeaderMap,
    name: &HeaderName,
    (scheme, host): (&str, &str),
    base: &Uri,
) -> Option<Uri> {
    let text = path::text::of_octets(response.get(name)?.as_bytes());
    let uri = reference::resolve(base, scheme, &text)?;
    let same = uri.scheme_str().is_none_or(|named| named == scheme)
        && uri
            .authority()
            .is_none_or(|named| normal_host(named.as_str(), scheme) == host);
    same.then_some(uri)
}

/// Fills in `{path}`, `{path.N}`, `{query.NAME}`, `{header.NAME}` and `{host}`. None if the request
/// lacks one of them.
fn expand(template: &str, request: &Parts, host: &str, escape: bool) -> Option<String> {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}')?;
        out.push_str(before);
        let value = placeholder(name, request, host)?;
        match escape {
            // Text from a client is literal and never a wildcard.
            true => value.chars().for_each(|c| {
                if matches!(c, '*' | '?' | '\\') {
                    out.push('\\');
                }
                out.push(c);
            }),
            false => out.push_str(&value),
        }
        rest = after;
    }
    out.push_str(rest);
    Some(out)
}

fn placeholder(name: &str, request: &Parts, host: &str) -> Option<String> {
    let path = request.uri.path();
    match name.split_once('.') {
        None if name == "path" => Some(path.to_owned()),
        None if name == "host" => Some(host.to_owned()),
        Some(("path", n)) => path
            .split('/')
            .nth(n.parse().ok()?)
            .filter(|segment| !segment.is_empty())
            .map(str::to_owned),
        Some(("query", wanted)) => request.uri.query()?.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=')?;
            (key == wanted).then(|| value.to_owned())
        }),
        Some(("header", wanted)) => {
            let value = request.headers.get(wanted)?.as_bytes();
            std::str::from_utf8(value).ok().map(str::to_owned)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(uri: &str) -> Parts {
        http::Request::builder()
            .uri(uri)
            .header("x-sku", "a*b")
            .body(())
            .unwrap()
            .into_parts()
            .0
    }

    #[test]
    fn templates_take_what_the_request_says() {
        let request = parts("/shop/items/7?lang=de");
        let text = |template| expand(template, &request, "a.example", false);
        assert_eq!(text("item-{path.3}").as_deref(), Some("item-7"));
        assert_eq!(
            text("{host}{path}?l={query.lang}").as_deref(),
            Some("a.example/shop/items/7?l=de")
        );
        assert_eq!(text("{path.9}"), None);
        assert_eq!(text("{query.none}"), None);
        assert_eq!(
            expand("/x/{header.x-sku}/*", &request, "", true).as_deref(),
            Some(r"/x/a\*b/*"),
            "a client's star is a star"
        );
    }

    #[test]
    fn methods_that_change_something_are_known_by_name() {
        for method in [
            "POST", "PUT", "PATCH", "DELETE", "M-SEARCH", "MKCOL", "LINK",
        ] {
            assert!(is_unsafe(&method.parse().unwrap()), "{method}");
        }
        for method in [
            "GET", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "REPORT", "SEARCH", "QUERY", "PRI",
            "SPARKLE", "post", "POSTX",
        ] {
            assert!(!is_unsafe(&method.parse().unwrap()), "{method}");
        }
    }

    #[test]
    fn only_uris_of_the_same_origin_count() {
        let base: Uri = "/a/b".parse().unwrap();
        let named = |value: &str| {
            let headers = HeaderMap::from_iter([(http::header::LOCATION, value.parse().unwrap())]);
            named_uri(
                &headers,
                &http::header::LOCATION,
                ("http", "a.example"),
                &base,
            )
            .map(|uri| uri.path().to_owned())
        };
        assert_eq!(named("/x").as_deref(), Some("/x"));
        assert_eq!(named("c").as_deref(), Some("/a/c"));
        assert_eq!(named("http://a.example/x").as_deref(), Some("/x"));
        assert_eq!(named("http://A.example:80/x").as_deref(), Some("/x"));
        assert_eq!(named("http://evil.example/x"), None);
        assert_eq!(named("https://a.example/x"), None, "RFC 9111 §4.4");
    }
}
