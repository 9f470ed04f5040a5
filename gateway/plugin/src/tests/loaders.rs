//! The load hook: composed responses, misbehaving guests, limits on fetches, and effects on other
//! calls.

use super::super::{FetchError, LoadDecision, LoadedResponse};
use super::*;

fn compose_yaml(limits: Value) -> Value {
    json!({
        "config": { "parts": {
            "user": { "upstream": "demo", "path": "/api/user/{1}" },
            "orders": { "upstream": "demo", "path": "/api/orders/{1}" },
        }},
        "fetch": ["demo"],
        "limits": limits,
    })
}

async fn compose(limits: Value, fetch: UpstreamFetcher) -> Site {
    Site::load(
        &[(
            "compose",
            Guest::Shipped("api-compose"),
            compose_yaml(limits),
        )],
        fetch,
    )
    .await
    .unwrap()
}

async fn load(site: &Site, name: &str, path: &str) -> Result<LoadDecision, CallError> {
    let loaded = site.plugin(name).load(load_request(path)).await;
    loaded.map(|(decision, _)| decision)
}

fn response(decision: Result<LoadDecision, CallError>) -> LoadedResponse {
    match decision {
        Ok(LoadDecision::Response(response)) => response,
        other => panic!("not a response: {other:?}"),
    }
}

fn body(response: &LoadedResponse) -> Value {
    serde_json::from_slice(&response.body).unwrap()
}

#[tokio::test]
async fn two_upstreams_are_asked_at_once_and_composed() {
    // Neither upstream answers before both were asked.
    let both = Arc::new(tokio::sync::Barrier::new(2));
    let fetch: UpstreamFetcher = Arc::new(move |call: FetchCall| {
        let both = both.clone();
        assert_eq!(
            (&*call.upstream, call.request.headers().get("host")),
            ("demo", None)
        );
        Box::pin(async move {
            both.wait().await;
            Ok(Response::new(
                json!(call.request.uri().path()).to_string().into(),
            ))
        })
    });
    let site = compose(json!({}), fetch).await;
    let composed = response(load(&site, "compose", "/account/42").await);
    assert_eq!(composed.status, 200);
    assert_eq!(composed.headers["content-type"], "application/json");
    assert_eq!(
        composed.headers["content-length"],
        composed.body.len().to_string()
    );
    assert_eq!(
        body(&composed),
        json!({ "user": "/api/user/42", "orders": "/api/orders/42" })
    );
}

#[tokio::test]
async fn an_instance_is_used_again() {
    let site = compose(json!({}), echo(Arc::default())).await;
    for _ in 0..20 {
        response(load(&site, "compose", "/account/1").await);
    }
    assert_eq!(site.metric("lamina_plugin_instances", &[]), 1.0);
    assert_eq!(
        site.metric("lamina_plugin_calls_total", &["load", "ok"]),
        20.0
    );
}

#[tokio::test]
async fn a_part_that_fails_is_null_and_all_that_fail_are_an_error() {
    let fetch: UpstreamFetcher = Arc::new(|call: FetchCall| {
        Box::pin(async move {
            match call.request.uri().path() {
                "/api/user/1" => Ok(Response::new("1".into())),
                "/api/orders/1" => Err(FetchError::Unavailable("refused by 10.0.0.7".into())),
                _ => Err(FetchError::Timeout),
            }
        })
    });
    let site = compose(json!({}), fetch).await;
    let half = response(load(&site, "compose", "/account/1").await);
    assert_eq!(
        body(&half),
        json!({ "user": 1, "orders": null, "errors": { "orders": "unavailable" } })
    );
    assert!(matches!(
        load(&site, "compose", "/account/2").await,
        Ok(LoadDecision::Error { .. })
    ));
    assert!(matches!(
        load(&site, "compose", "/account").await,
        Ok(LoadDecision::Absent)
    ));
}

