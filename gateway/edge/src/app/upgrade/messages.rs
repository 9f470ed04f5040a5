//! What two processes say to each other at a take-over, and an operator to a gateway.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lamina_base::descriptor_channel::{DescriptorChannel, ReceivedMessage};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::heard::HeardPublishers;
use crate::cluster::NodeLife;

/// The form of these messages.
pub(super) const PROTOCOL: u32 = 1;

/// How long the other end may take for what needs no work.
pub(super) const AT_ONCE: Duration = Duration::from_secs(5);

/// The first message of whoever connects.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct UpgradeQuestion {
    pub(super) protocol: u32,
    pub(super) asks: UpgradeWish,
}

/// What is asked for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum UpgradeWish {
    /// By the process that wants to take the place.
    TakeOver {
        version: String,
        /// How long it may take until it is ready.
        within: u64,
        /// Whether it hears the purge log of the second tier, and what is purged until it serves.
        /// Older versions do not.
        #[serde(default)]
        hears_purges: bool,
    },
    /// By an operator: start this program, which then takes the place.
    Upgrade {
        binary: PathBuf,
        /// None: the configuration of the old process.
        config: Option<PathBuf>,
        within: u64,
    },
}

/// What the old process says.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum OldProcessMessage {
    Refused {
        why: String,
    },
    State(HandedState),
    /// Further descriptors of the state.
    Descriptors,
    /// A part of the purge log of the second tier.
    PurgeLog(PurgeLogPart),
    /// The listeners are the new process's. `purged` says whether something was purged since what
    /// the cache held was written down for it. Its descriptors are the ways by which still earlier
    /// processes say what they purge.
    Yours {
        purged: bool,
        /// How many messages follow that say what. None: an older version, which does not say it.
        #[serde(default)]
        told: Option<usize>,
        /// What was heard of other nodes. None: something may have been missed, there is no event
        /// bus, or it is an older version.
        #[serde(default)]
        heard: Option<HeardPublishers>,
    },
    Released,
    /// A purge as text, as other nodes get it: one since what the cache held was written down, or on
    /// the last connections of the old process, after it was released.
    Purged {
        statement: String,
        soft: bool,
        /// It is another node's, which has told all nodes. Older versions do not pass these on.
        #[serde(default)]
        of_peer: bool,
    },
    /// To an operator.
    Upgraded(UpgradeOutcome),
}

/// What the new process says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum NewProcessMessage {
    /// The listeners whose sockets it uses, as `127.0.0.1:80` or `unix:/…`.
    Ready {
        taken: Vec<String>,
        /// Who it is on the event bus, if it hears that and can make use of what was heard of other
        /// nodes. None: it can't, or is an older version.
        #[serde(default)]
        life: Option<NodeLife>,
    },
    Serving,
    /// What was purged last holds here.
    Purged,
    Failed {
        why: String,
    },
}

/// What is handed over, without the descriptors.
#[derive(Serialize, Deserialize)]
pub(super) struct HandedState {
    pub(super) version: String,
    /// The number of the process among those that have followed each other.
    pub(super) generation: u8,
    pub(super) secret: Vec<u8>,
    pub(super) ports: Vec<PortNote>,
    /// Whether the purge log of the second tier follows.
    #[serde(default)]
    pub(super) purge_log: bool,
}

/// A part of the purge log of a second tier that only one process can have, in ascending order.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PurgeLogPart {
    pub(super) generation: u64,
    /// The newest number of the whole log.
    pub(super) newest: u64,
    /// Whether the log still has its first purge.
    pub(super) whole: bool,
    pub(super) purges: Vec<PurgeNote>,
    /// Whether another part follows.
    pub(super) more: bool,
}

/// A purge in the log: the first and the last number that it stands for, and its text.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PurgeNote {
    pub(super) since: u64,
    pub(super) number: u64,
    pub(super) selector: String,
    pub(super) soft: bool,
}

/// One port, and how many descriptors of each kind are its: they come in this order.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PortNote {
    pub(super) purpose: PortPurpose,
    pub(super) configured: String,
    pub(super) bound: String,
    pub(super) streams: usize,
    pub(super) datagrams: usize,
    pub(super) locks: usize,
    /// The generations of processes that still have connections of QUIC there, with a way to each.
    pub(super) earlier: Vec<u8>,
}

/// What a port is there for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum PortPurpose {
    Clients,
    Admin,
}

/// A process that has taken the place of another.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct UpgradeOutcome {
    pub process: u32,
    pub version: String,
    pub old_process: u32,
    pub old_version: String,
}

/// Sends a message.
///
/// # Errors
/// If the other end does not take it.
pub(super) fn say<M: Serialize>(
    channel: &DescriptorChannel,
    message: &M,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    channel.send(&serde_json::to_vec(message)?, descriptors, AT_ONCE)
}

/// Waits for a message.
///
/// # Errors
/// If none comes in time, the other end has gone, or what comes is none.
pub(super) fn hear<M: DeserializeOwned>(
    channel: &DescriptorChannel,
    patience: Duration,
) -> io::Result<(M, ReceivedMessage)> {
    let received = channel
        .receive(patience)
        .map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                io::Error::new(io::ErrorKind::TimedOut, "it said nothing in time")
            }
            _ => error,
        })?;
    let Some(received) = received else {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it has ended"));
    };
    Ok((serde_json::from_slice(&received.bytes)?, received))
}

/// Sends a question and waits for the answer, which may be there before: a refusal.
///
/// # Errors
/// As for [`hear`].
pub(super) fn ask(
    channel: &DescriptorChannel,
    question: &UpgradeQuestion,
    patience: Duration,
) -> io::Result<(OldProcessMessage, ReceivedMessage)> {
    let said = say(channel, question, &[]);
    let answer = hear(channel, patience);
    answer.map_err(|error| said.err().unwrap_or(error))
}

/// Asks the gateway that listens on this socket to start this program, and waits until that has
/// taken its place.
///
/// # Errors
/// Why the gateway goes on as before.
pub fn ask_for_upgrade(
    socket: &Path,
    binary: PathBuf,
    config: Option<PathBuf>,
    within: Duration,
) -> io::Result<UpgradeOutcome> {
    let channel = DescriptorChannel::connect(socket)?;
    let question = UpgradeQuestion {
        protocol: PROTOCOL,
        asks: UpgradeWish::Upgrade {
            binary,
            config,
            within: millis(within),
        },
    };
    match ask(&channel, &question, within + 2 * AT_ONCE)?.0 {
        OldProcessMessage::Upgraded(outcome) => Ok(outcome),
        OldProcessMessage::Refused { why } => Err(io::Error::other(why)),
        _ => Err(io::Error::other("it answered something else")),
    }
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
