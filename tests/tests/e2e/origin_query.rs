//! What the key leaves out of a query does not reach the origin either.

use std::sync::Mutex;

use e2e::cli;
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;

const EVIL: &str = "/?q=tea&utm_source=EVIL";
const GOOD: &str = "/?utm_source=mail&q=tea";

/// An origin whose pages repeat the URL, and a gateway with this key rule.
async fn echo(rest: &str) -> (Origin, Gateway) {
    let origin = Origin::pages(|seen| Reply::fresh(seen.path.clone())).await;
    let gateway = Setup::new(&origin)
        .route(&format!("{{name: site, upstream: origin, {rest}}}"))
        .start()
        .await;
    (origin, gateway)
}

/// The same with `utm_*` left out of the key, and pages that are stale at once below `/stale`; all
/// others have this `Cache-Control`.
async fn stale_or(others: &'static str) -> (Origin, Gateway) {
    let origin = Origin::pages(move |seen| {
        let life = match seen.path.starts_with("/stale") {
            true => "max-age=0, stale-while-revalidate=86400",
            false => others,
        };
        Reply::ok(seen.path.clone()).header("cache-control", life)
    })
    .await;
    let gateway = Setup::new(&origin)
        .route("{name: site, upstream: origin, key: {query: {drop: [\"utm_*\"]}}}")
        .start()
        .await;
    (origin, gateway)
}

/// The same with the shipped `normalize-query`.
async fn echo_by_plugin(config: &str, rest: &str) -> (Origin, Gateway) {
    let origin = Origin::pages(|seen| Reply::fresh(seen.path.clone())).await;
    let file = cli::repository().join("plugins/dist/normalize-query.wasm");
    let plugin =
        format!("{{p: {{file: {file:?}, config: {config}, limits: {{key_timeout: 10s}}}}}}");
    let gateway = Setup::new(&origin)
        .top("plugins", &plugin)
        .route(&format!(
            "{{name: site, upstream: origin, key: {{plugin: p}}, {rest}}}"
        ))
        .start()
        .await;
    (origin, gateway)
}

async fn gets(gateway: &Gateway, target: &str) -> String {
    gateway.client().get(target).await.text().to_owned()
}

#[tokio::test]
async fn nothing_that_one_client_adds_gets_into_the_page_of_another() {
    for rule in [
        "{drop: [\"utm_*\"]}",
        "{include: [q]}",
        "{drop: [\"utm_*\"], sort: true}",
    ] {
        let (origin, gateway) = echo(&format!("key: {{query: {rule}}}")).await;
        assert_eq!(gets(&gateway, EVIL).await, "/?q=tea", "{rule}");
        let other = gateway.client().get(GOOD).await;
        assert!(other.is_hit() && other.text() == "/?q=tea", "{rule}");
        assert_eq!(gets(&gateway, "/?utm%5Fsource=EVIL").await, "/", "{rule}");
        assert_eq!(origin.count(), 2, "{rule}");
    }
}

/// A body that is announced and turns out to be empty makes no other request of it.
#[tokio::test]
async fn a_body_that_never_comes_does_not_carry_more_to_the_origin() {
    let (origin, gateway) = stale_or("max-age=3600").await;
    let asks = async |target: &str| {
        let mut connection = gateway.raw().await;
        let announced = format!(
            "GET {target} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
        );
        connection.write(announced).await;
        String::from_utf8(connection.to_end().await).unwrap()
    };
    for page in ["/page", "/stale"] {
        let first = asks(&format!("{page}?q=tea&utm_source=EVIL")).await;
        assert!(first.starts_with("HTTP/1.1 200"), "{first}");
        assert!(first.ends_with(&format!("{page}?q=tea")), "{first}");
    }
    // A stale copy is served, and refreshed behind it.
    asks("/stale?q=tea&utm_source=EVIL").await;
    origin.saw(3).await;
    for seen in origin.seen() {
        assert!(!seen.path.contains("EVIL"), "{}", seen.path);
    }
}

#[tokio::test]
async fn two_requests_with_one_key_send_one_query() {
    let (_origin, gateway) = echo("key: {query: {sort: true}}").await;
    assert_eq!(gets(&gateway, "/?b=2&a=1").await, "/?a=1&b=2");
}

#[tokio::test]
async fn a_declared_plugin_key_is_what_the_origin_gets() {
    let config = "{drop: [\"utm_*\"], declarative: true}";
    let (_origin, gateway) = echo_by_plugin(config, "").await;
    assert_eq!(gets(&gateway, EVIL).await, "/?q=tea");
    assert!(gateway.client().get(GOOD).await.is_hit());
}

#[tokio::test]
async fn a_refresh_and_an_answer_for_one_client_send_no_more() {
    let (origin, gateway) = stale_or("private").await;
    for path in ["/private", "/stale"] {
        for _ in 0..3 {
            gateway
                .client()
                .get(&format!("{path}?utm_source=EVIL"))
                .await;
        }
        let range = gateway.client().request(&format!("{path}?utm_source=EVIL"));
        range.header("range", "bytes=0-1").send().await;
    }
    origin.saw(6).await;
    for seen in origin.seen() {
        assert!(!seen.path.contains("EVIL"), "{}", seen.path);
    }
}

