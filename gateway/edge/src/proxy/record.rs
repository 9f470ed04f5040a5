//! The record of one request, from its head to the last octet of its answer.
//!
//! [`RequestRecorder`] begins a [`RequestRecord`] when a request is handled. The record ends with
//! the body of the answer, or when the client leaves before that. Events on the way are noted on
//! the record's [`RequestTrail`], also by the task of the load, which may outlive the request. It
//! has two readers: the access log ([`access`](super::access)), and the last requests that
//! `GET /v1/requests/recent` explains ([`recent`], in the words of [`told`]).

mod explained;
mod pending;
pub mod recent;
pub mod recorded_head;
pub mod trail;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::request::Parts;
use http::{HeaderValue, Version};

use crate::http::forward::RequestSender;
use crate::http::tls::TlsSession;
use crate::proxy::counted::AnsweringRule;
use crate::proxy::metrics::RequestOutcome;
use crate::proxy::protocol;
use crate::telemetry::config::AccessLog;
use recent::RecentRequestLog;
use recorded_head::RecordedHead;
use trail::RequestTrail;

pub use pending::PendingRecord;

/// What is known about one request.
pub struct RequestRecord {
    /// The number of the request, unique in the process.
    pub id: u64,
    pub started: Instant,
    /// At most 64 octets of it.
    pub method: Box<str>,
    pub version: Version,
    /// What is known of TLS. None if the client spoke clear text.
    pub tls: Option<Arc<TlsSession>>,
    pub scheme: &'static str,
    /// The host, at most 255 octets of it.
    pub host: Box<str>,
    /// Path and query as the client requested them, in their normal form; at most 4 KiB.
    pub path: Box<str>,
    /// The client's address. None if trusted proxies hide it.
    pub client: Option<IpAddr>,
    pub peer: SocketAddr,
    /// The id of the request, where its route gives one.
    pub request_id: Option<Box<str>>,
    /// The `User-Agent`, at most 512 octets of it.
    pub agent: Box<str>,
    /// The route. None if no route took the request.
    pub route: Option<Arc<str>>,
    /// Who has sent it, where the route asks for that; at most 255 octets of the name.
    pub user: Option<Box<str>>,
    /// Why the path was refused, if it was.
    pub refused: Option<Box<str>>,
    /// Its whole head, if a key plugin was asked about it and it is kept among the last requests.
    pub head: Option<Box<RecordedHead>>,
    /// The events on the way to the answer. None if the request was answered at once.
    pub trail: Option<Arc<RequestTrail>>,
    /// The head of the answer. None if the client left before there was one.
    pub answer: Option<AnswerHead>,
    /// The octets of the body that the client has read.
    pub bytes: u64,
    /// Whether the client read the whole answer.
    pub complete: bool,
    /// The gRPC status of a call, which its HTTP status does not tell.
    pub grpc_status: Option<String>,
    /// The time until the end of the answer's body.
    pub total: Duration,
}

/// The head of an answer.
#[derive(Debug)]
pub struct AnswerHead {
    pub status: u16,
    pub outcome: RequestOutcome,
    /// The rule of the route that has made it. None: no rule has.
    pub rule: Option<AnsweringRule>,
    /// The time from the request's head to the head of the answer.
    pub after: Duration,
    /// The `Cache-Status` that the client got (RFC 9211).
    pub cache_status: Option<Box<str>>,
    /// The answer's `Content-Encoding`.
    pub encoding: Option<Box<str>>,
}

/// The most octets of a host name, of a path with its query, and of `User-Agent` that are kept.
const MOST_METHOD: usize = 64;
const MOST_HOST: usize = 255;
const MOST_PATH: usize = 4 << 10;
const MOST_AGENT: usize = 512;

/// The status in the log of a request whose client left before there was an answer. It is never
/// sent.
pub const CLIENT_LEFT: u16 = 499;

/// Decides which requests get a record, and passes finished records to their readers.
#[derive(Clone)]
pub struct RequestRecorder {
    access_log: AccessLog,
    recent: Arc<RecentRequestLog>,
}

/// Whether the record is kept among the last requests if the request turns out to be a hit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum HitRecord {
    Kept,
    NotKept,
}

/// What a record says of the route that took its request.
#[derive(Clone, Copy)]
pub struct RecordedRoute<'a> {
    pub name: &'a Arc<str>,
    pub influence: RouteInfluence,
}

/// Whether a route shows its requests as they came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RouteInfluence {
    /// A plugin or rules may change the request.
    MayChangeRequests,
    LeavesRequestsAlone,
}

/// What is known about a request before anything is done with it.
#[derive(Clone, Copy)]
pub struct RecordBeginning<'a> {
    parts: &'a Parts,
    host: &'a str,
    caller: &'a RequestSender,
    route: Option<RecordedRoute<'a>>,
    started: Instant,
    tls: Option<&'a Arc<TlsSession>>,
    request_id: Option<&'a HeaderValue>,
}

