//! Automatic certificates where something is wrong: the issuer, the network, a name.

use e2e::free_port::free_port;
use e2e::pebble::{Pebble, PebbleOptions, here};
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_for};
use e2e::wall_clock::{self, WallClock};

use crate::acme::{SHOP, Wanted, obtained, orders, page, readiness};

const QUICK: &str = ", retry: {min: 1s, max: 2s}";

#[tokio::test]
async fn a_start_never_waits_for_the_issuer_and_tells_which_name_is_missing() {
    let (origin, mut pebble) = (page().await, Pebble::start().await);
    let wanted = Wanted {
        acme: QUICK,
        ..Wanted::default()
    };
    let site = wanted.from(&pebble, &origin);
    pebble.kill();
    let gateway = site.setup.start().await;
    let ready = readiness(&gateway).await;
    assert_eq!(ready["state"], "degraded", "{ready}");
    assert_eq!(ready["certificates"]["missing"], serde_json::json!([SHOP]));
    assert_eq!(gateway.client().get("/").await.text(), "page");
    gateway
        .metric_until("lamina_acme_failures", &[], |failures| failures >= 1.0)
        .await;
    let unknown = rustls::RootCertStore::empty();
    let refused = e2e::pebble::connect(site.secured, SHOP, unknown, &[]).await;
    let Err(error) = refused else {
        panic!("there is no certificate");
    };
    assert!(
        error.contains("UnrecognizedName") || error.contains("UnrecognisedName"),
        "{error}"
    );
    pebble.restart().await;
    obtained(&pebble, site.secured, SHOP).await;
    wait_for("nothing is missing", SOON, || async {
        (readiness(&gateway).await["state"] == "serving").then_some(())
    })
    .await;
    assert_eq!(gateway.metric("lamina_acme_failures", &[]).await, 0.0);
}

#[tokio::test]
async fn a_pause_after_a_failure_survives_a_restart() {
    let (origin, mut pebble) = (page().await, Pebble::start().await);
    let wanted = Wanted {
        acme: ", retry: {min: 1h, max: 2h}",
        ..Wanted::default()
    };
    let site = wanted.from(&pebble, &origin);
    pebble.kill();
    let gateway = site.setup.start().await;
    gateway
        .metric_until("lamina_acme_failures", &[], |failures| failures == 1.0)
        .await;
    drop(gateway);
    pebble.restart().await;
    let gateway = site.setup.start().await;
    assert_eq!(gateway.metric("lamina_acme_failures", &[]).await, 1.0);
    let next = gateway
        .metric("lamina_acme_next_renewal_seconds", &[])
        .await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    assert!(next > now.unwrap().as_secs_f64() + 1_000.0, "{next}");
    assert_eq!(pebble.orders(), 0);
}

/// A node without a clock of its own begins anywhere, and is told the time later. What it has noted
/// must not hold anybody up, this process as little as others that share the storage.
#[tokio::test]
async fn a_pause_that_a_clock_in_the_future_has_noted_is_none() {
    let Some(library) = wall_clock::library() else {
        return;
    };
    let (origin, pebble) = (page().await, Pebble::start().await);
    let wanted = Wanted {
        acme: QUICK,
        ..Wanted::default()
    };
    let site = wanted.from(&pebble, &origin);
    let ten_years = 10 * 365 * 24 * 3_600;
    let clock = WallClock::new(ten_years);
    let gateway = clock.of(&site.setup, &library).start().await;
    gateway
        .metric_until("lamina_acme_failures", &[], |failures| failures >= 1.0)
        .await;
    clock.set(0);
    obtained(&pebble, site.secured, SHOP).await;
    // What is stored may be of such a clock, too.
    let store = site.store.path().join("acme");
    drop(gateway);
    std::fs::remove_dir_all(store.join("certificates")).unwrap();
    clock.set(ten_years);
    let gateway = clock.of(&site.setup, &library).start().await;
    gateway
        .metric_until("lamina_acme_failures", &[], |failures| failures >= 1.0)
        .await;
    drop(gateway);
    let _gateway = site.setup.start().await;
    obtained(&pebble, site.secured, SHOP).await;
}

