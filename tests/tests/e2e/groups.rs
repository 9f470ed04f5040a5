//! Cache groups (RFC 9875): an unsafe request's answer takes what belongs together.

use std::collections::BTreeMap;

use e2e::gateway::Gateway;
use e2e::origin::{Origin, Seen};
use e2e::reply::Reply;
use e2e::setup::{Setup, site};

/// `/NAME` belongs to the group that `groups` gives it; a POST answers as its query says.
fn shop(seen: &Seen) -> Reply {
    let groups = BTreeMap::from([
        ("/list", "\"items\", \"front\""),
        ("/item", "\"items\";v=1"),
        ("/help", "\"front\""),
        ("/lone", "items"),
    ]);
    let reply = match seen.method.as_str() {
        "POST" | "DELETE" => Reply::ok("done"),
        _ => Reply::fresh("x"),
    };
    match (seen.method.as_str(), groups.get(seen.path_only())) {
        ("GET", Some(groups)) => reply.header("cache-groups", groups),
        (_, _) if seen.path.contains("fail") => reply
            .status(500)
            .header("cache-group-invalidation", "\"front\""),
        (_, _) if seen.path.contains("act") => {
            reply.header("cache-group-invalidation", "\"front\", other")
        }
        _ => reply,
    }
}

const PAGES: [&str; 4] = ["/list", "/item", "/help", "/lone"];

async fn warm(gateway: &Gateway) {
    for path in PAGES {
        gateway.client().get(path).await;
        assert!(gateway.client().get(path).await.is_hit(), "{path}");
    }
}

async fn kept(gateway: &Gateway) -> Vec<&'static str> {
    let mut kept = Vec::new();
    for path in PAGES {
        let ask = gateway.client().request(path);
        if ask.send().await.is_hit() {
            kept.push(path);
        }
    }
    kept
}

#[tokio::test]
async fn the_answer_to_an_unsafe_request_invalidates_the_groups_that_it_names() {
    let (_origin, gateway) = site("{}", shop).await;
    for act in ["/act", "/fail"] {
        warm(&gateway).await;
        gateway.client().post(act, "").await;
        assert_eq!(kept(&gateway).await, ["/item", "/lone"], "{act}");
    }
}

#[tokio::test]
async fn a_safe_requests_answer_invalidates_no_group() {
    let (_origin, gateway) = site("{}", shop).await;
    warm(&gateway).await;
    gateway.client().get("/act").await;
    assert_eq!(kept(&gateway).await, PAGES);
}

#[tokio::test]
async fn what_an_unsafe_request_changed_takes_its_groups_along_and_these_go_no_further() {
    let (_origin, gateway) = site("{}", shop).await;
    warm(&gateway).await;
    gateway.client().post("/item", "").await;
    assert_eq!(
        kept(&gateway).await,
        ["/help", "/lone"],
        "/list shares `items` with it; that /help shares `front` with /list is another matter"
    );
}

#[tokio::test]
async fn the_client_gets_the_groups_and_a_304_keeps_them() {
    let (_origin, gateway) = site("{}", |seen| {
        let reply = match (seen.method.as_str(), seen.header("if-none-match")) {
            ("POST", _) => return Reply::ok("").header("cache-group-invalidation", "\"g\""),
            (_, "") => Reply::ok("x")
                .header("cache-groups", "\"g\"")
                .header("surrogate-key", "t"),
            _ => Reply::status_only(304),
        };
        reply
            .header("etag", "\"1\"")
            .header("cache-control", "no-cache")
    })
    .await;
    let client = gateway.client();
    let validated = async || {
        client.get("/").await;
        client.get("/").await.cache().forwarded_as("stale")
    };
    assert_eq!(client.get("/").await.header("cache-groups"), "\"g\"");
    assert!(validated().await);
    client.post("/p", "").await;
    assert!(client.get("/").await.cache().forwarded_as("uri-miss"));
    assert!(validated().await);
    gateway.purge(serde_json::json!({"tag": "t"})).await;
    assert!(client.get("/").await.cache().forwarded_as("uri-miss"));
}

#[tokio::test]
async fn groups_of_one_host_are_nothing_to_another() {
    let origin = Origin::pages(shop).await;
    let gateway = Setup::new(&origin).start().await;
    warm(&gateway).await;
    let act = gateway.client().ask("POST".parse().unwrap(), "/act");
    act.host("other.example").send().await;
    assert_eq!(kept(&gateway).await, PAGES);
}
