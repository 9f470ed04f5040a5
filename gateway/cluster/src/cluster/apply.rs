//! Applies received events on this node, at once.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::doubts::UnprovenDoubt;
use super::nodes::{KeptDelivery, NodeState, PurgeCountVerdict, SendingNode};
use super::{Cluster, HeartbeatPurpose};
use crate::bus::config::ForeignPatterns;
use crate::bus::event::{BusEvent, EventShape, Message, NodePayload, PublisherNumber};
use crate::bus::inbox::{EventHandler, EventTrust, NotApplied};
use crate::bus::transport::Guarantee;
use crate::cache::purge::{PurgeInitiator, PurgeKind, PurgeOrder, PurgeStatement, Selector};
use crate::pattern::Pattern;

impl EventHandler for Cluster {
    fn hear(&self, event: BusEvent, trust: EventTrust) -> Result<(), NotApplied> {
        match event.ours {
            Some(ours) => {
                let who = SendingNode {
                    source: &event.source,
                    boot: ours.boot,
                    trust,
                };
                self.hear_node(&event.id, who, event.ts, ours);
            }
            None => self.hear_foreign(event.shape),
        }
        Ok(())
    }

    fn up(&self, behind: Option<u64>) {
        self.hears.store(true, Ordering::Release);
        self.came_up.notify_waiters();
        self.cache.set_cut_off(false);
        self.outbox.reconnected();
        let is_first = self.joined.set(tokio::time::Instant::now()).is_ok();
        match behind {
            // Whatever was published while this node did not listen is lost. Nodes that came back
            // before it may have published since: their counts say what to ask them for.
            None => {
                self.beat_once(HeartbeatPurpose::Ask);
                let why = "this node received no events for a while";
                match is_first {
                    true => self.doubts.open_by_joining(why),
                    false => self.doubts.open(why),
                }
            }
            Some(_) => {
                self.beat_once(HeartbeatPurpose::Tell);
                self.doubts.open_until_caught_up();
            }
        }
    }

    fn down(&self, why: &str) {
        self.hears.store(false, Ordering::Release);
        self.cache.set_cut_off(true);
        self.outbox.disconnected(why);
    }

    fn lost(&self, what: &'static str) {
        self.doubts.open(what);
    }

    fn forgot(&self) {
        self.doubts
            .open("the broker lacks messages that it had taken");
        // Nobody else has those of this node.
        self.outbox.say_again(PublisherNumber::FIRST);
    }

    fn caught_up(&self) {
        self.doubts.caught_up();
    }
}

impl Cluster {
    fn hear_node(&self, id: &str, who: SendingNode<'_>, ts: u64, ours: NodePayload) {
        let now = Instant::now();
        match ours.message {
            Message::Purge {
                selector,
                soft,
                receipt,
            } => {
                let order = self.hear_purge(who, ours.purges, &selector, soft);
                if receipt {
                    let of = id.to_owned();
                    let order = order.value();
                    self.outbox.say(Message::Applied { of, order });
                }
                return;
            }
            Message::Prime(prime) => self.take_value(prime, ts),
            Message::Changed { key, likeness } => self.take_change(&key, likeness),
            Message::Applied { of, order } => {
                self.receipts
                    .answered(&of, who.source, PurgeOrder::new(order))
            }
            Message::Missing { of, life, from } => {
                let own = &self.outbox.identity;
                if of == own.source && life == own.boot {
                    self.outbox.say_again(from);
                }
            }
            Message::Leaving => {
                self.count(who, ours.purges, now);
                self.nodes.lock().left(who.source);
                return;
            }
            Message::Heartbeat {
                healthy,
                version,
                asks,
            } => {
                if asks {
                    self.asked.notify_one();
                }
                self.count(who, ours.purges, now);
                let state = NodeState { healthy, version };
                let mut nodes = self.nodes.lock();
                nodes.stated(who.source, state);
                if asks {
                    nodes.asked(who);
                    drop(nodes);
                    self.heard_asking.notify_waiters();
                }
                return;
            }
        }
        self.count(who, ours.purges, now);
    }

    /// Returns the place of the purge in our order.
    fn hear_purge(
        &self,
        who: SendingNode<'_>,
        number: PublisherNumber,
        selector: &str,
        soft: bool,
    ) -> PurgeOrder {
        let kind = if soft {
            PurgeKind::Soft
        } else {
            PurgeKind::Hard
        };
        // A statement of a newer version: what it reaches is unknown, so everything is purged.
        let all = || PurgeStatement::Purged(PurgeInitiator::Operator, Selector::All);
        let (statement, kind) = match selector.parse() {
            Ok(statement) => (statement, kind),
            Err(_) => (all(), PurgeKind::Hard),
        };
        let order = self.cache.apply_of_peer(statement.clone(), kind);
        if who.source != self.name() {
            // Later, so that what is written down for another process meanwhile is judged by it.
            self.cache.pass_on_to_successor(&statement, kind);
        }
        let now = Instant::now();
        // Held until the doubt is open that the number calls for: nobody takes the counts for whole
        // in between.
        let mut nodes = self.nodes.lock();
        let arrival = nodes.purged(who, number, now);
        self.note_missing(arrival, who, order, now);
        let mut orders = self.orders.lock();
        orders.note(who.source, who.boot, number, order, now);
        drop(orders);
        self.miss(arrival, who);
        drop(nodes);
        self.metrics.purge(arrival);
        order
    }

