//! Requests that come before the handshake is complete (edge.md, Q10; RFC 8470).

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use e2e::cli::{repository, run};
use e2e::h3::certificates::Certificates;
use e2e::h3::raw::{RawH3, RawStream, frame, headers, kind};
use e2e::h3::relay::{Fate, Relay};
use e2e::h3::{NAME, Reach, SecuredGateway};
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::{Setup, write_config};
use e2e::wait::{SOON, wait_for, within};

const SAFE: &str = ", early_data: safe";

async fn site(tls: &str) -> (Origin, SecuredGateway) {
    let origin = Origin::pages(|seen| match seen.path.as_str() {
        "/late" if seen.headers.contains_key("early-data") => Reply::ok("too early here")
            .status(425)
            .header("cache-control", "max-age=60"),
        _ => Reply::fresh("page"),
    })
    .await;
    let setup = Setup::new(&origin).top("purge_method", "{enabled: true, allow: [127.0.0.0/8]}");
    let secured = SecuredGateway::start_with(setup, tls).await;
    (origin, secured)
}

/// A connection whose requests go out before its handshake is complete, and which gets nothing of
/// the gateway until it is told to.
struct EarlyClient {
    raw: RawH3,
    relay: Relay,
    hears: Arc<AtomicBool>,
    accepted: quinn::ZeroRttAccepted,
}

impl EarlyClient {
    /// Asks for a page over HTTP/3, and comes again with the session of that.
    async fn begin(secured: &SecuredGateway, reach: &Reach) -> Self {
        let hears = Arc::new(AtomicBool::new(false));
        let back = Arc::clone(&hears);
        let fate = move || match back.load(Ordering::SeqCst) {
            true => Fate::Passes,
            false => Fate::IsLost,
        };
        let relay = Relay::start(secured.address(), || Fate::Passes, fate).await;
        // The ticket may come behind the page.
        let (endpoint, connection, accepted) =
            wait_for("a session that takes early data", SOON, || async {
                let first = secured.client_by(reach).await;
                assert_eq!(first.get("/page").await.status, 200);
                let endpoint = secured.endpoint(reach);
                let connecting = endpoint.connect(relay.address, NAME).unwrap();
                let (connection, accepted) = connecting.into_0rtt().ok()?;
                Some((endpoint, connection, accepted))
            })
            .await;
        let raw = secured.raw_over(endpoint, connection, reach).await;
        Self {
            raw,
            relay,
            hears,
            accepted,
        }
    }

    /// Sends a request.
    async fn send(&self, method: &str, path: &str, content: &[u8]) -> RawStream {
        let mut bytes = headers(&self.raw.head(method, path));
        if !content.is_empty() {
            bytes.extend(frame(kind::DATA, content));
        }
        let mut stream = self.raw.stream(bytes).await;
        stream.send.finish().unwrap();
        stream
    }

    /// From now on it gets what the gateway sends; whether its early data was accepted.
    async fn hear(self) -> (RawH3, Relay, bool) {
        self.hears.store(true, Ordering::SeqCst);
        let accepted = within("the handshake", SOON * 4, self.accepted).await;
        (self.raw, self.relay, accepted)
    }
}

async fn hits(secured: &SecuredGateway) -> f64 {
    let labels = [("result", "hit")];
    secured
        .gateway
        .metric("lamina_requests_total", &labels)
        .await
}

