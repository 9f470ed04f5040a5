//! Plugins seen from outside: the shipped ones do their work, a bad one harms only its own route.

use std::path::PathBuf;
use std::sync::Arc;

use e2e::client::herd;
use e2e::gate::meet;
use e2e::gateway::Gateway;
use e2e::guest;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use tokio::sync::Barrier;

/// A shipped plugin that `plugins/build.sh` has built.
fn shipped(name: &str) -> PathBuf {
    let file = e2e::cli::repository()
        .join("plugins/dist")
        .join(format!("{name}.wasm"));
    assert!(
        file.exists(),
        "{} is not there: run plugins/build.sh first",
        file.display()
    );
    file.canonicalize().unwrap()
}

/// The default is for keys that are made in microseconds, not on a busy machine.
const PATIENT: &str = "{key_timeout: 10s, load_timeout: 10m}";

/// One plugin, named `p`, and one route that derives its key with it.
async fn keyed(origin: &Origin, file: &str, config: &str) -> Gateway {
    Setup::new(origin)
        .top(
            "plugins",
            &format!("{{p: {{file: \"{file}\", config: {config}, limits: {PATIENT}}}}}"),
        )
        .route("{name: site, upstream: origin, key: {plugin: p}}")
        .start()
        .await
}

#[tokio::test]
async fn normalize_query_makes_one_entry_of_urls_that_differ_in_tracking_alone() {
    let origin = Origin::pages(|seen| Reply::fresh(seen.path.clone())).await;
    let file = shipped("normalize-query");
    let gateway = keyed(
        &origin,
        file.to_str().unwrap(),
        "{drop: [\"utm_*\", gclid]}",
    )
    .await;
    let client = gateway.client();
    let first = client.get("/search?q=tea&utm_source=letter").await;
    assert!(
        first.cache().forwarded_as("uri-miss"),
        "{:?}",
        first.cache()
    );
    for same in [
        "/search?utm_campaign=x&q=tea",
        "/search?q=tea",
        "/search?q=tea&gclid=123",
    ] {
        assert!(client.get(same).await.is_hit(), "{same}");
    }
    for other in ["/search?q=coffee", "/search", "/Search?q=tea"] {
        assert!(!client.get(other).await.is_hit(), "{other}");
    }
    assert_eq!(origin.count(), 4);
    assert_eq!(
        origin.seen()[0].path,
        "/search?q=tea&utm_source=letter",
        "the origin gets the URL as it was"
    );
}

#[tokio::test]
async fn device_class_keeps_phones_and_desktops_apart() {
    let origin = Origin::pages(|seen| Reply::fresh(seen.header("user-agent").to_owned())).await;
    let file = shipped("device-class");
    let gateway = keyed(&origin, file.to_str().unwrap(), "{languages: [en, de]}").await;
    let ask = |agent: &'static str, language: &'static str| {
        gateway
            .client()
            .request("/")
            .header("user-agent", agent)
            .header("accept-language", language)
            .send()
    };
    let phone =
        "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148";
    let desktop = "Mozilla/5.0 (X11; Linux x86_64; rv:125.0) Gecko/20100101 Firefox/125.0";
    let other_desktop =
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:126.0) Gecko/20100101 Firefox/126.0";
    assert_eq!(ask(phone, "en").await.text(), phone);
    assert_eq!(ask(desktop, "en").await.text(), desktop);
    assert!(ask(phone, "en-GB, de;q=0.5").await.is_hit());
    assert!(ask(other_desktop, "en").await.is_hit());
    assert!(!ask(desktop, "de").await.is_hit());
    assert_eq!(origin.count(), 3);
}

#[tokio::test]
async fn api_compose_fetches_both_parts_at_once_into_one_document() {
    let both = Arc::new(Barrier::new(2));
    let origin = Origin::start(move |asked| {
        let both = both.clone();
        async move {
            meet(&both).await;
            Reply::ok(format!("{{\"at\": \"{}\"}}", asked.seen.path))
                .header("content-type", "application/json")
        }
    })
    .await;
    let parts = "{user: {upstream: origin, path: \"/api/user/{1}\"}, orders: {upstream: origin, path: \"/api/orders/{1}\"}}";
    let file = shipped("api-compose");
    let gateway = Setup::new(&origin)
        .top(
            "plugins",
            &format!("{{compose: {{file: \"{}\", fetch: [origin], limits: {PATIENT}, config: {{parts: {parts}}}}}}}", file.display()),
        )
        .route("{name: account, match: {path: /account/*}, loader: {plugin: compose}, policy: {mode: override, ttl: 1d}}")
        .start()
        .await;
    let miss = gateway.client().get("/account/42").await;
    assert_eq!(miss.status, 200, "{}", miss.text());
    assert_eq!(miss.json()["user"]["at"], "/api/user/42");
    assert_eq!(miss.json()["orders"]["at"], "/api/orders/42");
    assert_eq!(origin.most_at_once(), 2);
    let hit = gateway.client().get("/account/42").await;
    assert!(hit.is_hit());
    assert_eq!((hit.json(), origin.count()), (miss.json(), 2));
}

