//! Redis as one of the stores.

use std::sync::Arc;

use super::config::{RedisStoreOpenError, RedisTierConfig};
use super::crash::{self, Failover};
use super::open_for;
use crate::description::InvalidSetting;
use crate::l2::description::{
    SharedStoreSettings, StoreDescription, StoreFinding, StoreOpenError, StorePromiseConditions,
};
use crate::l2::store::{Durability, Store, StoreError, StoreRight};
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

/// What `user` may not do, and the command that grants it.
fn rights(user: &str, lacks: &[StoreRight]) -> Option<StoreFinding> {
    if lacks.is_empty() {
        return None;
    }
    let mut rules: Vec<String> = lacks.iter().map(StoreRight::rule).collect();
    rules.dedup();
    let missing: Vec<String> = lacks
        .iter()
        .map(|right| match right {
            StoreRight::Command(name) => format!("run {name}"),
            StoreRight::Keys(pattern) => format!("reach the keys {pattern}"),
            StoreRight::Subscribe(channel) => format!("subscribe to the channel {channel}"),
            StoreRight::Publish(channel) => format!("publish on the channel {channel}"),
        })
        .collect();
    let says = format!(
        "the user {user} may not {}; to grant it: ACL SETUSER {user} {}",
        missing.join(", "),
        rules.join(" ")
    );
    let is_needed = |right: &StoreRight| match right {
        StoreRight::Command(name) => name != "info",
        StoreRight::Keys(_) => true,
        StoreRight::Subscribe(_) | StoreRight::Publish(_) => false,
    };
    Some(match lacks.iter().any(is_needed) {
        true => StoreFinding::broken("rights", says),
        false => StoreFinding::risky("rights", says),
    })
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

    fn location(&self) -> String {
        self.url.clone()
    }

    fn shared_through(&self) -> Option<&'static str> {
        Some("Redis")
    }

    fn crash_findings(&self, said: Result<Durability, StoreError>) -> Vec<StoreFinding> {
        crash::findings(said, failover(self))
    }

    fn rights_finding(&self, lacks: &[StoreRight]) -> Option<StoreFinding> {
        rights(self.username.as_deref().unwrap_or("default"), lacks)
    }

    fn promises(&self, conditions: &StorePromiseConditions<'_>) -> Vec<String> {
        vec![
            "a purge applies on the node that received it as soon as it is answered, and on each \
             other node when that node has read the log in Redis: one round trip later while Redis \
             answers"
                .to_owned(),
            match conditions.has_bus {
                true => {
                    "while Redis does not answer, only the bus distributes purges; writing each of \
                     them to the log is tried again until it succeeds"
                }
                false => {
                    "while Redis does not answer, a purge applies only on the node that received \
                     it; writing it to the log is tried again until it succeeds, and its receipt \
                     says so"
                }
            }
            .to_owned(),
            "the result of a load that began before a purge is never served after it, whenever it \
             is written"
                .to_owned(),
            match conditions.lease.enabled {
                true => format!(
                    "only one of all nodes loads a key at a time; a node that does not renew its \
                     lease for {} loses it, and what it loaded is not written",
                    conditions.lease.ttl
                ),
                false => "each node loads for itself (lease.enabled: false)".to_owned(),
            },
            match failover(self) {
                Failover::ToReplicas => {
                    "a failover may lose the last writes of the old master, including purges"
                }
                Failover::Never => "one server: when it is down, each node has only L1 and loads for itself",
            }
            .to_owned(),
            "a purge that Redis lost (because an older state came back) is noticed by each running \
             node that had read it, and then everything older is hidden on all nodes; if no such \
             node is left, the purge is undone"
                .to_owned(),
        ]
    }
}

impl From<RedisStoreOpenError> for InvalidSetting {
    fn from(error: RedisStoreOpenError) -> Self {
        Self::new(error.key(), error)
    }
}
