//! One request as the steps see it: where it is addressed to, who sent it, when it began.

use std::borrow::Cow;
use std::hash::BuildHasher;
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Instant;

use http::header::{CONNECTION, HOST, TE, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri, Version};

use crate::cache::coalesce::LoadFailure;
use crate::cache::entry::PurgeAttributes;
use crate::cache::key::{CacheKeyInput, KeyBuf, KeyId, hash64};
use crate::cache::policy::{CameWith, Credentials, UncacheableReason};
use crate::http::body::Body;
use crate::http::forward::{self, HopWishes, PSEUDONYM, RequestSender, TrailerWish};
use crate::http::grpc::AnswerDialect;
use crate::http::memory::ConnectionMemory;
use crate::http::path::PathRules;
use crate::http::reference::normal_address;
use crate::http::server::InterimSender;
use crate::origin::{OnAttempt, OnInterim, SendTerms};
use crate::plugin::KeyDecision;
use crate::proxy::came;
use crate::proxy::esi;
use crate::proxy::generation::Generation;
use crate::proxy::plan;
use crate::proxy::record::trail::{RequestTrail, TrailEvent};
use crate::proxy::route::Route;
use crate::proxy::rules::request_id::RequestId;
use crate::proxy::rules::template::TemplateSource;

/// A request on its way to an origin or a loader, shared by the task of its client and the task of
/// the load.
pub struct RequestContext {
    pub generation: Arc<Generation>,
    pub parts: Parts,
    pub host: String,
    pub scheme: &'static str,
    pub caller: RequestSender,
    pub wishes: HopWishes,
    /// How the listener that received it reads paths.
    pub path_rules: PathRules,
    pub route: Arc<Route>,
    pub started: Instant,
    /// The channel for passing an origin's interim responses on to the client.
    pub interim: Option<InterimSender>,
    /// The connection whose memory account holds what arrives for it. None for a background load.
    pub memory: Option<Arc<ConnectionMemory>>,
    /// Where the events of the request are noted. None if nobody reads them.
    pub trail: Option<Arc<RequestTrail>>,
}

/// A key, with what its derivation returned beside it.
pub struct DerivedKey {
    pub key: KeyBuf,
    /// The decision of the key plugin, for what it returned beside the key.
    pub plugin: Option<Arc<KeyDecision>>,
    /// Its short name, once somebody has asked for it.
    id: OnceLock<KeyId>,
}

impl DerivedKey {
    pub fn new(key: KeyBuf, plugin: Option<Arc<KeyDecision>>) -> Self {
        Self {
            key,
            plugin,
            id: OnceLock::new(),
        }
    }

    /// The short name of the key.
    pub fn id(&self) -> KeyId {
        *self.id.get_or_init(|| KeyId::of(self.key.as_bytes()))
    }

    /// The text in place of the URL, and the tags, that the key plugin returned.
    fn said(&self) -> (Option<&str>, &[String]) {
        match self.plugin.as_deref() {
            Some(KeyDecision::Key { text, tags, .. }) => (Some(text), tags),
            _ => (None, &[]),
        }
    }
}

/// In which form the client of a request reads errors.
pub fn dialect(parts: &Parts) -> AnswerDialect {
    AnswerDialect::of(parts.version, &parts.method, &parts.headers)
}

/// The host that a request is addressed to, in its normal form (RFC 9110 §4.2.3). The authority of
/// an absolute target or of HTTP/2 takes precedence over `Host`.
pub fn host<'a>(parts: &'a Parts, scheme: &str) -> Cow<'a, str> {
    let host = match parts.uri.authority() {
        Some(authority) => authority.as_str(),
        // `Host` is usually the first field: going through the names costs less than a look-up by
        // hash.
        None => parts
            .headers
            .iter()
            .find(|(name, _)| **name == HOST)
            .and_then(|(_, value)| value.to_str().ok())
            .unwrap_or(""),
    };
    normal_host(host, scheme)
}

const UPPER_CASE: u8 = 1;
const COLON: u8 = 2;

/// The octets that may keep a host from being in normal form, as a table, since the host of every
/// request is checked.
static HOST_CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut octet = b'A';
    while octet <= b'Z' {
        classes[octet as usize] = UPPER_CASE;
        octet += 1;
    }
    classes[b':' as usize] = COLON;
    classes
};