#[tokio::test]
async fn a_herd_on_a_composed_page_is_one_load() {
    let origin =
        Origin::pages(|_| Reply::ok("{}").header("content-type", "application/json")).await;
    let parts = "{one: {upstream: origin, path: \"/one\"}}";
    let file = shipped("api-compose");
    let gateway = Setup::new(&origin)
        .top(
            "plugins",
            &format!(
                "{{c: {{file: \"{}\", fetch: [origin], limits: {PATIENT}, config: {{parts: {parts}}}}}}}",
                file.display()
            ),
        )
        .route("{name: page, loader: {plugin: c}, policy: {mode: override, ttl: 1d}}")
        .start()
        .await;
    for answer in herd(&gateway.client(), 100, "/account/1").await {
        assert_eq!(answer.unwrap().status, 200);
    }
    assert_eq!(origin.count(), 1);
}

/// The body streams past the plugin; no credentials of a client reach the origin.
#[tokio::test]
async fn a_signed_load_reaches_the_origin_with_the_plugins_credentials_alone() {
    let origin = Origin::pages(|_| Reply::fresh("a file")).await;
    let file = shipped("signed-origin");
    let config =
        "{host: files.example, region: eu-1, prefix: /bucket, access_key: AK, secret_key: SK}";
    let gateway = Setup::new(&origin)
        .top(
            "plugins",
            &format!(
                "{{sign: {{file: \"{}\", grant: [clock], limits: {PATIENT}, config: {config}}}}}",
                file.display()
            ),
        )
        .route("{name: files, upstream: origin, loader: {plugin: sign}}")
        .start()
        .await;
    let ask = gateway.client().request("/a.txt?v=1");
    let answer = ask
        .header("x-amz-date", "mine")
        .header("accept", "text/plain")
        .send()
        .await;
    assert_eq!((answer.status.as_u16(), answer.text()), (200, "a file"));
    let seen = origin.last();
    assert_eq!(seen.path, "/bucket/a.txt?v=1");
    assert_eq!(seen.header("accept"), "text/plain");
    assert_ne!(seen.header("x-amz-date"), "mine");
    let signed = seen.header("authorization");
    assert!(
        signed.starts_with("AWS4-HMAC-SHA256 Credential=AK/"),
        "{signed}"
    );
    assert!(gateway.client().get("/a.txt?v=1").await.is_hit());
}

#[tokio::test]
async fn a_missing_file_stops_the_start_and_is_named() {
    let origin = Origin::pages(|_| Reply::ok("x")).await;
    let setup = Setup::new(&origin)
        .top("plugins", "{ghost: {file: nowhere.wasm}}")
        .route("{name: site, upstream: origin, key: {plugin: ghost}}");
    let (dir, config) = setup.write();
    let refused = Gateway::try_start(dir, &config, &[])
        .await
        .err()
        .expect("it must not start");
    assert!(refused.code.is_some_and(|code| code != 0));
    assert!(
        refused.log.contains("ghost") && refused.log.contains("nowhere.wasm"),
        "{}",
        refused.log
    );
}

#[tokio::test]
async fn a_file_that_is_not_wasm_stops_the_start_and_is_named() {
    let origin = Origin::pages(|_| Reply::ok("x")).await;
    let setup = Setup::new(&origin)
        .file("text.wasm", "hello")
        .top("plugins", "{odd: {file: text.wasm}}")
        .route("{name: site, upstream: origin, key: {plugin: odd}}");
    let (dir, config) = setup.write();
    let refused = Gateway::try_start(dir, &config, &[])
        .await
        .err()
        .expect("it must not start");
    assert!(refused.log.contains("odd"), "{}", refused.log);
}

