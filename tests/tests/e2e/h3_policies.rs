//! TLS policies of names over QUIC, and sessions that are resumed there (edge.md, TLS6 to TLS8).

use std::net::SocketAddr;
use std::time::Duration;

use e2e::free_port::free_port;
use e2e::h3::certificates::Certificates;
use e2e::h3::client::H3Client;
use e2e::h3::tcp::TcpAsk;
use e2e::h3::{NAME, OTHER_NAME, Reach, STRICT_NAME, SecuredGateway, connect_to};
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::tls::alert;
use e2e::tls::authority::{Authority, Certificate};
use e2e::wait::{SOON, wait_for, within};
use http::{Method, Version};
use serde_json::Value;

const HANDSHAKES: &str = "lamina_quic_handshakes_total";
const SECRET: &[u8] = b"a secret of more than thirty-two bytes, for tests";

/// A gateway whose strict name has this policy.
async fn with_policy(origin: &Origin, clients: &Authority, policy: &str) -> SecuredGateway {
    let setup = Setup::new(origin)
        .file("clients.pem", clients.pem.clone())
        .route(
            "{name: keyed, match: {path: /keyed/*}, upstream: origin, key: {headers: [client-cert]}}",
        )
        .route("{name: site, upstream: origin}");
    let tls = format!(", policies: [{{names: [{STRICT_NAME}], {policy}}}]");
    SecuredGateway::start_with(setup, &tls).await
}

/// The alert by which a connection is refused, in its handshake or, as with TLS 1.3 a client may
/// believe that this is over, soon after it.
async fn refusal(address: SocketAddr, secured: &SecuredGateway, reach: &Reach) -> u64 {
    let endpoint = secured.endpoint(reach);
    let error = match within("a handshake", SOON, connect_to(address, &endpoint, reach)).await {
        Err(error) => error,
        Ok(connection) => within("the end of a connection", SOON, connection.closed()).await,
    };
    match error {
        quinn::ConnectionError::ConnectionClosed(close) => {
            let code = u64::from(close.error_code);
            assert_eq!(code & !0xff, 0x100, "an alert of TLS: {close:?}");
            code & 0xff
        }
        other => panic!("{other:?}"),
    }
}

/// A certificate as RFC 9440 §2.1 writes it.
fn field(certificate: &Certificate) -> String {
    let lines = certificate.pem.lines();
    let body: String = lines.filter(|line| !line.starts_with("-----")).collect();
    format!(":{body}:")
}

#[tokio::test]
async fn a_name_with_client_auth_is_served_and_asks_for_the_certificate() {
    let clients = Authority::new("clients");
    let (me, stranger) = (clients.client("me"), Authority::new("others").client("me"));
    let origin = Origin::pages(|_| Reply::fresh("page")).await;
    let policy = "client_auth: {mode: require, ca: clients.pem}";
    let secured = with_policy(&origin, &clients, policy).await;
    let strict = Reach::named(STRICT_NAME);
    let client = secured.client_by(&strict.clone().showing(&me)).await;
    assert_eq!(client.get("/keyed/x").await.status, 200);
    assert_eq!(origin.last().headers["client-cert"], field(&me));
    let address = secured.address();
    let required = u64::from(alert::CERTIFICATE_REQUIRED);
    assert_eq!(refusal(address, &secured, &strict).await, required);
    let shows = strict.clone().showing(&stranger);
    // By its name the authority may be the right one: the signature is wrong.
    let refused = refusal(address, &secured, &shows).await;
    let unknown = u64::from(alert::UNKNOWN_CA);
    assert_eq!(refused, unknown);
    // Names without the policy are asked for nothing, and each connection is for its own names.
    let plain = secured.client().await;
    assert_eq!(plain.get("/keyed/x").await.status, 200);
    assert!(!origin.last().headers.contains_key("client-cert"));
    for (client, host, status) in [
        (&plain, STRICT_NAME, 421),
        (&plain, OTHER_NAME, 200),
        (&client, STRICT_NAME, 200),
        (&client, NAME, 421),
    ] {
        let answer = client.request("/").host(host).send().await;
        assert_eq!(answer.status, status, "{host}");
    }
    assert_eq!(origin.count(), 4);
}

