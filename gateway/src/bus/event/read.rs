//! From bytes to an event: which form they have, then the outer map, then what is ours.

use std::fmt::Write;

use bytes::Bytes;
use rmp::Marker;
use rmp_serde::decode::Error as Fault;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::error::Category;
use sha2::{Digest, Sha256};

use super::form::{Beside, Bounded, Lax, Outer, Told};
use super::{
    Event, MAX_BYTES, MAX_COUNT, MAX_DEPTH, MAX_NAME, MAX_PUBLISHERS, MAX_TEXT, Malformed, Message,
    Opened, Ours, Prime, Seen, Shape,
};
use crate::bus::seal::{SealCheck, SealKeys};
use crate::hc1;

/// The seed's tag for JSON, and how an object begins.
const JSON: &[u8] = b"HC1J";
const OBJECT: &[u8] = b"{";

/// See [`Event::open`].
pub fn event(bytes: &Bytes, keys: Option<&SealKeys>) -> Result<Opened, Malformed> {
    if bytes.len() > MAX_BYTES {
        return Err(Malformed::TooLarge);
    }
    if let Some(text) = bytes.strip_prefix(JSON) {
        return of_json(text);
    }
    if bytes.trim_ascii_start().starts_with(OBJECT) {
        return of_json(bytes);
    }
    match is_map(bytes) {
        true => of_msgpack(bytes, keys),
        false => of_msgpack(&hc1::expand(bytes, MAX_BYTES)?, keys),
    }
}

fn of_json(text: &[u8]) -> Result<Opened, Malformed> {
    // A list would do for the maps of `form`, its items for their fields.
    if !text.trim_ascii_start().starts_with(OBJECT) {
        return Err(Malformed::Form);
    }
    let outer = serde_json::from_slice(text).map_err(|fault| match fault.classify() {
        Category::Eof => Malformed::Truncated,
        _ => Malformed::Form,
    })?;
    Ok(Opened {
        event: build(outer, None)?,
        seal: SealCheck::Absent,
    })
}

fn of_msgpack(packed: &Bytes, keys: Option<&SealKeys>) -> Result<Opened, Malformed> {
    if !packed.is_empty() && !is_map(packed) {
        return Err(Malformed::Form);
    }
    let outer: Outer = all_of(packed)?;
    let ours = outer.lamina.and_then(|_| ours(packed));
    let event = build(outer, ours)?;
    believable(&event)?;
    Ok(Opened {
        event,
        seal: keys.map_or(SealCheck::Absent, |keys| keys.check(packed)),
    })
}

/// What no node says is no event of one.
fn believable(event: &Event) -> Result<(), Malformed> {
    let Some(ours) = &event.ours else {
        return Ok(());
    };
    let (named, known): (Option<&str>, &[_]) = match &ours.message {
        Message::Heartbeat { version, .. } => (Some(version), &[]),
        Message::Applied { of, .. } | Message::Missing { of, .. } => (Some(of), &[]),
        Message::Prime(Prime {
            seen: Seen::Publishers(known),
            ..
        }) => (None, known),
        Message::Purge { .. } | Message::Prime(_) | Message::Changed { .. } | Message::Leaving => {
            (None, &[])
        }
    };
    if known.len() > MAX_PUBLISHERS {
        return Err(Malformed::TooMany);
    }
    let names = [&event.id, &event.source].map(String::as_str);
    let publishers = known.iter().map(|(name, ..)| name.as_str());
    let mut names = names.into_iter().chain(named).chain(publishers);
    if event.source.is_empty() || names.any(|name| name.len() > MAX_NAME) {
        return Err(Malformed::Name);
    }
    let uncounted = ours.purges == 0 && matches!(ours.message, Message::Purge { .. });
    let counts = [ours.purges, ours.sequence];
    let mut counts = counts.into_iter().chain(known.iter().map(|known| known.2));
    match uncounted || counts.any(|count| count >= MAX_COUNT) {
        true => Err(Malformed::Count),
        false => Ok(()),
    }
}

fn is_map(packed: &[u8]) -> bool {
    packed.first().is_some_and(|first| {
        matches!(
            Marker::from_u8(*first),
            Marker::FixMap(_) | Marker::Map16 | Marker::Map32
        )
    })
}

/// What `packed` is, if nothing follows it.
fn all_of<'a, T: Deserialize<'a>>(packed: &'a Bytes) -> Result<T, Malformed> {
    let mut from = rmp_serde::Deserializer::from_read_ref(packed);
    from.set_max_depth(MAX_DEPTH);
    let whole = T::deserialize(&mut from).map_err(|fault| match fault {
        Fault::InvalidMarkerRead(_) | Fault::InvalidDataRead(_) => Malformed::Truncated,
        Fault::DepthLimitExceeded => Malformed::TooDeep,
        _ => Malformed::Form,
    })?;
    match IgnoredAny::deserialize(&mut from) {
        Err(Fault::InvalidMarkerRead(_)) => Ok(whole),
        _ => Err(Malformed::Form),
    }
}