/// A bad guest as key and as loader, and a plain route beside it.
async fn beside_a_bad_guest(wasm: Vec<u8>, limits: &str, on_error: &str) -> (Origin, Gateway) {
    let origin = Origin::pages(|seen| Reply::fresh(seen.path.clone())).await;
    let gateway = Setup::new(&origin)
        .file("bad.wasm", wasm)
        .top(
            "plugins",
            &format!("{{bad: {{file: bad.wasm, quarantine: {{failures: 0}}, limits: {limits}, on_error: {on_error}}}}}"),
        )
        .route("{name: keyed, match: {path: /keyed/*}, upstream: origin, key: {plugin: bad}}")
        .route("{name: loaded, match: {path: /loaded/*}, upstream: origin, loader: {plugin: bad}}")
        .route("{name: plain, upstream: origin}")
        .start()
        .await;
    (origin, gateway)
}

#[tokio::test]
async fn a_trap_in_a_key_bypasses_the_cache_and_in_a_loader_is_a_502() {
    let (origin, gateway) = beside_a_bad_guest(guest::trapping(), PATIENT, "{}").await;
    for _ in 0..2 {
        let answer = gateway.client().get("/keyed/x").await;
        assert_eq!(answer.text(), "/keyed/x");
        assert!(
            answer.cache().forwarded_as("bypass"),
            "{:?}",
            answer.cache()
        );
    }
    assert_eq!(gateway.client().get("/loaded/x").await.status, 502);
    assert_eq!(origin.count(), 2);
}

#[tokio::test]
async fn on_error_decides_what_a_failed_call_becomes() {
    let (_origin, gateway) = beside_a_bad_guest(
        guest::trapping(),
        PATIENT,
        "{key: default_key, loader: origin}",
    )
    .await;
    gateway.client().get("/keyed/x").await;
    assert!(gateway.client().get("/keyed/x").await.is_hit());
    assert_eq!(gateway.client().get("/loaded/x").await.text(), "/loaded/x");
    let (_origin, gateway) =
        beside_a_bad_guest(guest::trapping(), PATIENT, "{key: refuse, loader: error}").await;
    assert_eq!(gateway.client().get("/keyed/x").await.status, 500);
    assert_eq!(gateway.client().get("/loaded/x").await.status, 502);
}

#[tokio::test]
async fn a_thousand_trapping_calls_harm_only_their_route_and_leave_memory_flat() {
    let (_origin, gateway) = beside_a_bad_guest(guest::trapping(), PATIENT, "{}").await;
    let client = gateway.client();
    let trap = async |from: usize| {
        for i in from..from + 250 {
            assert_eq!(client.get(&format!("/keyed/{i}")).await.status, 200);
            assert_eq!(client.get(&format!("/loaded/{i}")).await.status, 502);
        }
    };
    trap(0).await;
    let before = gateway.resident_bytes();
    trap(250).await;
    trap(500).await;
    let grown = gateway.resident_bytes().saturating_sub(before);
    assert!(grown < 32 << 20, "memory grew by {grown} bytes");
    for i in 0..50 {
        assert_eq!(client.get(&format!("/plain/{i}")).await.status, 200);
    }
    let traps = gateway
        .metric(
            "lamina_plugin_calls_total",
            &[("plugin", "bad"), ("outcome", "trap")],
        )
        .await;
    assert!(traps >= 1_000.0, "{traps}");
}

#[tokio::test]
async fn a_guest_that_loops_is_stopped_and_others_go_on_meanwhile() {
    let (_origin, gateway) =
        beside_a_bad_guest(guest::looping(), "{load_timeout: 200ms}", "{}").await;
    let client = gateway.client();
    let looping = tokio::spawn(async move { herd(&client, 8, "/loaded/x").await });
    for i in 0..50 {
        assert_eq!(
            gateway.client().get(&format!("/plain/{i}")).await.status,
            200
        );
    }
    for answer in looping.await.unwrap() {
        let status = answer.unwrap().status;
        assert!(status == 502 || status == 504, "{status}");
    }
    assert_eq!(gateway.client().get("/keyed/x").await.text(), "/keyed/x");
}

