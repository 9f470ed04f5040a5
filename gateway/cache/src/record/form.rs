//! Parts of a record's msgpack with bounds: numbers in the forms of several writers, lists with a
//! maximum length, and the reasons for faults.

use std::fmt;
use std::marker::PhantomData;

use rmp::decode::{NumValueReadError, ValueReadError};
use rmp_serde::decode::Error as Fault;
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::{CorruptRecord, MAX_FIELDS};

/// A non-negative whole number.
#[derive(Clone, Copy, Serialize)]
#[serde(transparent)]
pub struct RecordInteger(pub u64);

/// A list of at most [`MAX_FIELDS`] items.
#[derive(Serialize)]
#[serde(transparent)]
pub struct RecordList<T>(pub Vec<T>);

impl<T> RecordList<T> {
    /// None if there are too many items.
    pub fn of(items: impl Iterator<Item = T>) -> Option<Self> {
        let list: Vec<_> = items.take(MAX_FIELDS + 1).collect();
        (list.len() <= MAX_FIELDS).then_some(Self(list))
    }
}

impl<'de> Deserialize<'de> for RecordInteger {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_u64(WholeVisitor)
    }
}

struct WholeVisitor;

impl Visitor<'_> for WholeVisitor {
    type Value = RecordInteger;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<RecordInteger, E> {
        Ok(RecordInteger(number))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<RecordInteger, E> {
        let number = u64::try_from(number).map_err(|_| E::custom("a negative number"))?;
        Ok(RecordInteger(number))
    }

    /// Accepts JavaScript's numbers as far as they are exact.
    fn visit_f64<E: Error>(self, number: f64) -> Result<RecordInteger, E> {
        const EXACT: f64 = (1_u64 << f64::MANTISSA_DIGITS) as f64;
        match number.fract() == 0.0 && (0.0..EXACT).contains(&number) {
            true => Ok(RecordInteger(number as u64)),
            false => Err(E::custom("not a whole number")),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for RecordList<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_seq(ListVisitor(PhantomData))
    }
}

struct ListVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ListVisitor<T> {
    type Value = RecordList<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {MAX_FIELDS}")
    }

    /// The declared length is not trusted: memory is allocated only for items that arrive.
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<RecordList<T>, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            if list.len() == MAX_FIELDS {
                return Err(A::Error::custom("too many"));
            }
            list.push(item);
        }
        Ok(RecordList(list))
    }
}

/// The reason for a fault in the record's msgpack.
pub fn of_record(fault: Fault) -> CorruptRecord {
    match fault {
        Fault::InvalidMarkerRead(_) | Fault::InvalidDataRead(_) => CorruptRecord::Truncated,
        Fault::DepthLimitExceeded => CorruptRecord::TooDeep,
        _ => CorruptRecord::Form,
    }
}

/// The reason for a fault in the envelope's msgpack.
pub fn of_value(fault: ValueReadError) -> CorruptRecord {
    match fault {
        ValueReadError::InvalidMarkerRead(_) | ValueReadError::InvalidDataRead(_) => {
            CorruptRecord::Truncated
        }
        ValueReadError::TypeMismatch(_) => CorruptRecord::Form,
    }
}

/// The reason for a fault in a number of the envelope.
pub fn of_number(fault: NumValueReadError) -> CorruptRecord {
    match fault {
        NumValueReadError::InvalidMarkerRead(_) | NumValueReadError::InvalidDataRead(_) => {
            CorruptRecord::Truncated
        }
        NumValueReadError::TypeMismatch(_) | NumValueReadError::OutOfRange => CorruptRecord::Form,
    }
}
