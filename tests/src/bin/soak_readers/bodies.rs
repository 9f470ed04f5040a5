//! What is read: bodies that reach a client in different ways, and the origin that has them.

use std::time::Duration;

use bytes::Bytes;
use e2e::h3::pattern;
use e2e::origin::Origin;
use e2e::reply::Reply;

use super::ways::ClientWay;

/// What a reader takes in a second.
pub const A_SECOND: usize = 1 << 10;

/// How a body comes to its reader.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BodyKind {
    /// It is in the cache.
    Hit,
    /// It is loaded and stored while the client reads.
    Miss,
    /// The same, but its origin is no faster than the client.
    Trickle,
    /// It is too large to be stored, so that its origin waits for the client.
    Large,
    /// Its route has no cache.
    Passed,
}

impl BodyKind {
    pub const ALL: [Self; 5] = [
        Self::Hit,
        Self::Miss,
        Self::Trickle,
        Self::Large,
        Self::Passed,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Hit => "a hit",
            Self::Miss => "a miss",
            Self::Trickle => "a miss whose origin sends 1 KB/s",
            Self::Large => "a miss too large to be stored",
            Self::Passed => "past the cache",
        }
    }

    /// Where it is. A hit is everybody's, and each other body one way's alone.
    pub fn path(self, way: ClientWay) -> String {
        match self {
            Self::Hit => "/hit".to_owned(),
            Self::Miss => format!("/miss/{}", way.number()),
            Self::Trickle => format!("/trickle/{}", way.number()),
            Self::Large => format!("/large/{}", way.number()),
            Self::Passed => format!("/passed/{}", way.number()),
        }
    }
}

/// The bytes of all bodies. Clones share them.
#[derive(Clone)]
pub struct SoakBodies {
    usual: Bytes,
    trickle: Bytes,
    large: Bytes,
}

impl SoakBodies {
    /// Larger than what can be read in this time, except for what the origin sends at that pace.
    pub fn new(span: Duration) -> Self {
        let read = usize::try_from(span.as_secs()).unwrap() * A_SECOND;
        Self {
            usual: pattern((4 << 20).max(read + (256 << 10))),
            trickle: pattern(read),
            large: pattern((9 << 20).max(read + (256 << 10))),
        }
    }

    pub fn of(&self, kind: BodyKind) -> &Bytes {
        match kind {
            BodyKind::Hit | BodyKind::Miss => &self.usual,
            BodyKind::Trickle => &self.trickle,
            BodyKind::Large | BodyKind::Passed => &self.large,
        }
    }

    pub async fn origin(&self) -> Origin {
        let bodies = self.clone();
        Origin::pages(move |seen| {
            let body = match seen.path.split('/').nth(1) {
                Some("hit" | "miss") => &bodies.usual,
                Some("trickle") => return trickle(bodies.trickle.clone()),
                _ => &bodies.large,
            };
            Reply::ok(body.clone()).header("cache-control", "max-age=86400")
        })
        .await
    }
}

/// Sends a body at the pace of its readers.
fn trickle(body: Bytes) -> Reply {
    let (reply, pieces) = Reply::stream();
    let length = body.len().to_string();
    tokio::spawn(async move {
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        let mut rest = body;
        while !rest.is_empty() {
            seconds.tick().await;
            let piece = rest.split_to(A_SECOND.min(rest.len()));
            if !pieces.send(piece).await {
                return;
            }
        }
        pieces.finish().await;
    });
    reply
        .header("content-length", &length)
        .header("cache-control", "max-age=86400")
}