/// The normal form of a host: lower case, without the scheme's default port or an empty port (RFC
/// 3986 §6.2.3), without the dot that ends a fully qualified name, and with one spelling for an
/// address.
pub fn normal_host<'a>(host: &'a str, scheme: &str) -> Cow<'a, str> {
    let found = host
        .bytes()
        .fold(0, |found, octet| found | HOST_CLASSES[usize::from(octet)]);
    if found == 0 && !host.ends_with('.') {
        return Cow::Borrowed(host);
    }
    let has_upper_case = found & UPPER_CASE != 0;
    let colon = host.rfind(':').filter(|_| found & COLON != 0);
    let own_port = if scheme == "https" { "443" } else { "80" };
    let (name, port) = match colon.map(|at| (&host[..at], &host[at + 1..])) {
        Some((name, port)) if port.is_empty() || port == own_port => (name, ""),
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => {
            (name, &host[name.len()..])
        }
        _ => (host, ""),
    };
    if name.starts_with('[') {
        return Cow::Owned(format!("{}{port}", normal_address(name)).to_ascii_lowercase());
    }
    let rooted = name.strip_suffix('.').filter(|rooted| !rooted.is_empty());
    match (rooted, has_upper_case) {
        (None, false) => Cow::Borrowed(&host[..name.len() + port.len()]),
        (None, true) => Cow::Owned(host[..name.len() + port.len()].to_ascii_lowercase()),
        (Some(rooted), _) => Cow::Owned(format!("{rooted}{port}").to_ascii_lowercase()),
    }
}

/// The request as input for the cache key.
pub fn subject<'a>(
    parts: &'a Parts,
    scheme: &'a str,
    host: &'a str,
    route: &'a Route,
) -> CacheKeyInput<'a> {
    CacheKeyInput {
        scheme,
        host,
        path: parts.uri.path(),
        query: parts.uri.query(),
        headers: &parts.headers,
        route: &route.name,
    }
}

impl RequestContext {
    /// The attributes by which purges find the load. The tags of the response are added when its
    /// head arrives.
    pub fn marks(&self, keyed: &DerivedKey) -> PurgeAttributes {
        let (text, tags) = keyed.said();
        let path = self.parts.uri.path_and_query().map_or("/", |p| p.as_str());
        let tags = tags.iter().map(|tag| hash64(tag.as_bytes()));
        PurgeAttributes {
            id: keyed.id().0,
            identity: keyed.key.identity(),
            route: self.route.hash,
            tags: self.route.tags.iter().copied().chain(tags).collect(),
            groups: Box::default(),
            url: text.map_or_else(|| [&*self.host, path].concat().into(), Into::into),
        }
    }

    /// What identifies the user in the request and is not in `key`, the request's own key.
    pub fn credentials(&self, key: &KeyBuf) -> Credentials {
        came::credentials(&self.route, &self.parts, key)
    }

    /// The credentials that the request arrived with; `key` is its own key.
    pub fn came_with(&self, key: &KeyBuf) -> CameWith {
        came::with(&self.route, &self.parts, key)
    }

