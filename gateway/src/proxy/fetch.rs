//! The leader's work: load, judge, store, land. It runs in a task of its own, so that a
//! client hanging up ends nobody else's load.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::header::{AGE, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, DATE, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt;
use tokio::sync::oneshot;

use crate::cache::coalesce::{Failure, Landing, Leader};
use crate::cache::entry::{Entry, Marks};
use crate::cache::event::Event;
use crate::cache::fill::{Fill, Head};
use crate::cache::freshness::{Freshness, initial_age};
use crate::cache::key::{Key, KeyBuf};
use crate::cache::policy::{Exchange, Lifetime, Refusal, Source, Terms};
use crate::cache::tags::Tags;
use crate::cache::{Cache, variant_key};
use crate::http::body::Body;
use crate::http::cache_control::{FieldForm, ResponseDirectives};
use crate::http::cache_status::CACHE_STATUS;
use crate::http::vary::Vary;
use crate::http::{date, forward};
use crate::proxy::context::{Ask, PSEUDONYM};
use crate::proxy::source::{self, Answer, Loaded};

/// One load.
pub struct Fetch {
    pub cache: Arc<Cache>,
    pub ask: Arc<Ask>,
    /// The key without the variant.
    pub primary: KeyBuf,
    /// What is there to validate or to fall back on.
    pub stale: Option<Arc<Entry>>,
    /// Takes a response that belongs to the leader's client alone; none in the background.
    pub private: Option<oneshot::Sender<Response<Body>>>,
}

/// What a response brought, before it is judged.
struct Arrived {
    answer: Answer,
    at: Instant,
    wall: SystemTime,
    delay: std::time::Duration,
}

/// Statuses that count as a failed load while a stale copy is there (RFC 5861 §4).
const ERRORS: [u16; 4] = [500, 502, 503, 504];

impl Fetch {
    /// Loads and lands `leader`.
    pub async fn run(self, leader: Leader) {
        let key = leader.key().clone();
        self.cache.hooks.emit(Event::LoaderStart {
            key: key.as_bytes(),
        });
        let began = Instant::now();
        match source::load(&self.ask, self.stale.as_deref()).await {
            Loaded::Response(answer) => {
                let at = Instant::now();
                let delay = at - began;
                self.cache.hooks.emit(Event::LoaderSuccess {
                    key: key.as_bytes(),
                    took: delay,
                });
                self.arrived(
                    leader,
                    Arrived {
                        answer,
                        at,
                        wall: SystemTime::now(),
                        delay,
                    },
                )
                .await;
            }
            Loaded::Absent => self.absent(leader).await,
            Loaded::Stale => self.failed(leader, asked_for_stale()),
            Loaded::Failed(failure) => self.failed(leader, failure),
        }
    }

    async fn arrived(self, leader: Leader, mut arrived: Arrived) {
        let status = arrived.answer.response.status();
        let stale = self.stale.clone();
        match stale {
            Some(entry) if status == StatusCode::NOT_MODIFIED => {
                return self.revalidated(leader, &entry, &arrived);
            }
            None if status == StatusCode::NOT_MODIFIED => {
                return self.failed(leader, unasked_304());
            }
            Some(entry) if ERRORS.contains(&status.as_u16()) && usable(&entry) => {
                return self.failed(leader, answered_badly(status));
            }
            _ => self.cache.backoff.succeeded(leader.key()),
        }
        prepare(&self.ask, &mut arrived);
        match self.judge(&arrived) {
            Ok(terms) => self.share(leader, arrived, terms).await,
            Err(refusal) => self.keep_private(leader, arrived, refusal),
        }
    }

    fn judge(&self, arrived: &Arrived) -> Result<Terms, Refusal> {
        let response = &arrived.answer.response;
        let exchange = Exchange {
            request: &self.ask.parts.headers,
            status: response.status(),
            response: response.headers(),
            received: arrived.wall,
            plugin_ttl: arrived.answer.ttl,
        };
        let terms = self.ask.route.policy.judge(&exchange, dice(arrived.wall))?;
        match response.body().size_hint().lower() > self.cache.max_object_bytes as u64 {
            true => Err(Refusal::TooLarge),
            false => Ok(terms),
        }
    }

