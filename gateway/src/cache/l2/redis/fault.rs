//! What went wrong, in the store's words.
//!
//! Decision: what begins with a word in capitals (`OOM`, `READONLY`, `WRONGTYPE`) is the
//! server's own, so it answered and refused; all else means that nobody answered.

use fred::error::{Error, ErrorKind};

use crate::cache::l2::store::StoreError;

/// The failure of a command.
pub(super) fn fault(error: &Error) -> StoreError {
    let said = error.details();
    match error.kind() {
        ErrorKind::Timeout => StoreError::Timeout,
        ErrorKind::Auth | ErrorKind::Backpressure => StoreError::Refused(said.to_owned()),
        ErrorKind::Protocol | ErrorKind::Parse => StoreError::Corrupt(said.to_owned()),
        _ if said.starts_with("CLUSTERDOWN") => StoreError::Down(said.to_owned()),
        _ if is_servers_word(said) => StoreError::Refused(said.to_owned()),
        _ => StoreError::Down(said.to_owned()),
    }
}

/// An answer whose form is not what the command has.
pub(super) fn unexpected(command: &str) -> StoreError {
    StoreError::Corrupt(format!("an answer to {command} of a foreign form"))
}

/// Whether this server is no master any more, so that another one is to be looked for.
/// Redis before 7 wraps the word of a command in a script.
pub(super) fn is_demotion(error: &Error) -> bool {
    let said = error.details();
    is_servers_word(said) && ["READONLY", "MASTERDOWN"].iter().any(|w| said.contains(w))
}

/// Whether a script is to be sent whole.
pub(super) fn is_unknown_script(error: &Error) -> bool {
    error.details().starts_with("NOSCRIPT")
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
        let of = |kind, said: &'static str| fault(&Error::new(kind, said)).reason();
        assert_eq!(of(ErrorKind::Unknown, "OOM command not allowed"), "refused");
        assert_eq!(
            of(ErrorKind::Unknown, "LOADING Redis is loading"),
            "refused"
        );
        assert_eq!(of(ErrorKind::InvalidArgument, "WRONGTYPE Op"), "refused");
        assert_eq!(of(ErrorKind::Auth, "WRONGPASS invalid"), "refused");
        assert_eq!(of(ErrorKind::Cluster, "CLUSTERDOWN Hash slot"), "down");
        assert_eq!(of(ErrorKind::Unknown, "Failed to route command."), "down");
        assert_eq!(of(ErrorKind::IO, "Connection closed."), "down");
        assert_eq!(of(ErrorKind::Timeout, "Request timed out."), "timeout");
        assert_eq!(of(ErrorKind::Protocol, "Invalid frame."), "corrupt");
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
