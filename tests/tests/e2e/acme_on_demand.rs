//! Certificates for names that nobody lists (edge.md, AC8): within narrow bounds, and never without a
//! word of the application.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use e2e::cli::run;
use e2e::gate::Gate;
use e2e::gateway::Gateway;
use e2e::h3::certificates::Certificates;
use e2e::h3::{Reach, connect_to};
use e2e::origin::Origin;
use e2e::pebble::{Pebble, here};
use e2e::reply::Reply;
use e2e::setup::{Setup, write_config};
use e2e::tls::{TlsClient, TlsFailure, alert};
use e2e::wait::{SOON, wait_for};

use crate::acme::{orders, page};

/// Names that are the application's own end in this.
const OURS: &str = ".ours-of-lamina.com";

/// An application that knows its own names.
async fn application() -> Origin {
    Origin::pages(|seen| match seen.path.ends_with(OURS) {
        true => Reply::ok("yes"),
        false => Reply::status_only(404),
    })
    .await
}

fn setup(pebble: &Pebble, origin: &Origin, asked: &Origin, store: &str, more: &str) -> Setup {
    let listeners = format!(
        "[{{address: \"127.0.0.1:{}\"}}, {{address: \"127.0.0.1:{}\", tls: {{certificates: [{{acme: pebble}}], handshake_timeout: 50s}}}}]",
        pebble.http_port, pebble.tls_port
    );
    let acme = format!(
        "{{storage: \"{store}\", poll_interval: 200ms, issuers: {{pebble: {}}}, on_demand: {{ask: \"{}/tls-allowed\"{more}}}}}",
        pebble.issuer(""),
        asked.url()
    );
    Setup::new(origin)
        .top("listeners", &listeners)
        .top("acme", &acme)
}

/// The same with HTTP/3 beside HTTP/2.
fn over_quic(setup: Setup) -> Setup {
    setup.replaced("listeners", "tls: {", "protocols: [http2, http3], tls: {")
}

async fn outcomes(gateway: &Gateway, outcome: &str) -> f64 {
    let labels = [("outcome", outcome)];
    gateway.metric("lamina_acme_on_demand_total", &labels).await
}

#[tokio::test]
async fn a_name_of_the_application_gets_a_certificate_in_the_handshake_and_after_a_restart() {
    let (origin, pebble, asked) = (page().await, Pebble::start().await, application().await);
    let store = tempfile::tempdir().unwrap();
    let store = store.path().join("acme").display().to_string();
    let setup = setup(&pebble, &origin, &asked, &store, ", wait: 40s");
    let gateway = setup.start().await;
    let server = here(pebble.tls_port);
    let name = format!("shop{OURS}");
    // Ten clients at once: one question, one order.
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let client = TlsClient::new(server, &name);
        let name = name.clone();
        clients.spawn(async move { client.status(&name).await });
    }
    while let Some(status) = clients.join_next().await {
        assert_eq!(status.unwrap(), Ok(200));
    }
    pebble.shown_by(server, &name).await.unwrap();
    assert_eq!(
        asked
            .seen()
            .iter()
            .map(|seen| &*seen.path)
            .collect::<Vec<_>>(),
        [format!("/tls-allowed?domain={name}")]
    );
    assert_eq!(orders(&gateway, "pebble", "issued").await, 1.0);
    assert_eq!(outcomes(&gateway, "obtained").await, 1.0);
    drop(gateway);
    let gateway = setup.start().await;
    assert_eq!(
        TlsClient::new(server, &name.to_uppercase())
            .status(&name)
            .await,
        Ok(200)
    );
    assert_eq!(outcomes(&gateway, "stored").await, 1.0);
    assert_eq!(
        (asked.count(), pebble.orders()),
        (1, 1),
        "nobody was asked again"
    );
}

