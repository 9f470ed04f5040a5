//! A node that dies while it obtains a certificate, at whatever step: another one goes on (edge.md,
//! AC1 and AC4). That one dies while the names are validated is in `acme_nodes`.

use e2e::acme_responder::{AcmeResponder, Behaviour};
use e2e::free_port::free_port;
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::pebble::{connect, here};
use e2e::redis::Redis;
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_for, wait_until};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

use crate::acme::{SHOP, page};

/// A node of several that share a Redis.
struct SharingNode {
    gateway: Gateway,
    port: u16,
}

impl SharingNode {
    async fn start(origin: &Origin, responder: &AcmeResponder, redis: &Redis) -> Self {
        let port = free_port();
        let listeners = format!(
            "[{{address: \"127.0.0.1:0\"}}, {{address: \"127.0.0.1:{port}\", tls: {{certificates: [{{acme: responder, names: [{SHOP}]}}]}}}}]"
        );
        let acme = format!(
            "{{storage: redis, seal_key: 0123456789abcdef0123456789abcdef, lease: 2s, poll_interval: 200ms, retry: {{min: 1s, max: 2s}}, issuers: {{responder: {}}}}}",
            responder.issuer()
        );
        let cache = format!("{{l2: {{redis: {{url: \"{}\"}}}}}}", redis.url());
        let setup = Setup::new(origin).top("listeners", &listeners);
        let setup = setup.top("acme", &acme).top("cache", &cache);
        Self {
            gateway: setup.start().await,
            port,
        }
    }

    async fn obtained(&self, responder: &AcmeResponder) -> CertificateDer<'static> {
        wait_for("a certificate is there", SOON * 2, || async {
            let mut roots = RootCertStore::empty();
            roots.add(responder.root()).unwrap();
            let stream = connect(here(self.port), SHOP, roots, &[]).await.ok()?;
            let shown = stream.get_ref().1.peer_certificates()?;
            Some(shown.first()?.clone().into_owned())
        })
        .await
    }
}

/// The first of five nodes is killed when the authority has done what was asked at this step and
/// not told it. The orders that there are in the end.
async fn orders_if_the_first_dies_at(step: &'static str) -> usize {
    let (origin, redis) = (page().await, Redis::start().await);
    let responder = AcmeResponder::start(Behaviour {
        hangs_at: Some(step),
        ..Behaviour::default()
    })
    .await;
    let first = SharingNode::start(&origin, &responder, &redis).await;
    wait_until("the first node is at this step", SOON, || {
        responder.hung() > 0
    })
    .await;
    let mut others = Vec::new();
    for _ in 0..4 {
        others.push(SharingNode::start(&origin, &responder, &redis).await);
    }
    first.gateway.kill();
    responder.behave(Behaviour::default());
    let mut shown = Vec::new();
    for node in &others {
        shown.push(node.obtained(&responder).await);
    }
    assert!(shown.iter().all(|one| *one == shown[0]), "{step}");
    responder.orders().len()
}

#[tokio::test]
async fn a_node_that_dies_with_a_new_account_leaves_one_order() {
    assert_eq!(orders_if_the_first_dies_at("account").await, 1);
}

/// The order that nobody was told of is left to the authority: no request of ACME finds it again.
#[tokio::test]
async fn a_node_that_dies_before_it_knows_its_order_leaves_one_more() {
    assert_eq!(orders_if_the_first_dies_at("new-order").await, 2);
}

#[tokio::test]
async fn a_node_that_dies_while_it_finalizes_leaves_its_order_to_others() {
    assert_eq!(orders_if_the_first_dies_at("finalize").await, 1);
}

#[tokio::test]
async fn a_node_that_dies_before_it_has_the_certificate_leaves_its_order_to_others() {
    assert_eq!(orders_if_the_first_dies_at("cert").await, 1);
}
