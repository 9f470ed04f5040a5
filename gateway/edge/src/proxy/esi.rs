//! Pages that are put together from fragments when they are delivered (Edge Side Includes).
//!
//! What is stored is the page with its marks, and each fragment as an entry of its own. A fragment
//! is got by a request like a client's, through the same steps, so that its route decides about
//! lifetime, purges and plugins. The page as the client gets it is never stored: it has no validator
//! and no ranges, and says that nobody else may keep it.
//!
//! A fragment is asked for with the fields of the page's request, without its preconditions. Where
//! its answer may be shared, its route gets those cookies that the key holds, and `Authorization`
//! only if the key holds that, so that no client's fragment is shared.

pub mod config;
mod page;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE,
    ETAG, EXPECT, HOST, LAST_MODIFIED, TRAILER,
};
use http::request::Parts;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
};
use http_body::Body as _;

use super::arrived::ArrivedRequest;
use super::counted::CountedResponse;
use super::metrics::RequestOutcome;
use super::route::Route;
use super::rules::cleaning::BypassesCache;
use super::{Proxy, context, cover, respond};
use crate::cache::policy::UncacheableReason;
use crate::http::body::Body;
use crate::http::cache_control;
use crate::http::coding::AppliedCoding;
use crate::http::coding::transcode::plain_body;
use crate::http::conditional;
use crate::http::digest::DIGEST_FIELDS;
use crate::http::forward::{ForwardingContext, HopWishes, RequestSender};
use crate::http::memory::{self, BoundExemption, PROCESS};
use crate::http::reference;
use crate::http::server::{HandlerAnswer, InterimChannel, Peer, RequestArrival};
use crate::http::tls::TlsSession;
use crate::plugin::SeenField;
use config::{EsiConfig, EsiPages};
use page::{AssembledPage, ContentOwner};

/// Tells a cache what an answer is for (Edge Architecture 1.0).
const SURROGATE_CONTROL: HeaderName = HeaderName::from_static("surrogate-control");
/// Tells an origin what a cache in front of it can do.
const SURROGATE_CAPABILITY: HeaderName = HeaderName::from_static("surrogate-capability");
const CAPABILITY: HeaderValue = HeaderValue::from_static("lamina=\"ESI/1.0\"");

/// What of a page's request is not for its fragments, beside what describes its content
/// ([`describes_content`]).
const OF_THE_PAGE: [HeaderName; 3] = [ACCEPT_ENCODING, EXPECT, TRAILER];

/// The fields of a page's answer that are true only of its octets as the origin sent them, beside
/// digests.
const OF_THE_OCTETS: [HeaderName; 4] = [CONTENT_LENGTH, ETAG, LAST_MODIFIED, ACCEPT_RANGES];

/// Marks a request for a fragment, as an extension of the request.
#[derive(Clone)]
pub struct FragmentPlace {
    /// How deep it lies: 1 in a page that a client has asked for.
    depth: u8,
    budget: Arc<FragmentBudget>,
}

/// What a page may still take.
struct FragmentBudget {
    includes: AtomicU32,
    bytes: AtomicU64,
    /// Set if it may hold more than its connection has room for.
    exemption: OnceLock<BoundExemption>,
}

/// What is needed to put together the page that answers one request.
pub struct PageRequest {
    proxy: Arc<Proxy>,
    route: Arc<Route>,
    rules: EsiConfig,
    peer: Peer,
    caller: RequestSender,
    tls: Option<Arc<TlsSession>>,
    channel: InterimChannel,
    is_head: bool,
    uri: Uri,
    version: Version,
    host: String,
    scheme: &'static str,
    headers: HeaderMap,
    place: FragmentPlace,
}

/// Why a page can't be put together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum PageFault {
    TooLarge,
    /// Its content is not what its coding says.
    Damaged,
    /// It has several codings, or one that is unknown here.
    UnknownCoding,
}

/// Makes a request for a page one whose answer may be put together here: the whole is asked for,
/// without an encoding. Takes out of a request for a fragment what its route's key does not tell
/// apart.
pub(super) fn prepare(route: &Route, parts: &mut Parts) {
    narrow(route, parts);
    if route.esi.is_none() {
        return;
    }
    // A precondition of another method is about what it changes.
    if matches!(parts.method, Method::GET | Method::HEAD) {
        conditional::strip_conditionals(&mut parts.headers);
    }
    parts.headers.remove(SURROGATE_CAPABILITY);
    let identity = HeaderValue::from_static("identity");
    parts.headers.insert(ACCEPT_ENCODING, identity);
}

/// Tells an origin that pages are put together here, if its route does so.
pub(super) fn tell_origin(route: &Route, headers: &mut HeaderMap) {
    if route.esi.is_some() {
        headers.append(SURROGATE_CAPABILITY, CAPABILITY);
    }
}

