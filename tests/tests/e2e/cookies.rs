//! Lifetimes that the origin did not state, and requests that say who their user is.

use e2e::cli::run;
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::{Setup, site, write_config};

/// Whether the answer to a request with this field is stored, as the next request sees it.
async fn is_stored(gateway: &Gateway, path: &str, name: &str, value: &str) -> bool {
    let ask = || gateway.client().request(path).header(name, value).send();
    let first = ask().await;
    let second = ask().await;
    assert_eq!(
        first.cache().stored,
        second.is_hit(),
        "{path}: {:?}",
        first.cache()
    );
    second.is_hit()
}

/// By path: how the response says its lifetime.
fn said(seen: &e2e::origin::Seen) -> Reply {
    match seen.path_only() {
        "/max-age" => Reply::fresh("x"),
        "/public" => Reply::ok("x").header("cache-control", "public"),
        "/modified" => Reply::ok("x").header("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
        "/tagged" => Reply::ok("x").header("etag", "\"a\""),
        "/absent" => Reply::ok("x").status(404),
        _ => Reply::ok("x"),
    }
}

const COOKIE: (&str, &str) = ("cookie", "session=alice");

#[tokio::test]
async fn a_request_with_credentials_gets_no_lifetime_but_what_the_response_states() {
    let (_origin, gateway) = site("{ttl: 1h, negative_cache: {ttl: 1h}}", said).await;
    for path in ["/silent", "/modified", "/tagged", "/absent", "/public"] {
        let alice = format!("{path}?alice");
        assert!(
            !is_stored(&gateway, &alice, COOKIE.0, COOKIE.1).await,
            "{path}"
        );
        assert!(
            !is_stored(&gateway, &alice, "authorization", "Basic eA==").await,
            "{path}"
        );
        assert!(
            !is_stored(&gateway, &alice, "cookie", "no-name").await,
            "{path}"
        );
        let anybody = format!("{path}?anybody");
        assert!(
            is_stored(&gateway, &anybody, "x-nothing", "").await,
            "{path}"
        );
    }
    assert!(is_stored(&gateway, "/max-age", COOKIE.0, COOKIE.1).await);
}

/// Without a route's `ttl` there is still the lifetime that a cache guesses (RFC 9111 §4.2.2).
#[tokio::test]
async fn a_request_with_credentials_gets_no_guessed_lifetime() {
    let (_origin, gateway) = site("{}", said).await;
    assert!(!is_stored(&gateway, "/modified", COOKIE.0, COOKIE.1).await);
    assert!(is_stored(&gateway, "/modified", "x-nothing", "").await);
}

#[tokio::test]
async fn alices_page_is_not_bobs() {
    let (_origin, gateway) = site("{ttl: 60s, stale_if_error: 5m}", |seen| {
        Reply::ok(format!("hello {}", seen.header("cookie")))
    })
    .await;
    let ask = |who: &'static str| gateway.client().request("/").header("cookie", who).send();
    assert_eq!(ask("alice").await.text(), "hello alice");
    assert_eq!(ask("session=bob").await.text(), "hello session=bob");
    assert_eq!(gateway.client().get("/").await.text(), "hello ");
    assert!(gateway.client().get("/").await.is_hit());
}

async fn gateway(route: &str) -> (Origin, Gateway) {
    let origin = Origin::pages(said).await;
    let route = format!("{{name: site, upstream: origin, {route}}}");
    let gateway = Setup::new(&origin).route(&route).start().await;
    (origin, gateway)
}

#[tokio::test]
async fn a_route_says_what_cookies_mean() {
    for (route, cookie, stored) in [
        ("policy: {ttl: 1h, cookies: ignore}", "session=alice", true),
        (
            "policy: {ttl: 1h, cookies: private}",
            "session=alice",
            false,
        ),
        (
            "policy: {ttl: 1h}, key: {cookies: [plan]}",
            "plan=gold",
            true,
        ),
        (
            "policy: {ttl: 1h}, key: {cookies: [plan, ab]}",
            "ab=1; plan=gold",
            true,
        ),
        // Another cookie may say who the user is.
        (
            "policy: {ttl: 1h}, key: {cookies: [plan]}",
            "plan=gold; session=alice",
            false,
        ),
        ("policy: {ttl: 1h}, key: {cookies: [plan]}", "plan", false),
        (
            "policy: {ttl: 1h}, key: {headers: [Cookie]}",
            "session=alice",
            true,
        ),
        ("policy: {mode: override, ttl: 1h}", "session=alice", true),
        (
            "policy: {mode: override, ttl: 1h, cookies: private}",
            "session=alice",
            false,
        ),
    ] {
        let (_origin, gateway) = gateway(route).await;
        assert_eq!(
            is_stored(&gateway, "/", "cookie", cookie).await,
            stored,
            "{route} {cookie}"
        );
    }
    let (_origin, keyed) = gateway("policy: {ttl: 1h}, key: {headers: [authorization]}").await;
    assert!(is_stored(&keyed, "/", "authorization", "Basic eA==").await);
    let (_origin, ignores) = gateway("policy: {ttl: 1h, cookies: ignore}").await;
    assert!(!is_stored(&ignores, "/public", "authorization", "Basic eA==").await);
}

/// A mode that stores whatever the response says does not store over a rule for cookies.
#[tokio::test]
async fn a_cookie_rule_beside_override_leaves_the_response_its_word() {
    let (_origin, gateway) = site("{mode: override, ttl: 1h, cookies: private}", |seen| {
        Reply::ok("x").header("cache-control", seen.path.trim_start_matches('/'))
    })
    .await;
    assert!(!is_stored(&gateway, "/no-store", COOKIE.0, COOKIE.1).await);
    assert!(!is_stored(&gateway, "/private", COOKIE.0, COOKIE.1).await);
    assert!(is_stored(&gateway, "/max-age=60", COOKIE.0, COOKIE.1).await);
    assert!(is_stored(&gateway, "/no-store", "x-nothing", "").await);
}

/// Followers without cookies share one load behind a leader with some, and the copy that
/// one of them brought is served to all.
#[tokio::test]
async fn a_refresh_for_a_reader_with_cookies_renews_the_page_for_everybody() {
    let (origin, gateway) = site("{ttl: 100ms, stale_while_revalidate: 1d}", |_| {
        Reply::ok("x")
    })
    .await;
    let first = gateway.client().get("/").await;
    e2e::wait::passed(first.at, std::time::Duration::from_millis(200)).await;
    let reader = gateway
        .client()
        .request("/")
        .header(COOKIE.0, COOKIE.1)
        .send()
        .await;
    assert!(reader.is_hit());
    origin.saw(2).await;
    gateway
        .metric_until("lamina_cache_sets_total", &[], |sets| sets >= 2.0)
        .await;
}

fn yaml(policy: &str, key: &str) -> String {
    format!(
        "version: 1\nlisteners: [{{address: \"127.0.0.1:0\"}}]\nadmin: {{address: \"127.0.0.1:0\"}}\n\
         upstreams: {{origin: \"http://127.0.0.1:9\"}}\nroutes:\n  - name: site\n    upstream: origin\n    \
         policy: {policy}\n    key: {key}\n"
    )
}

fn command(name: &str, yaml: &str, further: &[&str]) -> e2e::cli::Ran {
    let dir = tempfile::tempdir().unwrap();
    let config = write_config(dir.path(), yaml);
    let mut arguments = vec![name, "-c", config.to_str().unwrap()];
    arguments.extend(further);
    run(&arguments)
}

#[test]
fn validate_warns_of_override_without_a_cookie_rule() {
    for (policy, key, warned) in [
        ("{mode: override, ttl: 1m}", "{}", true),
        ("{mode: override, ttl: 1m, cookies: ignore}", "{}", false),
        ("{mode: override, ttl: 1m, cookies: private}", "{}", false),
        ("{mode: override, ttl: 1m}", "{cookies: [plan]}", false),
        ("{mode: override, ttl: 1m}", "{headers: [Cookie]}", false),
        ("{mode: respect, ttl: 1m}", "{}", false),
    ] {
        let ran = command("validate", &yaml(policy, key), &[]);
        assert_eq!(ran.code, Some(0), "{}", ran.output());
        let told = ran.output().contains("warning: ");
        assert_eq!(told, warned, "{policy} {key}: {}", ran.output());
        if warned {
            let place = "lamina.yaml:8:20";
            assert!(ran.output().contains(place), "{}", ran.output());
            assert!(ran.output().contains("cookies: ignore"), "{}", ran.output());
        }
    }
}

#[test]
fn explain_says_what_cookies_mean_for_the_lifetime() {
    let url = "http://a.example/";
    let rule = command("explain", &yaml("{ttl: 1m}", "{}"), &[url]);
    assert!(
        rule.output().contains("cookies: private"),
        "{}",
        rule.output()
    );
    let own = ["-H", "Cookie: session=alice", url];
    let own = command("explain", &yaml("{ttl: 1m}", "{}"), &own);
    assert!(
        own.output().contains("this request has cookies"),
        "{}",
        own.output()
    );
    let ignored = command("explain", &yaml("{ttl: 1m, cookies: ignore}", "{}"), &[url]);
    assert!(
        ignored.output().contains("cookies: ignore"),
        "{}",
        ignored.output()
    );
}
