//! Messages about released leases, by Redis Pub/Sub.
//!
//! They are only hints: nodes that miss one ask again by themselves. So a listener that lags loses
//! the oldest messages, and nobody waits for it.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use lamina_base::redis::driver::Client;
use lamina_base::redis::driver::Message;
use lamina_base::redis::driver::{EventInterface, PubsubInterface};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::fault::fault;
use super::link::OnRedisConnected;
use crate::l2::store::{StoreError, StoreKey};

/// How many keys a listener may be behind.
pub(super) const BEHIND: usize = 1_024;

/// Makes each new connection listen on `channel` and send what it hears to `keys`.
pub(super) fn greeting(channel: String, keys: broadcast::Sender<StoreKey>) -> OnRedisConnected {
    Arc::new(
        move |client: Client| -> BoxFuture<'static, Result<(), StoreError>> {
            let (channel, keys) = (channel.clone(), keys.clone());
            Box::pin(async move {
                let messages = client.message_rx();
                client
                    .subscribe(channel)
                    .await
                    .map_err(|error| fault(&error))?;
                // The task ends with the client whose messages it receives.
                tokio::spawn(forward(messages, keys));
                Ok(())
            })
        },
    )
}

async fn forward(mut messages: broadcast::Receiver<Message>, keys: broadcast::Sender<StoreKey>) {
    loop {
        match messages.recv().await {
            Ok(message) => {
                let key = message.value.as_bytes().and_then(|b| b.try_into().ok());
                // There may be no listener.
                let _ = key.map(|key| keys.send(StoreKey::from_bytes(key)));
            }
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}