fn build(outer: Outer, ours: Option<Ours>) -> Result<Event, Malformed> {
    let source = needed(text(outer.source)?)?;
    let ts = needed(outer.ts.0)?;
    if !ts.is_finite() {
        return Err(Malformed::Form);
    }
    let r#type = needed(text(outer.r#type)?)?;
    let shape = match r#type.as_str() {
        "del" => Shape::Del {
            keys: keys(outer.keys)?,
        },
        "set" => Shape::Set {
            keys: keys(outer.keys)?,
        },
        "pattern" => Shape::Pattern(needed(text(outer.pattern)?)?),
        _ => return Err(Malformed::Type),
    };
    let id = text(outer.id)?.filter(|id| !id.is_empty());
    Ok(Event {
        id: id.unwrap_or_else(|| made_up(&source, ts, &r#type, &shape)),
        source,
        namespace: text(outer.namespace)?,
        // A negative one is 0.
        ts: ts as u64,
        shape,
        ours,
    })
}

fn needed<T>(field: Option<T>) -> Result<T, Malformed> {
    field.ok_or(Malformed::Missing)
}

fn text(field: Lax<String>) -> Result<Option<String>, Malformed> {
    match field.0 {
        Some(text) if text.len() > MAX_TEXT => Err(Malformed::TooLong),
        text => Ok(text),
    }
}

fn keys(field: Lax<Bounded<String>>) -> Result<Vec<String>, Malformed> {
    let Bounded { items, more } = needed(field.0)?;
    if more {
        return Err(Malformed::TooMany);
    }
    match items.iter().any(|key| key.len() > MAX_TEXT) {
        true => Err(Malformed::TooLong),
        false => Ok(items),
    }
}

/// The seed's `source:ts:type:keys-or-pattern`, the last part as a hash, since an id is
/// remembered and that part may be a megabyte.
fn made_up(source: &str, ts: f64, r#type: &str, shape: &Shape) -> String {
    let mut hash = Sha256::new();
    match shape {
        Shape::Pattern(pattern) => hash.update(pattern),
        Shape::Del { keys } | Shape::Set { keys } => keys.iter().for_each(|key| {
            hash.update((key.len() as u64).to_be_bytes());
            hash.update(key);
        }),
    }
    let mut id = format!("{source}:{ts}:{type}:");
    for byte in &hash.finalize()[..16] {
        write!(id, "{byte:02x}").expect("a string takes everything");
    }
    id
}

fn ours(packed: &Bytes) -> Option<Ours> {
    let told = all_of::<Beside>(packed).ok()?.lamina;
    Some(Ours {
        boot: told.boot,
        purges: told.purges,
        sequence: told.sequence,
        message: message(packed, told)?,
    })
}

fn message(packed: &Bytes, told: Told<'_>) -> Option<Message> {
    Some(match told.kind {
        "purge" => Message::Purge {
            selector: owned(told.selector)?,
            soft: told.soft?,
            receipt: told.receipt?,
        },
        "prime" => Message::Prime(prime(packed, told)?),
        "changed" => Message::Changed {
            key: packed.slice_ref(told.key?),
            likeness: told.likeness?,
        },
        "heartbeat" => Message::Heartbeat {
            healthy: told.healthy?,
            version: owned(told.version)?,
        },
        "leaving" => Message::Leaving,
        "applied" => Message::Applied {
            of: owned(told.of)?,
            order: told.order?,
        },
        "missing" => Message::Missing {
            of: owned(told.of)?,
            life: told.life?,
            from: told.order?,
        },
        _ => return None,
    })
}

fn owned(text: Option<&str>) -> Option<String> {
    text.filter(|text| text.len() <= MAX_TEXT)
        .map(str::to_owned)
}

fn prime(packed: &Bytes, told: Told<'_>) -> Option<Prime> {
    let seen = match (told.log, told.publishers) {
        (Some(generation), None) => Seen::Log { generation },
        (None, Some(Bounded { items, more: false })) => Seen::Publishers(
            items
                .into_iter()
                .map(|(source, boot, purges)| (source.to_owned(), boot, purges))
                .collect(),
        ),
        _ => return None,
    };
    Some(Prime {
        key: packed.slice_ref(told.key?),
        primary: packed.slice_ref(told.primary?),
        record: packed.slice_ref(told.record?),
        seen,
    })
}

impl From<hc1::Fault> for Malformed {
    fn from(fault: hc1::Fault) -> Self {
        match fault {
            hc1::Fault::Tag => Self::Tag,
            hc1::Fault::Truncated => Self::Truncated,
            hc1::Fault::TooLarge => Self::TooLarge,
            hc1::Fault::Damaged => Self::Compression,
        }
    }
}
