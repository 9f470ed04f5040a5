//! The events of the round trips over the bus: they have numbers and no effect.
//!
//! Decision: each event says that a purge which nobody asked for was applied. It has the inert
//! shape and a namespace of our own. Gateways with a namespace skip it unread; those without one
//! have no use for it; services of the seed delete a key that nobody has. A namespace alone would
//! not be enough, since nodes without one hear all events. If there is a `seal_key`, the event is
//! sealed, so that no gateway warns of it.

use std::hash::{BuildHasher, RandomState};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use lamina_cluster::bus::event::{BusEvent, EventShape, Message, NodePayload, PublisherNumber};
use lamina_cluster::bus::outbox::{new_boot, new_id};
use lamina_cluster::bus::seal::SealKeys;

/// Our name for those who look at events, and the name of the node that the events are for.
const NAME: &str = "lamina-doctor";
/// The bytes of one key in a large event, which consists of many keys.
const KEY: usize = 1_024;

/// Makes numbered events.
pub(super) struct ProbeEventWriter {
    boot: u64,
    /// The number of the last event.
    pub(super) written: u64,
    seal: Option<SealKeys>,
}

impl ProbeEventWriter {
    pub(super) fn new(seal: Option<SealKeys>) -> Self {
        Self {
            boot: new_boot(),
            written: 0,
            seal,
        }
    }

    /// The next event, as bytes.
    pub(super) fn next_event(&mut self, shape: EventShape) -> Bytes {
        let event = self.event(shape);
        match &self.seal {
            Some(keys) => event.encode_sealed(keys),
            None => event.encode(),
        }
    }

    fn event(&mut self, shape: EventShape) -> BusEvent {
        self.written += 1;
        let (boot, number) = (self.boot, self.written);
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        BusEvent {
            id: new_id(),
            source: NAME.to_owned(),
            namespace: Some(NAME.to_owned()),
            ts: since.map_or(0, |since| since.as_millis() as u64),
            shape,
            ours: Some(NodePayload {
                boot,
                purges: PublisherNumber::ZERO,
                sequence: number,
                message: Message::Applied {
                    of: NAME.to_owned(),
                    order: number,
                },
            }),
        }
    }

    /// The number of an event, if it is one of ours.
    pub(super) fn number(&self, bytes: &Bytes) -> Option<u64> {
        let ours = BusEvent::decode(bytes).ok()?.ours?;
        match ours.message {
            Message::Applied { order, .. } if ours.boot == self.boot => Some(order),
            _ => None,
        }
    }
}

/// A shape of about this size, made of keys that nobody has. Compression cannot make it smaller.
pub(super) fn keys(bytes: usize) -> EventShape {
    let random = RandomState::new();
    let key = |n: usize| -> String {
        let words = (0..KEY / 16).map(|word| format!("{:016x}", random.hash_one((n, word))));
        // Has the same form as the key of the inert shape.
        format!("lamina:{}", words.collect::<String>())
    };
    EventShape::Del {
        keys: (0..bytes.div_ceil(KEY)).map(key).collect(),
    }
}
