//! Turns lapin's errors into helpful messages, and recognizes the one about different properties.

use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::{Error, ErrorKind};

/// Why a connection failed or ended.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum RabbitMqFault {
    #[error("no answer while {0}")]
    Silent(&'static str),
    #[error("no heartbeat: the broker does not respond, or the network connection is broken")]
    Frozen,
    #[error(
        "the exchange or queue exists with other properties: {0}; delete it on the broker, or \
         configure the properties that it has"
    )]
    Differs(String),
    #[error(
        "{0}; the queue has a consumer: this node's previous connection, until the broker notices \
         that its heartbeats are missing, or another node with the same `queue_name`"
    )]
    Locked(String),
    #[error("{said}")]
    TooLarge { limit: usize, said: String },
    #[error("the broker says {0}")]
    Refused(String),
    #[error("the broker cancelled the consumer: its queue is gone")]
    Cancelled,
    #[error("{0}")]
    Broken(String),
}

impl From<Error> for RabbitMqFault {
    fn from(error: Error) -> Self {
        let ErrorKind::ProtocolError(said) = error.kind() else {
            return match error.kind() {
                ErrorKind::MissingHeartbeatError => Self::Frozen,
                ErrorKind::IOError(e) => Self::Broken(e.to_string()),
                _ => Self::Broken(error.to_string()),
            };
        };
        let words = said.get_message().to_string();
        if let Some(limit) = size_limit(&words) {
            return Self::TooLarge { limit, said: words };
        }
        match said.kind() {
            AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED) => Self::Differs(words),
            AMQPErrorKind::Soft(AMQPSoftError::RESOURCELOCKED) => Self::Locked(words),
            // An exclusive consumer exists, or was requested where another consumer exists.
            AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) if words.contains("exclusive") => {
                Self::Locked(words)
            }
            _ => Self::Refused(words),
        }
    }
}

/// The largest message in bytes, taken from the broker's refusal of a larger one: its
/// `max_message_size`.
fn size_limit(words: &str) -> Option<usize> {
    let (_, limit) = words.split_once("is larger than configured max size ")?;
    limit.split_whitespace().next()?.parse().ok()
}

/// Whether the broker reports that the queue or exchange does not exist.
pub(super) fn is_missing(error: &Error) -> bool {
    let ErrorKind::ProtocolError(said) = error.kind() else {
        return false;
    };
    matches!(said.kind(), AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_brokers_limit_is_read_from_what_it_says() {
        let said =
            "PRECONDITION_FAILED - message size 5000 is larger than configured max size 4096";
        assert_eq!(size_limit(said), Some(4096));
        assert_eq!(size_limit("PRECONDITION_FAILED - inequivalent arg"), None);
    }
}
