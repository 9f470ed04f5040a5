//! What operators ask of automatic certificates: `lamina acme`.

use e2e::cli;
use e2e::pebble::Pebble;
use e2e::wait::{SOON, wait_for};

use crate::acme::{SHOP, Wanted, obtained, page};

#[tokio::test]
async fn certificates_are_listed_renewed_and_revoked() {
    let (origin, pebble) = (page().await, Pebble::start().await);
    let site = Wanted::default().from(&pebble, &origin);
    let gateway = site.setup.start().await;
    let first = obtained(&pebble, site.secured, SHOP).await;
    let admin = gateway.admin.to_string();
    let acme = |words: &[&str]| {
        let words = [&["acme"], words, &["--admin", &admin]].concat();
        cli::run(&words)
    };
    let another = async |than: &rustls::pki_types::CertificateDer<'static>| {
        wait_for("another certificate is there", SOON, || async {
            let shown = pebble.shown_by(site.secured, SHOP).await.ok();
            shown.filter(|shown| shown != than)
        })
        .await
    };
    let listed = acme(&["status"]);
    assert_eq!(listed.code, Some(0), "{listed:?}");
    let start = format!("{SHOP}: from pebble, ends in ");
    assert!(listed.stdout.starts_with(&start), "{listed:?}");

    let spelled = format!("{}.", SHOP.to_uppercase());
    let renewed = acme(&["renew", &spelled]);
    assert_eq!(renewed.code, Some(0), "{renewed:?}");
    let second = another(&first).await;

    let revoked = acme(&["revoke", SHOP]);
    assert_eq!(revoked.code, Some(0), "{revoked:?}");
    another(&second).await;
    assert!(pebble.log().contains("POST /revoke-cert"), "it was told");

    let unknown = acme(&["renew", "other.acme.test"]);
    assert_eq!(unknown.code, Some(1), "{unknown:?}");
    assert!(
        unknown.stderr.contains("no automatic certificate"),
        "{unknown:?}"
    );
}

/// Who has the key of a certificate may have it revoked (RFC 8555 §7.6), whatever became of the account.
#[tokio::test]
async fn a_certificate_of_a_lost_account_is_revoked_by_its_key() {
    let (origin, pebble) = (page().await, Pebble::start().await);
    let site = Wanted {
        issuer: ", key: both",
        ..Wanted::default()
    }
    .from(&pebble, &origin);
    let gateway = site.setup.start().await;
    let first = obtained(&pebble, site.secured, SHOP).await;
    wait_for("both are there", SOON, || async {
        (pebble.orders() == 2).then_some(())
    })
    .await;
    drop(gateway);
    let accounts = site.store.path().join("acme/accounts");
    std::fs::remove_dir_all(accounts).unwrap();
    let gateway = site.setup.start().await;
    let admin = gateway.admin.to_string();
    let revoked = cli::run(&["acme", "revoke", SHOP, "--admin", &admin]);
    assert_eq!(revoked.code, Some(0), "{revoked:?}");
    wait_for("another certificate is there", SOON, || async {
        let shown = pebble.shown_by(site.secured, SHOP).await.ok();
        shown.filter(|shown| *shown != first)
    })
    .await;
    // One by its account, the other one, or both, by their keys: an account is for all of them.
    let log = pebble.log();
    assert!(log.contains("POST /revoke-cert"), "{log}");
}
