//! Clients that take their time, and clients that leave (http.md, Bad input: size and
//! time). Here time itself is the attack, so the tests let some pass.

use std::time::{Duration, Instant};

use e2e::attack::Before;
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::raw::RawConnection;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_until, within};
use http_body_util::BodyExt;

/// How often a client that drips lets a drop fall.
const DRIP: Duration = Duration::from_millis(20);

/// Longer than any limit of these tests: a client that is still there then was not cut.
const PATIENCE: Duration = Duration::from_secs(60);

async fn limited(limits: &str) -> (Origin, Gateway) {
    let origin = Origin::pages(|_| Reply::ok("x").header("cache-control", "no-store")).await;
    let gateway = Setup::new(&origin).listener("limits", limits).start().await;
    (origin, gateway)
}

/// Sends `drop` again and again until the gateway answers or closes; what it said.
async fn drip(raw: &mut RawConnection, drop: &[u8]) -> String {
    let start = Instant::now();
    let mut drops = tokio::time::interval(DRIP);
    while raw.is_silent() && raw.try_write(drop).await {
        assert!(start.elapsed() < PATIENCE, "nobody stopped the drip");
        drops.tick().await;
    }
    String::from_utf8_lossy(&raw.to_end().await).into_owned()
}

#[tokio::test]
async fn a_head_that_drips_is_a_408_however_steadily_it_comes() {
    let (origin, gateway) = limited("{header_timeout: 400ms}").await;
    // By the default, which is 10 s, this one would be ended first.
    let (_origin, usual) = limited("{}").await;
    let mut other = usual.raw().await;
    other.write("GET / HTTP/1.1\r\n").await;
    for head in ["GET / HTTP/1.1\r\nHost: a\r\nX: ", "P"] {
        let mut raw = gateway.raw().await;
        raw.write(head).await;
        let said = drip(&mut raw, b"O").await;
        assert!(said.starts_with("HTTP/1.1 408 "), "{head:?}: {said}");
        assert!(said.contains("connection: close"), "{said}");
    }
    assert!(other.is_open(), "the default ended the drip");
    assert_eq!(origin.count(), 0);
}

#[tokio::test]
async fn a_second_head_that_drips_is_a_408_and_silence_gets_none() {
    // Long enough for a first head that comes from a busy machine.
    let (_origin, gateway) = limited("{header_timeout: 4s, idle_timeout: 4s}").await;
    let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let drips = async {
        let mut raw = gateway.raw().await;
        raw.write([get, "GET /"].concat()).await;
        let said = String::from_utf8(raw.to_end().await).unwrap();
        assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
        assert!(said.contains("HTTP/1.1 408 "), "{said}");
    };
    let silent = async {
        let mut raw = gateway.raw().await;
        assert_eq!(raw.to_end().await, b"", "nothing was asked");
    };
    let idle = async {
        let mut raw = gateway.raw().await;
        raw.write(get).await;
        let said = String::from_utf8(raw.to_end().await).unwrap();
        assert!(
            said.starts_with("HTTP/1.1 200 ") && !said.contains("408"),
            "{said}"
        );
    };
    tokio::join!(drips, silent, idle);
}

#[tokio::test]
async fn a_body_that_drips_below_the_rate_is_a_408_and_never_ends_at_the_origin() {
    let (origin, gateway) = limited("{min_rate: 10KiB, min_rate_grace: 400ms}").await;
    let (tell, mut whole) = tokio::sync::mpsc::unbounded_channel();
    origin.behave(move |asked| {
        let tell = tell.clone();
        async move {
            let _ = tell.send(asked.body.collect().await.is_ok());
            Reply::ok("x")
        }
    });
    let (_origin, usual) = limited("{}").await;
    // Without a length, so that the end is nothing but what the gateway says it is.
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut other = usual.raw().await;
    other.write(head).await;
    let mut raw = gateway.raw().await;
    raw.write(head).await;
    let said = drip(&mut raw, b"1\r\nx\r\n").await;
    assert!(said.starts_with("HTTP/1.1 408 "), "{said}");
    let whole = within("the upload's end", SOON, whole.recv()).await;
    assert_eq!(whole, Some(false), "it ended as if it were whole");
    assert!(other.is_open(), "the default ended the drip");
}

