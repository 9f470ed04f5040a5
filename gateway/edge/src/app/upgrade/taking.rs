//! The side of the new process.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lamina_base::descriptor_channel::{DescriptorChannel, ReceivedMessage, own_user};
use parking_lot::Mutex;
use tokio::task::JoinError;

use super::heard::HeardPublishers;
use super::messages::{
    AT_ONCE, HandedState, NewProcessMessage, OldProcessMessage, PROTOCOL, PortNote, PortPurpose,
    UpgradeQuestion, UpgradeWish, ask, hear, millis, say,
};
use super::purge_log::hear_log;
use super::purges::PredecessorPurge;
use crate::cache::l2::store::PurgeLogRange;
use crate::cluster::NodeLife;
use crate::http::endpoint::Endpoint;
use crate::http::server::{EarlierProcess, HandedPort, SocketPurpose};
use crate::http::tls::tickets::ProcessSecret;

/// A take-over that has begun.
pub struct TakeOver {
    channel: Arc<DescriptorChannel>,
    state: HandedState,
    purge_log: Option<PurgeLogRange>,
    ports: Vec<HandedPort>,
    /// The ways to still earlier processes.
    earlier: Mutex<Vec<OwnedFd>>,
}

/// What became of what the process before had stored, after it was written down for this one.
pub enum HandedCache {
    /// Just this was purged there.
    Purged(Vec<PredecessorPurge>),
    /// Something was purged there, perhaps some of what was written down: an older version does not
    /// say what.
    InDoubt,
}

/// What the process before knew at the moment when it gave its listeners away.
pub struct HandedKnowledge {
    pub cache: HandedCache,
    /// None: it may have missed what other nodes purged.
    pub heard: Option<HeardPublishers>,
}

/// Why a process can't take the place of another one.
#[derive(Debug, thiserror::Error)]
pub enum TakeOverError {
    #[error(
        "no gateway can be asked to hand over at {}: {source}; does one run with this \
         server.upgrade_socket, as the same user?",
        path.display()
    )]
    NoOldProcess { path: PathBuf, source: io::Error },
    #[error("the process at {} belongs to another user", path.display())]
    AnotherUser { path: PathBuf },
    #[error("the running gateway does not hand over: {why}")]
    Refused { why: String },
    #[error("the running gateway sent something else than was asked for: {why}")]
    Form { why: String },
    #[error("the take-over broke off")]
    BrokenOff(#[source] io::Error),
    #[error("this process is not well: {why}")]
    Unwell { why: String },
}

impl TakeOver {
    /// Asks the process that listens on this socket to hand over. This process has `within` to get
    /// ready. Blocks.
    ///
    /// # Errors
    /// If nobody hands over.
    pub fn begin(socket: &Path, within: Duration) -> Result<Self, TakeOverError> {
        let no_process = |source| TakeOverError::NoOldProcess {
            path: socket.to_owned(),
            source,
        };
        let channel = DescriptorChannel::connect(socket).map_err(no_process)?;
        let peer = channel.peer().map_err(no_process)?;
        if peer.user != own_user() {
            let path = socket.to_owned();
            return Err(TakeOverError::AnotherUser { path });
        }
        let question = UpgradeQuestion {
            protocol: PROTOCOL,
            asks: UpgradeWish::TakeOver {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                within: millis(within),
                hears_purges: true,
            },
        };
        // A reload that has begun may end first.
        let answer = ask(&channel, &question, within).map_err(TakeOverError::BrokenOff)?;
        let (state, received) = unrefused(answer)?;
        let OldProcessMessage::State(state) = state else {
            return Err(unexpected(&state));
        };
        let mut descriptors = received.descriptors;
        while descriptors.len() < state.ports.iter().map(PortNote::descriptors).sum() {
            let (more, received) = heard(&channel, AT_ONCE)?;
            if !matches!(more, OldProcessMessage::Descriptors) || received.descriptors.is_empty() {
                return Err(unexpected(&more));
            }
            descriptors.extend(received.descriptors);
        }
        let purge_log = match state.purge_log {
            true => Some(hear_log(&channel).map_err(TakeOverError::BrokenOff)?),
            false => None,
        };
        let mut descriptors = descriptors.into_iter();
        let ports = state.ports.iter().map(|note| note.port(&mut descriptors));
        let ports = ports.collect::<Result<_, _>>()?;
        Ok(Self {
            channel: Arc::new(channel),
            state,
            purge_log,
            ports,
            earlier: Mutex::default(),
        })
    }