    /// Adds the fields that every request to an origin gets, even one that a plugin rewrote.
    pub fn forward(&self, headers: &mut HeaderMap) {
        sign(headers, &self.caller, &self.host, self.parts.version);
        if self.wishes.trailers == TrailerWish::Accepted {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
    }

    /// The request for the origin, as a load that others may share sends it.
    ///
    /// # Errors
    /// If the rules of the route make a request of it that no origin may get.
    pub fn for_origin(&self, body: Body) -> Result<Request<Body>, LoadFailure> {
        let mut headers = self.parts.headers.clone();
        headers.reserve(ADDED_FIELDS);
        self.forward(&mut headers);
        esi::tell_origin(&self.route, &mut headers);
        // The same spelling as in the key; HTTP/2 carries it only in the pseudo-header.
        if !self.host.is_empty()
            && !headers.get_all(HOST).iter().eq([&self.host])
            && let Ok(host) = HeaderValue::from_str(&self.host)
        {
            headers.insert(HOST, host);
        }
        let mut request = Request::new(body);
        *request.method_mut() = self.parts.method.clone();
        *request.uri_mut() = origin_form(&self.parts.uri);
        *request.headers_mut() = headers;
        if let Some(interim) = self.interim.clone() {
            pass_interim(&mut request, interim);
        }
        self.charge(&mut request);
        self.apply_rules(&mut request)?;
        Ok(request)
    }

    /// Makes of a request for the origin what the rules of the route say.
    ///
    /// # Errors
    /// If no origin may get what comes out.
    pub fn apply_rules(&self, request: &mut Request<Body>) -> Result<(), LoadFailure> {
        let is_keyed = |name: &HeaderName| self.route.key.covers(name);
        forward::remove_ambiguous(request.headers_mut(), is_keyed);
        match &self.route.rules {
            None => Ok(()),
            Some(rules) => rules.for_origin(self, request),
        }
    }

    /// What the origin is asked for, where its answer is to be brought into the client's space.
    pub fn asked(&self, request: &Request<Body>) -> Option<Uri> {
        let rules = self.route.rules.as_ref();
        let rewrites = rules.is_some_and(|rules| rules.rewrites());
        rewrites.then(|| request.uri().clone())
    }

    /// Brings an answer of the origin into the client's space.
    pub fn bring_back(&self, headers: &mut HeaderMap, asked: Option<&Uri>) {
        if let (Some(rules), Some(asked)) = (&self.route.rules, asked) {
            rules.bring_back(self, headers, asked);
        }
    }

    /// Why an answer is not to be stored, if it depends on what the rules tell the origin of this
    /// client alone.
    pub fn kept_out(&self, response: &HeaderMap) -> Option<UncacheableReason> {
        let rules = self.route.rules.as_ref()?;
        let is_for_one = rules.tell_of_the_client(response);
        is_for_one.then_some(UncacheableReason::RequestRule)
    }

    /// What the templates of the route's rules are filled in from.
    pub fn template_source(&self) -> TemplateSource<'_> {
        TemplateSource {
            parts: &self.parts,
            host: &self.host,
            scheme: self.scheme,
            client: self.caller.client(),
            route: &self.route.name,
            request_id: self.parts.extensions.get().map(|RequestId(id)| id),
        }
    }

    /// Sends a copy of this request to a second upstream, where the route says so. Returns the
    /// request.
    pub fn mirrored(&self, request: Request<Body>) -> Request<Body> {
        match &self.route.mirror {
            Some(mirror) => mirror.copy(request),
            None => request,
        }
    }

    /// Adds the protocol upgrade that the client asked for to the request for the origin. Only for
    /// an answer that is for this client alone.
    pub fn pass_upgrade_on(&self, headers: &mut HeaderMap) {
        if let Some(protocols) = &self.wishes.upgrade {
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, protocols.clone());
        }
    }

    /// Attaches to a request of ours the memory account that its answer is charged to, its client
    /// or its key where targets are chosen by it, the target that its client stays with, the silence that its route allows to streams, and the trail
    /// on which its attempts are noted.
    pub fn charge(&self, request: &mut Request<Body>) {
        let terms = SendTerms::of(request);
        terms.silence = self.route.timeouts.stream_idle.map(|longest| longest.0);
        terms.memory.clone_from(&self.memory);
        if let Some(origin) = &self.route.origin {
            let client = self.caller.client();
            terms.client = client.filter(|_| origin.chooses_by_client());
            terms.key = origin.chooses_by_key().then(|| self.target_key());
        }
        terms.pin = self.parts.extensions.get().copied();
        terms.told = self
            .trail
            .clone()
            .map(|trail| OnAttempt::new(move |attempt| trail.note(TrailEvent::Attempt(attempt))));
    }

    /// What chooses the target where it depends on the key. All that is sent for one object has the
    /// same: the key without variant and parts, which a request that bypasses the cache would have,
    /// too; and the URL where there is no key.
    fn target_key(&self) -> u64 {
        let key = plan::key_of(self).map(|key| KeyId::of(key.as_bytes()).0);
        key.unwrap_or_else(|| {
            let path = self.parts.uri.path_and_query().map_or("/", |p| p.as_str());
            hash64(format!("{}{path}", self.host).as_bytes())
        })
    }

    /// In which form the client reads errors.
    pub fn dialect(&self) -> AnswerDialect {
        dialect(&self.parts)
    }

    /// The number of the request's record; 0 if it has none.
    pub fn number(&self) -> u64 {
        self.trail.as_ref().map_or(0, |trail| trail.request)
    }

    /// The detail for `Cache-Status` if the request was sent to an upstream more than once.
    pub fn retry_detail(&self) -> Option<&'static str> {
        let trail = self.trail.as_ref()?;
        trail.was_retried().then_some("retry")
    }

    /// Notes an event on the trail, if there is one.
    pub fn note(&self, waypoint: impl FnOnce() -> TrailEvent) {
        if let Some(trail) = &self.trail {
            trail.note(waypoint());
        }
    }
}

