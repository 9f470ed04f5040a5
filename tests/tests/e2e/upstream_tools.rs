//! What `doctor`, `validate`, `explain` and the logs say of the targets of upstreams.

use e2e::cli::{Ran, run};
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::{Setup, write_config};
use http::Method;
use serde_json::Value;
use tokio::net::TcpListener;

async fn answering(status: u16) -> Origin {
    Origin::pages(move |_| Reply::ok("page").status(status)).await
}

/// A port that refuses connections.
async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string()
}

/// Runs a command that opens no listener, beside the origins of this test.
async fn command(name: &'static str, setup: &Setup) -> Ran {
    let (_dir, config) = setup.write();
    let config = config.to_str().unwrap().to_owned();
    let ran = tokio::task::spawn_blocking(move || run(&[name, "-c", &config]));
    ran.await.unwrap()
}

fn shop(upstream: &str) -> Setup {
    Setup::default()
        .upstream("shop", upstream)
        .route("{name: shop, upstream: shop, cache: off}")
}

/// The line about a target.
fn line_of<'a>(said: &'a str, target: &str) -> &'a str {
    let line = said.lines().find(|line| line.contains(target));
    line.unwrap_or_else(|| panic!("{target} in {said}"))
}

#[tokio::test]
async fn a_doctor_asks_each_target() {
    let (good, sick, gone) = (answering(404).await, answering(503).await, nobody().await);
    let setup = shop(&format!(
        "{{targets: [{}, {}, \"http://{gone}\"]}}",
        good.url(),
        sick.url()
    ));
    let ran = command("doctor", &setup).await;
    assert_eq!(ran.code, Some(0), "{}", ran.output());
    let said = ran.output();
    assert!(said.contains("shop, its targets"), "{said}");
    for (target, words) in [
        (
            good.address().to_string(),
            ["connected in", "HEAD /: it answered 404 in"],
        ),
        (
            sick.address().to_string(),
            ["connected in", "HEAD /: it answered 503 in"],
        ),
        (gone, ["no connection", "it gets no request"]),
    ] {
        let line = line_of(&said, &target);
        assert!(words.iter().all(|word| line.contains(word)), "{line}");
    }
    for origin in [&good, &sick] {
        assert_eq!(origin.count(), 1);
        assert_eq!(
            (origin.last().method, &*origin.last().path),
            (Method::HEAD, "/")
        );
    }
}

#[tokio::test]
async fn a_doctor_makes_the_check_of_an_upstream_that_has_one() {
    let (a, b) = (answering(204).await, answering(404).await);
    let setup = shop(&format!(
        "{{targets: [{}, {}], health: {{active: {{path: /healthz?deep=1, host: shop.example, statuses: [204]}}}}}}",
        a.url(),
        b.url()
    ));
    let ran = command("doctor", &setup).await;
    let said = ran.output();
    for (origin, words) in [(&a, "it answered 204"), (&b, "it answered 404")] {
        let line = line_of(&said, &origin.address().to_string());
        assert!(
            line.contains("GET /healthz?deep=1") && line.contains(words),
            "{line}"
        );
        assert_eq!(
            (origin.count(), &*origin.last().authority),
            (1, "shop.example")
        );
    }
}

