//! Certificates of clients, and the field that tells them (edge.md, TLS7; RFC 9440).

use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::raw::RawConnection;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::tls::authority::{Authority, Certificate, Order};
use e2e::tls::{TlsClient, TlsFailure, alert};
use http::Request;

/// An origin and a gateway with three names: `need.test` requires a certificate, `may.test` asks
/// for one, `none.test` does neither; a second listener speaks clear text.
struct ClientCertificateSite {
    clients: Authority,
    origin: Origin,
    gateway: Gateway,
}

const SERVER_NAMES: [&str; 3] = ["need.test", "may.test", "none.test"];

impl ClientCertificateSite {
    async fn start(auth: &str, files: impl FnOnce(&Authority, Setup) -> Setup) -> Self {
        let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
        let origin = Origin::pages(|_| Reply::fresh("page")).await;
        let policies = format!(
            "[{{names: [need.test], client_auth: {{mode: require, ca: ca.pem, {auth}}}}}, \
              {{names: [may.test], client_auth: {{mode: request, ca: ca.pem, {auth}}}}}]"
        );
        let tls = format!("{{certificates: [{{cert: s.crt, key: s.key}}], policies: {policies}}}");
        let listeners =
            format!("[{{address: \"127.0.0.1:0\", tls: {tls}}}, {{address: \"127.0.0.1:0\"}}]");
        let setup = Setup::new(&origin)
            .pair("s", &servers.server(&SERVER_NAMES))
            .file("ca.pem", clients.pem.clone())
            .top("listeners", &listeners);
        // A key can't have a field that no listener tells.
        let setup = match auth.contains("forward: off") {
            true => setup,
            false => setup.route(
                "{name: keyed, match: {path: /keyed/*}, upstream: origin, \
                   key: {headers: [client-cert]}}",
            ),
        };
        let setup = setup.route("{name: site, upstream: origin}");
        let gateway = files(&clients, setup).start().await;
        Self {
            clients,
            origin,
            gateway,
        }
    }

    fn client(&self, name: &str) -> TlsClient {
        TlsClient::new(self.gateway.address, name)
    }
}

/// A certificate as RFC 9440 §2.1 writes it, by openssl's base64.
fn field(certificate: &Certificate) -> String {
    let body: String = certificate
        .pem
        .lines()
        .filter(|line| !line.starts_with("-----"))
        .collect();
    format!(":{body}:")
}

#[tokio::test]
async fn a_certificate_is_required_where_the_policy_says_so() {
    let site = ClientCertificateSite::start("", |_, setup| setup).await;
    let (me, stranger) = (
        site.clients.client("me"),
        Authority::new("clients").client("me"),
    );
    let expired = site.clients.make(&Order::client("me").expired());
    let server = site.clients.server(&["me"]);
    let client = site.client("need.test");
    for client in [client.clone().only_tls12(), client.only_tls13()] {
        assert_eq!(
            client.clone().showing(&me).status("need.test").await,
            Ok(200)
        );
        let without = client.clone().status("need.test").await;
        let needed = [alert::CERTIFICATE_REQUIRED, alert::HANDSHAKE_FAILURE];
        let refused = |alert: u8| without == Err(TlsFailure::Alert(alert));
        assert!(needed.into_iter().any(refused), "{without:?}");
        let shows = client.clone().showing(&expired).status("need.test").await;
        assert_eq!(shows, Err(TlsFailure::Alert(alert::CERTIFICATE_EXPIRED)));
        // By its name the authority is the right one.
        for wrong in [&stranger, &server] {
            let shows = client.clone().showing(wrong).status("need.test").await;
            assert!(matches!(shows, Err(TlsFailure::Alert(_))), "{shows:?}");
        }
    }
    assert_eq!(
        site.origin.count(),
        2,
        "only the good ones were served, past the cache"
    );
}

