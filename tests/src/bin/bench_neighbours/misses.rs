//! Misses, each for a page of its own of 16 KiB of text, and the gateway that has a page for hits
//! beside them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::random::Random;
use e2e::reply::Reply;
use e2e::setup::Setup;
use http::Request;
use http_body_util::Empty;
use hyper::body::Bytes;

use crate::NAME;
use crate::flood::FloodRate;
use crate::pages::ask_at_rate;

/// Octets of a page.
const PAGE: usize = 16 << 10;
/// Words of which its text consists.
const WORDS: [&str; 16] = [
    "<p class=\"item\">",
    "</p>\n",
    "cache ",
    "gateway ",
    "origin ",
    "the ",
    "of ",
    "and ",
    "a ",
    "request ",
    "answer ",
    "<b>",
    "</b> ",
    "is ",
    "stored ",
    "for ",
];

/// A gateway with the routes `/plain/*`, and `/packed/*`, whose answers are compressed.
pub async fn gateway() -> (Origin, Gateway) {
    let text = Bytes::from(text());
    let origin = Origin::pages(move |seen| match seen.path_only() {
        "/hit" => Reply::fresh(vec![b'p'; 1_024]),
        _ => Reply::fresh(text.clone()).header("content-type", "text/html"),
    })
    .await;
    let gateway = Setup::new(&origin)
        .route("{name: plain, match: {path: /plain/*}, upstream: origin}")
        .route(
            "{name: packed, match: {path: /packed/*}, upstream: origin, \
              compress: {encodings: [br, zstd, gzip]}}",
        )
        .route("{name: site, upstream: origin}")
        .top("server", "{threads: 1}")
        .top("telemetry", "{access_log: off}")
        .start()
        .await;
    (origin, gateway)
}

fn text() -> String {
    let (mut random, mut text) = (Random::new(7), String::new());
    while text.len() < PAGE {
        text.push_str(WORDS[random.below(WORDS.len() as u64) as usize]);
    }
    text
}

/// Does all of a flood of pages below this path. How many were made.
pub async fn all(address: SocketAddr, below: &str, rate: FloodRate) -> u64 {
    // Another run of the flood must not ask for the same pages.
    let next = AtomicU64::new(u64::from(std::process::id()) << 32);
    ask_at_rate(address, rate, || {
        let path = format!("{below}/{}", next.fetch_add(1, Relaxed));
        let request = Request::get(path).header("host", NAME);
        let request = request.header("accept-encoding", "gzip, br");
        request.body(Empty::new()).unwrap()
    })
    .await
}
