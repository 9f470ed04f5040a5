//! A client that reads a body at a steady 1 KB/s, and compares it.

use std::time::Duration;

use tokio::time::Instant;

use super::bodies::{A_SECOND, BodyKind, SoakBodies};
use super::ways::{ClientWay, GatewayWays};

/// What became of a reader.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReadOutcome {
    /// It has the whole body, and each byte is right.
    Whole {
        /// The longest that it waited for bytes that it was due to read, beyond its pace.
        waited: Duration,
    },
    /// A byte was wrong.
    Wrong { at: usize },
    /// It got so much, and then this.
    Cut {
        at: usize,
        after: Duration,
        why: String,
    },
}

/// Every way with every kind of body.
pub fn all() -> impl Iterator<Item = (ClientWay, BodyKind)> {
    let kinds = |way| BodyKind::ALL.into_iter().map(move |kind| (way, kind));
    ClientWay::ALL.into_iter().flat_map(kinds)
}

/// Reads for so long, each second what is due then, and the rest at once.
pub async fn read(
    ways: GatewayWays,
    way: ClientWay,
    kind: BodyKind,
    bodies: SoakBodies,
    span: Duration,
) -> ReadOutcome {
    let start = Instant::now();
    let cut = |at, why| ReadOutcome::Cut {
        at,
        after: start.elapsed(),
        why,
    };
    let body = bodies.of(kind);
    let mut arriving = match ways.ask(way, &kind.path(way)).await {
        Ok(arriving) => arriving,
        Err(why) => return cut(0, why),
    };
    let (mut read, mut waited) = (0, Duration::ZERO);
    for second in 0..span.as_secs() {
        arriving
            .rest_until(start + Duration::from_secs(second))
            .await;
        let due = Instant::now();
        match arriving.read(A_SECOND.min(body.len() - read)).await {
            Ok(bytes) if body[read..].starts_with(&bytes) => read += bytes.len(),
            Ok(_) => return ReadOutcome::Wrong { at: read },
            Err(why) => return cut(read, why),
        }
        waited = waited.max(due.elapsed());
    }
    match arriving.read(body.len() - read).await {
        Ok(bytes) if body[read..] == bytes => ReadOutcome::Whole { waited },
        Ok(_) => ReadOutcome::Wrong { at: read },
        Err(why) => cut(read, why),
    }
}
