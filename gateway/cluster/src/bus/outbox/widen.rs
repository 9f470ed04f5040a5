//! A purge that is too large for the broker becomes a wider one that fits.
//!
//! First the event's shape for services that run `lazy-layers-cache`, which repeats the text of the
//! selector, becomes everything; then the selector itself becomes wider, in the end everything.
//! Number, id and all other fields stay, so that receivers miss nothing and awaited receipts still
//! come.

use bytes::Bytes;

use super::WidenSelector;
use crate::bus::event::{BusEvent, EventShape, Message};
use crate::bus::seal::SealKeys;

/// What is published in place of a purge.
pub struct WidenedPurge {
    pub bytes: Bytes,
    /// The original selector.
    pub from: String,
    /// The wider selector.
    pub to: String,
}

/// An upper bound of the bytes that msgpack takes for the length of a text.
const LENGTH: usize = 8;

/// The bytes of an event, sealed where there are keys.
pub fn encoded(event: &BusEvent, keys: Option<&SealKeys>) -> Bytes {
    match keys {
        Some(keys) => event.encode_sealed(keys),
        None => event.encode(),
    }
}

/// Makes a wider purge of at most `limit` bytes. None: there is none, or the bytes are not a purge.
pub fn to_fit(
    bytes: &Bytes,
    keys: Option<&SealKeys>,
    limit: usize,
    wider: WidenSelector,
) -> Option<WidenedPurge> {
    let mut event = BusEvent::decode(bytes).ok()?;
    let from = selector(&mut event)?.clone();
    if event.shape != EventShape::inert() {
        event.shape = EventShape::Pattern("*".to_owned());
    }
    let told = |event: &mut BusEvent, to: String| {
        *selector(event)? = to.clone();
        let bytes = encoded(event, keys);
        let from = from.clone();
        (bytes.len() <= limit).then_some(WidenedPurge { bytes, from, to })
    };
    if let Some(widened) = told(&mut event, from.clone()) {
        return Some(widened);
    }
    *selector(&mut event)? = String::new();
    let room = limit.checked_sub(encoded(&event, keys).len() + LENGTH)?;
    told(&mut event, wider(&from, room))
}

fn selector(event: &mut BusEvent) -> Option<&mut String> {
    match &mut event.ours.as_mut()?.message {
        Message::Purge { selector, .. } => Some(selector),
        _ => None,
    }
}
