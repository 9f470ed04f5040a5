//! Redis as one of the stores.

use std::sync::Arc;

use super::config::{RedisStoreOpenError, RedisTierConfig};
use super::crash::{self, Failover};
use super::open_for;
use crate::description::InvalidSetting;
use crate::l2::description::{
    SharedStoreSettings, StoreDescription, StoreFinding, StoreOpenError, StorePromiseConditions,
};
use crate::l2::store::{Durability, Store, StoreError};
use crate::redis;

/// The largest number of shards, because a listing looks at each of them.
const MAX_SHARDS: u16 = 1_024;

/// Checks what is known without reading files or using the network.
pub(super) fn check(config: &RedisTierConfig) -> Result<(), RedisStoreOpenError> {
    if config.connections == 0 {
        return Err(RedisStoreOpenError::Connections);
    }
    let prefix = config.prefix.as_ref();
    if let Some(prefix) = prefix.filter(|prefix| prefix.contains(['{', '}'])) {
        return Err(RedisStoreOpenError::Prefix(prefix.clone()));
    }
    if !(1..=MAX_SHARDS).contains(&config.index.shards) {
        return Err(RedisStoreOpenError::Shards(config.index.shards));
    }
    Ok(redis::check(&config.url)?)
}

fn failover(config: &RedisTierConfig) -> Failover {
    match redis::may_fail_over(&config.url) {
        true => Failover::ToReplicas,
        false => Failover::Never,
    }
}

impl StoreDescription for RedisTierConfig {
    fn check(&self) -> Result<(), InvalidSetting> {
        Ok(check(self)?)
    }

    fn open(&self, common: SharedStoreSettings<'_>) -> Result<Arc<dyn Store>, StoreOpenError> {
        open_for(self, common).map_err(|error| StoreOpenError::Setting {
            section: "redis",
            why: error.into(),
        })
    }

    fn place(&self) -> String {
        self.url.clone()
    }

    fn shared_through(&self) -> Option<&'static str> {
        Some("Redis")
    }

    fn crash_findings(&self, said: Result<Durability, StoreError>) -> Vec<StoreFinding> {
        crash::findings(said, failover(self))
    }

    fn promises(&self, conditions: &StorePromiseConditions<'_>) -> Vec<String> {
        vec![
            "a purge holds on the node that was asked from its answer on, on each other node when it \
             has read the log in Redis: a round trip later while Redis answers"
                .to_owned(),
            match conditions.has_bus {
                true => {
                    "while Redis does not answer, the bus alone tells purges; each is tried again \
                     until it is in the log"
                }
                false => {
                    "while Redis does not answer, a purge holds on its own node alone; it is told \
                     and tried again until it is in the log"
                }
            }
            .to_owned(),
            "a load that began before a purge is shown nowhere after it, whenever it is written"
                .to_owned(),
            match conditions.lease.enabled {
                true => format!(
                    "one load a key among all nodes; a node whose load takes longer than {} without a \
                     sign of life loses its turn, and what it loaded is not written",
                    conditions.lease.ttl
                ),
                false => "each node loads for itself (lease.enabled: false)".to_owned(),
            },
            match failover(self) {
                Failover::ToReplicas => {
                    "a fail-over may lose the last writes of the old master, purges among them"
                }
                Failover::Never => "one server: when it is down, each node has L1 and its own loads",
            }
            .to_owned(),
            "a purge that Redis forgot (an older state came back) is noticed by each running node \
             that had read it, and then all that is older is hidden on all nodes; where none is left \
             that had, the purge is undone"
                .to_owned(),
        ]
    }
}

impl From<RedisStoreOpenError> for InvalidSetting {
    fn from(error: RedisStoreOpenError) -> Self {
        Self::new(error.key(), error)
    }
}
