//! The bus over a real RabbitMQ: what is RabbitMQ's own. What every transport does is in
//! `bus_transport`, outages in `bus_rabbitmq_outage`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use e2e::rabbit::{Rabbit, shared};
use e2e::wait::{SOON, wait_for, within};
use lamina_base::units;
use lamina_cluster::bus::rabbitmq::{ExchangeType, RabbitMqConfig, open};
use lamina_cluster::bus::transport::{
    BusTransport, IncomingMessage, PublishError, TransportEvent, TransportEventReceiver,
    TransportEventSender,
};
use lapin::options::{
    ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ConnectionProperties};

/// A transport and what it tells.
pub struct Node {
    pub transport: Arc<dyn BusTransport>,
    words: TransportEventReceiver,
}

impl Node {
    pub fn start(config: &RabbitMqConfig) -> Self {
        let transport = open(config).unwrap();
        let (mail, words) = TransportEventSender::new();
        transport.run(mail);
        Self { transport, words }
    }

    /// A node that consumes, and what was kept for it.
    pub async fn up(config: &RabbitMqConfig) -> (Self, Option<u64>) {
        let mut node = Self::start(config);
        let behind = node.is_up().await;
        (node, behind)
    }

    pub async fn word(&mut self) -> TransportEvent {
        let word = within("a word", SOON, self.words.recv()).await;
        word.expect("the transport goes on")
    }

    pub async fn is_up(&mut self) -> Option<u64> {
        match self.word().await {
            TransportEvent::Up { behind } => behind,
            other => panic!("expected up, got {other:?}"),
        }
    }

    pub async fn is_down(&mut self) -> String {
        match self.word().await {
            TransportEvent::Down(why) => why,
            other => panic!("expected down, got {other:?}"),
        }
    }

    pub async fn message(&mut self) -> IncomingMessage {
        match self.word().await {
            TransportEvent::Message(message) => message,
            other => panic!("expected a message, got {other:?}"),
        }
    }

    /// The next message, applied.
    pub async fn hears(&mut self) -> String {
        let message = self.message().await;
        if let Some(receipt) = message.receipt {
            receipt.done();
        }
        String::from_utf8(message.bytes.to_vec()).unwrap()
    }

    pub async fn hears_all(&mut self, expected: &[Bytes]) {
        for message in expected {
            assert_eq!(self.hears().await.as_bytes(), &message[..]);
        }
    }

    /// Publishes what the broker has to confirm.
    pub async fn says(&self, messages: &[Bytes]) {
        let (taken, why) = within("confirms", SOON, self.transport.publish(messages)).await;
        assert!(why.is_none(), "{why:?}");
        assert_eq!(taken, messages.len());
    }
}

pub fn messages(count: usize, name: &str) -> Vec<Bytes> {
    (0..count).map(|n| format!("{name} {n}").into()).collect()
}

/// An exchange of the test's own. The broker may be slow: no silence of a few seconds counts.
pub fn plain(rabbit: &Rabbit, name: &str) -> RabbitMqConfig {
    RabbitMqConfig {
        url: rabbit.url(),
        exchange: name.to_owned(),
        heartbeat: units::ConfigDuration::secs(30),
        connect_timeout: units::ConfigDuration::secs(15),
        confirm_timeout: units::ConfigDuration::secs(15),
        reconnect_max: units::ConfigDuration::secs(1),
        ..RabbitMqConfig::default()
    }
}

pub fn durable(rabbit: &Rabbit, name: &str, queue: &str) -> RabbitMqConfig {
    RabbitMqConfig {
        durable_invalidation_mode: true,
        queue_name: Some(format!("{name}-{queue}")),
        ..plain(rabbit, name)
    }
}

/// Somebody else at the broker.
async fn other(rabbit: &Rabbit) -> (Connection, Channel) {
    let options = ConnectionProperties::default();
    let url = format!("{}/%2f", rabbit.url());
    let connection = Connection::connect(&url, options).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
}

