//! What a password costs a hit that is asked for a thousand times a second.

use std::fmt::Write as _;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use e2e::origin::{Origin, Seen};
use e2e::process::cpu;
use e2e::reply::Reply;
use e2e::setup::Setup;
use http::Request;
use http_body_util::Empty;

use crate::flood::FloodRate;
use crate::pages::ask_at_rate;
use crate::{NAME, pin_gateway, report};

/// A user, and what it sends. How dear the hash is makes no difference after the first request.
const USER: &str = "alice:$2b$04$abcdefghijklmnopqrstuujZkTwHUiJ9XdZPwKfcfDo7dMp5DjlTu\n";
const USER_SENDS: &str = "alice:wonderland";
const PER_SECOND: u64 = 1_000;

/// Asks for a page that anybody gets, and for one that a user gets. The share of a core that each
/// takes, as Markdown.
pub async fn cost(span: Duration, rounds: u64) -> String {
    // Both are stored, also for requests with `Authorization` (RFC 9111 §3.5).
    let page =
        |_: &Seen| Reply::ok(vec![b'p'; 1_024]).header("cache-control", "public, max-age=3600");
    let origin = Origin::pages(page).await;
    let gateway = Setup::new(&origin)
        .file("users.htpasswd", USER)
        .route("{name: members, match: {path: /members}, upstream: origin, auth: {basic: users.htpasswd}}")
        .route("{name: site, upstream: origin}")
        .top("server", "{threads: 1}")
        .top("telemetry", "{access_log: off}")
        .start()
        .await;
    pin_gateway(&gateway);
    let authorization = format!("Basic {}", STANDARD.encode(USER_SENDS));
    let rate = FloodRate {
        per_second: PER_SECOND,
        span,
    };
    let asked = [
        ("a page for anybody", "/open"),
        ("a page for users", "/members"),
    ];
    let mut shares = asked.map(|_| Vec::new());
    for _ in 0..rounds {
        for (shares, (_, path)) in shares.iter_mut().zip(asked) {
            let request = || {
                let request = Request::get(path).header("host", NAME);
                let request = request.header("authorization", &authorization);
                request.body(Empty::new()).unwrap()
            };
            let before = cpu(gateway.process_id());
            let made = ask_at_rate(gateway.address, rate, request).await;
            let taken = cpu(gateway.process_id()) - before;
            assert!(made > 0, "nothing was asked for");
            shares.push(taken.as_secs_f64() / span.as_secs_f64() * 100.0);
        }
    }
    table(&asked.map(|(what, ..)| what), &shares)
}

fn table(asked: &[&str], shares: &[Vec<f64>]) -> String {
    let mut text = format!(
        "### A password\n\n{PER_SECOND} hits a second of one user; the middle one of the rounds.\n\n\
         | asked for | CPU, % of a core |\n|---|---|\n"
    );
    for (what, shares) in asked.iter().zip(shares) {
        let _ = writeln!(text, "| {what} | {:.1} |", report::median(shares.clone()));
    }
    text
}
