//! Makes events for the other nodes out of what happens here.

use std::sync::Arc;

use super::Cluster;
use crate::bus::event::{EventShape, MAX_TEXT};
use crate::bus::outbox::{self, QueuedPurge};
use crate::cache::entry::Entry;
use crate::cache::key::{EntryKey, PurgeHash};
use crate::cache::peers::PeerNotifier;
use crate::cache::purge::{PurgeInitiator, PurgeKind, PurgeOrder, PurgeStatement, Selector};
use crate::pattern::Pattern;

/// An upper bound of the length of the words that a statement begins with, like
/// `by-request:pattern:`.
const WORD: usize = 32;

impl PeerNotifier for Cluster {
    fn purging(&self) {
        let mut orders = self.orders.lock();
        orders.begin_own(self.cache.order());
    }

    fn purged(
        &self,
        author: PurgeInitiator,
        selector: &Selector,
        kind: PurgeKind,
        order: PurgeOrder,
    ) {
        self.outbox.purge(purge_by(author, selector, kind, order));
    }

    fn invalidated(&self, numbers: &[PurgeHash], order: PurgeOrder) {
        self.invalidations.tell(&self.outbox, numbers, order);
    }

    fn loaded(&self, primary: &EntryKey, entry: &Arc<Entry>) {
        if !self.rules.broadcast {
            return;
        }
        self.tell_value(primary, entry);
    }
}

/// The event of a purge. A selector that is too long for an event becomes a purge of everything on
/// the other nodes, because receivers drop what exceeds their limits.
pub fn purge(selector: &Selector, kind: PurgeKind, order: PurgeOrder) -> QueuedPurge {
    purge_by(PurgeInitiator::Operator, selector, kind, order)
}

fn purge_by(
    author: PurgeInitiator,
    selector: &Selector,
    kind: PurgeKind,
    order: PurgeOrder,
) -> QueuedPurge {
    let selector = match can_tell(selector) {
        true => selector,
        false => &Selector::All,
    };
    QueuedPurge {
        selector: PurgeStatement::Purged(author, selector.clone()).to_string(),
        author: match author {
            PurgeInitiator::Operator => outbox::QueuedPurgeAuthor::Operator,
            PurgeInitiator::Request => outbox::QueuedPurgeAuthor::Request,
        },
        soft: kind == PurgeKind::Soft,
        shape: shape(selector),
        order: order.value(),
        count: 1,
        receipt: None,
    }
}

/// Whether other nodes can be told of a purge exactly: whether its texts fit.
pub fn can_tell(selector: &Selector) -> bool {
    let text = match selector {
        Selector::Prefix(text) | Selector::Tag(text) | Selector::Route(text) => text,
        Selector::Pattern(pattern) => pattern.as_str(),
        Selector::Key(_) | Selector::Url(_) | Selector::Group(_) | Selector::All => return true,
    };
    // Besides the text there are the words before it, and escapes in it, which at most double it.
    if text.len() < MAX_TEXT / 2 - WORD {
        return true;
    }
    let longest = match shape(selector) {
        EventShape::Pattern(pattern) => pattern.len(),
        EventShape::Del { keys } | EventShape::Set { keys } => keys.iter().map(String::len).sum(),
    };
    let told = PurgeStatement::Purged(PurgeInitiator::Request, selector.clone()).to_string();
    told.len().max(longest) <= MAX_TEXT
}

/// A selector of at most `room` bytes that reaches all that this one does, or the widest there is.
/// For a purge that a request caused, the widest is not a purge of everything: everything is
/// validated instead.
pub fn wider(selector: &str, room: usize) -> String {
    let Ok(statement) = selector.parse() else {
        return Selector::All.to_string();
    };
    let (author, shorter) = match statement {
        PurgeStatement::Purged(author, Selector::Prefix(text)) => {
            let room = left(room, author, Selector::Prefix(String::new()));
            let cut = &text[..text.floor_char_boundary(room)];
            let shorter = (!cut.is_empty()).then(|| Selector::Prefix(cut.to_owned()));
            (author, shorter)
        }
        PurgeStatement::Purged(author, Selector::Pattern(pattern)) => {
            let room = left(room, author, Selector::Pattern(Pattern::new("*")));
            let shorter = pattern.shortened(room).map(Selector::Pattern);
            (author, shorter)
        }
        PurgeStatement::Purged(author, _) => (author, None),
        PurgeStatement::Invalidated(_) | PurgeStatement::Doubt => (PurgeInitiator::Request, None),
    };
    match (shorter, author) {
        (Some(shorter), author) => PurgeStatement::Purged(author, shorter).to_string(),
        (None, PurgeInitiator::Operator) => Selector::All.to_string(),
        (None, PurgeInitiator::Request) => PurgeStatement::Doubt.to_string(),
    }
}

