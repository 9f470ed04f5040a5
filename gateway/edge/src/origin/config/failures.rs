//! When a target counts as sick, and which requests are sent to another one.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::active_health::ActiveHealthConfig;
use super::hedge::HedgeConfig;
use crate::units::ConfigDuration;

/// How the health of targets is judged.
#[derive(Clone, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HealthConfig {
    /// By the answers to requests.
    pub passive: PassiveHealthConfig,
    /// By checks of its own; unset: none are made.
    pub active: Option<ActiveHealthConfig>,
}

/// Targets whose answers are failures get no requests for a while ("ejection").
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PassiveHealthConfig {
    /// After how many failures in a row; 0: never.
    pub failures: u32,
    /// What is a failure: `connect`, `reset`, `timeout`, a status from 500 to 599, or `5xx` for all of them.
    pub on: Vec<FailureKind>,
    /// For how long, times the number of ejections so far.
    pub eject: ConfigDuration,
    /// The longest ejection. A target that was well for as long is ejected briefly again.
    pub max_eject: ConfigDuration,
    /// The most targets that are ejected at once, in percent. The last one that is left is never ejected.
    pub max_ejected: u8,
}

/// Which requests are sent to another target after a failure.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetryConfig {
    /// The most attempts for a request, the first one included; 1: it is never sent to another target.
    pub attempts: u32,
    /// After which failures.
    pub on: Vec<FailureKind>,
    /// Requests with these methods and without a body. Others are sent to another target only if the first one has not processed them.
    pub methods: Vec<String>,
    /// The most further attempts, in percent of the requests. Up to ten are saved up.
    pub budget: u8,
    /// Further attempts that are allowed each second, where the percentage allows fewer.
    pub min: u32,
    /// When a load that has no answer yet also goes to a second target; unset: never.
    pub hedge: Option<HedgeConfig>,
    /// The time limit of each attempt to the head of the response, within `timeouts.first_byte`; 0: no limit of its own.
    pub per_try: ConfigDuration,
}

/// A way in which a target can fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FailureKind {
    /// There was no connection.
    Connect,
    /// The connection ended before the head of the response, or the target broke the protocol.
    Reset,
    /// The head of the response did not come in time.
    Timeout,
    /// This status; for gRPC, 503 is also `grpc-status: 14`.
    Status(u16),
    /// Any status from 500 to 599.
    AnyServerError,
}

impl FailureKind {
    /// Whether this entry of a list means the failure.
    pub fn covers(self, failure: Self) -> bool {
        match (self, failure) {
            (Self::AnyServerError, Self::Status(status)) => (500..600).contains(&status),
            (listed, failure) => listed == failure,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        match text {
            "connect" => Some(Self::Connect),
            "reset" => Some(Self::Reset),
            "timeout" => Some(Self::Timeout),
            "5xx" => Some(Self::AnyServerError),
            _ => {
                let status = text
                    .parse()
                    .ok()
                    .filter(|status| (500..600).contains(status));
                status.map(Self::Status)
            }
        }
    }

    /// The word in the configuration and in metrics.
    pub fn word(self) -> String {
        match self {
            Self::Connect => "connect".to_owned(),
            Self::Reset => "reset".to_owned(),
            Self::Timeout => "timeout".to_owned(),
            Self::Status(status) => status.to_string(),
            Self::AnyServerError => "5xx".to_owned(),
        }
    }
}

impl<'de> Deserialize<'de> for FailureKind {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum NumberOrText {
            Number(u16),
            Text(String),
        }
        let text = match NumberOrText::deserialize(d)? {
            NumberOrText::Number(status) => status.to_string(),
            NumberOrText::Text(text) => text,
        };
        Self::parse(&text).ok_or_else(|| {
            serde::de::Error::custom(format!(
                "{text:?} is no failure; expected `connect`, `reset`, `timeout`, `5xx` or a status from 500 to 599"
            ))
        })
    }
}

impl Serialize for FailureKind {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Status(status) => s.serialize_u16(*status),
            other => s.serialize_str(&other.word()),
        }
    }
}

impl JsonSchema for FailureKind {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "FailureKind".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A way in which a target can fail.",
            "anyOf": [
                { "enum": ["connect", "reset", "timeout", "5xx"] },
                { "type": "integer", "minimum": 500, "maximum": 599 }
            ]
        })
    }
}

/// What counts as a failure by default: no answer, or one that says that the server can't.
fn gateway_failures() -> Vec<FailureKind> {
    use FailureKind::{Connect, Reset, Status, Timeout};
    vec![
        Connect,
        Reset,
        Timeout,
        Status(502),
        Status(503),
        Status(504),
    ]
}

impl Default for PassiveHealthConfig {
    fn default() -> Self {
        Self {
            failures: 5,
            on: gateway_failures(),
            eject: ConfigDuration::secs(10),
            max_eject: ConfigDuration::secs(300),
            max_ejected: 50,
        }
    }
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            attempts: 2,
            on: gateway_failures(),
            methods: ["GET", "HEAD", "OPTIONS"].map(str::to_owned).to_vec(),
            budget: 20,
            min: 3,
            hedge: None,
            per_try: ConfigDuration::ZERO,
        }
    }
}
