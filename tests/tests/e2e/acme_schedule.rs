//! When certificates are obtained and renewed: as the issuer says.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use e2e::acme_responder::{AcmeResponder, Behaviour, OrderRefusal};
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::pebble::{connect, here};
use e2e::redis::free_port;
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_for};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use tempfile::TempDir;

use crate::acme::{SHOP, orders, page, readiness};

/// A gateway that obtains a certificate from a responder.
struct Scheduled {
    setup: Setup,
    port: u16,
    store: TempDir,
}

impl Scheduled {
    fn new(origin: &Origin, responder: &AcmeResponder, acme: &str) -> Self {
        Self::of_issuer(origin, &responder.issuer(), acme)
    }

    fn of_issuer(origin: &Origin, issuer: &str, acme: &str) -> Self {
        let (store, port) = (tempfile::tempdir().unwrap(), free_port());
        let listeners = format!(
            "[{{address: \"127.0.0.1:0\"}}, {{address: \"127.0.0.1:{port}\", tls: {{certificates: [{{acme: responder, names: [{SHOP}]}}]}}}}]"
        );
        let acme = format!(
            "{{storage: \"{}\"{acme}, issuers: {{responder: {issuer}}}}}",
            store.path().join("acme").display(),
        );
        let setup = Setup::new(origin).top("listeners", &listeners);
        Self {
            setup: setup.top("acme", &acme),
            port,
            store,
        }
    }

    async fn obtained(&self, responder: &AcmeResponder) -> CertificateDer<'static> {
        wait_for("a certificate is there", SOON, || async {
            let mut roots = RootCertStore::empty();
            roots.add(responder.root()).unwrap();
            let stream = connect(here(self.port), SHOP, roots, &[]).await.ok()?;
            let shown = stream.get_ref().1.peer_certificates()?;
            Some(shown.first()?.clone().into_owned())
        })
        .await
    }
}

/// When something is done next, in seconds from now.
async fn next(gateway: &Gateway) -> f64 {
    let next = gateway
        .metric("lamina_acme_next_renewal_seconds", &[])
        .await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    next - now.unwrap().as_secs_f64()
}

