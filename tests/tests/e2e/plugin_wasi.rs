//! Components of WASI: `wasi:http` handlers as loaders, and `wasi: minimal`.

use std::time::{Duration, Instant};

use e2e::gateway::Gateway;
use e2e::guest;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use http::Method;

const PATIENT: &str = "load_timeout: 10m";

/// A site that `web` answers, which may fetch from the upstream `shop`.
async fn web(limits: &str) -> (Origin, Gateway) {
    let origin = Origin::pages(|seen| match seen.path_only() {
        "/away" => Reply::status_only(302).header("location", &seen.path["/away?".len()..]),
        _ => Reply::ok(format!("{} at {}", seen.path, seen.header("host"))),
    })
    .await;
    let gateway = Setup::new(&origin)
        .upstream("shop", &format!("{{targets: [\"{}\"]}}", origin.url()))
        .file("web.wasm", guest::built("web"))
        .top(
            "plugins",
            &format!("{{p: {{file: web.wasm, fetch: [shop], limits: {{{limits}}}, quarantine: {{failures: 0}}}}}}"),
        )
        .route("{name: plain, match: {path: /plain}, upstream: origin}")
        .route("{name: site, loader: {plugin: p}}")
        .start()
        .await;
    (origin, gateway)
}

async fn calls(gateway: &Gateway, outcome: &str) -> f64 {
    let labels = [("plugin", "p"), ("phase", "load"), ("outcome", outcome)];
    gateway.metric("lamina_plugin_calls_total", &labels).await
}

#[tokio::test]
async fn an_unmodified_component_answers_and_is_cached() {
    let (_origin, gateway) = web(PATIENT).await;
    let client = gateway.client();
    let first = client.get("/hello").await;
    assert_eq!((first.status.as_u16(), first.text()), (200, "hello"));
    assert_eq!(first.header("content-length"), "5");
    assert!(client.get("/hello").await.is_hit());
    for n in 0..3 {
        assert_eq!(
            client.get(&format!("/calls?{n}")).await.text(),
            "1",
            "a fresh instance each"
        );
    }
    let seen = client
        .request("/seen")
        .header("x-a", "1")
        .host("shop.example")
        .send()
        .await;
    assert!(
        seen.text().contains("Get") && seen.text().contains("shop.example"),
        "{}",
        seen.text()
    );
    assert!(seen.text().contains("x-a: 1"), "{}", seen.text());
    assert_eq!(client.get("/print").await.text(), "printed");
    if guest::built_for_wasi("web").is_none() {
        return;
    }
    gateway
        .logged("what it prints", |line| {
            line.contains("printed by the handler") && line.contains("\"p\"")
        })
        .await;
}

#[tokio::test]
async fn a_request_without_a_host_is_no_failure_of_the_plugin() {
    let (_origin, gateway) = web(PATIENT).await;
    let mut connection = gateway.raw().await;
    connection.write("GET /hello HTTP/1.0\r\n\r\n").await;
    assert_eq!(connection.head().await.status, 200);
}

#[tokio::test]
async fn it_fetches_what_is_granted_by_name_and_by_address_and_nothing_else() {
    let (origin, gateway) = web(PATIENT).await;
    let client = gateway.client();
    let address = origin.address();
    for url in [
        "http://shop/a?b".to_owned(),
        "http://SHOP/a?b".to_owned(),
        format!("http://{address}/a?b"),
    ] {
        let answer = client.get(&format!("/fetch?{url}")).await;
        assert!(
            answer.text().starts_with("200 /a?b at "),
            "{url}: {}",
            answer.text()
        );
    }
    let asked = origin.count();
    let port = address.port() ^ 1;
    let other = [
        "http://169.254.169.254/latest/meta-data".to_owned(),
        format!("http://127.0.0.1:{port}/"),
        format!("http://localhost:{}/", address.port()),
        "http://origin/not-granted".to_owned(),
        "https://example.com/".to_owned(),
        "http://shop@169.254.169.254/".to_owned(),
        format!("http://shop/away?http://169.254.169.254/{}", ""),
    ];
    for (n, url) in other.iter().enumerate() {
        let verb = if url.contains("/away") {
            "follow"
        } else {
            "fetch"
        };
        let answer = client.get(&format!("/{verb}?{url}")).await;
        let text = answer.text();
        assert!(
            text.contains("HttpRequestDenied") || text.contains("not an authority"),
            "{url}: {text}"
        );
        let denied = gateway
            .metric("lamina_plugin_denied_fetches_total", &[("plugin", "p")])
            .await;
        assert!(denied > 0.0 && denied <= (n + 1) as f64, "{url}: {denied}");
    }
    assert_eq!(
        origin.count(),
        asked + 1,
        "the redirect alone was asked for"
    );
    gateway
        .logged("the refusal", |line| {
            line.contains("169.254.169.254") && line.contains("refused")
        })
        .await;
}

