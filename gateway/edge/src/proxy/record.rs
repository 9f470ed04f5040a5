//! What is known of one request, from its head to the last octet of its answer.
//!
//! [`RequestRecorder`] begins a [`RequestRecord`] where a request is handled. It ends with the body of
//! the answer, or when the client leaves before that. What happens on the way is noted on the
//! record's [`RequestTrail`], also by the load's own task, which may outlive the request. Two readers
//! have it so far: the access log ([`access`](super::access)), and the last requests that
//! `GET /v1/requests/recent` explains ([`recent`], in the words of [`told`]).

mod pending;
pub mod recent;
mod told;
pub mod trail;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::request::Parts;
use http::{HeaderValue, Method, Version};

use crate::http::forward::RequestSender;
use crate::proxy::metrics::RequestOutcome;
use crate::proxy::route::Route;
use crate::telemetry::config::AccessLog;
use recent::RecentRequestLog;
use trail::RequestTrail;

pub use pending::PendingRecord;

/// What is known of one request.
#[derive(Debug)]
pub struct RequestRecord {
    /// No other request of the process has it.
    pub id: u64,
    pub started: Instant,
    pub method: Method,
    pub version: Version,
    pub scheme: &'static str,
    /// At most 255 octets of it.
    pub host: Box<str>,
    /// Path and query as the client asked, in their normal form; at most 4 KiB of them.
    pub path: Box<str>,
    /// None: trusted proxies hide it.
    pub client: Option<IpAddr>,
    pub peer: SocketAddr,
    /// At most 512 octets of it.
    pub agent: Box<str>,
    /// None: no route took it.
    pub route: Option<Arc<str>>,
    /// Why it was refused, if its path was.
    pub refused: Option<Box<str>>,
    /// What happened on the way. None: it was answered at once.
    pub trail: Option<Arc<RequestTrail>>,
    /// None: the client left before there was an answer.
    pub answer: Option<AnswerHead>,
    /// Octets of the body that the client took.
    pub bytes: u64,
    /// The client took all of the answer.
    pub complete: bool,
    /// How a gRPC call ended; its HTTP status says nothing of that.
    pub grpc_status: Option<String>,
    /// Until the end of the answer's body.
    pub total: Duration,
}

/// The head of an answer.
#[derive(Debug)]
pub struct AnswerHead {
    pub status: u16,
    pub outcome: RequestOutcome,
    /// From the request's head to the answer's.
    pub after: Duration,
    /// What the client is told (RFC 9211).
    pub cache_status: Option<HeaderValue>,
    /// The answer's `Content-Encoding`.
    pub encoding: Option<HeaderValue>,
}

/// Octets of a host's name, of a path with its query, and of `User-Agent` that are kept.
const MOST_HOST: usize = 255;
const MOST_PATH: usize = 4 << 10;
const MOST_AGENT: usize = 512;

/// The status in the log of a request whose client left before there was an answer; nobody is
/// sent it.
pub const CLIENT_LEFT: u16 = 499;

/// Says of which requests there are records, and who reads them.
#[derive(Clone)]
pub struct RequestRecorder {
    access_log: AccessLog,
    recent: Arc<RecentRequestLog>,
}

/// Whether a record is among the last requests if it turns out to be a hit's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum HitRecord {
    Kept,
    NotKept,
}

/// What of a request is known before anything is done with it.
#[derive(Clone, Copy)]
pub struct RecordBeginning<'a> {
    parts: &'a Parts,
    host: &'a str,
    caller: &'a RequestSender,
    route: Option<&'a Route>,
    started: Instant,
}

impl<'a> RecordBeginning<'a> {
    pub fn of(
        parts: &'a Parts,
        host: &'a str,
        caller: &'a RequestSender,
        route: Option<&'a Route>,
        started: Instant,
    ) -> Self {
        Self {
            parts,
            host,
            caller,
            route,
            started,
        }
    }
}

impl RequestRecord {
    /// What the client was told of the cache, as the log has it.
    pub fn status(&self) -> u16 {
        self.answer.as_ref().map_or(CLIENT_LEFT, |head| head.status)
    }

    /// What the request became. None: the client left before that.
    pub fn outcome(&self) -> Option<RequestOutcome> {
        self.answer.as_ref().map(|head| head.outcome)
    }
}

impl RequestRecorder {
    /// Writes the access log where it is on; the last requests go to `recent`.
    pub fn new(access_log: AccessLog, recent: Arc<RecentRequestLog>) -> Self {
        Self { access_log, recent }
    }

    /// Begins the record of a request that the cache may answer at once. None: such an answer
    /// has none. It may be the turn of this one among the hits of which every so many is kept.
    pub fn of_perhaps_a_hit(&self, beginning: RecordBeginning<'_>) -> Option<PendingRecord> {
        let kept = self.recent.takes_this_hit();
        // What a plugin changes is not what the client asked.
        let changes = beginning
            .route
            .is_some_and(|route| route.request_plugin.is_some());
        let wanted =
            kept || self.access_log == AccessLog::On || (changes && self.recent.keeps_any());
        let of_a_hit = if kept {
            HitRecord::Kept
        } else {
            HitRecord::NotKept
        };
        wanted.then(|| self.record(beginning, of_a_hit))
    }

    /// Begins the record of a request that is no hit.
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
        } = beginning;
        let path = parts.uri.path_and_query().map_or("/", |p| p.as_str());
        let agent = parts.headers.get(http::header::USER_AGENT);
        let agent = agent.map_or_else(Default::default, |agent| {
            String::from_utf8_lossy(agent.as_bytes())
        });
        let record = RequestRecord {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            started,
            method: parts.method.clone(),
            version: parts.version,
            scheme: caller.scheme(),
            host: cut(host, MOST_HOST),
            path: cut(path, MOST_PATH),
            client: caller.client(),
            peer: caller.connected(),
            agent: cut(&agent, MOST_AGENT),
            route: route.map(|route| Arc::clone(&route.name)),
            refused: None,
            trail: None,
            answer: None,
            bytes: 0,
            complete: false,
            grpc_status: None,
            total: Duration::ZERO,
        };
        PendingRecord::new(record, self.clone(), of_a_hit)
    }

    /// Gives an ended record to its readers.
    fn ended(&self, record: RequestRecord, of_a_hit: HitRecord) {
        if self.access_log == AccessLog::On {
            super::access::write(&record);
        }
        if of_a_hit == HitRecord::Kept || record.outcome() != Some(RequestOutcome::Hit) {
            self.recent.keep(record);
        }
    }
}

/// The first `most` octets of a text, and not half a character.
fn cut(text: &str, most: usize) -> Box<str> {
    text[..text.floor_char_boundary(most)].into()
}
