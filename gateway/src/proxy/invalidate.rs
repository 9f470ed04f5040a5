//! What a successful unsafe request makes the cache forget: the URL itself and the
//! ones its answer names (RFC 9111 §4.4), their groups and the groups that the answer
//! names (RFC 9875), and what the route's `invalidate` rules say.

use http::request::Parts;
use http::{HeaderMap, HeaderName, Method, StatusCode, Uri};

use crate::cache::key::{Hash64, KeyBuf};
use crate::cache::purge::{Kind, Selector};
use crate::cache::tags::groups;
use crate::http::cache_groups::CACHE_GROUP_INVALIDATION;
use crate::http::{path, reference};
use crate::proxy::Proxy;
use crate::proxy::config;
use crate::proxy::context::normal_host;

/// One `invalidate` rule, compiled.
pub struct Rule {
    on: Box<[Method]>,
    purge: Box<[config::PurgeRule]>,
    kind: Kind,
}

impl Rule {
    pub fn new(config: &config::Invalidate) -> Self {
        Self {
            on: config
                .on
                .iter()
                .filter_map(|method| method.parse().ok())
                .collect(),
            purge: config.purge.clone().into(),
            kind: if config.soft { Kind::Soft } else { Kind::Hard },
        }
    }
}

/// Purges what a request with this answer makes invalid. Safe methods and failures
/// purge nothing; an unknown method counts as unsafe.
pub fn after(
    proxy: &Proxy,
    request: &Parts,
    host: &str,
    scheme: &str,
    rules: &[Rule],
    status: StatusCode,
    response: &HeaderMap,
) {
    if !request.method.is_safe() {
        // RFC 9875 §3: whatever the status, the origin has named them.
        purge_groups(
            proxy,
            &groups(response, &CACHE_GROUP_INVALIDATION, scheme, host),
        );
    }
    let failed = !(status.is_success() || status.is_redirection());
    if failed {
        return;
    }
    if !request.method.is_safe() {
        // The request came through the route's plugin; what an answer names did not.
        let own = |headers| proxy.key_of_seen(scheme, host, &request.uri, headers);
        purge_resource(proxy, &request.headers, own);
        for name in [http::header::LOCATION, http::header::CONTENT_LOCATION] {
            if let Some(uri) = named_uri(response, &name, (scheme, host), &request.uri) {
                let named = |headers| proxy.keys_of_get(scheme, host, &uri, headers).0;
                purge_resource(proxy, &request.headers, named);
            }
        }
    }
    for rule in rules
        .iter()
        .filter(|rule| rule.on.contains(&request.method))
    {
        for purge in &rule.purge {
            apply(proxy, purge, rule.kind, request, host, scheme);
        }
    }
}

/// Purges a URL that an unsafe request changed, by its keys for given headers, and what
/// shares a group with what is stored there. That goes one step: the purged have no say
/// (RFC 9875 §2.2.1).
fn purge_resource<K: IntoIterator<Item = KeyBuf>>(
    proxy: &Proxy,
    headers: &HeaderMap,
    keys: impl Fn(HeaderMap) -> K,
) {
    for key in keys(headers.clone()) {
        purge_groups(proxy, &proxy.cache.groups_at(&key, headers));
    }
    for key in keys(HeaderMap::new()) {
        let url = Selector::Url(key.identity());
        proxy.cache.purge(&url, Kind::Hard);
    }
}

fn purge_groups(proxy: &Proxy, groups: &[Hash64]) {
    for group in groups {
        proxy.cache.purge(&Selector::Group(*group), Kind::Hard);
    }
}

fn apply(
    proxy: &Proxy,
    purge: &config::PurgeRule,
    kind: Kind,
    request: &Parts,
    host: &str,
    scheme: &str,
) {
    use config::PurgeRule::{Pattern as ByPattern, Prefix, Route, Tag, Url};
    let (Url(template) | Prefix(template) | ByPattern(template) | Tag(template) | Route(template)) =
        purge;
    let Some(text) = expand(template, request, host, matches!(purge, ByPattern(_))) else {
        tracing::debug!(
            template,
            "an invalidate rule names what the request lacks; it purges nothing"
        );
        return;
    };
    if text.is_empty() {
        // Every URL begins with nothing.
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
            Ok(uri) => return purge_url(proxy, scheme, host, &uri, kind),
            Err(_) => return,
        },
        Prefix(_) => Selector::prefixes(&here(&text)),
        ByPattern(_) => Selector::patterns(&here(&text)),
        Tag(_) => vec![Selector::Tag(text)],
        Route(_) => vec![Selector::Route(text)],
    };
    for selector in &selectors {
        proxy.cache.purge(selector, kind);
    }
}

fn purge_url(proxy: &Proxy, scheme: &str, host: &str, uri: &Uri, kind: Kind) {
    let scheme = uri.scheme_str().unwrap_or(scheme);
    let host = uri.authority().map_or(host, |authority| authority.as_str());
    for selector in proxy.by_url(scheme, host, uri).selectors {
        proxy.cache.purge(&selector, kind);
    }
}

/// The URI in `Location` or `Content-Location`, if it is of the same origin.
pub fn named_uri(
    response: &HeaderMap,
    name: &HeaderName,
    (scheme, host): (&str, &str),
    base: &Uri,
) -> Option<Uri> {
    let text = path::text::of_octets(response.get(name)?.as_bytes());
    let uri = reference::resolve(base, &text)?;
    let same = uri.scheme_str().is_none_or(|named| named == scheme)
        && uri
            .authority()
            .is_none_or(|named| normal_host(named.as_str(), scheme) == host);
    same.then_some(uri)
}

/// Fills `{path}`, `{path.N}`, `{query.NAME}`, `{header.NAME}` and `{host}`. None: the request lacks one.
fn expand(template: &str, request: &Parts, host: &str, escape: bool) -> Option<String> {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}')?;
        out.push_str(before);
        let value = placeholder(name, request, host)?;
        match escape {
            // What a client sent is text, never a wildcard.
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
