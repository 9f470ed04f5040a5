//! What a route's policy changes about lifetime and storage.

use std::collections::BTreeSet;
use std::time::Duration;

use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::{Setup, site};
use e2e::wait::passed;

#[tokio::test]
async fn respect_gives_the_routes_ttl_to_responses_that_say_nothing() {
    let (origin, gateway) = site("{ttl: 60s}", |seen| match seen.path.as_str() {
        "/silent" => Reply::ok("x"),
        "/explicit" => Reply::ok("x").header("cache-control", "max-age=5"),
        _ => Reply::ok("x").header("cache-control", "no-store"),
    })
    .await;
    for path in ["/silent", "/explicit", "/no-store"] {
        gateway.client().get(path).await;
    }
    assert!(gateway.client().get("/silent").await.cache().ttl.unwrap() > 50);
    assert!(gateway.client().get("/explicit").await.cache().ttl.unwrap() <= 5);
    assert!(!gateway.client().get("/no-store").await.is_hit());
    assert_eq!(origin.count(), 4);
}

#[tokio::test]
async fn override_rules_over_what_the_response_says() {
    let (_origin, gateway) = site("{mode: override, ttl: 60s}", |seen| {
        Reply::ok("x").header("cache-control", seen.path.trim_start_matches('/'))
    })
    .await;
    for said in ["no-store", "private", "max-age=5", "max-age=9999"] {
        let path = format!("/{said}");
        gateway.client().get(&path).await;
        let ttl = gateway.client().get(&path).await.cache().ttl;
        assert!(matches!(ttl, Some(50..=60)), "{said}: {ttl:?}");
    }
}

#[tokio::test]
async fn cap_shortens_and_never_invents() {
    let (_origin, gateway) = site("{mode: cap, ttl: 10s}", |seen| match seen.path.as_str() {
        "/long" => Reply::ok("x").header("cache-control", "max-age=9999"),
        "/short" => Reply::ok("x").header("cache-control", "max-age=5"),
        _ => Reply::ok("x"),
    })
    .await;
    for path in ["/long", "/short", "/silent"] {
        gateway.client().get(path).await;
    }
    assert!(matches!(
        gateway.client().get("/long").await.cache().ttl,
        Some(8..=10)
    ));
    assert!(matches!(
        gateway.client().get("/short").await.cache().ttl,
        Some(3..=5)
    ));
    assert!(!gateway.client().get("/silent").await.is_hit());
}

#[tokio::test]
async fn only_the_statuses_named_get_the_routes_ttl() {
    let (origin, gateway) = site("{mode: override, ttl: 60s, statuses: [200, 203]}", |seen| {
        Reply::ok("x").status(seen.path.trim_start_matches('/').parse().unwrap())
    })
    .await;
    for (path, kept) in [
        ("/200", true),
        ("/203", true),
        ("/404", false),
        ("/500", false),
    ] {
        gateway.client().get(path).await;
        assert_eq!(gateway.client().get(path).await.is_hit(), kept, "{path}");
    }
    assert_eq!(origin.count(), 6);
}

#[tokio::test]
async fn defaults_hold_for_routes_that_do_not_say_otherwise() {
    let origin = Origin::pages(|_| Reply::ok("x")).await;
    let gateway = Setup::new(&origin)
        .top("defaults", "{mode: override, ttl: 60s}")
        .route("{name: own, match: {path: /own}, upstream: origin, policy: {ttl: 10s}}")
        .route("{name: rest, upstream: origin}")
        .start()
        .await;
    for path in ["/own", "/rest"] {
        gateway.client().get(path).await;
    }
    assert!(matches!(
        gateway.client().get("/own").await.cache().ttl,
        Some(8..=10)
    ));
    assert!(matches!(
        gateway.client().get("/rest").await.cache().ttl,
        Some(50..=60)
    ));
}

#[tokio::test]
async fn jitter_spreads_lifetimes_within_its_bounds() {
    let (_origin, gateway) = site("{mode: override, ttl: 1000s, jitter: 20}", |_| {
        Reply::ok("x")
    })
    .await;
    let mut seen = BTreeSet::new();
    for i in 0..40 {
        let path = format!("/{i}");
        gateway.client().get(&path).await;
        let ttl = gateway.client().get(&path).await.cache().ttl.unwrap();
        assert!((790..=1_200).contains(&ttl), "{ttl}");
        seen.insert(ttl);
    }
    assert!(seen.len() > 10, "{seen:?}");
}

#[tokio::test]
async fn an_absent_page_is_remembered_for_a_short_time_of_its_own() {
    let missing = |policy: &'static str| {
        site(policy, |seen| match seen.path.as_str() {
            "/gone" => Reply::status_only(410),
            _ => Reply::ok("no such page").status(404),
        })
    };
    let (_origin, brief) =
        missing("{negative_cache: {ttl: 300ms, statuses: [404]}, ttl: 1d}").await;
    let miss = brief.client().get("/missing").await;
    passed(miss.at, Duration::from_millis(400)).await;
    assert!(!brief.client().get("/missing").await.is_hit());
    let (origin, gateway) = missing("{negative_cache: {ttl: 1d, statuses: [404]}}").await;
    gateway.client().get("/missing").await;
    let again = gateway.client().get("/missing").await;
    assert_eq!((again.status.as_u16(), again.text()), (404, "no such page"));
    assert!(again.is_hit(), "{:?}", again.cache());
    for _ in 0..2 {
        gateway.client().get("/gone").await;
    }
    assert_eq!(
        origin.count_of("/gone"),
        2,
        "410 is not among this route's statuses"
    );
}

