//! Clients that behave, over both protocols: each body that they get is compared with what
//! it must be.

use std::sync::Arc;

use e2e::client::{Client, Failure};
use e2e::random::Random;
use e2e::reply::Reply;
use tokio::task::JoinSet;

use crate::report::AttackReport;
use crate::ways::AttackedGateway;

/// Clients of each protocol.
const CLIENTS: u64 = 4;
/// Pages; some of them are stored, for a second or for long, some are not.
const PAGES: u64 = 400;

/// Starts the clients; they end when the set is dropped.
pub fn start(ways: &AttackedGateway, report: &Arc<AttackReport>) -> JoinSet<()> {
    let mut clients = JoinSet::new();
    for n in 0..CLIENTS {
        for client in ways.clients() {
            clients.spawn(ask(client, Random::new(n), Arc::clone(report)));
        }
    }
    clients
}

/// What the origin answers to this path; `None` for paths that are not the load's.
pub fn page(path: &str) -> Option<Reply> {
    let number = path.strip_prefix("/page/")?.parse().ok()?;
    let control = match number % 4 {
        0 => "no-store",
        1 => "max-age=1",
        _ => "max-age=3600",
    };
    let etag = format!("\"{number}\"");
    let reply = Reply::ok(content(number)).header("etag", &etag);
    Some(reply.header("cache-control", control))
}

/// The page's bytes: of a few lengths, and no two pages alike.
fn content(number: u64) -> Vec<u8> {
    let mut random = Random::new(number);
    let length = match number % 10 {
        0 => 200_000,
        1..=3 => 20_000,
        _ => 500,
    };
    let line = format!("page {number}, line {}\n", random.number());
    line.bytes().cycle().take(length).collect()
}

async fn ask(client: Client, mut random: Random, report: Arc<AttackReport>) {
    loop {
        let number = random.below(PAGES);
        let path = format!("/page/{number}");
        let mut outcome = client.request(&path).try_send().await;
        // On a machine that stands still for a while, a connection is closed for its silence at the
        // moment that it is used again; clients ask once more then (RFC 9112 §9.3.1).
        if let Err(Failure::NoAnswer(_)) = outcome {
            report.asked_again();
            outcome = client.request(&path).try_send().await;
        }
        match outcome {
            Ok(answer) if answer.status == 200 && answer.body == content(number) => {
                report.right();
            }
            // The gateway refuses what is too much at once (503), or says that the origin
            // did not answer; it says so in words of its own.
            Ok(answer) if answer.status.is_server_error() && answer.has("proxy-status") => {
                report.refused();
            }
            Ok(answer) => report.wrong(format!("page {number}: {answer:.200?}")),
            Err(Failure::Cut { so_far, .. }) if content(number).starts_with(&so_far) => {
                report.cut(format!("page {number} was cut"));
            }
            Err(failure) => report.wrong(format!("page {number}: {failure:.200?}")),
        }
    }
}
