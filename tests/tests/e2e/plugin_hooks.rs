//! The hook `request`, seen from outside: it looks at each request before its key is
//! derived, and answers, refuses or changes it.

use e2e::cli;
use e2e::gateway::Gateway;
use e2e::guest;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use serde_json::{Value, json};

/// The default is for calls of microseconds, not for a busy machine.
const PATIENT: &str = "{key_timeout: 10s, hook_timeout: 10s}";

fn asking(origin: &Origin, config: &str, on_error: &str) -> Setup {
    Setup::new(origin)
        .file("asker.wasm", guest::built("asker"))
        .top(
            "plugins",
            &format!("{{p: {{file: asker.wasm, config: {config}, on_error: {on_error}, limits: {PATIENT}}}}}"),
        )
        .route("{name: site, upstream: origin, request: {plugin: p}, policy: {mode: override, ttl: 1d}}")
}

/// A site whose requests `asker` looks at, by these rules.
async fn asked(rules: &str) -> (Origin, Gateway) {
    let origin = Origin::pages(|seen| Reply::ok(seen.path.clone())).await;
    let config = format!("{{rules: {rules}}}");
    let gateway = asking(&origin, &config, "{request: refuse}").start().await;
    (origin, gateway)
}

#[tokio::test]
async fn a_changed_path_is_what_the_key_and_the_origin_see() {
    let (origin, gateway) = asked("{/old: {path: \"/new?a=1\"}}").await;
    let client = gateway.client();
    assert_eq!(client.get("/old?x=9").await.text(), "/new?a=1");
    assert!(client.get("/new?a=1").await.is_hit());
    assert!(
        client.get("/old").await.is_hit(),
        "the hook looks at hits, too"
    );
    assert!(!client.get("/new").await.is_hit());
    assert_eq!(origin.seen()[0].path, "/new?a=1");
}

#[tokio::test]
async fn a_purge_by_url_reaches_what_clients_see_there_and_so_does_explain() {
    let (origin, gateway) = asked("{/old: {path: \"/new?a=1\"}, /no: {refuse: 451}}").await;
    let client = gateway.client();
    for (n, url) in ["/old", "/new?a=1"].into_iter().enumerate() {
        client.get("/old").await;
        assert!(client.get("/old").await.is_hit());
        let receipt = gateway
            .purge(json!({"url": format!("http://{}{url}", gateway.address)}))
            .await;
        assert!(
            receipt["notes"].is_null(),
            "it goes by the URL alone: {receipt}"
        );
        assert!(!client.get("/old").await.is_hit(), "{url}");
        assert_eq!(origin.count(), n + 2);
    }
    let explain = async |url: &str| {
        let question = json!({"url": format!("http://{}{url}", gateway.address)});
        let answer = gateway
            .admin(http::Method::POST, "/v1/explain", &question.to_string())
            .await;
        serde_json::from_str::<Value>(&answer.text).unwrap()
    };
    let (old, new) = (explain("/old").await, explain("/new?a=1").await);
    assert_eq!(old["request"], "plugin p: /new?a=1");
    assert_eq!(old["key"], new["key"]);
    assert!(old["tiers"][0].as_str().unwrap().contains("fresh"), "{old}");
    assert_eq!(new["request"], "plugin p: unchanged");
    let refused = explain("/no").await;
    assert_eq!(
        refused["decision"], "answered by the request plugin",
        "{refused}"
    );
    assert_eq!(
        refused["request"],
        "plugin p: refuses (451 Unavailable For Legal Reasons)"
    );
}

