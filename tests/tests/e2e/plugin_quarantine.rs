//! A plugin that fails too often is set aside, heals by itself, and obeys its operator.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use e2e::gateway::Gateway;
use e2e::guest;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, passed, wait_for};
use http::Method;

const RULES: &str = "{rules: {/trap: {trap: true}, /marked: {mark: x-mark}}}";

async fn guarded(quarantine: &str, on_error: &str) -> (Origin, Gateway) {
    let origin = Origin::pages(|seen| Reply::ok(seen.header("x-mark").to_owned())).await;
    let plugin = |name: &str| {
        format!(
            "{name}: {{file: {name}.wasm, watch: false, config: {RULES}, on_error: {{request: {on_error}}}, limits: {{hook_timeout: 10s}}, quarantine: {quarantine}}}"
        )
    };
    let gateway = Setup::new(&origin)
        .file("p.wasm", guest::built("asker"))
        .file("q.wasm", guest::built("asker"))
        .top("plugins", &format!("{{{}, {}}}", plugin("p"), plugin("q")))
        .route(
            "{name: other, match: {host: other.example}, upstream: origin, request: {plugin: q}}",
        )
        .route("{name: site, upstream: origin, request: {plugin: p}}")
        .start()
        .await;
    (origin, gateway)
}

async fn status(gateway: &Gateway, path: &str) -> u16 {
    gateway.client().uncached().get(path).await.status.as_u16()
}

async fn told(gateway: &Gateway, name: &str) -> serde_json::Value {
    let list = gateway.admin(Method::GET, "/v1/plugins", "").await;
    let list: serde_json::Value = serde_json::from_str(&list.text).unwrap();
    let plugins = list["plugins"].as_array().unwrap().clone();
    plugins.into_iter().find(|p| p["plugin"] == name).unwrap()
}

async fn command(gateway: &Gateway, verb: &str) -> u16 {
    let path = format!("/v1/plugins/p/{verb}");
    gateway.admin(Method::POST, &path, "").await.status
}

const STAYS: &str = "{failures: 3, window: 1h, probe_after: 1h}";

#[tokio::test]
async fn after_its_failures_a_plugin_is_not_called_and_others_go_on() {
    for (on_error, aside) in [("refuse", 500), ("continue", 200)] {
        let (_origin, gateway) = guarded(STAYS, on_error).await;
        for _ in 0..3 {
            assert_eq!(told(&gateway, "p").await["state"], "serving");
            assert_eq!(status(&gateway, "/trap").await, aside);
        }
        let answer = gateway.client().uncached().get("/marked").await;
        assert_eq!(answer.status, aside);
        if aside == 200 {
            assert_eq!(answer.text(), "", "it was not called");
        }
        let other = gateway
            .client()
            .uncached()
            .request("/marked")
            .host("other.example");
        assert_eq!(other.send().await.text(), "version-one");
        let report = told(&gateway, "p").await;
        assert_eq!(report["state"], "quarantined");
        assert!(
            report["quarantine"]["reason"]
                .as_str()
                .unwrap()
                .contains("3 calls failed"),
            "{report}"
        );
        assert!(
            report["quarantine"]["probe_in_s"].as_u64().unwrap() > 3_000,
            "{report}"
        );
        assert_eq!(told(&gateway, "q").await["state"], "serving");
        let labels = [("plugin", "p"), ("outcome", "quarantined")];
        assert_eq!(
            gateway.metric("lamina_plugin_calls_total", &labels).await,
            1.0
        );
        gateway
            .logged("that it was set aside", |line| {
                line.contains("plugin in quarantine") && line.contains("\"p\"")
            })
            .await;
    }
}

#[tokio::test]
async fn a_probe_that_succeeds_brings_it_back() {
    let (_origin, gateway) =
        guarded("{failures: 1, window: 1h, probe_after: 10ms}", "refuse").await;
    assert_eq!(status(&gateway, "/trap").await, 500);
    wait_for("a probe heals it", SOON, || async {
        (status(&gateway, "/marked").await == 200).then_some(())
    })
    .await;
    assert_eq!(told(&gateway, "p").await["state"], "serving");
}

#[tokio::test]
async fn with_zero_failures_it_is_never_set_aside() {
    let (_origin, gateway) = guarded("{failures: 0, window: 1h, probe_after: 1h}", "refuse").await;
    for _ in 0..50 {
        assert_eq!(status(&gateway, "/trap").await, 500);
    }
    assert_eq!(status(&gateway, "/marked").await, 200);
}

#[tokio::test]
async fn failures_further_apart_than_the_window_do_not_add_up() {
    let rules = "{failures: 3, window: WINDOW, probe_after: 1h}";
    for (window, state) in [("1s", "serving"), ("1h", "quarantined")] {
        let (_origin, gateway) = guarded(&rules.replace("WINDOW", window), "refuse").await;
        for _ in 0..2 {
            assert_eq!(status(&gateway, "/trap").await, 500);
        }
        passed(Instant::now(), Duration::from_millis(1_100)).await;
        assert_eq!(status(&gateway, "/trap").await, 500);
        assert_eq!(told(&gateway, "p").await["state"], state, "window {window}");
    }
}

#[tokio::test]
async fn an_operator_sets_a_plugin_aside_until_resumed() {
    let (_origin, gateway) = guarded("{failures: 1, window: 1h, probe_after: 1ms}", "refuse").await;
    assert_eq!(command(&gateway, "quarantine").await, 200);
    for _ in 0..3 {
        assert_eq!(status(&gateway, "/marked").await, 500);
    }
    let report = told(&gateway, "p").await;
    assert_eq!(report["state"], "quarantined");
    assert!(report["quarantine"]["probe_in_s"].is_null(), "{report}");
    assert_eq!(command(&gateway, "reload").await, 200);
    assert_eq!(
        status(&gateway, "/marked").await,
        500,
        "the same file is no reason"
    );
    assert_eq!(command(&gateway, "resume").await, 200);
    assert_eq!(status(&gateway, "/marked").await, 200);
}

