//! Clients that only hold connections can't silence the admin listener.

use std::time::Duration;

use e2e::attack::Before;
use e2e::gateway::Gateway;
use e2e::h2raw;
use e2e::origin::Origin;
use e2e::raw::RawConnection;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_for, wait_until, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// More connections than the 256 that the listener once had room for.
const CLIENTS: usize = 300;

/// How long `/livez` may take: far less than any deadline that could end the attack.
const PATIENCE: Duration = Duration::from_secs(5);

/// A request whose body does not go on.
const HALF_AN_UPLOAD: &str = "POST /v1/purge HTTP/1.1\r\nHost: localhost\r\n\
    Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{";

async fn gateway() -> Gateway {
    let origin = Origin::pages(|_| Reply::ok("x")).await;
    Setup::new(&origin).start().await
}

/// Clients that each send these bytes, read nothing, and come again when they are cut.
struct SilentSiege {
    clients: JoinSet<()>,
}

impl SilentSiege {
    /// `drip` is sent over and over, one byte a time.
    async fn begin(gateway: &Gateway, sent: &[u8], drip: &'static [u8]) -> Self {
        let mut clients = JoinSet::new();
        let admin = gateway.admin;
        for _ in 0..CLIENTS {
            let sent = sent.to_vec();
            // The first of each is there before anything is measured.
            let connecting = within("a client connects", SOON, TcpStream::connect(admin));
            let mut stream = connecting.await.expect("the listener accepts");
            let _ = stream.write_all(&sent).await;
            let mut first = Some(stream);
            clients.spawn(async move {
                loop {
                    if let Some(stream) = first.take() {
                        hold(stream, drip).await;
                    }
                    if let Ok(mut stream) = TcpStream::connect(admin).await {
                        let _ = stream.write_all(&sent).await;
                        first = Some(stream);
                    }
                }
            });
        }
        Self { clients }
    }
}

impl Drop for SilentSiege {
    fn drop(&mut self) {
        self.clients.abort_all();
    }
}

/// Holds a connection until the other side ends it; for ever where it has answered, since
/// the answer is not read.
async fn hold(mut stream: TcpStream, drip: &'static [u8]) {
    // The pace of the attack.
    let mut pace = tokio::time::interval(Duration::from_millis(100));
    for byte in drip.iter().cycle() {
        pace.tick().await;
        if stream.write_all(&[*byte]).await.is_err() {
            return;
        }
    }
    let mut peeked = [0];
    if stream.peek(&mut peeked).await.is_ok_and(|count| count > 0) {
        std::future::pending::<()>().await;
    }
}

