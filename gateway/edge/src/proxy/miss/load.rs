//! The leader's load, step by step. It runs in its own task, so that it continues for the others
//! when its client hangs up.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::{Response, StatusCode};
use lamina_base::turn_clock;
use tokio::sync::oneshot;

use super::source;
use super::source_response::{ReceivedResponse, SourceOutcome, SourceResponse};
use super::{LoadKind, MissStep, combine, judge, keep_private, publish, renew, second_tier};
use crate::cache::Cache;
use crate::cache::backoff::PausedLoads;
use crate::cache::coalesce::{FlightAudience, FlightOutcome, Leader, LoadFailure, StaleUse};
use crate::cache::entry::Entry;
use crate::cache::event::CacheEvent;
use crate::cache::key::KeyBuf;
use crate::cache::l2::HeldLease;
use crate::cache::policy::{StorageTerms, UncacheableReason};
use crate::http::body::Body;
use crate::origin::LoadAudience;
use crate::plugin::RequestReads;
use crate::proxy::context::RequestContext;
use crate::proxy::respond;
use crate::proxy::rules::limits;
use crate::random;

/// One load.
pub struct MissLoad {
    pub cache: Arc<Cache>,
    pub ask: Arc<RequestContext>,
    /// The key without the variant.
    pub primary: KeyBuf,
    /// A stored copy to validate or to fall back on.
    pub stale: Option<Arc<Entry>>,
    pub kind: LoadKind,
    /// Takes a response that is for the leader's client alone. None for a background refresh.
    pub private: Option<oneshot::Sender<Response<Body>>>,
    pub mode: LoadMode,
    /// Those who wait for it. None for a background refresh, which is for those to come.
    pub audience: Option<FlightAudience>,
    /// The lease to load the key, among the nodes that share the second tier.
    pub lease: Option<HeldLease>,
}

/// How a load relates to other requests for its key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LoadMode {
    /// It is the one load of its key, here and among the nodes that share the second tier.
    OneForAll,
    /// Others load the same key beside it. Requests follow it once its head shows that it may be
    /// stored.
    SideBySide,
}

/// Statuses that count as a failed load if there is a stale copy (RFC 5861 §4).
pub(super) const ERRORS: [u16; 4] = [500, 502, 503, 504];

/// What a load does next.
#[allow(
    clippy::large_enum_variant,
    reason = "each is moved once, from the function that makes it to the one that takes it"
)]
pub(super) enum LoadStep {
    SecondTier(Leader),
    Source(Leader),
    Judge(Leader, ReceivedResponse),
    /// Renew this copy, which a 304 has confirmed.
    Renew(Leader, Arc<Entry>, ReceivedResponse),
    Publish(Leader, ReceivedResponse, StorageTerms),
    KeepPrivate(Leader, ReceivedResponse, UncacheableReason),
    Fail(Leader, LoadFailure),
    Landed,
}

impl LoadStep {
    fn step(&self) -> MissStep {
        match self {
            Self::SecondTier(_) => MissStep::SecondTier,
            Self::Source(_) => MissStep::Source,
            Self::Judge(..) => MissStep::Judge,
            Self::Renew(..) => MissStep::Renew,
            Self::Publish(..) => MissStep::Publish,
            Self::KeepPrivate(..) => MissStep::KeepPrivate,
            Self::Fail(..) => MissStep::Fail,
            Self::Landed => MissStep::Landed,
        }
    }
}

impl MissLoad {
    /// Runs the load to its end, and ends the flight of `leader`.
    pub async fn run(mut self, leader: Leader) {
        let mut next = LoadStep::SecondTier(leader);
        loop {
            let now = next.step();
            next = match next {
                LoadStep::SecondTier(leader) => second_tier::look(&mut self, leader).await,
                LoadStep::Source(leader) => ask_source(&self, leader).await,
                LoadStep::Judge(leader, arrived) => judge::judge(&mut self, leader, arrived),
                LoadStep::Renew(leader, copy, arrived) => {
                    Box::pin(renew::renew(&mut self, leader, &copy, arrived)).await
                }
                LoadStep::Publish(leader, arrived, terms) => {
                    publish::publish(&mut self, leader, arrived, terms).await;
                    LoadStep::Landed
                }
                LoadStep::KeepPrivate(leader, arrived, refusal) => {
                    keep_private::keep_private(&mut self, leader, arrived, refusal);
                    LoadStep::Landed
                }
                LoadStep::Fail(leader, failure) => {
                    fail(&self, leader, failure);
                    LoadStep::Landed
                }
                LoadStep::Landed => return,
            };
            debug_assert!(now.leads_to(next.step()), "{now:?} to {:?}", next.step());
        }
    }