/// The room that is left for the selector's own text.
fn left(room: usize, author: PurgeInitiator, empty: Selector) -> usize {
    let words = PurgeStatement::Purged(author, empty).to_string();
    room.saturating_sub(words.len())
}

/// What the purge means to services that run `lazy-layers-cache`: a tag is a key of theirs, and `*`
/// is their only wildcard. A selector without an equivalent there reaches nothing.
fn shape(selector: &Selector) -> EventShape {
    let del = |key: &str| EventShape::Del {
        keys: vec![key.to_owned()],
    };
    match selector {
        Selector::Tag(tag) => del(tag),
        Selector::Prefix(prefix) => {
            let exactly = Pattern::exactly(prefix);
            EventShape::Pattern(format!("{}*", exactly.as_str()))
        }
        Selector::Pattern(pattern) => match pattern.literal() {
            Some(key) => del(key),
            None => EventShape::Pattern(pattern.as_str().to_owned()),
        },
        Selector::All => EventShape::Pattern("*".to_owned()),
        Selector::Key(_) | Selector::Url(_) | Selector::Group(_) | Selector::Route(_) => {
            EventShape::inert()
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::bus::event::{BusEvent, Message, NodePayload, PublisherNumber};

    /// What a receiver reads of it.
    fn heard(purge: QueuedPurge) -> Option<BusEvent> {
        let event = BusEvent {
            id: "1".to_owned(),
            source: "a".to_owned(),
            namespace: None,
            ts: 0,
            shape: purge.shape,
            ours: Some(NodePayload {
                boot: 1,
                purges: PublisherNumber::FIRST,
                sequence: 1,
                message: Message::Purge {
                    selector: purge.selector,
                    soft: purge.soft,
                    receipt: false,
                },
            }),
        };
        let bytes: Bytes = event.encode();
        let heard = BusEvent::decode(&bytes).ok()?;
        (heard == event).then_some(heard)
    }

    #[test]
    fn what_is_too_long_to_tell_purges_everything_elsewhere() {
        let stars = Selector::Prefix("*".repeat(MAX_TEXT / 2 + 1));
        assert!(!can_tell(&stars));
        let purge = purge(&stars, PurgeKind::Soft, PurgeOrder::new(1));
        assert_eq!((&*purge.selector, purge.soft), ("all", true));
        assert_eq!(purge.shape, EventShape::Pattern("*".to_owned()));
        assert!(can_tell(&Selector::Tag("x".repeat(MAX_TEXT - 15))));
        assert!(!can_tell(&Selector::Tag("x".repeat(MAX_TEXT - 14))));
    }

    #[test]
    fn a_wider_selector_fits_and_reaches_all_that_the_first_does() {
        let long = "/é".repeat(100);
        assert_eq!(wider(&format!("prefix:{long}"), 14), "prefix:/é/é/");
        assert_eq!(
            wider(&format!("by-request:prefix:{long}"), 20),
            "by-request:prefix:/"
        );
        assert_eq!(wider(&format!("by-request:prefix:{long}"), 18), "doubt");
        assert_eq!(wider(r"pattern:/a?\*bc*d", 12), "pattern:/a?*");
        assert_eq!(wider(r"pattern:/a?\*bc*d", 14), r"pattern:/a?\**");
        assert_eq!(wider("pattern:/a", 8), "all");
        for (selector, expected) in [
            ("tag:x", "all"),
            ("route:x", "all"),
            ("all", "all"),
            ("by-request:tag:x", "doubt"),
            ("invalidated:0000000000000001", "doubt"),
            ("doubt", "doubt"),
            ("of-tomorrow:x", "all"),
        ] {
            assert_eq!(wider(selector, 1_000), expected, "{selector}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn whatever_is_told_is_heard(
            unit in "[a*?\\\\é]{1,4}",
            bytes in prop_oneof![Just(MAX_TEXT / 2), Just(MAX_TEXT), 0..2 * MAX_TEXT],
            near in 0..20_usize,
        ) {
            let text = unit.repeat((bytes + near) / unit.len() + 1);
            for selector in [
                Selector::Prefix(text.clone()),
                Selector::Pattern(Pattern::new(&text)),
                Selector::Tag(text.clone()),
                Selector::Route(text),
            ] {
                prop_assert!(heard(purge(&selector, PurgeKind::Hard, PurgeOrder::new(1))).is_some());
            }
        }
    }
}