/// The handshake over QUIC does not wait: the client comes again.
#[tokio::test]
async fn a_client_of_http3_finds_the_certificate_when_it_comes_again() {
    let (origin, pebble, asked) = (page().await, Pebble::start().await, application().await);
    let store = tempfile::tempdir().unwrap();
    let store = store.path().join("acme").display().to_string();
    let setup = over_quic(setup(&pebble, &origin, &asked, &store, ""));
    let gateway = setup.start().await;
    let name = format!("quic{OURS}");
    let reach = Reach::named(&name);
    let mut endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
    endpoint.set_default_client_config(Certificates::new(&[&name]).quic(&reach));
    let refused = connect_to(here(pebble.tls_port), &endpoint, &reach).await;
    assert!(refused.is_err());
    wait_for("it is obtained", SOON * 2, || async {
        (outcomes(&gateway, "obtained").await == 1.0).then_some(())
    })
    .await;
    // Its authority is none of the client's, which it sees when it is shown.
    let refused = connect_to(here(pebble.tls_port), &endpoint, &reach).await;
    let error = refused.unwrap_err().to_string();
    assert!(error.contains("UnknownIssuer"), "{error}");
}

/// Who gets the certificate for all other names is shown his own when he comes again.
#[tokio::test]
async fn a_client_of_http3_asks_for_a_name_beside_a_default() {
    let (origin, pebble, asked) = (page().await, Pebble::start().await, application().await);
    let store = tempfile::tempdir().unwrap();
    let store = store.path().join("acme").display().to_string();
    let (name, other) = (format!("beside{OURS}"), "stranger.elsewhere.com");
    // Issued for other names, and shown to all; the client verifies it by these.
    let shown = Certificates::new(&["default.test", &name, other]);
    let setup = over_quic(setup(&pebble, &origin, &asked, &store, "")).replaced(
        "listeners",
        "certificates: [{acme: pebble}]",
        "certificates: [{acme: pebble}, {cert: server.crt, key: server.key, names: [default.test]}], default: server.crt",
    );
    let files = shown.files().into_iter();
    let setup = files.fold(setup, |setup, (name, content)| setup.file(name, content));
    let gateway = setup.start().await;
    let address = here(pebble.tls_port);
    let mut endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
    for (name, outcome) in [(other, "refused"), (&*name, "obtained")] {
        let reach = Reach::named(name);
        endpoint.set_default_client_config(shown.quic(&reach));
        let connected = connect_to(address, &endpoint, &reach).await;
        assert!(connected.is_ok(), "{name} gets the default: {connected:?}");
        wait_for(outcome, SOON * 2, || async {
            (outcomes(&gateway, outcome).await == 1.0).then_some(())
        })
        .await;
    }
    let reach = Reach::named(&name);
    wait_for("its own one is shown", SOON, || async {
        let refused = connect_to(address, &endpoint, &reach).await.err()?;
        refused.to_string().contains("UnknownIssuer").then_some(())
    })
    .await;
    let reach = Reach::named(other);
    assert!(connect_to(address, &endpoint, &reach).await.is_ok());
}

