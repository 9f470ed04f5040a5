//! A response that may be shared: its body streams to all who follow the flight, and is stored when
//! it is complete. The flight ends after that, so that a late request finds either the flight or
//! the entry.

use std::borrow::Cow;
use std::pin::pin;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt;
use tokio::select;

use super::load::MissLoad;
use super::{combine, second_tier};
use crate::cache::coalesce::Leader;
use crate::cache::entry::{Entry, PurgeAttributes};
use crate::cache::event::CacheEvent;
use crate::cache::fill::{Fill, FillHead};
use crate::cache::freshness::initial_age;
use crate::cache::key::KeyBuf;
use crate::cache::policy::{LifetimeSource, StorageTerms};
use crate::cache::tags::{Tags, content_type_tag, groups};
use crate::cache::{UnsharedScope, variant_key};
use crate::http::age::age_value;
use crate::http::body::Body;
use crate::http::cache_groups::CACHE_GROUPS;
use crate::http::memory::stored::StoredBody;
use crate::http::vary::Vary;
use crate::proxy::head::{compact, freshness, own_fields, stored_headers_by};
use crate::proxy::miss::source_response::ReceivedResponse;
use crate::proxy::record::trail::TrailEvent;
use crate::proxy::rules::compress::ClientCodings;
use crate::telemetry::limit::LineLimiter;

/// Streams the body to all who follow, then stores it.
pub async fn publish(
    load: &mut MissLoad,
    leader: Leader,
    arrived: ReceivedResponse,
    terms: StorageTerms,
) {
    let ReceivedResponse {
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
    let mut marks = marks(load, &leader, &mut headers, &answer.tags);
    if let Some(held) = &answer.continues {
        marks.tags = marks.tags.iter().chain(&held.marks.tags).copied().collect();
    }
    let policy = &load.ask.route.policy;
    let directives = policy.directives(&headers);
    let head = FillHead {
        key: variant_key(
            &kept_under(&load.primary, parts.status),
            &vary,
            &load.ask.parts.headers,
        ),
        status: parts.status,
        freshness: freshness(&terms, at, age),
        knows: load.cache.order_of(leader.born(), age_value(&headers), at),
        marks,
        own: own_fields(&headers, &directives, policy),
        headers: stored_headers_by(headers, directives, policy),
        length,
        vary,
    };
    if terms.source == LifetimeSource::Negative {
        load.cache.hooks.emit(CacheEvent::NegativeSet {
            key: leader.key().as_bytes(),
        });
    }
    let fill = Fill::new(
        head,
        load.cache.rules().max_object_bytes,
        load.ask.memory.clone(),
    );
    load.cache.hit_for_miss.end(leader.key());
    leader.stream(Arc::clone(&fill));
    let whole = stream_body(load, &leader, &fill, body).await;
    let stored = whole.and_then(|body| store_in_l1(load, &leader, &fill, body));
    // The flight ends here, after the entry is in L1: a late request finds either the flight or the
    // entry.
    drop(leader);
    if let Some(entry) = stored {
        if let Some(client) = ClientCodings::of(&load.ask.parts) {
            client.prepare(&entry);
        }
        let left = entry.freshness.left_at_arrival();
        load.ask.note(|| TrailEvent::Stored(left));
        if load.cache.second_tier().is_some() {
            let second_tier_terms = load.ask.route.policy.for_second_tier(&terms);
            let lifetime = freshness(&second_tier_terms, at, age).lifetime;
            Box::pin(second_tier::store(load, &entry, lifetime)).await;
        }
    }
}

/// Stores the complete body in L1. None if it is only a part, or if a purge overtook it.
fn store_in_l1(
    load: &MissLoad,
    leader: &Leader,
    fill: &Fill,
    body: StoredBody,
) -> Option<Arc<Entry>> {
    let head = &fill.head;
    if head.status == StatusCode::PARTIAL_CONTENT {
        // Parts grow with every load, so they stay in L1 and do not go to the second tier.
        combine::store_part(load, leader, head, body);
        return None;
    }
    combine::forget_parts(load);
    let entry = Entry::new(
        head.key.clone(),
        head.status,
        compact(&head.headers),
        body,
        head.freshness,
        head.marks.clone(),
        leader.born(),
    );
    let entry = Arc::new(entry.knowing(head.knows));
    load.cache
        .admit(load.primary.to_key(), &head.vary, Arc::clone(&entry))
        .then_some(entry)
}

pub(super) fn marks(
    load: &MissLoad,
    leader: &Leader,
    headers: &mut HeaderMap,
    plugin_tags: &[String],
) -> PurgeAttributes {
    let mut tags = Tags {
        hashes: leader.marks().tags.to_vec(),
        dropped: 0,
    };
    if load.ask.generation.purge_method.purges_by_content_type()
        && let Some(kind) = content_type(headers)
    {
        tags.add(&content_type_tag(kind));
    }
    load.ask.route.policy.tags_from.take(headers, &mut tags);
    plugin_tags.iter().for_each(|tag| tags.add(tag));
    let of_request = leader.marks();
    PurgeAttributes {
        id: of_request.id,
        identity: of_request.identity,
        route: of_request.route,
        tags: tags.hashes.into(),
        groups: groups(headers, &CACHE_GROUPS, load.ask.scheme, &load.ask.host),
        url: of_request.url.clone(),
    }
}

/// The content type of a response, without its parameters.
fn content_type(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    value.split(';').next().map(str::trim)
}

/// Moves the body into the fill as it arrives. Returns the complete body if it is to be stored.
async fn stream_body(
    load: &mut MissLoad,
    leader: &Leader,
    fill: &Fill,
    body: Body,
) -> Option<StoredBody> {
    let (primary, freshness) = (&load.primary, &fill.head.freshness);
    let (cache, lease) = (&load.cache, &mut load.lease);
    let outgrown = || {
        // It became clear late that this is too large: the next requests, here and on other nodes,
        // need not wait for it.
        *lease = None;
        cache
            .hit_for_miss
            .mark(leader.key(), UnsharedScope::Everybody);
        cache.large.note(primary, freshness.left_at_arrival());
    };
    pump(leader, fill, body, cache.rules().unread_timeout, outgrown).await
}

/// The key under which an answer with this status is stored: parts have a key of their own.
pub(super) fn kept_under(primary: &KeyBuf, status: StatusCode) -> Cow<'_, KeyBuf> {
    match status {
        StatusCode::PARTIAL_CONTENT => Cow::Owned(primary.of_parts()),
        _ => Cow::Borrowed(primary),
    }
}

