//! The leader's work: load, judge, store, land. It runs in a task of its own, so that a
//! client hanging up ends nobody else's load.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::header::{AGE, CONTENT_LENGTH, DATE, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt;
use tokio::sync::oneshot;

use crate::cache::coalesce::{Failure, Landing, Leader, StaleUse};
use crate::cache::config::SetCookie;
use crate::cache::entry::{Entry, Marks};
use crate::cache::event::Event;
use crate::cache::fill::{Fill, Head};
use crate::cache::freshness::{Freshness, initial_age};
use crate::cache::key::KeyBuf;
use crate::cache::policy::{Exchange, Lifetime, Policy, Refusal, Source, Terms};
use crate::cache::tags::Tags;
use crate::cache::{Cache, Unshared, variant_key};
use crate::http::body::Body;
use crate::http::cache_control::{FieldForm, ResponseDirectives};
use crate::http::cache_status::CACHE_STATUS;
use crate::http::vary::Vary;
use crate::http::{date, forward};
use crate::proxy::context::{Ask, PSEUDONYM};
use crate::proxy::respond;
use crate::proxy::source::{self, Answer, Loaded};

/// One load.
pub struct Fetch {
    pub cache: Arc<Cache>,
    pub ask: Arc<Ask>,
    /// The key without the variant.
    pub primary: KeyBuf,
    /// What is there to validate or to fall back on.
    pub stale: Option<Arc<Entry>>,
    /// Takes a response that belongs to the leader's client alone; none behind a reader.
    pub private: Option<oneshot::Sender<Response<Body>>>,
}

/// What a response brought, before it is judged.
pub(super) struct Arrived {
    pub answer: Answer,
    pub at: Instant,
    pub wall: SystemTime,
    /// From sending the request to the response's head.
    pub delay: Duration,
}

/// Statuses that count as a failed load while a stale copy is there (RFC 5861 §4).
pub(super) const ERRORS: [u16; 4] = [500, 502, 503, 504];

impl Fetch {
    /// Loads and lands `leader`.
    pub async fn run(self, leader: Leader) {
        let key = leader.key().clone();
        self.cache.hooks.emit(Event::LoaderStart {
            key: key.as_bytes(),
        });
        let mut began = Instant::now();
        let mut loaded = source::load(&self.ask, self.stale.as_deref()).await;
        if self.is_about_another(&loaded) {
            // RFC 9111 §4.3.4: nothing that we have may be updated by it.
            began = Instant::now();
            loaded = source::load(&self.ask, None).await;
        }
        match loaded {
            Loaded::Response(answer) => {
                let at = Instant::now();
                let arrived = Arrived {
                    answer,
                    at,
                    wall: SystemTime::now(),
                    delay: at - began,
                };
                self.arrived(leader, arrived).await;
            }
            Loaded::Absent => self.absent(leader).await,
            Loaded::Stale => self.failed(leader, source::asked_for_stale()),
            Loaded::Failed(failure) => self.failed(leader, failure),
        }
    }

    async fn arrived(self, leader: Leader, mut arrived: Arrived) {
        let status = arrived.answer.response.status();
        match self.stale.clone() {
            Some(entry) if status == StatusCode::NOT_MODIFIED && arrived.answer.validates => {
                return self.revalidated(leader, &entry, arrived);
            }
            _ if status == StatusCode::NOT_MODIFIED => {
                return self.failed(leader, unasked_304());
            }
            // Behind a reader nobody waits for the error; the copy keeps its window.
            Some(entry)
                if ERRORS.contains(&status.as_u16())
                    && (usable(&entry) || self.private.is_none()) =>
            {
                return self.failed(leader, answered_badly(status));
            }
            _ => self.succeeded(&leader, arrived.delay),
        }
        prepare(&mut arrived);
        match self.judge(&arrived) {
            Ok(terms) => self.share(leader, arrived, terms).await,
            Err(refusal) => self.keep_private(leader, arrived, refusal),
        }
    }

    /// Notes a load that went well.
    pub(super) fn succeeded(&self, leader: &Leader, took: Duration) {
        let key = leader.key();
        self.cache.backoff.succeeded(key);
        self.cache.hooks.emit(Event::LoaderSuccess {
            key: key.as_bytes(),
            took,
        });
    }

