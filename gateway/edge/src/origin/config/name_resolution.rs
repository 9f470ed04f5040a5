//! How the names of targets are resolved.

use std::net::{IpAddr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::units::ConfigDuration;

/// How the names of targets are resolved: in the background, never while a request waits for it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NameResolutionConfig {
    /// The shortest time after which a name is asked for again, whatever its time to live; at least 1s.
    pub floor: ConfigDuration,
    /// The longest time after which a name is asked for again, whatever its time to live.
    pub ceiling: ConfigDuration,
    /// While name servers fail or say that there is no address, the last known addresses stay. After this time those are dropped that do not answer requests either.
    pub hold: ConfigDuration,
    /// The most targets that one name leads to; further ones are not used, and the log says so.
    pub max_targets: usize,
    /// The name servers: addresses with or without a port. Empty takes those of the system (`/etc/resolv.conf`).
    pub servers: Vec<NameServerAddress>,
}

/// The address of a name server, whose port is 53 unless it is given.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, JsonSchema)]
#[serde(transparent)]
#[schemars(with = "String")]
pub struct NameServerAddress(pub SocketAddr);

/// The port of name servers (RFC 1035 §4.2).
const DNS_PORT: u16 = 53;

impl<'de> Deserialize<'de> for NameServerAddress {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let alone = text
            .parse::<IpAddr>()
            .map(|ip| SocketAddr::new(ip, DNS_PORT));
        let address = text.parse().or(alone).map_err(|_| {
            serde::de::Error::custom(format!(
                "{text:?} is not the address of a name server; expected an IP address, as in 10.0.0.2 or 127.0.0.1:5353"
            ))
        });
        address.map(Self)
    }
}

impl Default for NameResolutionConfig {
    fn default() -> Self {
        Self {
            floor: ConfigDuration::secs(5),
            ceiling: ConfigDuration::secs(300),
            hold: ConfigDuration::secs(3_600),
            max_targets: 256,
            servers: Vec::new(),
        }
    }
}
