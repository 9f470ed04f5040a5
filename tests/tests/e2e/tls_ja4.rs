//! The fingerprint of a client's software (JA4): for routes, keys and plugins where a listener tells
//! it, and for nobody else.

use e2e::cli::run;
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::tls::TlsClient;
use e2e::tls::authority::Authority;
use e2e::tls::site::{HttpsSite, NAME};
use e2e::wait::{SOON, wait_for};
use http::Request;
use serde_json::Value;

const TOKEN: &str = "a-token-for-reading";
const ADMIN: &str = "{address: \"127.0.0.1:0\", token: a-token-for-reading}";

/// The record of the request for this path, once it is there.
async fn record(gateway: &Gateway, path: &str) -> Value {
    let query = format!("/v1/requests/recent?contains={path}&limit=1");
    wait_for("the request is recorded", SOON, || async {
        let answer = gateway.admin(http::Method::GET, &query, "").await;
        let told: Value = serde_json::from_str(&answer.text).unwrap();
        told.pointer("/requests/0").cloned()
    })
    .await
}

/// The fingerprints of two clients, as the records of their requests tell them.
async fn fingerprints() -> [String; 2] {
    let readable = |setup: Setup| setup.top("admin", ADMIN);
    let mut site = HttpsSite::with("", readable, |_| Reply::fresh("page")).await;
    site.gateway = site.gateway.with_token(TOKEN);
    let mut found = Vec::new();
    for (n, client) in clients(&site.gateway).into_iter().enumerate() {
        let path = format!("/of-{n}");
        assert_eq!(client.http().await.get(NAME, &path).await.status, 200);
        let record = record(&site.gateway, &path).await.to_string();
        let (_, ja4) = record.split_once("\"ja4\":\"").expect("it is recorded");
        found.push(ja4.split('"').next().unwrap().to_owned());
    }
    found.try_into().unwrap()
}

/// One that speaks TLS 1.2 alone, and one that speaks TLS 1.3 alone.
fn clients(gateway: &Gateway) -> [TlsClient; 2] {
    let client = || TlsClient::new(gateway.address, NAME);
    [client().only_tls12(), client().only_tls13()]
}

/// A listener with TLS that tells fingerprints, and one in clear text.
fn setup(origin: &Origin, ja4: &str) -> Setup {
    let tls = format!("{{certificates: [{{cert: a.crt, key: a.key}}], ja4: {ja4}}}");
    let listeners =
        format!("[{{address: \"127.0.0.1:0\", tls: {tls}}}, {{address: \"127.0.0.1:0\"}}]");
    Setup::new(origin)
        .pair("a", &Authority::new("authority").server(&[NAME]))
        .top("listeners", &listeners)
        .top("admin", ADMIN)
}

#[tokio::test]
async fn routes_match_it_and_origins_never_get_it() {
    let [old, new] = fingerprints().await;
    assert!(
        old.starts_with("t12") && new.starts_with("t13"),
        "{old} {new}"
    );
    let (prefix, _) = new.split_once('_').unwrap();
    let origin = Origin::pages(|_| Reply::fresh("page")).await;
    let gateway = setup(&origin, "on")
        .route(&format!("{{name: old, match: {{tls: {{ja4: {old}}}}}, upstream: origin, key: {{headers: [client-ja4]}}}}"))
        .route(&format!("{{name: new, match: {{tls: {{ja4: [nobody, \"{prefix}_*\"]}}}}, upstream: origin}}"))
        .route("{name: other, upstream: origin}")
        .start()
        .await
        .with_token(TOKEN);
    let route = async |path: &str| record(&gateway, path).await["route"].clone();
    for (n, client) in clients(&gateway).into_iter().enumerate() {
        let path = format!("/of-{n}");
        let mut https = client.http().await;
        // What a client says of itself counts nothing.
        let request = Request::get(&path).header("client-ja4", &*new);
        assert_eq!(https.send(NAME, request).await.status, 200);
        assert!(!origin.last().headers.contains_key("client-ja4"));
        assert_eq!(route(&path).await, ["old", "new"][n]);
    }
    let mut clear = e2e::raw::RawConnection::open(gateway.addresses()[1]).await;
    clear
        .write(format!(
            "GET /clear HTTP/1.1\r\nhost: {NAME}\r\nclient-ja4: {new}\r\n\r\n"
        ))
        .await;
    assert_eq!(clear.head().await.status, 200);
    assert_eq!(route("/clear").await, "other");
    assert_eq!(origin.count(), 3);
    assert!(
        origin
            .seen()
            .iter()
            .all(|seen| !seen.headers.contains_key("client-ja4"))
    );
}

#[tokio::test]
async fn a_plugin_gets_it_where_it_declares_it() {
    let origin = Origin::pages(|_| Reply::fresh("page")).await;
    let plugin = |reads: &str| {
        let limits = "{hook_timeout: 10s}";
        format!(
            "{{p: {{file: asker.wasm, config: {{reads: [{reads}], rules: {{/: {{echo: true}}}}}}, on_error: {{request: refuse}}, limits: {limits}}}}}"
        )
    };
    for (ja4, reads, told) in [
        ("on", "client-ja4", true),
        ("on", "accept", false),
        ("off", "client-ja4", false),
    ] {
        let gateway = setup(&origin, ja4)
            .file("asker.wasm", e2e::guest::built("asker"))
            .top("plugins", &plugin(reads))
            .route("{name: site, upstream: origin, request: {plugin: p}}")
            .start()
            .await;
        for (client, version) in clients(&gateway).into_iter().zip(["t12", "t13"]) {
            let mut https = client.http().await;
            let answer = https
                .send(NAME, Request::get("/").header("client-ja4", "eve"))
                .await;
            assert_eq!(answer.status, 200);
            let sees = format!("{:?} {}", answer.headers, answer.text());
            assert_eq!(
                sees.contains(&format!("{version}d")),
                told,
                "{ja4} {reads}: {sees}"
            );
            assert!(!sees.contains("eve"), "{sees}");
        }
    }
}

#[tokio::test]
async fn a_match_that_can_never_be_is_a_mistake_and_explain_shows_the_fingerprint() {
    let origin = Origin::pages(|_| Reply::fresh("page")).await;
    let matching = |setup: Setup, ja4: &str| {
        setup
            .route(&format!(
                "{{name: bot, match: {{tls: {{ja4: {ja4}}}}}, upstream: origin}}"
            ))
            .route("{name: site, upstream: origin}")
            .write()
    };
    for (switch, ja4, words) in [
        ("off", "t13*", "expected `ja4: on`"),
        ("on", "[]", "empty list"),
    ] {
        let (_dir, config) = matching(setup(&origin, switch), ja4);
        let ran = run(&["validate", "-c", config.to_str().unwrap()]);
        assert_eq!(ran.code, Some(2), "{}", ran.output());
        let place = "routes[0].match.tls.ja4: ";
        assert!(
            ran.output().contains(place) && ran.output().contains(words),
            "{}",
            ran.output()
        );
    }
    let (_dir, config) = matching(setup(&origin, "on"), "t13d*");
    let explain = |url: &str| {
        let header = "client-ja4: t13d1516h2_8daaf6152771_e5627efa2ab1";
        let config = config.to_str().unwrap();
        run(&["explain", "-c", config, "-H", header, url]).stdout
    };
    let told = explain("https://a.example/");
    assert!(told.contains("ja4       t13d1516h2"), "{told}");
    assert!(told.contains("route     bot"), "{told}");
    let told = explain("http://a.example/");
    assert!(!told.contains("ja4 "), "{told}");
    assert!(told.contains("route     site"), "{told}");
}
