//! Validators, conditional requests and ranges (RFC 9110 §13, §14; RFC 9111 §4.3).

use e2e::gateway::Gateway;
use e2e::origin::{Origin, Seen};
use e2e::reply::Reply;
use e2e::setup::{Setup, site};

const MODIFIED: &str = "Tue, 01 Oct 2024 10:00:00 GMT";
const DIGITS: &str = "0123456789";

fn validated(_: &Seen) -> Reply {
    Reply::fresh(DIGITS)
        .header("etag", "\"v1\"")
        .header("last-modified", MODIFIED)
        .header("content-type", "text/plain")
}

#[tokio::test]
async fn a_304_renews_the_stored_response_and_its_headers() {
    let (origin, gateway) = site("{}", |seen| {
        let base = |reply: Reply| {
            reply
                .header("etag", "\"v1\"")
                .header("cache-control", "no-cache")
        };
        match seen.header("if-none-match") {
            "\"v1\"" => base(Reply::status_only(304)).header("x-rev", "2"),
            _ => base(Reply::ok("body"))
                .header("x-rev", "1")
                .header("content-type", "text/plain"),
        }
    })
    .await;
    assert_eq!(gateway.client().get("/").await.header("x-rev"), "1");
    for _ in 0..2 {
        let renewed = gateway.client().get("/").await;
        assert_eq!((renewed.status.as_u16(), renewed.text()), (200, "body"));
        assert_eq!(
            (renewed.header("x-rev"), renewed.header("content-type")),
            ("2", "text/plain")
        );
        let cache = renewed.cache();
        assert!(
            cache.forwarded_as("stale") && cache.fwd_status == Some(304),
            "{cache:?}"
        );
    }
    assert_eq!(origin.last().header("if-none-match"), "\"v1\"");
    assert_eq!(origin.count(), 3);
}

#[tokio::test]
async fn a_revalidation_that_brings_a_new_body_replaces_the_old() {
    let (origin, gateway) = site("{}", |seen| {
        let version = if seen.header("if-none-match").is_empty() {
            1
        } else {
            2
        };
        Reply::ok(format!("v{version}"))
            .header("etag", &format!("\"{version}\""))
            .header("cache-control", "no-cache")
    })
    .await;
    assert_eq!(gateway.client().get("/").await.text(), "v1");
    assert_eq!(gateway.client().get("/").await.text(), "v2");
    assert_eq!(origin.last().header("if-none-match"), "\"1\"");
    gateway.client().get("/").await;
    assert_eq!(origin.last().header("if-none-match"), "\"2\"");
}

#[tokio::test]
async fn an_unasked_304_corrupts_nothing() {
    let origin = Origin::pages(|_| Reply::status_only(304).header("etag", "\"x\"")).await;
    let gateway = Setup::new(&origin).start().await;
    gateway.client().get("/").await;
    origin.behave(|_| async { Reply::fresh("real") });
    assert_eq!(gateway.client().get("/").await.text(), "real");
}

