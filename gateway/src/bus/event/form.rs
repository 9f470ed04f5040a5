//! The maps of an event on the wire, and the pieces that they are made of.
//!
//! Decision: what is ours is one borrowed struct for both directions, so that a name can't
//! differ between them. The outer map has one for each: we write few of its fields and
//! bear more than we write, such as JavaScript's `undefined` where a field is absent.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{SeqAccessDeserializer, StrDeserializer};
use serde::de::{Error, IgnoredAny, IntoDeserializer, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_bytes::Bytes as Bin;

use super::MAX_KEYS;

/// The outer map as it is read.
#[derive(Deserialize)]
pub struct Outer {
    #[serde(default)]
    pub id: Lax<String>,
    #[serde(default)]
    pub r#type: Lax<String>,
    #[serde(default)]
    pub source: Lax<String>,
    #[serde(default)]
    pub ts: Lax<f64>,
    #[serde(default)]
    pub keys: Lax<Bounded<String>>,
    #[serde(default)]
    pub pattern: Lax<String>,
    #[serde(default)]
    pub namespace: Lax<String>,
    /// Only whether it is there; see [`Beside`].
    pub lamina: Option<IgnoredAny>,
}

/// The outer map as it is written.
#[derive(Serialize)]
pub struct Written<'a> {
    pub id: &'a str,
    pub r#type: &'static str,
    pub source: &'a str,
    /// Not an integer: `msgpackr` makes a `BigInt` of 64 bits, which the seed refuses.
    pub ts: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pattern: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lamina: Option<Told<'a>>,
}

/// The outer map read for what is ours alone, so that a fault in it stays there.
#[derive(Deserialize)]
pub struct Beside<'a> {
    #[serde(borrow)]
    pub lamina: Told<'a>,
}

/// What is ours: `kind` says which of the rest are there.
#[derive(Serialize, Deserialize, Default)]
pub struct Told<'a> {
    pub boot: u64,
    pub purges: u64,
    pub kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub soft: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipt: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none", borrow)]
    pub key: Option<&'a Bin>,
    #[serde(skip_serializing_if = "Option::is_none", borrow)]
    pub primary: Option<&'a Bin>,
    #[serde(skip_serializing_if = "Option::is_none", borrow)]
    pub record: Option<&'a Bin>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub likeness: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", borrow)]
    pub publishers: Option<Bounded<(&'a str, u64, u64)>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthy: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub life: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<u64>,
    /// How many events this boot has said; 0 is told by none.
    #[serde(default)]
    pub sequence: u64,
    /// The last field of all: [`crate::bus::seal`] finds it at the end of the bytes.
    #[serde(skip_serializing_if = "Option::is_none", borrow)]
    pub seal: Option<&'a Bin>,
}

/// Something, or what a foreign event has in place of nothing: nil, or an extension, as
/// which `msgpackr` writes `undefined`.
pub struct Lax<T>(pub Option<T>);

impl<T> Default for Lax<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Lax<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(LaxVisitor(PhantomData)).map(Self)
    }
}

struct LaxVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for LaxVisitor<T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a number or a list")
    }

    fn visit_unit<E: Error>(self) -> Result<Option<T>, E> {
        Ok(None)
    }

    /// An extension.
    fn visit_newtype_struct<D: Deserializer<'de>>(self, from: D) -> Result<Option<T>, D::Error> {
        IgnoredAny::deserialize(from).map(|_| None)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Option<T>, E> {
        T::deserialize(StrDeserializer::new(text)).map(Some)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Option<T>, E> {
        T::deserialize(number.into_deserializer()).map(Some)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Option<T>, E> {
        T::deserialize(number.into_deserializer()).map(Some)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Option<T>, E> {
        T::deserialize(number.into_deserializer()).map(Some)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Option<T>, A::Error> {
        T::deserialize(SeqAccessDeserializer::new(items)).map(Some)
    }
}

/// The first [`MAX_KEYS`] of a list.
#[derive(Serialize)]
#[serde(transparent)]
pub struct Bounded<T> {
    pub items: Vec<T>,
    /// There were more; they were skipped.
    #[serde(skip)]
    pub more: bool,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Bounded<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_seq(BoundedVisitor(PhantomData))
    }
}

struct BoundedVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for BoundedVisitor<T> {
    type Value = Bounded<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    /// The declared length is not believed: room is made for what comes.
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Bounded<T>, A::Error> {
        let mut items = Vec::new();
        while items.len() < MAX_KEYS {
            match list.next_element()? {
                Some(item) => items.push(item),
                None => return Ok(Bounded { items, more: false }),
            }
        }
        let mut more = false;
        while list.next_element::<IgnoredAny>()?.is_some() {
            more = true;
        }
        Ok(Bounded { items, more })
    }
}
