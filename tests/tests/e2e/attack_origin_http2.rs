//! HTTP/2 origins that misbehave, and origins that accept nobody: an error or a cut
//! answer, never stored, and other upstreams do not notice. The plays are in
//! `e2e::attack::origin_http2`.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use e2e::attack::Before;
use e2e::attack::origin::{Sees, look};
use e2e::attack::origin_http2::{PLAYS, Play, Rogue};
use e2e::gateway::Gateway;
use e2e::setup::Setup;
use e2e::tls_origin::Reached;
use e2e::wait::{SOON, wait_until};
use futures_util::{StreamExt, stream};
use http::Method;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

/// Plays at once: many of them take as long as a deadline.
const AT_ONCE: usize = 8;

/// For plays that only a deadline ends: not so short that a busy machine misses one.
const HASTY: &str = "{first_byte: 3500ms, idle: 3500ms, total: 4s}";

/// For all others: taking a flood up to a limit may take a while.
const PATIENT: &str = "{first_byte: 10m, idle: 10m}";

/// A gateway with an upstream and a route for each play.
async fn before(rogues: &[(&Play, Rogue, Reached)]) -> Gateway {
    let mut setup = Setup::default();
    for (play, _, reached) in rogues {
        let (name, keys) = (play.name, reached.keys());
        let files = reached.file().into_iter();
        setup = files.fold(setup, |setup, (name, text)| setup.file(&name, text));
        let timeouts = match name {
            "silence" | "silence-in-the-body" | "switching-protocols" | "bytes-without-end" => {
                HASTY
            }
            _ => PATIENT,
        };
        setup = setup
            .upstream(
                name,
                &format!("{{{keys}, protocol: http2, timeouts: {timeouts}}}"),
            )
            .route(&format!(
                "{{name: {name}, match: {{path: /{name}/*}}, upstream: {name}}}"
            ));
    }
    setup.start().await
}

#[tokio::test]
async fn what_an_http2_origin_sends_wrong_is_an_error_or_cut() {
    let mut rogues = Vec::new();
    for play in PLAYS {
        let rogue = Rogue::start(play).await;
        let reached = Reached::Clear(rogue.address());
        rogues.push((play, rogue, reached));
    }
    each_of(rogues).await;
}

/// The same over TLS.
pub async fn each_over_tls() {
    let mut rogues = Vec::new();
    for play in PLAYS {
        let rogue = Rogue::start(play).await;
        let reached = Reached::by_tls(rogue.address(), "h2").await;
        rogues.push((play, rogue, reached));
    }
    each_of(rogues).await;
}

async fn each_of(rogues: Vec<(&'static Play, Rogue, Reached)>) {
    let gateway = before(&rogues).await;
    gateway.client().get("/right/0").await;
    let before = Before::of(&gateway);
    let looks = PLAYS.iter().map(|play| one(&gateway, play));
    let faults: Vec<_> = stream::iter(looks).buffer_unordered(AT_ONCE).concat().await;
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    let right = Sees::Whole(200, "ok");
    look(&gateway.client(), &Method::GET, "/right/end", right)
        .await
        .unwrap();
    // Connections to origins that hold theirs stay; there is one for each worker.
    drop(rogues);
    before.is_back(&gateway, "rogue HTTP/2 origins").await;
}

/// One play twice on each protocol: what was stored would be served the second time.
async fn one(gateway: &Gateway, play: &Play) -> Vec<String> {
    let mut faults = Vec::new();
    let path = format!("/{}/page", play.name);
    for client in [gateway.client(), gateway.client_http2()] {
        for _ in 0..2 {
            faults.extend(look(&client, &Method::GET, &path, play.sees).await.err());
        }
    }
    faults
}

#[tokio::test]
async fn an_origin_that_accepts_nobody_is_a_504_by_the_connect_deadline() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    // A backlog of one is two connections for the kernel; whoever comes later waits for ever.
    let connected = Arc::new(AtomicUsize::new(0));
    let mut waiting = JoinSet::new();
    for _ in 0..8 {
        let connected = Arc::clone(&connected);
        waiting.spawn(async move {
            let stream = TcpStream::connect(address).await;
            connected.fetch_add(1, Ordering::SeqCst);
            pending::<()>().await;
            drop(stream);
        });
    }
    wait_until("the backlog is full", SOON, || {
        connected.load(Ordering::SeqCst) >= 2
    })
    .await;
    let upstream = |protocol| {
        format!(
            "{{targets: [\"http://{address}\"], protocol: {protocol}, timeouts: {{connect: 300ms}}}}"
        )
    };
    let gateway = Setup::default()
        .upstream("one", &upstream("http1"))
        .upstream("two", &upstream("http2"))
        .route("{name: one, match: {path: /one}, upstream: one}")
        .route("{name: two, match: {path: /two}, upstream: two}")
        .start()
        .await;
    for path in ["/one", "/two"] {
        let answer = gateway.client().get(path).await;
        let said = answer.header("proxy-status");
        assert_eq!(answer.status, 504, "{path}: {said}");
        assert!(said.contains("connection_timeout"), "{path}: {said}");
    }
    assert_eq!(connected.load(Ordering::SeqCst), 2);
}