#[tokio::test]
async fn a_clients_condition_is_answered_from_the_store() {
    let (origin, gateway) = site("{}", validated).await;
    let client = gateway.client();
    client.get("/").await;
    for (name, value, status) in [
        ("if-none-match", "\"v1\"", 304),
        ("if-none-match", "W/\"v1\"", 304),
        ("if-none-match", "\"a\", \"v1\"", 304),
        ("if-none-match", "*", 304),
        ("if-none-match", "\"v2\"", 200),
        ("if-modified-since", MODIFIED, 304),
        ("if-modified-since", "Wed, 02 Oct 2024 10:00:00 GMT", 304),
        ("if-modified-since", "Mon, 30 Sep 2024 10:00:00 GMT", 200),
        ("if-modified-since", "yesterday", 200),
    ] {
        let answer = client.request("/").header(name, value).send().await;
        assert_eq!(answer.status, status, "{name}: {value}");
        assert_eq!(answer.body.is_empty(), status == 304, "{name}: {value}");
        assert_eq!(answer.header("etag"), "\"v1\"");
        assert!(answer.is_hit());
    }
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn if_none_match_beats_if_modified_since() {
    let (_origin, gateway) = site("{}", validated).await;
    gateway.client().get("/").await;
    let ask = gateway
        .client()
        .request("/")
        .header("if-none-match", "\"v2\"")
        .header("if-modified-since", MODIFIED);
    assert_eq!(ask.send().await.status, 200);
}

#[tokio::test]
async fn a_conditional_miss_loads_the_whole_for_everybody() {
    let (origin, gateway) = site("{}", validated).await;
    let first = gateway
        .client()
        .request("/")
        .header("if-none-match", "\"v1\"")
        .send()
        .await;
    assert_eq!(first.status, 304);
    assert_eq!(origin.last().header("if-none-match"), "");
    let second = gateway.client().get("/").await;
    assert_eq!((second.text(), second.is_hit()), (DIGITS, true));
}

#[tokio::test]
async fn head_is_answered_from_a_stored_get() {
    let (origin, gateway) = site("{}", validated).await;
    gateway.client().get("/").await;
    let head = gateway.client().head("/").await;
    assert!(head.is_hit() && head.body.is_empty());
    assert_eq!(
        (head.header("content-length"), head.header("etag")),
        ("10", "\"v1\"")
    );
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn a_head_miss_does_not_become_an_empty_get() {
    let (_origin, gateway) = site("{}", validated).await;
    assert_eq!(gateway.client().head("/").await.status, 200);
    assert_eq!(gateway.client().get("/").await.text(), DIGITS);
}

/// What `answer` makes of a stored, stale page by way of a HEAD.
async fn after_head(answer: fn(Reply) -> Reply) -> (Origin, Gateway) {
    let (origin, gateway) = site("{}", move |seen| match seen.method.as_str() {
        "HEAD" => answer(Reply::status_only(200).header("x-rev", "2")),
        _ => Reply::ok(DIGITS)
            .header("etag", "\"v1\"")
            .header("last-modified", MODIFIED)
            .header("cache-control", "max-age=10")
            .header("age", "20")
            .header("x-rev", "1"),
    })
    .await;
    gateway.client().get("/").await;
    assert_eq!(gateway.client().head("/").await.header("x-rev"), "2");
    (origin, gateway)
}

#[tokio::test]
async fn a_head_that_matches_renews_the_stored_get() {
    let (origin, gateway) = after_head(|reply| {
        let reply = reply.header("cache-control", "max-age=60");
        reply
            .header("etag", "\"v1\"")
            .header("content-length", "10")
    })
    .await;
    let get = gateway.client().get("/").await;
    assert!(get.is_hit());
    assert_eq!((get.text(), get.header("x-rev")), (DIGITS, "2"));
    assert_eq!(get.header("last-modified"), MODIFIED, "it was not updated");
    assert_eq!(origin.count(), 2);
}

#[tokio::test]
async fn a_head_that_does_not_match_ends_the_stored_get() {
    let other: [fn(Reply) -> Reply; 4] = [
        |reply| reply.header("etag", "\"v2\""),
        |reply| reply.header("last-modified", "Wed, 02 Oct 2024 10:00:00 GMT"),
        |reply| reply.header("content-length", "11"),
        |reply| reply.header("cache-control", "no-store"),
    ];
    for answer in other {
        let (origin, gateway) = after_head(answer).await;
        assert!(!gateway.client().get("/").await.is_hit());
        assert_eq!(origin.last().header("if-none-match"), "");
    }
}

#[tokio::test]
async fn a_304_leaves_alone_what_describes_the_stored_octets() {
    let (_origin, gateway) = site("{}", |seen| {
        let reply = match seen.header("if-none-match") {
            "" => Reply::ok("body").header("x-old", "kept"),
            _ => Reply::status_only(304)
                .header("content-encoding", "gzip")
                .header("content-range", "bytes 0-1/2")
                .header("content-type", "text/new"),
        };
        reply
            .header("etag", "\"v1\"")
            .header("cache-control", "no-cache")
    })
    .await;
    gateway.client().get("/").await;
    let renewed = gateway.client().get("/").await;
    assert_eq!((renewed.status.as_u16(), renewed.text()), (200, "body"));
    for (name, value) in [
        ("content-encoding", ""),
        ("content-range", ""),
        ("content-type", "text/new"),
        ("x-old", "kept"),
        ("content-length", "4"),
    ] {
        assert_eq!(renewed.header(name), value, "{name}: RFC 9111 §3.2");
    }
}

#[tokio::test]
async fn ranges_are_cut_from_the_store() {
    let (origin, gateway) = site("{}", validated).await;
    let client = gateway.client();
    client.get("/").await;
    for (range, status, content_range, body) in [
        ("bytes=0-3", 206, "bytes 0-3/10", "0123"),
        ("bytes=7-", 206, "bytes 7-9/10", "789"),
        ("bytes=-2", 206, "bytes 8-9/10", "89"),
        ("bytes=5-99", 206, "bytes 5-9/10", "56789"),
        ("bytes=10-", 416, "bytes */10", ""),
        ("bytes=-0", 416, "bytes */10", ""),
        ("lines=1-2", 200, "", DIGITS),
        ("bytes=3-1", 200, "", DIGITS),
        ("bytes=", 200, "", DIGITS),
    ] {
        let answer = client.request("/").header("range", range).send().await;
        assert_eq!(answer.status, status, "{range}");
        assert_eq!(answer.header("content-range"), content_range, "{range}");
        if status != 416 {
            assert_eq!(answer.text(), body, "{range}");
        }
    }
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn several_ranges_come_as_multipart() {
    let (_origin, gateway) = site("{}", validated).await;
    gateway.client().get("/").await;
    let answer = gateway
        .client()
        .request("/")
        .header("range", "bytes=0-1,8-9")
        .send()
        .await;
    assert_eq!(answer.status, 206);
    let kind = answer.header("content-type");
    assert!(kind.starts_with("multipart/byteranges"), "{kind}");
    let boundary = kind.split("boundary=").nth(1).unwrap().trim_matches('"');
    let parts: Vec<_> = answer.text().split(&format!("--{boundary}")).collect();
    assert_eq!(parts.len(), 4, "{}", answer.text());
    for (part, range, body) in [
        (parts[1], "bytes 0-1/10", "01"),
        (parts[2], "bytes 8-9/10", "89"),
    ] {
        let (head, content) = part.split_once("\r\n\r\n").unwrap();
        assert!(
            head.to_ascii_lowercase()
                .contains(&format!("content-range: {range}")),
            "{head}"
        );
        assert_eq!(content, format!("{body}\r\n"));
    }
    assert!(parts[3].starts_with("--"));
}

#[tokio::test]
async fn if_range_guards_a_range() {
    let (_origin, gateway) = site("{}", validated).await;
    gateway.client().get("/").await;
    for (guard, status) in [("\"v1\"", 206), ("\"v2\"", 200), ("W/\"v1\"", 200)] {
        let ask = gateway
            .client()
            .request("/")
            .header("range", "bytes=0-3")
            .header("if-range", guard);
        assert_eq!(ask.send().await.status, status, "{guard}");
    }
}

#[tokio::test]
async fn a_range_miss_loads_the_whole_once() {
    let (origin, gateway) = site("{}", validated).await;
    let first = gateway
        .client()
        .request("/")
        .header("range", "bytes=2-4")
        .send()
        .await;
    assert_eq!((first.status.as_u16(), first.text()), (206, "234"));
    assert_eq!(origin.last().header("range"), "");
    assert_eq!(gateway.client().get("/").await.text(), DIGITS);
    assert_eq!(origin.count(), 1);
}

/// What nobody shares is the origin's to validate: a condition goes on to it.
#[tokio::test]
async fn a_condition_on_what_is_not_shared_is_the_origins_to_judge() {
    for (route, cache_control) in [
        ("{name: site, upstream: origin, cache: off}", "max-age=60"),
        ("{name: site, upstream: origin}", "private, max-age=60"),
        ("{name: site, upstream: origin}", "no-store"),
    ] {
        let origin = Origin::pages(move |seen| {
            let reply = match seen.header("if-none-match") {
                "\"v1\"" => Reply::status_only(304),
                _ => Reply::ok(DIGITS),
            };
            let reply = reply.header("etag", "\"v1\"");
            reply.header("cache-control", cache_control)
        })
        .await;
        let gateway = Setup::new(&origin).route(route).start().await;
        let what = format!("{route}, {cache_control}");
        let first = gateway.client().request("/").header("cookie", "a=1").send();
        assert_eq!(first.await.status, 200, "{what}");
        for _ in 0..3 {
            let ask = gateway.client().request("/").header("cookie", "a=1");
            let answer = ask.header("if-none-match", "\"v1\"").send().await;
            assert_eq!(answer.status, 304, "{what}");
            assert_eq!(answer.body.len(), 0);
            assert_eq!(origin.last().header("if-none-match"), "\"v1\"", "{what}");
        }
        let ask = gateway.client().request("/").header("cookie", "a=1");
        let other = ask.header("if-none-match", "\"v0\"").send().await;
        assert_eq!(
            (other.status.as_u16(), other.text()),
            (200, DIGITS),
            "{what}"
        );
    }
}
