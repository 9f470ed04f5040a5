//! Targets at sockets of this machine and in files of their own, and states that outlive the process.

use std::fs;
use std::path::Path;

use e2e::cli::run;
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_for};
use http::Method;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

use crate::upstream_names::answered_by;

async fn named(name: &'static str) -> Origin {
    Origin::pages(move |_| Reply::ok(name)).await
}

fn shop(upstream: &str) -> Setup {
    Setup::default()
        .upstream("shop", upstream)
        .route("{name: shop, upstream: shop, cache: off}")
}

async fn shown_upstream(gateway: &Gateway) -> Value {
    let answer = gateway.admin(Method::GET, "/v1/upstreams", "").await;
    let all: Value = serde_json::from_str(&answer.text).unwrap();
    all["upstreams"][0].clone()
}

/// Answers each request at this socket with the head that it got.
fn echo_at(path: &Path) {
    let listener = UnixListener::bind(path).unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                loop {
                    while !head.ends_with(b"\r\n\r\n") {
                        if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    let answer =
                        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", head.len());
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    stream.write_all(&head).await.unwrap();
                    head.clear();
                }
            });
        }
    });
}

#[tokio::test]
async fn a_socket_of_this_machine_is_a_target() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("app.sock");
    echo_at(&socket);
    for (host_header, expected) in [("preserve", None), ("upstream", Some("host: localhost"))] {
        let upstream = format!(
            "{{targets: [\"unix:{}\"], host_header: {host_header}}}",
            socket.display()
        );
        let gateway = shop(&upstream).start().await;
        let client = gateway.client();
        for _ in 0..3 {
            let answer = client.get("/page?q=1").await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            let head = answer.text().to_lowercase();
            assert!(head.starts_with("get /page?q=1 http/1.1"), "{head}");
            let preserved = format!("host: {}", gateway.addresses()[0]);
            assert!(head.contains(expected.unwrap_or(&preserved)), "{head}");
        }
    }
}

#[tokio::test]
async fn a_socket_that_is_not_there_is_named_with_the_user() {
    let gateway = shop("{targets: [\"unix:/nowhere/app.sock\"]}")
        .start()
        .await;
    let answer = gateway.client().get("/").await;
    assert_eq!(answer.status, 502);
    let line = gateway
        .logged("the failure", |line| line.contains("/nowhere/app.sock"))
        .await;
    assert!(
        line.contains("No such file or directory (os error 2)"),
        "{line}"
    );
    assert!(line.contains("runs as user"), "{line}");
}

#[tokio::test]
async fn an_upstream_of_a_socket_path_that_cannot_be_one_is_refused() {
    let long = format!("{{targets: [\"unix:/{}\"]}}", "x".repeat(110));
    for upstream in ["{targets: [\"unix:app.sock\"]}", &long] {
        let (_dir, config) = shop(upstream).write();
        let config = config.to_str().unwrap().to_owned();
        let ran = tokio::task::spawn_blocking(move || run(&["validate", "-c", &config]));
        let said = ran.await.unwrap().output();
        assert!(said.contains("upstreams.shop.targets[0]"), "{said}");
        assert!(
            said.contains("expected an absolute path of 107 bytes at most"),
            "{said}"
        );
    }
}

fn replace(file: &Path, content: &str) {
    let unfinished = file.with_extension("new");
    fs::write(&unfinished, content).unwrap();
    fs::rename(unfinished, file).unwrap();
}

#[tokio::test]
async fn a_file_of_targets_is_followed_and_a_bad_one_changes_nothing() {
    let (a, b) = (named("a").await, named("b").await);
    let both = format!("- {}\n- {{ url: \"{}\", name: blue }}\n", a.url(), b.url());
    let gateway = shop("{targets_file: targets.yaml, balance: {by: round_robin, slow_start: 0s}}")
        .file("targets.yaml", format!("- {}\n", a.url()))
        .start()
        .await;
    let file = gateway.dir().join("targets.yaml");
    answered_by(&gateway, &["a"]).await;
    replace(&file, &both);
    answered_by(&gateway, &["a", "b"]).await;
    let labels = [("upstream", "shop")];
    for (bad, expected) in [
        ("- http://a\n- { urll: http://b }\n", "targets.yaml:2:5"),
        ("", "no list of targets"),
        ("- [", "targets.yaml:1"),
    ] {
        fs::write(&file, bad).unwrap();
        gateway
            .metric_until("lamina_upstream_targets_file_failing", &labels, |value| {
                value == 1.0
            })
            .await;
        wait_for("the problem is told", SOON, || async {
            let problem = shown_upstream(&gateway).await["targets_file_problem"].to_string();
            problem.contains(expected).then_some(())
        })
        .await;
        answered_by(&gateway, &["a", "b"]).await;
    }
    fs::remove_file(&file).unwrap();
    answered_by(&gateway, &["a", "b"]).await;
    fs::write(&file, format!("- {}\n", b.url())).unwrap();
    answered_by(&gateway, &["b"]).await;
    gateway
        .metric_until("lamina_upstream_targets_file_failing", &labels, |value| {
            value == 0.0
        })
        .await;
    let connections = a.open_connections();
    assert_eq!(
        connections, 0,
        "connections to targets that are gone are closed"
    );
}

