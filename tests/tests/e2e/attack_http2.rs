//! HTTP/2 requests that are malformed: each gets what its RFC says, and nothing of them
//! reaches an HTTP/1 origin (http.md, Bad input), in clear text and over TLS. The requests are in
//! `e2e::attack::http2`.

use e2e::attack::http2::{self, Gets, Malformed};
use e2e::attack::{Before, HOSTS};
use e2e::client::Client;
use e2e::front::{Front, Fronted};
use e2e::h2raw::{End, H2, code, frame, get, kind, post, reset};
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::tap::Tap;
use e2e::wait::{SOON, within};
use http_body_util::BodyExt;

/// An origin behind a tap, and a gateway before it.
async fn tapped(front: Front) -> (Origin, Tap, Fronted) {
    let origin = Origin::pages(|_| Reply::ok("page")).await;
    let tap = Tap::before(origin.address()).await;
    let upstream = format!("\"{}\"", tap.url());
    let setup = Setup::new(&origin).upstream("origin", &upstream);
    let fronted = front.start(setup, &HOSTS).await;
    (origin, tap, fronted)
}

/// Sends each of a table and looks at what it gets, what the origin got, what is left.
async fn each(front: Front, table: &[Malformed]) {
    let (origin, tap, fronted) = tapped(front).await;
    let door = fronted.bytes().await;
    let client = || Client::http2(door.address);
    client().get("/").await;
    let before = Before::of(&fronted.gateway);
    let mut faults = Vec::new();
    for attack in table {
        tap.forget();
        let (gets, mut h2) = http2::send(door.address, attack).await;
        if gets != Some(attack.gets) {
            faults.push(format!("{}: {gets:?}, not {:?}", attack.name, attack.gets));
        }
        if matches!(gets, Some(Gets::Reset | Gets::Status(_))) {
            h2.write(get(101, "/after")).await;
            let after = h2.end_of(101).await;
            let body = b"page".to_vec();
            if after != (End::Answered { status: 200, body }) {
                faults.push(format!("{}: afterwards {after:?}", attack.name));
            }
        }
        let heard = tap.text();
        if heard.to_ascii_lowercase().contains("smuggled") && !is_cut(attack, &origin) {
            faults.push(format!("{}: the origin got {heard:?}", attack.name));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert_eq!(client().get("/").await.text(), "page");
    before.is_back(&fronted.gateway, "malformed requests").await;
}

/// A body that turns out wrong after its head was passed on: the origin must have been
/// cut off, so that it never saw the request whole.
fn is_cut(attack: &Malformed, origin: &Origin) -> bool {
    let body = http2::BODIES.iter().any(|body| body.name == attack.name);
    let seen = origin.seen();
    let whole = |seen: &e2e::origin::Seen| {
        seen.path == "/smuggled" && seen.body.as_deref() == Some(b"whole")
    };
    body && !seen.iter().any(whole)
}

#[tokio::test]
async fn malformed_heads_are_refused_and_nothing_of_them_is_forwarded() {
    each(Front::Clear, http2::HEADS).await;
}

#[tokio::test]
async fn malformed_heads_are_refused_over_tls() {
    each(Front::TlsHttp2, http2::HEADS).await;
}

#[tokio::test]
async fn malformed_fields_are_refused_and_nothing_of_them_is_forwarded() {
    each(Front::Clear, http2::FIELDS).await;
}

#[tokio::test]
async fn malformed_fields_are_refused_over_tls() {
    each(Front::TlsHttp2, http2::FIELDS).await;
}

#[tokio::test]
async fn bodies_that_are_not_as_announced_never_arrive_whole() {
    each(Front::Clear, http2::BODIES).await;
}

#[tokio::test]
async fn bodies_that_are_not_as_announced_never_arrive_whole_over_tls() {
    each(Front::TlsHttp2, http2::BODIES).await;
}

#[tokio::test]
async fn frames_out_of_place_end_the_connection() {
    each(Front::Clear, http2::FRAMES).await;
}

#[tokio::test]
async fn frames_out_of_place_end_the_connection_over_tls() {
    each(Front::TlsHttp2, http2::FRAMES).await;
}

/// hyper takes a reset with NO_ERROR for the end of the body; the origin must not.
#[tokio::test]
async fn an_upload_that_its_client_resets_never_arrives_whole() {
    let (send, mut whole) = tokio::sync::mpsc::unbounded_channel();
    let origin = Origin::start(move |asked| {
        let send = send.clone();
        async move {
            let _ = send.send(asked.body.collect().await.is_ok());
            Reply::ok("page")
        }
    })
    .await;
    let gateway = Setup::new(&origin).start().await;
    for (n, code) in [code::NO_ERROR, code::CANCEL].into_iter().enumerate() {
        let mut h2 = H2::open(gateway.address).await;
        let begin = [
            post(1, "/upload", &[]),
            frame(kind::DATA, 0, 1, b"half of it"),
        ];
        h2.write(begin.concat()).await;
        origin.saw(n + 1).await;
        h2.write(reset(1, code)).await;
        let whole = within("the upload's end", SOON, whole.recv()).await;
        assert_eq!(whole, Some(false), "code {code}");
    }
}
