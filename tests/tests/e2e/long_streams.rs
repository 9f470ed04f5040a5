//! Streams that go on for long, and may be silent for long: the limits for uploads do not
//! judge them, silence counts on both sides, and what has no end is nobody else's.

use std::time::{Duration, Instant};

use bytes::Bytes;
use e2e::client::Streaming;
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, passed, wait_until, within};
use http::Method;
use http_body_util::BodyExt;

/// Limits that a stream of some seconds breaks, were it an upload.
const TIGHT: &str =
    "{body_timeout: 500ms, min_rate: 10KiB, min_rate_grace: 500ms, upload_timeout: 1s}";
const LONGER: Duration = Duration::from_millis(2_500);

/// An origin that answers each piece with the same piece, and the gateway before it.
async fn echo(timeouts: &str) -> (Origin, Gateway) {
    let (origin, setup) = echo_setup(timeouts).await;
    let gateway = setup.start().await;
    (origin, gateway)
}

async fn echo_setup(timeouts: &str) -> (Origin, Setup) {
    let origin = Origin::start(|mut asked| async move {
        let kind = asked.seen.header("content-type").to_owned();
        let (reply, pieces) = Reply::stream();
        tokio::spawn(async move {
            while let Some(Ok(frame)) = asked.body.frame().await {
                if let Ok(piece) = frame.into_data() {
                    pieces.send(piece).await;
                }
            }
            pieces.abandoned().await;
        });
        reply.header("content-type", &kind)
    })
    .await;
    let upstream = format!(
        "{{targets: [\"{}\"], protocol: http2, timeouts: {timeouts}}}",
        origin.url()
    );
    let setup = Setup::new(&origin)
        .upstream("origin", &upstream)
        .listener("limits", TIGHT);
    (origin, setup)
}

async fn says(stream: &mut Streaming, piece: &'static str) {
    let heard = within("an echo", SOON, stream.piece()).await;
    assert_eq!(
        heard.expect("the stream goes on").expect("it is whole"),
        piece
    );
}

#[tokio::test]
async fn a_stream_both_ways_outlasts_every_limit_for_uploads() {
    let (_origin, gateway) = echo("{idle: 500ms}").await;
    let ask = gateway
        .client_http2()
        .ask(Method::POST, "/pkg.Service/Chat")
        .header("content-type", "application/octet-stream");
    let (ask, upload) = ask.upload();
    let start = Instant::now();
    let mut stream = ask.open().await;
    upload.send(Bytes::from("first")).await.unwrap();
    says(&mut stream, "first").await;
    passed(start, LONGER).await;
    upload.send(Bytes::from("second")).await.unwrap();
    says(&mut stream, "second").await;
}

#[tokio::test]
async fn a_stream_that_is_silent_on_both_sides_ends_and_grpc_says_so() {
    let (_origin, gateway) = echo("{stream_idle: 1s}").await;
    let ask = gateway
        .client_http2()
        .ask(Method::POST, "/pkg.Service/Watch")
        .header("te", "trailers")
        .header("content-type", "application/grpc");
    let (ask, upload) = ask.upload();
    let stream = ask.open().await;
    let answer = within("the call ends", SOON, stream.into_answer()).await;
    let trailers = answer
        .expect("it ends properly")
        .trailers
        .expect("trailers");
    assert_eq!(trailers["grpc-status"], "4");
    drop(upload);
}

/// The upstream allows an hour, and this one route a second.
#[tokio::test]
async fn the_silence_of_a_stream_is_the_routes_own() {
    let (origin, setup) = echo_setup("{stream_idle: 1h}").await;
    let gateway = setup
        .route("{name: watches, match: {path: /pkg.Watches/*}, upstream: origin, timeouts: {stream_idle: 1s}}")
        .route("{name: rest, upstream: origin}")
        .start()
        .await;
    let open = async |path: &str| {
        let ask = gateway.client_http2().ask(Method::POST, path);
        let ask = ask
            .header("te", "trailers")
            .header("content-type", "application/grpc");
        let (ask, upload) = ask.upload();
        (ask.open().await, upload)
    };
    let (mut patient, patient_upload) = open("/pkg.Rest/Watch").await;
    let (stream, _upload) = open("/pkg.Watches/Watch").await;
    let answer = within("the call ends", SOON, stream.into_answer()).await;
    let trailers = answer
        .expect("it ends properly")
        .trailers
        .expect("trailers");
    assert_eq!(trailers["grpc-status"], "4");
    patient_upload.send(Bytes::from("still")).await.unwrap();
    says(&mut patient, "still").await;
    drop(origin);
}

/// The upstream allows ten minutes of silence to a tunnel, and this one route a second.
#[tokio::test]
async fn the_silence_of_a_tunnel_is_the_routes_own() {
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
    let gateway = Setup::new(&origin)
        .route("{name: brief, match: {path: /brief}, upstream: origin, timeouts: {tunnel: 1s}}")
        .route("{name: rest, upstream: origin}")
        .start()
        .await;
    let open = async |path: &str| {
        let mut raw = gateway.raw().await;
        raw.write(format!(
            "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nword"
        ))
        .await;
        assert_eq!(raw.head().await.status, 101);
        assert_eq!(raw.exactly(4).await, b"word");
        raw
    };
    let mut patient = open("/rest").await;
    let mut brief = open("/brief").await;
    assert_eq!(brief.to_end().await, b"");
    patient.write("more").await;
    assert_eq!(patient.exactly(4).await, b"more");
}

