//! A new file takes the place of the old one between two requests; a bad one never does
//! (which files those are: `plugin_bad_files`).

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use e2e::gateway::Gateway;
use e2e::guest;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, passed, wait_for};
use http::Method;
use serde_json::Value;

const PATIENT: &str = "{key_timeout: 10s, hook_timeout: 10s, load_timeout: 10m}";

/// A route that asks `p` before each request, and tells the origin the plugin's version.
fn swapping(origin: &Origin, more: &str) -> Setup {
    let rules = "{rules: {/: {mark: x-mark}, /stays: {mark: x-mark}}}";
    Setup::new(origin)
        .file("p.wasm", guest::built("asker"))
        .top(
            "plugins",
            &format!("{{p: {{file: p.wasm, config: {rules}, on_error: {{request: refuse}}, limits: {PATIENT}{more}}}}}"),
        )
        .route("{name: site, upstream: origin, request: {plugin: p}}")
}

async fn marking() -> Origin {
    Origin::pages(|seen| Reply::ok(seen.header("x-mark").to_owned())).await
}

fn file(gateway: &Gateway) -> PathBuf {
    gateway.dir().join("p.wasm")
}

async fn serves(gateway: &Gateway, version: &str) {
    wait_for(&format!("{version} serves"), SOON, || async {
        (gateway.client().get("/").await.text() == version).then_some(())
    })
    .await;
}

async fn reload(gateway: &Gateway) -> (u16, Value) {
    let answer = gateway
        .admin(Method::POST, "/v1/plugins/p/reload", "")
        .await;
    (answer.status, serde_json::from_str(&answer.text).unwrap())
}

