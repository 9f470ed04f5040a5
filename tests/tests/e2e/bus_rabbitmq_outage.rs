//! The bus over a RabbitMQ that is not there, stands still, is killed, and comes back.

use std::io::Read;
use std::net::TcpListener;
use std::time::Duration;

use e2e::free_port::free_port;
use e2e::rabbit::harmed;
use e2e::wait::{SOON, within};
use lamina_base::units;
use lamina_cluster::bus::rabbitmq::RabbitMqConfig;
use lamina_cluster::bus::transport::{PublishError, TransportEvent};

use crate::bus_rabbitmq::{Node, durable, messages, plain};

/// One story, since the server takes seconds to start.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_stands_still_or_is_killed_is_noticed_and_nothing_confirmed_is_lost() {
    let mut rabbit = harmed().await;
    rabbit.respawn();
    let config = |queue: &str| RabbitMqConfig {
        heartbeat: units::ConfigDuration::secs(3),
        ..durable(&rabbit, "outage", queue)
    };
    let (here, away) = (config("here"), config("away"));
    // Begun before the broker listens: told once, then up by itself.
    let mut node = Node::start(&here);
    let (taken, why) = node.transport.publish(&messages(1, "early")).await;
    assert_eq!(taken, 0);
    assert!(matches!(why, Some(PublishError::Down(_))), "{why:?}");
    node.is_down().await;
    rabbit.ready().await;
    assert_eq!(node.is_up().await, None);
    drop(Node::up(&away).await);
    let ephemeral = RabbitMqConfig {
        heartbeat: units::ConfigDuration::secs(3),
        ..plain(&rabbit, "outage-plain")
    };
    let (mut ephemeral, _) = Node::up(&ephemeral).await;

    rabbit.freeze();
    let cut_short = Duration::from_millis(100);
    let said = messages(1, "frozen");
    let publish = tokio::time::timeout(cut_short, node.transport.publish(&said));
    assert!(publish.await.is_err(), "nobody confirms");
    let why = node.is_down().await;
    assert!(why.contains("heartbeat"), "{why}");
    ephemeral.is_down().await;
    rabbit.thaw();
    // What was sent into the ice may have been taken or not.
    let kept = node.is_up().await.expect("a durable queue");
    assert_eq!(ephemeral.is_up().await, None, "its queue is gone");
    for _ in 0..kept {
        assert_eq!(node.hears().await, "frozen 0");
    }

    let said = messages(50, "confirmed");
    node.says(&said).await;
    rabbit.kill();
    // What it had not acknowledged before the kill comes again.
    let mut before = 0;
    while let TransportEvent::Message(message) = node.word().await {
        assert_eq!(message.bytes, said[before]);
        before += 1;
    }
    rabbit.restart().await;
    let kept = node.is_up().await.expect("a durable queue");
    assert!((50..=51).contains(&kept), "none was acknowledged: {kept}");
    // The kill may have lost the acknowledgement of what was heard right before.
    for _ in 50..kept {
        assert_eq!(node.hears().await, "frozen 0");
    }
    node.hears_all(&said).await;
    assert_eq!(ephemeral_after(&mut ephemeral).await, None);

    let (mut back, kept) = Node::up(&away).await;
    let kept = kept.expect("a durable queue");
    assert!((50..=51).contains(&kept), "{kept}");
    for _ in 50..kept {
        assert_eq!(back.hears().await, "frozen 0");
    }
    back.hears_all(&said).await;
}

async fn ephemeral_after(node: &mut Node) -> Option<u64> {
    node.is_down().await;
    node.is_up().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_gets_no_answer_leaves_nothing_behind() {
    let listener = TcpListener::bind(("127.0.0.1", free_port())).unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut node = Node::start(&RabbitMqConfig {
        url: format!("amqp://127.0.0.1:{port}"),
        connect_timeout: units::ConfigDuration::millis(200),
        ..RabbitMqConfig::default()
    });
    let heard = tokio::task::spawn_blocking(move || {
        // Before each it is tried whether anybody is there, without a word.
        let attempts = listener.incoming().take(2 * 3);
        attempts.fold(0, |sum, socket| {
            let mut socket = socket.unwrap();
            socket.set_read_timeout(Some(SOON)).unwrap();
            // To its end: the connection was given up, not left open.
            let mut said = Vec::new();
            socket.read_to_end(&mut said).unwrap();
            sum + said.len()
        })
    });
    let heard = within("three attempts", SOON, heard).await.unwrap();
    assert_eq!(heard, 3 * b"AMQP\0\0\x09\x01".len());
    let why = node.is_down().await;
    assert!(why.contains("no answer"), "{why}");
}
