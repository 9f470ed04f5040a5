//! What is said over the bus for a round trip: events that have numbers and do nothing.
//!
//! Decision: what is said is the word that a purge was applied which nobody asked for, with
//! the inert shape, under a namespace of our own. Gateways with a namespace pass it by
//! unread; those without have no use for it; services of the seed delete a key that
//! nobody has. A namespace alone would not do, since who has none hears all. Where there
//! is a `seal_key` it is sealed, so that no gateway warns of it.

use std::hash::{BuildHasher, RandomState};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use lamina_cluster::bus::event::{BusEvent, EventShape, Message, NodePayload};
use lamina_cluster::bus::outbox::{new_boot, new_id};
use lamina_cluster::bus::seal::SealKeys;

/// Who we are to whoever looks at events, and whom they are for.
const NAME: &str = "lamina-doctor";
/// Bytes of a key where many make an event large.
const KEY: usize = 1_024;

/// Numbers what it says.
pub(super) struct ProbeEventWriter {
    boot: u64,
    /// The last number.
    pub(super) said: u64,
    seal: Option<SealKeys>,
}

impl ProbeEventWriter {
    pub(super) fn new(seal: Option<SealKeys>) -> Self {
        Self {
            boot: new_boot(),
            said: 0,
            seal,
        }
    }

    /// The next event, as bytes.
    pub(super) fn say(&mut self, shape: EventShape) -> Bytes {
        let event = self.event(shape);
        match &self.seal {
            Some(keys) => event.encode_sealed(keys),
            None => event.encode(),
        }
    }

    fn event(&mut self, shape: EventShape) -> BusEvent {
        self.said += 1;
        let (boot, number) = (self.boot, self.said);
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        BusEvent {
            id: new_id(),
            source: NAME.to_owned(),
            namespace: Some(NAME.to_owned()),
            ts: since.map_or(0, |since| since.as_millis() as u64),
            shape,
            ours: Some(NodePayload {
                boot,
                purges: 0,
                sequence: number,
                message: Message::Applied {
                    of: NAME.to_owned(),
                    order: number,
                },
            }),
        }
    }

    /// The number of an event of ours.
    pub(super) fn number(&self, bytes: &Bytes) -> Option<u64> {
        let ours = BusEvent::decode(bytes).ok()?.ours?;
        match ours.message {
            Message::Applied { order, .. } if ours.boot == self.boot => Some(order),
            _ => None,
        }
    }
}

/// A shape of about this size, which no compression makes smaller, of keys that nobody has.
pub(super) fn keys(bytes: usize) -> EventShape {
    let random = RandomState::new();
    let key = |n: usize| -> String {
        let words = (0..KEY / 16).map(|word| format!("{:016x}", random.hash_one((n, word))));
        // As the inert shape's.
        format!("lamina:{}", words.collect::<String>())
    };
    EventShape::Del {
        keys: (0..bytes.div_ceil(KEY)).map(key).collect(),
    }
}
