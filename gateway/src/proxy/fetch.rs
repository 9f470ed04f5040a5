//! The leader's work: load, judge, then [`share`](super::share) or keep for one client
//! ([`unshared`](super::unshared)).
//! It runs in a task of its own, so that a client hanging up ends nobody else's load.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::{Response, StatusCode};
use http_body::Body as _;
use tokio::sync::oneshot;

use crate::cache::Cache;
use crate::cache::backoff::Paused;
use crate::cache::coalesce::{Blame, Failure, Landing, Leader, StaleUse};
use crate::cache::entry::Entry;
use crate::cache::event::Event;
use crate::cache::freshness::{State, initial_age};
use crate::cache::key::KeyBuf;
use crate::cache::l2::HeldLease;
use crate::cache::policy::{Exchange, Refusal, Terms};
use crate::http::body::Body;
use crate::http::range::ContentRange;
use crate::plugin::RequestReads;
use crate::proxy::below::Below;
use crate::proxy::context::Ask;
use crate::proxy::head::{freshness, prepare};
use crate::proxy::source::{self, Answer, Loaded};
use crate::proxy::watch::ByPlugin;
use crate::proxy::{origin_query, plan, respond};

/// One load.
pub struct Fetch {
    pub cache: Arc<Cache>,
    pub ask: Arc<Ask>,
    /// The key without the variant.
    pub primary: KeyBuf,
    /// What is there to validate or to fall back on.
    pub stale: Option<Arc<Entry>>,
    /// Only the range that the request asks for is loaded (see [`parts`](super::parts)).
    pub part: bool,
    /// Takes a response that belongs to the leader's client alone; none behind a reader.
    pub private: Option<oneshot::Sender<Response<Body>>>,
    pub queue: Queue,
    /// The turn to load, among the nodes that share the second tier.
    pub lease: Option<HeldLease>,
}

