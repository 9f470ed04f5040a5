//! From an event to its bytes.

use bytes::Bytes;
use serde::Serialize;
use serde_bytes::Bytes as Bin;

use super::form::{Bits, Bounded, Count, Told, Written};
use super::{Event, MAX_PUBLISHERS, Message, Ours, Prime, Seen, Shape};
use crate::bus::seal::{SEAL, SealKeys};
use crate::hc1::{self, Compression};

/// See [`Event::encode`] and [`Event::encode_sealed`].
pub fn event(event: &Event, keys: Option<&SealKeys>) -> Bytes {
    let mut plain = hc1::PLAIN.to_vec();
    let place = keys.map(|_| Bin::new(&[0; SEAL]));
    written(event, place)
        .serialize(&mut rmp_serde::Serializer::new(&mut plain).with_struct_map())
        .expect("maps of text and numbers have a form, and a vector takes all of it");
    if let (Some(keys), Some(_)) = (keys, &event.ours) {
        keys.seal(&mut plain[hc1::TAG..]);
    }
    let compression = Compression::default();
    match plain.len() - hc1::TAG >= compression.min_bytes {
        true => compression.shrink(&plain).unwrap_or(plain).into(),
        false => plain.into(),
    }
}

/// With room for a seal at its end where there is to be one.
fn written<'a>(event: &'a Event, seal: Option<&'a Bin>) -> Written<'a> {
    let (r#type, keys, pattern) = match &event.shape {
        Shape::Del { keys } | Shape::Set { keys } => ("del", Some(&**keys), None),
        Shape::Pattern(pattern) => ("pattern", None, Some(&**pattern)),
    };
    Written {
        id: &event.id,
        r#type,
        source: &event.source,
        ts: event.ts as f64,
        keys,
        pattern,
        namespace: event.namespace.as_deref(),
        lamina: event.ours.as_ref().map(|ours| Told { seal, ..told(ours) }),
    }
}

fn told(ours: &Ours) -> Told<'_> {
    let of_message = match &ours.message {
        Message::Purge {
            selector,
            soft,
            receipt,
        } => Told {
            kind: "purge",
            selector: Some(selector),
            soft: Some(*soft),
            receipt: Some(*receipt),
            ..Told::default()
        },
        Message::Prime(prime) => told_prime(prime),
        Message::Changed { key, likeness } => Told {
            kind: "changed",
            key: Some(Bin::new(key)),
            likeness: Some(Bits(*likeness)),
            ..Told::default()
        },
        Message::Heartbeat { healthy, version } => Told {
            kind: "heartbeat",
            healthy: Some(*healthy),
            version: Some(version),
            ..Told::default()
        },
        Message::Leaving => Told {
            kind: "leaving",
            ..Told::default()
        },
        Message::Applied { of, order } => Told {
            kind: "applied",
            of: Some(of),
            order: Some(Bits(*order)),
            ..Told::default()
        },
        Message::Missing { of, life, from } => Told {
            kind: "missing",
            of: Some(of),
            life: Some(Bits(*life)),
            order: Some(Bits(*from)),
            ..Told::default()
        },
    };
    Told {
        boot: Bits(ours.boot),
        purges: Count(ours.purges),
        sequence: Count(ours.sequence),
        ..of_message
    }
}

fn told_prime(prime: &Prime) -> Told<'_> {
    let (log, publishers) = match &prime.seen {
        Seen::Log { generation } => (Some(Bits(*generation)), None),
        Seen::Publishers(known) => (None, Some(list(known))),
    };
    Told {
        kind: "prime",
        key: Some(Bin::new(&prime.key)),
        primary: Some(Bin::new(&prime.primary)),
        record: Some(Bin::new(&prime.record)),
        log,
        publishers,
        ..Told::default()
    }
}

/// The first [`MAX_PUBLISHERS`]: a receiver refuses a value that knew of fewer purges than it does.
fn list(known: &[(String, u64, u64)]) -> Bounded<(&str, Bits, Count)> {
    let known = known.iter().take(MAX_PUBLISHERS);
    Bounded {
        items: known
            .map(|(source, boot, purges)| (&**source, Bits(*boot), Count(*purges)))
            .collect(),
        more: false,
    }
}