/// Clocks of nodes are never quite the same: what one notes whose clock is a little ahead still counts.
#[tokio::test]
async fn a_pause_that_a_clock_a_little_ahead_has_noted_is_kept() {
    let Some(library) = wall_clock::library() else {
        return;
    };
    let (origin, pebble) = (page().await, Pebble::start().await);
    let wanted = Wanted {
        acme: QUICK,
        ..Wanted::default()
    };
    let site = wanted.from(&pebble, &origin);
    // Nobody listens there.
    pebble.name_is_at(SHOP, "127.0.0.77").await;
    let half_an_hour = 30 * 60;
    let clock = WallClock::new(half_an_hour);
    let ahead = clock.of(&site.setup, &library).start().await;
    ahead
        .metric_until("lamina_acme_failures", &[], |failures| failures >= 1.0)
        .await;
    drop(ahead);
    let gateway = site.setup.start().await;
    let next = gateway
        .metric("lamina_acme_next_renewal_seconds", &[])
        .await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let pause = next - now.unwrap().as_secs_f64();
    assert!((1_500.0..3_600.0).contains(&pause), "{pause}");
    assert_eq!(orders(&gateway, "pebble", "refused").await, 0.0);
}

#[tokio::test]
async fn a_name_that_is_not_ours_is_tried_again_until_it_is() {
    let (origin, pebble) = (page().await, Pebble::start().await);
    let wanted = Wanted {
        acme: QUICK,
        ..Wanted::default()
    };
    let site = wanted.from(&pebble, &origin);
    // Nobody listens there.
    pebble.name_is_at(SHOP, "127.0.0.77").await;
    let gateway = site.setup.start().await;
    wait_for("it is refused", SOON, || async {
        (orders(&gateway, "pebble", "refused").await >= 1.0).then_some(())
    })
    .await;
    let line = gateway
        .logged("the reason", |line| {
            line.contains("a certificate was not obtained")
        })
        .await;
    assert!(line.contains(SHOP) && line.contains("127.0.0.77"), "{line}");
    pebble.name_is_at(SHOP, "127.0.0.1").await;
    obtained(&pebble, site.secured, SHOP).await;
}

#[tokio::test]
async fn the_next_issuer_is_asked_when_one_fails() {
    let (origin, pebble) = (page().await, Pebble::start().await);
    let store = tempfile::tempdir().unwrap();
    let wanted = Wanted::default();
    let issuers = format!(
        "gone: {{directory: \"https://127.0.0.1:{}/dir\", ca_file: \"{}\", agree_to_terms: true}}, pebble: {}",
        free_port(),
        pebble.dir().join("ca.pem").display(),
        pebble.issuer("")
    );
    let setup = Setup::new(&origin)
        .top(
            "listeners",
            &wanted.listeners("127.0.0.1", &pebble, "[gone, pebble]"),
        )
        .top("acme", &wanted.acme(store.path(), &issuers));
    let gateway = setup.start().await;
    obtained(&pebble, here(pebble.tls_port), SHOP).await;
    assert_eq!(orders(&gateway, "gone", "failed").await, 1.0);
    assert_eq!(orders(&gateway, "pebble", "issued").await, 1.0);
}

#[tokio::test]
async fn an_order_goes_on_after_its_node_was_killed() {
    let origin = page().await;
    let pebble = Pebble::start_with(PebbleOptions {
        environment: slow_validation(),
        ..PebbleOptions::default()
    })
    .await;
    let wanted = Wanted {
        acme: QUICK,
        ..Wanted::default()
    };
    let site = wanted.from(&pebble, &origin);
    let gateway = site.setup.start().await;
    gateway
        .logged("it is ordered", |line| {
            line.contains("a certificate is ordered")
        })
        .await;
    // Nobody looks for the answer while there is no node.
    pebble.freeze();
    gateway.kill();
    drop(gateway);
    let gateway = site.setup.start().await;
    pebble.thaw();
    gateway
        .logged("the order goes on", |line| {
            line.contains("an order goes on")
        })
        .await;
    obtained(&pebble, site.secured, SHOP).await;
    assert_eq!((pebble.orders(), pebble.accounts()), (1, 1));
}

/// The authority waits some seconds before it looks whether names are ours.
pub fn slow_validation() -> Vec<(&'static str, String)> {
    vec![
        ("PEBBLE_VA_NOSLEEP", "0".to_owned()),
        ("PEBBLE_VA_SLEEPTIME", "8".to_owned()),
    ]
}

#[tokio::test]
async fn an_issuer_that_has_forgotten_the_account_gets_another_one() {
    let origin = page().await;
    let mut pebble = Pebble::start_with(PebbleOptions {
        validity: 20,
        ..PebbleOptions::default()
    })
    .await;
    let wanted = Wanted {
        acme: QUICK,
        ..Wanted::default()
    };
    let site = wanted.from(&pebble, &origin);
    let _gateway = site.setup.start().await;
    obtained(&pebble, site.secured, SHOP).await;
    pebble.restart().await;
    obtained(&pebble, site.secured, SHOP).await;
}
