//! Plugins are watched: keys that depend on more than their inputs, calls that fail,
//! loaders that see what the key does not cover.

use e2e::client::Answer;
use e2e::gateway::Gateway;
use e2e::guest;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use http::Method;
use serde_json::Value;

/// A route whose key a guest derives that gives another one at each call; one thread, so
/// that there is one instance and one memory.
async fn counted(sample_every: u64) -> (Origin, Gateway) {
    let origin = Origin::pages(|seen| Reply::fresh(seen.path.clone())).await;
    let limits = format!("{{key_timeout: 10s, sample_every: {sample_every}}}");
    let gateway = Setup::new(&origin)
        .file("guest.wasm", guest::counting())
        .top("server", "{threads: 1, drain_timeout: 1m}")
        .top(
            "plugins",
            &format!("{{p: {{file: guest.wasm, limits: {limits}}}}}"),
        )
        .route("{name: site, upstream: origin, key: {plugin: p}}")
        .start()
        .await;
    (origin, gateway)
}

/// What `GET /v1/plugins` says of the one plugin.
async fn report(gateway: &Gateway) -> Value {
    let answer = gateway.admin(Method::GET, "/v1/plugins", "").await;
    let all: Value = serde_json::from_str(&answer.text).unwrap();
    all["plugins"][0].clone()
}