/// Adds the fields that name the client and this gateway. Everything else in the head stays as the
/// key was derived from it; [`forward::DIFFERENCES`] lists where the two may differ.
fn sign(headers: &mut HeaderMap, caller: &RequestSender, host: &str, version: Version) {
    // They are for routes, keys and plugins alone.
    headers.remove(forward::CLIENT_JA4);
    headers.remove(forward::CHOSEN_UPSTREAM);
    forward::tell_origin(headers, caller, host);
    forward::append_via(headers, version);
    forward::append_cdn_loop(headers, &CDN_ID);
}

/// Passes the origin's 1xx responses on (RFC 9110 §15.2), except 100, which each hop sends by
/// itself, and 101, which is not an interim response.
fn pass_interim(request: &mut Request<Body>, interim: InterimSender) {
    let told = OnInterim::new(move |status, version, headers| {
        if matches!(
            status,
            StatusCode::CONTINUE | StatusCode::SWITCHING_PROTOCOLS
        ) {
            return;
        }
        let mut headers = headers.clone();
        forward::end_response_hop(status, &mut headers);
        // An interim response has no content (RFC 9110 §15.2).
        headers.remove(http::header::CONTENT_LENGTH);
        forward::append_via(&mut headers, version);
        interim.send(status, &headers);
    });
    request.extensions_mut().insert(told);
}

/// How many fields the head for an origin has beside those of the client.
const ADDED_FIELDS: usize = 8;

/// The name of this process in `CDN-Loop` (RFC 8586). It differs between processes, so that one
/// gateway may stand before another.
pub static CDN_ID: LazyLock<HeaderValue> = LazyLock::new(|| {
    let number = std::hash::RandomState::new().hash_one(std::process::id());
    let id = format!("{PSEUDONYM}-{number:016x}");
    HeaderValue::try_from(id).unwrap_or(HeaderValue::from_static(PSEUDONYM))
});

/// The path and query alone (RFC 9112 §3.2.1).
pub fn origin_form(uri: &Uri) -> Uri {
    let path = uri
        .path_and_query()
        .cloned()
        .unwrap_or_else(|| http::uri::PathAndQuery::from_static("/"));
    Uri::from(path)
}

#[cfg(test)]
mod tests {

    use proptest::prelude::*;

