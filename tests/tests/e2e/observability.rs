//! What an operator sees: metrics, the access line, health, and who may change things.

use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::{Setup, site};
use http::Method;
use serde_json::Value;

#[tokio::test]
async fn requests_are_counted_by_route_and_result() {
    let (_origin, gateway) = site("{}", |_| Reply::fresh("x")).await;
    for _ in 0..4 {
        gateway.client().get("/").await;
    }
    gateway
        .metric_until("lamina_requests_total", &[("route", "site")], |n| n == 4.0)
        .await;
    let scrape = gateway.scrape().await;
    assert_eq!(
        scrape.sum(
            "lamina_requests_total",
            &[("route", "site"), ("result", "hit")]
        ),
        3.0
    );
    assert_eq!(
        scrape.sum(
            "lamina_request_duration_seconds_count",
            &[("route", "site")]
        ),
        4.0
    );
}

#[tokio::test]
async fn the_metrics_that_operations_need_are_there() {
    let (_origin, gateway) = site("{}", |_| Reply::fresh("x")).await;
    gateway.client().get("/").await;
    gateway.client().get("/").await;
    let scrape = gateway.scrape().await;
    let names = scrape.names();
    for name in [
        "lamina_requests_total",
        "lamina_cache_lookups_total",
        "lamina_cache_bytes",
        "lamina_cache_entries",
        "lamina_cache_coalesced_requests_total",
        "lamina_cache_loads_total",
        "lamina_build_info",
        "process_resident_memory_bytes",
    ] {
        assert!(names.contains(name), "{name} in {names:?}");
    }
    assert_eq!(scrape.sum("lamina_cache_entries", &[("tier", "l1")]), 1.0);
}

#[tokio::test]
async fn no_label_comes_from_a_request() {
    let (_origin, gateway) = site("{}", |_| {
        Reply::fresh("x").header("surrogate-key", "secret-tag")
    })
    .await;
    gateway
        .client()
        .request("/secret-path?secret-query")
        .header("user-agent", "secret-agent")
        .send()
        .await;
    gateway
        .client()
        .ask("SECRET-METHOD".parse().unwrap(), "/")
        .send()
        .await;
    gateway
        .metric_until("lamina_requests_total", &[("route", "site")], |n| n == 2.0)
        .await;
    let text = gateway.admin(Method::GET, "/metrics", "").await.text;
    assert!(!text.to_lowercase().contains("secret"), "{text}");
}

#[tokio::test]
async fn each_request_is_one_access_line_with_its_fields() {
    let (_origin, gateway) = site("{}", |_| Reply::fresh("x")).await;
    gateway.client().get("/page?token=hush").await;
    gateway.client().get("/page?token=hush").await;
    let line = gateway
        .logged("the access line of a hit", |line| {
            line.contains("/page") && line.contains("hit")
        })
        .await;
    let line: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
    let fields = line.get("fields").unwrap_or(&line);
    for name in ["method", "path", "status", "route", "cache"] {
        assert!(fields.get(name).is_some(), "{name} in {line}");
    }
    assert_eq!(fields["route"], "site");
    assert_eq!(
        gateway
            .log()
            .iter()
            .filter(|line| line.contains("/page"))
            .count(),
        2
    );
}

#[tokio::test]
async fn it_lives_and_is_ready_and_says_so_in_json() {
    let (_origin, gateway) = site("{}", |_| Reply::fresh("x")).await;
    for path in ["/livez", "/readyz"] {
        let answer = gateway.admin(Method::GET, path, "").await;
        assert_eq!(answer.status, 200, "{path}");
        assert!(
            serde_json::from_str::<Value>(&answer.text).is_ok(),
            "{path}: {}",
            answer.text
        );
    }
    assert_eq!(gateway.admin(Method::GET, "/nothing", "").await.status, 404);
}

#[tokio::test]
async fn admin_beyond_loopback_without_a_token_does_not_start() {
    let origin = Origin::pages(|_| Reply::ok("x")).await;
    let setup = Setup::new(&origin).top("admin", "{address: \"0.0.0.0:0\"}");
    let (dir, config) = setup.write();
    let refused = Gateway::try_start(dir, &config, &[])
        .await
        .err()
        .expect("it must not start");
    assert_eq!(refused.code, Some(2));
    assert!(refused.log.contains("token"), "{}", refused.log);
}

#[tokio::test]
async fn with_a_token_changes_need_it_and_reading_does_not_tell_it() {
    let origin = Origin::pages(|_| Reply::fresh("x")).await;
    let gateway = Setup::new(&origin)
        .file("token", "open sesame\n")
        .top("admin", "{address: \"127.0.0.1:0\", token_file: token}")
        .start()
        .await;
    let refused = gateway
        .admin(Method::POST, "/v1/purge", "{\"all\": true}")
        .await;
    assert_eq!(refused.status, 401);
    let in_query = gateway
        .admin(
            Method::POST,
            "/v1/purge?token=open+sesame",
            "{\"all\": true}",
        )
        .await;
    assert_eq!(in_query.status, 401);
    let gateway = gateway.with_token("open sesame");
    assert_eq!(
        gateway
            .admin(Method::POST, "/v1/purge", "{\"all\": true}")
            .await
            .status,
        200
    );
    gateway
        .logged("who did it", |line| {
            line.contains("admin action") && line.contains("\"outcome\":\"done\"")
        })
        .await;
    assert!(
        !gateway.log().join("\n").contains("sesame"),
        "the token is in the log"
    );
}

#[tokio::test]
async fn purges_and_stale_answers_are_counted() {
    let (mut origin, gateway) = site("{stale_if_error: 60s, ttl: 100ms}", |_| Reply::ok("x")).await;
    let first = gateway.client().get("/").await;
    e2e::wait::passed(first.at, std::time::Duration::from_millis(200)).await;
    origin.stop().await;
    gateway.client().get("/").await;
    gateway.purge(serde_json::json!({"tag": "x"})).await;
    let scrape = gateway.scrape().await;
    assert!(
        scrape.sum("lamina_cache_stale_served_total", &[]) >= 1.0,
        "{:?}",
        scrape.names()
    );
    assert_eq!(
        scrape.sum("lamina_cache_purges_total", &[("selector", "tag")]),
        1.0,
        "{:?}",
        scrape.names()
    );
}

#[tokio::test]
async fn requests_without_a_route_have_their_line_with_the_host_of_http2() {
    let origin = Origin::pages(|_| Reply::ok("x")).await;
    let gateway = Setup::new(&origin)
        .route("{name: site, match: {path: /site/*}, upstream: origin}")
        .start()
        .await;
    let lost = gateway.client_http2().uncached();
    assert_eq!(lost.get("/nowhere").await.status, 404);
    gateway
        .logged("the access line of a 404", |line| {
            line.contains("/nowhere")
                && line.contains("404")
                && line.contains("\"host\":\"127.0.0.1")
        })
        .await;
}