#[tokio::test]
async fn a_key_that_changes_for_the_same_inputs_is_found_told_and_taken() {
    let (origin, gateway) = counted(4).await;
    let client = gateway.client();
    for round in 0..9 {
        // The first is derived, the fourth and eighth from memory are derived again.
        let derived = round % 4 == 0;
        assert_eq!(client.get("/x").await.is_hit(), !derived, "round {round}");
    }
    assert_eq!(origin.count(), 3);
    let labels = [("plugin", "p")];
    assert_eq!(
        gateway.metric("lamina_plugin_impure_total", &labels).await,
        2.0
    );
    assert_eq!(report(&gateway).await["impure"], 2);
    let line = gateway
        .logged("an impure key", |line| line.contains("is impure"))
        .await;
    assert!(line.contains(r#""inputs":"path""#), "{line}");
    assert!(
        line.contains(r#"text: \"1\""#) && line.contains(r#"text: \"2\""#),
        "{line}"
    );
}

#[tokio::test]
async fn nothing_is_sampled_where_that_is_switched_off() {
    let (origin, gateway) = counted(0).await;
    for _ in 0..20 {
        gateway.client().get("/x").await;
    }
    assert_eq!(
        (origin.count(), report(&gateway).await["impure"].clone()),
        (1, 0.into())
    );
}

/// Routes whose key and whose loader trap, over a plugin that reads every header.
async fn trapping() -> (Origin, Gateway) {
    let origin = Origin::pages(|_| Reply::ok("x")).await;
    let guest = guest::plugin("unreachable", "unreachable", guest::READS_ALL);
    let gateway = Setup::new(&origin)
        .file("guest.wasm", guest)
        .top("admin", "{address: \"127.0.0.1:0\", token: opensesame}")
        .top(
            "plugins",
            "{p: {file: guest.wasm, config: {api_key: s3cret, a: 1}, quarantine: {failures: 0}, \
             limits: {key_timeout: 10s, load_timeout: 10m}}}",
        )
        .route("{name: keyed, match: {path: /keyed/*}, upstream: origin, key: {plugin: p}}")
        .route("{name: loaded, match: {path: /loaded/*}, loader: {plugin: p}}")
        .start()
        .await;
    (origin, gateway)
}

async fn failed_calls(gateway: &Gateway) -> Vec<Value> {
    let answer = gateway.admin(Method::GET, "/v1/plugins/p/calls", "").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    serde_json::from_str(&answer.text).unwrap()
}

#[tokio::test]
async fn calls_that_failed_are_kept_without_secrets() {
    let (_origin, gateway) = trapping().await;
    let gateway = gateway.with_token("opensesame");
    let failed = gateway
        .client()
        .request("/loaded/x?token=s3cret&a=1")
        .header("authorization", "Bearer s3cret")
        .header("cookie", "id=s3cret")
        .header("x-api-key", "s3cret")
        .header("x-plain", "told")
        .send()
        .await;
    assert_eq!(failed.status, 502);
    let [call] = &failed_calls(&gateway).await[..] else {
        panic!("one call failed");
    };
    assert!(!call.to_string().contains("s3cret"), "{call}");
    let (inputs, report) = (&call["inputs"], report(&gateway).await);
    assert_eq!(
        (&call["hook"], &inputs["method"]),
        (&"load".into(), &"GET".into())
    );
    let url = inputs["url"].as_str().unwrap();
    assert!(url.ends_with("/loaded/x?token=[redacted]&a=1"), "{url}");
    assert_eq!(inputs["headers"]["x-plain"], "told");
    assert_eq!(inputs["headers"]["cookie"], "id=[redacted]");
    assert!(call["error"].as_str().unwrap().contains("trap"), "{call}");
    assert_eq!(
        call["config"],
        serde_json::json!({"api_key": "[redacted]", "a": 1})
    );
    assert_eq!(
        (&call["sha256"], &call["number"]),
        (&report["sha256"], &report["number"])
    );
    assert!(
        call["at"].as_u64() >= report["loaded_at"].as_u64(),
        "{call}"
    );
}

#[tokio::test]
async fn the_last_sixteen_failed_calls_are_kept() {
    let (_origin, gateway) = trapping().await;
    let gateway = gateway.with_token("opensesame");
    for n in 0..20 {
        let answer = gateway.client().get(&format!("/keyed/{n}")).await;
        assert_eq!(answer.status, 200, "{n}");
    }
    let calls = failed_calls(&gateway).await;
    assert_eq!((calls.len(), &calls[0]["hook"]), (16, &"key".into()));
    let url = calls[0]["inputs"]["url"].as_str().unwrap();
    assert!(url.ends_with("/keyed/19"), "the newest comes first: {url}");
}

#[tokio::test]
async fn failed_calls_are_for_who_has_the_token() {
    let (_origin, gateway) = trapping().await;
    let path = "/v1/plugins/p/calls";
    assert_eq!(gateway.admin(Method::GET, path, "").await.status, 401);
    let gateway = gateway.with_token("opensesame");
    assert_eq!(gateway.admin(Method::POST, path, "").await.status, 405);
    let unknown = gateway.admin(Method::GET, "/v1/plugins/q/calls", "").await;
    assert_eq!(unknown.status, 404);
}

/// One route, `page`, whose loader reads this, with more keys of the route.
async fn loaded(reads: &str, route: &str) -> (Origin, Gateway) {
    let origin = Origin::pages(|_| Reply::ok("x")).await;
    let gateway = Setup::new(&origin)
        .file("guest.wasm", guest::page(reads))
        .top(
            "plugins",
            "{p: {file: guest.wasm, limits: {load_timeout: 10m}}}",
        )
        .route(&format!("{{name: page, loader: {{plugin: p}}, {route}}}"))
        .start()
        .await;
    (origin, gateway)
}

async fn ask(gateway: &Gateway, path: &str, headers: &[(&str, &str)]) -> Answer {
    let request = gateway.client().request(path);
    let headers = headers.iter();
    let request = headers.fold(request, |r, (name, value)| r.header(name, value));
    let answer = request.send().await;
    assert_eq!(answer.status, 200, "{path}: {}", gateway.log().join("\n"));
    answer
}

async fn unkeyed_loads(gateway: &Gateway) -> f64 {
    let labels = [("route", "page"), ("plugin", "p")];
    gateway.metric("lamina_plugin_unkeyed_total", &labels).await
}

const GERMAN: &[(&str, &str)] = &[("x-lang", "de")];
const ENGLISH: &[(&str, &str)] = &[("x-lang", "en")];

#[tokio::test]
async fn what_a_loader_sees_and_the_key_lacks_is_told_once_and_counted() {
    let (_origin, gateway) = loaded(guest::READS_LANG, "cache: on").await;
    ask(&gateway, "/", GERMAN).await;
    assert!(ask(&gateway, "/", ENGLISH).await.is_hit(), "it only warns");
    ask(&gateway, "/other", GERMAN).await;
    ask(&gateway, "/without", &[]).await;
    assert_eq!(unkeyed_loads(&gateway).await, 2.0);
    let told = |line: &str| line.contains("does not contain") && line.contains("header `x-lang`");
    gateway.logged("the warning", told).await;
    assert_eq!(gateway.log().iter().filter(|line| told(line)).count(), 1);
    let question = r#"{"url": "http://a/x", "headers": {"x-lang": "de"}}"#;
    let explained = gateway.admin(Method::POST, "/v1/explain", question).await;
    let explained: Value = serde_json::from_str(&explained.text).unwrap();
    let line = explained["unkeyed"][0].as_str().unwrap();
    assert!(line.starts_with("header `x-lang`"), "{line}");
}

#[tokio::test]
async fn unkeyed_headers_select_a_variant_where_the_route_says_vary() {
    let (_origin, gateway) = loaded(guest::READS_LANG, "unkeyed: vary").await;
    let plain = ask(&gateway, "/", &[]).await;
    assert_eq!(plain.header("vary"), "x-lang", "absent is a value, too");
    for headers in [GERMAN, ENGLISH] {
        assert!(!ask(&gateway, "/", headers).await.is_hit());
        assert!(ask(&gateway, "/", headers).await.is_hit());
    }
    assert!(ask(&gateway, "/", &[]).await.is_hit());
}

#[tokio::test]
async fn an_unkeyed_parameter_can_be_no_vary_and_is_not_stored() {
    let route = "unkeyed: vary, key: {query: {drop: [q]}, origin_query: as_sent}";
    let (_origin, gateway) = loaded("", route).await;
    for _ in 0..2 {
        let answer = ask(&gateway, "/?q=1", &[]).await;
        assert_eq!(answer.cache().detail.as_deref(), Some("unkeyed"));
    }
    ask(&gateway, "/", &[]).await;
    assert!(ask(&gateway, "/", &[]).await.is_hit(), "others go on");
}

#[tokio::test]
async fn only_what_the_key_lacks_keeps_a_page_out() {
    let route = "unkeyed: refuse_store, key: {headers: [x-lang], cookies: [id]}";
    let (_origin, gateway) = loaded(guest::READS_ALL, route).await;
    let covered = [("x-lang", "de"), ("cookie", "id=1")];
    for (headers, stored) in [
        (&[("cookie", "id=1; other=2")][..], false),
        (&[("x-other", "1")], false),
        (&covered, true),
        (&[], true),
    ] {
        ask(&gateway, "/", headers).await;
        let again = ask(&gateway, "/", headers).await;
        assert_eq!(again.is_hit(), stored, "{headers:?}");
    }
    assert_eq!(unkeyed_loads(&gateway).await, 4.0);
}

#[tokio::test]
async fn a_route_may_allow_what_is_unkeyed() {
    let (_origin, gateway) = loaded(guest::READS_LANG, "unkeyed: allow").await;
    ask(&gateway, "/", GERMAN).await;
    assert!(ask(&gateway, "/", ENGLISH).await.is_hit());
    assert_eq!(unkeyed_loads(&gateway).await, 0.0);
}