#[tokio::test]
async fn an_upstream_that_is_not_granted_is_never_asked() {
    let mut yaml = compose_yaml(json!({}));
    yaml["fetch"] = json!(["other"]);
    let asked = Arc::new(AtomicUsize::new(0));
    let site = Site::load(
        &[("compose", Guest::Shipped("api-compose"), yaml)],
        echo(asked.clone()),
    )
    .await
    .unwrap();
    assert!(matches!(
        load(&site, "compose", "/account/1").await,
        Ok(LoadDecision::Error { .. })
    ));
    assert_eq!(asked.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn fetches_are_counted_per_call() {
    let asked = Arc::new(AtomicUsize::new(0));
    let site = compose(json!({ "max_fetches": 1 }), echo(asked.clone())).await;
    for calls in 1..=3 {
        let half = response(load(&site, "compose", "/account/1").await);
        assert_eq!(body(&half)["orders"], "/api/orders/1");
        assert_eq!(body(&half)["user"], Value::Null);
        assert_eq!(asked.load(Ordering::Relaxed), calls);
    }
}

#[tokio::test]
async fn a_fetched_body_over_the_bound_is_not_handed_in() {
    let fetch: UpstreamFetcher =
        Arc::new(|_| Box::pin(async { Ok(Response::new(vec![b'1'; 2_000].into())) }));
    let site = compose(json!({ "max_body": "1KiB" }), fetch).await;
    assert!(matches!(
        load(&site, "compose", "/account/1").await,
        Ok(LoadDecision::Error { .. })
    ));
}

#[tokio::test]
async fn a_fetch_that_hangs_leaves_time_for_an_answer() {
    let fetch: UpstreamFetcher = Arc::new(|call: FetchCall| {
        Box::pin(async move {
            match call.request.uri().path() {
                "/api/user/1" => Ok(Response::new("1".into())),
                _ => std::future::pending().await,
            }
        })
    });
    let site = compose(json!({ "load_timeout": "1s" }), fetch).await;
    let half = response(load(&site, "compose", "/account/1").await);
    assert_eq!(body(&half)["errors"], json!({ "orders": "timeout" }));
}

#[tokio::test]
async fn a_caller_that_goes_away_ends_its_call() {
    let (asked, mut was_asked) = tokio::sync::mpsc::unbounded_channel();
    let fetch: UpstreamFetcher = Arc::new(move |_| {
        let asked = asked.clone();
        Box::pin(async move {
            asked.send(()).unwrap();
            std::future::pending().await
        })
    });
    let site = compose(json!({ "max_concurrent": 1 }), fetch).await;
    let plugin = site.plugin("compose");
    let caller = tokio::spawn(async move { plugin.load(load_request("/account/1")).await });
    was_asked.recv().await.unwrap();
    assert_eq!(
        load(&site, "compose", "/account/1").await.unwrap_err(),
        CallError::Overloaded
    );
    caller.abort();
    // The instance is dropped with its call, and its place is free again.
    while site.metric("lamina_plugin_instances", &[]) > 0.0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn loops_end_at_their_deadline_and_others_go_on() {
    let guests = [
        (
            "bad",
            Guest::Code(load_guest(LOOP, "")),
            json!({ "limits": { "load_timeout": "1500ms" } }),
        ),
        (
            "good",
            Guest::Shipped("normalize-query"),
            json!({ "config": { "sort": true }, "limits": { "memo_entries": 0, "key_timeout": "1s" } }),
        ),
        (
            "compose",
            Guest::Shipped("api-compose"),
            compose_yaml(json!({})),
        ),
    ];
    let site = Site::load(&guests, echo(Arc::default())).await.unwrap();
    let bad = site.plugin("bad");
    let loops: Vec<_> = (0..8)
        .map(|_| {
            tokio::spawn({
                let bad = bad.clone();
                async move { bad.load(load_request("/")).await }
            })
        })
        .collect();
    while site.metric("lamina_plugin_instances", &["bad"]) < 8.0 {
        tokio::task::yield_now().await;
    }
    for _ in 0..200 {
        assert_eq!(key_of(&site, "good", &get("/?b&a", &[])).0, "shop/?a&b");
    }
    response(load(&site, "compose", "/account/1").await);
    assert!(
        loops.iter().any(|l| !l.is_finished()),
        "the others were answered while the loops ran"
    );
    for ended in loops {
        assert_eq!(
            ended.await.unwrap().unwrap_err(),
            CallError::Timeout(Some(crate::Hook::Load))
        );
    }
    assert_eq!(site.metric("lamina_plugin_instances", &["bad"]), 0.0);
}

#[tokio::test]
async fn a_loader_that_traps_or_eats_memory_fails_alone() {
    let site = load_code(load_guest("unreachable", "")).await.unwrap();
    assert!(matches!(
        load(&site, "bad", "/").await,
        Err(CallError::Trap { .. })
    ));
    let grow = "(loop $again (drop (memory.grow (i32.const 16))) (br $again))";
    let site = load_code(load_guest(grow, "")).await.unwrap();
    assert!(matches!(
        load(&site, "bad", "/").await,
        Err(CallError::OutOfMemory { .. })
    ));
}

/// A response: tag, status, headers at 4096 or none, and a body of this length at 2048.
fn response_data(status: u16, headers: u8, body: u32) -> String {
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|b| format!("\\{b:02x}"))
            .collect::<String>()
    };
    let mut bytes = vec![0; 8];
    bytes.extend(status.to_le_bytes());
    bytes.extend([0; 2]);
    bytes.extend([0, 16, 0, 0, headers, 0, 0, 0, 0, 8, 0, 0]);
    bytes.extend(body.to_le_bytes());
    format!(r#"(data (i32.const 3072) "{}")"#, hex(&bytes))
}

#[tokio::test]
async fn a_response_that_breaks_a_rule_is_invalid() {
    let good = load_code(load_guest("", &response_data(200, 0, 3)))
        .await
        .unwrap();
    assert_eq!(response(load(&good, "bad", "/").await).body, "bad");
    // One header: name at 4128 (`x`), value at 4136 (CR LF inside).
    let header = r#"(data (i32.const 4096) "\20\10\00\00\01\00\00\00\28\10\00\00\06\00\00\00") (data (i32.const 4128) "x") (data (i32.const 4136) "a\0d\0ab:c")"#;
    let cases = [
        (response_data(99, 0, 0), "status 99"),
        (format!("{}{header}", response_data(200, 1, 0)), "header"),
        (response_data(200, 0, 100_000), "bytes of the body"),
    ];
    for (data, reason) in cases {
        let site = load_with(load_guest("", &data), json!({ "max_body": "64KiB" }))
            .await
            .unwrap();
        match load(&site, "bad", "/").await {
            Err(CallError::Invalid { what }) => assert!(what.contains(reason), "{what}"),
            other => panic!("{reason}: {other:?}"),
        }
    }
}