/// Asks on a connection of its own.
async fn lives(gateway: &Gateway) {
    let asked = within("/livez", PATIENCE, async {
        let mut raw = RawConnection::open(gateway.admin).await;
        raw.write("GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .await;
        raw.to_end().await
    });
    let said = String::from_utf8_lossy(&asked.await).into_owned();
    assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
}

async fn endures(sent: &[u8], drip: &'static [u8]) {
    let gateway = gateway().await;
    let before = gateway.open_files();
    let _siege = SilentSiege::begin(&gateway, sent, drip).await;
    for _ in 0..20 {
        lives(&gateway).await;
    }
    let held = gateway.open_files().saturating_sub(before);
    assert!(held > 100, "only {held} connections were held");
}

#[tokio::test]
async fn connections_that_send_nothing_do_not_silence_it() {
    endures(b"", b"").await;
}

#[tokio::test]
async fn half_a_head_does_not_silence_it() {
    endures(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n", b"").await;
}

#[tokio::test]
async fn heads_byte_by_byte_do_not_silence_it() {
    endures(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nx: ", b"x").await;
}

#[tokio::test]
async fn a_tls_hello_that_breaks_off_does_not_silence_it() {
    endures(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"").await;
}

#[tokio::test]
async fn idle_connections_do_not_silence_it() {
    endures(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n", b"").await;
}

#[tokio::test]
async fn idle_http2_connections_do_not_silence_it() {
    let settings = h2raw::frame(h2raw::kind::SETTINGS, 0, 0, b"");
    endures(&[h2raw::PREFACE, &settings].concat(), b"").await;
}

#[tokio::test]
async fn uploads_that_stand_still_do_not_silence_it() {
    endures(HALF_AN_UPLOAD.as_bytes(), b"").await;
}

#[tokio::test]
async fn answers_that_nobody_reads_do_not_silence_it_nor_fill_the_memory() {
    let gateway = gateway().await;
    lives(&gateway).await;
    let before = Before::of(&gateway);
    let many = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(50);
    let siege = SilentSiege::begin(&gateway, many.as_bytes(), b"").await;
    for _ in 0..20 {
        lives(&gateway).await;
    }
    drop(siege);
    let closed = h2raw::frame(h2raw::kind::SETTINGS, 0, 0, h2raw::setting(4, 0));
    let mut streams = [h2raw::PREFACE, &closed].concat();
    for stream in 0..4 {
        streams.extend(h2raw::headers(
            stream * 2 + 1,
            h2raw::flag::END_STREAM,
            &[
                (":method", "GET"),
                (":scheme", "http"),
                (":path", "/metrics"),
                (":authority", "localhost"),
            ],
        ));
    }
    let siege = SilentSiege::begin(&gateway, &streams, b"").await;
    for _ in 0..20 {
        lives(&gateway).await;
    }
    drop(siege);
    before.is_back(&gateway, "unread metrics").await;
}

#[tokio::test]
async fn a_head_has_two_seconds() {
    let gateway = gateway().await;
    // A body has five, so that this one is ended later although it began before.
    let mut upload = RawConnection::open(gateway.admin).await;
    upload.write(HALF_AN_UPLOAD).await;
    let mut raw = RawConnection::open(gateway.admin).await;
    let begun = std::time::Instant::now();
    raw.write("GET /livez HTTP/1.1\r\nHost: localhost\r\n")
        .await;
    assert_eq!(raw.head().await.status, 408);
    let taken = begun.elapsed();
    assert!(taken >= Duration::from_millis(1_900), "{taken:?}");
    assert!(upload.is_open(), "a head has as long as a body: {taken:?}");
}

#[tokio::test]
async fn uploads_that_stand_still_are_cut_and_purges_go_on() {
    let gateway = gateway().await;
    let mut held = Vec::new();
    for _ in 0..100 {
        let mut raw = RawConnection::open(gateway.admin).await;
        raw.write(HALF_AN_UPLOAD).await;
        held.push(raw);
    }
    // So many are taken at once, and one more is told so.
    let mut told = None;
    wait_until("somebody is told that there are too many", SOON, || {
        told = held.iter_mut().position(|raw| !raw.is_silent());
        told.is_some()
    })
    .await;
    let mut told = held.swap_remove(told.unwrap());
    assert_eq!(told.head().await.status, 503);
    lives(&gateway).await;
    wait_for("a purge is taken", SOON, || async {
        let answer = gateway
            .admin(http::Method::POST, "/v1/purge", "{\"all\": true}")
            .await;
        (answer.status == 200).then_some(())
    })
    .await;
    for mut raw in held {
        raw.to_end().await;
    }
}

/// Who asks all the time is not cut for those that only hold connections.
#[tokio::test]
async fn a_client_that_asks_keeps_its_connection() {
    let gateway = gateway().await;
    let mut asking = RawConnection::open(gateway.admin).await;
    let mut idle = Vec::new();
    for _ in 0..CLIENTS {
        let mut stream = TcpStream::connect(gateway.admin).await.unwrap();
        stream.write_all(b"GET").await.unwrap();
        idle.push(stream);
        asking
            .write("GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await;
        assert_eq!(asking.head().await.status, 200);
        asking.until(b"}\n").await;
    }
    let mut first = idle.remove(0);
    let mut rest = Vec::new();
    let ended = within("the first is cut", SOON, first.read_to_end(&mut rest));
    let _ = ended.await;
}
