//! What happens here becomes an event for the others.

use std::sync::Arc;

use super::Cluster;
use crate::bus::event::Shape;
use crate::bus::outbox::Purge;
use crate::cache::entry::Entry;
use crate::cache::key::Key;
use crate::cache::peers::Peers;
use crate::cache::purge::{Kind, Order, Selector};
use crate::pattern::Pattern;

impl Peers for Cluster {
    fn purging(&self) {
        let mut orders = self.orders.lock();
        orders.begin_own(self.cache.order());
    }

    fn purged(&self, selector: &Selector, kind: Kind, order: Order) {
        self.outbox.purge(purge(selector, kind, order));
    }

    fn loaded(&self, primary: &Key, entry: &Arc<Entry>) {
        if !self.rules.broadcast {
            return;
        }
        self.tell_value(primary, entry);
    }
}

/// The event of a purge.
pub fn purge(selector: &Selector, kind: Kind, order: Order) -> Purge {
    Purge {
        selector: selector.to_string(),
        soft: kind == Kind::Soft,
        shape: shape(selector),
        order,
        count: 1,
        receipt: None,
    }
}

/// What users of the seed make of it: a tag is a key of theirs, `*` is their one wildcard.
/// What has no likeness there reaches nothing.
fn shape(selector: &Selector) -> Shape {
    let del = |key: &str| Shape::Del {
        keys: vec![key.to_owned()],
    };
    match selector {
        Selector::Tag(tag) => del(tag),
        Selector::Prefix(prefix) => {
            let exactly = Pattern::exactly(prefix);
            Shape::Pattern(format!("{}*", exactly.as_str()))
        }
        Selector::Pattern(pattern) => match pattern.literal() {
            Some(key) => del(key),
            None => Shape::Pattern(pattern.as_str().to_owned()),
        },
        Selector::All => Shape::Pattern("*".to_owned()),
        Selector::Key(_) | Selector::Url(_) | Selector::Group(_) | Selector::Route(_) => {
            Shape::inert()
        }
    }
}
