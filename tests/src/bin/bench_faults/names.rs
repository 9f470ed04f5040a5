//! What a change of a name costs those who ask, with Lamina and with proxies that follow names:
//! the scenario `names`.
//!
//! Two origins of this program listen at the same port of two addresses, and both live all the
//! time. A real name server ([`NameServer`]) leads [`NAME`] first to the one, then to the other,
//! then says that the name does not exist, and leads it to the first again ([`run`]). Beside the
//! table there are trials of Lamina alone ([`trials`]): name servers that fail in other ways, and
//! services that are gone for a while.

mod origins;
mod peers;
pub mod report;
mod tally;
pub mod trials;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use e2e::name_server::NameServer;
use e2e::process::Server;
use tokio::time::{Instant, sleep_until};

use crate::client::{self, FaultLoad};
use crate::lamina::Lamina;
use crate::report::MeasuredProxy;
use crate::rounds::MeasuredRounds;
use origins::AddressPair;
pub use peers::follows_names;
use report::NameRow;
use tally::{NameChanges, NameTally};

/// On the command line.
pub const WORD: &str = "names";
/// What origins are called.
const NAME: &str = "app.test";
/// Requests a second.
const PER_SECOND: u32 = 100;
/// Long enough for a proxy that needs ten seconds to come back.
const SPAN: Duration = Duration::from_secs(25);
/// When the name leads to the other address, after the start of the load,
const MOVES: Duration = Duration::from_secs(3);
/// when it does not exist,
const VANISHES: Duration = Duration::from_secs(7);
/// and when it leads to the first address again.
const RETURNS: Duration = Duration::from_secs(11);
/// For how long records of the name server live; Lamina's `floor` is the same here.
const TIME_TO_LIVE: Duration = Duration::from_secs(1);
/// By when a new answer must be followed (issue 16): the greater of time to live and `floor`,
/// and a second.
const MOST_DELAY: Duration = TIME_TO_LIVE.saturating_add(Duration::from_secs(1));

/// Fails early where the scenario can't be measured.
///
/// # Errors
/// When there is no `dnsmasq`.
pub fn check_tools() -> anyhow::Result<()> {
    let asked = Command::new("dnsmasq").arg("--version").output();
    asked.context("dnsmasq, the name server (dnsmasq-base; `make bench-faults` installs it)")?;
    Ok(())
}

/// The row of a subject, if it follows names.
pub async fn row(
    subject: MeasuredProxy,
    program: Result<&Path, &String>,
    rounds: usize,
) -> NameRow {
    let what = format!("{} {WORD}", subject.name());
    let run = async |program: &Path| run(subject, program).await;
    NameRow {
        subject,
        rounds: MeasuredRounds::measure(&what, program, rounds, run).await,
    }
}

/// One run.
async fn run(subject: MeasuredProxy, program: &Path) -> anyhow::Result<NameTally> {
    let home = tempfile::tempdir().context("a folder for the proxy's files")?;
    let pair = AddressPair::start().await?;
    let old = pair.old.address.ip().to_string();
    let new = pair.new.address.ip().to_string();
    let names = NameServer::start(&[(NAME, &[&old])]).await;
    let server = start(subject, program, &pair, &names, home.path())?;
    client::settle(server.address).await?;
    let began = Instant::now();
    let sending = tokio::spawn(client::send(server.address, load(SPAN), began));
    let change = async |at: Duration, known: &[(&str, &[&str])]| {
        sleep_until(began + at).await;
        let now = began.elapsed();
        names.set(known);
        now
    };
    let changes = NameChanges {
        moved: change(MOVES, &[(NAME, &[&new])]).await,
        vanished: change(VANISHES, &[]).await,
        returned: change(RETURNS, &[(NAME, &[&old])]).await,
    };
    let exchanges = sending.await.context("the client")?;
    let asked = |path: &str| pair.asked(path);
    Ok(NameTally::of(exchanges, asked, &changes))
}

/// Starts a subject before the name.
fn start(
    subject: MeasuredProxy,
    program: &Path,
    pair: &AddressPair,
    names: &NameServer,
    home: &Path,
) -> anyhow::Result<Server> {
    match subject {
        MeasuredProxy::Lamina => Ok(lamina(pair, names, home)?.server),
        MeasuredProxy::Peer(peer, _) => peers::start(peer, program, pair.port(), names, home),
    }
}

/// Lamina with the addresses of the name as its targets.
fn lamina(pair: &AddressPair, names: &NameServer, home: &Path) -> anyhow::Result<Lamina> {
    let target = format!("{{ dns: {NAME}, port: {} }}", pair.port());
    Lamina::start_before(&target, &lines(names), home)
}

/// What Lamina's upstream has beside its defaults.
fn lines(names: &NameServer) -> String {
    format!("    {}\n", names.resolver())
}

fn load(span: Duration) -> FaultLoad {
    FaultLoad {
        method: "GET",
        per_second: PER_SECOND,
        span,
        path: |number| format!("/{number}"),
    }
}
