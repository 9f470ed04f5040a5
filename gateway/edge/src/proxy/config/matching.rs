//! Which requests a route takes: [`RouteMatchConfig`].

use std::collections::BTreeMap;
use std::fmt;

use http::HeaderName;
use schemars::JsonSchema;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::http::forward;
use crate::http::reference::normal_address;

/// Which requests a route takes. Every part that is given must match.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RouteMatchConfig {
    /// Host names; `*` is a wildcard, as in `*.example.com`. An address of IPv6 stands in brackets, as in `[::1]`.
    pub host: Option<OneOrMany>,
    /// Paths; `*` matches any number of characters, `?` matches one, and `\` makes the next
    /// character literal.
    pub path: Option<OneOrMany>,
    /// Methods, in capitals.
    pub method: Option<OneOrMany>,
    /// Header fields and what their value must match: a pattern, a list of patterns of which one
    /// must match, or `{any: …, case: ignore}`.
    pub header: BTreeMap<String, ValueMatchConfig>,
    /// Query parameters: patterns for their names, and what the value of one such parameter must
    /// match, as for `header`. `{"*": "*"}` matches any query.
    pub query: BTreeMap<String, ValueMatchConfig>,
    /// What is known of the client's TLS. A request without TLS, or over HTTP/3, does not match.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsMatchConfig>,
}

/// A pattern for hosts in the form in which hosts of requests are compared with it.
pub fn normal_host_pattern(text: &str) -> String {
    normal_address(&text.to_ascii_lowercase()).into_owned()
}

/// What is known of a client's TLS.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsMatchConfig {
    /// The fingerprint of the client's software (JA4): a pattern, or a list of patterns of which one
    /// must match, as in `t13d1516h2_*`. A listener must have `tls.ja4: on`.
    pub ja4: OneOrMany,
}

impl TlsMatchConfig {
    /// The field by which the listener tells the fingerprint, which clients can't set, and what it
    /// must match.
    pub fn field(&self) -> (HeaderName, ValueMatchConfig) {
        let patterns = ValueMatchConfig::Any(self.ja4.clone());
        (forward::CLIENT_JA4, patterns)
    }
}

/// What a value must match.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum ValueMatchConfig {
    /// One of these patterns, with upper and lower case as written.
    Any(OneOrMany),
    Worded(DetailedValueMatch),
}

/// What a value must match, and how it is compared.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DetailedValueMatch {
    /// A pattern, or a list of patterns of which one must match.
    pub any: OneOrMany,
    /// Whether capital and small letters of ASCII are the same.
    #[serde(default)]
    pub case: LetterCase,
}

/// Whether capital and small letters of ASCII are the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LetterCase {
    /// They differ.
    #[default]
    Exact,
    /// They are the same.
    Ignore,
}

impl ValueMatchConfig {
    /// The patterns, one of which must match.
    pub fn patterns(&self) -> &OneOrMany {
        match self {
            Self::Any(any) => any,
            Self::Worded(worded) => &worded.any,
        }
    }

    /// How they are compared.
    pub fn case(&self) -> LetterCase {
        match self {
            Self::Any(_) => LetterCase::Exact,
            Self::Worded(worded) => worded.case,
        }
    }
}

impl From<&str> for ValueMatchConfig {
    fn from(pattern: &str) -> Self {
        Self::Any(OneOrMany::One(pattern.to_owned()))
    }
}

/// One text or a list of them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    pub fn as_slice(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

/// Written by hand, since serde's untagged enums lose the reason and the position of an error.
impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(TextOrList)
    }
}

/// Written by hand, for the same reason as for [`OneOrMany`].
impl<'de> Deserialize<'de> for ValueMatchConfig {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(TextListOrMap)
    }
}

struct TextListOrMap;

impl<'de> Visitor<'de> for TextListOrMap {
    type Value = ValueMatchConfig;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a list of texts, or a map with `any` and `case`")
    }

    fn visit_str<E>(self, text: &str) -> Result<ValueMatchConfig, E> {
        Ok(ValueMatchConfig::from(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<ValueMatchConfig, A::Error> {
        let many = Deserialize::deserialize(SeqAccessDeserializer::new(list));
        many.map(|many| ValueMatchConfig::Any(OneOrMany::Many(many)))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ValueMatchConfig, A::Error> {
        Deserialize::deserialize(MapAccessDeserializer::new(map)).map(ValueMatchConfig::Worded)
    }
}

struct TextOrList;

impl<'de> Visitor<'de> for TextOrList {
    type Value = OneOrMany;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or a list of texts")
    }

    fn visit_str<E>(self, text: &str) -> Result<OneOrMany, E> {
        Ok(OneOrMany::One(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<OneOrMany, A::Error> {
        Deserialize::deserialize(SeqAccessDeserializer::new(list)).map(OneOrMany::Many)
    }
}
