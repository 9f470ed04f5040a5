//! What is purged on the last connections of a process that was replaced holds in the process that
//! has taken its place, before the client has its answer, without a bus and a second tier.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use e2e::client::{Answer, Client};
use e2e::gate::Gate;
use e2e::gateway::Gateway;
use e2e::h3::SecuredGateway;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::upgrade::{ended, server, terminate};
use e2e::wait::SOON;
use http::Method;

/// A site whose pages tell how often anything was changed by a POST, and bear a tag and a group.
/// A POST waits at the gate.
async fn site(gate: &Gate) -> Origin {
    let (gate, version) = (gate.clone(), Arc::new(AtomicUsize::new(0)));
    Origin::start(move |asked| {
        let (gate, version) = (gate.clone(), Arc::clone(&version));
        async move {
            if asked.seen.method == Method::POST {
                gate.pass().await;
                let now = version.fetch_add(1, Ordering::SeqCst) + 1;
                return Reply::ok(format!("version {now}"))
                    .header("cache-group-invalidation", "\"grouped\"");
            }
            let now = version.load(Ordering::SeqCst);
            let page = Reply::ok(format!("version {now}")).header("cache-control", "max-age=600");
            match asked.seen.path.as_str() {
                "/tagged" => page.header("cache-tag", "of-pages"),
                "/grouped" => page.header("cache-groups", "\"grouped\""),
                _ => page,
            }
        }
    })
    .await
}

const ROUTE: &str = "{name: site, upstream: origin, \
                     invalidate: [{on: [POST], purge: [{tag: of-pages}]}]}";

fn setup(origin: &Origin) -> Setup {
    Setup::new(origin)
        .top("server", &server(""))
        .top(
            "purge_method",
            "{enabled: true, allow: [127.0.0.1], dialects: [url, tags, refresh]}",
        )
        .route(ROUTE)
}

/// Every page that a POST to `/page` makes invalid: by its URL, by its answer's groups and by the
/// route's rule.
const INVALID: [&str; 3] = ["/page", "/tagged", "/grouped"];

/// Brings the pages into the cache of the process that serves new connections.
async fn are_stored(gateway: &Gateway) {
    for page in ["/other"].iter().chain(&INVALID) {
        gateway.client().get(page).await;
        assert!(gateway.client().get(page).await.is_hit(), "{page}");
    }
}

async fn are_invalid(client: &Client) {
    for page in INVALID {
        let answer = client.get(page).await;
        assert!(!answer.is_hit(), "{page}");
        assert_eq!(answer.text(), "version 1", "{page}");
    }
    assert!(client.get("/other").await.is_hit());
}

fn is_good(answer: &Answer) {
    assert_eq!((answer.status.as_u16(), answer.text()), (200, "version 1"));
}

#[tokio::test]
async fn what_requests_under_way_change_is_invalid_in_the_new_process() {
    for client in [Gateway::client, Gateway::client_http2] {
        let gate = Gate::new();
        let origin = site(&gate).await;
        let mut gateway = setup(&origin).start().await;
        let posting = client(&gateway);
        let under_way = tokio::spawn(async move { posting.post("/page", "x").await });
        gate.reached_by(1).await;
        gateway.upgrade().await;
        are_stored(&gateway).await;
        gate.open();
        is_good(&under_way.await.unwrap());
        are_invalid(&gateway.client()).await;
        gateway.only_the_last_process(SOON).await;
    }
}

#[tokio::test]
async fn what_requests_under_way_over_http3_change_is_invalid_in_the_new_process() {
    let gate = Gate::new();
    let origin = site(&gate).await;
    let mut secured = SecuredGateway::start(setup(&origin)).await;
    let posting = secured.client().await;
    let under_way = tokio::spawn(async move { posting.post("/page", "x").await });
    gate.reached_by(1).await;
    secured.gateway.upgrade().await;
    let client = secured.client().await;
    for page in INVALID {
        client.get(page).await;
        assert!(client.get(page).await.is_hit(), "{page}");
    }
    gate.open();
    is_good(&under_way.await.unwrap());
    for page in INVALID {
        let answer = client.get(page).await;
        assert!(!answer.is_hit(), "{page}");
        assert_eq!(answer.text(), "version 1", "{page}");
    }
    drop(client);
    secured.gateway.only_the_last_process(SOON).await;
}

#[tokio::test]
async fn requests_on_open_connections_purge_in_the_new_process() {
    let gate = Gate::new();
    gate.open();
    let origin = site(&gate).await;
    let gateway = setup(&origin).start().await;
    let open = async || {
        let client = gateway.client();
        assert_eq!(client.get("/open").await.status, 200);
        client
    };
    let [posting, purging, by_tag, refreshing, reading] = [
        open().await,
        open().await,
        open().await,
        open().await,
        open().await,
    ];
    gateway.upgrade().await;
    are_stored(&gateway).await;

    let purge = || Method::from_bytes(b"PURGE").unwrap();
    let purged = purging.uncached().ask(purge(), "/other").send().await;
    assert_eq!(purged.status, 200, "{}", purged.text());
    assert!(!gateway.client().get("/other").await.is_hit());

    let purged = by_tag.uncached().ask(purge(), "/");
    let purged = purged.header("cache-tag", "of-pages").send().await;
    assert_eq!(purged.status, 200, "{}", purged.text());
    assert!(!gateway.client().get("/tagged").await.is_hit());
    assert!(gateway.client().get("/tagged").await.is_hit());

    let refreshed = refreshing
        .request("/page")
        .header("cache-control", "no-cache");
    assert_eq!(refreshed.send().await.status, 200);
    let stale = gateway.client().get("/page").await;
    assert_eq!(stale.cache().detail.as_deref(), Some("revalidating"));

    is_good(&posting.post("/page", "x").await);
    are_invalid(&gateway.client()).await;
    // And the old process itself keeps nothing from its clients.
    assert_eq!(reading.get("/page").await.text(), "version 1");
}

#[tokio::test]
async fn what_the_first_of_three_processes_changes_is_invalid_in_the_last_one() {
    let gate = Gate::new();
    let origin = site(&gate).await;
    let mut gateway = setup(&origin).start().await;
    let posting = gateway.client();
    let under_way = tokio::spawn(async move { posting.post("/page", "x").await });
    gate.reached_by(1).await;
    let second = gateway.upgrade().await;
    gateway.upgrade().await;
    are_stored(&gateway).await;
    // It need not stay for the first one.
    ended(second, SOON).await;
    gate.open();
    is_good(&under_way.await.unwrap());
    are_invalid(&gateway.client()).await;
    gateway.only_the_last_process(SOON).await;
}

#[tokio::test]
async fn a_purge_that_the_new_process_does_not_hear_is_not_answered_as_done() {
    let gate = Gate::new();
    gate.open();
    let origin = site(&gate).await;
    let gateway = setup(&origin).start().await;
    let (purging, posting) = (gateway.client(), gateway.client());
    for client in [&purging, &posting] {
        assert_eq!(client.get("/open").await.status, 200);
    }
    let new = gateway.upgrade().await;
    terminate(new);
    ended(new, SOON).await;
    let purge = Method::from_bytes(b"PURGE").unwrap();
    let refused = purging.uncached().ask(purge, "/page").send().await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    // The origin has done what it was asked for.
    is_good(&posting.post("/page", "x").await);
}
