//! Purges: every selector, hard and soft, from every source, and what began before them stays hidden.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use e2e::gate::Gate;
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, passed, wait_for};
use http::Method;
use serde_json::{Value, json};

const PATHS: [&str; 4] = ["/news/1", "/news/2", "/shop/1?x=1", "/about"];

/// Pages with tags; `/shop/` is a route of its own.
async fn tagged() -> (Origin, Gateway) {
    let origin = Origin::pages(|seen| {
        let page = Reply::fresh(seen.path.clone());
        match seen.path.as_str() {
            "/news/1" => page.header("surrogate-key", "news first"),
            "/news/2" => page.header("cache-tag", "news, second"),
            "/shop/1?x=1" => page.header("edge-cache-tag", "shop,second"),
            _ => page,
        }
    })
    .await;
    let gateway = Setup::new(&origin)
        .route("{name: shop, match: {path: /shop/*}, upstream: origin, tags: [by-route]}")
        .route("{name: rest, upstream: origin}")
        .start()
        .await;
    (origin, gateway)
}

/// A selector and the pages that it takes away.
fn selectors(gateway: &Gateway) -> Vec<(Value, &'static [&'static str])> {
    let base = format!("http://{}", gateway.address);
    vec![
        (json!({"url": format!("{base}/news/1")}), &["/news/1"]),
        (
            json!({"url": format!("{base}/shop/1?x=1")}),
            &["/shop/1?x=1"],
        ),
        (json!({"url": format!("{base}/shop/1")}), &[]),
        (
            json!({"prefix": format!("{base}/news/")}),
            &["/news/1", "/news/2"],
        ),
        (
            json!({"pattern": format!("{base}/*/1*")}),
            &["/news/1", "/shop/1?x=1"],
        ),
        (
            json!({"pattern": format!("{base}/news/?")}),
            &["/news/1", "/news/2"],
        ),
        (
            json!({"pattern": format!("{base}/shop/1\\?x=1")}),
            &["/shop/1?x=1"],
        ),
        (json!({"tag": "news"}), &["/news/1", "/news/2"]),
        (json!({"tag": "first"}), &["/news/1"]),
        (json!({"tag": "second"}), &["/news/2", "/shop/1?x=1"]),
        (json!({"tag": "by-route"}), &["/shop/1?x=1"]),
        (json!({"tag": "nobody"}), &[]),
        (json!({"route": "shop"}), &["/shop/1?x=1"]),
        (json!({"all": true}), &PATHS),
    ]
}

