//! What went wrong with Redis.
//!
//! Decision: an error that begins with a word in capitals (`OOM`, `READONLY`, `WRONGTYPE`) is the
//! server's own, so it answered and refused; every other error means that nobody answered.

use std::borrow::Cow;

use crate::redis::driver::{Error, ErrorKind};

/// The failure of a command, or of a connection.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RedisError {
    /// Nobody answers.
    #[error("{0}")]
    Down(String),
    #[error("no answer in time")]
    Timeout,
    /// The server answered, and refused.
    #[error("{0}")]
    Refused(String),
    /// The answer violates the protocol.
    #[error("{0}")]
    Corrupt(String),
}

impl From<&Error> for RedisError {
    fn from(error: &Error) -> Self {
        let said = error.details();
        match error.kind() {
            ErrorKind::Timeout => Self::Timeout,
            ErrorKind::Auth | ErrorKind::Backpressure => Self::Refused(said.to_owned()),
            ErrorKind::Protocol | ErrorKind::Parse => Self::Corrupt(said.to_owned()),
            _ if said.starts_with("CLUSTERDOWN") => Self::Down(said.to_owned()),
            _ if is_servers_word(said) => Self::Refused(said.to_owned()),
            _ => Self::Down(words(said).to_string()),
        }
    }
}

/// fred formats errors of sockets and of TLS in the form of Rust's `Debug`; this takes out the
/// sentence in it that people can read.
fn words(said: &str) -> Cow<'_, str> {
    let within = |open, close| {
        let (_, rest) = said.split_once(open)?;
        Some(rest.rsplit_once(close)?.0)
    };
    if let Some(why) = within("InvalidCertificate(", ") }") {
        return format!("invalid peer certificate: {why}").into();
    }
    within("message: \"", "\" }").map_or(said.into(), Into::into)
}

/// Whether the error says that this server is no longer a master, so that another one must be
/// found. Redis before 7 puts a command's error word inside the message of the script.
pub fn is_demotion(error: &Error) -> bool {
    let said = error.details();
    is_servers_word(said) && ["READONLY", "MASTERDOWN"].iter().any(|w| said.contains(w))
}

fn is_servers_word(said: &str) -> bool {
    let word = said.split(' ').next().unwrap_or("");
    word.len() >= 3 && word.bytes().all(|b| b.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_refusals_are_told_from_silence() {
        let of = |kind, said: &'static str| RedisError::from(&Error::new(kind, said));
        let unknown = |said: &'static str| of(ErrorKind::Unknown, said);
        assert!(matches!(unknown("OOM command not"), RedisError::Refused(_)));
        assert!(matches!(
            unknown("LOADING Redis is"),
            RedisError::Refused(_)
        ));
        let wrong_type = of(ErrorKind::InvalidArgument, "WRONGTYPE Op");
        assert!(matches!(wrong_type, RedisError::Refused(_)));
        let password = of(ErrorKind::Auth, "WRONGPASS invalid");
        assert!(matches!(password, RedisError::Refused(_)));
        let cluster = of(ErrorKind::Cluster, "CLUSTERDOWN Hash slot");
        assert!(matches!(cluster, RedisError::Down(_)));
        assert!(matches!(
            unknown("Failed to route command."),
            RedisError::Down(_)
        ));
        let closed = of(ErrorKind::IO, "Connection closed.");
        assert!(matches!(closed, RedisError::Down(_)));
        let late = of(ErrorKind::Timeout, "Request timed out.");
        assert_eq!(late, RedisError::Timeout);
        let frame = of(ErrorKind::Protocol, "Invalid frame.");
        assert!(matches!(frame, RedisError::Corrupt(_)));
    }

    #[test]
    fn sockets_and_certificates_are_told_in_words() {
        let of =
            |said: &'static str| RedisError::from(&Error::new(ErrorKind::IO, said)).to_string();
        let refused = r#"Os { code: 111, kind: ConnectionRefused, message: "Connection refused" }"#;
        assert_eq!(of(refused), "Connection refused");
        let unknown = "Custom { kind: InvalidData, error: InvalidCertificate(UnknownIssuer) }";
        assert_eq!(of(unknown), "invalid peer certificate: UnknownIssuer");
        let name = "Custom { kind: InvalidData, error: InvalidCertificate(NotValidForNameContext { expected: IpAddress(127.0.0.1), presented: [\"DnsName(\\\"a\\\")\"] }) }";
        assert!(of(name).starts_with("invalid peer certificate: NotValidForNameContext { exp"));
        assert_eq!(of("Connection closed."), "Connection closed.");
    }

    #[test]
    fn a_demotion_is_seen_through_the_scripts_wrapping() {
        let said = |text: &'static str| is_demotion(&Error::new(ErrorKind::Unknown, text));
        assert!(said(
            "READONLY You can't write against a read only replica."
        ));
        assert!(said("ERR Error running script: -READONLY You can't write"));
        assert!(!said("OOM command not allowed"));
    }
}