#[tokio::test]
async fn only_a_fresh_hit_is_answered_early_and_all_else_waits() {
    let (origin, secured) = site(SAFE).await;
    let early = EarlyClient::begin(&secured, &Reach::default()).await;
    let (asked, before) = (origin.count(), hits(&secured).await);
    let waiting = [
        early.send("POST", "/page", b"content").await,
        early.send("PURGE", "/page", b"").await,
        early.send("GET", "/missed", b"").await,
        early.send("GET", "/late", b"").await,
        early.send("GET", "/page", b"content").await,
    ];
    let page = [
        early.send("GET", "/page", b"").await,
        early.send("HEAD", "/page", b"").await,
    ];
    secured
        .gateway
        .metric_until("lamina_requests_total", &[("result", "hit")], |count| {
            count == before + 2.0
        })
        .await;
    assert_eq!(origin.count(), asked, "nothing else has gone on");
    let (raw, _relay, accepted) = early.hear().await;
    assert!(accepted);
    for stream in page {
        assert_eq!(stream.end().await.status(), Some(200));
    }
    let [post, purge, missed, late, with_content] = waiting;
    for (what, stream, status) in [
        ("POST", post, 200),
        ("PURGE", purge, 200),
        ("a miss", missed, 200),
        ("425", late, 425),
        ("GET with content", with_content, 200),
    ] {
        assert_eq!(stream.end().await.status(), Some(status), "{what}");
    }
    let marked = origin.seen();
    let marked = marked.iter().skip(asked);
    assert!(marked.clone().count() >= 4);
    for seen in marked {
        assert_eq!(
            seen.headers["early-data"], "1",
            "{} {}",
            seen.method, seen.path
        );
    }
    // The same connection after its handshake, for what was not stored: 425 is the request's own.
    assert!(raw.answers("/late").await);
    assert!(!origin.last().headers.contains_key("early-data"));
    let labels = [("outcome", "resumed")];
    let resumed = secured
        .gateway
        .metric("lamina_quic_handshakes_total", &labels);
    assert!(resumed.await >= 1.0);
}

/// A plugin may do what must not be done twice.
#[tokio::test]
async fn routes_with_a_plugin_wait_for_the_handshake() {
    let origin = Origin::pages(|_| Reply::fresh("page")).await;
    let plugin = repository().join("plugins/dist/normalize-query.wasm");
    let plugin = std::fs::read(plugin).expect("plugins/build.sh has been run");
    let setup = Setup::new(&origin)
        .file("normalize-query.wasm", plugin)
        .top("plugins", "{normalize-query: {file: normalize-query.wasm, config: {drop: [utm_*]}}}")
        .route("{name: keyed, match: {path: /keyed}, upstream: origin, key: {plugin: normalize-query}}")
        .route("{name: site, upstream: origin}");
    let secured = SecuredGateway::start_with(setup, SAFE).await;
    let client = secured.client().await;
    for path in ["/keyed", "/page"] {
        assert_eq!(client.get(path).await.status, 200);
        assert!(client.get(path).await.is_hit(), "{path} is stored");
    }
    let early = EarlyClient::begin(&secured, &Reach::default()).await;
    let before = hits(&secured).await;
    let mut streams = vec![early.send("GET", "/keyed", b"").await];
    // What comes later and has no plugin is answered, and nothing else.
    for n in 1..=3 {
        streams.push(early.send("GET", "/page", b"").await);
        secured
            .gateway
            .metric_until("lamina_requests_total", &[("result", "hit")], |count| {
                count == before + f64::from(n)
            })
            .await;
    }
    let (_raw, _relay, accepted) = early.hear().await;
    assert!(accepted);
    for stream in streams {
        assert_eq!(stream.end().await.status(), Some(200));
    }
    assert_eq!(hits(&secured).await, before + 4.0);
    assert_eq!(origin.count_of("/keyed"), 1);
}