#[tokio::test]
async fn a_cookie_is_stripped_before_storing_where_the_route_says_so() {
    let (origin, gateway) = site("{set_cookie: strip}", |_| {
        Reply::fresh("x").header("set-cookie", "session=secret")
    })
    .await;
    for _ in 0..2 {
        assert!(!gateway.client().get("/").await.has("set-cookie"));
    }
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn a_page_that_sets_a_cookie_of_the_key_anew_is_not_stored_for_those_without_it() {
    for set_cookie in ["strip", "keep"] {
        let origin = Origin::pages(|seen| {
            let session = seen.header("cookie").contains("session=alice");
            let reply = Reply::fresh(if session { "members" } else { "guests" });
            match session {
                true => reply.header("set-cookie", "group=member; path=/"),
                false => reply.header("set-cookie", "visit=1"),
            }
        })
        .await;
        let gateway = Setup::new(&origin)
            .route(&format!(
                "{{name: site, upstream: origin, key: {{cookies: [group]}}, policy: {{set_cookie: {set_cookie}}}}}"
            ))
            .start()
            .await;
        for (cookie, body, hit) in [
            ("session=alice", "members", false),
            ("session=alice", "members", false),
            ("a=1", "guests", false),
            ("a=1", "guests", true),
            ("session=alice; group=member", "members", false),
            ("session=alice; group=member", "members", true),
            ("session=alice; group=other", "members", false),
            ("session=alice; group=other", "members", false),
        ] {
            // What is kept may be shown to everybody.
            let client = gateway.client().unchecked();
            let ask = client.request("/").header("cookie", cookie);
            let answer = ask.send().await;
            let found = (answer.text(), answer.is_hit());
            assert_eq!(found, (body, hit), "{set_cookie} {cookie}");
            let shows_one = hit && answer.has("set-cookie");
            assert!(!shows_one || set_cookie == "keep", "{cookie}");
        }
    }
}

#[tokio::test]
async fn request_directives_count_only_where_the_route_honours_them() {
    let origin = Origin::pages(|_| Reply::fresh("x")).await;
    let gateway = Setup::new(&origin)
        .route("{name: open, match: {path: /open*}, upstream: origin, policy: {request_directives: honor}}")
        .route("{name: rest, upstream: origin}")
        .start()
        .await;
    let ask = |path: &'static str, directive: &'static str| {
        gateway
            .client()
            .request(path)
            .header("cache-control", directive)
            .send()
    };
    for path in ["/open", "/rest"] {
        gateway.client().get(path).await;
    }
    assert!(ask("/rest", "no-cache").await.is_hit());
    assert!(ask("/rest", "no-store").await.is_hit());
    assert!(!ask("/open", "no-cache").await.is_hit());
    assert!(!ask("/open", "max-age=0").await.is_hit());
    assert!(ask("/open", "max-age=60").await.is_hit());
    assert_eq!(ask("/open-cold", "only-if-cached").await.status, 504);
    assert_eq!(ask("/rest-cold", "only-if-cached").await.status, 200);
}

#[tokio::test]
async fn max_stale_is_what_the_client_takes_unless_the_response_forbids_it() {
    let (_origin, gateway) = site("{request_directives: honor, stale_if_error: 1h}", |seen| {
        let strict = if seen.path == "/strict" {
            ", must-revalidate"
        } else {
            ""
        };
        Reply::ok("x")
            .header("cache-control", &format!("max-age=60{strict}"))
            .header("age", "100")
    })
    .await;
    for (path, directive, hit) in [
        ("/", "max-stale", true),
        ("/", "max-stale=600", true),
        ("/", "max-stale=600, max-age=600", true),
        ("/", "max-stale=600, max-age=80", false),
        ("/", "max-stale=600, no-cache", false),
        ("/", "max-stale=10", false),
        ("/", "max-age=600", false),
        ("/strict", "max-stale", false),
    ] {
        gateway.client().get(path).await;
        let ask = gateway.client().request(path);
        let answer = ask.header("cache-control", directive).send().await;
        assert_eq!(
            answer.is_hit(),
            hit,
            "{path} {directive}: RFC 9111 §5.2.1.2"
        );
    }
}

#[tokio::test]
async fn a_route_without_a_cache_stores_nothing() {
    let origin = Origin::pages(|_| Reply::fresh("x")).await;
    let gateway = Setup::new(&origin)
        .route("{name: off, upstream: origin, cache: off}")
        .start()
        .await;
    for _ in 0..3 {
        assert!(!gateway.client().uncached().get("/").await.is_hit());
    }
    assert_eq!(origin.count(), 3);
}

#[tokio::test]
async fn the_cache_keeps_to_its_bytes() {
    let origin = Origin::pages(|_| Reply::fresh(vec![b'a'; 64 << 10])).await;
    let gateway = Setup::new(&origin)
        .top("cache", "{l1: {max_bytes: 4MiB, max_object_bytes: 1MiB}}")
        .start()
        .await;
    let client = gateway.client();
    for i in 0..400 {
        client.get(&format!("/{i}")).await;
    }
    gateway
        .metric_until("lamina_cache_bytes", &[("tier", "l1")], |bytes| {
            bytes > 0.0 && bytes <= 4_194_304.0
        })
        .await;
}
