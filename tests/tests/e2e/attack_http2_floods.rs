//! HTTP/2 floods and stalls: stopped or borne, and afterwards nothing is left of them
//! (http.md, Bad input), in clear text and over TLS. The attacks are in `e2e::attack::http2_floods`.

use e2e::attack::http2_floods::{BORNE, STOPPED};
use e2e::attack::{Attack, Before, HOSTS};
use e2e::client::Client;
use e2e::front::{Front, Fronted};
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;

async fn target(front: Front) -> (Origin, Fronted) {
    let origin = Origin::pages(|seen| match seen.path.as_str() {
        "/large" => Reply::fresh(vec![b'l'; 1 << 20]),
        _ => Reply::ok("page"),
    })
    .await;
    // Idle connections end soon, so that those that are left over show.
    let upstream = format!(
        "{{targets: [\"{}\"], pool: {{max_idle: 4, idle_timeout: 300ms}}}}",
        origin.url()
    );
    let setup = Setup::new(&origin).upstream("origin", &upstream);
    let fronted = front.start(setup, &HOSTS).await;
    (origin, fronted)
}

/// Runs them one after the other; after each the gateway has to be what it was.
async fn each(front: Front, attacks: &[Attack]) {
    let (_origin, fronted) = target(front).await;
    let (door, messages) = (fronted.bytes().await, fronted.messages().await);
    let clients = || [Client::http1(messages.address), Client::http2(door.address)];
    for client in clients() {
        client.get("/large").await;
    }
    let before = Before::of(&fronted.gateway);
    for attack in attacks {
        eprintln!("{}", attack.name);
        (attack.run)(door.address).await;
        for client in clients() {
            assert_eq!(client.get("/").await.text(), "page");
        }
        before.is_back(&fronted.gateway, attack.name).await;
    }
}

#[tokio::test]
async fn floods_are_stopped() {
    each(Front::Clear, STOPPED).await;
}

#[tokio::test]
async fn floods_are_stopped_over_tls() {
    each(Front::TlsHttp2, STOPPED).await;
}

#[tokio::test]
async fn stalls_are_borne_and_leave_nothing_behind() {
    each(Front::Clear, BORNE).await;
}

#[tokio::test]
async fn stalls_are_borne_over_tls_and_leave_nothing_behind() {
    each(Front::TlsHttp2, BORNE).await;
}
