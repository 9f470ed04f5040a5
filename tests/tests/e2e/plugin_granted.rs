//! Imports that YAML grants by name: `kv`, `clock`, `random`.

use e2e::cli;
use e2e::gateway::Gateway;
use e2e::guest;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;

const PATIENT: &str = "{key_timeout: 10s, hook_timeout: 10s, kv_bytes: 256KiB}";

fn granting(origin: &Origin, grant: &str) -> Setup {
    Setup::new(origin)
        .file("counter.wasm", guest::built("counter"))
        .top(
            "plugins",
            &format!("{{p: {{file: counter.wasm, grant: {grant}, on_error: {{request: refuse}}, limits: {PATIENT}}}}}"),
        )
        .route("{name: site, upstream: origin, request: {plugin: p}}")
}

async fn granted() -> (Origin, Gateway) {
    let origin = Origin::pages(|_| Reply::ok("x")).await;
    let gateway = granting(&origin, "[kv, clock, random]").start().await;
    (origin, gateway)
}

#[tokio::test]
async fn what_is_not_granted_is_refused_by_name_with_the_line_to_add() {
    let origin = Origin::pages(|_| Reply::ok("x")).await;
    for (grant, name) in [
        ("[clock, random]", "kv"),
        ("[kv, random]", "clock"),
        ("[kv, clock]", "random"),
    ] {
        let (_dir, config) = granting(&origin, grant).write();
        let ran = cli::run(&["validate", "-c", config.to_str().unwrap()]);
        assert_ne!(ran.code, Some(0), "{name}");
        let output = ran.output();
        assert!(
            output.contains(&format!("lamina:plugin/{name}@1.0.0")),
            "{output}"
        );
        assert!(output.contains(&format!("grant: [{name}]")), "{output}");
    }
}

#[tokio::test]
async fn a_store_is_shared_by_instances_and_threads_and_outlives_a_version() {
    let (_origin, gateway) = granted().await;
    for expected in 1..=20 {
        // Each on a connection of its own, so that both threads have some.
        let client = gateway.client().uncached();
        assert_eq!(client.get("/count").await.text(), expected.to_string());
    }
    std::fs::write(
        gateway.dir().join("counter.wasm"),
        guest::version("counter", "two"),
    )
    .unwrap();
    let answer = gateway
        .admin(http::Method::POST, "/v1/plugins/p/reload", "")
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(gateway.client().uncached().get("/count").await.text(), "21");
}

#[tokio::test]
async fn a_store_is_bounded() {
    let (_origin, gateway) = granted().await;
    let client = gateway.client().uncached();
    assert_eq!(client.get("/fill").await.text(), "1000", "each is accepted");
    e2e::wait::wait_for("what is too much goes", e2e::wait::SOON, || async {
        let held: usize = client.get("/held").await.text().parse().unwrap();
        (held <= 64).then_some(())
    })
    .await;
    assert_eq!(client.get("/large").await.text(), "false");
    assert_eq!(client.get("/for-ever").await.text(), "true");
    assert_eq!(client.get("/held").await.status, 200);
}

#[tokio::test]
async fn clock_and_randomness_are_real_and_bounded() {
    let (_origin, gateway) = granted().await;
    let client = gateway.client().uncached();
    let clock = client.get("/clock").await;
    let (seconds, forward) = clock.text().split_once(' ').unwrap();
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    assert!(now.as_secs().abs_diff(seconds.parse().unwrap()) < 60);
    assert_eq!(forward, "true");
    assert_ne!(
        client.get("/random").await.text(),
        client.get("/random").await.text()
    );
    assert_eq!(client.get("/random/much").await.status, 500);
    assert_eq!(client.get("/random").await.status, 200);
}

#[tokio::test]
async fn a_key_that_asks_for_what_changes_is_a_failed_call() {
    let origin = Origin::pages(|_| Reply::fresh("x")).await;
    let gateway = Setup::new(&origin)
        .file("keyer.wasm", guest::built("keyer"))
        .top(
            "plugins",
            &format!("{{p: {{file: keyer.wasm, grant: [kv, clock], on_error: {{key: refuse}}, limits: {PATIENT}}}}}"),
        )
        .route("{name: site, upstream: origin, key: {plugin: p}}")
        .start()
        .await;
    for path in ["/kv", "/clock"] {
        assert_eq!(
            gateway.client().uncached().get(path).await.status,
            500,
            "{path}"
        );
    }
    assert_eq!(gateway.client().get("/pure").await.status, 200);
    let labels = [("plugin", "p"), ("phase", "key"), ("outcome", "refused")];
    assert_eq!(
        gateway.metric("lamina_plugin_calls_total", &labels).await,
        2.0
    );
}
