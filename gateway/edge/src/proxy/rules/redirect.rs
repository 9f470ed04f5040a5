//! Redirects: a route that sends its clients elsewhere, without an origin and before the cache.
//!
//! A redirect to whatever host a request names would be one that anybody can aim (CWE-601). So the
//! host is either written in the template, or one that the configuration allows; and what a client
//! writes can't become a host: see [`leads_to`].

pub mod config;

use http::header::LOCATION;
use http::{HeaderValue, Response, StatusCode, Uri};

use super::template::{TemplatePiece, TemplateSource, TextTemplate, ValueForm};
use crate::http::body::Body;
use crate::http::reference::{normal_address, without_port};
use crate::pattern::Pattern;
use crate::proxy::config::normal_host_pattern;
use crate::proxy::respond;
use config::{RedirectConfig, TargetHost, target_host};

/// The redirect of a route.
pub struct RouteRedirect {
    to: TextTemplate,
    status: StatusCode,
    host: TargetHost,
    allow_hosts: Box<[Pattern]>,
}

impl RouteRedirect {
    /// None if the configuration is not a good one; its checks have said so.
    pub fn new(config: &RedirectConfig) -> Option<Self> {
        let to = TextTemplate::parse(&config.to).ok()?;
        let hosts = config.allow_hosts.iter();
        Some(Self {
            host: target_host(&to).ok()?,
            status: StatusCode::from_u16(config.status).ok()?,
            allow_hosts: hosts
                .map(|host| Pattern::new(&normal_host_pattern(host)))
                .collect(),
            to,
        })
    }

    /// The answer to a request.
    pub fn answer(&self, source: TemplateSource<'_>) -> Response<Body> {
        let target = String::from_utf8(self.to.fill(source, ValueForm::Url)).ok();
        let target = target.map(|target| with_query(target, source.parts.uri.query(), &self.to));
        let location = target
            .and_then(|target| self.leads_to(ascii(target)))
            .and_then(|target| HeaderValue::try_from(target).ok());
        let Some(location) = location else {
            let text = "400 the target can't be redirected\n";
            return respond::plain(StatusCode::BAD_REQUEST, text);
        };
        let mut response = respond::plain(self.status, respond::text(self.status));
        response.headers_mut().insert(LOCATION, location);
        response
    }

    /// The target, if it leads where it may. Browsers take backslashes for slashes and two of them
    /// at the beginning for a host, so a path begins with one.
    fn leads_to(&self, target: String) -> Option<String> {
        if self.host == TargetHost::Own {
            let path = target.trim_start_matches(['/', '\\']);
            return target.starts_with('/').then(|| format!("/{path}"));
        }
        let uri: Uri = target.parse().ok()?;
        let authority = uri.authority()?.as_str().to_ascii_lowercase();
        let allowed = match &self.host {
            TargetHost::Written(host) => authority == *host,
            _ => {
                let name = normal_address(without_port(&authority));
                let is_name = !authority.contains('@');
                is_name && self.allow_hosts.iter().any(|host| host.matches(&name))
            }
        };
        allowed.then_some(target)
    }

    /// The redirect in words.
    pub fn describe(&self) -> String {
        format!("redirect: {} to {}", self.status.as_u16(), self.to)
    }
}

/// The same URL in ASCII: a target may be written with other letters (RFC 3987 §3.1).
fn ascii(target: String) -> String {
    if target.is_ascii() {
        return target;
    }
    let mut url = String::with_capacity(target.len() + 16);
    for octet in target.bytes() {
        match octet.is_ascii() {
            true => url.push(char::from(octet)),
            false => url.push_str(&format!("%{octet:02X}")),
        }
    }
    url
}

