//! The leader's part in range requests: it asks the origin for the octets that stored parts lack,
//! puts both together, and keeps what arrived (RFC 9111 §3.3, §3.4; RFC 9110 §15.3.7.3).
//!
//! Parts are put together only if both have the same strong validator. The result is then judged
//! and shared like any other answer.
//!
//! Invariant: stored parts are looked up after the load's place in the order of purges is known, so
//! that purged octets cannot come back in a newer entry.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, RANGE, VIA};
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, Limited};

use super::load::MissLoad;
use super::renew::update;
use super::source;
use super::{LoadKind, ranges};
use crate::cache::coalesce::{Leader, LoadFailure, LoadFailureScope};
use crate::cache::entry::Entry;
use crate::cache::fill::FillHead;
use crate::cache::parts::PartialBody;
use crate::cache::variant_key;
use crate::http::body::Body;
use crate::http::memory::stored::StoredBody;
use crate::http::memory::{self, PROCESS};
use crate::http::range::{ContentRange, RangeAnswer};
use crate::http::{conditional, range};
use crate::proxy::head::compact;
use crate::proxy::miss::source_response::{SourceOutcome, SourceResponse};

/// A span of octets, from the first to the last, both included.
type OctetSpan = (u64, u64);

/// Loads the whole or a part; if parts of it are stored, only what they lack.
pub(super) async fn load(load: &MissLoad) -> SourceOutcome {
    let held = match load.stale {
        None if load.cache.may_have_parts() && ranges::are_kept(&load.ask.route) => held(load),
        _ => None,
    };
    let wanted = held.as_deref().and_then(|held| self::wanted(load, held));
    match held.zip(wanted) {
        // In a box, as most loads need none of it.
        Some((held, wanted)) => Box::pin(lacking(load, &held, wanted)).await,
        None => plainly(load).await,
    }
}

async fn plainly(load: &MissLoad) -> SourceOutcome {
    match load.kind {
        LoadKind::Range => Box::pin(source::for_one(&load.ask, load.audience())).await,
        LoadKind::Whole => source::load(&load.ask, load.stale.as_deref(), load.audience()).await,
    }
}

/// Stored parts that new ones may be added to.
fn held(load: &MissLoad) -> Option<Arc<Entry>> {
    let key = load.primary.of_parts();
    let found = load.cache.parts(&key, &load.ask.parts.headers)?;
    conditional::strong_validator(&found.headers, SystemTime::now()).map(drop)?;
    Some(found)
}

/// The octets that the request needs, if the stored parts tell which these are. Never more than an
/// entry may have, since they may have to be put together in memory.
fn wanted(load: &MissLoad, held: &Entry) -> Option<OctetSpan> {
    let fits = |span: &OctetSpan| span.1 - span.0 < load.cache.rules().max_object_bytes as u64;
    octets(load, held).filter(fits)
}

fn octets(load: &MissLoad, held: &Entry) -> Option<OctetSpan> {
    let length = held.parts.as_ref()?.length?;
    let last = length.checked_sub(1)?;
    if load.kind == LoadKind::Whole {
        return Some((0, last));
    }
    let now = SystemTime::now();
    let request = &load.ask.parts;
    match range::evaluate(
        &request.headers,
        &request.method,
        held.headers.get(http::header::ETAG),
        conditional::strong_last_modified(&held.headers, now),
        length,
        now,
    ) {
        RangeAnswer::Part { first, last } => Some((first, last)),
        RangeAnswer::Whole | RangeAnswer::Parts(_) | RangeAnswer::Unsatisfiable => None,
    }
}

/// Asks for the part of `wanted` that is not stored, on condition that nothing has changed.
async fn lacking(load: &MissLoad, held: &Arc<Entry>, wanted: OctetSpan) -> SourceOutcome {
    let now = SystemTime::now();
    let parts = held.parts.as_ref();
    let gap = parts
        .and_then(|parts| parts.missing(wanted.0, wanted.1))
        // Everything is stored, but stale.
        .unwrap_or(wanted);
    let Some(validator) = conditional::strong_validator(&held.headers, now) else {
        return plainly(load).await;
    };
    let loaded = source::load_range(&load.ask, gap, validator.clone(), load.audience()).await;
    let SourceOutcome::Response(answer) = loaded else {
        return loaded;
    };
    match answer.response.status() {
        StatusCode::PARTIAL_CONTENT if fits(held, gap, answer.response.headers(), now) => {
            combined(load, held, wanted, gap, answer).await
        }
        StatusCode::PARTIAL_CONTENT => {
            // The representation has changed, or the stored parts were never what they claimed to
            // be.
            load.cache.drop_entry(held);
            plainly(load).await
        }
        // Perhaps only this client's request is refused: the stored parts stay for others.
        StatusCode::RANGE_NOT_SATISFIABLE
        | StatusCode::NOT_MODIFIED
        | StatusCode::PRECONDITION_FAILED => plainly(load).await,
        _ => SourceOutcome::Response(answer),
    }
}