#[tokio::test]
async fn what_is_not_looked_up_goes_on_as_it_came() {
    let (origin, gateway) = echo("key: {query: {drop: [\"utm_*\"]}}").await;
    gateway.client().post(EVIL, "x").await;
    assert_eq!(origin.last().path, EVIL);
    let (origin, gateway) = echo("cache: off, key: {query: {drop: [\"utm_*\"]}}").await;
    gateway.client().get(EVIL).await;
    assert_eq!(origin.last().path, EVIL);
}

/// What a POST sent beside the key is in its answer, too.
#[tokio::test]
async fn the_answer_to_a_post_that_sent_more_than_the_key_holds_is_no_page() {
    let origin = Origin::pages(|seen| {
        Reply::fresh(seen.path.clone()).header("content-location", &seen.path)
    })
    .await;
    let gateway = Setup::new(&origin)
        .route(
            "{name: site, upstream: origin, policy: {store_post: true}, \
             key: {query: {drop: [\"utm_*\"]}}}",
        )
        .start()
        .await;
    gateway.client().post(EVIL, "x").await;
    let page = gateway.client().get(GOOD).await;
    assert_eq!((page.text(), page.is_hit()), ("/?q=tea", false));
    gateway.client().post("/?q=milk", "x").await;
    assert!(gateway.client().get("/?q=milk").await.is_hit());
}

#[tokio::test]
async fn as_sent_is_a_word_with_a_warning() {
    let rule = "key: {query: {drop: [\"utm_*\"]}, origin_query: as_sent}";
    let (_origin, gateway) = echo(rule).await;
    assert_eq!(gets(&gateway, EVIL).await, EVIL);
    let warned = |line: &str| line.contains("WARN") && line.contains("origin_query");
    gateway.logged("a warning", warned).await;
}

#[tokio::test]
async fn code_that_leaves_a_parameter_out_of_its_key_is_watched() {
    let config = "{drop: [\"utm_*\"]}";
    let (_origin, gateway) = echo_by_plugin(config, "").await;
    assert_eq!(gets(&gateway, EVIL).await, EVIL);
    let told = |line: &str| line.contains("query parameter `utm_source`");
    gateway.logged("a warning", told).await;
    assert!(
        !gateway
            .log()
            .iter()
            .any(|line| line.contains("parameter `q`"))
    );
    let labels = [("route", "site"), ("plugin", "p")];
    assert_eq!(
        gateway.metric("lamina_plugin_unkeyed_total", &labels).await,
        1.0
    );

    let (origin, gateway) = echo_by_plugin(config, "unkeyed: refuse_store").await;
    let evil = gateway.client().get(EVIL).await;
    assert_eq!(evil.cache().detail.as_deref(), Some("unkeyed"));
    assert_eq!(gets(&gateway, "/?q=tea").await, "/?q=tea");
    assert!(gateway.client().get("/?q=tea").await.is_hit());
    assert_eq!(origin.count(), 2);
}

#[tokio::test]
async fn explain_says_what_the_origin_gets() {
    let (_origin, gateway) = echo("key: {query: {drop: [\"utm_*\"]}}").await;
    let url = format!("http://{}{EVIL}", gateway.address);
    let asked = serde_json::json!({ "url": url }).to_string();
    let said = gateway
        .admin(http::Method::POST, "/v1/explain", &asked)
        .await;
    let said: serde_json::Value = serde_json::from_str(&said.text).unwrap();
    assert_eq!(said["key"]["origin_gets"], "/?q=tea");
}

/// Guards against a filter that is not the key's own: whatever a client writes, two requests
/// that share an answer have sent the same.
#[tokio::test]
async fn odd_spellings_share_an_answer_only_if_they_send_the_same() {
    let sent = std::sync::Arc::new(Mutex::new(Vec::new()));
    let seen_paths = std::sync::Arc::clone(&sent);
    let origin = Origin::pages(move |seen| {
        seen_paths.lock().unwrap().push(seen.path.clone());
        Reply::fresh(seen.path.clone())
    })
    .await;
    let gateway = Setup::new(&origin)
        .route("{name: site, upstream: origin, key: {query: {drop: [\"utm_*\"], include: [q, \"utm_*\"]}}}")
        .start()
        .await;
    for query in [
        "q=1",
        "q=1&",
        "&q=1",
        "q=1&&",
        "q=1&utm_a=1;x=2",
        "utm_a=1;x=2&q=1",
        "q=1&%75tm_a=2",
        "q",
        "q=",
        "",
        "x",
        "utm_",
    ] {
        let target = format!("/?{query}");
        let got = gets(&gateway, &target).await;
        let known = sent.lock().unwrap().clone();
        assert!(known.contains(&got), "{target}: {got}");
        let drops = got.contains("utm_") && !got.contains(';');
        assert!(!drops, "{target}: {got}");
    }
    let mut known = sent.lock().unwrap().clone();
    let all = known.len();
    known.sort();
    known.dedup();
    assert_eq!(known.len(), all, "each query was sent once: {known:?}");
}