/// When a request for a fragment began. None: this is none.
pub(super) fn fragment_began(parts: &Parts) -> Option<Instant> {
    parts
        .extensions
        .get::<FragmentPlace>()
        .map(|_| Instant::now())
}

/// Whether a request is one of ours for a fragment of a page.
pub(super) fn is_fragment(parts: &Parts) -> bool {
    parts.extensions.get::<FragmentPlace>().is_some()
}

/// Takes out of a request for a fragment what its route's key does not tell apart. Not where nothing
/// is shared: the route is not cached, or the request bypasses the cache. And not where a plugin
/// looks at the request or derives its key: it is then judged as a client's own request.
fn narrow(route: &Route, parts: &mut Parts) {
    let is_shared = route.cached && parts.extensions.get::<BypassesCache>().is_none();
    if !is_fragment(parts) || !is_shared || route.has_plugins() {
        return;
    }
    if !route.key.covers(&AUTHORIZATION) {
        parts.headers.remove(AUTHORIZATION);
    }
    cover::retain_pairs(&mut parts.headers, |pair| match cover::name_of(pair) {
        Some(SeenField::Cookie(name)) => route.key.covers_cookie(&name),
        _ => false,
    });
}

impl PageRequest {
    /// Keeps of a request what its page may need. None: its route puts no pages together.
    pub(super) fn of(
        proxy: &Arc<Proxy>,
        route: &Arc<Route>,
        (request, peer): (&ArrivedRequest, Peer),
        channel: &InterimChannel,
    ) -> Option<Box<Self>> {
        let rules = route.esi.clone()?;
        let place = request.parts.extensions.get::<FragmentPlace>();
        let place = place.cloned().unwrap_or_else(|| FragmentPlace {
            depth: 0,
            budget: Arc::new(FragmentBudget {
                includes: AtomicU32::new(rules.includes),
                bytes: AtomicU64::new(rules.max_bytes.0),
                exemption: OnceLock::new(),
            }),
        });
        let mut headers = request.parts.headers.clone();
        conditional::strip_conditionals(&mut headers);
        for name in OF_THE_PAGE {
            headers.remove(name);
        }
        let of_content: Vec<_> = headers
            .keys()
            .filter(|name| describes_content(name))
            .cloned()
            .collect();
        for name in of_content {
            headers.remove(name);
        }
        Some(Box::new(Self {
            proxy: Arc::clone(proxy),
            route: Arc::clone(route),
            rules,
            peer,
            caller: request.caller.clone(),
            tls: request.tls.clone(),
            channel: channel.clone(),
            is_head: request.parts.method == Method::HEAD,
            uri: context::origin_form(&request.parts.uri),
            version: request.parts.version,
            host: request.host.clone(),
            scheme: request.scheme,
            headers,
            place,
        }))
    }

    /// Puts the page together, if this is one.
    pub(super) fn assemble(self: Box<Self>, served: CountedResponse) -> CountedResponse {
        if served.outcome == RequestOutcome::Error || !self.is_page(&served.response) {
            return served;
        }
        let CountedResponse {
            response,
            outcome,
            rule,
        } = served;
        let (mut head, body) = response.into_parts();
        let content = match without_coding(&mut head.headers, body) {
            Ok(content) => content,
            Err(fault) => return self.unreadable(fault, &head.headers),
        };
        let left = self.place.budget.bytes.load(Ordering::Relaxed);
        if content.0.size_hint().lower() > left {
            return self.unreadable(PageFault::TooLarge, &head.headers);
        }
        for_one_client(&mut head.headers);
        let body = match self.is_head {
            true => Body::empty(),
            false => Body::boxed(AssembledPage::new(content, Arc::from(self))),
        };
        head.extensions.insert(UncacheableReason::Private);
        CountedResponse {
            response: Response::from_parts(head, body),
            outcome,
            rule,
        }
    }

    /// Whether an answer is a page that may have includes.
    fn is_page(&self, response: &Response<Body>) -> bool {
        let headers = response.headers();
        has_whole_content(response.status())
            && (is_declared(headers)
                || (self.rules.pages == EsiPages::All
                    && is_text(headers)
                    && AppliedCoding::of(headers) != AppliedCoding::Other))
    }

    /// The answer in place of a page with this head that can't be read.
    fn unreadable(&self, fault: PageFault, said: &HeaderMap) -> CountedResponse {
        let (error, why) = match fault {
            PageFault::TooLarge => (
                "http_response_body_size",
                "a page is larger than esi.max_bytes",
            ),
            PageFault::Damaged => (
                "http_response_content_coding",
                "a page has content that can't be decoded",
            ),
            PageFault::UnknownCoding => (
                "http_response_content_coding",
                "a page has a Content-Encoding that can't be undone, so its includes can't be read",
            ),
        };
        self.warn(why);
        let text = "502 the origin's page can't be put together\n";
        let answer = respond::unusable(said, error, text);
        CountedResponse::new(answer, RequestOutcome::Error)
    }