#[tokio::test]
async fn whatever_a_component_does_wrong_is_a_502_at_once_and_the_next_call_is_well() {
    let (_origin, gateway) = web(&format!("{PATIENT}, max_body: 64KiB")).await;
    let client = gateway.client();
    let wrong = [
        "/nothing",
        "/forgotten",
        "/trap",
        "/trap-after",
        "/half",
        "/unfinished",
        "/lying",
        "/informational",
        "/big?65537",
        "/hoard",
    ];
    for path in wrong {
        let began = Instant::now();
        let answer = client.get(path).await;
        assert_eq!(answer.status, 502, "{path}: {}", answer.text());
        assert!(
            began.elapsed() < Duration::from_secs(120),
            "{path} waited for its deadline"
        );
        assert_eq!(client.get(&format!("/hello?{path}")).await.text(), "hello");
    }
    assert_eq!(client.get("/big?65536").await.body.len(), 65_536);
    assert!(calls(&gateway, "trap").await >= 2.0);
    assert_eq!(calls(&gateway, "timeout").await, 0.0);
}

#[tokio::test]
async fn a_component_that_never_returns_is_ended_at_its_deadline() {
    // By the default, which is 10 s, this one would be ended first.
    let (_origin, usual) = web("").await;
    let client = usual.client();
    let other = tokio::spawn(async move { client.get("/loop").await });
    let labels = [("plugin", "p")];
    usual
        .metric_until("lamina_plugin_instances", &labels, |live| live > 0.0)
        .await;
    let (_origin, gateway) = web("load_timeout: 300ms").await;
    assert_eq!(gateway.client().get("/loop").await.status, 504);
    assert!(!other.is_finished(), "the default ended it");
    assert_eq!(calls(&gateway, "timeout").await, 1.0);
    assert_eq!(gateway.client().get("/plain").await.status, 200);
}

#[tokio::test]
async fn wasi_is_refused_unless_the_yaml_says_minimal() {
    let origin = Origin::pages(|_| Reply::ok("x")).await;
    let Some(setup) = printing(&origin, "") else {
        return;
    };
    let (_dir, config) = setup.write();
    let ran = e2e::cli::run(&["validate", "-c", config.to_str().unwrap()]);
    assert_ne!(ran.code, Some(0));
    assert!(ran.output().contains("wasi: minimal"), "{}", ran.output());
}

fn printing(origin: &Origin, wasi: &str) -> Option<Setup> {
    let setup = Setup::new(origin)
        .file("printer.wasm", guest::built_for_wasi("printer")?)
        .top(
            "plugins",
            &format!("{{p: {{file: printer.wasm, {wasi} on_error: {{key: refuse}}, limits: {{key_timeout: 10s}}}}}}"),
        )
        .route("{name: site, upstream: origin, key: {plugin: p}}")
        .variable("LAMINA_SECRET", "s");
    Some(setup)
}

#[tokio::test]
async fn minimal_wasi_is_clocks_randomness_and_a_place_to_print() {
    let origin = Origin::pages(|_| Reply::fresh("x")).await;
    let Some(setup) = printing(&origin, "wasi: minimal,") else {
        return;
    };
    let gateway = setup.start().await;
    assert_eq!(gateway.client().get("/").await.status, 200);
    for line in [
        "variables 0 arguments 0",
        "file false",
        "socket false",
        "clock true",
        "two lines [31m in one",
    ] {
        gateway
            .logged(line, |logged| {
                logged.contains(line) && logged.contains("\"p\"")
            })
            .await;
    }
}

#[tokio::test]
async fn a_key_that_sleeps_is_refused_and_does_not_hang() {
    let origin = Origin::pages(|_| Reply::fresh("x")).await;
    let Some(setup) = printing(&origin, "wasi: minimal,") else {
        return;
    };
    let gateway = setup.start().await;
    assert_eq!(gateway.client().uncached().get("/sleep").await.status, 500);
    let labels = [("plugin", "p"), ("phase", "key"), ("outcome", "refused")];
    assert_eq!(
        gateway.metric("lamina_plugin_calls_total", &labels).await,
        1.0
    );
    assert_eq!(gateway.client().get("/awake").await.status, 200);
    let list = gateway.admin(Method::GET, "/v1/plugins", "").await;
    assert!(list.text.contains("serving"), "{}", list.text);
}
