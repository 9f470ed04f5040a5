//! Ranges of what is not stored: the origin never sends much more than the client gets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use e2e::client::Answer;
use e2e::gateway::Gateway;
use e2e::origin::{Origin, Seen};
use e2e::reply::Reply;
use e2e::setup::Setup;

/// Larger than the sockets and buffers between origin and gateway hold, many times.
const WHOLE: u64 = 256 << 20;
/// What those may hold, and what may be thrown away before a range.
const BOUND: u64 = 24 << 20;
const PIECE: u64 = 64 << 10;

/// How the origin's object may be stored, and whether the origin knows ranges.
#[derive(Clone, Copy)]
struct ObjectForm {
    fields: &'static [(&'static str, &'static str)],
    ranges: bool,
    /// Whether it says how long it is.
    sized: bool,
}

const MEDIA: ObjectForm = ObjectForm {
    fields: &[("cache-control", "max-age=60"), ("etag", "\"v1\"")],
    ranges: true,
    sized: true,
};

/// An origin that counts what it sends of one large object.
async fn media(object: ObjectForm) -> (Origin, Arc<AtomicU64>, Arc<AtomicUsize>) {
    let (sent, wholes) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counted, asked) = (Arc::clone(&sent), Arc::clone(&wholes));
    let origin = Origin::start(move |arrived| {
        let (counted, asked) = (Arc::clone(&counted), Arc::clone(&asked));
        async move {
            let seen = arrived.read().await;
            let range = asked_range(&seen).filter(|_| object.ranges);
            if range.is_none() {
                asked.fetch_add(1, Ordering::SeqCst);
            }
            let (first, last) = range.unwrap_or((0, WHOLE - 1));
            let (reply, pieces) = Reply::stream();
            let mut reply = object.fields.iter().fold(reply, |r, (n, v)| r.header(n, v));
            if object.sized || range.is_some() {
                reply = reply.header("content-length", &(last - first + 1).to_string());
            }
            if object.ranges {
                reply = reply.header("accept-ranges", "bytes");
            }
            if range.is_some() {
                let place = format!("bytes {first}-{last}/{WHOLE}");
                reply = reply.status(206).header("content-range", &place);
            }
            tokio::spawn(async move {
                let mut at = first;
                while at <= last {
                    let end = (at + PIECE).min(last + 1);
                    if !pieces.send(content(at, end)).await {
                        return;
                    }
                    counted.fetch_add(end - at, Ordering::SeqCst);
                    at = end;
                }
                pieces.finish().await;
            });
            reply
        }
    })
    .await;
    (origin, sent, wholes)
}

fn asked_range(seen: &Seen) -> Option<(u64, u64)> {
    let (first, last) = seen
        .header("range")
        .strip_prefix("bytes=")?
        .split_once('-')?;
    let last = last.parse().unwrap_or(WHOLE - 1);
    Some((first.parse().ok()?, last))
}

/// Octets that tell where they are from.
fn content(first: u64, end: u64) -> Bytes {
    (first..end).map(|at| (at / 251 + at % 251) as u8).collect()
}

async fn gateway(origin: &Origin, policy: &str) -> Gateway {
    Setup::new(origin).policy(policy).start().await
}

async fn range(gateway: &Gateway, first: u64, last: u64, fields: &[(&str, &str)]) -> Answer {
    let ask = gateway
        .client()
        .request("/")
        .header("range", &format!("bytes={first}-{last}"));
    let ask = fields
        .iter()
        .fold(ask, |ask, (name, value)| ask.header(name, value));
    ask.send().await
}

fn is_part(answer: &Answer, first: u64, last: u64) {
    let got = (answer.status.as_u16(), answer.header("content-range"));
    assert_eq!(
        got,
        (206, &*format!("bytes {first}-{last}/{WHOLE}")),
        "{:?}",
        answer.cache()
    );
    assert_eq!(answer.body, content(first, last + 1));
}

const FAR: u64 = 200 << 20;

