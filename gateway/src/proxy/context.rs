//! One request as the steps see it: where it is addressed to, by whom, since when.

use std::borrow::Cow;
use std::hash::BuildHasher;
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use http::request::Parts;
use http::{HeaderMap, Request, StatusCode, Uri};

use crate::cache::entry::Marks;
use crate::cache::key::{KeyBuf, KeyId, Subject, hash64};
use crate::http::body::Body;
use crate::http::forward;
use crate::http::memory::ConnectionMemory;
use crate::http::server::{Interim, Peer};
use crate::origin::OnInterim;
use crate::plugin::KeyDecision;
use crate::proxy::route::Route;

/// A request on its way to an origin or a loader: shared by its client's task and the load's.
pub struct Ask {
    pub parts: Parts,
    pub host: String,
    pub scheme: &'static str,
    pub peer: Peer,
    pub route: Arc<Route>,
    pub started: Instant,
    /// The way to the client for an origin's interim answers.
    pub interim: Option<Interim>,
    /// Where what arrives for it is counted; None for a load behind the answer.
    pub memory: Option<Arc<ConnectionMemory>>,
}

/// A key with what its derivation said beside it.
pub struct Keyed {
    pub key: KeyBuf,
    /// The key plugin's decision, for what it says beside the key.
    pub plugin: Option<Arc<KeyDecision>>,
}

impl Keyed {
    /// The text that stands for the URL, and the tags, that the key plugin gave.
    fn said(&self) -> (Option<&str>, &[String]) {
        match self.plugin.as_deref() {
            Some(KeyDecision::Key { text, tags, .. }) => (Some(text), tags),
            _ => (None, &[]),
        }
    }
}

/// The host that a request is addressed to: lower case, without the scheme's own port
/// (RFC 9110 §4.2.3). An absolute target's or HTTP/2's authority goes before `Host`.
pub fn host<'a>(parts: &'a Parts, scheme: &str) -> Cow<'a, str> {
    let host = match parts.uri.authority() {
        Some(authority) => authority.as_str(),
        None => parts
            .headers
            .get(http::header::HOST)
            .and_then(|value| value.to_str().ok())
            .unwrap_or(""),
    };
    normal_host(host, scheme)
}

/// A host's one spelling: lower case, without the scheme's own port.
pub fn normal_host<'a>(host: &'a str, scheme: &str) -> Cow<'a, str> {
    let default_port = if scheme == "https" { ":443" } else { ":80" };
    let host = host.strip_suffix(default_port).unwrap_or(host);
    match host.bytes().any(|b| b.is_ascii_uppercase()) {
        true => Cow::Owned(host.to_ascii_lowercase()),
        false => Cow::Borrowed(host),
    }
}

/// The scheme that the client used: what a trusted proxy in front says, else ours.
pub fn scheme(parts: &Parts, peer: &Peer) -> &'static str {
    let said = || {
        parts
            .headers
            .get("x-forwarded-proto")
            .and_then(|value| value.to_str().ok())
    };
    match peer.trusted && said().is_some_and(|proto| proto.eq_ignore_ascii_case("https")) {
        true => "https",
        false => "http",
    }
}

/// The request as keys see it.
pub fn subject<'a>(
    parts: &'a Parts,
    scheme: &'a str,
    host: &'a str,
    route: &'a Route,
) -> Subject<'a> {
    Subject {
        scheme,
        host,
        path: parts.uri.path(),
        query: parts.uri.query(),
        headers: &parts.headers,
        route: &route.name,
    }
}

impl Ask {
    /// What purges know the load by; tags of the response are added at its head.
    pub fn marks(&self, keyed: &Keyed) -> Marks {
        let (text, tags) = keyed.said();
        let path = self.parts.uri.path_and_query().map_or("/", |p| p.as_str());
        let tags = tags.iter().map(|tag| hash64(tag.as_bytes()));
        Marks {
            id: KeyId::of(keyed.key.as_bytes()).0,
            identity: keyed.key.identity(),
            route: self.route.hash,
            tags: self.route.tags.iter().copied().chain(tags).collect(),
            groups: Box::default(),
            url: text.map_or_else(|| format!("{}{path}", self.host).into(), Into::into),
        }
    }

