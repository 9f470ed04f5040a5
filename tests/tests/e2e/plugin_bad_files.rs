//! Files that are no plugin: each stops a start with its reason, and never takes the place of
//! one that serves.

use e2e::cli;
use e2e::gateway::Gateway;
use e2e::guest;
use e2e::guest::wrong;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use http::Method;
use serde_json::Value;

/// A route that asks `p` before each request, and tells the origin the plugin's version.
fn asking(origin: &Origin, wasm: Vec<u8>) -> Setup {
    let rules = "{rules: {/: {mark: x-mark}}}";
    Setup::new(origin)
        .file("p.wasm", wasm)
        .top(
            "plugins",
            &format!("{{p: {{file: p.wasm, config: {rules}, watch: false, on_error: {{request: refuse}}, limits: {{hook_timeout: 10s}}}}}}"),
        )
        .route("{name: site, upstream: origin, request: {plugin: p}}")
}

async fn marking() -> Origin {
    Origin::pages(|seen| Reply::ok(seen.header("x-mark").to_owned())).await
}

/// Those of `wrong`, and plugins that are not what the route and the YAML want.
fn bad() -> Vec<(Vec<u8>, &'static str)> {
    let mut bad = wrong::files();
    bad.extend([
        (guest::built("answerer"), "a route uses it as `request`"),
        (guest::version("asker", "bad"), "its `describe` failed"),
        (guest::built("counter"), "grant: ["),
    ]);
    bad
}

async fn reload(gateway: &Gateway) -> (u16, Value) {
    let path = "/v1/plugins/p/reload";
    let answer = gateway.admin(Method::POST, path, "").await;
    (answer.status, serde_json::from_str(&answer.text).unwrap())
}

#[tokio::test]
async fn a_bad_file_stops_the_start_with_its_reason_and_the_name_of_the_plugin() {
    let origin = marking().await;
    for (wasm, why) in bad() {
        let (dir, config) = asking(&origin, wasm).write();
        let refused = Gateway::try_start(dir, &config, &[]).await.err();
        let refused = refused.unwrap_or_else(|| panic!("{why}: it started"));
        assert!(refused.code.is_some_and(|code| code != 0), "{why}");
        assert!(
            refused.log.contains(why) && refused.log.contains("`p`"),
            "{why}: {}",
            refused.log
        );
    }
}

#[tokio::test]
async fn a_bad_file_is_explained_by_check() {
    for (wasm, why) in wrong::files() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("bad.wasm");
        std::fs::write(&file, wasm).unwrap();
        let ran = cli::run(&["plugin", "check", file.to_str().unwrap()]);
        assert!(
            ran.code.is_some_and(|code| code != 0 && code != 101),
            "{why}: {:?}",
            ran.code
        );
        assert!(ran.output().contains(why), "{why}: {}", ran.output());
    }
}

#[tokio::test]
async fn a_bad_file_never_replaces_a_good_one_and_the_answer_says_why() {
    let origin = marking().await;
    let gateway = asking(&origin, guest::built("asker")).start().await;
    let file = gateway.dir().join("p.wasm");
    for (wasm, why) in bad() {
        std::fs::write(&file, wasm).unwrap();
        let (status, body) = reload(&gateway).await;
        assert_eq!(status, 422, "{why}: {body}");
        assert!(
            body["error"].as_str().unwrap().contains(why),
            "{why}: {body}"
        );
        assert_eq!(body["serves"]["version"], "version-one");
        assert_eq!(
            gateway.client().get("/").await.text(),
            "version-one",
            "{why}"
        );
    }
    std::fs::remove_file(&file).unwrap();
    assert_eq!(reload(&gateway).await.0, 422);
    assert_eq!(gateway.client().get("/").await.text(), "version-one");
    std::fs::write(&file, guest::version("asker", "two")).unwrap();
    assert_eq!(reload(&gateway).await.1["swapped"], true);
    assert_eq!(gateway.client().get("/").await.text(), "version-two");
}
