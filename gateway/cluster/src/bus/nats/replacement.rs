//! A connection in the place of one that has fallen silent.
//!
//! Where packets are lost and nothing is closed, TCP sends again at intervals that double, so a
//! connection may stay silent for as long again as the network was away. Decision: a connection that
//! does not answer gets a second one beside it, again and again, and is replaced by the first that
//! answers while it still does not. So nothing is given up that comes back by itself, and a server
//! that is merely slow, which is as slow to a new connection, loses none.

use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::{ServerAddr, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::time::{sleep, timeout};

use super::config::NatsConfig;
use super::link::{NatsConnection, connect};

/// The time between two questions to the server.
const PULSE: Duration = Duration::from_millis(500);
/// A connection from which nothing came for this long after a question is silent.
const PATIENCE: Duration = Duration::from_millis(400);
/// How much longer the silent connection has when a new one is there.
const GRACE: Duration = Duration::from_millis(200);
/// The pause after an attempt that failed.
const PAUSE: Duration = Duration::from_millis(100);

/// Messages to ourselves, which the server sends back.
struct EchoProbe<'a> {
    line: &'a NatsConnection,
    inbox: String,
    echoes: Subscriber,
    sent: u64,
}

/// Waits until a new connection answers while this one does not. Returns the new one.
pub(super) async fn replacement(
    config: &NatsConfig,
    line: &NatsConnection,
    discovered: &mut Vec<ServerAddr>,
) -> NatsConnection {
    let Some(mut probe) = EchoProbe::begin(line).await else {
        // The connection ends of itself.
        return std::future::pending().await;
    };
    loop {
        sleep(PULSE).await;
        let mut echo = pin!(probe.there_and_back());
        while timeout(PATIENCE, &mut echo).await.is_err() {
            let heard = bytes_from(line);
            let fresh = tokio::select! {
                biased;
                () = &mut echo => break,
                fresh = connect(config, discovered) => fresh,
            };
            let Ok(fresh) = fresh else {
                sleep(PAUSE).await;
                continue;
            };
            if timeout(GRACE, &mut echo).await.is_ok() {
                break;
            }
            // A connection that has much to bring answers late.
            if bytes_from(line) == heard {
                return fresh;
            }
        }
    }
}

/// How much has come on the connection so far.
fn bytes_from(line: &NatsConnection) -> u64 {
    line.client.statistics().in_bytes.load(Ordering::Relaxed)
}

impl<'a> EchoProbe<'a> {
    /// None: the connection has ended.
    async fn begin(line: &'a NatsConnection) -> Option<Self> {
        let inbox = line.client.new_inbox();
        let echoes = line.client.subscribe(inbox.clone()).await.ok()?;
        Some(Self {
            line,
            inbox,
            echoes,
            sent: 0,
        })
    }

    /// Waits until a new message has come back; without end if the connection has ended.
    async fn there_and_back(&mut self) {
        self.sent += 1;
        let payload = Bytes::copy_from_slice(&self.sent.to_be_bytes());
        let sent = self
            .line
            .client
            .publish(self.inbox.clone(), payload.clone());
        if sent.await.is_ok() {
            while let Some(echo) = self.echoes.next().await {
                if echo.payload == payload {
                    return;
                }
            }
        }
        std::future::pending().await
    }
}
