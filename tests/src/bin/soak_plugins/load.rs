//! Clients that ask every plugin's route in turn and judge each answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use e2e::client::Client;
use e2e::random::Random;

use crate::site::{self, HOSTED, HostedPlugin};

/// Pages of each route.
const PAGES: usize = 2_000;
/// One request in so many goes to the route that traps.
const TRAPS: usize = 100;

/// What was answered on one route.
#[derive(Default)]
pub struct RouteAnswers {
    pub right: AtomicU64,
    pub wrong: AtomicU64,
    pub failed: AtomicU64,
}

/// The same for all routes, in the order of [`HOSTED`].
#[derive(Default)]
pub struct AnswerTally([RouteAnswers; HOSTED.len()]);

impl AnswerTally {
    /// Name, right, wrong and failed of each route.
    pub fn routes(&self) -> Vec<(&'static str, u64, u64, u64)> {
        let count = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let each = HOSTED.iter().zip(&self.0);
        each.map(|(hosted, a)| {
            (
                hosted.name,
                count(&a.right),
                count(&a.wrong),
                count(&a.failed),
            )
        })
        .collect()
    }
}

/// Asks until it is stopped.
pub async fn ask(client: Client, seed: usize, stop: Arc<AtomicBool>, tally: Arc<AnswerTally>) {
    let mut random = Random::new(seed as u64);
    let trap = HOSTED.len() - 1;
    let mut n = seed;
    while !stop.load(Ordering::Relaxed) {
        n += 1;
        let at = if n.is_multiple_of(TRAPS) {
            trap
        } else {
            n % trap
        };
        let page = random.below(PAGES as u64) as usize;
        one(&client, &HOSTED[at], page, &tally.0[at]).await;
    }
}

async fn one(client: &Client, hosted: &HostedPlugin, page: usize, answers: &RouteAnswers) {
    let ask = client
        .request(&format!("{}?utm_source=x", site::path(hosted, page)))
        .header("cookie", &format!("visitor=v{page}"))
        .header("x-country", "DE");
    let counter = match ask.try_send().await {
        Ok(answer) if answer.status != 200 => {
            eprintln!(
                "{}/{page}: {} {}",
                hosted.name,
                answer.status,
                answer.text()
            );
            &answers.failed
        }
        Ok(answer) if site::is_right(hosted, page, answer.text()) => &answers.right,
        Ok(answer) => {
            eprintln!("{}/{page}: wrong: {}", hosted.name, answer.text());
            &answers.wrong
        }
        Err(error) => {
            eprintln!("{}/{page}: {error:?}", hosted.name);
            &answers.failed
        }
    };
    counter.fetch_add(1, Ordering::Relaxed);
}
