//! When certificates are obtained and renewed: as the issuer says.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use e2e::acme_responder::{AcmeResponder, Behaviour, NameProof, OrderRefusal};
use e2e::free_port::free_port;
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::pebble::{Pebble, PebbleOptions, connect, here, with_renewal_information};
use e2e::setup::Setup;
use e2e::tools::is_missing;
use e2e::wait::{SOON, wait_for, within};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use tempfile::TempDir;

use crate::acme::{SHOP, Wanted, obtained, orders, page, readiness};

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

/// Who has lost the account still has the certificate, which the new account must not replace.
#[tokio::test]
async fn a_certificate_of_another_account_is_renewed_as_a_new_one() {
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
    responder.behave(Behaviour {
        window: Some((-2 * day, -day)),
        refuses: Some(OrderRefusal::OtherAccount),
        ..Behaviour::default()
    });
    drop(gateway);
    for lost in ["accounts", "renewals"] {
        std::fs::remove_dir_all(site.store.path().join("acme").join(lost)).unwrap();
    }
    let gateway = site.setup.start().await;
    wait_for("the new one is shown", SOON, || async {
        (site.obtained(&responder).await != first).then_some(())
    })
    .await;
    assert!(responder.refusals() >= 1);
    assert!(responder.orders()[1].replaces.is_none());
    assert_eq!(gateway.metric("lamina_acme_failures", &[]).await, 0.0);
}

/// What a real authority suggests: a window of two days around two thirds of the life.
#[tokio::test]
async fn a_real_issuer_is_asked_for_its_window() {
    let Some(program) = with_renewal_information() else {
        return is_missing("pebble of Debian 13", "asking a real issuer for its window");
    };
    let origin = page().await;
    let days = 365;
    let pebble = Pebble::start_with(PebbleOptions {
        validity: days * 24 * 3_600,
        program: Some(program),
        ..PebbleOptions::default()
    })
    .await;
    let site = Wanted::default().from(&pebble, &origin);
    let gateway = site.setup.start().await;
    obtained(&pebble, site.secured, SHOP).await;
    // Without the window it would be any day between the 219th and the 268th.
    wait_for("the renewal is in the window", SOON, || async {
        let day = next(&gateway).await / 86_400.0;
        (242.2..244.5).contains(&day).then_some(())
    })
    .await;
    assert_eq!(pebble.orders(), 1);
}

/// The window of a certificate that lives for a minute begins before it and ends a day after it: it is
/// renewed before its end, and one that is valid is shown all the time.
#[tokio::test]
async fn a_window_that_is_longer_than_the_life_lets_no_certificate_end() {
    let Some(program) = with_renewal_information() else {
        return is_missing(
            "pebble of Debian 13",
            "renewing what a real issuer gives a minute",
        );
    };
    let origin = page().await;
    let pebble = Pebble::start_with(PebbleOptions {
        validity: 60,
        program: Some(program),
        ..PebbleOptions::default()
    })
    .await;
    let site = Wanted::default().from(&pebble, &origin);
    let gateway = site.setup.start().await;
    let mut shown = obtained(&pebble, site.secured, SHOP).await;
    // Half of the instants are in the past, where a certificate is renewed at once.
    let last_of_its_life = async {
        let mut since = Instant::now();
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            // The client verifies: a certificate that is over is an error.
            let now = pebble.shown_by(site.secured, SHOP).await;
            let now = now.expect("a valid certificate is shown");
            if now != shown {
                if since.elapsed() > Duration::from_secs(40) {
                    break;
                }
                (shown, since) = (now, Instant::now());
            }
        }
    };
    within(
        "one lives to its last part and is renewed",
        SOON * 6,
        last_of_its_life,
    )
    .await;
    assert!(orders(&gateway, "pebble", "issued").await >= 2.0);
    assert!(pebble.orders() >= 2);
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

/// However many nodes there are, one of them orders once for each pause, and pauses grow.
#[tokio::test]
async fn there_is_one_order_for_each_pause_of_all_nodes() {
    let origin = page().await;
    let responder = down(None).await;
    let retry = ", poll_interval: 200ms, retry: {min: 4s, max: 16s}";
    let site = Scheduled::new(&origin, &responder, retry);
    let (port, other) = (site.port.to_string(), free_port().to_string());
    let beside = site.setup.clone().replaced("listeners", &port, &other);
    let _nodes = (site.setup.start().await, beside.start().await);
    wait_for("it is refused four times", SOON * 3, || async {
        (responder.refusals() >= 4).then_some(())
    })
    .await;
    let refused = responder.refused_at();
    // Half of a pause is the least, and times are whole seconds.
    for (nth, least) in [1, 3, 7].into_iter().enumerate() {
        let pause = refused[nth + 1] - refused[nth];
        assert!(pause > Duration::from_secs(least), "pause {nth}: {pause:?}");
    }
    assert_eq!(responder.orders().len(), 0);
}

/// What an authority offers that nobody knows is passed over, and one of its profiles is ordered.
#[tokio::test]
async fn unknown_challenges_are_passed_over_and_a_profile_is_ordered() {
    let origin = page().await;
    let responder = AcmeResponder::start(Behaviour {
        proof: NameProof::Needed,
        ..Behaviour::default()
    })
    .await;
    for (profile, expected) in [("", None), (", profile: shortlived", Some("shortlived"))] {
        let issuer = responder.issuer_with(profile);
        let before = responder.orders().len();
        let site = Scheduled::of_issuer(&origin, &issuer, "");
        let _gateway = site.setup.start().await;
        site.obtained(&responder).await;
        let orders = responder.orders();
        assert_eq!(orders.len(), before + 1, "{profile}");
        assert_eq!(orders[before].profile.as_deref(), expected);
        assert_eq!(orders[before].answered, ["http-01"]);
    }
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