/// Every limit of the listener for uploads has its counterpart at the route.
#[tokio::test]
async fn a_route_may_let_an_upload_rest_for_as_long_as_it_likes() {
    let origin = Origin::pages(|seen| Reply::ok(seen.body.clone().unwrap_or_default())).await;
    let gateway = Setup::new(&origin)
        .listener("limits", TIGHT)
        .route("{name: patient, match: {path: /patient}, upstream: origin, limits: {body_timeout: 1m, upload_timeout: 1h, min_rate: 0}}")
        .route("{name: grace, match: {path: /grace}, upstream: origin, limits: {body_timeout: 1m, upload_timeout: 1h, min_rate_grace: 1m}}")
        .route("{name: rate, match: {path: /rate}, upstream: origin, limits: {body_timeout: 1m, upload_timeout: 1h}}")
        .start()
        .await;
    let begin = |path: &'static str| {
        let client = gateway.client().uncached();
        let (ask, upload) = client.ask(Method::POST, path).upload();
        (tokio::spawn(ask.try_send()), upload)
    };
    let start = Instant::now();
    let (patient, patient_upload) = begin("/patient");
    let (grace, grace_upload) = begin("/grace");
    let (rate, rate_upload) = begin("/rate");
    for upload in [&patient_upload, &grace_upload, &rate_upload] {
        upload.send(Bytes::from("first,")).await.unwrap();
    }
    passed(start, LONGER).await;
    for (answer, upload) in [(patient, patient_upload), (grace, grace_upload)] {
        upload.send(Bytes::from("second")).await.unwrap();
        drop(upload);
        let answer = answer.await.unwrap().expect("an answer");
        assert_eq!(
            (answer.status.as_u16(), answer.text()),
            (200, "first,second")
        );
    }
    // The rate of the listener still holds for the third.
    let cut = rate.await.unwrap();
    assert!(cut.map_or(true, |answer| answer.status == 408));
    drop(rate_upload);
}

/// The origin never answers: what the gateway says instead is a gRPC status, too.
#[tokio::test]
async fn an_overdue_call_gets_a_grpc_status() {
    let origin = Origin::start(|_| std::future::pending::<Reply>()).await;
    let upstream = format!(
        "{{targets: [\"{}\"], protocol: http2, timeouts: {{first_byte: 300ms}}}}",
        origin.url()
    );
    let gateway = Setup::new(&origin)
        .upstream("origin", &upstream)
        .start()
        .await;
    let ask = |kind| {
        let ask = gateway
            .client_http2()
            .ask(Method::POST, "/pkg.Service/Call");
        ask.header("content-type", kind).body("message").send()
    };
    let call = ask("application/grpc+proto").await;
    assert_eq!(
        (call.status.as_u16(), call.header("grpc-status")),
        (200, "4")
    );
    assert_eq!(call.header("content-type"), "application/grpc");
    assert_eq!(ask("application/json").await.status, 504);
}

/// An answer of this type goes on after a silence, and whoever else asks gets one of their own,
/// from its beginning, although its fields would give it a lifetime by guess.
async fn assert_goes_on_and_is_nobody_elses(kind: &'static str) {
    let origin = Origin::start(move |asked| async move {
        let (reply, pieces) = Reply::stream();
        tokio::spawn(async move {
            pieces.send(format!("data: {}\n\n", asked.number)).await;
            passed(Instant::now(), Duration::from_millis(1_500)).await;
            pieces.send("data: later\n\n").await;
            pieces.abandoned().await;
        });
        reply
            .header("content-type", kind)
            .header("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")
    })
    .await;
    let upstream = format!(
        "{{targets: [\"{}\"], timeouts: {{idle: 300ms}}}}",
        origin.url()
    );
    let gateway = Setup::new(&origin)
        .upstream("origin", &upstream)
        .policy("{ttl: 60s}")
        .start()
        .await;
    let client = gateway.client();
    let mut first = client.request("/events").open().await;
    says(&mut first, "data: 0\n\n").await;
    let mut second = client.apart().request("/events").open().await;
    says(&mut second, "data: 1\n\n").await;
    says(&mut first, "data: later\n\n").await;
    says(&mut second, "data: later\n\n").await;
}

#[tokio::test]
async fn a_silent_event_stream_is_no_failure_and_nobody_elses() {
    assert_goes_on_and_is_nobody_elses("text/event-stream").await;
}

#[tokio::test]
async fn pictures_that_replace_each_other_are_no_failure_and_nobody_elses() {
    assert_goes_on_and_is_nobody_elses("multipart/x-mixed-replace; boundary=next").await;
}

/// A body without an announced length that nobody reads: it may have no end.
#[tokio::test]
async fn a_load_that_nobody_reads_soon_ends() {
    let (reply, pieces) = Reply::stream();
    let reply = std::sync::Mutex::new(Some(reply.header("cache-control", "max-age=60")));
    let origin = Origin::pages(move |_| {
        let reply = reply.lock().unwrap().take();
        reply.unwrap_or_else(|| Reply::fresh("second"))
    })
    .await;
    let gateway = Setup::new(&origin)
        .top("cache", "{inflight: {unread_timeout: 500ms}}")
        .start()
        .await;
    let client = gateway.client();
    pieces.send("first").await;
    let mut leaving = gateway.raw().await;
    leaving
        .write(format!(
            "GET / HTTP/1.1\r\nhost: {}\r\n\r\n",
            gateway.address
        ))
        .await;
    leaving.until(b"first").await;
    leaving.reset();
    wait_until("the load is given up", SOON, || pieces.is_abandoned()).await;
    assert_eq!(client.get("/").await.text(), "second");
}