    /// How the origin can learn whether anybody waits for its answer.
    pub(super) fn audience(&self) -> Option<LoadAudience> {
        let audience = self.audience.clone()?;
        Some(LoadAudience::new(move || audience.waits()))
    }

    /// Whether this is a background refresh, which asks with the plain request that stands for all
    /// clients.
    pub(super) fn is_behind_reader(&self) -> bool {
        self.private.is_none()
    }

    /// Records that the load succeeded.
    pub(super) fn succeeded(&self, leader: &Leader, took: Duration) {
        let key = leader.key();
        self.cache.backoff.succeeded(key);
        self.cache.hooks.emit(CacheEvent::LoaderSuccess {
            key: key.as_bytes(),
            took,
        });
    }
}

/// Asks the origin or the loader.
async fn ask_source(load: &MissLoad, leader: Leader) -> LoadStep {
    if let Err(refusal) = limits::admit_to_origin(&load.ask).await {
        // Nothing is wrong with the origin: this is no failed load, and no reason for a pause.
        leader.land(FlightOutcome::Failed(Arc::new(refusal)));
        return LoadStep::Landed;
    }
    let key = leader.key().clone();
    load.cache.hooks.emit(CacheEvent::LoaderStart {
        key: key.as_bytes(),
    });
    let mut began = turn_clock::now();
    let loaded = {
        let mut loading = pin!(combine::load(load));
        tokio::select! {
            biased;
            loaded = loading.as_mut() => Some(loaded),
            // A load side by side could not share its answer a moment ago, so it ends when nobody
            // waits for it.
            () = leader.all_followed(), if load.mode == LoadMode::SideBySide => None,
        }
    };
    let Some(mut loaded) = loaded else {
        tracing::debug!("load cancelled: no request waits for it any more");
        return LoadStep::Landed;
    };
    if renew::is_about_another(load, &loaded) {
        // RFC 9111 §4.3.4: this 304 must not update any stored response, so the load asks again
        // without validators.
        began = turn_clock::now();
        loaded = Box::pin(source::load(&load.ask, None, load.audience())).await;
    }
    match loaded {
        SourceOutcome::Response(answer) => {
            let at = turn_clock::now();
            let arrived = ReceivedResponse {
                answer,
                at,
                wall: SystemTime::now(),
                delay: at - began,
            };
            LoadStep::Judge(leader, arrived)
        }
        SourceOutcome::Absent(seen) => LoadStep::Judge(leader, absent(load, seen)),
        SourceOutcome::Stale => LoadStep::Fail(leader, source::asked_for_stale()),
        SourceOutcome::Failed(failure) => LoadStep::Fail(leader, failure),
    }
}

/// The loader says that the resource does not exist.
fn absent(load: &MissLoad, seen: RequestReads) -> ReceivedResponse {
    if let Some(stale) = &load.stale {
        load.cache.drop_entry(stale);
    }
    ReceivedResponse {
        answer: SourceResponse {
            response: respond::absent(),
            seen: Some(Box::new(seen)),
            ..SourceResponse::default()
        },
        at: Instant::now(),
        wall: SystemTime::now(),
        delay: Duration::ZERO,
    }
}

fn fail(load: &MissLoad, leader: Leader, failure: LoadFailure) {
    if let Some(trail) = &load.ask.trail {
        trail.failed(failure.error, &failure.detail);
    }
    let key = leader.key().clone();
    let event = match failure.status {
        StatusCode::GATEWAY_TIMEOUT => CacheEvent::LoaderTimeout {
            key: key.as_bytes(),
        },
        _ => CacheEvent::LoaderError {
            key: key.as_bytes(),
            detail: &failure.detail,
        },
    };
    load.cache.hooks.emit(event);
    if load.stale.is_some() && failure.stale != StaleUse::Never {
        let backoff = &load.cache.backoff;
        backoff.failed(&key, PausedLoads::All, Instant::now(), random::number());
    }
    leader.land(FlightOutcome::Failed(Arc::new(failure)));
}