/// How many messages wait in a queue, and how many consumers it has.
async fn state(channel: &Channel, queue: &str) -> (u32, u32) {
    let passive = QueueDeclareOptions::default().passive();
    let queue = channel.queue_declare(queue.into(), passive, FieldTable::default());
    let queue = queue.await.unwrap();
    (queue.message_count(), queue.consumer_count())
}

/// Ends a node and waits until the broker knows.
async fn leave(node: Node, channel: &Channel, queue: &str) {
    drop(node);
    wait_for("the consumer is gone", SOON, || async {
        (state(channel, queue).await.1 == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_node_publishes_comes_to_all_in_order() {
    let config = plain(shared().await, "order");
    let (mut a, kept) = Node::up(&config).await;
    assert_eq!(kept, None);
    let (mut b, _) = Node::up(&config).await;
    let said = messages(500, "order");
    a.says(&said).await;
    a.hears_all(&said).await;
    b.hears_all(&said).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_durable_queue_keeps_messages_while_the_node_is_away_and_no_whispers() {
    let rabbit = shared().await;
    let (_connection, channel) = other(rabbit).await;
    let config = durable(rabbit, "away", "a");
    let (mut a, kept) = Node::up(&config).await;
    assert_eq!(kept, None, "a new queue kept nothing");
    let (mut b, _) = Node::up(&durable(rabbit, "away", "b")).await;

    let whisper = [Bytes::from_static(b"here")];
    assert_eq!(b.transport.whisper(&whisper).await.0, 1);
    assert_eq!(a.hears().await, "here");
    assert_eq!(b.hears().await, "here");

    leave(a, &channel, "away-a").await;
    let said = messages(100, "away");
    b.says(&said).await;
    assert_eq!(b.transport.whisper(&whisper).await.0, 1);
    // By a way of its own, which may be the quicker one.
    let mut heard = Vec::new();
    for _ in 0..=said.len() {
        heard.push(b.hears().await);
    }
    heard.retain(|message| message != "here");
    assert_eq!(heard, said);

    let (mut a, kept) = Node::up(&config).await;
    assert_eq!(kept, Some(100));
    a.hears_all(&said).await;
    b.says(&messages(1, "after")).await;
    assert_eq!(a.hears().await, "after 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_of_a_dead_node_expires() {
    let rabbit = shared().await;
    let (_node, _) = Node::up(&durable(rabbit, "expires", "a")).await;
    let (_connection, channel) = other(rabbit).await;
    let declare = |days: i64| {
        let mut arguments = FieldTable::default();
        arguments.insert(
            "x-expires".into(),
            AMQPValue::LongLongInt(days * 86_400_000),
        );
        let options = QueueDeclareOptions::durable();
        channel.queue_declare("expires-a".into(), options, arguments)
    };
    declare(7).await.expect("a week is what it has");
    let differs = declare(8).await.unwrap_err().to_string();
    assert!(differs.contains("x-expires"), "{differs}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_queue_is_told_as_a_loss_and_made_anew() {
    let rabbit = shared().await;
    let (mut node, _) = Node::up(&durable(rabbit, "deleted", "a")).await;
    let (_connection, channel) = other(rabbit).await;
    let options = QueueDeleteOptions::default();
    channel
        .queue_delete("deleted-a".into(), options)
        .await
        .unwrap();
    let lost = node.word().await;
    assert!(matches!(lost, TransportEvent::Lost(_)), "{lost:?}");
    let why = node.is_down().await;
    assert!(why.contains("cancelled"), "{why}");
    assert_eq!(
        node.is_up().await,
        None,
        "the old queue's messages are lost"
    );
    let said = messages(3, "anew");
    node.says(&said).await;
    node.hears_all(&said).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_exchange_is_noticed_and_made_anew() {
    let rabbit = shared().await;
    let (mut node, _) = Node::up(&durable(rabbit, "no-exchange", "a")).await;
    let (_connection, channel) = other(rabbit).await;
    let options = ExchangeDeleteOptions::default();
    channel
        .exchange_delete("no-exchange".into(), options)
        .await
        .unwrap();
    // Nothing is published: the binding is looked after.
    let deleted = Instant::now();
    let why = node.is_down().await;
    let deaf = deleted.elapsed();
    assert!(deaf < Duration::from_secs(4), "{deaf:?}");
    assert!(why.contains("no exchange"), "{why}");
    assert_eq!(
        node.is_up().await,
        None,
        "others may have published meanwhile"
    );

    channel
        .exchange_delete("no-exchange".into(), options)
        .await
        .unwrap();
    let said = messages(2, "anew");
    let (taken, why) = node.transport.publish(&said).await;
    assert_eq!(taken, 0);
    assert!(matches!(why, Some(PublishError::Down(_))), "{why:?}");
    node.is_down().await;
    assert_eq!(node.is_up().await, None);
    node.says(&said).await;
    node.hears_all(&said).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_without_a_queue_is_refused_and_those_before_it_are_not() {
    let rabbit = shared().await;
    let (node, _) = Node::up(&durable(rabbit, "unbound", "a")).await;
    let (_connection, channel) = other(rabbit).await;
    let said = messages(3, "unbound");
    // The node binds its queue again sooner or later.
    let (taken, why) = wait_for("a refusal", SOON, || async {
        let (queue, exchange) = ("unbound-a".into(), "unbound".into());
        let unbound = channel.queue_unbind(queue, exchange, "".into(), FieldTable::default());
        unbound.await.unwrap();
        let (taken, why) = node.transport.publish(&said).await;
        why.map(|why| (taken, why))
    })
    .await;
    assert_eq!(taken, 0);
    assert!(matches!(why, PublishError::Refused(_)), "{why}");
    let bind = QueueBindOptions::default();
    let (queue, exchange) = ("unbound-a".into(), "unbound".into());
    let bound = channel.queue_bind(queue, exchange, "".into(), bind, FieldTable::default());
    bound.await.unwrap();
    node.says(&said).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_cant_be_applied_comes_again_so_often_and_is_given_up() {
    let rabbit = shared().await;
    let config = RabbitMqConfig {
        max_redeliveries: 2,
        ..durable(rabbit, "poison", "a")
    };
    let (mut node, _) = Node::up(&config).await;
    node.says(&messages(1, "poison")).await;
    for _ in 0..3 {
        let message = node.message().await;
        assert_eq!(message.bytes, "poison 0");
        message.receipt.unwrap().again();
    }
    let lost = node.word().await;
    assert!(matches!(lost, TransportEvent::Lost(_)), "{lost:?}");
    // Nothing stays: neither here nor there.
    let (_connection, channel) = other(rabbit).await;
    leave(node, &channel, "poison-a").await;
    assert_eq!(Node::up(&config).await.1, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_applied_when_a_node_left_comes_to_it_again() {
    let rabbit = shared().await;
    let config = durable(rabbit, "unapplied", "a");
    let (mut node, _) = Node::up(&config).await;
    node.says(&messages(2, "unapplied")).await;
    assert_eq!(node.hears().await, "unapplied 0");
    let open = node.message().await;
    let (_connection, channel) = other(rabbit).await;
    leave(node, &channel, "unapplied-a").await;
    // Of a former connection: does nothing.
    open.receipt.unwrap().done();
    let (mut node, kept) = Node::up(&config).await;
    assert_eq!(kept, Some(1));
    assert_eq!(node.hears().await, "unapplied 1");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_properties_are_told_and_healed() {
    let rabbit = shared().await;
    let (_connection, channel) = other(rabbit).await;
    let options = QueueDeclareOptions::default();
    let queue = channel.queue_declare("differs-a".into(), options, FieldTable::default());
    queue.await.unwrap();
    let mut node = Node::start(&durable(rabbit, "differs", "a"));
    let why = node.is_down().await;
    assert!(why.contains("other properties"), "{why}");
    assert!(why.contains("'durable' for queue 'differs-a'"), "{why}");
    let (_, refused) = node.transport.publish(&messages(1, "x")).await;
    let refused = refused.unwrap().to_string();
    assert!(refused.contains("other properties"), "{refused}");
    let options = QueueDeleteOptions::default();
    channel
        .queue_delete("differs-a".into(), options)
        .await
        .unwrap();
    assert_eq!(node.is_up().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_told_and_healed() {
    let rabbit = shared().await;
    rabbit.ctl(&["add_user", "edge", "old"]).await;
    let all = ["set_permissions", "edge", ".*", ".*", ".*"];
    rabbit.ctl(&all).await;
    let mut node = Node::start(&RabbitMqConfig {
        username: Some("edge".to_owned()),
        password: Some("new".to_owned()),
        ..plain(rabbit, "password")
    });
    let why = node.is_down().await;
    assert!(why.contains("ACCESS_REFUSED"), "{why}");
    assert!(!why.contains("new"), "{why}");
    rabbit.ctl(&["change_password", "edge", "new"]).await;
    assert_eq!(node.is_up().await, None);
    let said = messages(1, "password");
    node.says(&said).await;
    node.hears_all(&said).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_publish_is_refused_and_listens_all_the_same() {
    let rabbit = shared().await;
    rabbit.ctl(&["add_user", "reader", "pw"]).await;
    let rights = ["set_permissions", "reader", ".*", "^amq[.]gen", ".*"];
    rabbit.ctl(&rights).await;
    let config = RabbitMqConfig {
        username: Some("reader".to_owned()),
        password: Some("pw".to_owned()),
        ..plain(rabbit, "rights")
    };
    let (node, _) = Node::up(&config).await;
    let said = node.transport.publish(&messages(1, "rights")).await;
    let (0, Some(PublishError::Refused(why))) = said else {
        panic!("{said:?}");
    };
    assert!(why.contains("ACCESS_REFUSED"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_virtual_host_is_told() {
    let config = RabbitMqConfig {
        vhost: "nowhere".to_owned(),
        ..plain(shared().await, "vhost")
    };
    let why = Node::start(&config).is_down().await;
    assert!(why.contains("nowhere"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_on_one_queue_are_told_and_the_second_waits_for_the_first() {
    let rabbit = shared().await;
    let config = durable(rabbit, "twice", "a");
    let (first, _) = Node::up(&config).await;
    let mut second = Node::start(&config);
    let why = second.is_down().await;
    assert!(why.contains("queue_name"), "{why}");
    drop(first);
    assert_eq!(second.is_up().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn routing_keys_choose_for_topic_and_direct() {
    let rabbit = shared().await;
    for (exchange_type, name, watch) in [
        (ExchangeType::Topic, "topic", "*.cache"),
        (ExchangeType::Direct, "direct", "eu.cache"),
    ] {
        let node = async |key: &str| {
            let config = RabbitMqConfig {
                exchange_type,
                routing_key: key.to_owned(),
                ..plain(rabbit, name)
            };
            Node::up(&config).await.0
        };
        let (mut eu, mut us) = (node("eu.cache").await, node("us.cache").await);
        let mut watch = node(watch).await;
        eu.says(&messages(1, "eu")).await;
        us.says(&messages(1, "us")).await;
        assert_eq!(eu.hears().await, "eu 0");
        assert_eq!(us.hears().await, "us 0", "nothing of eu's before it");
        assert_eq!(watch.hears().await, "eu 0");
        if exchange_type == ExchangeType::Topic {
            assert_eq!(watch.hears().await, "us 0");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_messages_than_prefetch_are_here_at_once() {
    let rabbit = shared().await;
    let config = RabbitMqConfig {
        prefetch: 5,
        ..durable(rabbit, "prefetch", "a")
    };
    let (mut node, _) = Node::up(&config).await;
    let said = messages(100, "prefetch");
    node.says(&said).await;
    let mut open = Vec::new();
    for _ in 0..5 {
        open.push(node.message().await);
    }
    let (_connection, channel) = other(rabbit).await;
    assert_eq!(state(&channel, "prefetch-a").await.0, 95);
    let more = tokio::time::timeout(Duration::from_millis(100), node.word());
    assert!(more.await.is_err(), "the broker holds the others");
    for message in open {
        message.receipt.unwrap().done();
    }
    node.hears_all(&said[5..]).await;
}