#[tokio::test]
async fn a_target_that_stays_in_the_file_keeps_its_state() {
    let (a, b) = (named("a").await, named("b").await);
    let gateway = shop("{targets_file: targets.yaml, balance: {slow_start: 0s}}")
        // Each worker has connections of its own.
        .top("server", "{threads: 1}")
        .file(
            "targets.yaml",
            format!("- {{ url: \"{}\", name: a }}\n", a.url()),
        )
        .start()
        .await;
    answered_by(&gateway, &["a"]).await;
    let connections = a.connections();
    let drain = "/v1/upstreams/shop/targets/a";
    let answer = gateway
        .admin(Method::POST, drain, r#"{"state": "drain"}"#)
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    replace(
        &gateway.dir().join("targets.yaml"),
        &format!("- {}\n- {{ url: \"{}\", name: a }}\n", b.url(), a.url()),
    );
    answered_by(&gateway, &["b"]).await;
    let answer = gateway
        .admin(Method::POST, drain, r#"{"state": "ready"}"#)
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answered_by(&gateway, &["a", "b"]).await;
    assert_eq!(a.connections(), connections, "its connections stand");
}

/// Another weight or priority makes no other target of it.
#[tokio::test]
async fn a_target_with_another_weight_in_the_file_stays_ejected_and_keeps_its_connections() {
    let (a, sick) = (named("a").await, named("sick").await);
    sick.behave(|_| async { Reply::ok("sick").status(503) });
    let list = |weight: u32, priority: u32| {
        let line = |name: &str, origin: &Origin, priority: u32| {
            let url = origin.url();
            format!(
                "- {{ url: \"{url}\", name: {name}, weight: {weight}, priority: {priority} }}\n"
            )
        };
        [line("a", &a, 0), line("sick", &sick, priority)].concat()
    };
    let upstream = "{targets_file: targets.yaml, balance: {by: round_robin}, retry: {budget: 100}, health: {passive: {eject: 1h, max_eject: 1h}}}";
    let gateway = shop(upstream)
        .top("server", "{threads: 1}")
        .file("targets.yaml", list(1, 0))
        .start()
        .await;
    let client = gateway.client();
    let shown = async || shown_upstream(&gateway).await["targets"][1].clone();
    wait_for("it is ejected", SOON, || async {
        assert_eq!(client.get("/").await.status, 200);
        (shown().await["observed"] == "ejected").then_some(())
    })
    .await;
    let (asked, connections) = (sick.count(), a.connections());
    replace(&gateway.dir().join("targets.yaml"), &list(3, 2));
    wait_for("the file was read", SOON, || async {
        let now = shown().await;
        (now["weight"] == 3.0 && now["priority"] == 2).then_some(())
    })
    .await;
    assert_eq!(shown().await["observed"], "ejected");
    for _ in 0..10 {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert_eq!((sick.count(), a.connections()), (asked, connections));
}

/// Whoever reads a pipe waits for somebody who writes.
#[tokio::test]
async fn a_pipe_in_place_of_the_file_of_targets_changes_nothing() {
    let a = named("a").await;
    let gateway = shop("{targets_file: targets.yaml}")
        .file("targets.yaml", format!("- {}\n", a.url()))
        .start()
        .await;
    let file = gateway.dir().join("targets.yaml");
    let made = std::process::Command::new("mkfifo")
        .arg(gateway.dir().join("pipe"))
        .status();
    assert!(made.unwrap().success());
    fs::rename(gateway.dir().join("pipe"), &file).unwrap();
    wait_for("the problem is told", SOON, || async {
        let problem = shown_upstream(&gateway).await["targets_file_problem"].to_string();
        problem.contains("no regular file").then_some(())
    })
    .await;
    answered_by(&gateway, &["a"]).await;
    assert_eq!(gateway.admin(Method::GET, "/livez", "").await.status, 200);
}

#[tokio::test]
async fn a_bad_file_of_targets_is_told_by_validate_and_stops_a_start() {
    let setup =
        shop("{targets_file: targets.yaml}").file("targets.yaml", "- http://a\n- ftp://b\n");
    let (_dir, config) = setup.write();
    let config = config.to_str().unwrap().to_owned();
    let ran = tokio::task::spawn_blocking(move || run(&["validate", "-c", &config]));
    let ran = ran.await.unwrap();
    let said = ran.output();
    assert_ne!(ran.code, Some(0), "{said}");
    assert!(
        said.contains("targets.yaml:2:3") && said.contains("ftp://b"),
        "{said}"
    );
}

/// What is ordered for one of them concerns both.
#[tokio::test]
async fn two_targets_of_one_name_in_a_file_are_told_with_their_place() {
    let (a, b) = (named("a").await, named("b").await);
    let twice = format!("- {}\n- {}\n- {}\n", a.url(), b.url(), a.url());
    let setup = shop("{targets_file: targets.yaml}").file("targets.yaml", twice.as_str());
    let (_dir, config) = setup.write();
    let config = config.to_str().unwrap().to_owned();
    let ran = tokio::task::spawn_blocking(move || run(&["validate", "-c", &config]));
    let said = ran.await.unwrap().output();
    let is_told = |said: &str| {
        said.contains("targets.yaml:3:3") && said.contains("expected a `name` of its own")
    };
    assert!(is_told(&said), "{said}");
    // Also while the gateway runs.
    let gateway = shop("{targets_file: targets.yaml}")
        .file("targets.yaml", format!("- {}\n", a.url()))
        .start()
        .await;
    fs::write(gateway.dir().join("targets.yaml"), &twice).unwrap();
    gateway.logged("the two targets", is_told).await;
    answered_by(&gateway, &["a", "b"]).await;
}

#[tokio::test]
async fn a_kept_state_outlives_the_process_and_another_does_not() {
    let (a, b) = (named("a").await, named("b").await);
    let kept = tempfile::tempdir().unwrap();
    let upstream = format!(
        "{{targets: [{{url: \"{}\", name: a}}, {{url: \"{}\", name: b}}], balance: {{slow_start: 0s}}}}",
        a.url(),
        b.url()
    );
    let setup = shop(&upstream).variable("LAMINA_CACHE_DIR", kept.path().to_str().unwrap());
    let order = async |gateway: &Gateway, target: &str, order: &str| {
        let path = format!("/v1/upstreams/shop/targets/{target}");
        let answer = gateway.admin(Method::POST, &path, order).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    };
    let first = setup.start().await;
    order(
        &first,
        "a",
        r#"{"state": "drain", "for": "1h", "keep": true}"#,
    )
    .await;
    drop(first);
    let second = setup.start().await;
    answered_by(&second, &["b"]).await;
    let shown = shown_upstream(&second).await;
    assert_eq!(shown["targets"][0]["administrative"], "drain", "{shown}");
    let left = shown["targets"][0]["ready_in_ms"].as_u64().unwrap();
    assert!((3_000_000..=3_600_000).contains(&left), "{left}");
    order(&second, "a", r#"{"state": "ready"}"#).await;
    order(&second, "b", r#"{"state": "out"}"#).await;
    drop(second);
    let third = setup.start().await;
    answered_by(&third, &["a", "b"]).await;
    drop(third);
    // More seconds than any clock has.
    let for_ever = format!(
        "{{\"shop\": {{\"a\": {{\"state\": \"out\", \"until\": {}}}}}}}",
        u64::MAX
    );
    fs::write(kept.path().join("targets.json"), for_ever).unwrap();
    let endless = setup.start().await;
    answered_by(&endless, &["b"]).await;
    drop(endless);
    fs::write(kept.path().join("targets.json"), "{ broken").unwrap();
    let fourth = setup.start().await;
    answered_by(&fourth, &["a", "b"]).await;
    fourth
        .logged("the broken file", |line| {
            line.contains("kept states of targets can't be read")
        })
        .await;
}
