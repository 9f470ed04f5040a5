//! What belongs to one client never reaches another: through a validation, a flight, or a marker.

use e2e::client::Answer;
use e2e::gate::Gate;
use e2e::gateway::Gateway;
use e2e::origin::{Asked, Origin, Seen};
use e2e::reply::Reply;
use e2e::setup::{Setup, site};
use e2e::wait::{SOON, wait_for};

/// A page that must be validated each time; a validation is answered with `not_modified`.
fn validated(seen: &Seen, not_modified: Reply) -> Reply {
    match seen.header("if-none-match") {
        "" => Reply::ok("page")
            .header("etag", "\"a\"")
            .header("cache-control", "max-age=0"),
        _ => not_modified.status(304).header("etag", "\"a\""),
    }
}

async fn second_of_two(gateway: &Gateway) -> Answer {
    gateway.client().get("/").await;
    gateway.client().get("/").await
}

#[tokio::test]
async fn a_cookie_in_a_304_is_not_stored_where_cookies_are_stripped() {
    let (_origin, gateway) = site("{set_cookie: strip}", |seen| {
        let news = Reply::ok("")
            .header("set-cookie", "user=2")
            .header("cache-control", "max-age=60");
        validated(seen, news)
    })
    .await;
    second_of_two(&gateway).await;
    let hit = gateway.client().get("/").await;
    assert!(hit.is_hit() && !hit.has("set-cookie"), "{:?}", hit.headers);
}

#[tokio::test]
async fn a_field_that_a_304_calls_private_is_not_stored() {
    let (_origin, gateway) = site("{}", |seen| {
        let news = Reply::ok("")
            .header("x-user", "2")
            .header("cache-control", "max-age=60, private=\"x-user\"");
        validated(seen, news)
    })
    .await;
    second_of_two(&gateway).await;
    let hit = gateway.client().get("/").await;
    assert!(hit.is_hit() && !hit.has("x-user"), "{:?}", hit.headers);
}

