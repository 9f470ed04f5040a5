//! A request plugin that identifies users: what the client said of itself counts after the
//! plugin took it away, and what the plugin says instead is watched like anything else that
//! makes answers differ.

use e2e::cli;
use e2e::client::Answer;
use e2e::gateway::Gateway;
use e2e::guest;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use serde_json::{Value, json};

/// An origin whose page is the user's own, and says this of itself; and a plugin that makes
/// of `authorization`, which it removes, `x-user`.
async fn identified(cache_control: &'static str, route: &str) -> (Origin, Gateway) {
    let origin = Origin::pages(move |seen| {
        assert_eq!(seen.header("authorization"), "", "the plugin takes it away");
        let page = Reply::ok(format!("page of {}", seen.header("x-user")));
        match cache_control {
            "" => page,
            _ => page.header("cache-control", cache_control),
        }
    })
    .await;
    let gateway = setup(&origin, route).start().await;
    (origin, gateway)
}

fn setup(origin: &Origin, route: &str) -> Setup {
    let rule = "{copy: {x-user: authorization}, remove: [authorization]}";
    Setup::new(origin)
        .file("p.wasm", guest::built("asker"))
        .top(
            "plugins",
            &format!("{{p: {{file: p.wasm, config: {{reads: [authorization], rules: {{/: {rule}}}}}, on_error: {{request: refuse}}, limits: {{hook_timeout: 10s}}}}}}"),
        )
        .route(&format!("{{name: site, upstream: origin, request: {{plugin: p}}{route}}}"))
}

async fn get(gateway: &Gateway, user: &str) -> Answer {
    let request = gateway.client().request("/");
    request.header("authorization", user).send().await
}

async fn unkeyed_loads(gateway: &Gateway) -> f64 {
    let labels = [("route", "site"), ("plugin", "p")];
    gateway.metric("lamina_plugin_unkeyed_total", &labels).await
}

#[tokio::test]
async fn what_a_plugin_made_of_authorization_is_not_shared() {
    for (cache_control, route, why) in [
        ("max-age=60", "", "authorization"),
        (
            "max-age=60",
            ", policy: {mode: cap, ttl: 1h}",
            "authorization",
        ),
        ("", ", policy: {ttl: 1h}", "authorization"),
        // What holds the header as it is after the plugin holds nothing of it.
        (
            "max-age=60",
            ", key: {headers: [authorization]}",
            "authorization",
        ),
    ] {
        let (origin, gateway) = identified(cache_control, route).await;
        for user in ["alice", "bob", "alice"] {
            let answer = get(&gateway, user).await;
            assert_eq!(answer.text(), format!("page of {user}"), "{route}");
            // Those that come after the first need not queue.
            let detail = answer.cache().detail;
            let wanted = [Some(why), Some("hit-for-miss")];
            assert!(wanted.contains(&detail.as_deref()), "{route}: {detail:?}");
        }
        assert_eq!(origin.count(), 3, "{route}");
    }
}

#[tokio::test]
async fn a_stale_page_is_not_refreshed_with_the_page_of_a_user() {
    let (_origin, gateway) = identified(
        "max-age=0, stale-while-revalidate=600",
        ", policy: {stale_while_revalidate: 10m}",
    )
    .await;
    assert_eq!(gateway.client().get("/").await.text(), "page of ");
    // Answered stale, and refreshed behind it.
    get(&gateway, "bob").await;
    gateway
        .metric_until("lamina_cache_loads_total", &[("outcome", "start")], |n| {
            n == 2.0
        })
        .await;
    gateway
        .metric_until("lamina_cache_flights", &[], |n| n == 0.0)
        .await;
    assert_eq!(gateway.client().get("/").await.text(), "page of ");
}

