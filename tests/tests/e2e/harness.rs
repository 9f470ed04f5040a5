//! The harness against itself: origin and client without a gateway between them.

use std::time::Duration;

use e2e::client::{Client, Failure};
use e2e::gate::Gate;
use e2e::origin::Origin;
use e2e::places::Places;
use e2e::raw::RawConnection;
use e2e::reply::Reply;
use e2e::wait::{SOON, wait_until, within};
use http::{Method, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn direct(origin: &Origin) -> Client {
    Client::http1(origin.address()).uncached()
}

#[tokio::test]
async fn an_origin_answers_and_notes_what_it_saw() {
    let origin = Origin::pages(|seen| Reply::fresh(seen.body.clone().unwrap_or_default())).await;
    let answer = direct(&origin)
        .ask(Method::PUT, "/a?b=c")
        .header("x-one", "1")
        .body("hello")
        .send()
        .await;
    assert_eq!(answer.text(), "hello");
    let seen = origin.last();
    assert_eq!(
        (
            seen.method.as_str(),
            seen.path.as_str(),
            seen.header("x-one")
        ),
        ("PUT", "/a?b=c", "1")
    );
    assert_eq!(seen.body.as_deref(), Some(&b"hello"[..]));
    assert_eq!(
        (
            origin.count(),
            origin.count_of("/a?b=c"),
            origin.count_of("/a")
        ),
        (1, 1, 0)
    );
}

#[tokio::test]
async fn http2_is_spoken_by_prior_knowledge() {
    let origin = Origin::pages(|_| Reply::ok("two")).await;
    let answer = Client::http2(origin.address()).uncached().get("/").await;
    assert_eq!((answer.text(), answer.version), ("two", Version::HTTP_2));
    assert_eq!(origin.last().version, Version::HTTP_2);
}

#[tokio::test]
async fn a_streamed_body_arrives_piece_by_piece() {
    let (reply, pieces) = Reply::stream();
    let reply = std::sync::Mutex::new(Some(reply));
    let origin = Origin::pages(move |_| reply.lock().unwrap().take().unwrap()).await;
    let client = direct(&origin);
    let opening = tokio::spawn(async move { client.request("/").open().await });
    assert!(pieces.send("one").await);
    let mut streaming = opening.await.unwrap();
    assert_eq!(streaming.piece().await.unwrap().unwrap(), "one");
    pieces.send("two").await;
    pieces.finish().await;
    assert_eq!(streaming.into_answer().await.unwrap().text(), "two");
}

#[tokio::test]
async fn a_cut_body_is_told_from_a_whole_one() {
    let (reply, pieces) = Reply::stream();
    let reply = std::sync::Mutex::new(Some(reply));
    let origin = Origin::pages(move |_| reply.lock().unwrap().take().unwrap()).await;
    let client = direct(&origin);
    let opening = tokio::spawn(async move { client.request("/").open().await });
    pieces.send("half").await;
    let streaming = opening.await.unwrap();
    pieces.cut();
    match streaming.into_answer().await {
        Err(Failure::Cut { so_far, .. }) => assert_eq!(so_far, "half"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed_at_the_origin() {
    let (reply, pieces) = Reply::stream();
    let reply = std::sync::Mutex::new(Some(reply));
    let origin = Origin::pages(move |_| reply.lock().unwrap().take().unwrap()).await;
    let client = direct(&origin);
    let opening = tokio::spawn(async move { client.request("/").open().await });
    pieces.send("head").await;
    drop(opening.await.unwrap());
    wait_until("the stream is abandoned", SOON, || pieces.is_abandoned()).await;
}

#[tokio::test]
async fn a_gate_holds_handlers_and_the_most_at_once_is_counted() {
    let gate = Gate::new();
    let at = gate.clone();
    let origin = Origin::start(move |_| {
        let at = at.clone();
        async move {
            at.pass().await;
            Reply::ok("through")
        }
    })
    .await;
    let client = direct(&origin);
    let asking = tokio::spawn(async move { e2e::client::herd(&client, 5, "/").await });
    gate.reached_by(5).await;
    gate.open();
    assert!(
        asking
            .await
            .unwrap()
            .into_iter()
            .all(|answer| answer.unwrap().text() == "through")
    );
    assert_eq!(origin.most_at_once(), 5);
}

#[tokio::test]
async fn a_stopped_origin_refuses_and_comes_back_on_its_port() {
    let mut origin = Origin::pages(|_| Reply::ok("here")).await;
    let client = direct(&origin);
    assert_eq!(client.get("/").await.text(), "here");
    origin.stop().await;
    assert!(matches!(
        client.request("/").try_send().await,
        Err(Failure::NoAnswer(_))
    ));
    origin.start_again().await;
    assert_eq!(client.apart().get("/").await.text(), "here");
}

#[tokio::test]
async fn an_origin_can_hang_up_and_change_its_mind() {
    let origin = Origin::pages(|_| Reply::hang_up()).await;
    assert!(matches!(
        direct(&origin).request("/").try_send().await,
        Err(Failure::NoAnswer(_))
    ));
    origin.behave(|_| async { Reply::status_only(204) });
    assert_eq!(direct(&origin).get("/").await.status, 204);
}

#[tokio::test]
async fn a_tunnel_carries_bytes_both_ways() {
    let origin = Origin::start(|_| async {
        Reply::upgrade("echo", |mut tunnel| async move {
            let mut word = [0; 4];
            if tunnel.read_exact(&mut word).await.is_ok() {
                let _ = tunnel.write_all(&word).await;
                let _ = tunnel.flush().await;
            }
        })
    })
    .await;
    let mut raw = RawConnection::open(origin.address()).await;
    raw.write("GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n")
        .await;
    assert_eq!(raw.head().await.status, 101);
    raw.write("ping").await;
    assert_eq!(raw.exactly(4).await, b"ping");
}

#[tokio::test]
async fn an_upload_is_sent_on_command() {
    let origin = Origin::pages(|seen| Reply::ok(seen.body.clone().unwrap())).await;
    let (ask, pieces) = direct(&origin).ask(Method::POST, "/").upload();
    let asking = tokio::spawn(ask.send());
    pieces.send("a".into()).await.unwrap();
    origin.saw(1).await;
    pieces.send("b".into()).await.unwrap();
    drop(pieces);
    assert_eq!(asking.await.unwrap().text(), "ab");
}

#[tokio::test]
#[should_panic(expected = "in vain until pigs fly")]
async fn waiting_has_a_limit() {
    assert!(SOON > Duration::ZERO);
    wait_until("pigs fly", Duration::from_millis(1), || false).await;
}

/// Runs as one test among several does, in a runtime of its own.
fn beside(work: impl Future<Output = ()> + Send + 'static) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().unwrap();
        runtime.block_on(within("all get places", SOON, work));
    })
}

/// With one place after another, two tests would each hold two of three and wait.
#[test]
fn tests_that_need_several_gateways_never_wait_for_each_other() {
    let places = std::sync::Arc::new(Places::new(3));
    let (met, fleets) = (std::sync::Arc::new(std::sync::Barrier::new(2)), 20);
    let tests = (0..2).map(|_| {
        let (places, met) = (places.clone(), met.clone());
        beside(async move {
            for _ in 0..fleets {
                let one = places.take().await;
                tokio::task::yield_now().await;
                let other = places.take().await;
                drop((one, other));
                let reservation = places.reserve(2).await;
                let both = (places.take().await, places.take().await);
                let third = places.take().await;
                drop((reservation, both, third));
            }
            met.wait();
            // Everything was given back.
            drop(places.reserve(3).await);
        })
    });
    for test in tests.collect::<Vec<_>>() {
        test.join().unwrap();
    }
}

#[tokio::test]
async fn what_a_fleet_reserved_is_not_given_to_others() {
    let places = std::sync::Arc::new(Places::new(2));
    let reservation = places.reserve(2).await;
    let one = places.take().await;
    let (taken, waits) = (std::sync::mpsc::channel(), places.clone());
    let other = beside(async move {
        let _place = waits.take().await;
        taken.0.send(()).unwrap();
    });
    let two = places.take().await;
    drop(reservation);
    assert!(taken.1.try_recv().is_err(), "both places are in use");
    drop(one);
    other.join().unwrap();
    assert!(taken.1.try_recv().is_ok());
    drop(two);
}