    /// The content of a fragment. None: it can't be had, or the page may not have it.
    async fn fragment(&self, place: &str) -> Option<Vec<Bytes>> {
        let Some(parts) = self.request_for(place) else {
            self.warn("a fragment is of another host, or lies too deep, or is one too many");
            return None;
        };
        let arrival = RequestArrival {
            peer: Peer {
                redirect: None,
                ..self.peer
            },
            received: ForwardingContext {
                caller: self.caller.clone(),
                wishes: HopWishes::default(),
                named_host: None,
            },
            tls: self.tls.clone(),
        };
        let request = (parts, Body::empty());
        let answer = match self.proxy.serve(request, arrival, &self.channel, None) {
            HandlerAnswer::Now(response) => response,
            HandlerAnswer::Later(response) => response.await,
        };
        if !answer.status().is_success() {
            return None;
        }
        let (mut head, body) = answer.into_parts();
        match without_coding(&mut head.headers, body) {
            Ok(content) => page::collected(content, self).await,
            Err(_) => {
                self.warn("a fragment has a Content-Encoding that can't be undone");
                None
            }
        }
    }

    /// The request for a fragment of this page.
    fn request_for(&self, place: &str) -> Option<Parts> {
        let depth = self.place.depth + 1;
        if depth > self.rules.depth {
            return None;
        }
        let uri = reference::resolve(&self.uri, self.scheme, place)?;
        if let Some(authority) = uri.authority() {
            let host = context::normal_host(authority.as_str(), self.scheme);
            let same_scheme = uri.scheme_str().is_none_or(|scheme| scheme == self.scheme);
            if host != self.host || !same_scheme {
                return None;
            }
        }
        let left = &self.place.budget.includes;
        let one_less = |left: u32| left.checked_sub(1);
        left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less)
            .ok()?;
        let mut parts = Request::new(()).into_parts().0;
        parts.uri = context::origin_form(&uri);
        parts.version = self.version;
        parts.headers = self.headers.clone();
        parts.headers.insert(HOST, self.host.parse().ok()?);
        let identity = HeaderValue::from_static("identity");
        parts.headers.insert(ACCEPT_ENCODING, identity);
        parts.extensions.insert(FragmentPlace {
            depth,
            budget: Arc::clone(&self.place.budget),
        });
        Some(parts)
    }

    /// Octets of ours, which count as held by the client's connection until they are sent.
    fn held(&self, bytes: Bytes) -> Bytes {
        memory::claim(bytes, &PROCESS, Some(self.channel.memory()))
    }

    fn warn(&self, what: &str) {
        if let Some(dropped) = self.route.warnings.admit(Instant::now()) {
            let (route, page) = (&*self.route.name, self.uri.path());
            tracing::warn!(route, page, dropped, "{what}");
        }
    }
}

/// The content of an answer without the coding that its origin gave it although it was asked for
/// none.
fn without_coding(headers: &mut HeaderMap, body: Body) -> Result<(Body, ContentOwner), PageFault> {
    let coding = match AppliedCoding::of(headers) {
        AppliedCoding::Identity => return Ok((body, ContentOwner::Others)),
        AppliedCoding::Other => return Err(PageFault::UnknownCoding),
        AppliedCoding::One(coding) => coding,
    };
    headers.remove(CONTENT_ENCODING);
    headers.remove(CONTENT_LENGTH);
    let plain = plain_body(coding, body, usize::MAX).map_err(|_| PageFault::Damaged)?;
    Ok((plain, ContentOwner::Ours))
}

/// Removes from the head of a page what is not true of the page as its client gets it.
fn for_one_client(headers: &mut HeaderMap) {
    for name in OF_THE_OCTETS.iter().chain(&DIGEST_FIELDS) {
        headers.remove(name);
    }
    cache_control::make_private(headers);
}

/// Whether a field of a request describes its content, which no request for a fragment has.
fn describes_content(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("content-") || name == "digest" || name == "repr-digest"
}

/// Whether an answer with this status has a whole content.
fn has_whole_content(status: StatusCode) -> bool {
    !status.is_informational()
        && !matches!(
            status,
            StatusCode::NO_CONTENT
                | StatusCode::RESET_CONTENT
                | StatusCode::PARTIAL_CONTENT
                | StatusCode::NOT_MODIFIED
        )
}

/// Whether `Surrogate-Control` says that an answer has includes.
fn is_declared(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(SURROGATE_CONTROL).iter();
    lines.any(|line| memchr::memmem::find(line.as_bytes(), b"ESI/1.0").is_some())
}

fn is_text(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    let kind = kind.unwrap_or_default().to_ascii_lowercase();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind.starts_with("text/") && kind != "text/event-stream"
        || kind.ends_with("+xml")
        || kind == "application/xml"
}
