//! This node joins the others, where a bus is configured.

use std::sync::Arc;

use super::GatewayStartError;
use super::process::seal;
use crate::bus::config::BusConfig;
use crate::bus::event::MAX_NAME;
use crate::bus::outbox::{PublisherIdentity, new_boot};
use crate::bus::seal::SealKeys;
use crate::cache::Cache;
use crate::cache::record::{self, RecordLimits};
use crate::cluster::{Cluster, NodeBefore};
use crate::config::GatewayConfig;
use crate::telemetry::metrics::Registry;

/// Joins the other nodes. None if no transport is configured.
pub(super) fn join(
    bus: &BusConfig,
    config: &GatewayConfig,
    cache: &Arc<Cache>,
    registry: &Registry,
    before: NodeBefore,
) -> Result<Option<Arc<Cluster>>, GatewayStartError> {
    let Some(transport) = bus.transport() else {
        return Ok(None);
    };
    let transport = transport.open().map_err(GatewayStartError::Bus)?;
    let codec = record::RecordOptions {
        compression: None,
        limits: RecordLimits::for_objects(bus.broadcast_set_max_bytes.as_usize()),
        seal: seal(config),
    };
    let identity = identity(bus, seal_keys(config));
    tracing::info!(
        node = identity.source,
        transport = transport.kind(),
        "joining the event bus"
    );
    let cache = Arc::clone(cache);
    let cluster = Cluster::join(cache, transport, identity, bus, codec, registry, before)?;
    Ok(Some(cluster))
}

/// The keys that seal events. None if no key is configured.
pub fn seal_keys(config: &GatewayConfig) -> Option<SealKeys> {
    let accepted = config
        .bus
        .as_ref()
        .and_then(|bus| bus.accepted_seal_key.as_ref());
    let accepted = accepted.map(|key| key.as_bytes());
    let own = config.bus_seal_key()?;
    Some(SealKeys::new(own.as_bytes(), accepted))
}

fn identity(bus: &BusConfig, seal: Option<SealKeys>) -> PublisherIdentity {
    let boot = new_boot();
    let host = || {
        let host = std::env::var("HOSTNAME").ok();
        host.filter(|host| (1..=MAX_NAME).contains(&host.len()))
    };
    PublisherIdentity {
        source: bus
            .source
            .clone()
            .or_else(host)
            .unwrap_or_else(|| format!("{boot:016x}")),
        boot,
        namespace: bus.namespace.clone(),
        seal,
    }
}
