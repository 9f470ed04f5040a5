//! Limits that a guest meets are named with their key, where an operator reads them: in the log,
//! and in what is kept of failed calls. `plugin_bad` has the times of keys and loaders and the
//! memory of one instance, `plugin_memory` that of all, `plugin_compile` the limits of compiling.

use e2e::gateway::Gateway;
use e2e::guest;
use e2e::guest::wrong;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;

/// `web` as a loader that may fetch from `shop`, which is the origin.
async fn web(origin: &Origin, limits: &str) -> Gateway {
    loader(origin, guest::built("web"), limits).await
}

async fn loader(origin: &Origin, guest: Vec<u8>, limits: &str) -> Gateway {
    Setup::new(origin)
        .upstream("shop", &format!("{{targets: [\"{}\"]}}", origin.url()))
        .file("p.wasm", guest)
        .top(
            "plugins",
            &format!("{{p: {{file: p.wasm, fetch: [shop], quarantine: {{failures: 0}}, limits: {{{limits}}}}}}}"),
        )
        .route("{name: site, loader: {plugin: p}, cache: off}")
        .start()
        .await
}

/// A line of the log about the plugin with these words in it.
async fn told(gateway: &Gateway, words: &str) {
    let is_it = |line: &str| line.contains("\"p\"") && line.contains(words);
    gateway.logged(words, is_it).await;
}

#[tokio::test]
async fn the_time_of_a_hook_is_named() {
    let origin = Origin::pages(|_| Reply::ok("x")).await;
    let gateway = Setup::new(&origin)
        .file("p.wasm", guest::built("asker"))
        .top(
            "plugins",
            "{p: {file: p.wasm, config: {rules: {/loop: {loop: true}}}, on_error: {request: refuse}, limits: {hook_timeout: 200ms}}}",
        )
        .route("{name: site, upstream: origin, request: {plugin: p}}")
        .start()
        .await;
    assert_eq!(gateway.client().get("/loop").await.status, 500);
    told(&gateway, "deadline exceeded (`limits.hook_timeout`)").await;
}

#[tokio::test]
async fn the_number_of_loads_at_once_is_named() {
    let origin = Origin::start(|_| async { std::future::pending::<Reply>().await }).await;
    let gateway = web(&origin, "load_timeout: 10m, max_concurrent: 1").await;
    let mut held = gateway.raw().await;
    held.write("GET /fetch?http://shop/held HTTP/1.1\r\nHost: a.example\r\n\r\n")
        .await;
    origin.saw(1).await;
    assert_eq!(gateway.client().get("/hello").await.status, 503);
    told(&gateway, "all instances are busy (`limits.max_concurrent`)").await;
}

#[tokio::test]
async fn the_number_of_fetches_of_a_call_is_named() {
    let origin = Origin::pages(|_| Reply::ok("x")).await;
    let gateway = loader(&origin, wrong::flood(), "load_timeout: 10m, max_fetches: 3").await;
    gateway.client().uncached().get("/x").await;
    told(&gateway, "as many as it may (`limits.max_fetches`)").await;
    // A guest of `wasi:http` that fetches once, where it may not at all.
    let gateway = web(&origin, "load_timeout: 10m, max_fetches: 0").await;
    gateway
        .client()
        .uncached()
        .get("/fetch?http://shop/x")
        .await;
    told(&gateway, "as many as it may (`limits.max_fetches`)").await;
}

#[tokio::test]
async fn the_size_of_a_fetched_body_is_named() {
    let origin = Origin::pages(|_| Reply::ok(vec![b'x'; 2_000])).await;
    let limits = "load_timeout: 10m, max_body: 1KiB";
    let gateway = loader(&origin, wrong::fetch::of_any_host(), limits).await;
    let asked = gateway.client().uncached();
    asked.request("/x").host("shop").send().await;
    told(&gateway, "the body is too large (`limits.max_body`)").await;
    let gateway = web(&origin, limits).await;
    gateway
        .client()
        .uncached()
        .get("/fetch?http://shop/x")
        .await;
    told(&gateway, "the body is too large (`limits.max_body`)").await;
}