/// An origin that answers by `page` once the gate is open; the first request passes.
async fn held(gate: &Gate, page: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Origin {
    let (gate, page) = (gate.clone(), std::sync::Arc::new(page));
    Origin::start(move |asked| {
        let (gate, page) = (gate.clone(), page.clone());
        async move {
            if asked.number > 0 {
                gate.pass().await;
            }
            page(&asked)
        }
    })
    .await
}

/// One request that leads, and one that follows it before the gate opens.
async fn leader_and_follower(gateway: &Gateway, gate: &Gate) -> [Answer; 2] {
    let client = gateway.client();
    let leader = tokio::spawn(async move { client.get("/").await });
    gate.reached_by(1).await;
    let client = gateway.client();
    let follower = tokio::spawn(async move { client.get("/").await });
    gateway
        .metric_until("lamina_cache_coalesced_requests_total", &[], |n| n >= 1.0)
        .await;
    gate.open();
    [leader.await.unwrap(), follower.await.unwrap()]
}

#[tokio::test]
async fn a_cookie_in_a_304_goes_to_the_client_who_asked_and_to_no_follower() {
    let gate = Gate::new();
    let origin = held(&gate, |asked| {
        validated(
            &asked.seen,
            Reply::ok("").header("set-cookie", &format!("user={}", asked.number)),
        )
    })
    .await;
    let gateway = Setup::new(&origin).start().await;
    gateway.client().get("/").await;
    let [leader, follower] = leader_and_follower(&gateway, &gate).await;
    assert_eq!((leader.status.as_u16(), leader.text()), (200, "page"));
    assert_eq!(leader.header("set-cookie"), "user=1");
    assert_ne!(follower.header("set-cookie"), "user=1");
    assert_eq!(follower.text(), "page");
}

#[tokio::test]
async fn a_response_that_needs_validation_each_time_is_not_handed_to_followers() {
    for control in ["no-cache", "max-age=0"] {
        let gate = Gate::new();
        let origin = held(&gate, move |asked| {
            Reply::ok(format!("for {}", asked.number))
                .header("cache-control", control)
                .header("etag", &format!("\"{}\"", asked.number))
        })
        .await;
        let gateway = Setup::new(&origin).start().await;
        gateway.client().get("/other").await;
        let [leader, follower] = leader_and_follower(&gateway, &gate).await;
        assert_ne!(
            leader.text(),
            follower.text(),
            "{control}: RFC 9111 §5.2.2.4"
        );
    }
}

#[tokio::test]
async fn a_validation_for_one_client_is_not_the_validation_for_another() {
    let gate = Gate::new();
    let origin = held(&gate, |asked| {
        let bare = Reply::ok("page")
            .header("etag", "\"a\"")
            .header("cache-control", "no-cache");
        match asked.seen.header("if-none-match") {
            "" => bare,
            _ => bare.status(304),
        }
    })
    .await;
    let gateway = Setup::new(&origin).start().await;
    gateway.client().get("/").await;
    leader_and_follower(&gateway, &gate).await;
    assert_eq!(origin.count(), 3, "the follower asked for itself");
}

#[tokio::test]
async fn a_login_on_one_request_does_not_mark_the_page_as_private_for_all() {
    let gate = Gate::new();
    let origin = held(&gate, |_| Reply::fresh("page")).await;
    let gateway = Setup::new(&origin).start().await;
    let client = gateway.client();
    let own = client
        .request("/")
        .header("authorization", "Basic x")
        .send()
        .await;
    assert!(!own.cache().stored, "{:?}", own.cache());
    // A page that is marked is asked for side by side.
    leader_and_follower(&gateway, &gate).await;
    assert_eq!(origin.count(), 2, "its own request, and one for the others");
    assert!(client.get("/").await.is_hit());
}

#[tokio::test]
async fn a_cookie_of_a_response_that_is_not_stored_reaches_its_client() {
    let (_origin, gateway) = site("{set_cookie: strip}", |_| {
        Reply::ok("hello")
            .header("set-cookie", "user=1")
            .header("cache-control", "private")
    })
    .await;
    let answer = gateway.client().get("/").await;
    assert_eq!(answer.header("set-cookie"), "user=1");
}

#[tokio::test]
async fn tags_of_the_origin_outlive_a_304_on_a_route_with_tags() {
    let origin = Origin::pages(|seen| {
        let etag = Reply::ok("page").header("etag", "\"a\"");
        match seen.header("if-none-match") {
            "" => etag
                .header("surrogate-key", "product-7")
                .header("cache-control", "max-age=0"),
            _ => etag.status(304).header("cache-control", "max-age=86400"),
        }
    })
    .await;
    let gateway = Setup::new(&origin)
        .route("{name: site, upstream: origin, tags: [all]}")
        .start()
        .await;
    gateway.client().get("/").await;
    let second = gateway.client().get("/").await;
    assert_eq!(second.cache().fwd_status, Some(304), "{:?}", second.cache());
    assert!(gateway.client().get("/").await.is_hit());
    gateway.purge(serde_json::json!({"tag": "product-7"})).await;
    assert!(!gateway.client().get("/").await.is_hit());
}

#[tokio::test]
async fn a_304_that_begins_to_vary_is_stored_for_its_own_variant() {
    let (_origin, gateway) = site("{}", |seen| {
        let news = Reply::ok("")
            .header("vary", "x-plan")
            .header("cache-control", "max-age=60");
        validated(seen, news)
    })
    .await;
    let client = gateway.client();
    let plan = |plan: &'static str| client.request("/").header("x-plan", plan).send();
    plan("gold").await;
    plan("gold").await;
    assert!(plan("gold").await.is_hit());
    assert!(!plan("free").await.is_hit(), "RFC 9111 §4.1");
}

#[tokio::test]
async fn a_304_that_nobody_asked_for_refreshes_nothing() {
    let (origin, gateway) = site("{stale_if_error: 1d}", |_| {
        Reply::ok("old").header("cache-control", "max-age=0")
    })
    .await;
    gateway.client().get("/").await;
    origin.behave(|_| async { Reply::status_only(304) });
    let second = gateway.client().get("/").await;
    assert_eq!(
        second.text(),
        "old",
        "an error, for which a stale copy is there"
    );
    assert!(!second.cache().stored, "{:?}", second.cache());
}

#[tokio::test]
async fn a_304_for_another_etag_leads_to_a_load_of_the_whole() {
    let (origin, gateway) = site("{}", |_| {
        Reply::ok("old")
            .header("etag", "\"a\"")
            .header("cache-control", "max-age=0")
    })
    .await;
    gateway.client().get("/").await;
    origin.behave(|asked| async move {
        let new = Reply::ok("new")
            .header("etag", "\"b\"")
            .header("cache-control", "max-age=0");
        match asked.seen.header("if-none-match") {
            "" => new,
            _ => Reply::status_only(304).header("etag", "\"b\""),
        }
    });
    let second = gateway.client().get("/").await;
    assert_eq!(second.text(), "new", "RFC 9111 §4.3.4");
}

#[tokio::test]
async fn what_a_client_forwarded_comes_round_as_a_loop() {
    let (origin, gateway) = site("{}", |_| Reply::fresh("page")).await;
    gateway.client().get("/a").await;
    let line = origin.last().header("cdn-loop").to_owned();
    assert!(!line.is_empty());
    let again = gateway
        .client()
        .request("/b")
        .header("cdn-loop", &line)
        .send();
    assert_eq!(again.await.status, 508);
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn a_stale_copy_that_was_purged_during_the_load_does_not_come_back() {
    let gate = Gate::new();
    let origin = held(&gate, |asked| match asked.number {
        0 => Reply::ok("old").header("cache-control", "max-age=0"),
        _ => Reply::status_only(503),
    })
    .await;
    let gateway = Setup::new(&origin)
        .policy("{stale_if_error: 1d}")
        .start()
        .await;
    gateway.client().get("/").await;
    let client = gateway.client();
    let asking = tokio::spawn(async move { client.get("/").await });
    gate.reached_by(1).await;
    gateway.purge(serde_json::json!({"all": true})).await;
    gate.open();
    assert_eq!(asking.await.unwrap().status, 503);
}

#[tokio::test]
async fn head_requests_get_the_stale_copy_as_get_requests_do() {
    let (mut origin, gateway) = site("{stale_if_error: 1d}", |_| {
        Reply::ok("old").header("cache-control", "max-age=0")
    })
    .await;
    gateway.client().get("/").await;
    origin.stop().await;
    let head = gateway.client().head("/").await;
    assert_eq!(
        (head.status.as_u16(), head.header("content-length")),
        (200, "3")
    );
}

#[tokio::test]
async fn an_error_behind_a_stale_page_ends_neither_the_page_nor_its_window() {
    let origin = Origin::pages(|_| Reply::ok("old").header("cache-control", "max-age=0")).await;
    let gateway = Setup::new(&origin)
        .top("cache", "{backoff: {base: 1h, max: 1h}}")
        .policy("{stale_while_revalidate: 1d}")
        .start()
        .await;
    gateway.client().get("/").await;
    origin.behave(|_| async { Reply::status_only(503) });
    let client = gateway.client();
    assert_eq!(client.get("/").await.text(), "old");
    wait_for("the refresh failed", SOON, || async {
        let failed = [("outcome", "error")];
        (gateway.metric("lamina_cache_loads_total", &failed).await >= 1.0).then_some(())
    })
    .await;
    for _ in 0..5 {
        assert_eq!(client.get("/").await.text(), "old");
    }
    assert_eq!(origin.count(), 2, "the back-off holds");
}

/// RFC 9111 §4.3.3: also one for which no stale copy stands in.
#[tokio::test]
async fn an_error_of_any_kind_behind_a_stale_page_leaves_the_page() {
    for status in [501, 505, 511] {
        let (origin, gateway) = site("{stale_while_revalidate: 1d}", |_| {
            Reply::ok("old").header("cache-control", "max-age=0")
        })
        .await;
        let client = gateway.client();
        client.get("/").await;
        origin.behave(move |_| async move { Reply::status_only(status) });
        assert_eq!(client.get("/").await.text(), "old", "{status}");
        origin.saw(2).await;
        gateway
            .metric_until("lamina_cache_flights", &[], |flights| flights == 0.0)
            .await;
        assert_eq!(client.get("/").await.text(), "old", "{status}");
    }
}

#[tokio::test]
async fn a_rule_filled_with_nothing_purges_nothing() {
    let origin = Origin::pages(|_| Reply::fresh("page")).await;
    let gateway = Setup::new(&origin)
        .route("{name: site, upstream: origin, invalidate: [{on: [POST], purge: [{prefix: \"{header.x-where}\"}]}]}")
        .start()
        .await;
    let client = gateway.client();
    client.get("/kept").await;
    client
        .ask(http::Method::POST, "/form")
        .header("x-where", "")
        .send()
        .await;
    assert!(client.get("/kept").await.is_hit());
    let filled = client.ask(http::Method::POST, "/form");
    filled.header("x-where", "/kept").send().await;
    assert!(!client.get("/kept").await.is_hit(), "the rule works");
}

#[tokio::test]
async fn a_204_has_no_length_in_answer_to_head_either() {
    let (_origin, gateway) = site("{}", |_| {
        Reply::status_only(204).header("cache-control", "max-age=60")
    })
    .await;
    gateway.client().get("/").await;
    let head = gateway.client_http2().head("/").await;
    assert!(
        head.is_hit() && !head.has("content-length"),
        "RFC 9110 §8.6"
    );
}

#[tokio::test]
async fn named_fields_reach_the_client_they_were_for_and_nobody_else() {
    for directive in ["private", "no-cache"] {
        let (_origin, gateway) = site("{}", move |_| {
            let named = format!("max-age=60, {directive}=\"x-user, x-more\"");
            Reply::ok("page")
                .header("x-user", "1")
                .header("x-user", "2")
                .header("cache-control", &named)
        })
        .await;
        let first = gateway.client().get("/").await;
        let lines: Vec<_> = first.headers.get_all("x-user").iter().collect();
        assert_eq!(lines, ["1", "2"], "{directive}");
        let hit = gateway.client().get("/").await;
        assert!(
            hit.is_hit() && !hit.has("x-user"),
            "{directive}: RFC 9111 §5.2.2.4, §5.2.2.7"
        );
    }
}
