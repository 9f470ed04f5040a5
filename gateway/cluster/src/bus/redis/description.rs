//! Redis Pub/Sub as one of the transports.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};

use super::config::{RedisBusConfig, RedisBusOpenError};
use super::{KIND, open};
use crate::bus::description::{TransportDescription, at_most_once};
use crate::bus::transport::{BusTransport, Guarantee};
use crate::bus::trial::{PreparedTrial, TransportTrial};
use crate::description::InvalidSetting;
use crate::redis;
use crate::units::ConfigDuration;

/// Channels that Redis itself, and our client library, use for key notifications.
const RESERVED: [&str; 2] = ["__keyspace@", "__keyevent@"];

/// Checks what is known without reading files or using the network.
pub(super) fn check(config: &RedisBusConfig) -> Result<(), RedisBusOpenError> {
    let reserved = RESERVED.iter().any(|r| config.channel.starts_with(r));
    if config.channel.is_empty() || reserved {
        return Err(RedisBusOpenError::Channel(config.channel.clone()));
    }
    Ok(redis::check(&config.url)?)
}

impl TransportDescription for RedisBusConfig {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::AtMostOnce
    }

    fn check(&self) -> Result<(), InvalidSetting> {
        Ok(check(self)?)
    }

    fn open(&self) -> Result<Arc<dyn BusTransport>, InvalidSetting> {
        Ok(open(self)?)
    }

    fn promises(&self, noticed_after: ConfigDuration) -> Vec<String> {
        vec![at_most_once("Redis Pub/Sub", noticed_after)]
    }

    fn prepare_trial<'a>(&'a self, _mark: &'a str) -> BoxFuture<'a, Result<PreparedTrial, String>> {
        let trial: Box<dyn TransportTrial> = Box::new(self.clone());
        ready(Ok((trial, Vec::new()))).boxed()
    }
}

/// Nothing that a trial makes outlives its connections, so that its ends are as those of gateways.
impl TransportTrial for RedisBusConfig {
    fn open(&self, _name: &str) -> Result<Arc<dyn BusTransport>, InvalidSetting> {
        Ok(open(self)?)
    }

    fn clear<'a>(&'a self, _names: &'a [&'a str]) -> BoxFuture<'a, Result<(), String>> {
        ready(Ok(())).boxed()
    }
}

impl From<RedisBusOpenError> for InvalidSetting {
    fn from(error: RedisBusOpenError) -> Self {
        Self::new(error.key(), error)
    }
}
