//! What the origin's answer to a HEAD says about the stored answer to GET: either the stored answer
//! is still valid and gets the new fields, or it is dropped (RFC 9111 §4.3.5). A copy in a stale
//! window stays: the HEAD had the head of one client's request, which may be the cause of the
//! answer.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use http::header::{CONTENT_LENGTH, DATE, ETAG, LAST_MODIFIED, VIA};
use http::{HeaderMap, StatusCode};

use crate::cache::Cache;
use crate::cache::entry::Entry;
use crate::cache::freshness::initial_age;
use crate::cache::key::KeyBuf;
use crate::cache::policy::{HttpExchange, UncacheableReason};
use crate::cache::purge::PurgeOrder;
use crate::http::age::age_value;
use crate::http::date;
use crate::http::etag::EntityTag;
use crate::http::vary::Vary;
use crate::proxy::context::RequestContext;
use crate::proxy::head::{compact, freshness, stored_headers};
use crate::proxy::miss::renew::update;
use crate::proxy::miss::source_response::SourceResponse;
use crate::random;

/// When a HEAD was sent: by the clock, and in the order of purges.
#[derive(Clone, Copy)]
pub struct HeadSendTime {
    pub at: Instant,
    pub born: PurgeOrder,
}

/// The stored response to GET that an answer to HEAD may update.
pub struct StoredGetResponse<'a> {
    pub copy: &'a Arc<Entry>,
    /// Its key without the variant.
    pub primary: &'a KeyBuf,
}

/// Updates the stored response to GET by the answer to HEAD, or drops it.
pub(super) fn learn(
    cache: &Cache,
    ask: &RequestContext,
    stored: &StoredGetResponse<'_>,
    answer: &SourceResponse,
    sent: HeadSendTime,
) {
    let copy = stored.copy;
    let both = (answer.response.status(), copy.status);
    // Checked after the HEAD's place in the order of purges is known: a later purge hides the
    // renewed entry, too.
    if both != (StatusCode::OK, StatusCode::OK) || !cache.shows(copy) {
        return;
    }
    let renewed = match is_same(copy, answer.response.headers()) {
        true => match answer.kept_out {
            Some(reason) => Err(reason),
            None => renewed(cache, ask, stored, (answer, sent)),
        },
        false => Ok(None),
    };
    match renewed {
        Ok(Some(entry)) => {
            let key = entry.key.clone();
            cache.admit(key, &Vary::None, Arc::new(entry));
        }
        // The reason lies in this one request and says nothing about the copy.
        Err(
            UncacheableReason::RequestNoStore
            | UncacheableReason::Authorization
            | UncacheableReason::Credentials,
        ) => {}
        Ok(None) | Err(_) if copy.is_in_stale_window(Instant::now()) => {}
        Ok(None) | Err(_) => cache.drop_entry(copy),
    }
}

/// The renewed entry. None if it would now be another variant.
fn renewed(
    cache: &Cache,
    ask: &RequestContext,
    stored: &StoredGetResponse<'_>,
    (answer, sent): (&SourceResponse, HeadSendTime),
) -> Result<Option<Entry>, UncacheableReason> {
    let StoredGetResponse { copy, primary } = *stored;
    let (now, wall) = (Instant::now(), SystemTime::now());
    let news = answer.response.headers();
    let mut headers = copy.headers.clone();
    headers.remove(VIA);
    headers.insert(DATE, date::format(wall));
    update(&mut headers, news);
    ask.route.policy.tags_from.strip(&mut headers);
    if Vary::parse(&headers) != Vary::parse(&copy.headers) {
        return Ok(None);
    }
    let policy = &ask.route.policy;
    let exchange = HttpExchange {
        request: &ask.parts.headers,
        path: ask.parts.uri.path(),
        length: Some(copy.body.len() as u64),
        status: copy.status,
        response: &headers,
        received: wall,
        plugin_ttl: answer.ttl,
        credentials: ask.credentials(primary),
        authorization: ask.came_with(primary).authorization,
    };
    let terms = policy.judge(&exchange, random::number())?;
    let age = initial_age(&headers, wall, now - sent.at);
    let knows = cache.order_of(sent.born, age_value(news), now);
    let entry = Entry::new(
        copy.key.clone(),
        copy.status,
        compact(&stored_headers(headers, policy)),
        copy.body.clone(),
        freshness(&terms, now, age),
        copy.marks.clone(),
        sent.born,
    );
    Ok(Some(entry.knowing(knows).with_forms_of(copy)))
}

/// Whether all validators and the length that arrived equal those of the stored response.
fn is_same(stored: &Entry, news: &HeaderMap) -> bool {
    let held = &stored.headers;
    let tag = news.get(ETAG).is_none_or(|came| {
        let held = held.get(ETAG).map(EntityTag::of);
        held == Some(EntityTag::of(came))
    });
    let modified = news
        .get(LAST_MODIFIED)
        .is_none_or(|came| held.get(LAST_MODIFIED) == Some(came));
    let length = news
        .get(CONTENT_LENGTH)
        .is_none_or(|came| came.as_bytes() == stored.body.len().to_string().as_bytes());
    tag && modified && length
}
