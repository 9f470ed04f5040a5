//! Plugins are watched: keys that depend on more than their inputs, calls that fail.

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