#[tokio::test]
async fn an_upload_without_end_is_a_408_however_fast_it_comes() {
    let limits = "{upload_timeout: 500ms, min_rate: 0B}";
    let (_origin, gateway) = limited(limits).await;
    let mut raw = gateway.raw().await;
    raw.write("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    let said = drip(&mut raw, b"5\r\nabcde\r\n").await;
    assert!(said.starts_with("HTTP/1.1 408 "), "{said}");
}

/// An origin whose answers have no end.
async fn endless(limits: &str) -> (Origin, Gateway) {
    let origin = Origin::start(|_| async {
        let (reply, pieces) = Reply::stream();
        tokio::spawn(async move { while pieces.send(vec![b'x'; 64 << 10]).await {} });
        reply.header("cache-control", "no-store")
    })
    .await;
    let gateway = Setup::new(&origin).listener("limits", limits).start().await;
    (origin, gateway)
}

#[tokio::test]
async fn a_reader_below_the_rate_is_cut_and_one_above_it_is_not() {
    // A window in which the fast one may rest for a moment.
    let limits = "{min_rate: 64KiB, min_rate_grace: 4s, body_timeout: 10m}";
    let (_origin, gateway) = endless(limits).await;
    let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut fast = gateway.raw().await;
    fast.write(get).await;
    let _ = fast.head().await;
    let before = gateway.open_files();
    let mut slow = gateway.raw().await;
    slow.write(get).await;
    let _ = slow.head().await;
    let start = Instant::now();
    let mut drops = tokio::time::interval(DRIP);
    // The listener's socket and the one to the origin are given back.
    while gateway.open_files() > before {
        assert!(start.elapsed() < PATIENCE, "nobody cut the slow reader");
        let _ = slow.exactly(256).await;
        let _ = fast.exactly(256 << 10).await;
        drops.tick().await;
    }
    let _ = fast.exactly(16 << 20).await;
}

#[tokio::test]
async fn a_refusal_reaches_a_client_that_is_still_sending() {
    let (origin, gateway) = limited("{max_body_bytes: 1KiB}").await;
    let body = vec![b'x'; 3 << 20];
    for _ in 0..5 {
        let mut raw = gateway.raw().await;
        let head = format!(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        raw.write(head).await;
        assert!(raw.try_write(&body).await, "it is read to its end");
        assert_eq!(raw.head().await.status, 413);
    }
    assert_eq!(origin.count(), 0);
}

#[tokio::test]
async fn a_client_that_goes_on_sending_after_a_refusal_is_cut() {
    let (_origin, gateway) = limited("{max_body_bytes: 1KiB}").await;
    let before = gateway.open_files();
    let mut raw = gateway.raw().await;
    raw.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n")
        .await;
    let piece = vec![b'x'; 64 << 10];
    within("cutting", SOON, async {
        while raw.try_write(&piece).await {}
    })
    .await;
    wait_until("the descriptor is back", SOON, || {
        gateway.open_files() <= before
    })
    .await;
    // One that is silent is not waited for either.
    let mut silent = gateway.raw().await;
    silent
        .write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n")
        .await;
    assert_eq!(silent.head().await.status, 413);
    wait_until("the descriptor is back", SOON, || {
        gateway.open_files() <= before
    })
    .await;
}

#[tokio::test]
async fn an_answer_before_the_body_has_come_ends_the_connection() {
    let origin =
        Origin::start(|_| async { Reply::ok("early").header("connection", "close") }).await;
    let route = "{name: api, match: {path: /api/*}, upstream: origin}";
    let gateway = Setup::new(&origin).route(route).start().await;
    for (path, status) in [("/api/x", 200), ("/none", 404)] {
        let mut raw = gateway.raw().await;
        let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nhalf");
        raw.write(head).await;
        assert_eq!(raw.head().await.status, status);
        raw.to_end().await;
    }
}

#[tokio::test]
async fn clients_that_leave_in_the_middle_leave_nothing_behind() {
    let (_origin, gateway) = endless("{}").await;
    let held = Before::of(&gateway);
    let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let post = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab";
    for bytes in ["GET / HT", get, post] {
        for n in 0..20 {
            let mut raw = gateway.raw().await;
            raw.write(bytes).await;
            if bytes == get {
                let _ = raw.exactly(100_000).await;
            }
            match n % 2 {
                0 => raw.reset(),
                _ => drop(raw),
            }
        }
        held.is_back(&gateway, bytes).await;
    }
}

#[tokio::test]
async fn a_tunnel_that_is_silent_is_closed_on_both_sides() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let origin = Origin::start(|_| async {
        Reply::upgrade("echo", |mut tunnel| async move {
            let mut word = [0; 4];
            while tunnel.read_exact(&mut word).await.is_ok() {
                let _ = tunnel.write_all(&word).await;
            }
        })
    })
    .await;
    let upstream = format!(
        "{{targets: [\"{}\"], timeouts: {{tunnel: 4s}}}}",
        origin.url()
    );
    let gateway = Setup::default().upstream("origin", &upstream).start().await;
    let before = gateway.open_files();
    let mut raw = gateway.raw().await;
    // What would be a malformed request is none in a tunnel.
    raw.write("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n\n\nA\n")
        .await;
    assert_eq!(raw.head().await.status, 101);
    assert_eq!(raw.exactly(4).await, b"\n\nA\n");
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(5) {
        raw.write("POST").await;
        assert_eq!(raw.exactly(4).await, b"POST");
        tokio::time::sleep(DRIP).await;
    }
    assert_eq!(raw.to_end().await, b"");
    wait_until("both sockets are closed", SOON, || {
        gateway.open_files() <= before
    })
    .await;
}