#[tokio::test]
async fn a_purge_by_url_says_what_a_plugin_that_sees_more_than_urls_leaves_open() {
    let origin = Origin::pages(|_| Reply::ok("x")).await;
    let rules = "{/old: {path: /new}, /no: {refuse: 451}, /trap: {trap: true}}";
    let config = format!("{{reads: [accept], rules: {rules}}}");
    let gateway = asking(&origin, &config, "{request: refuse}").start().await;
    for (path, why) in [
        ("/old", "for other headers of a client"),
        ("/no", "answers the request itself"),
        ("/trap", "failed when it was called for this URL: trap"),
    ] {
        let url = format!("http://{}{path}", gateway.address);
        let receipt = gateway.purge(json!({"url": url})).await;
        let note = receipt["notes"][0].as_str().unwrap_or_default();
        assert!(
            note.contains("plugin `p`") && note.contains(why),
            "{receipt}"
        );
    }
    gateway.client().get("/old").await;
    gateway
        .purge(json!({"url": format!("http://{}/old", gateway.address)}))
        .await;
    assert!(!gateway.client().get("/old").await.is_hit());
}

#[tokio::test]
async fn what_an_unsafe_request_names_is_purged_as_clients_see_it() {
    let origin = Origin::pages(|seen| match seen.method.as_str() {
        "POST" => Reply::status_only(201).header("location", "/old"),
        _ => Reply::ok(seen.path.clone()),
    })
    .await;
    let config = "{rules: {/old: {path: /new}, /older: {path: /new}}}";
    let gateway = asking(&origin, config, "{request: refuse}").start().await;
    let client = gateway.client();
    for changing in ["/elsewhere", "/older"] {
        client.get("/old").await;
        assert!(client.get("/old").await.is_hit());
        assert_eq!(client.post(changing, "x").await.status, 201);
        assert!(!client.get("/old").await.is_hit(), "{changing}");
    }
}

#[tokio::test]
async fn headers_are_set_and_removed_before_the_origin_sees_them() {
    let rules = "{/: {set: {x-new: \"1\", x-old: \"2\", host: evil, content-length: \"7\", transfer-encoding: chunked}, remove: [x-secret, host, connection]}}";
    let (origin, gateway) = asked(rules).await;
    let ask = gateway.client().request("/").header("x-secret", "s");
    let ask = ask
        .header("x-old", "a")
        .header("x-old", "b")
        .host("shop.example");
    assert_eq!(ask.send().await.status, 200);
    let seen = origin.last();
    assert_eq!((seen.header("x-new"), seen.header("x-secret")), ("1", ""));
    assert_eq!(seen.headers.get_all("x-old").iter().count(), 1);
    assert_eq!(seen.header("x-old"), "2");
    assert_eq!(
        seen.authority, "shop.example",
        "the key was made for this host"
    );
    assert_eq!(
        (
            seen.header("content-length"),
            seen.header("transfer-encoding")
        ),
        ("", "")
    );
}

#[tokio::test]
async fn a_hook_answers_or_refuses_at_once_also_what_is_stored() {
    let (origin, gateway) =
        asked("{/hello: {respond: 203}, /no: {refuse: 451}, /to: {path: /hello}}").await;
    let client = gateway.client();
    for _ in 0..2 {
        let hello = client.get("/hello").await;
        assert_eq!(
            (hello.status.as_u16(), hello.text()),
            (203, "from the plugin")
        );
        assert_eq!(
            hello.header("content-length"),
            "15",
            "whatever the guest says"
        );
        let status = hello.header("cache-status");
        assert_eq!(status, "lamina; fwd=bypass; detail=plugin");
        assert_eq!(client.get("/no").await.status, 451);
    }
    let head = client.head("/hello").await;
    assert_eq!((head.status.as_u16(), head.body.len()), (203, 0));
    assert_eq!(client.post("/hello", vec![b'x'; 1 << 20]).await.status, 203);
    assert_eq!(origin.count(), 0);
    // A changed request does not come before the hook again.
    assert_eq!(client.get("/to").await.text(), "/hello");
}