/// The answer made of the stored octets and those that arrived.
async fn combined(
    load: &MissLoad,
    held: &Arc<Entry>,
    wanted: OctetSpan,
    gap: OctetSpan,
    answer: SourceResponse,
) -> SourceOutcome {
    let (mut parts, body) = answer.response.into_parts();
    let mut headers = held.headers.clone();
    // `Via` describes the way of this answer, and not that of the stored one.
    headers.remove(VIA);
    update(&mut headers, &parts.headers);
    let body = match (wanted == gap, &held.parts) {
        (false, Some(known)) => match joined(known, wanted, gap, body).await {
            Some(octets) => {
                let memory = load.ask.memory.as_ref();
                Body::full(memory::claim(octets, &PROCESS, memory))
            }
            None => return SourceOutcome::Failed(broken_off()),
        },
        _ => body,
    };
    let length = held.parts.as_ref().and_then(|parts| parts.length);
    parts.status = StatusCode::OK;
    if load.kind == LoadKind::Range {
        parts.status = StatusCode::PARTIAL_CONTENT;
        headers.insert(
            CONTENT_RANGE,
            range::content_range(wanted.0, wanted.1, length),
        );
    }
    headers.insert(CONTENT_LENGTH, (wanted.1 - wanted.0 + 1).into());
    parts.headers = headers;
    SourceOutcome::Response(SourceResponse {
        response: http::Response::from_parts(parts, body),
        continues: Some(Arc::clone(held)),
        ..SourceResponse::default()
    })
}

/// Stores a part together with the stored parts that it belongs to. Any other parts are replaced.
pub(super) fn store_part(load: &MissLoad, leader: &Leader, head: &FillHead, body: StoredBody) {
    let Some(place) = ContentRange::of(&head.headers) else {
        return;
    };
    if let Some(length) = place.length {
        match length > load.cache.rules().max_object_bytes as u64 {
            true => {
                let left = head.freshness.left_at_arrival();
                load.cache.large.note(&load.primary, left);
            }
            false => load.cache.large.forget(&load.primary),
        }
    }
    let octets = body.len() as u64;
    if octets == 0 || octets > place.octets() {
        return;
    }
    let mut headers = compact(&head.headers);
    headers.remove(CONTENT_RANGE);
    let belongs = |held: &Arc<Entry>| {
        octets == place.octets()
            && held
                .parts
                .as_ref()
                .is_some_and(|parts| parts.length == place.length)
            && conditional::same_representation(&held.headers, &headers, SystemTime::now())
    };
    let key = load.primary.of_parts();
    let held = load.cache.parts(&key, &load.ask.parts.headers);
    let fresh = PartialBody::of(place.length);
    let known = held.as_ref().filter(|held| belongs(held));
    let known = known
        .and_then(|held| held.parts.as_deref())
        .unwrap_or(&fresh);
    // What arrived is stored, even if the origin promised a little more.
    let mut all = known.with(place.first, body, load.cache.rules().max_object_bytes);
    if let Some(range) = load.ask.parts.headers.get(RANGE) {
        all = all.answering(range.clone(), place.first, place.first + octets - 1);
    }
    admit_parts(load, leader, head, headers, all);
}

fn admit_parts(
    load: &MissLoad,
    leader: &Leader,
    head: &FillHead,
    headers: HeaderMap,
    parts: PartialBody,
) {
    let whole = parts.whole();
    let (primary, status) = match whole {
        Some(_) => (load.primary.clone(), StatusCode::OK),
        None => (load.primary.of_parts(), StatusCode::PARTIAL_CONTENT),
    };
    let is_whole = whole.is_some();
    let entry = Entry::new(
        variant_key(&primary, &head.vary, &load.ask.parts.headers),
        status,
        headers,
        whole.unwrap_or_default(),
        head.freshness,
        head.marks.clone(),
        leader.born(),
    );
    let entry = entry.knowing(head.knows);
    let entry = match is_whole {
        true => entry,
        false => entry.holding(parts),
    };
    if is_whole {
        forget_parts(load);
    }
    load.cache
        .admit(primary.to_key(), &head.vary, Arc::new(entry));
}

/// Drops the stored parts: beside the whole they are of no use, and they may be of an older
/// version.
pub(super) fn forget_parts(load: &MissLoad) {
    if !load.cache.may_have_parts() || !ranges::are_kept(&load.ask.route) {
        return;
    }
    let key = load.primary.of_parts();
    if let Some(held) = load.cache.parts(&key, &load.ask.parts.headers) {
        load.cache.drop_entry(&held);
    }
}

/// Whether a 206 is the requested part of the representation whose parts are stored.
fn fits(held: &Entry, gap: OctetSpan, headers: &HeaderMap, now: SystemTime) -> bool {
    let place = ContentRange::of(headers);
    let length = held.parts.as_ref().and_then(|parts| parts.length);
    place.is_some_and(|p| (p.first, p.last) == gap && p.length == length)
        && conditional::same_representation(&held.headers, headers, now)
}

/// The octets of `wanted`, taken from the stored parts and the body that arrives. None if the body
/// is shorter or longer than promised.
async fn joined(
    held: &PartialBody,
    wanted: OctetSpan,
    gap: OctetSpan,
    body: Body,
) -> Option<Bytes> {
    let promised = usize::try_from(gap.1 - gap.0 + 1).ok()?;
    let came = Limited::new(body, promised)
        .collect()
        .await
        .ok()?
        .to_bytes();
    if came.len() != promised {
        return None;
    }
    held.with(gap.0, came, usize::MAX).slice(wanted.0, wanted.1)
}

fn broken_off() -> LoadFailure {
    let detail = "the origin's answer to a range is not as long as it says";
    let failure = LoadFailure::new(StatusCode::BAD_GATEWAY, "http_response_incomplete", detail);
    failure.blamed_on(LoadFailureScope::PerhapsThisRequest)
}