#[tokio::test]
async fn each_selector_removes_what_it_names_and_nothing_else() {
    let (_origin, gateway) = tagged().await;
    let client = gateway.client();
    let mut faults = Vec::new();
    for (selector, taken) in selectors(&gateway) {
        for path in PATHS {
            client.get(path).await;
            assert!(client.get(path).await.is_hit(), "{path} was not stored");
        }
        gateway.purge(selector.clone()).await;
        for path in PATHS {
            let kept = client.get(path).await.is_hit();
            if kept == taken.contains(&path) {
                faults.push(format!("{selector}: {path} kept {kept}"));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[tokio::test]
async fn a_key_as_explain_shows_it_can_be_purged() {
    let (_origin, gateway) = tagged().await;
    for path in PATHS {
        gateway.client().get(path).await;
    }
    let url = json!({"url": format!("http://{}/news/1", gateway.address)});
    let explained = gateway
        .admin(Method::POST, "/v1/explain", &url.to_string())
        .await;
    let explained: Value = serde_json::from_str(&explained.text).unwrap();
    gateway.purge(json!({"key": explained["key"]["id"]})).await;
    for path in PATHS {
        assert_eq!(
            gateway.client().get(path).await.is_hit(),
            path != "/news/1",
            "{path}"
        );
    }
}

#[tokio::test]
async fn each_selector_can_mark_stale_instead() {
    let version = Arc::new(AtomicUsize::new(0));
    let now = version.clone();
    let origin = Origin::pages(move |_| {
        Reply::fresh(now.load(Ordering::SeqCst).to_string()).header("surrogate-key", "page")
    })
    .await;
    let gateway = Setup::new(&origin)
        .policy("{mode: override, ttl: 1d, stale_while_revalidate: 1d}")
        .start()
        .await;
    let (client, base) = (gateway.client(), format!("http://{}", gateway.address));
    client.get("/p").await;
    for selector in [
        json!({"url": format!("{base}/p"), "soft": true}),
        json!({"prefix": format!("{base}/"), "soft": true}),
        json!({"pattern": format!("{base}/?"), "soft": true}),
        json!({"tag": "page", "soft": true}),
        json!({"route": "site", "soft": true}),
        json!({"all": true, "soft": true}),
    ] {
        let old = version.fetch_add(1, Ordering::SeqCst).to_string();
        let new = (version.load(Ordering::SeqCst)).to_string();
        gateway.purge(selector.clone()).await;
        let stale = client.get("/p").await;
        assert!(
            stale.is_hit() && stale.text() == old,
            "{selector}: {:?} {}",
            stale.cache(),
            stale.text()
        );
        wait_for(&format!("{selector}: refreshed"), SOON, || async {
            (client.get("/p").await.text() == new).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_url_takes_all_its_variants_along() {
    let origin = Origin::pages(|_| Reply::fresh("x").header("vary", "accept-language")).await;
    let gateway = Setup::new(&origin).start().await;
    let ask = |language: &'static str| {
        gateway
            .client()
            .request("/")
            .header("accept-language", language)
            .send()
    };
    for language in ["en", "de"] {
        ask(language).await;
        assert!(ask(language).await.is_hit(), "{language}");
    }
    gateway
        .purge(json!({"url": format!("http://{}/", gateway.address)}))
        .await;
    for language in ["en", "de"] {
        assert!(!ask(language).await.is_hit(), "{language}");
    }
}

#[tokio::test]
async fn receipts_carry_growing_numbers() {
    let (_origin, gateway) = tagged().await;
    let mut last = 0;
    for _ in 0..3 {
        let order = gateway.purge(json!({"tag": "news"})).await["order"]
            .as_u64()
            .expect("a number");
        assert!(order > last);
        last = order;
    }
}

#[tokio::test]
async fn a_purge_that_names_nothing_or_something_unknown_is_refused() {
    let (_origin, gateway) = tagged().await;
    for body in [
        "",
        "{}",
        "{\"tagg\": \"x\"}",
        "[]",
        "{\"tag\": 1}",
        "{\"all\": false}",
        "not json",
    ] {
        let answer = gateway.admin(Method::POST, "/v1/purge", body).await;
        assert!(
            (400..500).contains(&answer.status),
            "{body:?}: {}",
            answer.status
        );
    }
    assert!((400..500).contains(&gateway.admin(Method::GET, "/v1/purge", "").await.status));
}

#[tokio::test]
async fn a_purge_that_other_nodes_could_not_be_told_of_is_refused() {
    let (_origin, gateway) = tagged().await;
    let stars = |count: usize| json!({"prefix": "*".repeat(count)}).to_string();
    let answer = gateway
        .admin(Method::POST, "/v1/purge", &stars(40_000))
        .await;
    assert_eq!(answer.status, 400, "{}", answer.text);
    assert!(answer.text.contains("prefix: too long"), "{}", answer.text);
    let answer = gateway
        .admin(Method::POST, "/v1/purge", &stars(30_000))
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

#[tokio::test]
async fn the_purge_method_is_off_unless_configured() {
    let (origin, gateway) = tagged().await;
    let purge: Method = "PURGE".parse().unwrap();
    gateway.client().get("/about").await;
    assert_eq!(
        gateway.client().ask(purge, "/about").send().await.status,
        405
    );
    assert!(gateway.client().get("/about").await.is_hit());
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn the_purge_method_obeys_its_allow_list_and_token() {
    let purge: Method = "PURGE".parse().unwrap();
    for (config, token, status) in [
        ("{enabled: true, allow: [\"127.0.0.0/8\"]}", "", 200),
        ("{enabled: true, allow: [\"10.0.0.0/8\"]}", "", 403),
        (
            "{enabled: true, allow: [\"127.0.0.0/8\"], token: sesame}",
            "",
            401,
        ),
        (
            "{enabled: true, allow: [\"127.0.0.0/8\"], token: sesame}",
            "Bearer wrong",
            401,
        ),
        ("{enabled: true, token: sesame}", "Bearer sesame", 200),
    ] {
        let origin = Origin::pages(|_| Reply::fresh("x")).await;
        let gateway = Setup::new(&origin)
            .top("purge_method", config)
            .start()
            .await;
        gateway.client().get("/p").await;
        let mut ask = gateway.client().uncached().ask(purge.clone(), "/p");
        if !token.is_empty() {
            ask = ask.header("authorization", token);
        }
        let got = ask.send().await.status.as_u16();
        // 401 and 403 both refuse; which one is the gateway's taste.
        assert_eq!(
            (got == 200, (400..404).contains(&got)),
            (status == 200, status != 200),
            "{config} {token}: {got}"
        );
        assert_eq!(
            gateway.client().get("/p").await.is_hit(),
            status != 200,
            "{config} {token}"
        );
    }
}

#[tokio::test]
async fn rules_purge_after_a_successful_unsafe_request() {
    let origin = Origin::pages(|seen| match (seen.method.as_str(), seen.header("x-fail")) {
        ("GET", _) => Reply::fresh("x").header(
            "surrogate-key",
            &format!("at{}", seen.path.replace('/', "-")),
        ),
        (_, "") => Reply::status_only(204),
        _ => Reply::status_only(500),
    })
    .await;
    let rules = "[{on: [POST], purge: [{url: \"/list\"}, {tag: \"at-item-{path.2}\"}, {tag: \"at-{header.x-also}\"}]}, \
                 {on: [PUT], purge: [{prefix: \"/item/\"}], soft: false}]";
    let gateway = Setup::new(&origin)
        .route(&format!(
            "{{name: site, upstream: origin, invalidate: {rules}}}"
        ))
        .start()
        .await;
    let client = gateway.client();
    let pages = ["/list", "/item/7", "/item/8", "/extra"];
    let kept = async |when: &str, wanted: [bool; 4]| {
        for (path, wanted) in pages.into_iter().zip(wanted) {
            assert_eq!(client.get(path).await.is_hit(), wanted, "{when}: {path}");
        }
    };
    kept("first", [false; 4]).await;
    client
        .ask(Method::POST, "/edit/7")
        .header("x-fail", "1")
        .send()
        .await;
    kept("after a failed POST", [true; 4]).await;
    client
        .ask(Method::POST, "/edit/7")
        .header("x-also", "extra")
        .send()
        .await;
    kept("after a POST", [false, false, true, false]).await;
    client.ask(Method::PUT, "/anything").send().await;
    kept("after a PUT", [true, false, false, true]).await;
    client.ask(Method::DELETE, "/elsewhere").send().await;
    kept("after a DELETE, which no rule names", [true; 4]).await;
}

/// An origin that notes the version when a request comes in and answers it after the gate.
async fn gated_versions(gate: &Gate) -> (Origin, Arc<AtomicUsize>) {
    gated_lives(gate, 86_400).await
}

/// The same, with a first version that is fresh for so many seconds.
async fn gated_lives(gate: &Gate, first: u32) -> (Origin, Arc<AtomicUsize>) {
    let (version, held) = (Arc::new(AtomicUsize::new(1)), gate.clone());
    let now = version.clone();
    let origin = Origin::start(move |_| {
        let (held, version) = (held.clone(), now.load(Ordering::SeqCst));
        async move {
            held.pass().await;
            let life = if version == 1 { first } else { 86_400 };
            Reply::ok(format!("v{version}"))
                .header("surrogate-key", "page")
                .header("cache-control", &format!("max-age={life}"))
        }
    })
    .await;
    (origin, version)
}

#[tokio::test]
async fn a_load_that_began_before_a_purge_is_never_seen_after_it() {
    for selector in ["tag", "all", "url", "prefix", "pattern", "route"] {
        let gate = Gate::new();
        let (origin, version) = gated_versions(&gate).await;
        let gateway = Setup::new(&origin)
            .policy("{mode: override, ttl: 1d}")
            .start()
            .await;
        let client = gateway.client();
        let early = tokio::spawn(async move { client.get("/p").await });
        gate.reached_by(1).await;
        version.store(2, Ordering::SeqCst);
        let base = format!("http://{}", gateway.address);
        gateway
            .purge(match selector {
                "tag" => json!({"tag": "page"}),
                "all" => json!({"all": true}),
                "route" => json!({"route": "site"}),
                "url" => json!({"url": format!("{base}/p")}),
                "prefix" => json!({"prefix": format!("{base}/")}),
                _ => json!({"pattern": "*/p"}),
            })
            .await;
        gate.open();
        assert_eq!(
            early.await.unwrap().text(),
            "v1",
            "{selector}: who asked before may get the old one"
        );
        let late = gateway.client().get("/p").await;
        assert_eq!((late.text(), origin.count()), ("v2", 2), "{selector}");
        assert!(gateway.client().get("/p").await.is_hit(), "{selector}");
    }
}

#[tokio::test]
async fn who_asks_after_a_purge_does_not_join_a_load_from_before_it() {
    let gate = Gate::new();
    let (origin, version) = gated_versions(&gate).await;
    let gateway = Setup::new(&origin)
        .policy("{mode: override, ttl: 1d}")
        .start()
        .await;
    let ask = || {
        let client = gateway.client();
        tokio::spawn(async move { client.get("/p").await })
    };
    let early = ask();
    gate.reached_by(1).await;
    version.store(2, Ordering::SeqCst);
    gateway.purge(json!({"all": true})).await;
    let late = ask();
    gate.reached_by(2).await;
    gate.open();
    assert_eq!(
        (early.await.unwrap().text(), late.await.unwrap().text()),
        ("v1", "v2")
    );
    assert_eq!(origin.count(), 2);
    assert_eq!(gateway.client().get("/p").await.text(), "v2");
}

#[tokio::test]
async fn a_stale_copy_does_not_come_back_after_a_purge() {
    let gate = Gate::new();
    gate.open();
    let (mut origin, _version) = gated_lives(&gate, 0).await;
    let policy = "{stale_if_error: 1d, stale_while_revalidate: 1d}";
    let gateway = Setup::new(&origin).policy(policy).start().await;
    gateway.client().get("/p").await;
    gateway.purge(json!({"tag": "page"})).await;
    origin.stop().await;
    let answer = gateway.client().get("/p").await;
    assert_eq!(answer.status, 502, "{}", answer.text());
}

#[tokio::test]
async fn a_refresh_that_began_before_a_purge_is_never_seen_after_it() {
    let gate = Gate::new();
    gate.open();
    let (origin, version) = gated_lives(&gate, 0).await;
    let policy = "{stale_while_revalidate: 1d}";
    let gateway = Setup::new(&origin).policy(policy).start().await;
    gateway.client().get("/p").await;
    gate.shut();
    assert_eq!(gateway.client().get("/p").await.text(), "v1");
    gate.reached_by(1).await;
    version.store(2, Ordering::SeqCst);
    gateway.purge(json!({"tag": "page"})).await;
    gate.open();
    for _ in 0..5 {
        assert_eq!(gateway.client().get("/p").await.text(), "v2");
    }
    assert_eq!(
        origin.count_of("/p"),
        3,
        "the first, the refresh, the new one"
    );
}

/// Guards against joining, by what was known before its head, a load whose tags a purge names.
#[tokio::test]
async fn a_load_that_a_purge_overtook_in_its_body_is_joined_by_nobody() {
    let (reply, pieces) = Reply::stream();
    let first = Mutex::new(Some(reply));
    let origin = Origin::pages(move |_| {
        let reply = first.lock().unwrap().take();
        reply
            .unwrap_or_else(|| Reply::ok("new"))
            .header("cache-control", "max-age=60")
            .header("surrogate-key", "page")
    })
    .await;
    let gateway = Setup::new(&origin).start().await;
    let old = gateway.client().request("/p").open().await;
    gateway.purge(json!({"tag": "page"})).await;
    for _ in 0..3 {
        assert_eq!(gateway.client().get("/p").await.text(), "new");
    }
    assert_eq!(origin.count_of("/p"), 2, "the overtaken load, the new one");
    pieces.send("old").await;
    pieces.finish().await;
    assert_eq!(old.into_answer().await.unwrap().text(), "old");
    assert_eq!(gateway.client().get("/p").await.text(), "new");
}

#[tokio::test]
async fn a_failed_refresh_after_a_purge_does_not_fall_back_on_the_old_copy() {
    let origin = Origin::pages(|_| Reply::ok("old")).await;
    let gateway = Setup::new(&origin)
        .policy("{mode: override, ttl: 1d, stale_if_error: 1d}")
        .start()
        .await;
    gateway.client().get("/p").await;
    origin.behave(|_| async { Reply::status_only(500) });
    gateway.purge(json!({"all": true})).await;
    assert_ne!(gateway.client().get("/p").await.text(), "old");
}

/// The stale windows count from a soft purge, and no client is told that it got something fresh.
#[tokio::test]
async fn a_softly_purged_page_is_served_stale_for_its_window_and_not_for_its_life() {
    let version = Arc::new(AtomicUsize::new(1));
    let now = version.clone();
    let origin = Origin::pages(move |seen| {
        let window = if seen.path == "/long" { 86_400 } else { 1 };
        let life = format!("max-age=86400, stale-while-revalidate={window}");
        Reply::ok(format!("v{}", now.load(Ordering::SeqCst))).header("cache-control", &life)
    })
    .await;
    let gateway = Setup::new(&origin).start().await;
    for path in ["/long", "/short"] {
        gateway.client().get(path).await;
    }
    version.store(2, Ordering::SeqCst);
    gateway.purge(json!({"all": true, "soft": true})).await;
    let purged = Instant::now();
    let stale = gateway.client().get("/long").await;
    assert_eq!(stale.text(), "v1");
    let ttl = stale.cache().ttl;
    assert!(ttl.is_some_and(|ttl| ttl <= 0), "{:?}", stale.cache());
    passed(purged, Duration::from_millis(1_100)).await;
    assert_eq!(gateway.client().get("/short").await.text(), "v2");
}
