//! A plan for a new version of a key plugin, or for other settings of it: how many of the last
//! requests would get another key.

use std::path::Path;

use e2e::cli::{self, Ran, run};
use e2e::gateway::Gateway;
use e2e::guest;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use serde_json::Value;

const PATIENT: &str = "{key_timeout: 10s}";

fn plan(gateway: &Gateway, file: &Path, more: &[&str]) -> Ran {
    let admin = gateway.admin.to_string();
    let mut arguments = vec!["plan", "-c", file.to_str().unwrap(), "--against", &admin];
    arguments.extend(more);
    run(&arguments)
}

fn keys(gateway: &Gateway, file: &Path) -> Value {
    let ran = plan(gateway, file, &["--json"]);
    let said: Value = serde_json::from_str(&ran.stdout).unwrap();
    said["keys"].clone()
}

/// A site whose keys a plugin derives, beside one without.
fn keyed(origin: &Origin, plugin: &str) -> Setup {
    Setup::new(origin)
        .top(
            "telemetry",
            "{log_format: json, recent_requests: {one_hit_in: 1}}",
        )
        .top("plugins", &format!("{{p: {plugin}}}"))
        .route("{name: plain, match: {path: /plain/*}, upstream: origin}")
        .route("{name: site, upstream: origin, key: {plugin: p}}")
}

async fn ask(gateway: &Gateway, targets: &[&str]) {
    for target in targets {
        let answer = gateway.client().get(target).await;
        assert_eq!(answer.status, 200);
    }
}

/// The settings drop a parameter, which the next ones keep: those with the parameter get another
/// key.
#[tokio::test]
async fn other_settings_change_the_keys_of_some_requests() {
    let wasm = cli::repository().join("plugins/dist/normalize-query.wasm");
    let origin = Origin::pages(|_| Reply::fresh("x")).await;
    let plugin = |config: &str| format!("{{file: p.wasm, config: {config}, limits: {PATIENT}}}");
    let setup = keyed(&origin, &plugin("{drop: [utm, fbclid]}"))
        .file("p.wasm", std::fs::read(wasm).unwrap());
    let gateway = setup.start().await;
    let targets = [
        "/a?x=1",
        "/a?x=2",
        "/b?utm=mail",
        "/c?fbclid=7",
        "/d?utm=x&y=1",
    ];
    ask(&gateway, &targets).await;
    ask(&gateway, &["/plain/1", "/plain/2?utm=1"]).await;
    let next = gateway.dir().join("next.yaml");
    std::fs::write(&next, keyed(&origin, &plugin("{drop: [fbclid]}")).yaml()).unwrap();
    let told = keys(&gateway, &next);
    assert_eq!(
        (&told["p"]["requests"], &told["p"]["other_key"]),
        (&5.into(), &2.into())
    );
    assert_eq!(told["p"]["failed"], 0);
    let examples = told["p"]["examples"].to_string();
    assert!(
        examples.contains("/b?utm=mail") && !examples.contains("fbclid"),
        "{examples}"
    );
    // It is no entry, so it does not count as an unreachable one.
    let ran = plan(&gateway, &next, &["--max-unreachable", "5"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let line = "Of the last 5 recorded requests of plugin p, 2 would get another key.\n";
    assert!(ran.stdout.contains(line), "{}", ran.stdout);
    // Nothing of it has happened.
    assert_eq!(origin.count(), 7);
    assert!(gateway.client().get("/b?utm=other").await.is_hit());
    // Another plan, of what serves, has nothing to say.
    let same = gateway.dir().join("lamina.yaml");
    assert_eq!(keys(&gateway, &same), serde_json::json!({}));
}

/// The same settings and another file: its version is a part of each key.
#[tokio::test]
async fn a_new_file_is_asked_for_the_keys_before_it_serves() {
    let origin = Origin::pages(|_| Reply::fresh("x")).await;
    let plugin = format!("{{file: p.wasm, grant: [kv, clock], watch: false, limits: {PATIENT}}}");
    let setup = keyed(&origin, &plugin).file("p.wasm", guest::built("keyer"));
    let gateway = setup.start().await;
    ask(&gateway, &["/1", "/2", "/3", "/plain/4"]).await;
    let file = gateway.dir().join("lamina.yaml");
    assert_eq!(keys(&gateway, &file), serde_json::json!({}));
    std::fs::write(gateway.dir().join("p.wasm"), guest::version("keyer", "two")).unwrap();
    let told = keys(&gateway, &file);
    assert_eq!(
        (&told["p"]["requests"], &told["p"]["other_key"]),
        (&3.into(), &3.into())
    );
    assert!(
        gateway.client().get("/1").await.is_hit(),
        "the old version serves"
    );
    // The reload says it as well, and it is true.
    let answer = gateway.reload().await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.said["keys"]["p"]["other_key"], 4);
    origin.forget();
    ask(&gateway, &["/1", "/2", "/3"]).await;
    assert_eq!(origin.count(), 3);
}

/// A version that fails is asked three times, and nothing else suffers from it.
#[tokio::test]
async fn a_version_that_fails_is_told_of() {
    let origin = Origin::pages(|_| Reply::fresh("x")).await;
    let plugin = |file: &str| format!("{{file: {file}, watch: false, limits: {PATIENT}}}");
    let setup = keyed(&origin, &plugin("p.wasm"))
        .file("p.wasm", guest::built("keyer"))
        .file("bad.wasm", guest::trapping());
    let setup = setup.top(
        "plugins",
        &format!(
            "{{p: {}}}",
            plugin("p.wasm").replace("watch", "grant: [kv, clock], watch")
        ),
    );
    let gateway = setup.start().await;
    ask(&gateway, &["/1", "/2", "/3", "/4", "/5"]).await;
    let next = gateway.dir().join("next.yaml");
    std::fs::write(&next, keyed(&origin, &plugin("bad.wasm")).yaml()).unwrap();
    let told = keys(&gateway, &next);
    assert_eq!(
        [
            &told["p"]["requests"],
            &told["p"]["failed"],
            &told["p"]["left_out"]
        ],
        [&Value::from(0), &Value::from(3), &Value::from(2)]
    );
    let ran = plan(&gateway, &next, &[]);
    assert!(
        ran.stdout.contains("for 3 more the plugin failed"),
        "{}",
        ran.stdout
    );
    assert!(gateway.client().get("/1").await.is_hit());
}
