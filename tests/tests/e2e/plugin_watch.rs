//! Plugins are watched: keys that depend on more than their inputs.

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