    /// Streams the body to whoever follows, then stores it.
    async fn share(self, leader: Leader, arrived: Arrived, terms: Terms) {
        let Arrived {
            answer,
            at,
            wall,
            delay,
        } = arrived;
        let (parts, body) = answer.response.into_parts();
        let mut headers = parts.headers;
        let age = initial_age(&headers, wall, delay);
        let vary = Vary::parse(&headers);
        let length = body.size_hint().exact();
        let head = Head {
            key: variant_key(&self.primary, &vary, &self.ask.parts.headers),
            status: parts.status,
            freshness: freshness(&terms, at, age),
            marks: self.marks(&leader, &mut headers, &answer.tags),
            headers: stored_headers(headers),
            length,
            vary,
        };
        if terms.source == Source::Negative {
            self.cache.hooks.emit(Event::NegativeSet {
                key: leader.key().as_bytes(),
            });
        }
        let fill = Fill::new(head, self.cache.max_object_bytes);
        leader.stream(Arc::clone(&fill));
        if let Some(body) = pump(&self.cache, leader.key(), &fill, body).await {
            self.store(&leader, &fill, body);
        }
        // The flight ends here, after the entry is in L1: a late request finds one or the other.
        drop(leader);
    }

    fn store(&self, leader: &Leader, fill: &Fill, body: Bytes) {
        let entry = Entry::new(
            fill.key.clone(),
            fill.status,
            compact(&fill.headers),
            body,
            fill.freshness,
            fill.marks.clone(),
            leader.born(),
        );
        self.cache
            .admit(self.primary.to_key(), &fill.vary, Arc::new(entry));
    }

    /// The origin says that the stored response still holds (RFC 9111 §4.3.4).
    fn revalidated(self, leader: Leader, stale: &Entry, arrived: &Arrived) {
        self.cache.backoff.succeeded(leader.key());
        let mut headers = stale.headers.clone();
        let mut news = arrived.answer.response.headers().clone();
        let age = initial_age(&news, arrived.wall, arrived.delay);
        forward::strip_hop_by_hop(&mut news);
        let marks = self.marks(&leader, &mut news, &arrived.answer.tags);
        update(&mut headers, &news);
        let exchange = Exchange {
            request: &self.ask.parts.headers,
            status: stale.status,
            response: &headers,
            received: arrived.wall,
            plugin_ttl: None,
        };
        let terms = self.ask.route.policy.judge(&exchange, dice(arrived.wall));
        let keep = terms.is_ok();
        let terms = terms.unwrap_or(ONCE);
        let marks = Marks {
            tags: if marks.tags.is_empty() {
                stale.marks.tags.clone()
            } else {
                marks.tags
            },
            ..marks
        };
        let vary = Vary::parse(&headers);
        let freshness = freshness(&terms, arrived.at, age);
        let entry = Arc::new(Entry::new(
            stale.key.clone(),
            stale.status,
            compact(&headers),
            stale.body.clone(),
            freshness,
            marks,
            leader.born(),
        ));
        match keep {
            true => drop(
                self.cache
                    .admit(self.primary.to_key(), &vary, Arc::clone(&entry)),
            ),
            false => self.cache.drop_entry(&stale.key),
        }
        leader.land(Landing::Stored(entry));
    }