    use super::*;
    use crate::http::forward::{DIFFERENCES, PeerTrust, TrustedProxies};
    use crate::proxy::rules::headers::HeaderChanges;
    use crate::proxy::rules::headers::config::{ChangedMessage, HeaderChangesConfig, touchable};

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
            ("/", "a.example."),
            ("/", "A.example.:80"),
            ("/", "a.example:"),
            ("/", "a.example.:"),
            ("http://a.example.:80/", "other"),
        ] {
            assert_eq!(host(&parts(uri, line), "http"), "a.example", "{uri} {line}");
        }
        assert_eq!(
            host(&parts("/", "a.example:8080"), "http"),
            "a.example:8080"
        );
        assert_eq!(host(&parts("/", "a.example:80"), "https"), "a.example:80");
        assert_eq!(
            host(&parts("/", "a.example.:8080"), "http"),
            "a.example:8080"
        );
        for literal in ["[::1]", "[::1]:8080"] {
            assert_eq!(host(&parts("/", literal), "http"), literal);
        }
        for literal in ["[::1]:", "[0:0:0:0:0:0:0:1]", "[0::0001]:80", "[0:0::1]"] {
            assert_eq!(host(&parts("/", literal), "http"), "[::1]", "{literal}");
        }
        assert_eq!(
            host(&parts("/", "[2001:DB8::0:A]:8080"), "http"),
            "[2001:db8::a]:8080"
        );
    }

    /// Names of every kind: selecting, of the connection, reserved ones that a client forges, in
    /// odd spellings, ours, none of these.
    const NAMES: [&str; 30] = [
        "accept",
        "accept-language",
        "authorization",
        "cache-control",
        "cdn-loop",
        "connection",
        "cookie",
        "forwarded",
        "host",
        "if-none-match",
        "keep-alive",
        "proxy",
        "proxy-connection",
        "range",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
        "via",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-prefix",
        "x-forwarded-proto",
        "x-original-url",
        "x-plan",
        "x-user",
        "x_forwarded_host",
        "x_original_url",
        "x_user",
    ];

    /// Lines of a head. `Connection` often names fields that may be in it.
    fn lines() -> impl Strategy<Value = Vec<(HeaderName, HeaderValue)>> {
        let name = || prop::sample::select(&NAMES[..]);
        let names = prop::collection::vec(name(), 0..5);
        let connection = names.prop_map(|names| ("connection", names.join(" ,, ").to_uppercase()));
        let other = (name(), "[ -~]{0,12}");
        let line = prop_oneof![1 => connection, 4 => other];
        prop::collection::vec(line, 0..16).prop_map(|lines| {
            let read = |(name, value): (&'static str, String)| {
                Some((HeaderName::from_static(name), value.parse().ok()?))
            };
            lines.into_iter().filter_map(read).collect()
        })
    }

    proptest! {
        /// RFC 9110 §7.6.1, RFC 9111 §4.1: the cache and the origin must read the same request.
        #[test]
        fn what_the_cache_goes_by_is_what_the_origin_gets_but_for_a_written_list(
            lines in lines(),
            set in prop::sample::select(&NAMES[..]),
            ruled in prop::sample::select(&NAMES[..]),
            trusted in any::<bool>(),
            version in prop::sample::select(vec![Version::HTTP_10, Version::HTTP_11, Version::HTTP_2]),
        ) {
            let listed = ["x-forwarded-prefix".to_owned(), "x-original-url".to_owned()];
            let trust = TrustedProxies::new(&["10.0.0.0/8".to_owned()], &listed).unwrap();
            let belief = if trusted { PeerTrust::Proxy(&trust) } else { PeerTrust::Nothing };
            let mut seen: HeaderMap = HeaderMap::new();
            seen.extend(lines.iter().cloned().map(|(name, value)| (Some(name), value)));
            let connected = RequestSender::direct("10.0.0.1:4711".parse().unwrap(), "http");
            let (received, _) = forward::receive(&mut seen, version, connected, belief);
            // Stands for a plugin, which may set any field except those of the connection.
            let set = HeaderName::from_static(set);
            if !forward::is_hop_by_hop(&set) {
                seen.insert(set.clone(), HeaderValue::from_static("by-a-plugin"));
            }
            let mut sent = seen.clone();
            sign(&mut sent, &received.caller, "shop.example", version);
            // A rule of the route may name any field that is not of the message itself.
            let ruled = Some(ruled).filter(|name| touchable(name, ChangedMessage::Request).is_ok());
            let config = HeaderChangesConfig {
                set: ruled.iter().map(|name| ((*name).to_owned(), "by-a-rule".to_owned())).collect(),
                ..HeaderChangesConfig::default()
            };
            if let Some(changes) = HeaderChanges::new(&config) {
                changes.change_request(&mut sent, Box::default());
            }
            let is_ruled = |name: &HeaderName| {
                ruled.is_some_and(|ruled| name.as_str().replace('_', "-") == ruled.replace('_', "-"))
            };
            let differs = |name: &HeaderName| {
                is_ruled(name) || DIFFERENCES.iter().any(|(known, _)| known == name)
            };
            for name in seen.keys().chain(sent.keys()).filter(|name| !differs(name)) {
                let lines = |head: &HeaderMap| head.get_all(name).iter().cloned().collect::<Vec<_>>();
                prop_assert_eq!(lines(&seen), lines(&sent), "{}", name);
                prop_assert!(!forward::is_hop_by_hop(name), "{}", name);
                let believed = trusted && trust.headers().contains(name);
                prop_assert!(!forward::is_posing(name) || believed || *name == set, "{}", name);
            }
            if !forward::is_hop_by_hop(&set) && set != http::header::VIA && !is_ruled(&set) {
                let after = sent.get_all(&set).iter().next();
                prop_assert_eq!(after, Some(&HeaderValue::from_static("by-a-plugin")), "{}", set);
            }
        }
    }
}