    /// What every request to an origin goes through, also one that a plugin rewrote:
    /// hop-by-hop fields gone, who asked said, our own place on the way named.
    pub fn forward(&self, headers: &mut HeaderMap) {
        forward::strip_request(headers);
        forward::set_forwarded(
            headers,
            self.peer.address.ip(),
            self.scheme,
            &self.host,
            self.peer.trusted,
        );
        forward::append_via(headers, self.parts.version, PSEUDONYM);
        forward::append_cdn_loop(headers, &CDN_ID);
    }

    /// The request for the origin: hop-by-hop fields gone, who asked said.
    pub fn for_origin(&self, body: Body) -> Request<Body> {
        let mut headers = self.parts.headers.clone();
        self.forward(&mut headers);
        if !self.host.is_empty() && !headers.contains_key(http::header::HOST) {
            // HTTP/2 has it in the pseudo-header alone.
            headers.extend(
                self.host
                    .parse()
                    .ok()
                    .map(|host| (http::header::HOST, host)),
            );
        }
        let mut request = Request::new(body);
        *request.method_mut() = self.parts.method.clone();
        *request.uri_mut() = origin_form(&self.parts.uri);
        *request.headers_mut() = headers;
        if let Some(interim) = self.interim.clone() {
            pass_interim(&mut request, interim);
        }
        self.charge(&mut request);
        request
    }

    /// Says on whose account the answer to a request of ours is held.
    pub fn charge(&self, request: &mut Request<Body>) {
        if let Some(memory) = &self.memory {
            request.extensions_mut().insert(Arc::clone(memory));
        }
    }
}

/// Passes the origin's 1xx on (RFC 9110 §15.2): not 100, which each hop gives by itself,
/// nor 101, which is no interim answer.
fn pass_interim(request: &mut Request<Body>, interim: Interim) {
    let told = OnInterim::new(move |status, version, headers| {
        if matches!(
            status,
            StatusCode::CONTINUE | StatusCode::SWITCHING_PROTOCOLS
        ) {
            return;
        }
        let mut headers = headers.clone();
        forward::strip_hop_by_hop(&mut headers);
        // It has no content (RFC 9110 §15.2).
        headers.remove(http::header::CONTENT_LENGTH);
        forward::append_via(&mut headers, version, PSEUDONYM);
        interim.send(status, &headers);
    });
    request.extensions_mut().insert(told);
}

/// The name by which we stand in `Via`, `Cache-Status` and `Proxy-Status`.
pub const PSEUDONYM: &str = "lamina";

/// This process in `CDN-Loop` (RFC 8586). Its own name, so that one gateway may stand
/// before another.
pub static CDN_ID: LazyLock<String> = LazyLock::new(|| {
    let number = std::hash::RandomState::new().hash_one(std::process::id());
    format!("{PSEUDONYM}-{number:016x}")
});

/// Path and query alone (RFC 9112 §3.2.1).
pub fn origin_form(uri: &Uri) -> Uri {
    let path = uri
        .path_and_query()
        .cloned()
        .unwrap_or_else(|| http::uri::PathAndQuery::from_static("/"));
    Uri::from(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(uri: &str, host: &str) -> Parts {
        Request::builder()
            .uri(uri)
            .header("host", host)
            .body(())
            .unwrap()
            .into_parts()
            .0
    }

    #[test]
    fn one_host_has_one_spelling() {
        for (uri, line) in [
            ("/", "A.example"),
            ("/", "a.example:80"),
            ("http://a.EXAMPLE/", "other"),
        ] {
            assert_eq!(host(&parts(uri, line), "http"), "a.example", "{uri} {line}");
        }
        assert_eq!(
            host(&parts("/", "a.example:8080"), "http"),
            "a.example:8080"
        );
        assert_eq!(host(&parts("/", "a.example:80"), "https"), "a.example:80");
    }
}
