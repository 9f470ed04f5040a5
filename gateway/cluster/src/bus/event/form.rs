//! The maps of an event on the wire, and the pieces that they are made of.
//!
//! Decision: what is ours is one borrowed struct for both directions, so that a name can't
//! differ between them. The outer map has one for each: we write few of its fields and
//! bear more than we write.
//!
//! Decision: nothing that is written is an integer of 64 bits. `msgpackr` makes a `BigInt` of
//! those and `@msgpack/msgpack` an imprecise number, so counts are [`WireCount`], times floats, and
//! what uses all of its bits is the text of [`HexBits`].

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
    /// Only whether it is there; see [`LaminaOnlyMap`].
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

/// The outer map read for what is ours alone, so that a fault in it stays there.
#[derive(Deserialize)]
pub struct LaminaOnlyMap<'a> {
    #[serde(borrow)]
    pub lamina: LaminaMap<'a>,
}

/// What is ours: `kind` says which of the rest are there.
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
    pub of: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub life: Option<HexBits>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<HexBits>,
    /// How many events this boot has said; 0 is told by none.
    #[serde(default)]
    pub sequence: WireCount,
    /// The last field of all: [`crate::bus::seal`] finds it at the end of the bytes.
    #[serde(skip_serializing_if = "Option::is_none", borrow)]
    pub seal: Option<&'a Bin>,
}

/// A count, as a number that JavaScript reads as one: an integer of 32 bits, or a float above.
/// Read from any number, since nodes wrote integers of 64 bits before.
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

/// A number that uses all of its 64 bits and that nobody counts with, as 16 hexadecimal digits:
/// JavaScript has no such number. Read from an integer, too, as nodes wrote it before.
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

/// The first [`MAX_KEYS`] of a list.
#[derive(Serialize)]
#[serde(transparent)]
pub struct BoundedList<T> {
    pub items: Vec<T>,
    /// There were more; they were skipped.
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

    /// The declared length is not believed: room is made for what comes.
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
