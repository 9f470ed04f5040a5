//! The hook `response`, seen from outside: it looks at what was loaded before that is
//! judged for the cache.

use e2e::gateway::Gateway;
use e2e::guest;
use e2e::origin::{Origin, Seen};
use e2e::reply::Reply;
use e2e::setup::Setup;
use serde_json::json;

const PATIENT: &str = "{hook_timeout: 10s}";

/// A site whose responses `answerer` looks at, by these rules.
async fn answered(
    rules: &str,
    on_error: &str,
    page: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
) -> (Origin, Gateway) {
    let origin = Origin::pages(page).await;
    let gateway = Setup::new(&origin)
        .file("answerer.wasm", guest::built("answerer"))
        .top(
            "plugins",
            &format!("{{p: {{file: answerer.wasm, config: {rules}, on_error: {on_error}, limits: {PATIENT}}}}}"),
        )
        .route("{name: site, upstream: origin, response: {plugin: p}}")
        .start()
        .await;
    (origin, gateway)
}

#[tokio::test]
async fn a_plugin_gives_lifetime_and_tags_that_purges_know() {
    let rules = "{/a: {ttl: 3600, tag: shelf}}";
    let (origin, gateway) = answered(rules, "{}", |_| Reply::ok("x")).await;
    let client = gateway.client();
    let first = client.get("/a").await;
    assert!(first.cache().stored, "{:?}", first.cache());
    assert!(
        first.cache().ttl.is_some_and(|ttl| ttl > 3_000),
        "{:?}",
        first.cache()
    );
    assert!(client.get("/a").await.is_hit());
    assert!(
        !client.get("/b").await.cache().stored,
        "nothing says that it may be"
    );
    gateway.purge(json!({"tag": "shelf"})).await;
    assert!(!client.get("/a").await.is_hit());
    assert_eq!(origin.count_of("/a"), 2);
}

#[tokio::test]
async fn headers_are_changed_on_what_is_stored_passed_and_posted() {
    let rules =
        "{/a: {set: {x-new: n, content-length: \"1\"}, remove: [x-internal], told: x-told}}";
    let page = |seen: &Seen| {
        let reply = Reply::fresh("body").header("x-internal", "secret");
        match seen.header("x-private") {
            "" => reply,
            _ => reply.header("cache-control", "private"),
        }
    };
    let (_origin, gateway) = answered(rules, "{}", page).await;
    let client = gateway.client();
    let checked = |answer: &e2e::client::Answer, what: &str| {
        assert_eq!(
            (answer.header("x-new"), answer.header("x-internal")),
            ("n", ""),
            "{what}"
        );
    };
    checked(
        &client.request("/a").header("x-private", "1").send().await,
        "private",
    );
    checked(&client.head("/a?head").await, "head");
    checked(&client.post("/a", "x").await, "post");
    let stored = client.get("/a?s").await;
    checked(&stored, "stored");
    assert_eq!(
        (stored.text(), stored.header("x-told")),
        ("body", "GET 200 none")
    );
    let hit = client.get("/a?s").await;
    assert!(hit.is_hit());
    checked(&hit, "hit");
    let part = client
        .request("/a?s")
        .header("range", "bytes=1-2")
        .send()
        .await;
    assert_eq!((part.status.as_u16(), part.text()), (206, "od"));
    checked(&part, "part");
}

#[tokio::test]
async fn what_a_plugin_keeps_out_is_not_stored_and_says_why() {
    let rules = "{/a: {store: false}}";
    let (origin, gateway) = answered(rules, "{}", |_| Reply::fresh("x")).await;
    let first = gateway.client().get("/a").await;
    assert!(!first.cache().stored);
    assert_eq!(
        first.cache().detail.as_deref(),
        Some("plugin"),
        "{:?}",
        first.cache()
    );
    assert!(!gateway.client().get("/a").await.is_hit());
    assert_eq!(origin.count(), 2);
    gateway.client().get("/b").await;
    assert!(gateway.client().get("/b").await.is_hit());
}

#[tokio::test]
async fn a_failed_look_keeps_a_response_out_of_the_cache_unless_told_otherwise() {
    for (on_error, hit) in [
        ("{}", false),
        ("{response: refuse_store}", false),
        ("{response: continue}", true),
    ] {
        let (_origin, gateway) =
            answered("{/a: {trap: true}}", on_error, |_| Reply::fresh("x")).await;
        assert_eq!(gateway.client().get("/a").await.text(), "x");
        assert_eq!(gateway.client().get("/a").await.is_hit(), hit, "{on_error}");
    }
}

/// Validated on every request; the 304 has a header of its own.
fn validated(seen: &Seen) -> Reply {
    let reply = match seen.header("if-none-match") {
        "\"v\"" => Reply::status_only(304).header("x-internal", "secret"),
        _ => Reply::ok("body")
            .header("content-type", "text/plain")
            .header("surrogate-key", "page")
            .header("x-internal", "secret"),
    };
    reply
        .header("etag", "\"v\"")
        .header("cache-control", "max-age=0")
}