/// The bounds are the same over QUIC, where nobody waits: neither questions nor tasks grow with
/// handshakes.
#[tokio::test]
async fn names_at_once_are_bounded_over_quic() {
    let (origin, pebble) = (page().await, Pebble::start().await);
    let gate = Gate::new();
    let open = gate.clone();
    let asked = Origin::start(move |_| {
        let open = open.clone();
        async move {
            open.pass().await;
            Reply::status_only(404)
        }
    })
    .await;
    let store = tempfile::tempdir().unwrap();
    let store = store.path().join("acme").display().to_string();
    let setup = over_quic(setup(&pebble, &origin, &asked, &store, ", max_pending: 2"));
    let gateway = setup.start().await;
    let refused = async |name: &str| {
        let reach = Reach::named(name);
        let mut endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
        endpoint.set_default_client_config(Certificates::new(&[name]).quic(&reach));
        connect_to(here(pebble.tls_port), &endpoint, &reach)
            .await
            .is_err()
    };
    for n in 0..10 {
        assert!(refused(&format!("n{n}.strangers.com")).await);
        assert!(
            refused("n0.strangers.com").await,
            "it is asked about already"
        );
    }
    gate.reached_by(2).await;
    assert_eq!(outcomes(&gateway, "crowded").await, 8.0);
    gate.open();
    wait_for("both are refused", SOON, || async {
        (outcomes(&gateway, "refused").await == 2.0).then_some(())
    })
    .await;
    assert_eq!((asked.count(), pebble.orders()), (2, 0));
    // There is room again.
    assert!(refused("other.strangers.com").await);
    wait_for("another one is refused", SOON, || async {
        (outcomes(&gateway, "refused").await == 3.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_flood_of_names_orders_nothing() {
    let (origin, pebble, asked) = (page().await, Pebble::start().await, application().await);
    let store = tempfile::tempdir().unwrap();
    let store = store.path().join("acme").display().to_string();
    let gateway = setup(&pebble, &origin, &asked, &store, "").start().await;
    let server = here(pebble.tls_port);
    let refused = async |client: TlsClient| {
        let told = client.connect().await.err();
        assert_eq!(told, Some(TlsFailure::Alert(alert::UNRECOGNIZED_NAME)));
    };
    for n in 0..100 {
        refused(TlsClient::new(server, &format!("n{n}.strangers.com"))).await;
    }
    assert_eq!(asked.count(), 100);
    // Refusals are remembered, whatever the spelling.
    for n in 0..100 {
        refused(TlsClient::new(server, &format!("N{n}.Strangers.com"))).await;
    }
    let none = [
        "localhost",
        "intranet",
        "db.internal",
        "shop.test",
        "a_b.strangers.com",
        "x.local",
    ];
    for name in none {
        refused(TlsClient::new(server, name)).await;
    }
    refused(TlsClient::new(server, "").nameless()).await;
    assert_eq!(asked.count(), 100);
    assert_eq!(outcomes(&gateway, "refused").await, 100.0);
    assert_eq!(outcomes(&gateway, "not_public").await, none.len() as f64);
    assert_eq!(pebble.orders(), 0);
}

#[tokio::test]
async fn names_at_once_and_orders_within_a_minute_are_bounded() {
    let (origin, pebble) = (page().await, Pebble::start().await);
    let (open, waiting) = (
        Arc::new(tokio::sync::Semaphore::new(0)),
        Arc::new(AtomicUsize::new(0)),
    );
    let (gate, count) = (Arc::clone(&open), Arc::clone(&waiting));
    // An application that takes its time.
    let asked = Origin::start(move |_| {
        let (gate, count) = (Arc::clone(&gate), Arc::clone(&count));
        async move {
            count.fetch_add(1, Ordering::SeqCst);
            let _open = gate.acquire().await;
            Reply::ok("yes")
        }
    })
    .await;
    let store = tempfile::tempdir().unwrap();
    let store = store.path().join("acme").display().to_string();
    let more = ", per_minute: 1, max_pending: 2, wait: 1s";
    let gateway = setup(&pebble, &origin, &asked, &store, more).start().await;
    let server = here(pebble.tls_port);
    let names = ["one", "two", "three"].map(|name| format!("{name}{OURS}"));
    let start = Instant::now();
    for name in &names {
        let told = TlsClient::new(server, name).connect().await.err();
        assert_eq!(
            told,
            Some(TlsFailure::Alert(alert::UNRECOGNIZED_NAME)),
            "{name}"
        );
    }
    assert!(start.elapsed() >= Duration::from_secs(2), "two have waited");
    assert_eq!(
        waiting.load(Ordering::SeqCst),
        2,
        "the third one was nobody's question"
    );
    assert_eq!(outcomes(&gateway, "crowded").await, 1.0);
    open.add_permits(2);
    // The handshakes are over, and the order goes on; a second one comes too soon.
    let obtained_at_last = async || outcomes(&gateway, "obtained").await == 1.0;
    wait_for("the order went on", SOON * 2, async || {
        obtained_at_last().await.then_some(())
    })
    .await;
    wait_for("the other one was put off", SOON, async || {
        (outcomes(&gateway, "limited").await == 1.0).then_some(())
    })
    .await;
    assert_eq!(pebble.orders(), 1);
    let mut served = 0;
    for name in &names[..2] {
        served += usize::from(pebble.shown_by(server, name).await.is_ok());
    }
    assert_eq!(served, 1);
}

#[tokio::test]
async fn an_application_that_does_not_answer_allows_nothing() {
    let (origin, pebble, mut asked) = (page().await, Pebble::start().await, application().await);
    let store = tempfile::tempdir().unwrap();
    let store = store.path().join("acme").display().to_string();
    let gateway = setup(&pebble, &origin, &asked, &store, "").start().await;
    asked.stop().await;
    let server = here(pebble.tls_port);
    let name = format!("shop{OURS}");
    for _ in 0..3 {
        let told = TlsClient::new(server, &name).connect().await.err();
        assert_eq!(told, Some(TlsFailure::Alert(alert::UNRECOGNIZED_NAME)));
    }
    assert_eq!(outcomes(&gateway, "no_answer").await, 1.0);
    assert_eq!(pebble.orders(), 0);
}

#[test]
fn validate_wants_a_question_and_a_wait_that_ends() {
    let validate = |listener: &str, acme: &str| {
        let dir = tempfile::tempdir().unwrap();
        let yaml = format!(
            "version: 1\nlisteners:\n  - address: \"127.0.0.1:0\"\n  - address: \"127.0.0.1:0\"\n    tls:\n      certificates: [{{acme: x}}]\n{listener}admin: {{address: \"127.0.0.1:0\"}}\nupstreams: {{o: \"http://127.0.0.1:9\"}}\nroutes: [{{name: r, upstream: o}}]\nacme:\n  storage: s\n  issuers: {{x: {{directory: \"https://127.0.0.1:9/\", agree_to_terms: true}}}}\n{acme}"
        );
        let config = write_config(dir.path(), &yaml);
        run(&["validate", "-c", config.to_str().unwrap()])
    };
    for (listener, acme, key, word) in [
        ("", "", "listeners[1].tls.certificates[0]", "acme.on_demand"),
        ("", "  on_demand: {}\n", "acme.on_demand", "`ask`"),
        (
            "",
            "  on_demand: {ask: \"ftp://a/\"}\n",
            "acme.on_demand.ask",
            "can't be asked",
        ),
        (
            "",
            "  on_demand: {ask: \"http://a/?x=1\"}\n",
            "acme.on_demand.ask",
            "without query",
        ),
        (
            "",
            "  on_demand: {ask: \"http://a/\", per_minute: 0}\n",
            "acme.on_demand.per_minute",
            "expected",
        ),
        (
            "",
            "  on_demand: {ask: \"http://a/\", max_pending: 0}\n",
            "acme.on_demand.max_pending",
            "expected",
        ),
        (
            "      handshake_timeout: 3s\n",
            "  on_demand: {ask: \"http://a/\", wait: 3s}\n",
            "acme.on_demand.wait",
            "handshake_timeout",
        ),
    ] {
        let ran = validate(listener, acme);
        assert_eq!(ran.code, Some(2), "{}", ran.output());
        let told = ran.output().contains(key) && ran.output().contains(word);
        assert!(
            told && ran.output().contains("lamina.yaml:"),
            "{key}: {}",
            ran.output()
        );
    }
    let ran = validate("", "  on_demand: {ask: \"http://a/ok\"}\n");
    assert_eq!(ran.code, Some(0), "{}", ran.output());
}
