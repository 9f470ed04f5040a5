//! Decides what an answer means for the requests that wait for it: it is shared and stored, it is
//! the leader's own, it is a failure, or it updates the stored response. The rules are those of the
//! policy and the plugins.

use std::sync::{Arc, LazyLock};
use std::time::Instant;

use http::{Response, StatusCode};
use http_body::Body as _;
use lamina_base::turn_clock;

use super::LoadKind;
use super::keep_private::{self, hand_over};
use super::load::{ERRORS, LoadMode, LoadStep, MissLoad};
use super::stale::{StaleSituation, verdict};
use crate::cache::coalesce::{FlightOutcome, Leader, LoadFailure, LoadFailureScope, StaleUse};
use crate::cache::entry::Entry;
use crate::cache::event::CacheEvent;
use crate::cache::freshness::{FreshnessState, initial_age};
use crate::cache::key::PurgeHash;
use crate::cache::policy::{HttpExchange, StorageTerms, UncacheableReason};
use crate::cache::tags::{MAX_TAG_BYTES, MAX_TAGS};
use crate::http::body::Body;
use crate::http::range::ContentRange;
use crate::proxy::head::{freshness, prepare};
use crate::proxy::message_hooks::PluginHeadChanges;
use crate::proxy::miss::source_response::{ReceivedResponse, SourceResponse};
use crate::proxy::origin_query;
use crate::random;
use crate::telemetry::limit::LineLimiter;

/// Judges what has arrived.
pub(super) fn judge(
    load: &mut MissLoad,
    leader: Leader,
    mut arrived: ReceivedResponse,
) -> LoadStep {
    let status = arrived.answer.response.status();
    match load.stale.clone() {
        Some(copy) if status == StatusCode::NOT_MODIFIED && arrived.answer.validates => {
            return LoadStep::Renew(leader, copy, arrived);
        }
        _ if status == StatusCode::NOT_MODIFIED => return LoadStep::Fail(leader, unasked_304()),
        // Nobody waits for the error of a background refresh; the copy keeps its stale window. A
        // copy that is an error itself does not replace an error: the newer one says more.
        Some(copy)
            if ERRORS.contains(&status.as_u16())
                && !ERRORS.contains(&copy.status.as_u16())
                && (covers_error(load, &copy) || load.is_behind_reader()) =>
        {
            return LoadStep::Fail(leader, answered_badly(status));
        }
        _ => {}
    }
    prepare(&mut arrived);
    let terms = terms(load, &leader.marks().tags, &arrived);
    match terms.and_then(|terms| check_key_covers_reads(load, &mut arrived.answer).map(|()| terms))
    {
        Ok(_) if keep_private::spares_copy(load, status) => {
            LoadStep::KeepPrivate(leader, arrived, UncacheableReason::Status)
        }
        Ok(_) if load.mode == LoadMode::SideBySide && !is_first(load, &leader) => {
            load.succeeded(&leader, arrived.delay);
            hand_over(load, leader, FlightOutcome::LeadersOwn, arrived, None);
            LoadStep::Landed
        }
        Ok(terms) => {
            load.succeeded(&leader, arrived.delay);
            LoadStep::Publish(leader, arrived, terms)
        }
        Err(refusal) => LoadStep::KeepPrivate(leader, arrived, refusal),
    }
}

/// Whether this is the first of the loads side by side whose answer may be stored; then others
/// follow it from now on. The other loads need not keep their answers in memory as well.
fn is_first(load: &MissLoad, leader: &Leader) -> bool {
    let (key, headers) = (&load.primary, &load.ask.parts.headers);
    let stored = load.cache.fresh_again(key, headers, turn_clock::now());
    load.cache.hit_for_miss.end(leader.key());
    stored.is_none() && leader.takes_followers()
}

/// Whether an error may be answered with this copy.
fn covers_error(load: &MissLoad, copy: &Arc<Entry>) -> bool {
    let (ask, now) = (&load.ask, turn_clock::now());
    match copy.state(now) {
        FreshnessState::Fresh => true,
        FreshnessState::Stale(windows) => {
            let failed = StaleSituation::Failed(StaleUse::InWindow);
            let verdict = verdict(failed, (copy, windows), (&ask.route, &ask.parts), now);
            verdict.reason().is_some()
        }
    }
}

/// The terms on which the route's policy stores the response, which has these tags from its request.
///
/// # Errors
/// Returns the reason if the response is not stored.
pub fn terms(
    load: &MissLoad,
    tags: &[PurgeHash],
    arrived: &ReceivedResponse,
) -> Result<StorageTerms, UncacheableReason> {
    let response = &arrived.answer.response;
    if let Some(reason) = arrived.answer.kept_out {
        return Err(reason);
    }
    let ask = &load.ask;
    let exchange = HttpExchange {
        request: &ask.parts.headers,
        path: ask.parts.uri.path(),
        length: response.body().size_hint().exact(),
        status: judged_status(load.kind, response)?,
        response: response.headers(),
        received: arrived.wall,
        plugin_ttl: arrived.answer.ttl,
        credentials: ask.credentials(&load.primary),
        authorization: ask.came_with(&load.primary).authorization,
    };
    let terms = ask.route.policy.judge(&exchange, random::number())?;
    check_tags(load, tags, &arrived.answer)?;
    match response.body().size_hint().lower() > load.cache.rules().max_object_bytes as u64 {
        true => {
            note_large(load, &terms, arrived);
            Err(UncacheableReason::TooLarge)
        }
        false => Ok(terms),
    }
}