#[tokio::test]
async fn it_is_shared_by_those_alone_whom_the_key_holds() {
    for cache_control in ["max-age=60", ""] {
        let keyed = ", key: {headers: [x-user]}, policy: {ttl: 1h}";
        let (origin, gateway) = identified(cache_control, keyed).await;
        for user in ["alice", "bob", "alice", "bob"] {
            assert_eq!(get(&gateway, user).await.text(), format!("page of {user}"));
        }
        assert_eq!(origin.count(), 2);
        assert_eq!(unkeyed_loads(&gateway).await, 0.0);
    }
}

#[tokio::test]
async fn what_a_plugin_sets_is_watched_as_what_a_plugin_sees_is() {
    let public = "public, max-age=60";
    let (origin, gateway) = identified(public, "").await;
    assert_eq!(get(&gateway, "alice").await.text(), "page of alice");
    // It says itself that it may be shared.
    assert_eq!(get(&gateway, "bob").await.text(), "page of alice");
    assert_eq!((origin.count(), unkeyed_loads(&gateway).await), (1, 1.0));
    let line = gateway
        .logged("a warning", |line| {
            line.contains("the cache key does not contain")
        })
        .await;
    assert!(
        line.contains("sets for the origin") && line.contains("x-user"),
        "{line}"
    );

    let (origin, gateway) = identified(public, ", unkeyed: vary").await;
    for user in ["alice", "bob", "alice", "bob"] {
        let answer = get(&gateway, user).await;
        assert_eq!(answer.text(), format!("page of {user}"));
        assert_eq!(answer.header("vary"), "x-user");
    }
    assert_eq!(origin.count(), 2);

    let (origin, gateway) = identified(public, ", unkeyed: refuse_store").await;
    for user in ["alice", "bob", "alice"] {
        let answer = get(&gateway, user).await;
        assert_eq!(answer.text(), format!("page of {user}"));
        assert_eq!(answer.cache().detail.as_deref(), Some("unkeyed"));
    }
    assert_eq!(origin.count(), 3);

    let (_origin, gateway) = identified(public, ", unkeyed: allow").await;
    get(&gateway, "alice").await;
    assert_eq!(get(&gateway, "bob").await.text(), "page of alice");
    assert_eq!(unkeyed_loads(&gateway).await, 0.0);
}

#[tokio::test]
async fn explain_tells_what_the_plugin_sets_and_what_follows() {
    let (_origin, gateway) = identified("max-age=60", ", policy: {ttl: 1h}").await;
    let url = format!("http://{}/", gateway.address);
    let asked = json!({"url": url, "headers": {"authorization": "alice"}});
    let answer = gateway
        .admin(http::Method::POST, "/v1/explain", &asked.to_string())
        .await;
    let explained: Value = serde_json::from_str(&answer.text).unwrap();
    let line = explained["unkeyed"][0].as_str().unwrap();
    assert!(
        line.contains("`x-user`: plugin p sets it for the origin"),
        "{line}"
    );
    let lifetime = explained["lifetime"].to_string();
    assert!(
        lifetime.contains("this request has Authorization"),
        "{lifetime}"
    );
}

#[tokio::test]
async fn a_component_that_does_not_say_what_it_reads_cannot_be_watched_so_strictly() {
    let origin = Origin::pages(|_| Reply::ok("x")).await;
    for word in ["vary", "refuse_store"] {
        let (_dir, config) = Setup::new(&origin)
            .file("h.wasm", guest::built("web"))
            .top("plugins", "{h: {file: h.wasm, fetch: [origin]}}")
            .route(&format!(
                "{{name: site, upstream: origin, loader: {{plugin: h}}, unkeyed: {word}}}"
            ))
            .write();
        let ran = cli::run(&["validate", "-c", config.to_str().unwrap()]);
        assert!(ran.code.is_some_and(|code| code != 0), "{}", ran.output());
        assert!(
            ran.output().contains(&format!("unkeyed: {word}"))
                && ran.output().contains("wasi:http"),
            "{}",
            ran.output()
        );
    }
}