    /// Takes the count of purges that came with another event. On a durable transport that event
    /// may overtake purges, so it counts later, and only if this node has caught up.
    fn count(&self, who: SendingNode<'_>, purges: PublisherNumber, now: Instant) {
        // Held as for a purge.
        let mut nodes = self.nodes.lock();
        let arrival = match self.transport.guarantee() {
            Guarantee::AtMostOnce => nodes.counted(who, purges, now),
            Guarantee::Durable => {
                let delivery = match self.doubts.await_delivery() {
                    true => KeptDelivery::UnderWay,
                    false => KeptDelivery::CaughtUp,
                };
                nodes.claimed(who, purges, delivery, now)
            }
        };
        self.note_missing(arrival, who, self.cache.order().next(), now);
        self.miss(arrival, who);
    }

    /// Notes the place in our order of the purges that did not come.
    fn note_missing(
        &self,
        arrival: PurgeCountVerdict,
        who: SendingNode<'_>,
        order: PurgeOrder,
        now: Instant,
    ) {
        let mut orders = self.orders.lock();
        if arrival == PurgeCountVerdict::Lost {
            orders.lose(who.source, who.boot, now);
        }
        if let Some(first) = arrival.first_missing() {
            orders.note(who.source, who.boot, first, order, now);
        }
    }

    /// Asks for the purges that are missing. For a node that was not known before, a doubt is
    /// opened instead, since each of its purges may be older than all that is stored here.
    fn miss(&self, arrival: PurgeCountVerdict, who: SendingNode<'_>) {
        let (cause, why) = match arrival {
            PurgeCountVerdict::Whole | PurgeCountVerdict::Late => return,
            // All that is held is in doubt as it is, no value is taken yet, and what the process
            // before has heard of the node is compared.
            PurgeCountVerdict::Stranger if self.doubts.await_what_was_heard() => return,
            PurgeCountVerdict::Stranger => (
                UnprovenDoubt::Stranger,
                "events of a new node were received",
            ),
            PurgeCountVerdict::Crowd => (
                UnprovenDoubt::Stranger,
                "there are more nodes than this node can remember (`bus.max_nodes`)",
            ),
            PurgeCountVerdict::Lost => (
                UnprovenDoubt::Stranger,
                "the numbers of a node's purges jumped",
            ),
            PurgeCountVerdict::Hole(_) => (UnprovenDoubt::Hole, "purges of a node did not arrive"),
        };
        match who.trust {
            EventTrust::Sealed => self.doubts.open(why),
            EventTrust::Unsealed => self.doubts.open_seldom(cause, why),
        }
        if let PurgeCountVerdict::Hole(from) = arrival {
            self.outbox.say(Message::Missing {
                of: who.source.to_owned(),
                life: who.boot,
                from,
            });
        }
    }

    /// An event of a service that runs `lazy-layers-cache`: its keys are tags here, and also URLs
    /// where they look like one.
    fn hear_foreign(&self, shape: EventShape) {
        let selectors: Vec<Selector> = match shape {
            EventShape::Del { keys } | EventShape::Set { keys } => {
                keys.iter().flat_map(|key| named(key)).collect()
            }
            EventShape::Pattern(pattern) => self.widened(&pattern),
        };
        for selector in selectors {
            self.cache
                .purge_of_peer(PurgeInitiator::Operator, &selector, PurgeKind::Hard);
            let statement = PurgeStatement::Purged(PurgeInitiator::Operator, selector);
            self.cache.pass_on_to_successor(&statement, PurgeKind::Hard);
        }
        self.metrics.foreign();
    }

    fn widened(&self, pattern: &str) -> Vec<Selector> {
        let is_url = looks_like_url(pattern) || pattern.starts_with("*/");
        match self.rules.foreign_patterns {
            ForeignPatterns::All if !is_url => vec![Selector::All],
            ForeignPatterns::All | ForeignPatterns::Urls => Selector::patterns(&starred(pattern)),
        }
    }
}

fn named(key: &str) -> impl Iterator<Item = Selector> {
    let urls = looks_like_url(key).then(|| Selector::addresses(key));
    let urls = urls.into_iter().flatten();
    [Selector::Tag(key.to_owned())].into_iter().chain(urls)
}

fn looks_like_url(text: &str) -> bool {
    text.starts_with('/') || text.starts_with("http://") || text.starts_with("https://")
}

/// In the patterns of `lazy-layers-cache`, only `*` is special.
fn starred(pattern: &str) -> String {
    let parts = pattern.split('*');
    let parts: Vec<String> = parts
        .map(|part| Pattern::exactly(part).as_str().to_owned())
        .collect();
    parts.join("*")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_foreign_patterns_the_star_alone_is_special() {
        let pattern = Pattern::new(&starred("/a?b/*"));
        assert!(pattern.matches("/a?b/c"));
        assert!(!pattern.matches("/axb/c"));
    }

    #[test]
    fn a_foreign_key_is_a_tag_and_a_url_where_it_looks_like_one() {
        let texts = |key: &str| -> Vec<String> { named(key).map(|s| s.to_string()).collect() };
        assert_eq!(texts("user:1"), ["tag:user:1"]);
        assert_eq!(texts("/p/*"), ["tag:/p/*", r"pattern:/p/\*"]);
        assert_eq!(
            texts("/x/../p/caf%c3%a9"),
            [
                "tag:/x/../p/caf%c3%a9",
                "pattern:/x/../p/caf%c3%a9",
                "pattern:/p/caf%C3%A9"
            ]
        );
    }
}
