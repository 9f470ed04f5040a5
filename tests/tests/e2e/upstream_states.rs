//! Targets that operators take out and bring back, and what they are shown of all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use e2e::cli::run;
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_for, within};
use http::Method;
use serde_json::{Value, json};
use tokio::sync::Notify;

async fn well(name: &'static str) -> Origin {
    Origin::pages(move |_| {
        Reply::ok(name).header("cache-control", "max-age=0, stale-if-error=3600")
    })
    .await
}

/// A gateway with an upstream of these targets, which are named a, b and so on.
fn setup(targets: &[&Origin], more: &str) -> Setup {
    let named = ('a'..).zip(targets);
    let named: Vec<_> = named
        .map(|(name, target)| format!("{{url: \"{}\", name: {name}}}", target.url()))
        .collect();
    let targets = named.join(", ");
    let upstream =
        format!("{{targets: [{targets}], balance: {{by: round_robin, slow_start: 0s}}{more}}}");
    Setup::default()
        .upstream("shop", &upstream)
        .route("{name: cached, match: {path: /cached/*}, upstream: shop}")
        .route("{name: shop, upstream: shop, cache: off}")
}

async fn before(targets: &[&Origin], more: &str) -> Gateway {
    setup(targets, more).start().await
}

async fn order(gateway: &Gateway, target: &str, order: Value) -> Value {
    let path = format!("/v1/upstreams/shop/targets/{target}");
    let answer = gateway.admin(Method::POST, &path, &order.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let answer: Value = serde_json::from_str(&answer.text).unwrap();
    assert_eq!(answer["upstreams"][0]["targets"][0]["target"], target);
    answer
}

/// What is shown of a target.
async fn shown(gateway: &Gateway, name: &str) -> Value {
    let answer = gateway.admin(Method::GET, "/v1/upstreams", "").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let all: Value = serde_json::from_str(&answer.text).unwrap();
    assert_eq!(all["upstreams"][0]["upstream"], "shop");
    let targets = all["upstreams"][0]["targets"].as_array().unwrap();
    let named = targets.iter().find(|target| target["target"] == name);
    named.unwrap_or_else(|| panic!("{name} in {all}")).clone()
}

async fn nothing_under_way(gateway: &Gateway, target: &str) {
    wait_for("nothing is under way", SOON, || async {
        (shown(gateway, target).await["in_flight"] == 0).then_some(())
    })
    .await;
}

async fn answers(gateway: &Gateway, name: &str) {
    let client = gateway.client();
    wait_for("the target answers", SOON, || async {
        (client.get("/").await.text() == name).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_drained_target_ends_what_is_under_way_and_gets_nothing_new() {
    let (a, b) = (well("a").await, well("b").await);
    let (begun, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tells, waits) = (Arc::clone(&begun), Arc::clone(&release));
    b.behave(move |asked| {
        let (tells, waits) = (Arc::clone(&tells), Arc::clone(&waits));
        async move {
            if asked.seen.path == "/slow" {
                tells.notify_one();
                waits.notified().await;
            }
            Reply::ok("b")
        }
    });
    let gateway = before(&[&a, &b], "").await;
    order(&gateway, "a", json!({"state": "drain"})).await;
    let client = gateway.client();
    let slow = tokio::spawn(async move { client.get("/slow").await });
    within("b has it", SOON, begun.notified()).await;
    order(&gateway, "a", json!({"state": "ready"})).await;
    order(&gateway, "b", json!({"state": "drain"})).await;
    let drained = shown(&gateway, "b").await;
    assert_eq!(drained["administrative"], "drain");
    assert_eq!(drained["observed"], "usable", "these are two fields");
    assert_eq!(drained["in_flight"], 1);
    let client = gateway.client();
    for _ in 0..30 {
        assert_eq!(client.get("/").await.text(), "a");
    }
    release.notify_one();
    assert_eq!(slow.await.unwrap().text(), "b");
    nothing_under_way(&gateway, "b").await;
    order(&gateway, "b", json!({"state": "ready"})).await;
    answers(&gateway, "b").await;
}

#[tokio::test]
async fn twenty_drains_under_load_lose_no_request() {
    let (a, b, c) = (well("a").await, well("b").await, well("c").await);
    let gateway = Arc::new(before(&[&a, &b, &c], "").await);
    let ends = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicUsize::new(0));
    let load = (0..8).map(|_| {
        let (client, ends, answered) = (gateway.client(), ends.clone(), answered.clone());
        tokio::spawn(async move {
            while !ends.load(Ordering::SeqCst) {
                assert_eq!(client.get("/").await.status, 200);
                answered.fetch_add(1, Ordering::SeqCst);
            }
        })
    });
    let load: Vec<_> = load.collect();
    let some_more = async || {
        let goal = answered.load(Ordering::SeqCst) + 30;
        wait_for("requests are answered", SOON, || async {
            (answered.load(Ordering::SeqCst) >= goal).then_some(())
        })
        .await;
    };
    for nth in 0..20 {
        let (name, target) = [("a", &a), ("b", &b), ("c", &c)][nth % 3];
        let state = ["drain", "out"][nth % 2];
        order(&gateway, name, json!({"state": state})).await;
        nothing_under_way(&gateway, name).await;
        let before = target.count();
        some_more().await;
        assert_eq!(target.count(), before, "{name} gets nothing");
        order(&gateway, name, json!({"state": "ready"})).await;
        some_more().await;
    }
    ends.store(true, Ordering::SeqCst);
    for task in load {
        task.await.unwrap();
    }
    let answered = answered.load(Ordering::SeqCst);
    assert!(answered >= 1_200, "{answered}");
    assert_eq!(
        a.count() + b.count() + c.count(),
        answered,
        "none was sent twice"
    );
}

#[tokio::test]
async fn an_order_for_some_time_ends_by_itself() {
    let (a, b) = (well("a").await, well("b").await);
    let gateway = before(&[&a, &b], "").await;
    order(&gateway, "b", json!({"state": "out", "for": "10m"})).await;
    let left = shown(&gateway, "b").await["ready_in_ms"].as_u64().unwrap();
    assert!((500_000..=600_000).contains(&left), "{left}");
    order(&gateway, "b", json!({"state": "drain", "for": "100ms"})).await;
    wait_for("it is ready again", SOON, || async {
        (shown(&gateway, "b").await["administrative"] == "ready").then_some(())
    })
    .await;
    assert_eq!(shown(&gateway, "b").await["ready_in_ms"], Value::Null);
    let line = gateway
        .logged("why", |line| line.contains("the time of its order is over"))
        .await;
    assert!(line.contains("drain"), "{line}");
    answers(&gateway, "b").await;
}

#[tokio::test]
async fn a_target_that_is_out_has_no_idle_connections_and_no_checks() {
    for protocol in ["http1", "http2"] {
        let (a, b) = (well("a").await, well("b").await);
        let more = format!(
            ", protocol: {protocol}, health: {{active: {{path: /healthz, interval: 50ms}}}}"
        );
        let gateway = before(&[&a, &b], &more).await;
        answers(&gateway, "b").await;
        wait_for("b is checked", SOON, || async {
            (b.count_of("/healthz") > 2).then_some(())
        })
        .await;
        order(&gateway, "b", json!({"state": "drain"})).await;
        nothing_under_way(&gateway, "b").await;
        assert!(b.open_connections() > 0, "{protocol}: drain keeps them");
        order(&gateway, "b", json!({"state": "out"})).await;
        wait_for("b has no connections", SOON, || async {
            (b.open_connections() == 0).then_some(())
        })
        .await;
        let (seen, checks_of_a) = (b.count(), a.count_of("/healthz"));
        wait_for("a is checked further", SOON, || async {
            (a.count_of("/healthz") > checks_of_a + 5).then_some(())
        })
        .await;
        assert_eq!((b.count(), b.open_connections()), (seen, 0), "{protocol}");
    }
}

/// Both may be said of a target, and neither hides the other.
#[tokio::test]
async fn a_list_shows_what_is_wrong_with_targets() {
    let a = well("a").await;
    let sick = Origin::pages(|_| Reply::ok("sick").status(503)).await;
    let more = ", retry: {budget: 100}, health: {passive: {failures: 2, eject: 1h, max_eject: 1h}, active: {path: /healthz, interval: 50ms, fall: 1000}}";
    let gateway = before(&[&a, &sick], more).await;
    let client = gateway.client();
    for _ in 0..30 {
        assert_eq!(client.get("/").await.text(), "a");
    }
    let target = wait_for("b was checked", SOON, || async {
        let target = shown(&gateway, "b").await;
        target["last_check"].is_object().then_some(target)
    })
    .await;
    assert_eq!(target["observed"], "ejected");
    assert_eq!(target["administrative"], "ready");
    assert_eq!(target["ejections"], 1);
    assert_eq!(target["failures_in_a_row"], 2);
    assert_eq!(target["last_failure"]["kind"], "503");
    assert_eq!(target["last_check"]["result"], "it answered 503");
    assert!(target["ejected_for_ms"].as_u64().unwrap() > 3_000_000);
    assert_eq!(target["url"], sick.url());
    assert_eq!(
        (&target["weight"], &target["priority"]),
        (&json!(1.0), &json!(0))
    );
    let fine = shown(&gateway, "a").await;
    assert_eq!(
        (&fine["observed"], &fine["last_failure"]),
        (&json!("usable"), &Value::Null)
    );
    assert!(fine["latency_us"].as_u64().unwrap() > 0);
}

#[tokio::test]
async fn where_all_targets_are_taken_out_copies_are_served_and_others_get_503() {
    let (a, b) = (well("a").await, well("b").await);
    let gateway = before(&[&a, &b], "").await;
    let client = gateway.client();
    let copy = client.get("/cached/page").await;
    for target in ["a", "b"] {
        order(&gateway, target, json!({"state": "drain"})).await;
    }
    let asked = a.count() + b.count();
    let stale = client.get("/cached/page").await;
    assert_eq!((stale.status.as_u16(), stale.text()), (200, copy.text()));
    let refused = client.get("/").await;
    assert_eq!(refused.status, 503);
    assert!(
        refused
            .header("proxy-status")
            .contains("destination_unavailable")
    );
    assert_eq!(a.count() + b.count(), asked);
    order(&gateway, "a", json!({"state": "ready"})).await;
    assert_eq!(client.get("/").await.text(), "a");
}

#[tokio::test]
async fn what_cannot_be_ordered_is_named() {
    let a = well("a").await;
    let gateway = before(&[&a], "").await;
    let ask = async |path: &str, body: &str| {
        let path = format!("/v1/upstreams/{path}");
        let answer = gateway.admin(Method::POST, &path, body).await;
        (answer.status, answer.text)
    };
    let drain = r#"{"state": "drain"}"#;
    for (path, body, status, named) in [
        ("shop/targets/x", drain, 404, "it has a"),
        ("shup/targets/a", drain, 404, "there are shop"),
        ("shop/targets/a", r#"{"state": "gone"}"#, 400, "`drain`"),
        (
            "shop/targets/a",
            r#"{"state": "drain", "fro": "1m"}"#,
            400,
            "fro",
        ),
        (
            "shop/targets/a",
            r#"{"state": "drain", "for": "soon"}"#,
            400,
            "soon",
        ),
        (
            "shop/targets/a",
            r#"{"state": "drain", "for": "0s"}"#,
            400,
            "`for` is 0",
        ),
        (
            "shop/targets/a",
            r#"{"state": "ready", "for": "1m"}"#,
            400,
            "beside `ready`",
        ),
        ("shop/targets/a", "drain", 400, "not JSON"),
    ] {
        let (got, text) = ask(path, body).await;
        assert!(
            got == status && text.contains(named),
            "{path} {body}: {got} {text}"
        );
    }
    assert_eq!(shown(&gateway, "a").await["administrative"], "ready");
}

#[tokio::test]
async fn changing_a_target_needs_its_right_and_is_audited() {
    let a = well("a").await;
    let admin = "{address: \"127.0.0.1:0\", tokens: [{name: reader, token: token-of-reader, can: [read]}, {name: operator, token: token-of-operator, can: [targets]}]}";
    let gateway = setup(&[&a], "").top("admin", admin).start().await;
    let path = "/v1/upstreams/shop/targets/a";
    let body = r#"{"state": "drain", "for": "10m"}"#;
    assert_eq!(
        gateway.admin(Method::GET, "/v1/upstreams", "").await.status,
        401
    );
    let gateway = gateway.with_token("token-of-reader");
    assert_eq!(shown(&gateway, "a").await["administrative"], "ready");
    assert_eq!(gateway.admin(Method::POST, path, body).await.status, 403);
    let gateway = gateway.with_token("token-of-operator");
    assert_eq!(
        gateway.admin(Method::GET, "/v1/upstreams", "").await.status,
        403
    );
    assert_eq!(gateway.admin(Method::POST, path, body).await.status, 200);
    let line = gateway
        .logged("who did it", |line| {
            line.contains("operator") && line.contains("\"done\"")
        })
        .await;
    for part in ["operator", path, "10m"] {
        assert!(line.contains(part), "{part} in {line}");
    }
}

#[tokio::test]
async fn the_command_line_lists_and_changes_targets() {
    let (a, b) = (well("a").await, well("b").await);
    let gateway = before(&[&a, &b], "").await;
    answers(&gateway, "b").await;
    let admin = gateway.admin.to_string();
    let command = |arguments: &[&str]| {
        let mut all = vec!["upstreams"];
        all.extend(arguments);
        all.extend(["--admin", &admin]);
        run(&all)
    };
    let listed = command(&[]);
    assert_eq!(listed.code, Some(0), "{}", listed.output());
    let output = listed.output();
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines.len(), 3, "{output}");
    assert!(lines[0].starts_with("UPSTREAM  TARGET  STATE"), "{output}");
    assert!(
        lines[1].contains("ready") && lines[1].contains("usable"),
        "{output}"
    );
    let drained = command(&["drain", "shop", "b", "--for", "10m"]);
    assert_eq!(drained.code, Some(0), "{}", drained.output());
    assert!(
        drained.output().contains("drain for "),
        "{}",
        drained.output()
    );
    assert_eq!(shown(&gateway, "b").await["administrative"], "drain");
    assert_eq!(command(&["out", "shop", "b"]).code, Some(0));
    assert_eq!(shown(&gateway, "b").await["administrative"], "out");
    assert_eq!(command(&["ready", "shop", "b"]).code, Some(0));
    assert_eq!(shown(&gateway, "b").await["administrative"], "ready");
    let unknown = command(&["drain", "shop", "x"]);
    assert_eq!(unknown.code, Some(1), "{}", unknown.output());
    assert!(
        unknown.output().contains("it has a, b"),
        "{}",
        unknown.output()
    );
    let json = command(&["--json"]);
    let json: Value = serde_json::from_str(&json.output()).unwrap();
    assert_eq!(json["upstreams"][0]["targets"][1]["target"], "b");
}