/// How a load stands to other requests for its key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Queue {
    /// It is the one load of its key, here and among the nodes that share the second tier.
    OneLoad,
    /// Others load the same beside it. It is followed from its head on, if that may be stored.
    SideBySide,
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
    pub async fn run(mut self, leader: Leader) {
        let Some(leader) = self.unless_below(leader).await else {
            return;
        };
        let key = leader.key().clone();
        self.cache.hooks.emit(Event::LoaderStart {
            key: key.as_bytes(),
        });
        let mut began = Instant::now();
        let loaded = tokio::select! {
            biased;
            loaded = self.load() => Some(loaded),
            // What is loaded beside others could not be stored a moment ago.
            () = leader.all_followed(), if self.queue == Queue::SideBySide => None,
        };
        let Some(mut loaded) = loaded else {
            return tracing::debug!("a load ends that nobody waits for");
        };
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
            Loaded::Absent(seen) => self.absent(leader, seen).await,
            Loaded::Stale => self.failed(leader, source::asked_for_stale()),
            Loaded::Failed(failure) => self.failed(leader, failure),
        }
    }

    /// Lands what the second tier has. Some: it is to be loaded, for clients who wait or
    /// behind them.
    async fn unless_below(&mut self, mut leader: Leader) -> Option<Leader> {
        if self.queue == Queue::SideBySide {
            // A moment ago there was nothing to share, and nobody is to wait for anybody.
            return Some(leader);
        }
        let mut below = self.below(&leader).await;
        if let Below::Stale(entry) = below {
            leader = self.go_behind(leader, entry)?;
            below = self.turn_behind(&leader).await;
        }
        match below {
            Below::Found(entry) | Below::Stale(entry) => {
                leader.land(Landing::Promoted(entry));
                None
            }
            Below::Waited(failure) => {
                self.failed(leader, failure);
                None
            }
            Below::Load(lease) => {
                self.lease = lease;
                Some(leader)
            }
        }
    }

    async fn arrived(self, leader: Leader, mut arrived: Arrived) {
        let status = arrived.answer.response.status();
        match self.stale.clone() {
            Some(entry) if status == StatusCode::NOT_MODIFIED && arrived.answer.validates => {
                return self.revalidated(leader, &entry, arrived).await;
            }
            _ if status == StatusCode::NOT_MODIFIED => {
                return self.failed(leader, unasked_304());
            }
            // Behind a reader nobody waits for the error; the copy keeps its window. A copy that
            // is an error itself covers none: the newer one says more.
            Some(entry)
                if ERRORS.contains(&status.as_u16())
                    && !ERRORS.contains(&entry.status.as_u16())
                    && (self.usable(&entry) || self.private.is_none()) =>
            {
                return self.failed(leader, answered_badly(status));
            }
            _ => {}
        }
        prepare(&mut arrived);
        let terms = self.judge(&arrived);
        match terms.and_then(|terms| self.keyed(&mut arrived.answer).map(|()| terms)) {
            Ok(_) if self.spares_copy(status) => {
                self.keep_private(leader, arrived, Refusal::Status);
            }
            Ok(_) if self.queue == Queue::SideBySide && !self.is_first(&leader) => {
                self.succeeded(&leader, arrived.delay);
                self.hand_over(leader, Landing::LeadersOwn, arrived, None);
            }
            Ok(terms) => {
                self.succeeded(&leader, arrived.delay);
                self.share(leader, arrived, terms).await;
            }
            Err(refusal) => self.keep_private(leader, arrived, refusal),
        }
    }

    /// Whether this is the first of the loads side by side whose answer may be stored: the
    /// others need not keep it in memory once more. From now on it is followed.
    fn is_first(&self, leader: &Leader) -> bool {
        let (key, headers) = (&self.primary, &self.ask.parts.headers);
        let stored = self.cache.fresh_again(key, headers, Instant::now());
        self.cache.hit_for_miss.end(leader.key());
        stored.is_none() && leader.takes_followers()
    }

    /// Whether an error may be answered with this entry.
    fn usable(&self, stale: &Entry) -> bool {
        let (ask, now) = (&self.ask, Instant::now());
        match stale.state(now) {
            State::Fresh => true,
            State::Stale(windows) => {
                windows.if_error || plan::accepts_on_error(&ask.route, &ask.parts, stale, now)
            }
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
        if arrived.answer.kept_out {
            return Err(Refusal::Plugin);
        }
        let exchange = Exchange {
            request: &self.ask.parts.headers,
            status: self.meant(response)?,
            response: response.headers(),
            received: arrived.wall,
            plugin_ttl: arrived.answer.ttl,
            credentials: self.ask.credentials(&self.primary),
            authorization: self.ask.came_with(&self.primary).authorization,
        };
        let terms = self.ask.route.policy.judge(&exchange, dice())?;
        match response.body().size_hint().lower() > self.cache.max_object_bytes as u64 {
            true => {
                self.is_large(&terms, arrived);
                Err(Refusal::TooLarge)
            }
            false => Ok(terms),
        }
    }

    /// Remembers for the life of what has arrived that it is too large for the cache.
    fn is_large(&self, terms: &Terms, arrived: &Arrived) {
        let headers = arrived.answer.response.headers();
        let age = initial_age(headers, arrived.wall, arrived.delay);
        let left = freshness(terms, arrived.at, age).left_at_arrival();
        self.cache.large.note(&self.primary, left);
    }

    /// Whether the key covers what the origin got, what loader and response plugin saw and what
    /// the request plugin set, or the route has it all the same.
    pub(super) fn keyed(&self, answer: &mut Answer) -> Result<(), Refusal> {
        let route = &self.ask.route;
        if let Some(watch) = &route.forwarded {
            let unheld = origin_query::unheld(&self.ask, &self.primary);
            watch.found(route, &unheld)?;
        }
        let saw = [
            (&route.unkeyed, &answer.seen),
            (&route.looked, &answer.looked),
        ];
        if let (Some(watch), Some(by)) =
            (&route.changed, self.ask.parts.extensions.get::<ByPlugin>())
        {
            let headers = answer.response.headers_mut();
            watch.check(route, &self.primary, &by.seen(), headers)?;
        }
        if let (Some(watch), Some((loader, _))) = (&route.unkeyed, &route.loader)
            && !loader.declares_reads()
        {
            watch.check_undeclared()?;
        }
        for (watch, seen) in saw {
            if let (Some(watch), Some(seen)) = (watch, seen) {
                watch.check(route, &self.primary, seen, answer.response.headers_mut())?;
            }
        }
        Ok(())
    }

    /// The status that the policy judges: a part is kept on the terms of the whole. Other
    /// answers to a range alone are nobody else's (RFC 9111 §3.3).
    fn meant(&self, response: &Response<Body>) -> Result<StatusCode, Refusal> {
        match response.status() {
            StatusCode::PARTIAL_CONTENT if self.part => ContentRange::of(response.headers())
                .map(|_| StatusCode::OK)
                .ok_or(Refusal::Part),
            StatusCode::RANGE_NOT_SATISFIABLE if self.part => Err(Refusal::Part),
            status => Ok(status),
        }
    }

    /// A loader says that there is no such thing.
    async fn absent(self, leader: Leader, seen: RequestReads) {
        if let Some(stale) = &self.stale {
            self.cache.drop_entry(stale);
        }
        let answer = Answer {
            response: respond::absent(),
            seen: Some(Box::new(seen)),
            ..Answer::default()
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

    fn failed(&self, leader: Leader, failure: Failure) {
        if let Some(trail) = &self.ask.trail {
            trail.failed(failure.error, &failure.detail);
        }
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
            let backoff = &self.cache.backoff;
            backoff.failed(&key, Paused::All, Instant::now(), dice());
        }
        leader.land(Landing::Failed(Arc::new(failure)));
    }
}

fn answered_badly(status: StatusCode) -> Failure {
    let detail = format!("the origin answered {status}");
    let failure = Failure::new(status, "http_response_incomplete", detail);
    failure.blamed_on(Blame::PerhapsThisRequest)
}

/// We asked for the whole; there is nothing that this 304 could be about.
fn unasked_304() -> Failure {
    let detail = "the origin answered 304 to a request without preconditions";
    let failure = Failure::new(StatusCode::BAD_GATEWAY, "http_protocol_error", detail);
    failure.blamed_on(Blame::PerhapsThisRequest)
}

/// A number that nobody can foresee, for jitter.
pub(super) fn dice() -> u32 {
    // Each state has random keys of its own.
    RandomState::new().hash_one(0) as u32
}