/// Limits the warnings about responses with too many tags.
static TOO_MANY_TAGS: LazyLock<LineLimiter> = LazyLock::new(|| LineLimiter::new(Instant::now()));

/// Checks that each tag that the response names is kept: a purge by one that is not would miss it.
///
/// # Errors
/// If there are too many, or one is too long.
fn check_tags(
    load: &MissLoad,
    tags: &[PurgeHash],
    answer: &SourceResponse,
) -> Result<(), UncacheableReason> {
    let route = &load.ask.route;
    let purge_method = &load.ask.generation.purge_method;
    let of_content_type = usize::from(purge_method.purges_by_content_type());
    let of_request = tags.len() + of_content_type;
    let headers = answer.response.headers();
    let excess = route
        .policy
        .tags_from
        .excess(headers, &answer.tags, of_request);
    if excess == 0 {
        return Ok(());
    }
    load.cache.hooks.emit(CacheEvent::TagsDropped(excess));
    if let Some(unsaid) = TOO_MANY_TAGS.admit(Instant::now()) {
        tracing::warn!(
            route = &*route.name,
            path = load.ask.parts.uri.path(),
            excess,
            unsaid,
            "a response is not stored, because it names more than {MAX_TAGS} tags or one of more than \
             {MAX_TAG_BYTES} bytes, and a purge by these would miss it"
        );
    }
    Err(UncacheableReason::Tags)
}

/// Remembers, for as long as the response is fresh, that it is too large for the cache.
fn note_large(load: &MissLoad, terms: &StorageTerms, arrived: &ReceivedResponse) {
    let headers = arrived.answer.response.headers();
    let age = initial_age(headers, arrived.wall, arrived.delay);
    let left = freshness(terms, arrived.at, age).left_at_arrival();
    load.cache.large.note(&load.primary, left);
}

/// Checks that the key covers what the origin got, what the loader and the response plugin saw, and
/// what the request plugin set; or that the route stores the response anyway.
///
/// # Errors
/// Returns the reason if the response is not stored because of this.
pub fn check_key_covers_reads(
    load: &MissLoad,
    answer: &mut SourceResponse,
) -> Result<(), UncacheableReason> {
    let route = &load.ask.route;
    if let Some(watch) = &route.forwarded {
        let unheld = origin_query::unheld(&load.ask, &load.primary);
        watch.found(route, &unheld)?;
    }
    let saw = [
        (&route.unkeyed, &answer.seen),
        (&route.looked, &answer.looked),
    ];
    if let (Some(watch), Some(by)) = (
        &route.changed,
        load.ask.parts.extensions.get::<PluginHeadChanges>(),
    ) {
        let headers = answer.response.headers_mut();
        watch.check(route, &load.primary, &by.seen(), headers)?;
    }
    if let (Some(watch), Some((loader, _))) = (&route.unkeyed, &route.loader)
        && !loader.declares_reads()
    {
        watch.check_undeclared()?;
    }
    for (watch, seen) in saw {
        if let (Some(watch), Some(seen)) = (watch, seen) {
            watch.check(route, &load.primary, seen, answer.response.headers_mut())?;
        }
    }
    Ok(())
}

/// The status that the policy judges: a part is stored on the terms of the whole. Any other answer
/// that is only about a range is for its own client (RFC 9111 §3.3).
fn judged_status(
    kind: LoadKind,
    response: &Response<Body>,
) -> Result<StatusCode, UncacheableReason> {
    match (response.status(), kind) {
        (StatusCode::PARTIAL_CONTENT, LoadKind::Range) => ContentRange::of(response.headers())
            .map(|_| StatusCode::OK)
            .ok_or(UncacheableReason::Part),
        (StatusCode::RANGE_NOT_SATISFIABLE, LoadKind::Range) => Err(UncacheableReason::Part),
        (status, _) => Ok(status),
    }
}

fn answered_badly(status: StatusCode) -> LoadFailure {
    let detail = format!("the origin answered {status}");
    let failure = LoadFailure::new(status, "http_response_incomplete", detail);
    failure.blamed_on(LoadFailureScope::PerhapsThisRequest)
}

/// The request was for the whole, without validators, so there is nothing that this 304 could be
/// about.
fn unasked_304() -> LoadFailure {
    let detail = "the origin answered 304 to a request without preconditions";
    let failure = LoadFailure::new(StatusCode::BAD_GATEWAY, "http_protocol_error", detail);
    failure.blamed_on(LoadFailureScope::PerhapsThisRequest)
}