#[tokio::test]
async fn a_certificate_that_may_be_shown_must_be_good() {
    let site = ClientCertificateSite::start("", |_, setup| setup).await;
    let (me, stranger) = (
        site.clients.client("me"),
        Authority::new("others").client("me"),
    );
    let client = site.client("may.test");
    for (version, client) in [client.clone().only_tls12(), client.only_tls13()]
        .into_iter()
        .enumerate()
    {
        let told = async |client: &TlsClient, path: &str| {
            let path = format!("/{version}/{path}");
            let answer = client.http().await.get("may.test", &path).await;
            assert_eq!(answer.status, 200);
            let seen = site.origin.last();
            assert_eq!(seen.path, path);
            seen.header("client-cert").to_owned()
        };
        assert_eq!(told(&client, "without").await, "");
        let showing = client.clone().anew().showing(&me);
        assert_eq!(told(&showing, "with").await, field(&me));
        // A resumed session brings the certificate along.
        assert_eq!(told(&showing, "again").await, field(&me));
        let shows = client.anew().showing(&stranger).status("may.test").await;
        assert_eq!(shows, Err(TlsFailure::Alert(alert::UNKNOWN_CA)));
    }
    // Nobody is asked where no policy is: what a client has stays with it.
    let asked = site
        .client("none.test")
        .showing(&me)
        .status("none.test")
        .await;
    assert_eq!(asked, Ok(200));
    let fields = site
        .origin
        .seen()
        .into_iter()
        .filter(|seen| seen.authority == "none.test");
    let fields: Vec<_> = fields
        .map(|seen| seen.header("client-cert").to_owned())
        .collect();
    assert_eq!(fields, [""]);
}

#[tokio::test]
async fn a_revoked_certificate_is_refused() {
    let clients = Authority::new("revoking");
    let (good, revoked) = (clients.client("good"), clients.client("revoked"));
    let site = ClientCertificateSite::start("crl: clients.crl", |_, setup| {
        setup
            .file("ca.pem", clients.pem.clone())
            .file("clients.crl", clients.revoke(&[&revoked]))
    })
    .await;
    for name in ["need.test", "may.test"] {
        for client in [
            site.client(name).only_tls12(),
            site.client(name).only_tls13(),
        ] {
            assert_eq!(client.clone().showing(&good).status(name).await, Ok(200));
            let shows = client.showing(&revoked).status(name).await;
            assert_eq!(shows, Err(TlsFailure::Alert(alert::CERTIFICATE_REVOKED)));
        }
    }
}

/// Nobody has said of the other authority's clients that they are still good.
#[tokio::test]
async fn a_client_of_an_authority_without_a_list_is_refused_where_there_are_lists() {
    let (listed, unlisted) = (Authority::new("listed"), Authority::new("unlisted"));
    let site = ClientCertificateSite::start("crl: clients.crl", |_, setup| {
        setup
            .file("ca.pem", format!("{}{}", listed.pem, unlisted.pem))
            .file("clients.crl", listed.revoke(&[]))
    })
    .await;
    for client in [
        site.client("need.test").only_tls12(),
        site.client("need.test").only_tls13(),
    ] {
        let shows = client.clone().showing(&listed.client("me"));
        assert_eq!(shows.status("need.test").await, Ok(200));
        let shows = client.showing(&unlisted.client("me"));
        let ended = shows.status("need.test").await;
        assert!(matches!(ended, Err(TlsFailure::Alert(_))), "{ended:?}");
    }
}

/// The fields by which a request poses as one with a certificate, in every spelling that a server
/// may take for them.
const SPOOFED: [&str; 7] = [
    "Client-Cert",
    "client_cert",
    "Client_Cert",
    "client.cert",
    "Client-Cert-Chain",
    "Client_Cert_Chain",
    "client-cert_chain",
];

#[tokio::test]
async fn client_cert_headers() {
    let site = ClientCertificateSite::start("", |_, setup| setup).await;
    let me = site.clients.client("me");
    let ours = |seen: &e2e::origin::Seen| {
        let like = |name: &str| name.replace(['_', '.'], "-").starts_with("client-cert");
        let fields = seen.headers.iter().filter(|(name, _)| like(name.as_str()));
        fields
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect::<Vec<_>>()
    };
    let mut looked_at = 0;
    for (name, shows) in [
        ("need.test", true),
        ("may.test", true),
        ("may.test", false),
        ("none.test", false),
    ] {
        for protocol in ["http/1.1", "h2"] {
            let client = site.client(name).speaking(&[protocol]);
            let client = if shows { client.showing(&me) } else { client };
            let mut https = client.http().await;
            for spoofed in SPOOFED {
                let path = format!("/{name}/{shows}/{protocol}/{spoofed}");
                let request = Request::get(&path).header(spoofed, ":c3Bvb2ZlZA==:");
                let request = request.header("connection", "client-cert");
                let request = match protocol {
                    "h2" => Request::get(&path).header(spoofed, ":c3Bvb2ZlZA==:"),
                    _ => request,
                };
                assert_eq!(https.send(name, request).await.status, 200);
                let expected = match shows {
                    true => vec![("client-cert".to_owned(), field(&me))],
                    false => Vec::new(),
                };
                assert_eq!(ours(&site.origin.last()), expected, "{path}");
                looked_at += 1;
            }
        }
    }
    for spoofed in SPOOFED {
        let mut raw = RawConnection::open(site.gateway.addresses()[1]).await;
        let path = format!("/clear/{spoofed}");
        let head = format!("GET {path} HTTP/1.1\r\nhost: need.test\r\n{spoofed}: :eA==:\r\n\r\n");
        raw.write(head).await;
        assert_eq!(raw.head().await.status, 200);
        assert_eq!(ours(&site.origin.last()), [], "{path}");
        looked_at += 1;
    }
    assert_eq!(looked_at, SPOOFED.len() * 9);
}