/// A route whose pages `api-compose` makes, with this policy, and no upstream of its own.
async fn composed(policy: &str) -> (Origin, Gateway) {
    let origin =
        Origin::pages(|_| Reply::ok("{}").header("content-type", "application/json")).await;
    let file = shipped("api-compose");
    let gateway = Setup::new(&origin)
        .top(
            "plugins",
            &format!(
                "{{c: {{file: \"{}\", fetch: [origin], limits: {PATIENT}, config: {{parts: {{one: {{upstream: origin, path: \"/one\"}}}}}}}}}}",
                file.display()
            ),
        )
        .route(&format!("{{name: page, loader: {{plugin: c}}, policy: {policy}}}"))
        .start()
        .await;
    (origin, gateway)
}

#[tokio::test]
async fn a_loaders_page_that_is_not_stored_comes_from_the_loader_each_time() {
    let (origin, gateway) = composed("{}").await;
    for round in 1..=3 {
        let answer = gateway.client().get("/").await;
        assert_eq!(answer.status, 200, "round {round}: {:?}", answer.cache());
    }
    assert_eq!(origin.count(), 3);
}

#[tokio::test]
async fn a_head_request_on_a_cold_page_asks_the_loader() {
    let (_origin, gateway) = composed("{mode: override, ttl: 1d}").await;
    let head = gateway.client().head("/").await;
    assert_eq!(head.status, 200);
    let get = gateway.client().get("/").await;
    assert_eq!(head.header("content-length"), get.body.len().to_string());
}

/// A loader that returns a page for 300 ms once, and `then` ever after.
fn once_then(discriminant: u8) -> Vec<u8> {
    // A `load-decision` at 3000: the case, at 8 the response, whose ttl-ms is at 24.
    guest::bad(&format!(
        "(if (i32.load (i32.const 3200))
           (then (i32.store8 (i32.const 3000) (i32.const {discriminant})) (i32.store (i32.const 3008) (i32.const 0)) (i32.store (i32.const 3012) (i32.const 0)))
           (else
             (i32.store (i32.const 3200) (i32.const 1))
             (i32.store16 (i32.const 3008) (i32.const 200))
             (i32.store8 (i32.const 3032) (i32.const 1))
             (i64.store (i32.const 3040) (i64.const 300))))
         (i32.const 3000)"
    ))
}

/// Loads the page once, waits until it has expired, and asks again.
async fn after_expiry(wasm: Vec<u8>, on_error: &str, policy: &str) -> u16 {
    let origin = Origin::pages(|_| Reply::ok("x")).await;
    let gateway = Setup::new(&origin)
        .file("guest.wasm", wasm)
        .top(
            "plugins",
            &format!("{{g: {{file: guest.wasm, limits: {PATIENT}, on_error: {on_error}}}}}"),
        )
        .route(&format!(
            "{{name: page, loader: {{plugin: g}}, policy: {policy}}}"
        ))
        .start()
        .await;
    let first = gateway.client().get("/").await;
    assert_eq!(first.status, 200, "{}", gateway.log().join("\n"));
    e2e::wait::passed(first.at, std::time::Duration::from_millis(400)).await;
    gateway.client().get("/").await.status.as_u16()
}

const STALE: u8 = 3;
const ERROR: u8 = 4;

#[tokio::test]
async fn a_loader_that_says_stale_gets_the_stale_copy_served() {
    let policy = "{stale_if_error: 1d}";
    assert_eq!(after_expiry(once_then(STALE), "{}", policy).await, 200);
}

#[tokio::test]
async fn a_failed_loader_is_answered_as_on_error_says() {
    for (on_error, status) in [
        ("{loader: stale_then_error}", 200),
        ("{loader: error}", 502),
    ] {
        let policy = "{stale_if_error: 1d}";
        assert_eq!(
            after_expiry(once_then(ERROR), on_error, policy).await,
            status,
            "{on_error}"
        );
    }
}

#[tokio::test]
async fn a_purge_by_pattern_goes_by_the_url_that_the_key_plugin_made() {
    let origin = Origin::pages(|seen| Reply::fresh(seen.path.clone())).await;
    let file = shipped("normalize-query");
    let gateway = keyed(&origin, file.to_str().unwrap(), "{drop: [\"utm_*\"]}").await;
    gateway
        .client()
        .get("/search?q=tea&utm_source=letter")
        .await;
    assert!(gateway.client().get("/search?q=tea").await.is_hit());
    gateway
        .purge(serde_json::json!({"pattern": "*/search\\?q=tea"}))
        .await;
    assert!(!gateway.client().get("/search?q=tea").await.is_hit());
}
