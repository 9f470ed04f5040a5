//! What Lamina must keep to beside the table: all targets down, and one target that is asked
//! for more than it can do.

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use tokio::time::{Instant, sleep};

use crate::client::{self, ExchangeOutcome, FaultLoad};
use crate::fault::PER_SECOND;
use crate::lamina::Lamina;
use crate::origins::ThreeTargets;
use crate::report::LaminaTrial;
use crate::tally::ExchangeTally;
use crate::target::TargetBehaviour;

/// For how long all targets are down.
const DOWN: Duration = Duration::from_secs(5);
/// Pages of which there are stale copies.
const PAGES: u32 = 50;
/// Longer than copies are fresh.
const UNTIL_STALE: Duration = Duration::from_millis(2_100);
/// A target that takes so long for each request can do half of what it is asked for.
const EACH: Duration = Duration::from_millis(2_000 / PER_SECOND as u64);
/// What waits at its end stays below `load.max_concurrent`, which is another limit.
const OVERLOAD: Duration = Duration::from_secs(4);

/// How targets can be down, with the words for it.
const FAILURES: [(TargetBehaviour, &str); 3] = [
    (TargetBehaviour::Refuses, "refuse"),
    (TargetBehaviour::Resets, "reset"),
    (TargetBehaviour::Fails(503), "answer 503"),
];

/// Runs all of them.
///
/// # Errors
/// When Lamina does not start or does not serve before the fault.
pub async fn run(home: &Path) -> anyhow::Result<Vec<LaminaTrial>> {
    let mut trials = Vec::new();
    for (behaviour, words) in FAILURES {
        trials.push(attempts(behaviour, words, home).await?);
    }
    for (behaviour, words) in FAILURES {
        trials.push(stale(behaviour, words, home).await?);
    }
    trials.push(overload(home).await?);
    Ok(trials)
}

/// Requests that nobody can answer are not multiplied, also where retries were saved up before.
async fn attempts(
    behaviour: TargetBehaviour,
    words: &str,
    home: &Path,
) -> anyhow::Result<LaminaTrial> {
    let mut origins = ThreeTargets::start().await?;
    let lamina = Lamina::start(&origins.addresses(), "", home)?;
    client::settle(lamina.server.address).await?;
    let before = lamina.attempts().await?;
    let arrived = origins.arrivals.attempts();
    origins.all(behaviour).await?;
    let load = get(DOWN, |number| format!("/{number}"));
    let exchanges = client::send(lamina.server.address, load, Instant::now()).await;
    // Its own count has also those that have reached nobody.
    let attempts = (lamina.attempts().await? - before).max(origins.arrivals.attempts() - arrived);
    let requests = exchanges.len() as u64;
    let most = requests * 12 / 10 + 3 * DOWN.as_secs();
    Ok(LaminaTrial {
        what: format!(
            "all targets {words}: {requests} requests in {} s",
            DOWN.as_secs()
        ),
        seen: format!("{attempts} attempts"),
        demand: format!("≤ 1.2 × requests + 3/s = {most}"),
        kept: attempts <= most,
    })
}

/// Every copy that may be served while there are errors is served.
async fn stale(
    behaviour: TargetBehaviour,
    words: &str,
    home: &Path,
) -> anyhow::Result<LaminaTrial> {
    let mut origins = ThreeTargets::start().await?;
    let lamina = Lamina::start(&origins.addresses(), "", home)?;
    let address = lamina.server.address;
    client::settle(address).await?;
    for number in 0..PAGES {
        let outcome = client::ask(address, "GET", &page(number)).await;
        ensure!(outcome == ExchangeOutcome::Right, "warming: {outcome:?}");
    }
    sleep(UNTIL_STALE).await;
    origins.all(behaviour).await?;
    let exchanges = client::send(address, get(DOWN, page), Instant::now()).await;
    let tally = ExchangeTally::of(&exchanges, &origins.arrivals, Duration::ZERO);
    let served = tally.requests - tally.failed;
    eprintln!("all {words}, stale: {:?}", tally.failures);
    Ok(LaminaTrial {
        what: format!("all targets {words}, {PAGES} pages with stale copies"),
        seen: format!(
            "{served} of {} requests got one, {} slow",
            tally.requests, tally.slow
        ),
        demand: "all".to_owned(),
        kept: tally.failed == 0,
    })
}

/// A target that is slow because it has too much to do answers everybody in the end.
async fn overload(home: &Path) -> anyhow::Result<LaminaTrial> {
    let mut origins = ThreeTargets::start().await?;
    let only = &mut origins.targets[0];
    let lamina = Lamina::start(&[only.address], "", home)?;
    client::settle(lamina.server.address).await?;
    only.behave(TargetBehaviour::InTurn(EACH)).await?;
    let load = get(OVERLOAD, |number| format!("/{number}"));
    let exchanges = client::send(lamina.server.address, load, Instant::now()).await;
    let tally = ExchangeTally::of(&exchanges, &origins.arrivals, Duration::ZERO);
    let slowest = exchanges
        .iter()
        .map(|one| one.took)
        .max()
        .unwrap_or_default();
    eprintln!("overload: {:?}", tally.failures);
    Ok(LaminaTrial {
        what: format!(
            "one target under twice its load: {} requests in {} s",
            tally.requests,
            OVERLOAD.as_secs()
        ),
        seen: format!(
            "{} refused, the slowest took {:.1} s",
            tally.failed,
            slowest.as_secs_f64()
        ),
        demand: "0 refused".to_owned(),
        kept: tally.failed == 0,
    })
}

fn get(span: Duration, path: fn(u32) -> String) -> FaultLoad {
    FaultLoad {
        method: "GET",
        per_second: PER_SECOND,
        span,
        path,
    }
}

fn page(number: u32) -> String {
    format!("/cached/{}", number % PAGES)
}
