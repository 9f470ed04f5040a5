//! What Lamina must keep to with name servers that fail, and with services that are gone for a
//! while.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use e2e::name_server::{NameServer, RefusingNameServer, SERVFAIL, refuse_all};
use tokio::time::{Instant, sleep_until};

use super::origins::{self, AddressPair};
use super::tally::{NEVER, failures, milliseconds};
use super::{MOST_DELAY, NAME, lamina, lines, load};
use crate::client::{self, TimedExchange};
use crate::lamina::Lamina;
use crate::report::LaminaTrial;
use crate::target::FaultyTarget;

/// When it begins, after the start of the load,
const BEGINS: Duration = Duration::from_secs(2);
/// when it ends,
const ENDS: Duration = Duration::from_secs(6);
/// and when the load does.
const SPAN: Duration = Duration::from_secs(10);
/// What services are called.
const SERVICE: &str = "_http._tcp.shop.test";
/// How many targets it has, before it has none and afterwards.
const SERVED_BY: usize = 7;

/// A way in which a name server fails.
#[derive(Clone, Copy)]
enum NameOutage {
    /// It answers every question with SERVFAIL.
    Servfail,
    /// It is stopped: it answers nothing.
    Stopped,
}

/// Runs all of them.
///
/// # Errors
/// When Lamina does not start or does not serve before the fault.
pub async fn run(home: &Path) -> anyhow::Result<Vec<LaminaTrial>> {
    Ok(vec![
        failing(NameOutage::Servfail, home).await?,
        failing(NameOutage::Stopped, home).await?,
        services(home).await?,
    ])
}

/// Name servers that fail cost no request, and what has changed meanwhile is followed in time when
/// they answer again.
async fn failing(outage: NameOutage, home: &Path) -> anyhow::Result<LaminaTrial> {
    let pair = AddressPair::start().await?;
    let old = pair.old.address.ip().to_string();
    let new = pair.new.address.ip().to_string();
    let mut names = NameServer::start(&[(NAME, &[&old])]).await;
    let lamina = lamina(&pair, &names, home)?;
    client::settle(lamina.server.address).await?;
    let began = Instant::now();
    let sending = tokio::spawn(client::send(lamina.server.address, load(SPAN), began));
    sleep_until(began + BEGINS).await;
    let refusal = outage.begin(&mut names);
    names.set(&[(NAME, &[&new])]);
    sleep_until(began + ENDS).await;
    let back = began.elapsed();
    outage.end(&mut names, refusal).await;
    let exchanges = sending.await.context("the client")?;
    let failed = told_failures(outage.words(), &exchanges);
    let used = used_after(&exchanges, back, [&pair.old], [&pair.new]);
    Ok(LaminaTrial {
        what: format!(
            "{} for {} s, and the name leads to another address meanwhile: {} requests in {} s",
            outage.words(),
            (ENDS - BEGINS).as_secs(),
            exchanges.len(),
            SPAN.as_secs()
        ),
        seen: format!(
            "{failed} failed, that address alone is used {} after its end",
            milliseconds(used)
        ),
        demand: demand(),
        kept: failed == 0 && used <= MOST_DELAY,
    })
}

impl NameOutage {
    fn words(self) -> &'static str {
        match self {
            Self::Servfail => "the name server answers SERVFAIL",
            Self::Stopped => "the name server is stopped",
        }
    }

    /// Lets the name server fail; what answers in its place, if anything does.
    fn begin(self, names: &mut NameServer) -> Option<RefusingNameServer> {
        match self {
            Self::Servfail => {
                names.stop();
                Some(refuse_all(names.address, SERVFAIL))
            }
            Self::Stopped => {
                names.freeze();
                None
            }
        }
    }

    async fn end(self, names: &mut NameServer, refusal: Option<RefusingNameServer>) {
        if let Some(refusal) = refusal {
            refusal.end();
        }
        match self {
            Self::Servfail => names.start_again().await,
            Self::Stopped => names.thaw(),
        }
    }
}

/// Services that are gone for a while cost no request, and others that come are used in time.
async fn services(home: &Path) -> anyhow::Result<LaminaTrial> {
    let first = origins::beside_each_other(SERVED_BY).await?;
    let others = origins::beside_each_other(SERVED_BY).await?;
    let mut names = NameServer::start(&[(NAME, &[&first[0].address.ip().to_string()])]).await;
    names.set_services(&records(&first)).await;
    let target = format!("{{ srv: {SERVICE} }}");
    let lamina = Lamina::start_before(&target, &lines(&names), home)?;
    client::settle(lamina.server.address).await?;
    let began = Instant::now();
    let sending = tokio::spawn(client::send(lamina.server.address, load(SPAN), began));
    sleep_until(began + BEGINS).await;
    names.set_services(&[]).await;
    sleep_until(began + ENDS).await;
    let back = began.elapsed();
    names.set_services(&records(&others)).await;
    let exchanges = sending.await.context("the client")?;
    let failed = told_failures("SRV", &exchanges);
    let used = used_after(&exchanges, back, &first, &others);
    Ok(LaminaTrial {
        what: format!(
            "SRV with {SERVED_BY} targets, with none for {} s, with {SERVED_BY} others: {} requests in {} s",
            (ENDS - BEGINS).as_secs(),
            exchanges.len(),
            SPAN.as_secs()
        ),
        seen: format!(
            "{failed} failed, the others and they alone are used {} later",
            milliseconds(used)
        ),
        demand: demand(),
        kept: failed == 0 && used <= MOST_DELAY,
    })
}

/// The records of the service: name, host, port, priority and weight.
fn records(targets: &[FaultyTarget]) -> Vec<(&'static str, &'static str, u16, u16, u16)> {
    let record = |target: &FaultyTarget| (SERVICE, NAME, target.address.port(), 10, 10);
    targets.iter().map(record).collect()
}

fn demand() -> String {
    format!("0 failed, ≤ {}", milliseconds(MOST_DELAY))
}

/// From `back` until each of the others has been used and none of the first is any more.
fn used_after<'a>(
    exchanges: &[TimedExchange],
    back: Duration,
    first: impl IntoIterator<Item = &'a FaultyTarget>,
    others: impl IntoIterator<Item = &'a FaultyTarget>,
) -> Duration {
    let after = || exchanges.iter().filter(|one| one.due >= back);
    let uses = |target: &FaultyTarget| {
        let read = after().filter(|one| target.has_read(&one.path));
        read.map(|one| one.due - back).collect::<Vec<_>>()
    };
    let first = first.into_iter();
    let last = first.flat_map(|target| uses(target).into_iter().max());
    let others = others.into_iter();
    let begins = others.map(|target| uses(target).into_iter().min());
    let begins = begins.map(|begin| begin.unwrap_or(NEVER));
    last.chain(begins).max().unwrap_or(NEVER)
}

/// How many failed; what was seen instead is told.
fn told_failures(what: &str, exchanges: &[TimedExchange]) -> u64 {
    let failures = failures(exchanges);
    eprintln!("{what}: {failures:?}");
    failures.values().sum()
}
