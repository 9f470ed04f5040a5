//! Rights that a node lacks on its broker: what it can't publish waits, and it is told with the
//! server's own words.

use e2e::cli::run;
use e2e::fleet::{Pages, node, purge_everywhere, state};
use e2e::free_port::free_port;
use e2e::gateway::Gateway;
use e2e::nats::Nats;
use e2e::wait::{SOON, wait_for};
use http::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

const CORE: &str = "mode: core";
const JETSTREAM: &str = "mode: jetstream, jetstream: {durable_name: a, storage: memory}";

/// A NATS server whose one user may do all but this.
fn server_without(right: &str) -> (Nats, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("nats.conf");
    let user = format!("{{user: edge, password: pw, permissions: {{{right}}}}}");
    std::fs::write(&file, format!("authorization: {{users: [{user}]}}")).unwrap();
    let config = ["--config", file.to_str().unwrap()];
    (Nats::spawn(free_port(), &config), folder)
}

fn over(nats: &Nats, mode: &str) -> String {
    let servers = format!("servers: [\"{}\"]", nats.url());
    format!("nats: {{{servers}, username: edge, password: pw, {mode}}}")
}

/// A node whose purges the broker refuses is still there, and has applied what others purged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_purges_are_refused_is_heard_and_answers() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("nats.conf");
    let refused = "permissions: {publish: {deny: [cache.invalidations]}}";
    let users = format!("{{user: edge, password: pw, {refused}}}, {{user: free, password: pw}}");
    std::fs::write(&file, format!("authorization: {{users: [{users}]}}")).unwrap();
    let nats = Nats::spawn(free_port(), &["--config", file.to_str().unwrap()]);
    let origin = Pages::default().origin().await;
    let restricted = over(&nats, JETSTREAM);
    let free = restricted
        .replace("edge", "free")
        .replace("durable_name: a", "durable_name: b");
    let a = node(&origin, "a", &restricted).start().await;
    let b = node(&origin, "b", &free).start().await;
    let confirmed = || async {
        let receipt = purge_everywhere(&b, json!({"tag": "of-b"})).await;
        (receipt["peers"]["complete"] == true).then_some(receipt)
    };
    wait_for("b knows a", SOON, confirmed).await;
    a.purge(json!({"tag": "of-a", "wait": "200ms"})).await;
    says(&a, "refused: Permissions Violation for Publish").await;
    for _ in 0..3 {
        let receipt = confirmed().await.expect("all nodes confirm");
        assert_eq!(receipt["peers"]["nodes"][0]["node"], "a", "{receipt}");
    }
    assert_eq!(bus(&a).await["purges_waiting"], 1);
    assert_eq!(bus(&b).await["gap_open"], false, "a is only late");
}

async fn bus(node: &Gateway) -> Value {
    let answer = node.admin(Method::GET, "/v1/nodes", "").await;
    let body: Value = serde_json::from_str(&answer.text).unwrap();
    body["bus"].clone()
}

async fn says(node: &Gateway, why: &str) {
    wait_for(&format!("the node says {why}"), SOON, || async {
        let said = bus(node).await;
        let reason = said["reason"].as_str().unwrap_or_default().to_owned();
        reason.contains(why).then_some(())
    })
    .await;
    assert_eq!(state(node).await, "degraded");
}

async fn purges_wait_that_the_server_refuses(mode: &str) {
    let (nats, _folder) = server_without("publish: {deny: [cache.invalidations]}");
    let origin = Pages::default().origin().await;
    let node = node(&origin, "a", &over(&nats, mode)).start().await;
    wait_for("the node hears", SOON, || async {
        (bus(&node).await["hears"] == true).then_some(())
    })
    .await;
    for number in 0..20 {
        let receipt = node
            .purge(json!({"tag": format!("t{number}"), "wait": "200ms"}))
            .await;
        assert_eq!(receipt["peers"]["outcome"], "unknown", "{receipt}");
    }
    says(&node, "refused: Permissions Violation for Publish").await;
    wait_for("all of them wait", SOON, || async {
        (bus(&node).await["purges_waiting"] == 20).then_some(())
    })
    .await;
    let kind = [("kind", "purge")];
    assert_eq!(node.metric("lamina_bus_published_total", &kind).await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn purges_that_nats_refuses_wait_and_are_not_called_published() {
    purges_wait_that_the_server_refuses(CORE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn purges_that_jetstream_refuses_wait_and_its_words_are_told() {
    purges_wait_that_the_server_refuses(JETSTREAM).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_may_not_publish_to_itself_is_told_why_it_hears_nothing() {
    let (nats, _folder) = server_without("publish: {deny: [\"_INBOX.>\"]}");
    let origin = Pages::default().origin().await;
    let node = node(&origin, "a", &over(&nats, CORE)).start().await;
    says(&node, "Permissions Violation for Publish to \"_INBOX").await;
}

/// Requests to JetStream get no answer then, and only the connection says why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doctor_tells_which_right_is_missing_where_jetstream_gives_no_answer() {
    let (nats, _folder) = server_without("subscribe: {deny: [\"_INBOX.>\"]}");
    let origin = Pages::default().origin().await;
    let (_dir, file) = node(&origin, "a", &over(&nats, JETSTREAM)).write();
    let file = file.to_str().unwrap().to_owned();
    let ran = tokio::task::spawn_blocking(move || run(&["doctor", "-c", &file]));
    let ran = ran.await.unwrap();
    assert_eq!(ran.code, Some(1), "{}", ran.output());
    let why = "Permissions Violation for Subscription to \"_INBOX";
    assert!(ran.stdout.contains(why), "{}", ran.output());
}
