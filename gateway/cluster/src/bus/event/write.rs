//! From an event to its bytes.

use bytes::Bytes;
use serde::Serialize;
use serde_bytes::Bytes as Bin;

use super::form::{BoundedList, HexBits, LaminaMap, WireCount, WrittenOuterMap};
use super::{
    BusEvent, EventShape, KnownPurges, MAX_PUBLISHERS, Message, NodePayload, PrimeMessage,
    PublisherNumber,
};
use crate::bus::seal::{SEAL, SealKeys};
use crate::envelope::{self, Compression};

/// See [`BusEvent::encode`] and [`BusEvent::encode_sealed`].
pub fn event(event: &BusEvent, keys: Option<&SealKeys>) -> Bytes {
    let mut plain = envelope::PLAIN.to_vec();
    let place = keys.map(|_| Bin::new(&[0; SEAL]));
    written(event, place)
        .serialize(&mut rmp_serde::Serializer::new(&mut plain).with_struct_map())
        .expect("maps of text and numbers have a form, and a vector takes all of it");
    if let (Some(keys), Some(_)) = (keys, &event.ours) {
        keys.seal(&mut plain[envelope::TAG..]);
    }
    let compression = Compression::default();
    match plain.len() - envelope::TAG >= compression.min_bytes {
        true => compression.shrink(&plain).unwrap_or(plain).into(),
        false => plain.into(),
    }
}

/// With room for a seal at its end, if `seal` is given.
fn written<'a>(event: &'a BusEvent, seal: Option<&'a Bin>) -> WrittenOuterMap<'a> {
    let (r#type, keys, pattern) = match &event.shape {
        EventShape::Del { keys } | EventShape::Set { keys } => ("del", Some(&**keys), None),
        EventShape::Pattern(pattern) => ("pattern", None, Some(&**pattern)),
    };
    WrittenOuterMap {
        id: &event.id,
        r#type,
        source: &event.source,
        ts: event.ts as f64,
        keys,
        pattern,
        namespace: event.namespace.as_deref(),
        lamina: event
            .ours
            .as_ref()
            .map(|ours| LaminaMap { seal, ..told(ours) }),
    }
}

fn told(ours: &NodePayload) -> LaminaMap<'_> {
    let of_message = match &ours.message {
        Message::Purge {
            selector,
            soft,
            receipt,
        } => LaminaMap {
            kind: "purge",
            selector: Some(selector),
            soft: Some(*soft),
            receipt: Some(*receipt),
            ..LaminaMap::default()
        },
        Message::Prime(prime) => told_prime(prime),
        Message::Changed { key, likeness } => LaminaMap {
            kind: "changed",
            key: Some(Bin::new(key)),
            likeness: Some(HexBits(*likeness)),
            ..LaminaMap::default()
        },
        Message::Heartbeat {
            healthy,
            version,
            asks,
        } => LaminaMap {
            kind: "heartbeat",
            healthy: Some(*healthy),
            version: Some(version),
            asks: asks.then_some(true),
            ..LaminaMap::default()
        },
        Message::Leaving => LaminaMap {
            kind: "leaving",
            ..LaminaMap::default()
        },
        Message::Applied { of, order } => LaminaMap {
            kind: "applied",
            of: Some(of),
            order: Some(HexBits(*order)),
            ..LaminaMap::default()
        },
        Message::Missing { of, life, from } => LaminaMap {
            kind: "missing",
            of: Some(of),
            life: Some(HexBits(*life)),
            order: Some(HexBits(from.value())),
            ..LaminaMap::default()
        },
    };
    LaminaMap {
        boot: HexBits(ours.boot),
        purges: WireCount(ours.purges.value()),
        sequence: WireCount(ours.sequence),
        ..of_message
    }
}

fn told_prime(prime: &PrimeMessage) -> LaminaMap<'_> {
    let (log, publishers) = match &prime.seen {
        KnownPurges::Log { generation } => (Some(HexBits(*generation)), None),
        KnownPurges::Publishers(known) => (None, Some(list(known))),
    };
    LaminaMap {
        kind: "prime",
        key: Some(Bin::new(&prime.key)),
        primary: Some(Bin::new(&prime.primary)),
        record: Some(Bin::new(&prime.record)),
        log,
        publishers,
        ..LaminaMap::default()
    }
}

/// The first [`MAX_PUBLISHERS`]: if the list is incomplete, a receiver takes the value as older
/// than it is.
fn list(known: &[(String, u64, PublisherNumber)]) -> BoundedList<(&str, HexBits, WireCount)> {
    let known = known.iter().take(MAX_PUBLISHERS);
    BoundedList {
        items: known
            .map(|(source, boot, purges)| (&**source, HexBits(*boot), WireCount(purges.value())))
            .collect(),
        more: false,
    }
}
