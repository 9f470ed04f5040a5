//! This node joins the others, where a bus is configured.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use super::{StartError, seal};
use crate::bus;
use crate::bus::config::Bus;
use crate::bus::outbox::Identity;
use crate::cache::Cache;
use crate::cache::record::{self, Limits};
use crate::cluster::Cluster;
use crate::config::Config;
use crate::telemetry::metrics::Registry;

/// Joins the other nodes. None: no transport is configured.
pub(super) fn join(
    bus: &Bus,
    config: &Config,
    cache: &Arc<Cache>,
    registry: &Registry,
) -> Result<Option<Arc<Cluster>>, StartError> {
    let Some(transport) = bus::open(bus)? else {
        return Ok(None);
    };
    let codec = record::Options {
        compression: None,
        limits: Limits::for_objects(bus.broadcast_set_max_bytes.as_usize()),
        seal: seal(config),
    };
    let identity = identity(bus);
    tracing::info!(
        node = identity.source,
        transport = transport.kind(),
        "joining the other nodes"
    );
    let cache = Arc::clone(cache);
    let cluster = Cluster::join(cache, transport, identity, bus, codec, registry)?;
    Ok(Some(cluster))
}

fn identity(bus: &Bus) -> Identity {
    let boot = RandomState::new().hash_one(std::process::id());
    let host = || {
        std::env::var("HOSTNAME")
            .ok()
            .filter(|host| !host.is_empty())
    };
    Identity {
        source: bus
            .source
            .clone()
            .or_else(host)
            .unwrap_or_else(|| format!("{boot:016x}")),
        boot,
        namespace: bus.namespace.clone(),
    }
}
