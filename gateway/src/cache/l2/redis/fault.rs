//! What went wrong, in the store's words.
//!
//! Decision: what begins with a word in capitals (`OOM`, `READONLY`, `WRONGTYPE`) is the
//! server's own, so it answered and refused; all else means that nobody answered.

use fred::error::{Error, ErrorKind};

use crate::cache::l2::store::{Refusal, StoreError};

/// The failure of a command.
pub(super) fn fault(error: &Error) -> StoreError {
    let said = error.details();
    match error.kind() {
        ErrorKind::Timeout => StoreError::Timeout,
        ErrorKind::Auth => StoreError::Refused(Refusal::NoAccess, said.to_owned()),
        ErrorKind::Backpressure => StoreError::Refused(Refusal::Other, said.to_owned()),
        ErrorKind::Protocol | ErrorKind::Parse => StoreError::Corrupt(said.to_owned()),
        _ if said.starts_with("CLUSTERDOWN") => StoreError::Down(said.to_owned()),
        _ if is_servers_word(said) && says(said, "WRONGTYPE") => {
            StoreError::Foreign(said.to_owned())
        }
        _ if is_servers_word(said) => StoreError::Refused(refusal(said), said.to_owned()),
        _ => StoreError::Down(said.to_owned()),
    }
}

/// An answer whose form is not what the command has.
pub(super) fn unexpected(command: &str) -> StoreError {
    StoreError::Corrupt(format!("an answer to {command} of a foreign form"))
}

fn refusal(said: &str) -> Refusal {
    const WORDS: [(&str, Refusal); 7] = [
        ("OOM", Refusal::OutOfMemory),
        ("READONLY", Refusal::ReadOnly),
        ("MASTERDOWN", Refusal::ReadOnly),
        ("LOADING", Refusal::Loading),
        ("NOAUTH", Refusal::NoAccess),
        ("WRONGPASS", Refusal::NoAccess),
        ("NOPERM", Refusal::NoAccess),
    ];
    let known = WORDS.iter().find(|(word, _)| says(said, word));
    known.map_or(Refusal::Other, |(_, refusal)| *refusal)
}

/// Whether a word is among what was said: Redis before 7 wraps the word of a command in a
/// script.
fn says(said: &str, word: &str) -> bool {
    said.split([' ', '-']).any(|one| one == word)
}

/// Whether this server is no master any more, so that another one is to be looked for.
pub(super) fn is_demotion(error: &Error) -> bool {
    let said = error.details();
    is_servers_word(said) && refusal(said) == Refusal::ReadOnly
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
        assert_eq!(of(ErrorKind::InvalidArgument, "WRONGTYPE Op"), "foreign");
        assert_eq!(of(ErrorKind::Auth, "WRONGPASS invalid"), "refused");
        assert_eq!(of(ErrorKind::Cluster, "CLUSTERDOWN Hash slot"), "down");
        assert_eq!(of(ErrorKind::Unknown, "Failed to route command."), "down");
        assert_eq!(of(ErrorKind::IO, "Connection closed."), "down");
        assert_eq!(of(ErrorKind::Timeout, "Request timed out."), "timeout");
        assert_eq!(of(ErrorKind::Protocol, "Invalid frame."), "corrupt");
    }

    #[test]
    fn a_refusal_is_known_by_its_word() {
        for (said, why) in [
            ("OOM command not allowed when used memory", "out-of-memory"),
            ("ERR Error running script: -OOM command", "out-of-memory"),
            ("READONLY You can't write", "read-only"),
            ("LOADING Redis is loading", "loading"),
            ("NOAUTH Authentication required.", "no-access"),
            ("NOPERM this user has no permissions", "no-access"),
            ("MISCONF Redis is configured to save", "other"),
        ] {
            assert_eq!(refusal(said).as_str(), why, "{said}");
        }
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
