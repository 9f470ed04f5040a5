//! The three caches of the run, each with a cache that nobody else uses and its own origin.

use std::sync::Arc;

use anyhow::Context;
use e2e::client::Client;
use e2e::front::{Front, FrontDoor, Fronted};
use e2e::origin::Origin;
use e2e::peers;
use e2e::process::Server;
use e2e::setup::Setup;
use tempfile::TempDir;

use crate::script::{OriginRecord, RunScript};

/// Whom ours is compared with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum PeerCache {
    Nginx,
    Varnish,
}

impl PeerCache {
    pub const ALL: [Self; 2] = [Self::Nginx, Self::Varnish];

    pub fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Varnish => "varnish",
        }
    }
}

/// A cache, how to ask it, and what its origin noted.
pub struct ComparedCache {
    pub client: Client,
    pub record: OriginRecord,
    _origin: Origin,
    _process: ComparedProcess,
}

/// Ends with its subject.
enum ComparedProcess {
    Ours(#[allow(dead_code, reason = "held for its Drop")] Box<(Fronted, FrontDoor)>),
    Theirs(#[allow(dead_code, reason = "held for its Drop")] Server),
}

/// All of them, ours first, then in the order of [`PeerCache::ALL`].
pub struct ComparedServers {
    pub subjects: [ComparedCache; 3],
    _dir: TempDir,
}

/// nginx asks with validators and refreshes behind a reader if told to; what it does
/// with fields and statuses is left as it is.
const NGINX: &str = "proxy_cache_revalidate on; proxy_cache_background_update on;";
/// No lifetime where the response gives none, nothing stale unless the response says so,
/// and kept for validation; ours has no other mode.
const VARNISH: [&str; 3] = ["default_ttl=0", "default_grace=0", "default_keep=3600"];
/// Neither a failure nor an answer that was not to be shared changes what is made of the
/// next one: the others have no such memory, and the stream does not wait for ours to end.
const OURS: &str = "{backoff: {base: 1ms, max: 1ms}, inflight: {hit_for_miss: 0s}}";

impl ComparedServers {
    pub async fn start(script: &Arc<RunScript>, front: Front) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir().context("a folder for the servers' files")?;
        let folder = |name: &str| -> anyhow::Result<_> {
            let folder = dir.path().join(name);
            std::fs::create_dir(&folder)?;
            Ok(folder)
        };
        let (origin, record) = script.origin().await;
        let setup = Setup::new(&origin)
            .top("cache", OURS)
            .top("telemetry", "{log_format: json, access_log: off}");
        let fronted = front.start(setup, &["site.example"]).await;
        let door = fronted.messages().await;
        let ours = ComparedCache {
            // The stream's origin says things that no server may say; they go through.
            client: Client::http1(door.address).unchecked(),
            record,
            _origin: origin,
            _process: ComparedProcess::Ours(Box::new((fronted, door))),
        };
        let (origin, record) = script.origin().await;
        let server = peers::nginx(None, origin.address(), &folder("nginx")?, NGINX)?;
        let nginx = theirs(server, origin, record);
        let (origin, record) = script.origin().await;
        let server = peers::varnish(None, origin.address(), &folder("varnish")?, &VARNISH)?;
        let varnish = theirs(server, origin, record);
        Ok(Self {
            subjects: [ours, nginx, varnish],
            _dir: dir,
        })
    }
}

fn theirs(server: Server, origin: Origin, record: OriginRecord) -> ComparedCache {
    ComparedCache {
        client: Client::http1(server.address).unchecked(),
        record,
        _origin: origin,
        _process: ComparedProcess::Theirs(server),
    }
}
