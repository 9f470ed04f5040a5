//! The end of a gateway as clients of HTTP/3 see it: GOAWAY twice, what is under way ends, and the
//! connection is closed without an error (RFC 9114 §5.2).

use std::time::Duration;

use e2e::gate::Gate;
use e2e::h3::client::H3Failure;
use e2e::h3::raw::{RawEnd, code, headers};
use e2e::h3::{Reach, SecuredGateway};
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, within};
use quinn::VarInt;

/// The id of a stream that no client reaches.
const NO_STREAM: u64 = (1 << 62) - 4;

async fn gated(server: &str) -> (Origin, SecuredGateway, Gate) {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |asked| {
        let held = held.clone();
        async move {
            if asked.seen.path.starts_with("/held") {
                held.pass().await;
            }
            Reply::ok(asked.seen.path).header("cache-control", "no-store")
        }
    })
    .await;
    let setup = Setup::new(&origin).top("server", server);
    let secured = SecuredGateway::start(setup).await;
    (origin, secured, gate)
}

const PATIENT: &str = "{threads: 2, drain_timeout: 1m}";

#[tokio::test]
async fn goaway_comes_twice_and_what_is_under_way_ends() {
    let (origin, mut secured, gate) = gated(PATIENT).await;
    let raw = secured.raw().await;
    for _ in 0..3 {
        assert!(raw.answers("/page").await);
    }
    let mut under_way = raw.stream(headers(&raw.get("/held/1"))).await;
    let _ = under_way.send.finish();
    gate.reached_by(1).await;
    let idle = secured.raw().await;
    assert!(idle.answers("/page").await);
    secured.gateway.terminate();
    assert_eq!(
        raw.goaways(2).await,
        [NO_STREAM, 16],
        "four requests were sent"
    );
    // A connection without requests has ended, and says the same.
    assert_eq!(idle.closed().await, RawEnd::Closed(code::NO_ERROR));
    assert_eq!(idle.seen().goaways, [NO_STREAM, 4]);
    // What comes now is for another connection: the client may send it again there.
    for path in ["/late", "/later"] {
        let late = raw.ask(headers(&raw.get(path))).await;
        assert_eq!(late, RawEnd::Reset(code::REQUEST_REJECTED), "{path}");
        assert_eq!(origin.count_of(path), 0);
    }
    // Nobody new is let in.
    let reach = Reach::default();
    let endpoint = secured.endpoint(&reach);
    let connecting = secured.try_connect(&endpoint, &reach);
    let refused = tokio::time::timeout(Duration::from_millis(500), connecting).await;
    assert!(
        !matches!(refused, Ok(Ok(_))),
        "a new connection was accepted"
    );
    assert!(secured.gateway.is_running());
    gate.open();
    match under_way.end().await {
        RawEnd::Answered(answer) => {
            assert_eq!((answer.status, &answer.body[..]), (200, &b"/held/1"[..]))
        }
        end => panic!("{end:?}"),
    }
    assert_eq!(raw.closed().await, RawEnd::Closed(code::NO_ERROR));
    assert_eq!(secured.gateway.ended(SOON).await.code(), Some(0));
}

/// What was sent before the client could know of the drain is served.
#[tokio::test]
async fn requests_that_cross_the_first_goaway_are_served() {
    let (_origin, mut secured, gate) = gated(PATIENT).await;
    let clients = [
        secured.client().await,
        secured.client().await,
        secured.client().await,
    ];
    let mut asking = Vec::new();
    for (number, client) in clients.iter().enumerate() {
        for stream in 0..20 {
            let client = client.clone();
            asking.push(tokio::spawn(async move {
                let path = format!("/held/{number}/{stream}");
                client
                    .request(&path)
                    .try_send()
                    .await
                    .map(|answer| answer.text() == path)
            }));
        }
    }
    gate.reached_by(60).await;
    secured.gateway.terminate();
    let drains = |line: &str| line.contains("stopping") || line.contains("signal");
    secured
        .gateway
        .logged("the line of the signal", drains)
        .await;
    gate.open();
    let mut served = 0;
    for answer in asking {
        assert_eq!(answer.await.unwrap(), Ok(true));
        served += 1;
    }
    assert_eq!(served, 60);
    for client in &clients {
        assert_eq!(client.closed().await, H3Failure::Closed(code::NO_ERROR));
    }
    assert_eq!(secured.gateway.ended(SOON).await.code(), Some(0));
}

/// A client that asks all the time has each of its requests answered, or rejected so that it may
/// be sent again, and nothing in between.
#[tokio::test]
async fn no_request_is_lost_without_a_word() {
    let (origin, mut secured, _gate) = gated(PATIENT).await;
    let raw = std::sync::Arc::new(secured.raw().await);
    let asking: Vec<_> = (0..8)
        .map(|worker| {
            let raw = std::sync::Arc::clone(&raw);
            tokio::spawn(async move {
                let (mut answered, mut rejected) = (0, 0);
                for number in 0.. {
                    let path = format!("/page/{worker}/{number}");
                    match raw.ask(headers(&raw.get(&path))).await {
                        RawEnd::Answered(answer) if answer.status == 200 => answered += 1,
                        RawEnd::Reset(code::REQUEST_REJECTED) => rejected += 1,
                        RawEnd::Closed(code::NO_ERROR) => break,
                        other => panic!("{path}: {other:?}"),
                    }
                }
                (answered, rejected)
            })
        })
        .collect();
    origin.saw(100).await;
    secured.gateway.terminate();
    let mut answered = 0;
    for worker in asking {
        answered += within("a worker ends", SOON, worker).await.unwrap().0;
    }
    assert!(answered >= 100);
    assert!(origin.count() >= answered);
    // The last id is that of the first request that was not served: all before it were.
    let last = *raw.seen().goaways.last().unwrap();
    assert_eq!(answered as u64, last / 4);
    assert_eq!(secured.gateway.ended(SOON).await.code(), Some(0));
}

#[tokio::test]
async fn a_drain_has_an_end() {
    let (_origin, mut secured, gate) = gated("{threads: 2, drain_timeout: 500ms}").await;
    let raw = secured.raw().await;
    let mut under_way = raw.stream(headers(&raw.get("/held/for-ever"))).await;
    let _ = under_way.send.finish();
    gate.reached_by(1).await;
    secured.gateway.terminate();
    assert_eq!(raw.closed().await, RawEnd::Closed(code::NO_ERROR));
    // By the default it would take 30 s.
    secured.gateway.ended(SOON / 2).await;
}

/// Clients that take nothing of the control stream do not hold a drain up.
#[tokio::test]
async fn a_client_that_reads_no_goaway_does_not_hold_a_drain_up() {
    let (_origin, mut secured, _gate) = gated(PATIENT).await;
    // Room for our settings and for no frame behind them.
    let narrow = Reach::with(|transport| {
        transport
            .receive_window(VarInt::from_u32(12))
            .keep_alive_interval(Some(Duration::from_millis(200)));
    });
    let raw = secured.bare_by(&narrow).await;
    secured.gateway.terminate();
    assert_eq!(raw.closed().await, RawEnd::Closed(code::NO_ERROR));
    secured.gateway.ended(SOON).await;
}