/// Limits the log lines about responses that broke off.
static BROKEN_OFF: LazyLock<LineLimiter> = LazyLock::new(|| LineLimiter::new(Instant::now()));

/// Moves the body into the fill as it arrives, and calls `outgrown` once if the body becomes too
/// large to store. Gives up a body that nobody has read for `unread`. Returns the complete body if
/// it is to be stored.
async fn pump(
    leader: &Leader,
    fill: &Fill,
    mut body: Body,
    unread: Duration,
    outgrown: impl FnOnce(),
) -> Option<StoredBody> {
    let mut trailers = None;
    let mut outgrown = Some(outgrown);
    let mut unread = pin!(fill.unread_for(unread));
    loop {
        if !fill.room().await {
            // Requests that wait for this flight may not have begun to read.
            leader.all_followed().await;
            if !fill.room().await {
                break;
            }
        }
        let next = select! {
            biased;
            next = body.frame() => next,
            // The origin may be silent for long; whether somebody follows is asked above.
            () = fill.unwanted() => continue,
            () = &mut unread => {
                tracing::debug!(
                    "load cancelled: nobody reads it any more (cache.inflight.unread_timeout)"
                );
                break;
            }
        };
        match next {
            None => return fill.complete(trailers),
            Some(Err(error)) => {
                if let Some(unsaid) = BROKEN_OFF.admit(Instant::now()) {
                    tracing::warn!(%error, unsaid, "an origin's response ended early");
                }
                break;
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => fill.push(data),
                Err(frame) => trailers = frame.into_trailers().ok(),
            },
        }
        if let Some(tell) = outgrown.take_if(|_| fill.outgrown()) {
            tell();
        }
    }
    fill.fail();
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Cache;
    use crate::cache::coalesce::LeadOrFollow;
    use crate::cache::freshness::Freshness;
    use bytes::Bytes;
    use http_body::Frame;
    use http_body_util::StreamBody;

    fn cache() -> Cache {
        Cache::new(&Default::default(), &prometheus::Registry::new()).unwrap()
    }

    /// Guards against confusing a client that has not begun to read with one that has left.
    #[tokio::test]
    async fn a_body_that_outgrows_the_cache_at_once_waits_for_its_first_reader() {
        let cache = cache();
        let key = KeyBuf::default().to_key();
        let LeadOrFollow::Lead(leader) = cache.lead_or_follow(&key, 0, PurgeAttributes::default)
        else {
            panic!("nobody else leads");
        };
        let head = FillHead {
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
            knows: leader.born(),
            marks: PurgeAttributes::default(),
            vary: Vary::None,
        };
        let fill = Fill::new(head, 4, None);
        let pieces =
            ["12345", "6789"].map(|piece| Ok(Frame::data(Bytes::from_static(piece.as_bytes()))));
        let body = Body::boxed(StreamBody::new(futures_util::stream::iter(pieces)));
        let waiting = leader.follow();
        let reading = async {
            let reader = fill.reader().unwrap();
            drop(waiting);
            reader.collect().await.unwrap().to_bytes()
        };
        let (stored, read) = tokio::join!(
            pump(&leader, &fill, body, cache.rules().unread_timeout, || ()),
            reading
        );
        assert!(stored.is_none());
        assert_eq!(read, "123456789");
    }
}
