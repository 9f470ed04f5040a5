//! Reloads of all that may change, beside clients of every kind (RL7): nothing fails, what is stored
//! stays, and nothing of the replaced configurations is left. `make soak-reload` is the long run.

use std::sync::Arc;

use e2e::h3::SecuredGateway;
use e2e::h3::certificates::Certificates;
use e2e::h3::{NAME, OTHER_NAME};
use e2e::load::{self, ConfigVariant, LoadReport, PageCount};
use e2e::origin::Origin;
use e2e::tls::TlsClient;
use e2e::wait::{SOON, wait_for, wait_until};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// Reloads of the short run.
const ROUNDS: u64 = 12;
/// There is another certificate with each so manieth reload.
const RENEWAL: u64 = 3;
/// Pages that clients get between two reloads, at least.
const BETWEEN: u64 = 150;
/// Pages by which a share of hits is known.
const SAMPLE: u64 = 600;
/// Clients of the load.
const KINDS: [&str; 8] = [
    "http1", "https", "http2", "http3", "anew", "upload", "tunnel", "events",
];
/// How long pages live, in seconds: longer than the test takes.
const LIFETIME: u64 = 3_600;

/// Waits until so many more pages have come.
async fn pages_since(report: &LoadReport, earlier: PageCount, more: u64) {
    wait_until("the load goes on", SOON * 2, || {
        report.pages().all >= earlier.all + more
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_fails_nothing() {
    let origin = Origin::start(load::answer).await;
    let certificates = Certificates::new(&[NAME, OTHER_NAME]);
    let variant = ConfigVariant::new(&origin, &certificates, LIFETIME);
    let secured = Arc::new(SecuredGateway {
        gateway: variant.setup(0).start().await,
        certificates,
    });
    let gateway = &secured.gateway;
    let report = Arc::new(LoadReport::default());
    let clients = load::start(&secured, &report);
    // Every page is stored once the clients have asked for a while for what they ask for again.
    let (mut earlier, mut before) = (report.pages(), 0.0);
    while before < 0.999 {
        pages_since(&report, earlier, SAMPLE).await;
        before = report.pages().hit_ratio_since(earlier);
        earlier = report.pages();
    }
    report.begin();
    let began = report.pages();
    let mut shown = String::new();
    for round in 1..=ROUNDS {
        pages_since(&report, earlier, BETWEEN).await;
        earlier = report.pages();
        if round % RENEWAL == 0 {
            let renewed = secured.certificates.renewed();
            for (name, content) in &renewed {
                std::fs::write(gateway.dir().join(name), content).unwrap();
            }
            shown = renewed[0].1.clone();
        }
        e2e::setup::write_config(gateway.dir(), &variant.setup(round).yaml());
        let answer = gateway.reload().await;
        assert_eq!(answer.status, 200, "round {round}: {}", answer.said);
    }
    pages_since(&report, earlier, BETWEEN).await;
    wait_until("every kind of client has got something", SOON * 2, || {
        let good = report.good_by_kind();
        KINDS.iter().all(|kind| good.contains_key(*kind))
    })
    .await;
    report.end();
    let during = report.pages().hit_ratio_since(began);
    clients.stop().await;
    assert_eq!(report.all_failed(), 0, "{}", report.text());
    assert!(
        during >= 0.99 * before,
        "{during} of the pages were hits beside reloads, {before} before"
    );
    let shown = CertificateDer::from_pem_slice(shown.as_bytes()).unwrap();
    let client = TlsClient::new(gateway.addresses()[0], NAME).anew();
    // Files are taken up when they are the same at two looks.
    wait_for("the last certificate is shown", SOON, || async {
        let connection = client.connect().await.unwrap();
        (connection.certificate() == shown.to_vec()).then_some(())
    })
    .await;
    gateway.only_one_engine().await;
}