#[tokio::test]
async fn a_range_of_a_large_object_costs_a_range_and_is_kept() {
    let (origin, sent, wholes) = media(MEDIA).await;
    let gateway = gateway(&origin, "{}").await;
    for n in 0..5 {
        let at = FAR + n * 100_000;
        is_part(&range(&gateway, at, at + 999, &[]).await, at, at + 999);
    }
    let again = range(&gateway, FAR + 10, FAR + 20, &[]).await;
    is_part(&again, FAR + 10, FAR + 20);
    assert!(again.is_hit(), "parts are kept: {:?}", again.cache());
    assert!(sent.load(Ordering::SeqCst) < BOUND);
    assert_eq!(wholes.load(Ordering::SeqCst), 0, "no whole can begin there");
}

#[tokio::test]
async fn that_an_object_is_too_large_is_learnt_once() {
    let (origin, sent, wholes) = media(MEDIA).await;
    // Marks of what can't be shared end at once; what is known of the object does not.
    let gateway = Setup::new(&origin)
        .top(
            "cache",
            "{inflight: {hit_for_miss: 1ms, wait_timeout: 10m}}",
        )
        .start()
        .await;
    for n in 0..5 {
        let at = 1_000_000 + n * 100_000;
        is_part(&range(&gateway, at, at + 999, &[]).await, at, at + 999);
    }
    assert_eq!(wholes.load(Ordering::SeqCst), 1);
    assert!(sent.load(Ordering::SeqCst) < BOUND);
}

#[tokio::test]
async fn a_range_at_the_beginning_is_cut_from_what_passes() {
    for (policy, fields) in [
        ("{ranges: whole}", MEDIA.fields),
        ("{}", &[("cache-control", "private")]),
        ("{}", &[("cache-control", "no-store")]),
    ] {
        let (origin, sent, _) = media(ObjectForm { fields, ..MEDIA }).await;
        let gateway = gateway(&origin, policy).await;
        is_part(&range(&gateway, 1_000, 1_999, &[]).await, 1_000, 1_999);
        assert!(sent.load(Ordering::SeqCst) < BOUND, "{fields:?}");
        assert_eq!(origin.count(), 1, "{fields:?}");
    }
}

#[tokio::test]
async fn a_range_of_what_is_for_one_client_is_asked_for_alone() {
    let cookies: &[(&str, &str)] = &[("cookie", "session=1")];
    let authorized: &[(&str, &str)] = &[("authorization", "Basic YTpi")];
    for (policy, fields, client) in [
        ("{ranges: whole}", MEDIA.fields, &[][..]),
        ("{}", &[("cache-control", "private")], &[]),
        ("{}", &[("cache-control", "no-store")], &[]),
        ("{ttl: 1m}", &[], cookies),
        ("{ttl: 1m}", &[], authorized),
    ] {
        let (origin, sent, _) = media(ObjectForm { fields, ..MEDIA }).await;
        let gateway = gateway(&origin, policy).await;
        let at = 4 << 20;
        let got = range(&gateway, at, at + 999, client).await;
        is_part(&got, at, at + 999);
        assert!(sent.load(Ordering::SeqCst) < BOUND, "{fields:?} {client:?}");
    }
}

#[tokio::test]
async fn a_range_of_what_does_not_say_its_length_is_asked_for_alone() {
    let fields = &[("cache-control", "private")];
    let (origin, sent, _) = media(ObjectForm {
        fields,
        sized: false,
        ..MEDIA
    })
    .await;
    let gateway = gateway(&origin, "{}").await;
    is_part(
        &range(&gateway, FAR - 1, FAR + 9, &[]).await,
        FAR - 1,
        FAR + 9,
    );
    assert!(sent.load(Ordering::SeqCst) < BOUND);
}

/// Throwing away more than the client gets is no better than the whole.
#[tokio::test]
async fn an_origin_without_ranges_is_not_read_in_vain() {
    let (origin, sent, _) = media(ObjectForm {
        ranges: false,
        ..MEDIA
    })
    .await;
    let gateway = gateway(&origin, "{}").await;
    let ask = gateway
        .client()
        .request("/")
        .header("range", &format!("bytes={FAR}-"));
    let mut got = ask.open().await;
    assert_eq!(got.status, 200);
    got.at_least(1_000).await;
    drop(got);
    assert!(sent.load(Ordering::SeqCst) < WHOLE);
    assert_eq!(origin.count(), 1, "it was asked for the range at once");
}
