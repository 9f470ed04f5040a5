//! What is said over the bus for a round trip: events that have numbers and do nothing.
//!
//! Decision: what is said is the word that a purge was applied which nobody asked for, with
//! the inert shape, under a namespace of our own. Gateways with a namespace pass it by
//! unread; those without have no use for it; services of the seed delete a key that
//! nobody has. A namespace alone would not do, since who has none hears all.

use std::hash::{BuildHasher, RandomState};

use bytes::Bytes;

use crate::bus::event::{Event, Message, Ours, Shape};

/// Who we are to whoever looks at events, and whom they are for.
const NAME: &str = "lamina-doctor";
/// Bytes of a key where many make an event large.
const KEY: usize = 1_024;

/// Numbers what it says.
pub(super) struct Voice {
    boot: u64,
    /// The last number.
    pub(super) said: u64,
}

impl Voice {
    pub(super) fn new() -> Self {
        Self {
            boot: RandomState::new().hash_one(std::process::id()),
            said: 0,
        }
    }

    /// The next event.
    pub(super) fn event(&mut self, shape: Shape) -> Event {
        self.said += 1;
        let (boot, number) = (self.boot, self.said);
        Event {
            id: format!("{boot:016x}-doctor-{number}"),
            source: NAME.to_owned(),
            namespace: Some(NAME.to_owned()),
            ts: 0,
            shape,
            ours: Some(Ours {
                boot,
                purges: 0,
                message: Message::Applied {
                    of: NAME.to_owned(),
                    order: number,
                },
            }),
        }
    }

    /// The number of an event of ours.
    pub(super) fn number(&self, bytes: &Bytes) -> Option<u64> {
        let ours = Event::decode(bytes).ok()?.ours?;
        match ours.message {
            Message::Applied { order, .. } if ours.boot == self.boot => Some(order),
            _ => None,
        }
    }
}

/// A shape of about this size, which no compression makes smaller, of keys that nobody has.
pub(super) fn keys(bytes: usize) -> Shape {
    let random = RandomState::new();
    let key = |n: usize| -> String {
        let words = (0..KEY / 16).map(|word| format!("{:016x}", random.hash_one((n, word))));
        // As the inert shape's.
        format!("lamina:{}", words.collect::<String>())
    };
    Shape::Del {
        keys: (0..bytes.div_ceil(KEY)).map(key).collect(),
    }
}