#[tokio::test]
async fn a_version_that_fails_gives_way_to_the_good_one_before() {
    let (_origin, gateway) = guarded(STAYS, "refuse").await;
    assert_eq!(status(&gateway, "/marked").await, 200);
    std::fs::write(gateway.dir().join("p.wasm"), guest::version("asker", "ill")).unwrap();
    assert_eq!(command(&gateway, "reload").await, 200);
    for _ in 0..3 {
        assert_eq!(status(&gateway, "/marked").await, 500);
    }
    let answer = gateway.client().uncached().get("/marked").await;
    assert_eq!(
        (answer.status.as_u16(), answer.text()),
        (200, "version-one")
    );
    gateway
        .logged("that it came back", |line| {
            line.contains("the earlier version is in use again")
        })
        .await;
    let report = told(&gateway, "p").await;
    assert_eq!(report["version"], "version-one");
    assert_eq!(report["gave_way"]["version"], "version-ill");
    let reason = report["gave_way"]["reason"].as_str().unwrap();
    assert!(reason.contains("3 calls failed"), "{reason}");
}

/// Sends SIGHUP and waits until all plugins were looked at for it.
async fn hang_up(gateway: &Gateway) {
    // The other plugin, which is of no further interest, is swapped by the same signal.
    static NEXT: AtomicU8 = AtomicU8::new(0);
    let mut other = guest::built("asker");
    other.extend([0, 2, 1, NEXT.fetch_add(1, Ordering::Relaxed)]);
    let number = told(gateway, "q").await["number"].clone();
    std::fs::write(gateway.dir().join("q.wasm"), other).unwrap();
    let id = i32::try_from(gateway.process_id()).unwrap();
    let id = rustix::process::Pid::from_raw(id).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::HUP).unwrap();
    wait_for("the other one is swapped", SOON, || async {
        (told(gateway, "q").await["number"] != number).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_file_that_failed_comes_back_by_an_operators_word_alone() {
    let (_origin, gateway) = guarded(STAYS, "refuse").await;
    assert_eq!(status(&gateway, "/marked").await, 200);
    let file = gateway.dir().join("p.wasm");
    std::fs::write(&file, guest::version("asker", "ill")).unwrap();
    assert_eq!(command(&gateway, "reload").await, 200);
    for _ in 0..3 {
        assert_eq!(status(&gateway, "/marked").await, 500);
    }
    // Written anew with the same bytes, too.
    std::fs::write(&file, guest::version("asker", "ill")).unwrap();
    hang_up(&gateway).await;
    gateway
        .logged("that it is not taken up", |line| {
            line.contains("still contains the version that failed") && line.contains("\"p\"")
        })
        .await;
    assert_eq!(status(&gateway, "/marked").await, 200);
    let report = told(&gateway, "p").await;
    assert_eq!(
        (&report["version"], &report["state"]),
        (&"version-one".into(), &"serving".into())
    );
    assert_eq!(report["gave_way"]["version"], "version-ill");
    assert_eq!(command(&gateway, "reload").await, 200);
    let report = told(&gateway, "p").await;
    assert_eq!(
        report["version"], "version-ill",
        "an operator may try it again"
    );
    assert!(report["gave_way"].is_null(), "{report}");
}

#[tokio::test]
async fn an_operators_quarantine_holds_for_what_files_bring() {
    let (_origin, gateway) = guarded(STAYS, "refuse").await;
    assert_eq!(command(&gateway, "quarantine").await, 200);
    hang_up(&gateway).await;
    assert_eq!(status(&gateway, "/marked").await, 500, "the same bytes");
    std::fs::write(gateway.dir().join("p.wasm"), guest::version("asker", "two")).unwrap();
    hang_up(&gateway).await;
    wait_for("the new file is there", SOON, || async {
        (told(&gateway, "p").await["version"] == "version-two").then_some(())
    })
    .await;
    assert_eq!(told(&gateway, "p").await["state"], "quarantined");
    assert_eq!(status(&gateway, "/marked").await, 500);
    assert_eq!(command(&gateway, "resume").await, 200);
    let answer = gateway.client().uncached().get("/marked").await;
    assert_eq!(answer.text(), "version-two");
    assert_eq!(command(&gateway, "quarantine").await, 200);
    std::fs::write(gateway.dir().join("p.wasm"), guest::version("asker", "tri")).unwrap();
    assert_eq!(command(&gateway, "reload").await, 200);
    let answer = gateway.client().uncached().get("/marked").await;
    assert_eq!(
        answer.text(),
        "version-tri",
        "a new version by an operator's word serves"
    );
}

#[tokio::test]
async fn an_operators_quarantine_does_not_bring_an_earlier_version_back() {
    let (_origin, gateway) = guarded(STAYS, "refuse").await;
    std::fs::write(gateway.dir().join("p.wasm"), guest::version("asker", "two")).unwrap();
    assert_eq!(command(&gateway, "reload").await, 200);
    assert_eq!(command(&gateway, "quarantine").await, 200);
    for _ in 0..3 {
        assert_eq!(status(&gateway, "/marked").await, 500);
    }
    assert_eq!(command(&gateway, "resume").await, 200);
    assert_eq!(
        gateway.client().uncached().get("/marked").await.text(),
        "version-two"
    );
}
