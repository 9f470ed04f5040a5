//! What every transport of the bus promises, tried against its real server.
//!
//! One suite for all: `conformance!(name, Broker)` at the end runs it for one more. A
//! broker says how its server is started, and how a node reaches it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use e2e::wait::{SOON, wait_for, within};
use e2e::wire::Wire;
use futures_util::FutureExt;
use lamina_cluster::bus::transport::{
    BusTransport, Guarantee, IncomingMessage, PublishError, TransportEvent, TransportEventReceiver,
    TransportEventSender,
};

/// A kind of server, and how nodes use it here: what is not applied comes [`DELIVERIES`] times
/// at most.
pub trait Broker: Sized {
    /// Whether messages are kept for who is away.
    const DURABLE: bool;
    /// Whether messages wait for who is there and does not read.
    const WAITS: bool = Self::DURABLE;

    /// A server that runs, and that may be harmed.
    async fn start() -> Self;

    /// A server that is left as it is; may be one for several tests.
    async fn shared() -> Self {
        Self::start().await
    }

    fn port(&self) -> u16;

    fn kill(&mut self);

    /// Starts it again, with its data, and doesn't wait.
    fn respawn(&mut self);

    fn freeze(&self);

    fn thaw(&self);

    /// A node's way to the server behind `port`.
    fn open(&self, port: u16, node: &str) -> Arc<dyn BusTransport>;
}

/// Deliveries of one message at most.
pub const DELIVERIES: u32 = 3;
/// The deadline of a publisher here.
const DEADLINE: Duration = Duration::from_secs(10);
/// What takes no waiting for anybody.
const AT_ONCE: Duration = Duration::from_secs(1);

/// A node on the bus.
pub struct Node {
    pub transport: Arc<dyn BusTransport>,
    words: TransportEventReceiver,
}

impl Node {
    /// Begins to connect.
    pub fn begin(transport: Arc<dyn BusTransport>) -> Self {
        let (mail, words) = TransportEventSender::new();
        transport.run(mail);
        Self { transport, words }
    }

    /// A node that is up.
    pub async fn join(transport: Arc<dyn BusTransport>) -> Self {
        let mut node = Self::begin(transport);
        node.up().await;
        node
    }

    pub async fn word(&mut self) -> TransportEvent {
        let word = within("a word", SOON * 2, self.words.recv()).await;
        word.expect("the transport lives")
    }

    /// The next word, whenever it comes.
    pub async fn next(&mut self) -> TransportEvent {
        self.words.recv().await.expect("the transport lives")
    }

    /// Waits for *up*; answers how much is behind.
    pub async fn up(&mut self) -> Option<u64> {
        loop {
            match self.word().await {
                TransportEvent::Up { behind } => return behind,
                TransportEvent::Message(_)
                | TransportEvent::Down(_)
                | TransportEvent::Lost(_)
                | TransportEvent::Forgot => {}
            }
        }
    }

    /// Waits for *down*; answers why.
    pub async fn down(&mut self) -> String {
        loop {
            match self.word().await {
                TransportEvent::Down(why) => return why,
                TransportEvent::Message(_)
                | TransportEvent::Up { .. }
                | TransportEvent::Lost(_)
                | TransportEvent::Forgot => {}
            }
        }
    }

    /// The next word, which is a message.
    pub async fn delivery(&mut self) -> IncomingMessage {
        match self.word().await {
            TransportEvent::Message(delivery) => delivery,
            other => panic!("{other:?} in place of a message"),
        }
    }

    /// The next word, which is a message, applied.
    pub async fn message(&mut self) -> Bytes {
        applied(self.delivery().await)
    }

    /// Reads until `wanted` comes.
    pub async fn find(&mut self, wanted: &[u8]) {
        loop {
            if let TransportEvent::Message(delivery) = self.word().await
                && applied(delivery) == wanted
            {
                return;
            }
        }
    }

