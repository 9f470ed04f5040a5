//! What is told of a request over TLS (edge.md, Q9): the access log, the last requests and the
//! metrics know the protocol, the version of TLS, the name that was asked for, and whether a session
//! was resumed.

use std::collections::BTreeMap;

use e2e::front::Front;
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::tls::TlsClient;
use e2e::tls::site::{HttpsSite, NAME};
use e2e::wait::{SOON, wait_for};
use http::Method;
use serde_json::{Value, json};

const BY_PROTOCOL: &str = "lamina_requests_by_protocol_total";
const TOKEN: &str = "a-token-for-reading";

/// The line of the access log for this path.
async fn line(gateway: &Gateway, path: &str) -> Value {
    let wanted = format!("\"path\":\"{path}\"");
    let line = gateway
        .logged("the access line", |line| line.contains(&wanted))
        .await;
    let line: Value = serde_json::from_str(&line).unwrap();
    line.get("fields").unwrap_or(&line).clone()
}

/// What the last requests tell of this path.
async fn explained(gateway: &Gateway, path: &str) -> Value {
    let query = format!("/v1/requests/recent?contains={path}&limit=1");
    wait_for("the request is among the last ones", SOON, || async {
        let answer = gateway.admin(Method::GET, &query, "").await;
        let answer: Value = serde_json::from_str(&answer.text).unwrap();
        answer["requests"].get(0).cloned()
    })
    .await
}

async fn site() -> HttpsSite {
    let admin = format!("{{address: \"127.0.0.1:0\", token: {TOKEN}}}");
    let mut site = HttpsSite::with(
        "",
        |setup| setup.top("admin", &admin),
        |_| Reply::fresh("page"),
    )
    .await;
    site.gateway = site.gateway.with_token(TOKEN);
    site
}

/// Each version of TLS, for the first time and again: what log and last requests say.
#[tokio::test]
async fn log_and_last_requests_know_version_name_and_resumption() {
    let site = site().await;
    let mut looked = 0;
    let versions: [(&str, TlsClient); 2] = [
        ("TLSv1.2", site.client().only_tls12()),
        ("TLSv1.3", site.client().only_tls13()),
    ];
    for (version, client) in versions {
        for resumed in [false, true] {
            let path = format!("/{version}/{resumed}");
            let connection = client.connect().await.unwrap();
            assert_eq!(connection.is_resumed(), resumed, "{path}");
            let mut raw = connection.raw();
            let request =
                format!("GET {path} HTTP/1.1\r\nhost: {NAME}\r\nconnection: close\r\n\r\n");
            raw.write(request).await;
            // To the end, so that tickets arrive.
            raw.to_end().await;
            let line = line(&site.gateway, &path).await;
            assert_eq!(line["protocol"], "http/1.1", "{line}");
            assert_eq!(line["tls"], version, "{line}");
            assert_eq!(line["sni"], NAME, "{line}");
            assert_eq!(line["resumed"], resumed, "{line}");
            let recent = explained(&site.gateway, &path).await;
            assert_eq!(recent["protocol"], "http/1.1", "{recent}");
            assert_eq!(recent["tls"]["version"], version, "{recent}");
            assert_eq!(recent["tls"]["server_name"], NAME, "{recent}");
            assert_eq!(recent["tls"]["resumed"], resumed, "{recent}");
            looked += 1;
        }
    }
    assert_eq!(looked, 4);
    let handshakes = "lamina_tls_handshakes_total";
    for outcome in ["full", "resumed"] {
        let labels = [("outcome", outcome)];
        let count = site.gateway.metric(handshakes, &labels).await;
        assert_eq!(count, 2.0, "{outcome}");
    }
}

#[tokio::test]
async fn a_client_that_asks_for_no_name_has_none_in_log_and_last_requests() {
    let site = site().await;
    let gateway = &site.gateway;
    let secured = site.client().nameless();
    // Without a default certificate there is no handshake without a name.
    assert!(secured.connect().await.is_err());
    let clear = Setup::new(&site.origin).start().await;
    clear.client().get("/in-clear-text").await;
    let line = line(&clear, "/in-clear-text").await;
    for field in ["tls", "sni", "resumed"] {
        assert!(line.get(field).is_none(), "{field}: {line}");
    }
    let refused = [("outcome", "unknown_name")];
    gateway
        .metric_until("lamina_tls_handshakes_total", &refused, |count| {
            count == 1.0
        })
        .await;
}

/// One request over each front: the fields of its access line, and what the metrics count.
#[tokio::test]
async fn each_front_is_told_apart_by_log_and_metrics() {
    let wanted = BTreeMap::from([
        (Front::Clear, ("http/1.1", "none")),
        (Front::TlsHttp1, ("http/1.1", "TLSv1.3")),
        (Front::TlsHttp2, ("h2", "TLSv1.3")),
        (Front::Http3, ("h3", "TLSv1.3")),
    ]);
    for front in Front::ALL {
        let origin = Origin::pages(|_| Reply::fresh("page")).await;
        let fronted = front.start(Setup::new(&origin), &[]).await;
        let door = fronted.messages().await;
        let client = e2e::client::Client::http1(door.address);
        assert_eq!(client.get("/page").await.status, 200, "{front:?}");
        let (protocol, tls) = wanted[&front];
        let line = line(&fronted.gateway, "/page").await;
        assert_eq!(line["protocol"], protocol, "{line}");
        let secured = (tls != "none").then_some(tls);
        assert_eq!(
            line.get("tls").cloned(),
            secured.map(|tls| json!(tls)),
            "{line}"
        );
        let scrape = fronted.gateway.scrape().await;
        let labels = [("protocol", protocol), ("tls", tls)];
        assert_eq!(scrape.sum(BY_PROTOCOL, &labels), 1.0, "{front:?}");
        assert_eq!(scrape.sum(BY_PROTOCOL, &[]), 1.0, "{front:?}");
    }
}