impl<'a> RecordBeginning<'a> {
    pub fn of(
        parts: &'a Parts,
        host: &'a str,
        caller: &'a RequestSender,
        route: Option<RecordedRoute<'a>>,
        started: Instant,
    ) -> Self {
        Self {
            parts,
            host,
            caller,
            route,
            started,
            tls: None,
            request_id: None,
        }
    }

    /// The same, for a request that came over this TLS connection.
    pub fn over(self, tls: Option<&'a Arc<TlsSession>>) -> Self {
        Self { tls, ..self }
    }

    /// The same, for a request to which its route gives a name.
    pub fn named(self, request_id: Option<&'a HeaderValue>) -> Self {
        Self { request_id, ..self }
    }
}

impl RequestRecord {
    /// The protocol by its name for ALPN, which is the word for it everywhere.
    pub fn protocol(&self) -> &'static str {
        protocol::name(self.version)
    }

    /// The status of the response, or [`CLIENT_LEFT`] if there was none.
    pub fn status(&self) -> u16 {
        self.answer.as_ref().map_or(CLIENT_LEFT, |head| head.status)
    }

    /// The rule of the route that has answered. None if no rule has.
    pub fn rule(&self) -> Option<AnsweringRule> {
        self.answer.as_ref().and_then(|head| head.rule)
    }

    /// The outcome of the request. None if the client left before it was known.
    pub fn outcome(&self) -> Option<RequestOutcome> {
        self.answer.as_ref().map(|head| head.outcome)
    }
}

impl RequestRecorder {
    /// Creates a recorder that writes the access log if it is on; `recent` gets the last requests.
    pub fn new(access_log: AccessLog, recent: Arc<RecentRequestLog>) -> Self {
        Self { access_log, recent }
    }

    /// Begins the record of a request that the cache may answer at once. None if nobody would read
    /// the record of a hit. Each call counts towards the selection of every so many hits that are
    /// kept.
    pub fn of_perhaps_a_hit(&self, beginning: RecordBeginning<'_>) -> Option<PendingRecord> {
        let kept = self.recent.takes_this_hit();
        // The record shows what the client asked for, so it begins before that changes.
        let is_kept_as_asked = beginning
            .route
            .is_some_and(|route| route.influence == RouteInfluence::MayChangeRequests);
        let wanted = kept
            || self.access_log == AccessLog::On
            || (is_kept_as_asked && self.recent.keeps_any());
        let of_a_hit = if kept {
            HitRecord::Kept
        } else {
            HitRecord::NotKept
        };
        wanted.then(|| self.record(beginning, of_a_hit))
    }

    /// Begins the record of a request that is not a hit.
    pub fn begin(&self, beginning: RecordBeginning<'_>) -> Option<PendingRecord> {
        let wanted = self.access_log == AccessLog::On || self.recent.keeps_any();
        wanted.then(|| self.record(beginning, HitRecord::Kept))
    }

    fn record(&self, beginning: RecordBeginning<'_>, of_a_hit: HitRecord) -> PendingRecord {
        /// The number of the next request of the process.
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        let RecordBeginning {
            parts,
            host,
            caller,
            route,
            started,
            tls,
            request_id,
        } = beginning;
        let path = parts.uri.path_and_query().map_or("/", |p| p.as_str());
        let agent = parts.headers.get(http::header::USER_AGENT);
        let agent = agent.map_or_else(Default::default, |agent| {
            String::from_utf8_lossy(agent.as_bytes())
        });
        let record = RequestRecord {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            started,
            method: cut(parts.method.as_str(), MOST_METHOD),
            version: parts.version,
            tls: tls.cloned(),
            scheme: caller.scheme(),
            host: cut(host, MOST_HOST),
            path: cut(path, MOST_PATH),
            client: caller.client(),
            peer: caller.connected(),
            request_id: request_id.and_then(|id| id.to_str().ok().map(Into::into)),
            agent: cut(&agent, MOST_AGENT),
            route: route.map(|route| Arc::clone(route.name)),
            user: None,
            refused: None,
            head: None,
            trail: None,
            answer: None,
            bytes: 0,
            complete: false,
            grpc_status: None,
            total: Duration::ZERO,
        };
        PendingRecord::new(record, self.clone(), of_a_hit)
    }

    /// Gives a finished record to its readers.
    fn ended(&self, record: Box<RequestRecord>, of_a_hit: HitRecord) {
        if self.access_log == AccessLog::On {
            super::access::write(&record);
        }
        if of_a_hit == HitRecord::Kept || record.outcome() != Some(RequestOutcome::Hit) {
            self.recent.keep(record);
        }
    }
}

/// The first `most` octets of a text, without splitting a character.
fn cut(text: &str, most: usize) -> Box<str> {
    text[..text.floor_char_boundary(most)].into()
}
