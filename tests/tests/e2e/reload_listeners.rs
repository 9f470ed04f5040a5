//! Listeners that come, change and go while the gateway runs (RL4): no connection and no request is
//! lost, over HTTP/1, HTTP/2 and HTTP/3.

use std::net::SocketAddr;

use e2e::client::Client;
use e2e::free_port::free_address;
use e2e::gate::Gate;
use e2e::gateway::Gateway;
use e2e::h2raw::{self, H2, kind};
use e2e::h3::client::{H3Client, H3Failure};
use e2e::h3::raw::RawEnd;
use e2e::h3::{NAME, Reach, SecuredGateway, connect_to};
use e2e::origin::Origin;
use e2e::raw::RawConnection;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::tls::TlsClient;
use e2e::tls::authority::Authority;
use e2e::wait::{SOON, wait_for, within};
use futures_util::future::join_all;
use tokio::net::TcpStream;

use crate::reload::named;

/// The listener of a [`Setup`], and these.
fn beside(setup: &Setup, further: &[&str]) -> Setup {
    let further: String = further.iter().map(|one| format!(", {one}")).collect();
    let listeners = format!("[{{address: \"127.0.0.1:0\"}}{further}]");
    setup.clone().top("listeners", &listeners)
}

async fn get(raw: &mut RawConnection) -> (u16, String) {
    raw.write("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let head = raw.head().await;
    let length = head.header("content-length").parse().unwrap();
    raw.exactly(length).await;
    (head.status, head.header("connection").to_lowercase())
}

async fn is_refused(address: SocketAddr) {
    wait_for("connections are refused", SOON, || async {
        TcpStream::connect(address).await.is_err().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_new_listener_serves_at_once_and_a_removed_one_ends_gently() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |asked| {
        let held = held.clone();
        async move {
            if asked.seen.path == "/held" {
                held.pass().await;
            }
            Reply::ok("page").header("cache-control", "no-store")
        }
    })
    .await;
    let setup = Setup::new(&origin).route("{name: site, upstream: origin, cache: off}");
    let gateway = beside(&setup, &[]).start().await;
    let mut kept = gateway.raw().await;
    assert_eq!(get(&mut kept).await.0, 200);
    let extra = free_address();
    let more = beside(&setup, &[&format!("{{address: \"{extra}\"}}")]);
    let said = gateway.take_up(&more).await;
    assert_eq!(said["changes"]["listeners"]["added"][0], extra.to_string());
    assert_eq!(Client::http1(extra).get("/").await.status, 200);
    let mut http1 = RawConnection::open(extra).await;
    assert_eq!(get(&mut http1).await.0, 200);
    let idle = RawConnection::open(extra).await;
    let mut http2 = H2::open(extra).await;
    http2.write(h2raw::get(1, "/")).await;
    http2.end_of(1).await;
    let slow = [Client::http1(extra), Client::http2(extra)];
    let slow = slow.map(|client| tokio::spawn(async move { client.get("/held").await }));
    gate.reached_by(1).await;
    wait_for("both requests are held", SOON, || async {
        (origin.count_of("/held") == 2).then_some(())
    })
    .await;
    gateway.take_up(&beside(&setup, &[])).await;
    is_refused(extra).await;
    // A request may have been on its way already.
    assert_eq!(get(&mut http1).await, (200, "close".to_owned()));
    assert_eq!(http1.to_end().await, b"");
    let goaway = within("GOAWAY comes", SOON, async {
        while let Some(frame) = http2.frame().await {
            if frame.kind == kind::GOAWAY {
                return frame.code();
            }
        }
        panic!("the connection ended without GOAWAY")
    })
    .await;
    assert_eq!(goaway, h2raw::code::NO_ERROR);
    // Nothing was asked for on it: it just ends.
    let mut idle = idle;
    assert_eq!(within("the idle one ends", SOON, idle.to_end()).await, b"");
    gate.open();
    for answer in slow {
        assert_eq!(answer.await.unwrap().status, 200);
    }
    // The other listener has seen nothing of all that.
    assert_eq!(get(&mut kept).await, (200, String::new()));
    assert_eq!(gateway.client().get("/").await.status, 200);
    // It can come back.
    gateway.take_up(&more).await;
    assert_eq!(Client::http1(extra).get("/").await.status, 200);
}

/// Its listener stays as it is: the connection goes on, and its next request is for the new
/// configuration.
#[tokio::test]
async fn a_connection_of_http3_takes_the_new_configuration_with_its_next_request() {
    let gate = Gate::new();
    let held = gate.clone();
    let first = Origin::start(move |asked| {
        let held = held.clone();
        async move {
            if asked.seen.path == "/held" {
                held.pass().await;
            }
            Reply::ok("first").header("cache-control", "no-store")
        }
    })
    .await;
    let second = named("second").await;
    let secured = SecuredGateway::start(Setup::new(&first)).await;
    let client = secured.client().await;
    let asking = client.clone();
    let under_way = tokio::spawn(async move { asking.get("/held").await });
    gate.reached_by(1).await;
    let changed = secured.certificates.secure(Setup::new(&second), "");
    secured.gateway.take_up(&changed).await;
    assert_eq!(client.get("/now").await.text(), "second");
    assert_eq!(secured.gateway.old_engines().await, 1.0);
    gate.open();
    let answer = under_way.await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.text()), (200, "first"));
    assert_eq!(client.get("/later").await.text(), "second");
    assert_eq!(client.connection.close_reason(), None);
    secured.gateway.only_one_engine().await;
}

