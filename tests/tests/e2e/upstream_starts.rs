//! Connections to origins that end before a request was sent on them: the request is lost only where
//! each connection ends so, it is not multiplied, and what is wrong is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use e2e::gateway::Gateway;
use e2e::h2raw::{frame, kind, setting};
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, within};
use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// SETTINGS_MAX_CONCURRENT_STREAMS (RFC 9113 §6.5.2).
const MAX_STREAMS: u16 = 3;
/// The length of what a client begins a connection with (RFC 9113 §3.4).
const PREFACE: usize = 24;

/// Which connections are ended at once.
#[derive(Clone, Copy)]
enum Ended {
    First,
    Each,
}

/// A door before an origin. It writes its words on a connection that it ends.
struct Door {
    url: String,
    opened: Arc<AtomicUsize>,
    /// How many have begun, and wait for `go` before they end.
    go: Arc<Semaphore>,
}

impl Door {
    async fn start(behind: Option<&Origin>, ended: Ended, words: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let door = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            opened: Arc::default(),
            go: Arc::new(Semaphore::new(0)),
        };
        let (opened, go) = (Arc::clone(&door.opened), Arc::clone(&door.go));
        let behind = behind.map(Origin::address);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let before = opened.fetch_add(1, Ordering::SeqCst);
                let (go, words) = (Arc::clone(&go), words.clone());
                tokio::spawn(async move {
                    if before == 0 || matches!(ended, Ended::Each) {
                        let mut preface = [0; PREFACE];
                        let _ = stream.read_exact(&mut preface).await;
                        drop(go.acquire().await);
                        let _ = stream.write_all(&words).await;
                        let _ = stream.shutdown().await;
                        // A connection with unread bytes would be reset, and the words be lost.
                        let _ = stream.read_to_end(&mut Vec::new()).await;
                    } else if let Some(behind) = behind {
                        let mut origin = TcpStream::connect(behind).await.unwrap();
                        let _ = copy_bidirectional(&mut stream, &mut origin).await;
                    }
                });
            }
        });
        door
    }

    fn opened(&self) -> usize {
        self.opened.load(Ordering::SeqCst)
    }
}

async fn before(door: &Door, cache: &str) -> Gateway {
    Setup::default()
        .top("server", "{threads: 1, drain_timeout: 1m}")
        .upstream(
            "shop",
            &format!("{{targets: [\"{}\"], protocol: http2}}", door.url),
        )
        .route(&format!("{{name: shop, upstream: shop, cache: {cache}}}"))
        .start()
        .await
}

fn goes_away() -> Vec<u8> {
    frame(kind::GOAWAY, 0, 0, [0; 8])
}

/// A process that is being replaced accepts a last connection, and ends it; the next one is served by
/// its successor. Whatever the method: nothing was sent.
#[tokio::test]
async fn a_request_whose_connection_ends_at_once_goes_over_the_next() {
    for words in [
        Vec::new(),
        setting(MAX_STREAMS, 0),
        goes_away(),
        [setting(MAX_STREAMS, 0), goes_away()].concat(),
    ] {
        let written = words.len();
        let origin = Origin::start(|_| async { Reply::ok("fine") }).await;
        let door = Door::start(Some(&origin), Ended::First, words).await;
        door.go.add_permits(1);
        let gateway = before(&door, "off").await;
        let client = gateway.client();
        let asked = client.post("/order", "order");
        let answer = within("the second connection", SOON, asked).await;
        assert_eq!(answer.status, 200, "after {written} octets");
        assert_eq!((door.opened(), origin.count()), (2, 1), "{written}");
    }
}

/// Who waits for a load that found no connection gets its error: another request would find none.
#[tokio::test]
async fn followers_of_a_load_without_a_connection_do_not_ask_for_themselves() {
    const CLIENTS: usize = 40;
    let door = Door::start(None, Ended::Each, Vec::new()).await;
    let gateway = before(&door, "on").await;
    let asking = (0..CLIENTS).map(|_| {
        let client = gateway.client();
        async move { client.get("/page").await }
    });
    let asking = tokio::spawn(join_all(asking.collect::<Vec<_>>()));
    let following = "lamina_cache_coalesced_requests_total";
    gateway
        .metric_until(following, &[], |count| count >= (CLIENTS - 1) as f64)
        .await;
    door.go.add_permits(1);
    for answer in within("the error of one", SOON, asking).await.unwrap() {
        assert_eq!(answer.status, 502);
        let said = answer.header("proxy-status");
        assert_eq!(said, "lamina; error=connection_terminated");
    }
    // The load, and what it may be sent again.
    assert!(door.opened() <= 4, "{} connections", door.opened());
}

/// `protocol: http2` before a server that speaks HTTP/1.1 alone.
#[tokio::test]
async fn a_server_that_speaks_no_http2_is_told_as_such() {
    let words = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let door = Door::start(None, Ended::Each, words.to_vec()).await;
    door.go.add_permits(1);
    let gateway = before(&door, "off").await;
    let answer = within("an answer", SOON, gateway.client().get("/")).await;
    assert_eq!(answer.status, 502);
    let said = answer.header("proxy-status");
    assert_eq!(said, "lamina; error=http_protocol_error");
    gateway
        .logged("what the origin does not speak", |line| {
            line.contains("cannot connect to an origin") && line.contains("is not HTTP/2")
        })
        .await;
}