    /// Not to be shared: the leader's client gets it, the others go on their own, and so
    /// do the next ones for a moment.
    fn keep_private(self, leader: Leader, arrived: Arrived, refusal: Refusal) {
        tracing::debug!(
            route = &*self.ask.route.name,
            refusal = refusal.as_str(),
            "not stored"
        );
        if let Some(stale) = &self.stale {
            // The origin has something else to say now; the copy must not come back.
            self.cache.drop_entry(&stale.key);
        }
        self.cache.mark_private(leader.key());
        leader.land(Landing::Private);
        if let Some(client) = self.private {
            let mut response = arrived.answer.response;
            crate::cache::tags::strip(response.headers_mut());
            response.extensions_mut().insert(refusal);
            // The client may have left; then nobody wants this response.
            let _ = client.send(response);
        }
    }

    /// A loader says that there is no such thing.
    async fn absent(self, leader: Leader) {
        if let Some(stale) = &self.stale {
            self.cache.drop_entry(&stale.key);
        }
        let mut response = Response::new(Body::full("404 not found\n"));
        *response.status_mut() = StatusCode::NOT_FOUND;
        let answer = Answer {
            response,
            ttl: None,
            tags: Vec::new(),
        };
        let now = Instant::now();
        self.arrived(
            leader,
            Arrived {
                answer,
                at: now,
                wall: SystemTime::now(),
                delay: std::time::Duration::ZERO,
            },
        )
        .await;
    }

    fn failed(self, leader: Leader, failure: Failure) {
        let key = leader.key().clone();
        let event = match failure.status {
            StatusCode::GATEWAY_TIMEOUT => Event::LoaderTimeout {
                key: key.as_bytes(),
            },
            _ => Event::LoaderError {
                key: key.as_bytes(),
                detail: &failure.detail,
            },
        };
        self.cache.hooks.emit(event);
        if self.stale.is_some() {
            self.cache
                .backoff
                .failed(&key, Instant::now(), dice(SystemTime::now()));
        }
        leader.land(Landing::Failed(Arc::new(failure)));
    }

    fn marks(&self, leader: &Leader, headers: &mut HeaderMap, plugin_tags: &[String]) -> Marks {
        let mut tags = Tags {
            hashes: leader.marks().tags.to_vec(),
            dropped: 0,
        };
        tags.take_from(headers);
        plugin_tags.iter().for_each(|tag| tags.add(tag));
        if tags.dropped > 0 {
            self.cache.hooks.emit(Event::TagsDropped(tags.dropped));
        }
        Marks {
            tags: tags.hashes.into(),
            ..leader.marks().clone()
        }
    }
}

/// Terms for a response that may be served once, to those who wait for it.
const ONCE: Terms = Terms {
    lifetime: Lifetime::OfResponse(std::time::Duration::ZERO),
    while_revalidate: std::time::Duration::ZERO,
    if_error: std::time::Duration::ZERO,
    must_revalidate: true,
    source: Source::Validator,
};

/// Moves the body into the fill as it comes. Some: all of it, to be stored.
async fn pump(cache: &Cache, key: &Key, fill: &Fill, mut body: Body) -> Option<Bytes> {
    let mut trailers = None;
    let mut outgrown = false;
    loop {
        if !fill.room().await {
            break;
        }
        match body.frame().await {
            None => return fill.complete(trailers),
            Some(Err(error)) => {
                tracing::warn!(%error, "an origin's response broke off");
                break;
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => fill.push(data),
                Err(frame) => trailers = frame.into_trailers().ok(),
            },
        }
        if !outgrown && fill.outgrown() {
            // Learnt late: the next requests need not queue for it.
            outgrown = true;
            cache.mark_private(key);
        }
    }
    fill.fail();
    None
}

/// What every response gets on its way in, stored or not.
fn prepare(ask: &Ask, arrived: &mut Arrived) {
    let version = arrived.answer.response.version();
    let headers = arrived.answer.response.headers_mut();
    forward::strip_hop_by_hop(headers);
    forward::append_via(headers, version, PSEUDONYM);
    if !headers.contains_key(DATE) {
        // RFC 9110 §6.6.1: a recipient with a clock adds it.
        headers.insert(DATE, date::format(arrived.wall));
    }
    if ask.route.policy.set_cookie == crate::cache::config::SetCookie::Strip {
        headers.remove(SET_COOKIE);
    }
}