#[tokio::test]
async fn a_hook_sees_what_its_manifest_reads_and_no_more() {
    let origin = Origin::pages(|_| Reply::ok("x")).await;
    let config = "{reads: [accept, x-a*], cookies: [session], rules: {/: {echo: true}}}";
    let gateway = asking(&origin, config, "{request: refuse}").start().await;
    let ask = gateway.client().uncached().request("/?q=1");
    let ask = ask
        .header("accept", "text/html")
        .header("x-ab", "1")
        .header("x-b", "2");
    let ask = ask.header("authorization", "Basic c2VjcmV0");
    let ask = ask
        .header("cookie", "a=1; session=s; b=2")
        .host("Shop.Example");
    let seen = ask.send().await.json();
    assert_eq!(
        seen["headers"],
        serde_json::json!(["accept: text/html", "x-ab: 1", "cookie: session=s"])
    );
    assert_eq!(
        (&seen["path"], &seen["host"]),
        (&"/?q=1".into(), &"shop.example".into())
    );
    assert_eq!(
        (&seen["client"], &seen["route"]),
        (&"127.0.0.1".into(), &"site".into())
    );
    assert_eq!(
        (&seen["method"], &seen["scheme"]),
        (&"GET".into(), &"http".into())
    );
}

#[tokio::test]
async fn a_failed_call_is_what_on_error_says_and_harms_no_other_path() {
    let rules = "{rules: {/trap: {trap: true}, /grow: {grow: true}, /loop: {loop: true}, /status: {respond: 99}, /refuse: {refuse: 200}, /header: {set: {x: \"a\\r\\nb: c\"}}, /path: {path: \"http://169.254.169.254/\"}}}";
    for (on_error, status) in [("refuse", 500), ("continue", 200)] {
        let origin = Origin::pages(|seen| Reply::ok(seen.path.clone())).await;
        let setup = asking(&origin, rules, &format!("{{request: {on_error}}}"));
        let limits = "{p: {file: asker.wasm, config: CONFIG, on_error: {request: ON}, limits: {hook_timeout: 500ms}, quarantine: {failures: 0}}}";
        let plugins = limits.replace("CONFIG", rules).replace("ON", on_error);
        let gateway = setup.top("plugins", &plugins).start().await;
        let client = gateway.client().uncached();
        for bad in [
            "/trap", "/grow", "/loop", "/status", "/refuse", "/header", "/path",
        ] {
            assert_eq!(client.get(bad).await.status, status, "{bad} {on_error}");
            assert_eq!(client.get("/plain").await.status, 200);
        }
        for (outcome, least) in [
            ("trap", 1.0),
            ("out_of_memory", 1.0),
            ("timeout", 1.0),
            ("invalid", 4.0),
        ] {
            let labels = [("plugin", "p"), ("phase", "request"), ("outcome", outcome)];
            let calls = gateway.metric("lamina_plugin_calls_total", &labels).await;
            assert!(calls >= least, "{outcome} {calls}");
        }
        gateway
            .logged("the panic", |line| line.contains("a rule says so"))
            .await;
    }
}

#[tokio::test]
async fn a_request_plugin_without_on_error_is_refused_and_its_place_named() {
    let origin = Origin::pages(|_| Reply::ok("x")).await;
    let (_dir, config) = asking(&origin, "{}", "{key: bypass}").write();
    let ran = cli::run(&["validate", "-c", config.to_str().unwrap()]);
    assert_ne!(ran.code, Some(0));
    let output = ran.output();
    assert!(
        output.contains("on_error") && output.contains("request"),
        "{output}"
    );
    assert!(
        output.contains("routes[0].request.plugin"),
        "the place: {output}"
    );
}

#[tokio::test]
async fn an_instance_a_request_keeps_nothing_from_one_to_the_next() {
    let origin = Origin::pages(|_| Reply::ok("x")).await;
    for (isolation, last) in [("reuse", false), ("per_request", true)] {
        let plugins = format!(
            "{{p: {{file: asker.wasm, config: {{rules: {{/: {{count: true}}}}}}, isolation: {isolation}, on_error: {{request: refuse}}, limits: {PATIENT}}}}}"
        );
        let gateway = asking(&origin, "{}", "{}")
            .top("plugins", &plugins)
            .start()
            .await;
        let client = gateway.client().uncached();
        let mut counts = Vec::new();
        for _ in 0..8 {
            counts.push(client.get("/").await.text().to_owned());
        }
        assert_eq!(
            counts.iter().all(|count| count == "1"),
            last,
            "{isolation} {counts:?}"
        );
    }
}