/// A request that came in by a listener that is replaced or gone is under way like any other when
/// the process ends.
#[tokio::test]
async fn the_end_of_the_process_waits_for_the_requests_of_listeners_that_are_gone() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |_| {
        let held = held.clone();
        async move {
            held.pass().await;
            Reply::ok("page")
        }
    })
    .await;
    let extra = free_address();
    let setup = Setup::new(&origin).route("{name: site, upstream: origin, cache: off}");
    let begun = beside(&setup, &[&format!("{{address: \"{extra}\"}}")]);
    let mut gateway = begun.start().await;
    let clients = [gateway.client(), Client::http1(extra)];
    let asking = clients.map(|client| tokio::spawn(async move { client.get("/").await }));
    origin.saw(2).await;
    let changed = setup.top(
        "listeners",
        "[{address: \"127.0.0.1:0\", limits: {max_headers: 60}}]",
    );
    gateway.take_up(&changed).await;
    gateway.terminate();
    is_refused(gateway.address).await;
    assert!(gateway.is_running());
    gate.open();
    for answer in asking {
        assert_eq!(answer.await.unwrap().status, 200);
    }
    assert!(gateway.ended(SOON).await.success());
}

/// Those whose connections stand in the queue of a listener's socket while the listener is changed,
/// and those of one that is removed.
#[tokio::test]
async fn connections_that_wait_in_a_queue_are_answered_whatever_becomes_of_the_listener() {
    const WAITING: usize = 200;
    let origin = named("page").await;
    let setup = Setup::new(&origin);
    let extra = free_address();
    let with = |limits: &str| {
        let extra = format!("{{address: \"{extra}\", limits: {{max_connections: {limits}}}}}");
        beside(&setup, &[&extra])
    };
    for (removed, after) in [(false, with("1000")), (true, beside(&setup, &[]))] {
        let gateway = with("2").start().await;
        // Nobody accepts beyond these two.
        let mut first = [
            RawConnection::open(extra).await,
            RawConnection::open(extra).await,
        ];
        for raw in &mut first {
            assert_eq!(get(raw).await.0, 200);
        }
        let waiting = (0..WAITING).map(|_| async {
            let mut raw = RawConnection::open(extra).await;
            raw.write("GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                .await;
            raw
        });
        let mut waiting = join_all(waiting).await;
        gateway.take_up(&after).await;
        let answers = waiting.iter_mut().map(|raw| async {
            let answer = within("an answer", SOON, raw.to_end()).await;
            answer.starts_with(b"HTTP/1.1 200 ")
        });
        let answers = join_all(answers).await;
        let answered = answers.into_iter().filter(|is_good| *is_good).count();
        assert_eq!(answered, WAITING, "removed: {removed}");
        drop(first);
        drop(gateway);
    }
}

#[tokio::test]
async fn other_limits_and_protocols_count_for_new_connections() {
    let origin = named("page").await;
    let with = |more: &[(&str, &str)]| {
        let setup = Setup::new(&origin);
        more.iter()
            .fold(setup, |setup, (key, yaml)| setup.listener(key, yaml))
    };
    let gateway = with(&[]).start().await;
    let mut kept = gateway.raw().await;
    assert_eq!(get(&mut kept).await.0, 200);
    let long = format!("/{}", "x".repeat(500));
    assert_eq!(gateway.client().get(&long).await.status, 200);
    gateway
        .take_up(&with(&[("limits", "{max_uri_bytes: 100}")]))
        .await;
    let mut anew = gateway.raw().await;
    anew.write(format!("GET {long} HTTP/1.1\r\nhost: x\r\n\r\n"))
        .await;
    assert_eq!(anew.head().await.status, 414);
    // The old connection has the old limits for its last answer.
    kept.write(format!("GET {long} HTTP/1.1\r\nhost: x\r\n\r\n"))
        .await;
    let head = kept.head().await;
    assert_eq!((head.status, head.header("connection")), (200, "close"));
    // Without HTTP/2, its preface is no request.
    gateway.take_up(&with(&[("protocols", "[http1]")])).await;
    let mut http2 = H2::open(gateway.address).await;
    http2.write(h2raw::get(1, "/")).await;
    assert!(!matches!(
        http2.end_of(1).await,
        h2raw::End::Answered { .. }
    ));
    assert_eq!(gateway.client().get("/").await.status, 200);
    gateway
        .take_up(&with(&[("protocols", "[http1, http2]")]))
        .await;
    assert_eq!(gateway.client_http2().get("/").await.status, 200);
}

#[tokio::test]
async fn other_certificates_are_shown_to_new_connections() {
    let origin = named("page").await;
    let authority = Authority::new("authority");
    let names = ["a.example", "b.example"];
    let pairs = names.map(|name| authority.server(&[name]));
    let with = |certificates: &str| {
        Setup::new(&origin)
            .pair("a", &pairs[0])
            .pair("b", &pairs[1])
            .listener("tls", &format!("{{certificates: [{certificates}]}}"))
    };
    let (a, b) = ("{cert: a.crt, key: a.key}", "{cert: b.crt, key: b.key}");
    let gateway = with(a).start().await;
    let shown = async |name: &str| {
        let connection = TlsClient::new(gateway.address, name).anew().connect().await;
        connection.ok().map(|connection| connection.certificate())
    };
    let mut kept = TlsClient::new(gateway.address, names[0]).http().await;
    assert_eq!(kept.get(names[0], "/").await.status, 200);
    assert_eq!(shown(names[0]).await.as_ref(), Some(&pairs[0].der));
    gateway.take_up(&with(&format!("{a}, {b}"))).await;
    assert_eq!(shown(names[0]).await.as_ref(), Some(&pairs[0].der));
    assert_eq!(shown(names[1]).await.as_ref(), Some(&pairs[1].der));
    assert_eq!(kept.get(names[0], "/").await.status, 200, "its last answer");
    gateway.take_up(&with(b)).await;
    assert_eq!(shown(names[1]).await.as_ref(), Some(&pairs[1].der));
    assert_ne!(shown(names[0]).await.as_ref(), Some(&pairs[0].der));
}

/// The setups of a gateway with all protocols: as it begins, and one with these in place.
async fn secured(origin: &Origin) -> (SecuredGateway, impl Fn(&str, &str) -> Setup) {
    let secured = SecuredGateway::start(Setup::new(origin)).await;
    let origin = origin.url();
    let with = move |protocols: &str, limits: &str| {
        let pair = "certificates: [{cert: server.crt, key: server.key}]";
        Setup::default()
            .upstream("origin", &format!("{{targets: [\"{origin}\"]}}"))
            .listener("protocols", protocols)
            .listener("tls", &format!("{{{pair}}}"))
            .listener("limits", limits)
    };
    (secured, with)
}

const ALL: &str = "[http1, http2, http3]";

/// Asks over and over, on a connection that is made again when it has ended in order.
async fn ask_until(secured: &SecuredGateway, stop: &Gate, asked: &std::sync::atomic::AtomicUsize) {
    let reach = Reach::default();
    let connect = async || -> H3Client {
        let endpoint = secured.endpoint(&reach);
        let connection = connect_to(secured.address(), &endpoint, &reach).await;
        H3Client::over(endpoint, connection.unwrap(), NAME).await
    };
    let mut client = connect().await;
    let ends = stop.pass();
    tokio::pin!(ends);
    loop {
        let answer = tokio::select! {
            answer = client.request("/").try_send() => answer,
            () = &mut ends => return,
        };
        match answer {
            Ok(answer) => assert_eq!(answer.status, 200),
            // Those after GOAWAY were not processed, and belong on another connection.
            Err(H3Failure::Reset(0x10b) | H3Failure::Closed(0x100)) => client = connect().await,
            Err(H3Failure::Other(said)) if said.contains("losing") => client = connect().await,
            Err(other) => panic!("a request failed: {other:?}"),
        }
        asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

#[tokio::test]
async fn http3_connections_go_on_or_move_when_their_listener_changes() {
    let origin = named("page").await;
    let (secured, with) = secured(&origin).await;
    let raw = secured.raw().await;
    assert!(raw.answers("/").await);
    let stop = Gate::new();
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let count = || asked.load(std::sync::atomic::Ordering::Relaxed);
    let clients = (0..4).map(|_| ask_until(&secured, &stop, &asked));
    let reloads = async {
        for n in 0..6 {
            let before = count();
            let limits = format!("{{max_headers: {}}}", 50 + n);
            secured.gateway.take_up(&with(ALL, &limits)).await;
            wait_for("requests go on", SOON, || async {
                (count() > before + 40).then_some(())
            })
            .await;
        }
        stop.open();
    };
    within("the load ends", SOON * 2, async {
        tokio::join!(join_all(clients), reloads)
    })
    .await;
    // One on which nothing was under way has been told to go.
    assert_eq!(raw.closed().await, RawEnd::Closed(0x100));
    assert!(!raw.seen().goaways.is_empty());
}

#[tokio::test]
async fn http3_is_switched_off_and_on_again() {
    let origin = named("page").await;
    let (secured, with) = secured(&origin).await;
    let reach = Reach::default();
    let alt_svc = async || {
        let client = TlsClient::new(secured.address(), NAME).anew().http2();
        let answer = client.http().await.get(NAME, "/").await;
        answer.header("alt-svc").to_owned()
    };
    assert!(alt_svc().await.starts_with("h3="));
    let client = secured.client().await;
    assert_eq!(client.get("/").await.status, 200);
    for _ in 0..2 {
        secured
            .gateway
            .take_up(&with("[http1, http2]", "{max_headers: 60}"))
            .await;
        assert_eq!(alt_svc().await, "");
        wait_for("no QUIC connection is accepted", SOON, || async {
            let endpoint = secured.endpoint(&reach);
            let connecting = secured.try_connect(&endpoint, &reach);
            let limit = std::time::Duration::from_millis(500);
            let connected = tokio::time::timeout(limit, connecting).await;
            (!matches!(connected, Ok(Ok(_)))).then_some(())
        })
        .await;
        secured
            .gateway
            .take_up(&with(ALL, "{max_headers: 60}"))
            .await;
        assert!(alt_svc().await.starts_with("h3="));
        let client = secured.client().await;
        assert_eq!(client.get("/").await.status, 200);
    }
}

/// A port that the system has chosen is kept as long as its listener is there.
#[tokio::test]
async fn ports_that_were_chosen_by_the_system_stay() {
    let origin = named("page").await;
    let free = "{address: \"127.0.0.1:0\", limits: {max_headers: 60}}";
    let three = |last: &str| beside(&Setup::new(&origin), &[free, last]);
    let gateway: Gateway = three(free).start().await;
    let all = gateway.addresses();
    assert_eq!(all.len(), 3);
    let route = three(free).route("{name: new, upstream: origin}");
    gateway.take_up(&route).await;
    let other = free.replace("60", "70");
    gateway.take_up(&three(&other)).await;
    for address in &all {
        assert_eq!(Client::http1(*address).get("/").await.status, 200);
    }
    gateway
        .take_up(&beside(&Setup::new(&origin), &[free]))
        .await;
    is_refused(all[2]).await;
    for address in &all[..2] {
        assert_eq!(Client::http1(*address).get("/").await.status, 200);
    }
}
