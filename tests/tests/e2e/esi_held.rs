//! What pages that are put together from fragments hold in memory for clients that do not read.

use std::collections::HashMap;

use e2e::attack::held::{stalled, streams};
use e2e::h2raw::{self, flag, kind, window};
use e2e::origin::{Origin, Seen};
use e2e::raw::RawConnection;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_for};

const FRAGMENT: usize = 6 << 20;

/// What the gauge shows of a page with its fragment, at least.
const ALMOST_A_FRAGMENT: f64 = 5e6;

const PAGES: &str = "{name: pages, upstream: origin, esi: {}}";
const NOT_CACHED: &str = "{name: own, match: {path: /own/*}, upstream: origin, cache: off}";

fn pages(seen: &Seen) -> Reply {
    match seen.path_only() {
        "/page" => Reply::fresh("a<esi:include src=\"/own/f\"/>b")
            .header("content-type", "text/html")
            .header("surrogate-control", "content=\"ESI/1.0\""),
        "/own/f" => Reply::ok("f".repeat(FRAGMENT)),
        _ => Reply::fresh("hit"),
    }
}

/// Whoever reads nothing of a page holds its fragments, which count as everything else that is held
/// (`server.max_held_bytes`): the next page that would hold more breaks off, and hits go on.
#[tokio::test]
async fn what_a_page_holds_is_counted_and_bounded() {
    let origin = Origin::pages(pages).await;
    let gateway = Setup::new(&origin)
        .top("server", "{threads: 2, max_held_bytes: 8MiB}")
        .route(NOT_CACHED)
        .route(PAGES)
        .start()
        .await;
    let client = gateway.client();
    assert_eq!(client.get("/page").await.text().len(), FRAGMENT + 2);
    client.get("/hit").await;
    let held = async || gateway.metric("lamina_held_bytes", &[]).await;
    wait_for("nothing is held", SOON, async || {
        (held().await == 0.0).then_some(())
    })
    .await;
    let mut slow = RawConnection::narrow(gateway.address).await;
    slow.write("GET /page HTTP/1.1\r\nHost: a\r\n\r\n").await;
    wait_for("its fragment is held", SOON, async || {
        (held().await > ALMOST_A_FRAGMENT).then_some(())
    })
    .await;
    for _ in 0..3 {
        let second = client.request("/page").try_send().await;
        assert!(second.is_err(), "no room for a second one: {second:?}");
        assert!(held().await < 1e7, "it has let go of what it had");
    }
    assert!(client.get("/hit").await.is_hit());
    drop(slow);
    wait_for("it is free again", SOON, async || {
        (held().await == 0.0).then_some(())
    })
    .await;
    assert_eq!(client.get("/page").await.text().len(), FRAGMENT + 2);
}

/// Pages of one connection wait for room where it holds as much as it may (`limits.max_held_bytes`),
/// but for one of them: others get what they ask for, and each page is whole once its client reads.
#[tokio::test]
async fn pages_of_one_connection_wait_for_room() {
    const PAGES_AT_ONCE: usize = 12;
    // Who takes nothing at all gets no fragment.
    const TAKEN: u32 = 2;
    let origin = Origin::pages(pages).await;
    let gateway = Setup::new(&origin)
        .top("server", "{threads: 2, max_held_bytes: 32MiB}")
        .route(NOT_CACHED)
        .route(PAGES)
        .start()
        .await;
    let client = gateway.client();
    client.get("/page").await;
    let held = async || gateway.metric("lamina_held_bytes", &[]).await;
    let ask = |stream| h2raw::get(stream, "/page");
    let mut shut = stalled(gateway.address, TAKEN, PAGES_AT_ONCE, ask).await;
    wait_for("two of the pages are held", SOON, async || {
        (held().await > 2.0 * ALMOST_A_FRAGMENT).then_some(())
    })
    .await;
    for _ in 0..3 {
        let page = client.get("/page").await;
        assert_eq!(page.text().len(), FRAGMENT + 2, "there is room for others");
    }
    assert!(held().await < 16e6, "{} bytes are held", held().await);
    let room = (FRAGMENT + 2) as u32;
    let open = streams(PAGES_AT_ONCE).map(|stream| window(stream, room));
    let all = window(0, room * PAGES_AT_ONCE as u32);
    shut.write([all, open.flatten().collect()].concat()).await;
    let mut read: HashMap<u32, usize> = HashMap::new();
    let mut open = PAGES_AT_ONCE;
    while open > 0 {
        let frame = shut.frame().await.expect("the connection goes on");
        assert_ne!(frame.kind, kind::RST_STREAM, "stream {}", frame.stream);
        if frame.kind == kind::DATA {
            *read.entry(frame.stream).or_default() += frame.payload.len();
            open -= usize::from(frame.flags & flag::END_STREAM != 0);
        }
    }
    assert!(read.values().all(|octets| *octets == FRAGMENT + 2));
    wait_for("nothing is held", SOON, async || {
        (held().await == 0.0).then_some(())
    })
    .await;
}
