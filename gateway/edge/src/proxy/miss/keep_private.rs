//! A response that may not be shared: the leader's client gets it, and the response decides what
//! happens to the stored copy and to the waiting requests.
//!
//! Invariant: an answer that depends on one client's own request head removes no copy that others
//! may get. That head may be the cause of the answer, so a copy in a stale window stays. Three
//! answers remove it: an answer to the plain request of a refresh, which stands for all clients;
//! 404 or 410; and an answer about the stored octets themselves that forbids keeping them (a 304,
//! or a part that continues stored parts). A copy that nobody may get without asking the origin is
//! removed as well, which costs no more than a validation.

use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;

use super::load::MissLoad;
use crate::cache::UnsharedScope;
use crate::cache::backoff::PausedLoads;
use crate::cache::coalesce::{FlightOutcome, Leader};
use crate::cache::entry::Entry;
use crate::cache::event::CacheEvent;
use crate::cache::freshness::FreshnessState;
use crate::cache::policy::{UncacheableReason, concerns_requester_alone};
use crate::proxy::miss::source_response::ReceivedResponse;
use crate::proxy::record::trail::TrailEvent;
use crate::random;

/// Which requests an unshared response concerns.
enum PrivacySubject {
    /// Only the request that was made. It says nothing about the requests of others.
    Request,
    /// All such requests: their responses could not be shared either.
    Requests(UnsharedScope),
}

impl PrivacySubject {
    fn of(status: StatusCode, refusal: UncacheableReason) -> Self {
        match refusal {
            UncacheableReason::RequestNoStore | UncacheableReason::Unkeyed => Self::Request,
            _ if concerns_requester_alone(status) => Self::Request,
            UncacheableReason::Authorization => Self::Requests(UnsharedScope::Authorized),
            UncacheableReason::Credentials => Self::Requests(UnsharedScope::Credentialed),
            _ => Self::Requests(UnsharedScope::Everybody),
        }
    }
}

/// Gives a response to the leader's client alone. The flight's outcome tells the others what to do.
pub(super) fn keep_private(
    load: &mut MissLoad,
    leader: Leader,
    arrived: ReceivedResponse,
    refusal: UncacheableReason,
) {
    let status = arrived.answer.response.status();
    load.ask.note(|| TrailEvent::NotStored(refusal.as_str()));
    tracing::debug!(
        route = &*load.ask.route.name,
        refusal = refusal.as_str(),
        "not stored"
    );
    let outcome = match PrivacySubject::of(status, refusal) {
        PrivacySubject::Request if load.is_behind_reader() => {
            refresh_refused(load, &leader, status);
            FlightOutcome::LeadersOwn
        }
        PrivacySubject::Request => {
            load.succeeded(&leader, arrived.delay);
            FlightOutcome::LeadersOwn
        }
        PrivacySubject::Requests(whose) => {
            load.succeeded(&leader, arrived.delay);
            if whose == UnsharedScope::Everybody {
                drop_copies(load, &arrived, refusal);
            }
            load.cache.hit_for_miss.mark(leader.key(), whose);
            FlightOutcome::Private(whose)
        }
    };
    hand_over(load, leader, outcome, arrived, Some(refusal));
}

/// Ends the flight and gives the response to the leader's client.
pub(super) fn hand_over(
    load: &mut MissLoad,
    leader: Leader,
    outcome: FlightOutcome,
    arrived: ReceivedResponse,
    refusal: Option<UncacheableReason>,
) {
    leader.land(outcome);
    if let Some(client) = load.private.take() {
        let mut response = arrived.answer.response;
        let tags_from = &load.ask.route.policy.tags_from;
        tags_from.strip(response.headers_mut());
        if let Some(refusal) = refusal {
            response.extensions_mut().insert(refusal);
        }
        // The client may have left; then nobody needs this response.
        let _ = client.send(response);
    }
}

/// Whether an answer with this status is kept out of the cache although it may be stored, because
/// it would replace a good copy that others may get, and its client asked with its own head.
pub(super) fn spares_copy(load: &MissLoad, status: StatusCode) -> bool {
    let now = Instant::now();
    let good = load.stale.as_ref().is_some_and(|copy| {
        let usable = copy.state(now) == FreshnessState::Fresh || copy.is_in_stale_window(now);
        usable && !concerns_requester_alone(copy.status)
    });
    good && concerns_requester_alone(status) && !load.is_behind_reader()
}

/// The origin refused the plain request: the copy keeps its stale windows, and the next refresh
/// waits for the back-off.
fn refresh_refused(load: &MissLoad, leader: &Leader, status: StatusCode) {
    let key = leader.key();
    let backoff = &load.cache.backoff;
    backoff.failed(
        key,
        PausedLoads::Refreshes,
        Instant::now(),
        random::number(),
    );
    load.cache.hooks.emit(CacheEvent::LoaderError {
        key: key.as_bytes(),
        detail: &format!("a refresh was answered {status}"),
    });
}

/// Drops the stored copies that an unstored answer makes invalid. An error drops none (RFC 9111
/// §4.3.3).
fn drop_copies(load: &MissLoad, arrived: &ReceivedResponse, refusal: UncacheableReason) {
    let status = arrived.answer.response.status();
    if status.is_server_error() {
        return;
    }
    let gone = matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE);
    let continued = &arrived.answer.continues;
    let forbids = matches!(
        refusal,
        UncacheableReason::NoStore | UncacheableReason::Private
    );
    let all = gone || load.is_behind_reader() || (forbids && continued.is_some());
    let now = Instant::now();
    let useless = |copy: &&Arc<Entry>| all || !copy.is_in_stale_window(now);
    let stale = load.stale.iter().filter(useless);
    let continued = continued.iter().filter(|_| all);
    stale
        .chain(continued)
        .for_each(|copy| load.cache.drop_entry(copy));
}