#[tokio::test]
async fn a_new_file_serves_by_itself_renamed_or_written_in_place_and_no_request_fails() {
    let origin = marking().await;
    let gateway = swapping(&origin, "").start().await;
    let (ends, asked) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let load = (0..4).map(|_| {
        let (client, ends, asked) = (gateway.client(), Arc::clone(&ends), Arc::clone(&asked));
        tokio::spawn(async move {
            while !ends.load(Ordering::Relaxed) {
                let answer = client.get("/").await;
                assert_eq!(answer.status, 200);
                assert!(answer.text().starts_with("version-"), "{}", answer.text());
                asked.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    let load: Vec<_> = load.collect();
    serves(&gateway, "version-one").await;
    let beside = gateway.dir().join("new");
    std::fs::write(&beside, guest::version("asker", "two")).unwrap();
    std::fs::rename(&beside, file(&gateway)).unwrap();
    serves(&gateway, "version-two").await;
    std::fs::write(file(&gateway), guest::version("asker", "tri")).unwrap();
    serves(&gateway, "version-tri").await;
    ends.store(true, Ordering::Relaxed);
    for client in load {
        client.await.unwrap();
    }
    assert!(asked.load(Ordering::Relaxed) > 10);
    gateway
        .logged("the swap", |line| {
            line.contains("new plugin version in use")
        })
        .await;
}

#[tokio::test]
async fn the_old_versions_instances_go_with_it_though_nobody_calls_the_plugin() {
    let origin = marking().await;
    let gateway = swapping(&origin, ", watch: false").start().await;
    let live = async || {
        let labels = [("plugin", "p")];
        gateway.metric("lamina_plugin_instances", &labels).await
    };
    for round in 0..10 {
        for _ in 0..8 {
            gateway.client().get("/").await;
        }
        let before = live().await;
        assert!(
            (1.0..=2.0).contains(&before),
            "one on each thread, or none: {before}"
        );
        let word = ["two", "tri"][round % 2];
        std::fs::write(file(&gateway), guest::version("asker", word)).unwrap();
        assert_eq!(reload(&gateway).await.1["swapped"], true);
        assert_eq!(live().await, 0.0, "round {round}");
    }
}

#[tokio::test]
async fn a_watched_bad_file_is_refused_once_with_a_line_in_the_log() {
    let origin = marking().await;
    let gateway = swapping(&origin, "").start().await;
    std::fs::write(file(&gateway), b"not wasm").unwrap();
    gateway
        .logged("the refusal", |line| {
            line.contains("refused") && line.contains("not a WebAssembly file")
        })
        .await;
    assert_eq!(gateway.client().get("/").await.text(), "version-one");
    // Files are looked at once a second: the bad one is seen again, and is no news.
    passed(Instant::now(), Duration::from_millis(2_500)).await;
    std::fs::write(file(&gateway), guest::version("asker", "two")).unwrap();
    serves(&gateway, "version-two").await;
    let refusals = gateway
        .log()
        .iter()
        .filter(|line| line.contains("not a WebAssembly file"))
        .count();
    assert_eq!(refusals, 1);
}

#[tokio::test]
async fn sighup_takes_new_files_up_also_where_they_are_not_watched() {
    let origin = marking().await;
    let gateway = swapping(&origin, ", watch: false").start().await;
    std::fs::write(file(&gateway), guest::version("asker", "two")).unwrap();
    let id = i32::try_from(gateway.process_id()).unwrap();
    let id = rustix::process::Pid::from_raw(id).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::HUP).unwrap();
    serves(&gateway, "version-two").await;
}

#[tokio::test]
async fn an_operator_reloads_with_the_token_alone_and_by_post_alone() {
    let origin = marking().await;
    let setup = swapping(&origin, ", watch: false").top(
        "admin",
        "{address: \"127.0.0.1:0\", token: 0123456789abcdef}",
    );
    let gateway = setup.start().await;
    let path = "/v1/plugins/p/reload";
    assert_eq!(gateway.admin(Method::POST, path, "").await.status, 401);
    assert_eq!(
        gateway
            .admin(Method::POST, "/v1/plugins/ghost/reload", "")
            .await
            .status,
        401
    );
    let gateway = gateway.with_token("0123456789abcdef");
    assert_eq!(gateway.admin(Method::GET, path, "").await.status, 405);
    assert_eq!(
        gateway
            .admin(Method::POST, "/v1/plugins/ghost/reload", "")
            .await
            .status,
        404
    );
    assert_eq!(
        gateway
            .admin(Method::POST, "/v1/plugins/p/dance", "")
            .await
            .status,
        404
    );
    assert_eq!(
        gateway.admin(Method::POST, "/v1/plugins", "").await.status,
        405
    );
    let (status, body) = reload(&gateway).await;
    assert_eq!((status, &body["swapped"]), (200, &false.into()), "{body}");
    assert_eq!(body["hooks"], serde_json::json!(["request"]));
    std::fs::write(file(&gateway), guest::version("asker", "two")).unwrap();
    let (status, body) = reload(&gateway).await;
    assert_eq!((status, &body["swapped"]), (200, &true.into()), "{body}");
    assert_eq!(body["version"], "version-two");
}

#[tokio::test]
async fn keys_of_the_old_version_are_forgotten() {
    let origin = Origin::pages(|_| Reply::fresh("x")).await;
    let gateway = Setup::new(&origin)
        .file("p.wasm", guest::built("keyer"))
        .top(
            "plugins",
            &format!(
                "{{p: {{file: p.wasm, grant: [kv, clock], watch: false, limits: {PATIENT}}}}}"
            ),
        )
        .route("{name: site, upstream: origin, key: {plugin: p}}")
        .start()
        .await;
    for _ in 0..8 {
        gateway.client().get("/").await;
    }
    assert_eq!(origin.count(), 1);
    std::fs::write(file(&gateway), guest::version("keyer", "two")).unwrap();
    assert_eq!(reload(&gateway).await.1["swapped"], true);
    for _ in 0..8 {
        gateway.client().get("/").await;
    }
    assert_eq!(origin.count(), 2, "the version is a part of the key");
}

#[tokio::test]
async fn a_call_in_flight_ends_on_the_version_it_began_on() {
    let origin = Origin::start(|asked| async move {
        let (reply, pieces) = Reply::stream();
        let held = asked.seen.path == "/held";
        tokio::spawn(async move {
            if held {
                // Until the test has seen the new version serve.
                HELD.notified().await;
            }
            pieces.send("from the origin").await;
            pieces.finish().await;
        });
        reply
    })
    .await;
    static HELD: tokio::sync::Notify = tokio::sync::Notify::const_new();
    let gateway = Setup::new(&origin)
        .file("p.wasm", guest::built("web"))
        .top(
            "plugins",
            &format!("{{p: {{file: p.wasm, fetch: [origin], watch: false, limits: {PATIENT}}}}}"),
        )
        .route("{name: site, loader: {plugin: p}}")
        .start()
        .await;
    let client = gateway.client();
    let held = tokio::spawn(async move { client.get("/fetch?http://origin/held").await });
    origin.saw(1).await;
    let mut other = guest::built("web");
    // An empty custom section: other bytes, the same code.
    other.extend([0, 2, 1, b'x']);
    std::fs::write(file(&gateway), other).unwrap();
    assert_eq!(reload(&gateway).await.1["swapped"], true);
    assert_eq!(gateway.client().get("/hello").await.text(), "hello");
    HELD.notify_one();
    assert_eq!(held.await.unwrap().text(), "200 from the origin");
}
