//! Ranges of what is not stored, with `ranges: parts` (RFC 9110 §14, RFC 9111 §3.3, §3.4).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use e2e::client::Answer;
use e2e::gateway::Gateway;
use e2e::origin::{Origin, Seen};
use e2e::reply::Reply;
use e2e::setup::{Setup, site};

const WHOLE: &str = "0123456789abcdefghij";
const PARTS: &str = "{ranges: parts}";

/// Answers as an origin does that knows ranges: 206, 416, or all of it.
fn serve(seen: &Seen, whole: &str, etag: &str) -> Reply {
    let conditional = seen.header("if-range");
    let holds = conditional.is_empty() || conditional == etag;
    let spec = seen.header("range").strip_prefix("bytes=");
    let reply = match spec.filter(|_| holds).and_then(|spec| spec.split_once('-')) {
        None => Reply::ok(whole.to_owned()),
        Some((first, last)) => {
            let end = whole.len() - 1;
            let (first, last) = match (first.parse::<usize>(), last.parse::<usize>()) {
                (Ok(first), Ok(last)) => (first, last.min(end)),
                (Ok(first), _) => (first, end),
                (_, count) => (whole.len() - count.unwrap(), end),
            };
            match whole.get(first..=last) {
                None => Reply::status_only(416)
                    .header("content-range", &format!("bytes */{}", whole.len())),
                Some(part) => Reply::ok(part.to_owned()).status(206).header(
                    "content-range",
                    &format!("bytes {first}-{last}/{}", whole.len()),
                ),
            }
        }
    };
    reply
        .header("cache-control", "max-age=60")
        .header("etag", etag)
}

fn pages(seen: &Seen) -> Reply {
    serve(seen, WHOLE, "\"v1\"")
}

async fn range(gateway: &Gateway, range: &str) -> Answer {
    let ask = gateway.client().request("/");
    ask.header("range", range).send().await
}

fn is_part(answer: &Answer, text: &str, place: &str) {
    assert_eq!(
        (answer.status.as_u16(), answer.text()),
        (206, text),
        "{place}"
    );
    assert_eq!(answer.header("content-range"), place);
}