    pub(super) fn judge(&self, arrived: &Arrived) -> Result<Terms, Refusal> {
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
            own: private_fields(&headers),
            headers: stored_headers(headers, &self.ask.route.policy),
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
        if let Some(body) = pump(&self.cache, &leader, &fill, body).await {
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

    /// Not to be shared: the leader's client gets it, the others go on their own, and so
    /// do the next ones for a moment.
    pub(super) fn keep_private(self, leader: Leader, arrived: Arrived, refusal: Refusal) {
        tracing::debug!(
            route = &*self.ask.route.name,
            refusal = refusal.as_str(),
            "not stored"
        );
        match refusal {
            // The request's own doing: it says nothing about the stored copy or others' requests.
            Refusal::RequestNoStore => {}
            Refusal::Authorization => {
                self.cache.mark_private(leader.key(), Unshared::Authorized);
            }
            _ => {
                if let Some(stale) = &self.stale {
                    // The origin has something else to say now; the copy must not come back.
                    self.cache.drop_entry(stale);
                }
                self.cache.mark_private(leader.key(), Unshared::Everybody);
            }
        }
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
            self.cache.drop_entry(stale);
        }
        let answer = Answer {
            response: respond::absent(),
            ttl: None,
            tags: Vec::new(),
            validates: false,
        };
        let now = Instant::now();
        self.arrived(
            leader,
            Arrived {
                answer,
                at: now,
                wall: SystemTime::now(),
                delay: Duration::ZERO,
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
        if self.stale.is_some() && failure.stale != StaleUse::Never {
            self.cache
                .backoff
                .failed(&key, Instant::now(), dice(SystemTime::now()));
        }
        leader.land(Landing::Failed(Arc::new(failure)));
    }

    pub(super) fn marks(
        &self,
        leader: &Leader,
        headers: &mut HeaderMap,
        plugin_tags: &[String],
    ) -> Marks {
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

/// Moves the body into the fill as it comes. Some: all of it, to be stored.
async fn pump(cache: &Cache, leader: &Leader, fill: &Fill, mut body: Body) -> Option<Bytes> {
    let mut trailers = None;
    let mut outgrown = false;
    loop {
        if !fill.room().await {
            // Who waits for this flight may not have begun to read.
            leader.all_followed().await;
            if !fill.room().await {
                break;
            }
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
            cache.mark_private(leader.key(), Unshared::Everybody);
        }
    }
    fill.fail();
    None
}

/// What every response gets on its way in, stored or not.
pub(super) fn prepare(arrived: &mut Arrived) {
    let version = arrived.answer.response.version();
    let headers = arrived.answer.response.headers_mut();
    forward::strip_hop_by_hop(headers);
    forward::append_via(headers, version, PSEUDONYM);
    if !headers.contains_key(DATE) {
        // RFC 9110 §6.6.1: a recipient with a clock adds it.
        headers.insert(DATE, date::format(arrived.wall));
    }
}

pub(super) fn freshness(terms: &Terms, received: Instant, initial_age: Duration) -> Freshness {
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
pub(super) fn stored_headers(mut headers: HeaderMap, policy: &Policy) -> HeaderMap {
    let directives = ResponseDirectives::parse(&headers);
    // A place for what each answer sets, so that a hit's copy need not grow.
    headers.insert(AGE, HeaderValue::from_static("0"));
    headers
        .entry(CACHE_STATUS)
        .or_insert(HeaderValue::from_static(""));
    headers.remove(CONTENT_LENGTH);
    if policy.set_cookie == SetCookie::Strip {
        headers.remove(SET_COOKIE);
    }
    for form in [directives.private, directives.no_cache] {
        if let FieldForm::Fields(names) = form {
            names.iter().for_each(|name| drop(headers.remove(name)));
        }
    }
    headers
}

/// The fields that `private` names: for the client who asked, and not for the store.
fn private_fields(headers: &HeaderMap) -> HeaderMap {
    let FieldForm::Fields(names) = ResponseDirectives::parse(headers).private else {
        return HeaderMap::new();
    };
    let lines = |name| headers.get_all(name).iter().cloned();
    let all = names
        .iter()
        .flat_map(|name| lines(name).map(|line| (name.clone(), line)));
    all.collect()
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

/// Whether an error may be answered with this entry.
fn usable(stale: &Entry) -> bool {
    match stale.state(Instant::now()) {
        crate::cache::freshness::State::Fresh => true,
        crate::cache::freshness::State::Stale(windows) => windows.if_error,
    }
}

fn answered_badly(status: StatusCode) -> Failure {
    let detail = format!("the origin answered {status}");
    Failure::new(status, "http_response_incomplete", detail)
}

/// We asked for the whole; there is nothing that this 304 could be about.
fn unasked_304() -> Failure {
    let detail = "the origin answered 304 to a request without preconditions";
    Failure::new(StatusCode::BAD_GATEWAY, "http_protocol_error", detail)
}

/// A number that nobody can foresee, for jitter.
fn dice(at: SystemTime) -> u32 {
    let nanos = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |d| d.subsec_nanos());
    crate::cache::key::hash64(&nanos.to_le_bytes()) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::coalesce::Turn;
    use http_body::Frame;
    use http_body_util::StreamBody;

    fn cache() -> Cache {
        Cache::new(&Default::default(), &prometheus::Registry::new()).unwrap()
    }

    /// Guards against taking a client that has not begun to read for one that has left.
    #[tokio::test]
    async fn a_body_that_outgrows_the_cache_at_once_waits_for_its_first_reader() {
        let cache = cache();
        let key = KeyBuf::default().to_key();
        let Turn::Lead(leader) = cache.board(&key, Marks::default) else {
            panic!("nobody else leads");
        };
        let head = Head {
            key,
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            own: HeaderMap::new(),
            length: None,
            freshness: Freshness {
                received: Instant::now(),
                initial_age: Duration::ZERO,
                lifetime: Duration::ZERO,
                while_revalidate: Duration::ZERO,
                if_error: Duration::ZERO,
                must_revalidate: false,
            },
            marks: Marks::default(),
            vary: Vary::None,
        };
        let fill = Fill::new(head, 4);
        let pieces =
            ["12345", "6789"].map(|piece| Ok(Frame::data(Bytes::from_static(piece.as_bytes()))));
        let body = Body::boxed(StreamBody::new(futures_util::stream::iter(pieces)));
        let waiting = leader.follow();
        let reading = async {
            let reader = fill.reader().unwrap();
            drop(waiting);
            reader.collect().await.unwrap().to_bytes()
        };
        let (stored, read) = tokio::join!(pump(&cache, &leader, &fill, body), reading);
        assert_eq!((stored, &read[..]), (None, &b"123456789"[..]));
    }
}