fn freshness(terms: &Terms, received: Instant, initial_age: std::time::Duration) -> Freshness {
    let lifetime = match terms.lifetime {
        Lifetime::OfResponse(lifetime) => lifetime,
        Lifetime::FromArrival(ttl) => initial_age + ttl,
    };
    let Terms {
        while_revalidate,
        if_error,
        must_revalidate,
        ..
    } = *terms;
    Freshness {
        received,
        initial_age,
        lifetime,
        while_revalidate,
        if_error,
        must_revalidate,
    }
}

/// The fields that are kept: `Age` and the length are made anew for each answer, and
/// fields named by `private` or `no-cache` are not for sharing (RFC 9111 §5.2.2.4, §5.2.2.7).
fn stored_headers(mut headers: HeaderMap) -> HeaderMap {
    let directives = ResponseDirectives::parse(&headers);
    // A place for what each answer sets, so that a hit's copy need not grow.
    headers.insert(AGE, HeaderValue::from_static("0"));
    headers
        .entry(CACHE_STATUS)
        .or_insert(HeaderValue::from_static(""));
    headers.remove(CONTENT_LENGTH);
    for form in [directives.private, directives.no_cache] {
        if let FieldForm::Fields(names) = form {
            names.iter().for_each(|name| drop(headers.remove(name)));
        }
    }
    headers
}

/// Header values of one buffer of their own, as an entry keeps them: those that arrived
/// are slices of read buffers many times their size.
pub fn compact(headers: &HeaderMap) -> HeaderMap {
    let total = headers.values().map(HeaderValue::len).sum();
    let mut all = bytes::BytesMut::with_capacity(total);
    headers
        .values()
        .for_each(|value| all.extend_from_slice(value.as_bytes()));
    let mut all = all.freeze();
    let mut out = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        let bytes = all.split_to(value.len());
        let copy = HeaderValue::from_maybe_shared(bytes).unwrap_or_else(|_| value.clone());
        out.append(name.clone(), copy);
    }
    out
}

/// RFC 9111 §3.2: a 304's fields replace the stored ones, but for those that describe
/// the stored bytes.
fn update(stored: &mut HeaderMap, news: &HeaderMap) {
    const KEPT: [HeaderName; 4] = [CONTENT_LENGTH, CONTENT_ENCODING, CONTENT_RANGE, AGE];
    for name in news.keys().filter(|name| !KEPT.contains(name)) {
        stored.remove(name);
    }
    for (name, value) in news.iter().filter(|(name, _)| !KEPT.contains(name)) {
        stored.append(name, value.clone());
    }
}

/// Whether an error may be answered with this entry.
fn usable(stale: &Entry) -> bool {
    match stale.state(Instant::now()) {
        crate::cache::freshness::State::Fresh => true,
        crate::cache::freshness::State::Stale(windows) => windows.if_error,
    }
}

fn answered_badly(status: StatusCode) -> Failure {
    Failure {
        status,
        error: "http_response_incomplete",
        retry_after: None,
        detail: format!("the origin answered {status}"),
    }
}

/// We asked for the whole; there is nothing that this 304 could be about.
fn unasked_304() -> Failure {
    let detail = "the origin answered 304 to a request without preconditions".to_owned();
    Failure {
        status: StatusCode::BAD_GATEWAY,
        error: "http_protocol_error",
        retry_after: None,
        detail,
    }
}

fn asked_for_stale() -> Failure {
    let detail = "the loader asked for the stale copy".to_owned();
    Failure {
        status: StatusCode::SERVICE_UNAVAILABLE,
        error: "proxy_internal_response",
        retry_after: Some(1),
        detail,
    }
}

/// A number that nobody can foresee, for jitter.
fn dice(at: SystemTime) -> u32 {
    let nanos = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |d| d.subsec_nanos());
    crate::cache::key::hash64(&nanos.to_le_bytes()) as u32
}
