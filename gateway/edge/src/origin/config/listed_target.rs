//! The targets of an upstream as they are listed, in the configuration or in a file of their own.

use std::fmt;
use std::num::NonZeroU32;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A listed target: a URL alone, or a map.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TargetConfig {
    pub location: TargetLocation,
    pub weight: NonZeroU32,
    pub priority: u8,
    pub name: Option<String>,
}

/// Where a listed target is, or where its addresses are found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TargetLocation {
    /// One server: `http://host:port`, `https://host:port` or `unix:PATH`.
    Url(String),
    /// Each address of a name is a server.
    Dns(NamedLocation),
    /// Each SRV record of a name is a server (RFC 2782), or several if its host has several addresses.
    Srv(ServiceLocation),
}

/// A name each of whose addresses is a target.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NamedLocation {
    pub name: String,
    pub scheme: TargetScheme,
    /// Unset: that of the scheme.
    pub port: Option<u16>,
}

/// A name whose SRV records are targets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServiceLocation {
    pub name: String,
    pub scheme: TargetScheme,
}

/// Whether the servers that a name leads to speak TLS.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TargetScheme {
    #[default]
    Http,
    Https,
}

/// The long form of a target: one of `url`, `dns` and `srv`.
#[derive(Clone, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct TargetLongForm {
    /// The URL of the server: `http://host:port`, `https://host:port` for TLS, or `unix:PATH` for a socket of this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    /// A name each of whose addresses is a target, with a health of its own. It is asked again when its time to live is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    dns: Option<String>,
    /// A name whose SRV records are targets, as in `_http._tcp.shop.example`; they say port, weight and priority.
    #[serde(skip_serializing_if = "Option::is_none")]
    srv: Option<String>,
    /// With `dns`, the port of the targets; unset takes that of the scheme.
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    /// With `dns` and `srv`, whether the targets speak TLS (`https`); unset: they do not.
    #[serde(skip_serializing_if = "Option::is_none")]
    scheme: Option<TargetScheme>,
    /// Its share of the requests, compared with the weights of the others; unset takes 1. With `dns` each address has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    weight: Option<NonZeroU32>,
    /// Targets with a greater number get requests only when too few of those with a smaller one can be used (`balance.panic`), or when these have failed one; unset takes 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<u8>,
    /// The name in logs and metrics; unset takes host and port. Targets of `dns` and `srv` are always named by their address.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
}

impl TargetScheme {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port if none is given.
    pub fn usual_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl TargetConfig {
    /// A target with defaults for everything but its URL.
    pub fn from_url(url: impl Into<String>) -> Self {
        Self {
            location: TargetLocation::Url(url.into()),
            weight: NonZeroU32::MIN,
            priority: 0,
            name: None,
        }
    }

    /// Whether both are the same server, with whatever weight and priority.
    pub fn is_server_of(&self, other: &Self) -> bool {
        let is_server = matches!(self.location, TargetLocation::Url(_));
        is_server && self.location == other.location && self.name == other.name
    }

    /// The URL that stands for it. For a name, that is not the address of one server.
    pub fn url(&self) -> String {
        match &self.location {
            TargetLocation::Url(url) => url.clone(),
            TargetLocation::Dns(named) => {
                let port = named.port.unwrap_or(named.scheme.usual_port());
                format!("{}://{}:{port}", named.scheme.as_str(), named.name)
            }
            TargetLocation::Srv(service) => {
                format!("{}://{}", service.scheme.as_str(), service.name)
            }
        }
    }
}

impl TryFrom<TargetLongForm> for TargetConfig {
    type Error = &'static str;

    fn try_from(full: TargetLongForm) -> Result<Self, &'static str> {
        let scheme = full.scheme.unwrap_or_default();
        let location = match (full.url, full.dns, full.srv) {
            (Some(_), None, None) if full.port.is_some() || full.scheme.is_some() => {
                return Err("`port` or `scheme` beside `url`; expected them inside the URL");
            }
            (Some(url), None, None) => TargetLocation::Url(url),
            (None, Some(_), None) | (None, None, Some(_)) if full.name.is_some() => {
                return Err(
                    "`name` beside `dns` or `srv`, whose targets are named by their addresses; expected no `name`",
                );
            }
            (None, Some(name), None) => TargetLocation::Dns(NamedLocation {
                name,
                scheme,
                port: full.port,
            }),
            (None, None, Some(_))
                if full.port.is_some() || full.weight.is_some() || full.priority.is_some() =>
            {
                return Err(
                    "`port`, `weight` or `priority` beside `srv`, whose records say them; expected none of them",
                );
            }
            (None, None, Some(name)) => TargetLocation::Srv(ServiceLocation { name, scheme }),
            _ => return Err("expected one of `url`, `dns` and `srv`"),
        };
        Ok(Self {
            location,
            weight: full.weight.unwrap_or(NonZeroU32::MIN),
            priority: full.priority.unwrap_or_default(),
            name: full.name,
        })
    }
}

impl From<&TargetConfig> for TargetLongForm {
    fn from(target: &TargetConfig) -> Self {
        let TargetConfig {
            location,
            weight,
            priority,
            name,
        } = target.clone();
        let mut full = Self {
            weight: Some(weight).filter(|weight| *weight != NonZeroU32::MIN),
            priority: Some(priority).filter(|priority| *priority != 0),
            name,
            ..Self::default()
        };
        match location {
            TargetLocation::Url(url) => full.url = Some(url),
            TargetLocation::Dns(NamedLocation { name, scheme, port }) => {
                full.dns = Some(name);
                full.scheme = Some(scheme);
                full.port = port;
            }
            TargetLocation::Srv(ServiceLocation { name, scheme }) => {
                full.srv = Some(name);
                full.scheme = Some(scheme);
            }
        }
        full
    }
}

/// In the short form where it says all.
impl Serialize for TargetConfig {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match &self.location {
            TargetLocation::Url(url) if *self == Self::from_url(url) => s.serialize_str(url),
            _ => TargetLongForm::from(self).serialize(s),
        }
    }
}

/// Written by hand, since serde's untagged enums lose the reason and the position of an error.
impl<'de> Deserialize<'de> for TargetConfig {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(TargetUrlOrMap)
    }
}

struct TargetUrlOrMap;

impl<'de> Visitor<'de> for TargetUrlOrMap {
    type Value = TargetConfig;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a URL, as in http://127.0.0.1:9000, or a mapping with `url`, `dns` or `srv`")
    }

    fn visit_str<E>(self, url: &str) -> Result<TargetConfig, E> {
        Ok(TargetConfig::from_url(url))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<TargetConfig, A::Error> {
        let full = TargetLongForm::deserialize(MapAccessDeserializer::new(map))?;
        TargetConfig::try_from(full).map_err(A::Error::custom)
    }
}

impl JsonSchema for TargetConfig {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Target".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let full = generator.subschema_for::<TargetLongForm>();
        json_schema!({
            "description": "A server of an upstream, or a name that leads to several: a URL alone, or a map.",
            "anyOf": [{ "type": "string", "description": "Its URL, as in `http://127.0.0.1:9000` or `unix:/run/app.sock`." }, full]
        })
    }
}