#[tokio::test]
async fn a_part_answers_every_range_inside_it() {
    let (origin, gateway) = site(PARTS, pages).await;
    let first = range(&gateway, "bytes=5-14").await;
    is_part(&first, "56789abcde", "bytes 5-14/20");
    assert!(first.cache().stored && !first.is_hit());
    assert_eq!(origin.last().header("range"), "bytes=5-14");
    for (asked, text, place) in [
        ("bytes=5-14", "56789abcde", "bytes 5-14/20"),
        ("bytes=7-9", "789", "bytes 7-9/20"),
    ] {
        let answer = range(&gateway, asked).await;
        is_part(&answer, text, place);
        assert!(answer.is_hit(), "{asked}");
        assert!(answer.age().is_some());
    }
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn a_last_part_answers_open_and_suffix_ranges_and_what_is_behind_the_end() {
    let (origin, gateway) = site(PARTS, pages).await;
    range(&gateway, "bytes=-6").await;
    is_part(
        &range(&gateway, "bytes=-6").await,
        "efghij",
        "bytes 14-19/20",
    );
    is_part(
        &range(&gateway, "bytes=15-").await,
        "fghij",
        "bytes 15-19/20",
    );
    is_part(&range(&gateway, "bytes=-1").await, "j", "bytes 19-19/20");
    let behind = range(&gateway, "bytes=20-").await;
    assert_eq!(behind.status, 416);
    assert_eq!(behind.header("content-range"), "bytes */20");
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn what_is_missing_of_a_range_is_asked_for_alone() {
    let (origin, gateway) = site(PARTS, pages).await;
    range(&gateway, "bytes=0-4").await;
    let more = range(&gateway, "bytes=2-9").await;
    is_part(&more, "23456789", "bytes 2-9/20");
    assert!(more.cache().forwarded_as("partial"), "{:?}", more.cache());
    let seen = origin.last();
    assert_eq!(
        (seen.header("range"), seen.header("if-range")),
        ("bytes=5-9", "\"v1\"")
    );
    let apart = range(&gateway, "bytes=15-16").await;
    is_part(&apart, "fg", "bytes 15-16/20");
    is_part(
        &range(&gateway, "bytes=0-9").await,
        "0123456789",
        "bytes 0-9/20",
    );
    is_part(
        &range(&gateway, "bytes=8-17").await,
        "89abcdefgh",
        "bytes 8-17/20",
    );
    assert_eq!(origin.last().header("range"), "bytes=10-17");
    assert_eq!(origin.count(), 4);
}

#[tokio::test]
async fn a_request_for_the_whole_completes_the_parts() {
    let (origin, gateway) = site(PARTS, pages).await;
    range(&gateway, "bytes=0-4").await;
    range(&gateway, "bytes=15-").await;
    let whole = gateway.client().get("/").await;
    assert_eq!((whole.status.as_u16(), whole.text()), (200, WHOLE));
    assert_eq!(whole.header("content-range"), "");
    assert_eq!(origin.last().header("range"), "bytes=5-14");
    assert!(gateway.client().get("/").await.is_hit());
    assert!(range(&gateway, "bytes=3-6").await.is_hit());
    assert_eq!(origin.count(), 3);
}

#[tokio::test]
async fn parts_that_have_become_the_whole_answer_for_it() {
    let (origin, gateway) = site(PARTS, pages).await;
    range(&gateway, "bytes=0-9").await;
    range(&gateway, "bytes=10-").await;
    let whole = gateway.client().get("/").await;
    assert!(whole.is_hit());
    assert_eq!((whole.status.as_u16(), whole.text()), (200, WHOLE));
    assert_eq!(origin.count(), 2);
}

#[tokio::test]
async fn parts_of_different_versions_are_never_put_together() {
    let version = Arc::new(AtomicUsize::new(1));
    let of = Arc::clone(&version);
    let (origin, gateway) = site(PARTS, move |seen| match of.load(Ordering::SeqCst) {
        1 => serve(seen, WHOLE, "\"v1\""),
        _ => serve(seen, "ABCDEFGHIJKLMNOPQRST", "\"v2\""),
    })
    .await;
    range(&gateway, "bytes=0-4").await;
    version.store(2, Ordering::SeqCst);
    let new = range(&gateway, "bytes=2-9").await;
    is_part(&new, "CDEFGHIJ", "bytes 2-9/20");
    let whole = gateway.client().get("/").await;
    assert!(whole.is_hit(), "the 200 to If-Range replaced the parts");
    assert_eq!(whole.text(), "ABCDEFGHIJKLMNOPQRST");
    assert_eq!(origin.count(), 2);
}

/// The origin does not mind `If-Range` and answers with a part of another version.
#[tokio::test]
async fn a_part_that_is_not_of_what_is_held_is_not_believed() {
    let version = Arc::new(AtomicUsize::new(0));
    let of = Arc::clone(&version);
    let (_origin, gateway) = site(PARTS, move |seen| {
        let part = |text: &'static str, etag, place: &str| {
            let reply = Reply::ok(text).status(206).header("content-range", place);
            reply
                .header("etag", etag)
                .header("cache-control", "max-age=60")
        };
        match (of.fetch_add(1, Ordering::SeqCst), seen.header("range")) {
            (0, _) => part("01234", "\"v1\"", "bytes 0-4/10"),
            (_, "bytes=5-9") => part("FGHIJ", "\"v2\"", "bytes 5-9/10"),
            (_, _) => Reply::fresh("ABCDEFGHIJ").header("etag", "\"v2\""),
        }
    })
    .await;
    range(&gateway, "bytes=0-4").await;
    let whole = gateway.client().get("/").await;
    assert_eq!((whole.status.as_u16(), whole.text()), (200, "ABCDEFGHIJ"));
}

#[tokio::test]
async fn without_a_strong_validator_parts_stay_alone() {
    for weak in ["etag: W/\"v1\"", "x-none: 1"] {
        let (name, value) = weak.split_once(": ").unwrap();
        let (origin, gateway) = site(PARTS, move |seen| {
            let mut reply = serve(seen, WHOLE, "\"\"");
            reply = reply.without("etag").header(name, value);
            reply
        })
        .await;
        range(&gateway, "bytes=0-4").await;
        assert!(range(&gateway, "bytes=1-2").await.is_hit(), "{weak}");
        let other = range(&gateway, "bytes=3-9").await;
        is_part(&other, "3456789", "bytes 3-9/20");
        let seen = origin.last();
        assert_eq!(
            (seen.header("range"), seen.header("if-range")),
            ("bytes=3-9", ""),
            "{weak}"
        );
        assert!(
            !range(&gateway, "bytes=1-2").await.is_hit(),
            "{weak}: it was replaced"
        );
        assert_eq!(gateway.client().get("/").await.text(), WHOLE);
        assert_eq!(origin.last().header("range"), "");
    }
}

#[tokio::test]
async fn a_strong_last_modified_is_as_good() {
    let modified = "Tue, 01 Oct 2024 10:00:00 GMT";
    let (origin, gateway) = site(PARTS, move |seen| {
        let reply = serve(seen, WHOLE, modified).without("etag");
        reply.header("last-modified", modified)
    })
    .await;
    range(&gateway, "bytes=0-4").await;
    is_part(
        &range(&gateway, "bytes=0-9").await,
        "0123456789",
        "bytes 0-9/20",
    );
    let seen = origin.last();
    assert_eq!(
        (seen.header("range"), seen.header("if-range")),
        ("bytes=5-9", modified)
    );
}

#[tokio::test]
async fn if_range_is_held_against_the_stored_parts() {
    let (origin, gateway) = site(PARTS, pages).await;
    range(&gateway, "bytes=0-9").await;
    let ask = |tag: &str| {
        let ask = gateway.client().request("/").header("range", "bytes=0-3");
        ask.header("if-range", tag).send()
    };
    let same = ask("\"v1\"").await;
    assert!(same.is_hit());
    is_part(&same, "0123", "bytes 0-3/20");
    let other = ask("\"v0\"").await;
    assert_eq!((other.status.as_u16(), other.text()), (200, WHOLE));
    assert_eq!(origin.count(), 2);
}

#[tokio::test]
async fn a_whole_answer_to_a_range_is_kept_and_the_range_cut_out_of_it() {
    let (origin, gateway) = site(PARTS, |_| Reply::fresh(WHOLE)).await;
    is_part(&range(&gateway, "bytes=2-4").await, "234", "bytes 2-4/20");
    let whole = gateway.client().get("/").await;
    assert!(whole.is_hit() && whole.text() == WHOLE);
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn a_206_without_a_place_goes_to_its_client_alone() {
    for place in ["bytes 9-4/20", "bytes */20", "lines 1-2/3"] {
        let (origin, gateway) = site(PARTS, move |_| {
            Reply::fresh("234")
                .status(206)
                .header("content-range", place)
        })
        .await;
        for _ in 0..2 {
            let answer = range(&gateway, "bytes=2-4").await;
            assert_eq!((answer.status.as_u16(), answer.text()), (206, "234"));
            assert!(!answer.is_hit(), "{place}");
        }
        assert_eq!(origin.count(), 2, "{place}");
    }
}

/// More than was promised can't be placed; less is what it is.
#[tokio::test]
async fn a_part_counts_by_the_octets_that_came() {
    let (origin, gateway) = site(PARTS, |seen| {
        let place = match seen.path.as_str() {
            "/long" => "bytes 4-6/10",
            _ => "bytes 4-9/10",
        };
        Reply::fresh("45678")
            .status(206)
            .header("content-range", place)
    })
    .await;
    let ask = |path: &'static str, range: &'static str| {
        let ask = gateway.client().request(path).header("range", range);
        ask.send()
    };
    ask("/short", "bytes=4-").await;
    let inside = ask("/short", "bytes=6-8").await;
    assert!(inside.is_hit());
    is_part(&inside, "678", "bytes 6-8/10");
    assert!(!ask("/short", "bytes=6-9").await.is_hit());
    ask("/long", "bytes=4-6").await;
    assert!(!ask("/long", "bytes=4-6").await.is_hit());
    assert_eq!(origin.count(), 4);
}

#[tokio::test]
async fn a_part_that_broke_off_is_not_kept() {
    let origin = Origin::start(|_| async {
        let (reply, pieces) = Reply::stream();
        tokio::spawn(async move {
            pieces.send("0123").await;
            pieces.cut();
        });
        reply
            .status(206)
            .header("content-range", "bytes 0-9/20")
            .header("content-length", "10")
            .header("cache-control", "max-age=60")
            .header("etag", "\"v1\"")
    })
    .await;
    let gateway = Setup::new(&origin).policy(PARTS).start().await;
    let ask = || gateway.client().request("/").header("range", "bytes=0-9");
    assert!(ask().try_send().await.is_err());
    origin.behave(|seen| async move { pages(&seen.seen) });
    let again = ask().send().await;
    assert!(!again.is_hit());
    is_part(&again, "0123456789", "bytes 0-9/20");
}

/// What is put together is put together in memory.
#[tokio::test]
async fn a_range_larger_than_an_object_may_be_goes_to_the_origin_as_it_is() {
    let origin = Origin::pages(pages).await;
    let gateway = Setup::new(&origin)
        .policy(PARTS)
        .top("cache", "{l1: {max_object_bytes: 10B}}")
        .start()
        .await;
    range(&gateway, "bytes=0-4").await;
    is_part(
        &range(&gateway, "bytes=2-11").await,
        "23456789ab",
        "bytes 2-11/20",
    );
    assert_eq!(origin.last().header("range"), "bytes=5-11");
    is_part(
        &range(&gateway, "bytes=2-15").await,
        "23456789abcdef",
        "bytes 2-15/20",
    );
    assert_eq!(origin.last().header("range"), "bytes=2-15");
    assert_eq!(gateway.client().get("/").await.text(), WHOLE);
    assert_eq!(origin.last().header("range"), "");
}

#[tokio::test]
async fn parts_end_when_the_origin_says_that_they_must_not_be_kept() {
    let (origin, gateway) = site(PARTS, |seen| {
        let reply = pages(seen);
        match seen.header("range") {
            "bytes=5-9" => reply
                .without("cache-control")
                .header("cache-control", "no-store"),
            _ => reply,
        }
    })
    .await;
    range(&gateway, "bytes=0-4").await;
    is_part(
        &range(&gateway, "bytes=0-9").await,
        "0123456789",
        "bytes 0-9/20",
    );
    assert!(!range(&gateway, "bytes=0-4").await.is_hit());
    assert_eq!(origin.count(), 3);
}

#[tokio::test]
async fn a_purge_takes_the_parts() {
    let (origin, gateway) = site(PARTS, |seen| match seen.header("if-range") {
        "" => pages(seen).header("surrogate-key", "film"),
        _ => pages(seen),
    })
    .await;
    let selectors = [
        serde_json::json!({"tag": "film"}),
        serde_json::json!({"prefix": "/"}),
    ];
    for (n, selector) in selectors.into_iter().enumerate() {
        range(&gateway, "bytes=0-4").await;
        // The tag is that of the first part; the second carries it on.
        range(&gateway, "bytes=0-9").await;
        gateway.purge(selector).await;
        assert!(!range(&gateway, "bytes=0-4").await.is_hit());
        assert_eq!(origin.last().header("if-range"), "");
        gateway.purge(serde_json::json!({"all": true})).await;
        assert_eq!(origin.count(), (n + 1) * 3);
    }
}

#[tokio::test]
async fn variants_have_parts_of_their_own() {
    let (_origin, gateway) = site(PARTS, |seen| {
        let text = match seen.header("accept-language") {
            "de" => "ABCDEFGHIJKLMNOPQRST",
            _ => WHOLE,
        };
        serve(
            seen,
            text,
            &format!("\"{}\"", seen.header("accept-language")),
        )
        .header("vary", "accept-language")
    })
    .await;
    for hit in [false, true] {
        for (language, text) in [("en", "0123"), ("de", "ABCD")] {
            let ask = gateway.client().request("/").header("range", "bytes=0-3");
            let answer = ask.header("accept-language", language).send().await;
            assert_eq!((answer.text(), answer.is_hit()), (text, hit), "{language}");
        }
    }
}

#[tokio::test]
async fn many_requests_for_one_range_are_one_load() {
    let gate = e2e::gate::Gate::new();
    let wait = gate.clone();
    let origin = Origin::start(move |seen| {
        let wait = wait.clone();
        async move {
            wait.pass().await;
            pages(&seen.seen)
        }
    })
    .await;
    let gateway = Setup::new(&origin).policy(PARTS).start().await;
    let asks: Vec<_> = (0..20)
        .map(|_| {
            let ask = gateway.client().request("/").header("range", "bytes=3-9");
            tokio::spawn(ask.send())
        })
        .collect();
    origin.saw(1).await;
    gateway
        .metric_until("lamina_cache_coalesced_requests_total", &[], |n| n >= 19.0)
        .await;
    gate.open();
    for ask in asks {
        is_part(&ask.await.unwrap(), "3456789", "bytes 3-9/20");
    }
    assert_eq!(origin.count(), 1);
}

/// The default: one load of the whole answers every range.
#[tokio::test]
async fn without_the_policy_a_range_loads_the_whole_and_a_206_stays_one() {
    let (origin, gateway) = site("{}", pages).await;
    is_part(&range(&gateway, "bytes=5-6").await, "56", "bytes 5-6/20");
    assert_eq!(origin.last().header("range"), "");
    assert!(gateway.client().get("/").await.is_hit());
    let (origin, gateway) = site("{}", |_| {
        Reply::fresh("01234")
            .status(206)
            .header("content-range", "bytes 0-4/20")
    })
    .await;
    for _ in 0..2 {
        let odd = gateway.client().get("/").await;
        is_part(&odd, "01234", "bytes 0-4/20");
        assert!(!odd.is_hit(), "an unsolicited 206 is never the whole");
    }
    assert_eq!(origin.count(), 2);
}