#[tokio::test]
async fn a_certificate_is_renewed_in_the_window_that_the_issuer_suggests() {
    let origin = page().await;
    let day = 24 * 3_600;
    let responder = AcmeResponder::start(Behaviour {
        window: Some((10 * day, 12 * day)),
        ..Behaviour::default()
    })
    .await;
    let site = Scheduled::new(&origin, &responder, "");
    let gateway = site.setup.start().await;
    let first = site.obtained(&responder).await;
    wait_for("the renewal is in the window", SOON, || async {
        let days = next(&gateway).await / f64::from(u32::try_from(day).unwrap());
        (9.9..12.1).contains(&days).then_some(())
    })
    .await;
    assert_eq!(responder.orders().len(), 1);
    // Where the window is over already, now is the time. A restart asks the issuer again.
    responder.behave(Behaviour {
        window: Some((-2 * day, -day)),
        ..Behaviour::default()
    });
    drop(gateway);
    std::fs::remove_dir_all(site.store.path().join("acme/renewals")).unwrap();
    let gateway = site.setup.start().await;
    wait_for("it is renewed", SOON, || async {
        (orders(&gateway, "responder", "issued").await >= 1.0).then_some(())
    })
    .await;
    let taken = responder.orders();
    let replaces = taken[1]
        .replaces
        .as_ref()
        .expect("it says what it replaces");
    assert!(replaces.contains('.'), "{replaces}");
    assert!(taken[0].replaces.is_none());
    wait_for("the new one is shown", SOON, || async {
        (site.obtained(&responder).await != first).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_issuer_that_refuses_for_a_while_is_left_alone_for_that_long() {
    let origin = page().await;
    let responder = AcmeResponder::start(Behaviour {
        refuses: Some(OrderRefusal::RateLimited(7_200)),
        ..Behaviour::default()
    })
    .await;
    let site = Scheduled::new(&origin, &responder, ", retry: {min: 1s, max: 1s}");
    let gateway = site.setup.start().await;
    wait_for("it is refused", SOON, || async {
        (orders(&gateway, "responder", "rate_limited").await >= 1.0).then_some(())
    })
    .await;
    wait_for("the pause is the issuer's", SOON, || async {
        let seconds = next(&gateway).await;
        (6_000.0..7_300.0).contains(&seconds).then_some(())
    })
    .await;
    drop(gateway);
    // A restart remembers it.
    responder.behave(Behaviour::default());
    let gateway = site.setup.start().await;
    assert!(next(&gateway).await > 6_000.0);
    assert_eq!((responder.refusals(), responder.orders().len()), (1, 0));
    // Who asks for it by hand has waited.
    let ran = e2e::cli::run(&["acme", "status", "--admin", &gateway.admin.to_string()]);
    assert!(
        ran.stdout.contains(&format!("{SHOP}: there is none yet")),
        "{ran:?}"
    );
    assert!(ran.stdout.contains("too many orders"), "{ran:?}");
}

/// An issuer whose orders are refused by 503.
async fn down(retry_after: Option<u64>) -> AcmeResponder {
    AcmeResponder::start(Behaviour {
        refuses: Some(OrderRefusal::Unavailable(retry_after)),
        ..Behaviour::default()
    })
    .await
}

#[tokio::test]
async fn any_refusal_that_says_for_how_long_is_obeyed_and_not_for_ever() {
    let origin = page().await;
    let (hours, week) = (2 * 3_600, 7 * 24 * 3_600);
    for (said, obeyed) in [(hours, hours), (u64::from(u32::MAX), week)] {
        let responder = down(Some(said)).await;
        let site = Scheduled::new(&origin, &responder, ", retry: {min: 1s, max: 1s}");
        let gateway = site.setup.start().await;
        wait_for("the pause is the issuer's", SOON, || async {
            let seconds = next(&gateway).await;
            let obeyed = obeyed as f64;
            (obeyed - 600.0..obeyed + 60.0)
                .contains(&seconds)
                .then_some(())
        })
        .await;
        // It is a failure as any other, and not a limit of the account.
        assert_eq!(orders(&gateway, "responder", "failed").await, 1.0);
        assert_eq!(gateway.metric("lamina_acme_failures", &[]).await, 1.0);
        assert_eq!(responder.refusals(), 1);
    }
}

#[tokio::test]
async fn after_two_failures_the_staging_environment_is_tried_first() {
    let origin = page().await;
    let (real, staging) = (down(None).await, down(None).await);
    let issuer = real.issuer_with_staging(&staging);
    let site = Scheduled::of_issuer(&origin, &issuer, ", retry: {min: 1s, max: 1s}");
    let gateway = site.setup.start().await;
    wait_for("staging is asked", SOON, || async {
        (staging.refusals() >= 2).then_some(())
    })
    .await;
    // The real one is spared for as long as staging refuses.
    assert_eq!((real.refusals(), real.orders().len()), (2, 0));
    assert!(orders(&gateway, "responder-staging", "failed").await >= 2.0);
    real.behave(Behaviour::default());
    staging.behave(Behaviour::default());
    site.obtained(&real).await;
    // What staging has given out is shown to nobody.
    assert_eq!((staging.orders().len(), real.orders().len()), (1, 1));
    assert_eq!(real.refusals(), 2);
}

/// Does handshakes, one after the other, until it is told to end. Returns how many there were.
async fn handshakes_until(ends: Arc<AtomicBool>, port: u16, root: CertificateDer<'static>) -> u32 {
    let mut done = 0;
    while !ends.load(SeqCst) {
        let mut roots = RootCertStore::empty();
        roots.add(root.clone()).unwrap();
        let made = connect(here(port), SHOP, roots, &[]).await;
        assert!(made.is_ok(), "handshake {done}: {:?}", made.err());
        done += 1;
    }
    done
}

#[tokio::test]
async fn a_reload_drops_no_certificate_and_orders_none() {
    let origin = page().await;
    let responder = AcmeResponder::start(Behaviour {
        window: Some((864_000, 1_036_800)),
        ..Behaviour::default()
    })
    .await;
    let site = Scheduled::new(&origin, &responder, "");
    let gateway = site.setup.start().await;
    let first = site.obtained(&responder).await;
    let is_in_the_window = async || (9.9..12.1).contains(&(next(&gateway).await / 86_400.0));
    wait_for("the issuer is asked for its window", SOON, || async {
        is_in_the_window().await.then_some(())
    })
    .await;
    // It would say nothing of it again.
    responder.behave(Behaviour::default());
    let ends = Arc::new(AtomicBool::new(false));
    let handshakes = handshakes_until(Arc::clone(&ends), site.port, responder.root());
    let handshakes = tokio::spawn(handshakes);
    for turn in 0..6 {
        // The settings of the listener are others each time.
        let tls = format!("tls: {{handshake_timeout: {}s, ", 20 + turn);
        let changed = site.setup.clone().replaced("listeners", "tls: {", &tls);
        gateway.take_up(&changed).await;
        assert_eq!(readiness(&gateway).await["state"], "serving");
        assert_eq!(site.obtained(&responder).await, first);
    }
    ends.store(true, SeqCst);
    assert!(handshakes.await.unwrap() > 6);
    assert_eq!(responder.orders().len(), 1);
    // And what the issuer said of the renewal is known still.
    assert!(is_in_the_window().await);
}

#[tokio::test]
async fn an_order_whose_last_answer_never_comes_goes_on() {
    let origin = page().await;
    let responder = AcmeResponder::start(Behaviour {
        hangs_at: Some("finalize"),
        ..Behaviour::default()
    })
    .await;
    let quick = ", request_timeout: 1s, retry: {min: 1s, max: 1s}";
    let site = Scheduled::new(&origin, &responder, quick);
    let gateway = site.setup.start().await;
    wait_for("it fails", SOON, || async {
        (orders(&gateway, "responder", "failed").await >= 1.0).then_some(())
    })
    .await;
    site.obtained(&responder).await;
    assert_eq!(responder.orders().len(), 1);
}
