//! What is done with a response's head when it arrives: the fields that every client gets, those
//! that are stored, and the freshness of the new entry. [`miss::judge`](super::miss) and
//! [`miss::renew`](super::miss::renew) do the same with different bodies.

use std::time::{Duration, Instant};

use http::header::{AGE, CONTENT_LENGTH, DATE, SET_COOKIE};
use http::{HeaderMap, HeaderValue};

use crate::cache::config::SetCookie;
use crate::cache::freshness::Freshness;
use crate::cache::policy::{Lifetime, Policy, StorageTerms};
use crate::http::cache_control::{FieldForm, ResponseDirectives};
use crate::http::cache_status::CACHE_STATUS;
use crate::http::{date, forward};
use crate::proxy::miss::source_response::ReceivedResponse;

/// Adds the fields that every response gets when it arrives, stored or not.
pub(super) fn prepare(arrived: &mut ReceivedResponse) {
    let version = arrived.answer.response.version();
    let headers = arrived.answer.response.headers_mut();
    forward::append_via(headers, version);
    if !headers.contains_key(DATE) {
        // RFC 9110 §6.6.1: a recipient with a clock adds it.
        headers.insert(DATE, date::format(arrived.wall));
    }
}

pub(super) fn freshness(
    terms: &StorageTerms,
    received: Instant,
    initial_age: Duration,
) -> Freshness {
    let lifetime = match terms.lifetime {
        Lifetime::OfResponse(lifetime) => lifetime,
        Lifetime::FromArrival(ttl) => initial_age + ttl,
    };
    let StorageTerms {
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

/// The fields to store. `Age` and the length are set anew for each answer, and fields named by
/// `private` or `no-cache` must not be shared (RFC 9111 §5.2.2.4, §5.2.2.7).
pub(super) fn stored_headers(headers: HeaderMap, policy: &Policy) -> HeaderMap {
    let directives = policy.directives(&headers);
    stored_headers_by(headers, directives, policy)
}

/// The same where the response's directives are known.
pub(super) fn stored_headers_by(
    mut headers: HeaderMap,
    directives: ResponseDirectives,
    policy: &Policy,
) -> HeaderMap {
    // Reserves a place for the field that each answer sets, so that the copy for a hit need not
    // grow.
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

/// The fields that `private` or `no-cache` names: the client who asked gets them, but they are not
/// stored.
pub(super) fn own_fields(
    headers: &HeaderMap,
    directives: &ResponseDirectives,
    policy: &Policy,
) -> HeaderMap {
    let mut names = Vec::new();
    for form in [&directives.private, &directives.no_cache] {
        if let FieldForm::Fields(named) = form {
            names.extend_from_slice(named);
        }
    }
    names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
    names.dedup();
    let lines = |name| headers.get_all(name).iter().cloned();
    let mut own: HeaderMap = names
        .iter()
        .flat_map(|name| lines(name).map(|line| (name.clone(), line)))
        .collect();
    if policy.set_cookie == SetCookie::Strip {
        own.remove(SET_COOKIE);
    }
    own
}

/// Whether the entry lacks fields that its response arrived with: a 304 would not bring them back,
/// so the entry can only be loaded anew.
pub(super) fn withholds(stored: &HeaderMap, policy: &Policy) -> bool {
    let directives = policy.directives(stored);
    let names = |form: FieldForm| matches!(form, FieldForm::Fields(_));
    names(directives.private) || names(directives.no_cache)
}

/// Copies the header values into one buffer of their own, as an entry keeps them: the values that
/// arrived are slices of read buffers many times their size.
pub fn compact(headers: &HeaderMap) -> HeaderMap {
    let total = headers.values().map(HeaderValue::len).sum();
    let mut all = bytes::BytesMut::with_capacity(total);
    headers
        .values()
        .for_each(|value| all.extend_from_slice(value.as_bytes()));
    let mut all = all.freeze();
    // A copied map has room for just its fields, where one that grows has up to twice as much.
    let mut out = headers.clone();
    for value in out.values_mut() {
        let bytes = all.split_to(value.len());
        if let Ok(copy) = HeaderValue::from_maybe_shared(bytes) {
            *value = copy;
        }
    }
    out
}
