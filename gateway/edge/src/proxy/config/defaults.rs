//! What holds for every route that does not set its own: [`RouteDefaults`].

use std::fmt;

use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::cache::config::CachePolicyConfig;
use crate::proxy::rules::compress::config::CompressConfig;

/// What holds for every route that does not set its own.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct RouteDefaults {
    /// What is stored and for how long.
    #[serde(flatten)]
    pub policy: CachePolicyConfig,
    /// Which answers are compressed.
    pub compress: Option<CompressConfig>,
}

/// Written by hand, since serde's `flatten` loses the position of an error and knows no unknown
/// fields.
impl<'de> Deserialize<'de> for RouteDefaults {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_map(DefaultsVisitor)
    }
}

struct DefaultsVisitor;

impl<'de> Visitor<'de> for DefaultsVisitor {
    type Value = RouteDefaults;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map with the keys of a policy and `compress`")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RouteDefaults, A::Error> {
        let mut compress = None;
        let rest = WithoutCompress {
            map,
            compress: &mut compress,
        };
        let policy = Deserialize::deserialize(MapAccessDeserializer::new(rest))?;
        Ok(RouteDefaults { policy, compress })
    }
}

/// A map without its key `compress`, whose value is put aside.
struct WithoutCompress<'a, A> {
    map: A,
    compress: &'a mut Option<CompressConfig>,
}

/// Reads a key. None: it is `compress`. An unknown key is found where the map reads it, so that the
/// error has its place.
struct KeyBesideCompress<'a, K>(&'a mut Option<K>);

impl<'de, K: DeserializeSeed<'de>> DeserializeSeed<'de> for KeyBesideCompress<'_, K> {
    type Value = Option<K::Value>;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Self::Value, D::Error> {
        let key = String::deserialize(d)?;
        let seed = self.0.take_if(|_| key != "compress");
        seed.map(|seed| seed.deserialize(key.into_deserializer()))
            .transpose()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for WithoutCompress<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        let mut seed = Some(seed);
        while let Some(key) = self.map.next_key_seed(KeyBesideCompress(&mut seed))? {
            if key.is_some() {
                return Ok(key);
            }
            *self.compress = self.map.next_value()?;
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}
