//! What a hostile client may write on an HTTP/1 connection, and what comes of it
//! (http.md, Bad input: framing, sizes), in clear text and over TLS. The bytes are in
//! `e2e::attack::http1`.
//!
//! Who refuses what: hyper by itself what has no other reading (names, values, folds,
//! coded HTTP/1.0, broken chunks); `http::guard::framing` what hyper repairs (a length
//! beside a coding or twice, bare LF, fragments, loose trailers); `http::guard` what is
//! well-formed and still refused (Host, targets, codings, sizes).

use std::sync::{Arc, Mutex};

use e2e::attack::bytes::{Case, Expected, SMUGGLED};
use e2e::attack::{Before, HOSTS, http1, http1_bodies};
use e2e::client::Client;
use e2e::front::{Front, FrontDoor, Fronted};
use e2e::origin::Origin;
use e2e::raw::RawConnection;
use e2e::reply::Reply;
use e2e::setup::Setup;
use http_body_util::BodyExt;

/// A path for the requests between attacks.
const SANE: &str = "/sane";

/// An origin that notes the path of every request and whether its body came to its end.
struct UploadSite {
    origin: Origin,
    fronted: Fronted,
    door: FrontDoor,
    whole: Arc<Mutex<Vec<String>>>,
}

impl UploadSite {
    async fn start(front: Front) -> Self {
        let whole = Arc::new(Mutex::new(Vec::new()));
        let noted = whole.clone();
        let origin = Origin::start(move |asked| {
            let noted = noted.clone();
            async move {
                let path = asked.seen.path.clone();
                if asked.body.collect().await.is_ok() {
                    noted.lock().unwrap().push(path);
                }
                Reply::ok("x").header("cache-control", "no-store")
            }
        })
        .await;
        let fronted = front.start(Setup::new(&origin), &HOSTS).await;
        Self {
            origin,
            door: fronted.bytes().await,
            fronted,
            whole,
        }
    }

    fn paths_but_sane(paths: impl IntoIterator<Item = String>) -> Vec<String> {
        paths.into_iter().filter(|path| path != SANE).collect()
    }

    /// Runs one after the other; the gateway must be as before after each.
    async fn withstands(&self, attacks: Vec<Case>) {
        let (mut failures, client) = (Vec::new(), Client::http1(self.door.address));
        // Opens the connections that stay.
        assert_eq!(client.get(SANE).await.status, 200);
        for attack in attacks {
            let held = Before::of(&self.fronted.gateway);
            let (before, whole) = (self.begun().len(), self.ended().len());
            let outcome = attack.run(self.door.address).await;
            failures.extend(attack.judge(&outcome).err());
            assert_eq!(client.get(SANE).await.status, 200, "after {}", attack.name);
            held.is_back(&self.fronted.gateway, attack.name).await;
            let (begun, ended) = (&self.begun()[before..], self.ended().len() - whole);
            let untouched = match attack.expected {
                Expected::Refused(_) => begun.is_empty(),
                Expected::BrokenOff(_) => ended == 0,
                Expected::Answered(_) => true,
            };
            if !untouched || begun.iter().any(|path| path.starts_with(SMUGGLED)) {
                failures.push(format!("{}: the origin saw {begun:?}", attack.name));
            }
        }
        assert!(failures.is_empty(), "{}", failures.join("\n"));
    }

    fn begun(&self) -> Vec<String> {
        Self::paths_but_sane(self.origin.seen().into_iter().map(|seen| seen.path))
    }

    fn ended(&self) -> Vec<String> {
        Self::paths_but_sane(self.whole.lock().unwrap().clone())
    }
}

#[tokio::test]
async fn a_head_that_has_two_readings_is_refused_and_nothing_is_smuggled() {
    let site = UploadSite::start(Front::Clear).await;
    site.withstands(http1::heads()).await;
}

#[tokio::test]
async fn a_head_that_has_two_readings_is_refused_over_tls() {
    let site = UploadSite::start(Front::TlsHttp1).await;
    site.withstands(http1::heads()).await;
}

#[tokio::test]
async fn a_body_that_breaks_off_never_ends_at_the_origin() {
    let site = UploadSite::start(Front::Clear).await;
    site.withstands(http1_bodies::bodies()).await;
}

#[tokio::test]
async fn a_body_that_breaks_off_over_tls_never_ends_at_the_origin() {
    let site = UploadSite::start(Front::TlsHttp1).await;
    site.withstands(http1_bodies::bodies()).await;
}

#[tokio::test]
async fn an_attack_that_comes_byte_by_byte_fares_no_better() {
    byte_by_byte(Front::Clear).await;
}

#[tokio::test]
async fn an_attack_that_comes_byte_by_byte_over_tls_fares_no_better() {
    byte_by_byte(Front::TlsHttp1).await;
}

async fn byte_by_byte(front: Front) {
    let site = UploadSite::start(front).await;
    let (mut sent, mut judged) = (0, 0);
    for attack in http1::heads() {
        if attack.bytes.len() > 400 {
            continue;
        }
        let refused = matches!(attack.expected, Expected::Refused(_));
        sent += usize::from(refused);
        let begun = site.begun().len();
        let mut raw = RawConnection::open(site.door.address).await;
        for byte in &attack.bytes {
            if !raw.try_write(&[*byte]).await {
                break;
            }
        }
        raw.finish().await;
        let text = String::from_utf8_lossy(&raw.to_end().await).into_owned();
        // Reset while it still writes, a client may lose the answer.
        if let (Expected::Refused(any), false) = (attack.expected, text.is_empty()) {
            let status = text.get(9..12).and_then(|status| status.parse().ok());
            assert!(
                status.is_some_and(|status| any.contains(&status)),
                "{}: {text}",
                attack.name
            );
            judged += 1;
        }
        if refused {
            assert_eq!(site.begun().len(), begun, "{}", attack.name);
        }
    }
    assert!(
        sent > 20 && judged * 2 > sent,
        "{judged} answers to {sent} attacks were seen"
    );
    assert!(!site.begun().iter().any(|path| path.starts_with(SMUGGLED)));
}