#[tokio::test]
async fn a_certificate_that_may_be_shown_is_told_if_it_is() {
    let clients = Authority::new("clients");
    let me = clients.client("me");
    let origin = Origin::pages(|_| Reply::fresh("page")).await;
    let policy = "client_auth: {mode: request, ca: clients.pem}, min_version: \"1.3\"";
    let secured = with_policy(&origin, &clients, policy).await;
    let strict = Reach::named(STRICT_NAME);
    for (reach, told) in [
        (strict.clone(), None),
        (strict.showing(&me), Some(field(&me))),
    ] {
        let client = secured.client_by(&reach).await;
        assert_eq!(client.get("/keyed/x").await.status, 200);
        let seen = origin.last();
        let seen = seen.headers.get("client-cert");
        assert_eq!(seen.map(|value| value.to_str().unwrap().to_owned()), told);
    }
    assert_eq!(origin.count(), 2);
    // Clients of all names learn of HTTP/3.
    for name in [NAME, STRICT_NAME] {
        for version in [Version::HTTP_11, Version::HTTP_2] {
            let ask = TcpAsk {
                version,
                name,
                host: name,
                target: "/",
            };
            let answer = secured.ask_over_tcp(ask).await;
            assert!(answer.has("alt-svc"), "{name} by {version:?}");
        }
    }
}

#[tokio::test]
async fn a_name_without_certificate_is_refused_by_its_alert_and_counted() {
    let origin = Origin::pages(|_| Reply::fresh("page")).await;
    let secured = SecuredGateway::start(Setup::new(&origin)).await;
    let unknown = Reach::named("unknown.test");
    let refused = refusal(secured.address(), &secured, &unknown).await;
    assert_eq!(refused, u64::from(alert::UNRECOGNIZED_NAME));
    let labels = [("outcome", "unknown_name")];
    // A client knows of its refusal before the gateway counts it.
    secured
        .gateway
        .metric_until(HANDSHAKES, &labels, |count| count == 1.0)
        .await;
    assert_eq!(secured.client().await.get("/").await.status, 200);
}

#[tokio::test]
async fn a_session_is_resumed_and_what_is_known_of_it_is_told() {
    let origin = Origin::pages(|_| Reply::fresh("page")).await;
    let token = "a-token-for-reading";
    let setup = Setup::new(&origin).top(
        "admin",
        &format!("{{address: \"127.0.0.1:0\", token: {token}}}"),
    );
    let mut secured = SecuredGateway::start(setup).await;
    secured.gateway = secured.gateway.with_token(token);
    let reach = Reach::default();
    for (path, resumed) in [("/first", false), ("/second", true)] {
        let client = secured.client_by(&reach).await;
        for target in [path, "/page", "/page"] {
            assert_eq!(client.get(target).await.status, 200);
        }
        let query = format!("/v1/requests/recent?contains={path}&limit=1");
        let recent = wait_for("the request is among the last ones", SOON, || async {
            let answer = secured.gateway.admin(Method::GET, &query, "").await;
            let answer: Value = serde_json::from_str(&answer.text).unwrap();
            answer["requests"].get(0).cloned()
        })
        .await;
        let tls = &recent["tls"];
        assert_eq!(tls["resumed"], resumed, "{path}: {recent}");
        assert_eq!(tls["server_name"], NAME);
        assert_eq!(tls["version"], "TLSv1.3");
        assert!(tls["cipher"].as_str().unwrap().starts_with("TLS_"), "{tls}");
        assert!(tls["ja4"].as_str().unwrap().starts_with("q13d"), "{tls}");
    }
    for outcome in ["full", "resumed"] {
        let labels = [("outcome", outcome)];
        assert_eq!(
            secured.gateway.metric(HANDSHAKES, &labels).await,
            1.0,
            "{outcome}"
        );
    }
}

