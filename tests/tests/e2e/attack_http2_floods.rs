//! HTTP/2 floods and stalls: stopped or borne, and afterwards nothing is left of them
//! (http.md, Bad input). The attacks are in `e2e::attack::http2_floods`.

use e2e::attack::http2_floods::{BORNE, STOPPED};
use e2e::attack::{Attack, Before};
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;

async fn target() -> (Origin, Gateway) {
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
    let gateway = Setup::new(&origin)
        .upstream("origin", &upstream)
        .start()
        .await;
    (origin, gateway)
}

/// Runs them one after the other; after each the gateway has to be what it was.
async fn each(attacks: &[Attack]) {
    let (_origin, gateway) = target().await;
    gateway.client().get("/large").await;
    gateway.client_http2().get("/").await;
    let before = Before::of(&gateway);
    for attack in attacks {
        eprintln!("{}", attack.name);
        (attack.run)(gateway.address).await;
        assert_eq!(gateway.client_http2().get("/").await.text(), "page");
        assert_eq!(gateway.client().get("/").await.text(), "page");
        before.is_back(&gateway, attack.name).await;
    }
}

#[tokio::test]
async fn floods_are_stopped() {
    each(STOPPED).await;
}

#[tokio::test]
async fn stalls_are_borne_and_leave_nothing_behind() {
    each(BORNE).await;
}