/// Only what the certificate was verified by, in order, whatever else the client sends.
#[tokio::test]
async fn client_cert_chain_is_the_validated_one() {
    let chain = "forward: client-cert-chain";
    let site = ClientCertificateSite::start(chain, |_, setup| setup).await;
    let upper = site.clients.below("upper");
    let lower = upper.below("lower");
    let (deep, direct) = (lower.client("deep"), site.clients.client("direct"));
    let stranger = Authority::new("stranger");
    let text = |authority: &Authority| {
        let lines = authority
            .pem
            .lines()
            .filter(|line| !line.starts_with("-----"));
        format!(":{}:", lines.collect::<String>())
    };
    let root = &site.clients;
    let expected = format!("{}, {}", text(&lower), text(&upper));
    let mut looked_at = 0;
    for (shown, others, expected) in [
        (&deep, &[&lower, &upper][..], &*expected),
        (&deep, &[&stranger, &upper, root, &lower], &expected),
        (&direct, &[], ""),
        (&direct, &[&stranger, &upper], ""),
    ] {
        for client in [
            site.client("need.test").only_tls12(),
            site.client("need.test").only_tls13(),
        ] {
            let client = client.showing_chain(shown, others);
            // The second session is resumed.
            for n in 0..2 {
                let mut https = client.http().await;
                let spoofed = Request::get("/").header("client-cert-chain", ":eA==:");
                assert_eq!(https.send("need.test", spoofed).await.status, 200);
                let seen = site.origin.last();
                assert_eq!(seen.header("client-cert-chain"), expected, "{n}");
                assert_eq!(seen.header("client-cert"), field(shown), "{n}");
                looked_at += 1;
            }
        }
    }
    assert_eq!(looked_at, 16);
    let unverified = site.client("need.test").showing_chain(&deep, &[&upper]);
    assert!(unverified.status("need.test").await.is_err());
}

#[tokio::test]
async fn what_was_answered_to_a_certificate_is_stored_only_by_its_key() {
    let site = ClientCertificateSite::start("", |_, setup| setup).await;
    let (me, you) = (site.clients.client("me"), site.clients.client("you"));
    let ask = async |who: Option<&Certificate>, path: &str| {
        let client = site.client("may.test");
        let client = match who {
            Some(certificate) => client.showing(certificate),
            None => client,
        };
        let answer = client.http().await.get("may.test", path).await;
        assert_eq!(answer.status, 200);
        answer.cache()
    };
    // The key does not name the field: with a certificate nothing is stored, nor taken.
    for who in [Some(&me), Some(&me), Some(&you)] {
        let cache = ask(who, "/page").await;
        assert!(!cache.hit && !cache.stored, "{cache:?}");
    }
    assert!(ask(None, "/page").await.stored);
    assert!(ask(None, "/page").await.hit);
    assert!(
        !ask(Some(&me), "/page").await.hit,
        "others' page is not mine"
    );
    assert_eq!(site.origin.count(), 5);
    // The key names it: each has a page of its own.
    for who in [Some(&me), Some(&you), None] {
        assert!(ask(who, "/keyed/page").await.stored);
        assert!(ask(who, "/keyed/page").await.hit);
    }
    assert_eq!(site.origin.count(), 8);
}

#[tokio::test]
async fn without_forward_a_certificate_is_checked_and_not_told() {
    let site = ClientCertificateSite::start("forward: off", |_, setup| setup).await;
    let me = site.clients.client("me");
    let client = site.client("need.test").showing(&me);
    let mut https = client.http().await;
    let spoofed = Request::get("/").header("client-cert", ":eA==:");
    assert_eq!(https.send("need.test", spoofed).await.status, 200);
    assert!(!site.origin.last().headers.contains_key("client-cert"));
    assert!(
        https.get("need.test", "/").await.cache().hit,
        "nothing tells clients apart"
    );
    let without = site.client("need.test").status("need.test").await;
    assert!(without.is_err(), "{without:?}");
}