/// F1 of edge.md over QUIC: listeners that share the secret of tickets and differ in what they
/// demand of a name.
#[tokio::test]
async fn ticket_of_another_policy_is_worth_nothing_over_quic() {
    let (clients, others) = (Authority::new("clients"), Authority::new("others"));
    let me = clients.client("me");
    let origin = Origin::pages(|_| Reply::fresh("page")).await;
    let listener = |policies: &str| {
        format!(
            "{{address: \"127.0.0.1:0\", protocols: [http1, http2, http3], tls: {{certificates: \
             [{{cert: server.crt, key: server.key}}], tickets: {{keys: [tickets.key]}}, \
             policies: [{policies}]}}}}"
        )
    };
    let policy = |auth: &str| format!("{{names: [{NAME}], client_auth: {{forward: off, {auth}}}}}");
    let all = [
        listener(""),
        listener(&policy("mode: request, ca: clients.pem")),
        listener(&policy("mode: require, ca: clients.pem")),
        listener(&policy("mode: require, ca: others.pem")),
        listener(&format!("{{names: [{NAME}], min_version: \"1.3\"}}")),
    ];
    let certificates = Certificates::new(&[NAME]);
    let setup = Setup::new(&origin)
        .file("clients.pem", clients.pem.clone())
        .file("others.pem", others.pem.clone())
        .file("tickets.key", SECRET)
        .top("listeners", &format!("[{}]", all.join(", ")));
    let gateway = certificates.secure(setup, "").start().await;
    let addresses = gateway.addresses();
    assert_eq!(addresses.len(), 5);
    let secured = SecuredGateway {
        gateway,
        certificates,
    };
    let resumptions = async || {
        let labels = [("outcome", "resumed")];
        secured.gateway.metric(HANDSHAKES, &labels).await
    };
    let visit = async |at: SocketAddr, reach: &Reach| {
        let endpoint = secured.endpoint(reach);
        let connecting = connect_to(at, &endpoint, reach);
        let connection = within("a handshake", SOON, connecting).await.unwrap();
        let client = H3Client::over(endpoint, connection, NAME).await;
        // Tickets come before the answers of requests that follow them.
        for _ in 0..2 {
            assert_eq!(client.get("/").await.status, 200);
        }
    };
    let mut looked_at = 0;
    for (made_at, shown) in [
        (0, None),
        (1, None),
        (4, None),
        (1, Some(&me)),
        (2, Some(&me)),
    ] {
        for (at, address) in addresses.iter().enumerate() {
            let reach = match shown {
                Some(shown) => Reach::default().showing(shown),
                None => Reach::default(),
            };
            visit(addresses[made_at], &reach).await;
            let before = resumptions().await;
            let own = at == made_at;
            let is_refused = matches!((at, shown), (2, None) | (3, _));
            if is_refused {
                let refused = refusal(*address, &secured, &reach).await;
                let expected = match shown {
                    Some(_) => alert::UNKNOWN_CA,
                    None => alert::CERTIFICATE_REQUIRED,
                };
                assert_eq!(
                    refused,
                    u64::from(expected),
                    "made at {made_at}, used at {at}"
                );
            } else {
                visit(*address, &reach).await;
            }
            let resumed = resumptions().await - before;
            assert_eq!(
                resumed,
                f64::from(u8::from(own)),
                "made at {made_at}, used at {at}"
            );
            looked_at += 1;
        }
    }
    assert_eq!(looked_at, 25);
}

/// What connections end by, when their process has died, is made by the secret that it began with: a
/// reload puts another one in front, and clients that came before it and after it are told alike.
#[tokio::test]
async fn resets_are_made_by_the_first_secret_of_the_start_whatever_a_reload_says() {
    let origin = Origin::pages(|_| Reply::fresh("page")).await;
    let certificates = Certificates::new(&[NAME]);
    let port = free_port();
    let node = |keys: &str| {
        let listener = format!(
            "[{{address: \"127.0.0.1:{port}\", protocols: [http2, http3], tls: {{certificates: [{{cert: server.crt, key: server.key}}], tickets: {{keys: {keys}}}}}}}]"
        );
        let files = certificates.files().into_iter();
        let setup = files.fold(Setup::new(&origin), |setup, (name, content)| {
            setup.file(name, content)
        });
        setup
            .file("old.key", [7; 32])
            .file("new.key", [9; 32])
            .top("listeners", &listener)
    };
    let mut gateway = node("[old.key]").start().await;
    let reach = Reach::with(|transport| {
        transport.keep_alive_interval(Some(Duration::from_millis(200)));
    });
    let mut endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
    endpoint.set_default_client_config(certificates.quic(&reach));
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let before = connect_to(address, &endpoint, &reach).await.unwrap();
    gateway.take_up(&node("[new.key, old.key]")).await;
    let after = connect_to(address, &endpoint, &reach).await.unwrap();
    gateway.kill();
    gateway.ended(SOON).await;
    let _next = node("[old.key]").start().await;
    for connection in [before, after] {
        // Its silence would be noticed after 30 seconds alone, with another reason.
        let ended = within("the reset", SOON, connection.closed()).await;
        assert_eq!(ended, quinn::ConnectionError::Reset);
    }
}