#[tokio::test]
async fn a_plugin_sees_a_validated_response_whole_and_its_changes_hold() {
    let rules = "{/a: {tag: shelf, told: x-told, remove: [x-internal]}, /b: {store: false}}";
    let (origin, gateway) = answered(rules, "{}", validated).await;
    let client = gateway.client();
    for round in 0..3 {
        let answer = client.get("/a").await;
        assert_eq!(
            (answer.status.as_u16(), answer.text()),
            (200, "body"),
            "round {round}"
        );
        assert_eq!(
            answer.header("x-told"),
            "GET 200 text/plain",
            "round {round}"
        );
        assert_eq!(answer.header("x-internal"), "", "round {round}");
    }
    assert_eq!(origin.last().header("if-none-match"), "\"v\"");
    for tag in ["shelf", "page"] {
        client.get("/a").await;
        client.get("/a").await;
        gateway.purge(json!({"tag": tag})).await;
        client.get("/a").await;
        assert_eq!(origin.last().header("if-none-match"), "", "purged by {tag}");
    }
}

#[tokio::test]
async fn a_lifetime_of_the_plugins_holds_after_validation_and_head() {
    let (origin, gateway) = answered("{/a: {ttl: 3600}}", "{}", |_| {
        Reply::ok("body")
            .header("etag", "\"v\"")
            .header("cache-control", "max-age=0")
    })
    .await;
    let client = gateway.client();
    client.get("/a").await;
    let fresh = client.request("/a").header("cache-control", "no-cache");
    fresh.send().await;
    let hit = client.get("/a").await;
    assert!(hit.is_hit(), "{:?}", hit.cache());
    assert!(hit.cache().ttl.is_some_and(|ttl| ttl > 3_000));
    assert!(origin.count() <= 2);
}

/// A site whose response plugin reads `x-lang`, under this rule.
async fn reading(unkeyed: &str) -> (Origin, Gateway) {
    let origin = Origin::pages(|_| Reply::fresh("x")).await;
    let gateway = Setup::new(&origin)
        .file("answerer.wasm", guest::built("answerer"))
        .top(
            "plugins",
            &format!(
                "{{p: {{file: answerer.wasm, config: {{reads: [x-lang]}}, limits: {PATIENT}}}}}"
            ),
        )
        .route(&format!(
            "{{name: site, upstream: origin, response: {{plugin: p}}, unkeyed: {unkeyed}}}"
        ))
        .start()
        .await;
    (origin, gateway)
}

#[tokio::test]
async fn what_a_response_plugin_reads_and_the_key_lacks_is_watched_like_a_loaders() {
    // Whether a German page is a hit for German, for English and for none.
    for (unkeyed, hits, counted) in [
        ("warn", [true, true, true], 1.0),
        ("vary", [true, false, false], 3.0),
        ("refuse_store", [false, false, false], 3.0),
        ("allow", [true, true, true], 0.0),
    ] {
        let (_origin, gateway) = reading(unkeyed).await;
        let ask = async |lang: &str| {
            let ask = gateway.client().request("/a").header("x-lang", lang);
            ask.send().await
        };
        ask("de").await;
        let got = [
            ask("de").await.is_hit(),
            ask("en").await.is_hit(),
            gateway.client().get("/a").await.is_hit(),
        ];
        assert_eq!(got, hits, "{unkeyed}");
        let labels = [("route", "site"), ("plugin", "p")];
        let loads = gateway.metric("lamina_plugin_unkeyed_total", &labels).await;
        assert!(
            loads <= counted && (loads > 0.0) == (counted > 0.0),
            "{unkeyed}: {loads}"
        );
        let told =
            |line: &String| line.contains("does not contain") && line.contains("header `x-lang`");
        if unkeyed == "warn" {
            gateway
                .logged("the warning", |line| told(&line.to_owned()))
                .await;
        }
        let question = r#"{"url": "http://a/x", "headers": {"x-lang": "de"}}"#;
        let explained = gateway
            .admin(http::Method::POST, "/v1/explain", question)
            .await;
        let says = explained.text.contains("header `x-lang`: plugin p sees it");
        assert_eq!(says, unkeyed != "allow", "{}", explained.text);
    }
}

#[tokio::test]
async fn a_validated_response_is_watched_too() {
    let origin = Origin::pages(validated).await;
    let gateway = Setup::new(&origin)
        .file("answerer.wasm", guest::built("answerer"))
        .top(
            "plugins",
            &format!(
                "{{p: {{file: answerer.wasm, config: {{reads: [x-lang]}}, limits: {PATIENT}}}}}"
            ),
        )
        .route("{name: site, upstream: origin, response: {plugin: p}, unkeyed: vary}")
        .start()
        .await;
    let client = gateway.client();
    for round in 0..3 {
        let answer = client.get("/a").await;
        assert_eq!(answer.header("vary"), "x-lang", "round {round}");
    }
    assert_eq!(origin.last().header("if-none-match"), "\"v\"");
}

#[tokio::test]
async fn a_part_of_a_body_is_changed_and_stored_by_the_plugins_word() {
    let (_origin, gateway) = answered("{/a: {set: {x-new: n}, ttl: 3600}}", "{}", |seen| {
        let reply = Reply::ok(if seen.header("range").is_empty() {
            "0123456789"
        } else {
            "234"
        });
        let reply = reply
            .header("etag", "\"v\"")
            .header("accept-ranges", "bytes");
        match seen.header("range") {
            "" => reply,
            _ => reply.status(206).header("content-range", "bytes 2-4/10"),
        }
    })
    .await;
    let client = gateway.client();
    for round in 0..2 {
        let part = client
            .request("/a")
            .header("range", "bytes=2-4")
            .send()
            .await;
        assert_eq!(
            (part.status.as_u16(), part.text()),
            (206, "234"),
            "round {round}"
        );
        assert_eq!(part.header("x-new"), "n", "round {round}");
    }
}
