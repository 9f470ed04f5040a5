//! The maps of an event on the wire, and their parts.
//!
//! Decision: our own map is one borrowed struct for both directions, so that a name can't differ
//! between them. The outer map has one struct for each direction: we write few of its fields and
//! accept more than we write.
//!
//! Decision: no integer of 64 bits is written. `msgpackr` reads those as `BigInt`, and
//! `@msgpack/msgpack` as an imprecise number. So counts are [`WireCount`], times are floats, and a
//! number that uses all of its bits is the text of [`HexBits`].

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, IgnoredAny, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_bytes::Bytes as Bin;

use super::MAX_KEYS;

/// The outer map as it is read: from JSON by serde, from msgpack by [`super::outer`].
#[derive(Deserialize, Default)]
pub struct OuterMap {
    pub id: Option<String>,
    pub r#type: Option<String>,
    pub source: Option<String>,
    pub ts: Option<f64>,
    pub keys: Option<BoundedList<String>>,
    pub pattern: Option<String>,
    pub namespace: Option<String>,
    /// Only whether the field is there; see [`LaminaOnlyMap`].
    pub lamina: Option<IgnoredAny>,
}

/// The outer map as it is written.
#[derive(Serialize)]
pub struct WrittenOuterMap<'a> {
    pub id: &'a str,
    pub r#type: &'static str,
    pub source: &'a str,
    pub ts: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pattern: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lamina: Option<LaminaMap<'a>>,
}

/// The outer map, read only for `lamina`, so that a fault in that field affects nothing else.
#[derive(Deserialize)]
pub struct LaminaOnlyMap<'a> {
    #[serde(borrow)]
    pub lamina: LaminaMap<'a>,
}

/// Our own map: `kind` says which of the other fields are there.
#[derive(Serialize, Deserialize, Default)]
pub struct LaminaMap<'a> {
    pub boot: HexBits,
    pub purges: WireCount,
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
    pub likeness: Option<HexBits>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<HexBits>,
    #[serde(skip_serializing_if = "Option::is_none", borrow)]
    pub publishers: Option<BoundedList<(&'a str, HexBits, WireCount)>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthy: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asks: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub life: Option<HexBits>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<HexBits>,
    /// How many events this boot has published; 0 if the node did not send it.
    #[serde(default)]
    pub sequence: WireCount,
    /// Must be the last field: [`crate::bus::seal`] expects it at the end of the bytes.
    #[serde(skip_serializing_if = "Option::is_none", borrow)]
    pub seal: Option<&'a Bin>,
}

/// A count, written as a number that JavaScript reads exactly: an integer of 32 bits, or a float
/// for greater ones. Read from any number, since older nodes wrote integers of 64 bits.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct WireCount(pub u64);

impl Serialize for WireCount {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match u32::try_from(self.0) {
            Ok(small) => to.serialize_u32(small),
            Err(_) => to.serialize_f64(self.0 as f64),
        }
    }
}

impl<'de> Deserialize<'de> for WireCount {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(NumberVisitor).map(Self)
    }
}

/// A number that uses all of its 64 bits and is not counted with, written as 16 hexadecimal digits:
/// JavaScript has no such number. Read from integers as well, since older nodes wrote those.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct HexBits(pub u64);

impl Serialize for HexBits {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&format!("{:016x}", self.0))
    }
}

impl<'de> Deserialize<'de> for HexBits {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(NumberVisitor).map(Self)
    }
}

struct NumberVisitor;

impl Visitor<'_> for NumberVisitor {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number that is not negative, or 16 hexadecimal digits")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<u64, E> {
        Ok(number)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<u64, E> {
        match number >= 0.0 && number.fract() == 0.0 {
            true => Ok(number as u64),
            false => Err(E::invalid_value(Unexpected::Float(number), &self)),
        }
    }

    fn visit_str<E: Error>(self, digits: &str) -> Result<u64, E> {
        let number = match digits.len() {
            16 => u64::from_str_radix(digits, 16).ok(),
            _ => None,
        };
        number.ok_or_else(|| E::invalid_value(Unexpected::Str(digits), &self))
    }
}

/// The first [`MAX_KEYS`] items of a list.
#[derive(Serialize)]
#[serde(transparent)]
pub struct BoundedList<T> {
    pub items: Vec<T>,
    /// Whether there were more; they were skipped.
    #[serde(skip)]
    pub more: bool,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for BoundedList<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_seq(BoundedVisitor(PhantomData))
    }
}

struct BoundedVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for BoundedVisitor<T> {
    type Value = BoundedList<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    /// The declared length is not trusted: memory grows only with the items that come.
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<BoundedList<T>, A::Error> {
        let mut items = Vec::new();
        while items.len() < MAX_KEYS {
            match list.next_element()? {
                Some(item) => items.push(item),
                None => return Ok(BoundedList { items, more: false }),
            }
        }
        let mut more = false;
        while list.next_element::<IgnoredAny>()?.is_some() {
            more = true;
        }
        Ok(BoundedList { items, more })
    }
}