#[test]
fn settings_without_effect_and_posts_that_may_be_made_twice_are_told() {
    let validated = |upstream: &str| {
        let yaml = format!(
            "version: 1\nlisteners: [{{address: \"127.0.0.1:0\"}}]\nupstreams: {{shop: {upstream}}}\nroutes: [{{name: shop, upstream: shop}}]\n"
        );
        let dir = tempfile::tempdir().unwrap();
        let config = write_config(dir.path(), &yaml);
        run(&["validate", "-c", config.to_str().unwrap()])
    };
    let (one, two) = ("targets: [http://a]", "targets: [http://a, http://b]");
    for (more, words, of_two) in [
        ("retry: {methods: [GET, POST]}", "may be made twice", true),
        (
            "balance: {by: hash, hash: client}",
            "nothing is chosen",
            false,
        ),
        (
            "health: {active: {path: /healthz}}",
            "whatever its check says",
            false,
        ),
    ] {
        for (targets, told) in [(one, true), (two, of_two)] {
            let ran = validated(&format!("{{{targets}, {more}}}"));
            assert_eq!(ran.code, Some(0), "{more}: {}", ran.output());
            assert_eq!(
                ran.output().contains(words),
                told,
                "{targets}, {more}: {}",
                ran.output()
            );
        }
    }
    let usual = validated(&format!("{{{two}, retry: {{methods: [GET, PUT]}}}}"));
    assert!(!usual.output().contains("twice"), "{}", usual.output());
    let one_name = "has the same name";
    assert!(!usual.output().contains(one_name), "{}", usual.output());
    for targets in [
        "[{url: \"http://a\", name: x}, {url: \"http://b\", name: x}]",
        "[http://a, http://a/]",
    ] {
        let told = validated(&format!("{{targets: {targets}}}"));
        assert_eq!(told.code, Some(0), "{}", told.output());
        assert!(told.output().contains(one_name), "{}", told.output());
    }
}

#[tokio::test]
async fn an_explanation_names_the_targets_that_may_be_asked() {
    let (a, b, standby) = (
        answering(200).await,
        answering(200).await,
        answering(200).await,
    );
    let gateway = shop(&format!(
        "{{targets: [{{url: \"{}\", name: a}}, {{url: \"{}\", name: b}}, {{url: \"{}\", name: standby, priority: 1}}]}}",
        a.url(),
        b.url(),
        standby.url()
    ))
    .start()
    .await;
    let explained = async || {
        let body = r#"{"url": "http://shop.example/"}"#;
        let answer = gateway.admin(Method::POST, "/v1/explain", body).await;
        let answer: Value = serde_json::from_str(&answer.text).unwrap();
        assert!(
            answer["source"]
                .as_str()
                .unwrap()
                .starts_with("upstream shop")
        );
        let lines = answer["targets"].as_array().unwrap().clone();
        let lines = lines.iter().map(|line| line.as_str().unwrap().to_owned());
        lines.collect::<Vec<_>>()
    };
    let usual = [
        "a: ready, usable; candidate",
        "b: ready, usable; candidate",
        "standby: ready, usable; gets no requests while others can be used",
    ];
    assert_eq!(explained().await, usual);
    let drain = r#"{"state": "drain"}"#;
    let path = "/v1/upstreams/shop/targets/b";
    assert_eq!(gateway.admin(Method::POST, path, drain).await.status, 200);
    let lines = explained().await;
    assert_eq!(lines[0], usual[0]);
    assert_eq!(lines[1], "b: drain, usable; gets no requests");
}

#[tokio::test]
async fn the_access_log_names_the_targets_that_failed_and_why() {
    let (well, gone) = (answering(200).await, nobody().await);
    let gateway = shop(&format!(
        "{{targets: [{}, \"http://{gone}\"], balance: {{by: round_robin}}, retry: {{budget: 100}}}}",
        well.url()
    ))
    .start()
    .await;
    let client = gateway.client();
    let mut said = Vec::new();
    for _ in 0..4 {
        let answer = client.get("/").await;
        assert_eq!(answer.status, 200);
        said.push(answer.header("cache-status").to_owned());
    }
    let retried = |status: &&String| status.contains("; detail=retry");
    let retried = said.iter().filter(retried).count();
    assert!((1..4).contains(&retried), "{said:?}");
    let line = gateway
        .logged("a request with two attempts", |line| {
            line.contains("\"attempts\":2")
        })
        .await;
    let failed = format!("\"failed_attempts\":\"{gone}: failed: cannot connect\"");
    assert!(line.contains(&failed), "{line}");
    assert!(line.contains(&well.address().to_string()), "{line}");
    let single = gateway
        .logged("a request with one attempt", |line| {
            line.contains("\"attempts\":1")
        })
        .await;
    assert!(!single.contains("failed_attempts"), "{single}");
}
