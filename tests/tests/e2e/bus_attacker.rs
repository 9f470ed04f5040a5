//! Somebody who can hear and publish on the bus and has no key: records what nodes say, and
//! publishes whatever bytes it likes.

use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use e2e::fleet::{Fleet, known};
use e2e::gateway::Gateway;
use e2e::wait::{SOON, wait_for};
use lamina_cluster::bus::event::{BusEvent, EventShape, Message, NodePayload, PublisherNumber};
use lamina_cluster::bus::transport::{BusTransport, TransportEvent};
use tokio::task::JoinHandle;

use crate::bus_transport::{Broker, Node, applied};

/// The attacker.
pub struct Attacker {
    transport: Arc<dyn BusTransport>,
    heard: Arc<Mutex<Vec<Bytes>>>,
    listening: JoinHandle<()>,
}

impl Attacker {
    pub async fn join<B: Broker>(broker: &B) -> Self {
        let mut node = Node::join(broker.open(broker.port(), "attacker")).await;
        let transport = Arc::clone(&node.transport);
        let heard: Arc<Mutex<Vec<Bytes>>> = Arc::default();
        let record = Arc::clone(&heard);
        let listening = tokio::spawn(async move {
            loop {
                if let TransportEvent::Message(delivery) = node.next().await {
                    record.lock().unwrap().push(applied(delivery));
                }
            }
        });
        Self {
            transport,
            heard,
            listening,
        }
    }

    /// All that was heard so far.
    pub fn recorded(&self) -> Vec<Bytes> {
        self.heard.lock().unwrap().clone()
    }

    /// Forgets what was heard so far.
    pub fn forget(&self) {
        self.heard.lock().unwrap().clear();
    }

    /// Waits until something was heard that `wanted` accepts; the last of it, with its bytes.
    pub async fn hears(&self, what: &str, wanted: impl Fn(&BusEvent) -> bool) -> (Bytes, BusEvent) {
        wait_for(what, SOON * 2, || async {
            let heard = self.recorded().into_iter().rev();
            let mut events = heard.filter_map(|b| BusEvent::decode(&b).ok().map(|e| (b, e)));
            events.find(|(_, event)| wanted(event))
        })
        .await
    }

    /// Publishes, as often as it takes.
    pub async fn publish(&self, messages: &[Bytes]) {
        for some in messages.chunks(64) {
            let mut left = some;
            while !left.is_empty() {
                let (taken, why) = self.transport.publish(left).await;
                assert!(taken > 0 || why.is_none(), "{why:?}");
                left = &left[taken..];
            }
        }
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// Whether a node has said this event.
pub fn is_of(event: &BusEvent, name: &str) -> bool {
    event.source == name && event.ours.is_some()
}

pub fn kind(event: &BusEvent) -> &'static str {
    match event.ours.as_ref().map(|ours| &ours.message) {
        None => "foreign",
        Some(Message::Purge { .. }) => "purge",
        Some(Message::Prime(_)) => "prime",
        Some(Message::Changed { .. }) => "changed",
        Some(Message::Heartbeat { .. }) => "heartbeat",
        Some(Message::Applied { .. }) => "applied",
        Some(Message::Leaving) => "leaving",
        Some(Message::Missing { .. }) => "missing",
    }
}

/// An event that says it is of a node, made now.
pub fn forged(source: &str, boot: u64, purges: u64, message: Message) -> BusEvent {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    BusEvent {
        id: format!("forged-{source}-{boot}-{purges}-{}", now.as_nanos()),
        source: source.to_owned(),
        namespace: None,
        ts: now.as_millis() as u64,
        shape: EventShape::inert(),
        ours: Some(NodePayload {
            boot,
            purges: PublisherNumber::new(purges),
            sequence: 1 << 40,
            message,
        }),
    }
}

pub fn heartbeat() -> Message {
    Message::Heartbeat {
        healthy: true,
        version: "9.9.9".to_owned(),
        asks: false,
    }
}

pub fn purge_all() -> Message {
    Message::Purge {
        selector: "all".to_owned(),
        soft: false,
        receipt: true,
    }
}

/// What nobody but the nodes themselves may change at one of them.
#[derive(Debug, PartialEq)]
pub struct State {
    purges: f64,
    foreign: f64,
    gaps: f64,
    stored: f64,
    nodes: usize,
}

impl State {
    pub async fn of(node: &Gateway) -> Self {
        let scrape = node.scrape().await;
        Self {
            purges: scrape.sum("lamina_cluster_purges_total", &[]),
            foreign: scrape.sum("lamina_cluster_foreign_total", &[]),
            gaps: scrape.sum("lamina_cluster_gaps_total", &[]),
            stored: scrape.sum("lamina_cluster_values_total", &[("outcome", "stored")]),
            nodes: known(node).await,
        }
    }
}

/// Events that a node refused.
pub async fn refused(node: &Gateway) -> f64 {
    let refused = node.metric("lamina_bus_refused_total", &[]).await;
    let malformed = node.metric("lamina_bus_malformed_total", &[]).await;
    refused + malformed
}

/// Publishes and looks that every node has refused each message of others, that nothing changed,
/// and that `path` is still a hit with this body, without a word to the origin.
pub async fn nothing_comes_of(
    attacker: &Attacker,
    messages: &[Bytes],
    fleet: &Fleet,
    path: &str,
    body: u64,
) {
    let names = e2e::fleet::names(fleet.nodes.len());
    let names: Vec<String> = names.collect();
    let mut before = Vec::new();
    for node in &fleet.nodes {
        before.push((State::of(node).await, refused(node).await));
    }
    let asked = fleet.origin.count();
    attacker.publish(messages).await;
    for ((node, name), (state, refused_before)) in fleet.nodes.iter().zip(names).zip(before) {
        // What comes back to the one that said it is an echo, or a life of its own that is over.
        let of_others = messages.iter().filter(|bytes| {
            let event = BusEvent::decode(bytes);
            !event.is_ok_and(|event| is_of(&event, &name))
        });
        let wanted = refused_before + of_others.count() as f64;
        wait_for("a node refuses all of it", SOON, || async {
            (refused(node).await >= wanted).then_some(())
        })
        .await;
        assert_eq!(State::of(node).await, state, "{name}");
        let answer = node
            .client()
            .request(path)
            .host("site.example")
            .send()
            .await;
        assert!(answer.is_hit(), "{name}: {:?}", answer.cache());
        assert_eq!(answer.text(), body.to_string(), "{name}");
    }
    assert_eq!(fleet.origin.count(), asked);
}