/// Whoever recorded the first packets of a client can send them again, and nothing happens.
#[tokio::test]
async fn recorded_requests_are_taken_once() {
    let (origin, secured) = site(", early_data: safe, handshake_timeout: 5s").await;
    let early = EarlyClient::begin(&secured, &Reach::default()).await;
    let post = early.send("POST", "/page", b"content").await;
    let recorded = wait_for("the first packets are out", SOON, || async {
        let recorded = early.relay.recorded();
        (recorded.len() >= 2).then_some(recorded)
    })
    .await;
    let (raw, _relay, accepted) = early.hear().await;
    assert!(accepted);
    assert_eq!(post.end().await.status(), Some(200));
    raw.connection.close(0u32.into(), b"");
    let (asked, before) = (origin.count(), hits(&secured).await);
    let timeouts = async || {
        let labels = [("outcome", "timeout")];
        secured
            .gateway
            .metric("lamina_quic_handshakes_total", &labels)
            .await
    };
    let stranger = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let begun = timeouts().await;
    // Until the gateway has forgotten the connection, they are its own.
    wait_for(
        "the handshake of the recording is begun and given up",
        SOON * 2,
        || async {
            for datagram in &recorded {
                stranger.send_to(datagram, secured.address()).unwrap();
            }
            (timeouts().await > begun).then_some(())
        },
    )
    .await;
    assert_eq!((origin.count(), hits(&secured).await), (asked, before));
}

#[tokio::test]
async fn without_the_key_no_client_sends_anything_early() {
    let (_origin, secured) = site("").await;
    let reach = Reach::default();
    for _ in 0..3 {
        assert_eq!(
            secured.client_by(&reach).await.get("/page").await.status,
            200
        );
        let endpoint = secured.endpoint(&reach);
        let connecting = endpoint.connect(secured.address(), NAME).unwrap();
        assert!(connecting.into_0rtt().is_err());
    }
}

/// A name whose clients show certificates takes none: they would not have been verified.
#[tokio::test]
async fn names_with_client_auth_take_no_early_data() {
    let policy = format!(
        "{SAFE}, policies: [{{names: [{NAME}], client_auth: {{mode: request, ca: ca.crt}}}}]"
    );
    let (_origin, secured) = site(&policy).await;
    let reach = Reach::default();
    for _ in 0..3 {
        assert_eq!(
            secured.client_by(&reach).await.get("/page").await.status,
            200
        );
        let endpoint = secured.endpoint(&reach);
        let connecting = endpoint.connect(secured.address(), NAME).unwrap();
        assert!(connecting.into_0rtt().is_err());
    }
}

#[test]
fn validate_says_what_early_data_excludes() {
    let certificates = Certificates::new(&[NAME]);
    let says = |protocols: &str, tls: &str| {
        let setup = Setup::default()
            .upstream("origin", "http://127.0.0.1:9")
            .file("t.key", vec![7; 32])
            .top(
                "cache",
                "{l2: {redis: {url: \"redis://127.0.0.1:9\"}, seal_key: 0123456789abcdef0123456789abcdef}}",
            );
        let setup = certificates.secure(setup, &format!("{SAFE}{tls}"));
        let (dir, config) = setup.write();
        let yaml = std::fs::read_to_string(&config).unwrap();
        let yaml = yaml.replace("[http1, http2, http3]", protocols);
        let config = write_config(dir.path(), &yaml);
        run(&["validate", "-c", config.to_str().unwrap()])
    };
    let all = "[http1, http2, http3]";
    let refused = says("[http1, http2]", "");
    assert_ne!(refused.code, Some(0));
    assert!(
        refused.output().contains("taken over HTTP/3 alone"),
        "{}",
        refused.output()
    );
    let refused = says(all, ", tickets: {enabled: false}");
    assert_ne!(refused.code, Some(0));
    assert!(
        refused.output().contains("tickets.enabled"),
        "{}",
        refused.output()
    );
    for tickets in ["{keys: [t.key]}", "{shared: true}"] {
        let warned = says(all, &format!(", tickets: {tickets}"));
        assert_eq!(warned.code, Some(0), "{}", warned.output());
        assert!(
            warned.output().contains("no other node resumes them"),
            "{tickets}: {}",
            warned.output()
        );
    }
    let fine = says(all, "");
    assert_eq!(fine.code, Some(0), "{}", fine.output());
    assert!(!fine.output().contains("resumes them"), "{}", fine.output());
}