/// Adds the query of the request, unless the template says what the query is. A template that ends
/// its query with nothing has none.
fn with_query(target: String, query: Option<&str>, template: &TextTemplate) -> String {
    let says = template.pieces().iter().any(|piece| match piece {
        TemplatePiece::Text(text) => text.contains('?'),
        _ => false,
    });
    let (path, fragment) = match target.split_once('#') {
        Some((path, fragment)) => (path, format!("#{fragment}")),
        None => (&*target, String::new()),
    };
    match (says, query) {
        (true, _) => format!("{}{fragment}", path.strip_suffix('?').unwrap_or(path)),
        (false, Some(query)) => format!("{path}?{query}{fragment}"),
        (false, None) => target,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn location(to: &str, allow: &[&str], (uri, host): (&str, &str)) -> Option<String> {
        let request = http::Request::builder().uri(uri).header("x", host);
        let (parts, ()) = request.body(()).ok()?.into_parts();
        let config = RedirectConfig {
            to: to.to_owned(),
            status: 308,
            allow_hosts: allow.iter().map(|host| (*host).to_owned()).collect(),
        };
        let source = TemplateSource {
            parts: &parts,
            host,
            scheme: "https",
            client: None,
            route: "old",
            request_id: None,
        };
        let response = RouteRedirect::new(&config).unwrap().answer(source);
        let location = response.headers().get(LOCATION)?;
        Some(location.to_str().unwrap().to_owned())
    }

    #[test]
    fn redirects_lead_where_they_may() {
        let shop = ["*.example", "shop.test", "[2001:db8:0:0::1]"];
        for (to, from, expected) in [
            (
                "/new{path}",
                ("/a/b?x=1", "a.example"),
                Some("/new/a/b?x=1"),
            ),
            ("{path}/", ("/docs?x=1", "a.example"), Some("/docs/?x=1")),
            (
                "{path}/",
                ("//evil.test/x", "a.example"),
                Some("/evil.test/x/"),
            ),
            ("/{path.2}", ("/a", "a.example"), Some("/")),
            ("/{header.x}", ("/a", "/evil.test"), Some("/%2Fevil.test")),
            ("/x?to={path.1}", ("/a?q=1", "a.example"), Some("/x?to=a")),
            ("/x?{query}", ("/a", "a.example"), Some("/x")),
            ("/x#{path.1}", ("/a?q=1", "a.example"), Some("/x?q=1#a")),
            (
                "/größe{path}",
                ("/a", "a.example"),
                Some("/gr%C3%B6%C3%9Fe/a"),
            ),
            (
                "https://www.shop.test{path}",
                ("/a?b", "evil"),
                Some("https://www.shop.test/a?b"),
            ),
            (
                "https://{host}/new/{path.2}",
                ("/old/7", "a.example"),
                Some("https://a.example/new/7"),
            ),
            (
                "https://{host}/",
                ("/", "a.example:8080"),
                Some("https://a.example:8080/"),
            ),
            (
                "https://{host}/",
                ("/", "[2001:DB8:0::1]:8443"),
                Some("https://[2001:DB8:0::1]:8443/"),
            ),
            (
                "https://{host}/",
                ("/", "shop.test"),
                Some("https://shop.test/"),
            ),
            ("https://{host}/", ("/", "evil.test"), None),
            ("https://{host}/", ("/", "shop.test@evil.test"), None),
            ("https://{header.x}/", ("/", "shop.test/@evil.test"), None),
            ("https://shop.test{header.x}/", ("/", ".evil.test"), None),
        ] {
            let found = location(to, &shop, from);
            assert_eq!(found.as_deref(), expected, "{to} {from:?}");
        }
    }

    proptest! {
        /// Whatever a client sends, a target without a host leads to this host.
        #[test]
        fn a_path_leads_nowhere_else(
            to in prop::sample::select(vec!["{path}", "{path}/", "/{header.x}", "/{path.1}{path.2}", "/a{path}?x={header.x}"]),
            path in "/[a-z/\\\\.@:%]{0,12}",
            x in "[ -~]{0,12}",
        ) {
            if let Some(found) = location(to, &[], (&path, &x)) {
                prop_assert!(found.starts_with('/'), "{}", found);
                prop_assert!(!found[1..].starts_with(['/', '\\']), "{}", found);
            }
        }
    }
}