    /// The sockets that were handed over.
    pub fn take_ports(&mut self) -> Vec<HandedPort> {
        std::mem::take(&mut self.ports)
    }

    /// The secret of the process before.
    pub fn secret(&self) -> Option<ProcessSecret> {
        ProcessSecret::of(&self.state.secret)
    }

    /// The generation of this process.
    pub fn generation(&self) -> u8 {
        self.state.generation.wrapping_add(1)
    }

    /// The purge log of the second tier, if only one process can have that: as the process before has
    /// read it.
    pub fn purge_log(&self) -> Option<&PurgeLogRange> {
        self.purge_log.as_ref()
    }

    /// The version of the process before.
    pub fn old_version(&self) -> &str {
        &self.state.version
    }

    /// Says that this process is ready, with the listeners whose sockets it uses, and who it is on
    /// the event bus. When this returns, they are its own. Returns what the process before knew then.
    ///
    /// # Errors
    /// If the old process goes on instead.
    pub async fn ready(
        &self,
        taken: &[Endpoint],
        life: Option<NodeLife>,
    ) -> Result<HandedKnowledge, TakeOverError> {
        let taken = taken.iter().map(Endpoint::to_string).collect();
        let message = NewProcessMessage::Ready { taken, life };
        let (answer, received) = self.exchange(message).await?;
        *self.earlier.lock() = received.descriptors;
        let (purged, told, heard) = match answer {
            OldProcessMessage::Yours {
                purged,
                told,
                heard,
            } => (purged, told, heard),
            other => return Err(unexpected(&other)),
        };
        let cache = match told {
            None if purged => HandedCache::InDoubt,
            told => self.hear_purges(told.unwrap_or_default()).await?,
        };
        Ok(HandedKnowledge { cache, heard })
    }

    async fn hear_purges(&self, count: usize) -> Result<HandedCache, TakeOverError> {
        let channel = Arc::clone(&self.channel);
        let hearing = tokio::task::spawn_blocking(move || {
            let purges = (0..count).map(|_| {
                let message = heard(&channel, AT_ONCE)?.0;
                let what = || TakeOverError::Form {
                    why: "something else than a purge".to_owned(),
                };
                PredecessorPurge::heard(message).ok_or_else(what)
            });
            purges.collect::<Result<_, _>>().map(HandedCache::Purged)
        });
        hearing.await.map_err(ended)?
    }

