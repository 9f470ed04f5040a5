//! How a 304 updates the stored response (RFC 9111 §4.3.4).
//!
//! The stored response with the fields of the 304 is an answer like any other: it is judged anew,
//! and then shared or kept for its own client. So nothing that belongs to one client gets into the
//! cache through a validation.

use std::sync::Arc;

use http::header::{AGE, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG};
use http::{HeaderMap, HeaderName, StatusCode};

use super::judge::{self, check_key_covers_reads};
use super::load::{LoadStep, MissLoad};
use super::{publish, second_tier};
use crate::cache::coalesce::{FlightOutcome, Leader};
use crate::cache::entry::{Entry, PurgeAttributes};
use crate::cache::freshness::initial_age;
use crate::cache::policy::StorageTerms;
use crate::cache::variant_key;
use crate::http::age::age_value;
use crate::http::body::Body;
use crate::http::etag::EntityTag;
use crate::http::vary::Vary;
use crate::proxy::head::{compact, freshness, prepare, stored_headers};
use crate::proxy::message_hooks;
use crate::proxy::miss::source_response::{ReceivedResponse, SourceOutcome};
use crate::proxy::record::trail::TrailEvent;

/// Whether this is a 304 for another response than the stored one.
pub(super) fn is_about_another(load: &MissLoad, loaded: &SourceOutcome) -> bool {
    let (SourceOutcome::Response(answer), Some(stale)) = (loaded, &load.stale) else {
        return false;
    };
    let response = &answer.response;
    response.status() == StatusCode::NOT_MODIFIED
        && answer.validates
        && !is_for(&stale.headers, response.headers())
}

/// Updates the stored response, which the origin says is still valid.
pub(super) async fn renew(
    load: &mut MissLoad,
    leader: Leader,
    stale: &Entry,
    mut arrived: ReceivedResponse,
) -> LoadStep {
    prepare(&mut arrived);
    let mut headers = stale.headers.clone();
    update(&mut headers, arrived.answer.response.headers());
    let response = &mut arrived.answer.response;
    *response.status_mut() = stale.status;
    *response.headers_mut() = headers;
    *response.body_mut() = Body::full(stale.body.bytes());
    message_hooks::response(&load.ask, &mut arrived.answer);
    let terms = judge::terms(load, &leader.marks().tags, &arrived);
    match terms.and_then(|terms| check_key_covers_reads(load, &mut arrived.answer).map(|()| terms))
    {
        Ok(terms) => {
            load.succeeded(&leader, arrived.delay);
            store(load, leader, stale, arrived, &terms).await;
            LoadStep::Landed
        }
        Err(refusal) => {
            // The answer is about the stored response itself.
            arrived.answer.continues.clone_from(&load.stale);
            LoadStep::KeepPrivate(leader, arrived, refusal)
        }
    }
}

/// Stores the renewed entry as the variant that its new `Vary` selects.
async fn store(
    load: &mut MissLoad,
    leader: Leader,
    stale: &Entry,
    arrived: ReceivedResponse,
    terms: &StorageTerms,
) {
    let mut headers = arrived.answer.response.into_parts().0.headers;
    let age = initial_age(&headers, arrived.wall, arrived.delay);
    let vary = Vary::parse(&headers);
    let knows = load
        .cache
        .order_of(leader.born(), age_value(&headers), arrived.at);
    let marks = renewed_marks(load, &leader, stale, &mut headers, &arrived.answer.tags);
    let entry = Entry::new(
        variant_key(&load.primary, &vary, &load.ask.parts.headers),
        stale.status,
        compact(&stored_headers(headers, &load.ask.route.policy)),
        stale.body.clone(),
        freshness(terms, arrived.at, age),
        marks,
        leader.born(),
    );
    let entry = Arc::new(entry.knowing(knows).with_forms_of(stale));
    let admitted = load
        .cache
        .admit(load.primary.to_key(), &vary, Arc::clone(&entry));
    leader.land(FlightOutcome::Stored(Arc::clone(&entry)));
    if admitted {
        let left = entry.freshness.left_at_arrival();
        load.ask.note(|| TrailEvent::Stored(left));
        let second_tier_terms = load.ask.route.policy.for_second_tier(terms);
        let lifetime = freshness(&second_tier_terms, arrived.at, age).lifetime;
        second_tier::store(load, &entry, lifetime).await;
    }
}

/// The marks of the renewed entry. If the 304 names no tags, the stored tags remain.
fn renewed_marks(
    load: &MissLoad,
    leader: &Leader,
    stale: &Entry,
    headers: &mut HeaderMap,
    plugin_tags: &[String],
) -> PurgeAttributes {
    let marks = publish::marks(load, leader, headers, plugin_tags);
    if marks.tags.len() > leader.marks().tags.len() + plugin_tags.len() {
        return marks;
    }
    let held = stale.marks.tags.iter();
    let held = held.filter(|tag| !marks.tags.contains(tag));
    PurgeAttributes {
        tags: marks.tags.iter().chain(held).copied().collect(),
        ..marks
    }
}

/// Whether a 304 with these fields is about the stored response: a strong validator must equal the
/// stored one; for a weak one a weak match is enough.
fn is_for(stored: &HeaderMap, news: &HeaderMap) -> bool {
    let Some(tag) = news.get(ETAG).map(EntityTag::of) else {
        return true;
    };
    stored
        .get(ETAG)
        .map(EntityTag::of)
        .is_some_and(|held| held.strong_eq(tag) || (tag.weak && held.weak_eq(tag)))
}

/// Updates stored fields with those of a 304 (RFC 9111 §3.2). Fields that describe the stored
/// octets stay: with a digest of other octets, clients would reject a correct body. The stored
/// `Age` is outdated in any case.
pub fn update(stored: &mut HeaderMap, news: &HeaderMap) {
    const KEPT: [HeaderName; 5] = [
        CONTENT_LENGTH,
        CONTENT_ENCODING,
        CONTENT_RANGE,
        HeaderName::from_static("content-md5"),
        // RFC 9530 §2: it describes the content of the message, and a 304 has none.
        HeaderName::from_static("content-digest"),
    ];
    stored.remove(AGE);
    for name in news.keys().filter(|name| !KEPT.contains(name)) {
        stored.remove(name);
    }
    for (name, value) in news.iter().filter(|(name, _)| !KEPT.contains(name)) {
        stored.append(name, value.clone());
    }
}
