//! Secrets of session tickets that all nodes have, so that each resumes the sessions of the others
//! (`tickets.shared`). They lie sealed in the Redis of the second tier.
//!
//! Each epoch has a secret of its own, which the first node that needs it makes under a lease, one
//! epoch ahead, and which is gone from Redis two epochs later. While Redis is away, nodes go on with
//! what they have, and then with secrets of their own: clients do a full handshake, no more.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::acme::AcmeRedisSettings;
use crate::acme::storage::redis::AcmeRedis;
use crate::acme::storage::{AcmeRecordKey, AcmeRecordKind, AcmeStorage, AcmeStorageError};
use crate::http::config::ListenerConfig;
use crate::http::tls::listeners::TlsListeners;
use crate::http::tls::tickets::{LEAST_SECRET, TicketEpoch};

/// How often it is looked whether a secret is missing.
const LOOK: Duration = Duration::from_millis(500);

/// How long the turn of the node that makes a secret holds.
const LEASE: Duration = Duration::from_secs(5);

/// How many epochs a secret stays in Redis: it is made one ahead, and opens one after its own.
const EPOCHS_KEPT: u32 = 4;

/// Brings the listeners the secrets that nodes share.
pub struct SharedTicketKeeper {
    storage: AcmeRedis,
    tls: Arc<TlsListeners>,
    /// The lengths of epochs.
    rotations: Vec<Duration>,
}

impl SharedTicketKeeper {
    /// Opens the storage, which connects by itself. None if no listener shares its tickets.
    ///
    /// # Errors
    /// If the seal can't be made.
    pub fn open(
        listeners: &[ListenerConfig],
        redis: Option<AcmeRedisSettings>,
        secret: Option<&str>,
        tls: &Arc<TlsListeners>,
    ) -> Result<Option<Self>, AcmeStorageError> {
        let rotations = rotations(listeners);
        let Some((settings, secret)) = redis.zip(secret).filter(|_| !rotations.is_empty()) else {
            return Ok(None);
        };
        Ok(Some(Self {
            storage: AcmeRedis::open(settings, secret)?,
            tls: Arc::clone(tls),
            rotations,
        }))
    }

    /// Looks after the secrets, for ever.
    pub async fn run(self) {
        let mut works = true;
        loop {
            match self.look().await {
                Ok(()) => works = true,
                Err(error) if works => {
                    works = false;
                    tracing::warn!(%error, "secrets of session tickets are not shared for now");
                }
                Err(_) => {}
            }
            sleep(LOOK).await;
        }
    }

    async fn look(&self) -> Result<(), AcmeStorageError> {
        for rotate in &self.rotations {
            let [before, current, after] = TicketEpoch::now(*rotate).neighbourhood();
            for epoch in [current, after, before] {
                if self.tls.shared_tickets.has(epoch) {
                    continue;
                }
                let known = self.read(epoch).await?;
                // Nobody has sealed by a secret that is not there.
                let secret = match known {
                    None if epoch != before => self.make(epoch).await?,
                    known => known,
                };
                if let Some(secret) = secret {
                    self.tls.shared_tickets.put(epoch, secret);
                }
            }
        }
        Ok(())
    }

    async fn read(&self, epoch: TicketEpoch) -> Result<Option<Vec<u8>>, AcmeStorageError> {
        let secret = self.storage.read(&key(epoch)).await?;
        Ok(secret.filter(|secret| secret.len() >= LEAST_SECRET))
    }

    /// Makes the secret of an epoch, unless another node does.
    async fn make(&self, epoch: TicketEpoch) -> Result<Option<Vec<u8>>, AcmeStorageError> {
        let key = key(epoch);
        let Some(lease) = self.storage.acquire(&key.to_string(), LEASE).await? else {
            return Ok(None);
        };
        let secret = match self.read(epoch).await? {
            Some(secret) => secret,
            None => {
                let mut secret = vec![0; LEAST_SECRET];
                aws_lc_rs::rand::fill(&mut secret).map_err(|_| {
                    AcmeStorageError::Unusable("there are no random numbers".to_owned())
                })?;
                let life = Duration::from_secs(epoch.rotate) * EPOCHS_KEPT;
                let record = secret.clone();
                let written = self.storage.write(&key, record, Some(life), Some(&lease));
                written.await?;
                secret
            }
        };
        self.storage.release(&lease).await?;
        Ok(Some(secret))
    }
}

fn key(epoch: TicketEpoch) -> AcmeRecordKey {
    let TicketEpoch { rotate, number } = epoch;
    AcmeRecordKey::new(AcmeRecordKind::TicketSecret, format!("{rotate}-{number}"))
}

fn rotations(listeners: &[ListenerConfig]) -> Vec<Duration> {
    let tls = listeners.iter().filter_map(|one| one.tls.as_ref());
    let tickets = tls.map(|tls| &tls.tickets);
    let shared = tickets.filter(|tickets| tickets.enabled && tickets.shared);
    let mut rotations: Vec<_> = shared.map(|tickets| tickets.rotate.0).collect();
    rotations.sort_unstable();
    rotations.dedup();
    rotations
}
