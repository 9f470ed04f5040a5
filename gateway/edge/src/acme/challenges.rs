//! Answers to challenges: those of this node in memory, those of other nodes in the storage.
//!
//! An answer is stored before the issuer is told, so that any node can give it. It goes when its
//! order has ended, however that was, unless another process goes on with the order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use foldhash::{HashMap, HashMapExt};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use rustls::sign::CertifiedKey;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::failure::AcmeFailure;
use super::keys;
use super::records::StoredChallenge;
use super::schedule;
use super::storage::{self, AcmeRecordKey, AcmeRecordKind, AcmeStorage};
use crate::http::tls::obtained::{ChallengeAnswers, ChallengeLookup};

/// How many answers may be looked for in the storage at once. Who asks for more gets none: anybody
/// can ask for tokens that nobody knows.
const MOST_LOOKUPS: usize = 32;

/// What an answer is for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum ChallengeSubject {
    /// The text at this token (HTTP-01).
    Token(String),
    /// The certificate for this name (TLS-ALPN-01).
    ServerName(String),
}

impl ChallengeSubject {
    fn record(&self) -> AcmeRecordKey {
        let name = match self {
            Self::Token(token) => format!("http-01 {token}"),
            Self::ServerName(name) => format!("tls-alpn-01 {name}"),
        };
        AcmeRecordKey::new(AcmeRecordKind::Challenge, name)
    }
}

/// The answers to running challenges.
pub struct AcmeChallenges(Arc<ChallengeState>);

struct ChallengeState {
    storage: Arc<dyn AcmeStorage>,
    known: Mutex<HashMap<ChallengeSubject, Arc<str>>>,
    lookups: Arc<Semaphore>,
    /// Another process goes on with the orders, so the answers stay in the storage.
    left: Arc<AtomicBool>,
}

/// An answer that is published until this is dropped.
pub struct PublishedChallenge {
    subject: ChallengeSubject,
    state: Arc<ChallengeState>,
}

impl AcmeChallenges {
    pub fn new(storage: Arc<dyn AcmeStorage>) -> Self {
        Self(Arc::new(ChallengeState {
            storage,
            known: Mutex::new(HashMap::new()),
            lookups: Arc::new(Semaphore::new(MOST_LOOKUPS)),
            left: Arc::default(),
        }))
    }

    /// Leaves what is published to another process, which goes on with the orders.
    pub fn leave(&self) {
        self.0.left.store(true, Ordering::Release);
    }

    /// Whether they were left to another process.
    pub fn left(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0.left)
    }

    /// Publishes an answer on all nodes, for so long at most.
    ///
    /// # Errors
    /// If it can't be stored.
    pub async fn publish(
        &self,
        subject: ChallengeSubject,
        key_authorization: &str,
        life: Duration,
    ) -> Result<PublishedChallenge, AcmeFailure> {
        let state = &self.0;
        let text = Arc::from(key_authorization);
        state.known.lock().insert(subject.clone(), text);
        let published = PublishedChallenge {
            subject,
            state: Arc::clone(state),
        };
        let record = StoredChallenge {
            key_authorization: key_authorization.to_owned(),
            until: schedule::now() + life.as_secs(),
        };
        let octets = serde_json::to_vec(&record).map_err(instant_acme::Error::Json)?;
        let key = published.subject.record();
        state.storage.write(&key, octets, Some(life), None).await?;
        Ok(published)
    }
}

impl Drop for PublishedChallenge {
    fn drop(&mut self) {
        if self.state.left.load(Ordering::Acquire) {
            return;
        }
        self.state.known.lock().remove(&self.subject);
        let (state, key) = (Arc::clone(&self.state), self.subject.record());
        // Without a runtime the process is ending, and the answer is of no use to anybody.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = state.storage.remove(&key).await {
                    tracing::warn!(%error, "the answer to a challenge is not removed yet");
                }
            });
        }
    }
}

impl ChallengeState {
    /// Looks in the storage, if other nodes may have put something there.
    async fn ask(&self, subject: ChallengeSubject) -> Option<Arc<str>> {
        let found = storage::load(&*self.storage, &subject.record()).await;
        let found: Option<StoredChallenge> = match found {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "it is not known whether there is a challenge");
                None
            }
        };
        let found = found.filter(|found| found.until > schedule::now())?;
        Some(found.key_authorization.into())
    }
}

impl ChallengeAnswers for AcmeChallenges {
    fn text(&self, token: &str) -> ChallengeLookup {
        let subject = ChallengeSubject::Token(token.to_owned());
        if let Some(text) = self.0.known.lock().get(&subject) {
            return ChallengeLookup::Known(Arc::clone(text));
        }
        let place = Arc::clone(&self.0.lookups).try_acquire_owned();
        match place {
            Ok(place) if self.0.storage.is_shared() => {
                let state = Arc::clone(&self.0);
                ChallengeLookup::Asked(Box::pin(async move {
                    let found = state.ask(subject).await;
                    drop(place);
                    found
                }))
            }
            _ => ChallengeLookup::Unknown,
        }
    }

    fn certificate<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Option<Arc<CertifiedKey>>> {
        async move {
            let subject = ChallengeSubject::ServerName(name.to_owned());
            let known = self.0.known.lock().get(&subject).cloned();
            let text = match known {
                Some(text) => text,
                None if !self.0.storage.is_shared() => return None,
                None => {
                    let _place = self.0.lookups.try_acquire().ok()?;
                    self.0.ask(subject).await?
                }
            };
            match keys::challenge_certificate(name, &text) {
                Ok(certificate) => Some(certificate),
                Err(error) => {
                    tracing::error!(%error, name, "a challenge can't be answered");
                    None
                }
            }
        }
        .boxed()
    }
}
