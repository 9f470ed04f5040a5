//! What the outbox is about to hand to the transport, or has to hand to it again.

use std::collections::VecDeque;

use bytes::Bytes;

use super::metrics::PublishedKind;
use crate::bus::event::PublisherNumber;

/// The most events that are handed to the transport at once, and their bytes.
pub(super) const BATCH: usize = 64;
const BATCH_BYTES: usize = 1 << 20;

/// An event that is ready to be sent.
pub(super) struct OutgoingEvent {
    pub(super) bytes: Bytes,
    pub(super) kind: PublishedKind,
    /// The number of a purge that was not sent before.
    pub(super) number: Option<PublisherNumber>,
}

/// Events that are ready to be sent, in their order.
#[derive(Default)]
pub(super) struct OutgoingBatch {
    events: VecDeque<OutgoingEvent>,
}

/// What an attempt to make a batch smaller has led to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BatchShrinking {
    Smaller,
    Unchanged,
}

impl OutgoingBatch {
    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Whether another event may be added.
    pub(super) fn has_room(&self) -> bool {
        let bytes: usize = self.events.iter().map(|event| event.bytes.len()).sum();
        self.events.len() < BATCH && bytes < BATCH_BYTES
    }

    pub(super) fn push(&mut self, event: OutgoingEvent) {
        self.events.push_back(event);
    }

    pub(super) fn push_some(&mut self, event: Option<OutgoingEvent>) {
        self.events.extend(event);
    }

    /// Whether it has purges.
    pub(super) fn has_kept(&self) -> bool {
        self.events.iter().any(|event| event.kind.is_kept())
    }

    /// The number of the first purge that was not sent before.
    pub(super) fn first_number(&self) -> Option<PublisherNumber> {
        self.events.iter().find_map(|event| event.number)
    }

    /// The kind of the event that is next.
    pub(super) fn next_kind(&self) -> Option<PublishedKind> {
        self.events.front().map(|event| event.kind)
    }

    /// The events at the front that go together with one of this kind.
    pub(super) fn alike(&self, kind: PublishedKind) -> Vec<Bytes> {
        let alike = self.events.iter();
        let alike = alike.take_while(|event| event.kind.goes_with(kind));
        alike.map(|event| event.bytes.clone()).collect()
    }

    /// Removes the first events, at most as many as there are.
    pub(super) fn take(&mut self, count: usize) -> impl Iterator<Item = OutgoingEvent> {
        let count = count.min(self.events.len());
        self.events.drain(..count)
    }

    /// How many of the events are purges that were not sent before.
    pub(super) fn purges(&self) -> usize {
        let purges = self.events.iter();
        purges
            .filter(|event| event.kind == PublishedKind::Purge)
            .count()
    }

    /// Whether it has purges that are published again.
    pub(super) fn repeats(&self) -> bool {
        let mut events = self.events.iter();
        events.any(|event| event.kind == PublishedKind::Again)
    }

    /// Drops the values. Returns how many there were.
    pub(super) fn drop_values(&mut self) -> usize {
        let before = self.events.len();
        self.events
            .retain(|event| event.kind != PublishedKind::Value);
        before - self.events.len()
    }

    /// Drops everything but purges that were not sent before.
    pub(super) fn keep_purges(&mut self) {
        self.events
            .retain(|event| event.kind == PublishedKind::Purge);
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        self.events.clear();
    }

    /// Lets `fit` replace the events that are larger than `limit`, or drop them. If the limit is not
    /// known, the first one is made half as large at most.
    pub(super) fn shrink(
        &mut self,
        limit: Option<usize>,
        mut fit: impl FnMut(OutgoingEvent, usize) -> Option<OutgoingEvent>,
    ) -> BatchShrinking {
        let Some(first) = self.events.front() else {
            return BatchShrinking::Unchanged;
        };
        let (limit, reach) = match limit {
            Some(limit) => (limit, self.events.len()),
            None => (first.bytes.len() / 2, 1),
        };
        let mut outcome = BatchShrinking::Unchanged;
        let mut kept = VecDeque::with_capacity(self.events.len());
        for (at, event) in self.events.drain(..).enumerate() {
            let bytes = event.bytes.len();
            if at >= reach || bytes <= limit {
                kept.push_back(event);
                continue;
            }
            let fitting = fit(event, limit);
            if fitting
                .as_ref()
                .is_none_or(|event| event.bytes.len() < bytes)
            {
                outcome = BatchShrinking::Smaller;
            }
            kept.extend(fitting);
        }
        self.events = kept;
        outcome
    }
}