    /// Publishes; all must be taken.
    pub async fn publish(&self, messages: &[Bytes]) {
        let said = within("publishing", DEADLINE, self.transport.publish(messages)).await;
        assert!(said.1.is_none() && said.0 == messages.len(), "{said:?}");
    }

    /// Publishes until it is taken, as an outbox does.
    pub async fn insist(&self, message: &[u8]) {
        let message = [Bytes::copy_from_slice(message)];
        wait_for("a message is taken", SOON * 2, || async {
            let try_once = tokio::time::timeout(AT_ONCE, self.transport.publish(&message));
            matches!(try_once.await, Ok((1, None))).then_some(())
        })
        .await;
    }
}

/// Says of a message that it was applied.
pub fn applied(delivery: IncomingMessage) -> Bytes {
    if let Some(receipt) = delivery.receipt {
        receipt.done();
    }
    delivery.bytes
}

pub fn number(n: u32) -> Bytes {
    Bytes::copy_from_slice(&n.to_be_bytes())
}

fn numbers(range: std::ops::Range<u32>) -> Vec<Bytes> {
    range.map(number).collect()
}

/// Bytes of every value, without any pattern.
fn noise(length: usize) -> Bytes {
    let mut state = 0x9e37_79b9_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

async fn pair<B: Broker>(broker: B) -> (B, Node, Node) {
    let a = Node::join(broker.open(broker.port(), "a")).await;
    let b = Node::join(broker.open(broker.port(), "b")).await;
    (broker, a, b)
}

pub async fn everybody_gets_everything_in_its_order<B: Broker>() {
    let (_broker, mut a, mut b) = pair(B::shared().await).await;
    let guarantee = if B::DURABLE {
        Guarantee::Durable
    } else {
        Guarantee::AtMostOnce
    };
    assert_eq!(a.transport.guarantee(), guarantee);
    let publisher = Arc::clone(&a.transport);
    let publishing = tokio::spawn(async move {
        for batch in numbers(0..10_000).chunks(250) {
            let said = within("publishing", DEADLINE, publisher.publish(batch)).await;
            assert!(said.1.is_none() && said.0 == batch.len(), "{said:?}");
        }
    });
    for n in 0..10_000 {
        assert_eq!(a.message().await, number(n), "the publisher too");
        assert_eq!(b.message().await, number(n));
    }
    publishing.await.unwrap();
}

pub async fn what_is_whispered_reaches_who_is_there_and_waits_for_nobody<B: Broker>() {
    let (broker, a, mut b) = pair(B::shared().await).await;
    let said = within("whispering", DEADLINE, a.transport.whisper(&numbers(0..3))).await;
    assert!(matches!(said, (3, None)), "{said:?}");
    for n in 0..3 {
        assert_eq!(b.message().await, number(n));
    }
    drop(b);
    a.transport.whisper(&numbers(3..6)).await;
    a.publish(&[number(6)]).await;
    let mut b = Node::begin(broker.open(broker.port(), "b"));
    let behind = b.up().await;
    if B::DURABLE {
        assert_eq!(behind, Some(1));
        assert_eq!(b.message().await, number(6));
    }
}

pub async fn bytes_are_untouched<B: Broker>() {
    let (_broker, a, mut b) = pair(B::shared().await).await;
    for size in [0, 1, 255, 65_536, 900 << 10] {
        let message = noise(size);
        a.publish(std::slice::from_ref(&message)).await;
        assert!(b.message().await == message, "{size} bytes");
    }
}

pub async fn a_server_that_is_down_at_the_start_is_found_when_it_comes<B: Broker>() {
    let mut broker = B::start().await;
    broker.kill();
    let mut node = Node::begin(broker.open(broker.port(), "a"));
    for _ in 0..100 {
        let said = within("an answer", AT_ONCE, node.transport.publish(&[number(1)])).await;
        assert!(matches!(said, (0, Some(PublishError::Down(_)))), "{said:?}");
    }
    broker.respawn();
    node.up().await;
    node.insist(b"hello").await;
    node.find(b"hello").await;
}

pub async fn a_killed_server_is_noticed_and_found_again<B: Broker>() {
    let (mut broker, mut a, mut b) = pair(B::start().await).await;
    broker.kill();
    assert!(!a.down().await.is_empty());
    b.down().await;
    for _ in 0..100 {
        let said = within("an answer", AT_ONCE, a.transport.publish(&[number(1)])).await;
        assert!(matches!(said, (0, Some(PublishError::Down(_)))), "{said:?}");
    }
    broker.respawn();
    let behind = [a.up().await, b.up().await];
    assert!(
        behind == [None; 2] || (B::DURABLE && behind == [Some(0); 2]),
        "{behind:?}"
    );
    a.insist(b"hello").await;
    b.find(b"hello").await;
}

pub async fn a_frozen_server_holds_up_nobody_and_is_used_again<B: Broker>() {
    let (broker, mut a, mut b) = pair(B::start().await).await;
    broker.freeze();
    let big = vec![noise(900 << 10); 8];
    for _ in 0..4 {
        let patience = Duration::from_millis(300);
        let said = tokio::time::timeout(patience, a.transport.publish(&big)).await;
        assert!(
            !matches!(said, Ok((_, None))),
            "a frozen server took it: {said:?}"
        );
    }
    a.down().await;
    b.down().await;
    broker.thaw();
    a.up().await;
    b.up().await;
    a.insist(b"hello").await;
    b.find(b"hello").await;
}

pub async fn what_is_under_way_ends_with_its_connection<B: Broker>() {
    let (broker, mut a, _b) = pair(B::start().await).await;
    broker.freeze();
    let message = [number(1)];
    let mut publishing = a.transport.publish(&message);
    assert!((&mut publishing).now_or_never().is_none());
    a.transport.cut();
    let said = within("an answer", AT_ONCE, publishing).await;
    assert!(matches!(said, (0, Some(_))), "{said:?}");
    a.down().await;
    broker.thaw();
    a.up().await;
}

pub async fn a_partition_is_noticed_and_healed<B: Broker>() {
    let (broker, a, _b) = pair(B::shared().await).await;
    let wire = Wire::to(broker.port()).await;
    let mut far = Node::join(broker.open(wire.address.port(), "far")).await;
    wire.part();
    assert!(!far.down().await.is_empty());
    a.publish(&[number(1)]).await;
    wire.heal();
    let behind = far.up().await;
    if B::DURABLE {
        assert_eq!(behind, Some(1));
        assert_eq!(far.message().await, number(1));
    } else {
        assert_eq!(behind, None);
    }
    a.publish(&[number(2)]).await;
    assert_eq!(far.message().await, number(2));
    wire.cut();
    far.down().await;
    far.up().await;
}

pub async fn who_does_not_read_loses_or_waits_but_keeps_little<B: Broker>() {
    let (broker, a, mut b) = pair(B::shared().await).await;
    let mut witness = Node::join(broker.open(broker.port(), "c")).await;
    let (big, count) = (noise(900 << 10), 100);
    for _ in 0..count / 4 {
        a.publish(&vec![big.clone(); 4]).await;
    }
    // When another has come to the end, so has what is kept for the one that does not read.
    a.insist(b"end").await;
    witness.find(b"end").await;
    if B::WAITS {
        for _ in 0..count {
            assert!(b.message().await == big);
        }
        b.find(b"end").await;
        return;
    }
    let mut read = 0;
    loop {
        match b.word().await {
            TransportEvent::Message(_) => read += 1,
            TransportEvent::Lost(_) => break,
            other => panic!("{other:?}"),
        }
    }
    drop(witness);
    assert!(read * big.len() <= 33 << 20, "{read} of them were kept");
    a.insist(b"hello").await;
    b.find(b"hello").await;
}

pub async fn what_came_while_a_node_was_away_waits_for_it<B: Broker>() {
    let (broker, a, b) = pair(B::shared().await).await;
    drop(b);
    a.publish(&numbers(0..50)).await;
    let mut b = Node::begin(broker.open(broker.port(), "b"));
    assert_eq!(b.up().await, Some(50));
    // In any order: some were sent to the connection that was just gone.
    let mut came = Vec::new();
    for _ in 0..50 {
        came.push(b.message().await);
    }
    came.sort();
    assert_eq!(came, numbers(0..50));
}

pub async fn a_new_node_begins_with_what_comes_next<B: Broker>() {
    let (broker, a, _b) = pair(B::shared().await).await;
    a.publish(&numbers(0..5)).await;
    let mut new = Node::begin(broker.open(broker.port(), "new"));
    assert_eq!(new.up().await, None);
    a.publish(&[number(5)]).await;
    assert_eq!(new.message().await, number(5));
}

pub async fn what_was_not_answered_comes_again<B: Broker>() {
    let (broker, a, mut b) = pair(B::shared().await).await;
    a.publish(&numbers(0..3)).await;
    for n in 0..3 {
        assert_eq!(b.delivery().await.bytes, number(n));
    }
    drop(b);
    let mut b = Node::begin(broker.open(broker.port(), "b"));
    assert_eq!(b.up().await, Some(3));
    let mut again = Vec::new();
    for _ in 0..3 {
        again.push(b.message().await);
    }
    again.sort();
    assert_eq!(again, numbers(0..3));
}

pub async fn what_could_not_be_applied_comes_again_until_it_is_given_up<B: Broker>() {
    let (_broker, a, mut b) = pair(B::shared().await).await;
    a.publish(&[number(1)]).await;
    for _ in 0..DELIVERIES {
        let delivery = b.delivery().await;
        assert_eq!(delivery.bytes, number(1));
        delivery.receipt.expect("it is answered").again();
    }
    match b.word().await {
        TransportEvent::Lost(what) => assert!(what.contains("given up"), "{what}"),
        other => panic!("{other:?}"),
    }
    a.publish(&[number(2)]).await;
    assert_eq!(b.message().await, number(2));
}

/// The suite for one broker.
macro_rules! conformance {
    ($name:ident, $broker:ty) => {
        conformance!($name, $broker:
            everybody_gets_everything_in_its_order
            what_is_whispered_reaches_who_is_there_and_waits_for_nobody
            bytes_are_untouched
            a_server_that_is_down_at_the_start_is_found_when_it_comes
            a_killed_server_is_noticed_and_found_again
            a_frozen_server_holds_up_nobody_and_is_used_again
            what_is_under_way_ends_with_its_connection
            a_partition_is_noticed_and_healed
            who_does_not_read_loses_or_waits_but_keeps_little
        );
    };
    ($name:ident, durable $broker:ty) => {
        conformance!($name, $broker:
            everybody_gets_everything_in_its_order
            what_is_whispered_reaches_who_is_there_and_waits_for_nobody
            bytes_are_untouched
            a_server_that_is_down_at_the_start_is_found_when_it_comes
            a_killed_server_is_noticed_and_found_again
            a_frozen_server_holds_up_nobody_and_is_used_again
            what_is_under_way_ends_with_its_connection
            a_partition_is_noticed_and_healed
            who_does_not_read_loses_or_waits_but_keeps_little
            what_came_while_a_node_was_away_waits_for_it
            a_new_node_begins_with_what_comes_next
            what_was_not_answered_comes_again
            what_could_not_be_applied_comes_again_until_it_is_given_up
        );
    };
    ($name:ident, $broker:ty: $($fact:ident)+) => {
        mod $name {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $fact() {
                    super::$fact::<$broker>().await;
                }
            )+
        }
    };
}

conformance!(nats, crate::bus_nats::Core);
conformance!(jetstream, durable crate::bus_nats::JetStream);
conformance!(rabbitmq, crate::bus_rabbitmq_broker::Plain);
conformance!(rabbitmq_durable, durable crate::bus_rabbitmq_broker::Durable);
conformance!(redis, crate::bus_redis::PubSub);
