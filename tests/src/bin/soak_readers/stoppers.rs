//! Clients that stop reading, again and again: when are they cut?

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::bodies::{A_SECOND, BodyKind, SoakBodies};
use super::ways::{ArrivingBody, ClientWay, GatewayWays};

/// How long a client waits for its end before it is said that there was none.
const PATIENCE: Duration = Duration::from_secs(200);
/// Between two looks at the kernel's table.
const LOOK: Duration = Duration::from_millis(500);
/// How long one that reads for a while does so.
const A_WHILE: u64 = 20;

/// When a client stops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StopsWhen {
    /// It reads nothing of the body.
    AtOnce,
    /// It has read 1 KB/s for a while.
    AfterAWhile,
}

impl StopsWhen {
    pub fn name(self) -> &'static str {
        match self {
            Self::AtOnce => "at once",
            Self::AfterAWhile => "after 20 s at 1 KB/s",
        }
    }
}

/// The times of one way from the last byte that was read to the cut; `None` where there was none.
pub struct StoppedReaders {
    pub way: ClientWay,
    pub times: Vec<(StopsWhen, Option<Duration>)>,
}

/// Stops in both manners by turns until the time is over.
pub async fn stop(
    ways: GatewayWays,
    way: ClientWay,
    bodies: SoakBodies,
    span: Duration,
) -> StoppedReaders {
    let start = Instant::now();
    let mut times = Vec::new();
    while times.len() < 2 || start.elapsed() + Duration::from_secs(90) < span {
        let when = match times.len() % 2 {
            0 => StopsWhen::AtOnce,
            _ => StopsWhen::AfterAWhile,
        };
        times.push((when, once(&ways, way, when, &bodies).await));
    }
    StoppedReaders { way, times }
}

async fn once(
    ways: &GatewayWays,
    way: ClientWay,
    when: StopsWhen,
    bodies: &SoakBodies,
) -> Option<Duration> {
    let body = bodies.of(BodyKind::Hit);
    let mut arriving = ways.ask(way, &BodyKind::Hit.path(way)).await.unwrap();
    if when == StopsWhen::AfterAWhile {
        let start = Instant::now();
        for second in 0..A_WHILE {
            arriving
                .rest_until(start + Duration::from_secs(second))
                .await;
            let read = arriving.read(A_SECOND).await.unwrap();
            let at = usize::try_from(second).unwrap() * A_SECOND;
            assert!(body[at..].starts_with(&read));
        }
    }
    let start = Instant::now();
    let cut = cut(&mut arriving, ways.remote(way));
    timeout(PATIENCE, cut).await.ok().map(|()| start.elapsed())
}

async fn cut(arriving: &mut ArrivingBody, gateway: SocketAddr) {
    if arriving.hears_of_its_end() {
        return arriving.is_cut().await;
    }
    while is_established(gateway, arriving.local) {
        sleep(LOOK).await;
    }
}

/// Whether the gateway's side of a connection is still open, according to the kernel.
fn is_established(gateway: SocketAddr, client: SocketAddr) -> bool {
    const ESTABLISHED: &str = "01";
    let ends = [gateway, client].map(|end| format!(":{:04X}", end.port()));
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    table.lines().any(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let ends_are = ends
            .iter()
            .all(|end| fields.next().is_some_and(|f| f.ends_with(end)));
        ends_are && fields.next() == Some(ESTABLISHED)
    })
}