    /// Says that this process serves from now on. When this returns, the old one ends.
    ///
    /// # Errors
    /// `Refused` if the old process goes on, because this one was silent for too long. Any other if it
    /// does not answer: then it has ended, or does so as soon as it hears it.
    pub async fn serving(&self) -> Result<(), TakeOverError> {
        let channel = Arc::clone(&self.channel);
        let exchange = tokio::task::spawn_blocking(move || {
            // Whoever has refused has closed the way, and its refusal can be read all the same.
            let said = say(&channel, &NewProcessMessage::Serving, &[]);
            let answer = heard(&channel, AT_ONCE);
            match (said, answer) {
                (Err(error), Err(TakeOverError::BrokenOff(_))) => {
                    Err(TakeOverError::BrokenOff(error))
                }
                (_, answer) => answer,
            }
        });
        match exchange.await.map_err(ended)??.0 {
            OldProcessMessage::Released => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// The ways by which the processes before say what they purge on their last connections.
    pub fn purge_channels(&self) -> Vec<Arc<DescriptorChannel>> {
        let earlier = std::mem::take(&mut *self.earlier.lock()).into_iter();
        let earlier = earlier.filter_map(|way| DescriptorChannel::handed_over(way).ok());
        let before = Arc::clone(&self.channel);
        std::iter::once(before)
            .chain(earlier.map(Arc::new))
            .collect()
    }

    /// Says why this process does not get ready.
    pub fn failed(&self, why: String) {
        // If the old process does not hear it, it sees that this one ends.
        let _ = say(&self.channel, &NewProcessMessage::Failed { why }, &[]);
    }

    async fn exchange(
        &self,
        message: NewProcessMessage,
    ) -> Result<(OldProcessMessage, ReceivedMessage), TakeOverError> {
        let channel = Arc::clone(&self.channel);
        let exchange = tokio::task::spawn_blocking(move || {
            say(&channel, &message, &[]).map_err(TakeOverError::BrokenOff)?;
            heard(&channel, AT_ONCE)
        });
        exchange.await.map_err(ended)?
    }
}

fn ended(error: JoinError) -> TakeOverError {
    TakeOverError::BrokenOff(io::Error::other(error))
}

fn heard(
    channel: &DescriptorChannel,
    patience: Duration,
) -> Result<(OldProcessMessage, ReceivedMessage), TakeOverError> {
    unrefused(hear(channel, patience).map_err(TakeOverError::BrokenOff)?)
}

fn unrefused(
    answer: (OldProcessMessage, ReceivedMessage),
) -> Result<(OldProcessMessage, ReceivedMessage), TakeOverError> {
    match answer {
        (OldProcessMessage::Refused { why }, _) => Err(TakeOverError::Refused { why }),
        answer => Ok(answer),
    }
}

fn unexpected(message: &OldProcessMessage) -> TakeOverError {
    let what = match message {
        OldProcessMessage::Refused { .. } => "a refusal",
        OldProcessMessage::State(_) => "its state",
        OldProcessMessage::Descriptors => "descriptors",
        OldProcessMessage::PurgeLog(_) => "its purge log",
        OldProcessMessage::Yours { .. } => "the listeners",
        OldProcessMessage::Released => "its end",
        OldProcessMessage::Purged { .. } => "a purge",
        OldProcessMessage::Upgraded(_) => "an answer for operators",
    };
    TakeOverError::Form {
        why: what.to_owned(),
    }
}

impl PortNote {
    fn descriptors(&self) -> usize {
        self.streams
            .saturating_add(self.datagrams)
            .saturating_add(self.locks)
            .saturating_add(self.earlier.len())
    }

    fn port(
        &self,
        descriptors: &mut impl Iterator<Item = OwnedFd>,
    ) -> Result<HandedPort, TakeOverError> {
        let endpoint = |text: &str| {
            text.parse::<Endpoint>()
                .map_err(|error| TakeOverError::Form {
                    why: error.to_string(),
                })
        };
        let (configured, bound) = (endpoint(&self.configured)?, endpoint(&self.bound)?);
        let mut some = |count: usize| descriptors.take(count).collect::<Vec<_>>();
        let streams = some(self.streams);
        let datagrams = some(self.datagrams);
        let lock = some(self.locks).pop();
        let ways = some(self.earlier.len());
        let earlier = self.earlier.iter().zip(ways);
        Ok(HandedPort {
            purpose: match self.purpose {
                PortPurpose::Clients => SocketPurpose::Clients,
                PortPurpose::Admin => SocketPurpose::Admin,
            },
            configured,
            bound,
            streams,
            datagrams,
            lock,
            earlier: earlier
                .map(|(generation, way)| EarlierProcess::new(*generation, way))
                .collect(),
        })
    }
}
