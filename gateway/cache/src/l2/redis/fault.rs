//! What went wrong with Redis, in the store's words.

use fred::error::Error;

use crate::l2::store::{Refusal, StoreError};
use crate::redis::Fault;

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Down(why) => Self::Down(why),
            Fault::Timeout => Self::Timeout,
            Fault::Refused(said) if says(&said, "WRONGTYPE") => Self::Foreign(said),
            Fault::Refused(said) => Self::Refused(refusal(&said), said),
            Fault::Corrupt(why) => Self::Corrupt(why),
        }
    }
}

/// The failure of a command.
pub(super) fn fault(error: &Error) -> StoreError {
    Fault::from(error).into()
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

/// Whether a script is to be sent whole.
pub(super) fn is_unknown_script(error: &Error) -> bool {
    error.details().starts_with("NOSCRIPT")
}

/// Whether the server is older than the words at the beginning of a script.
pub(super) fn knows_no_flags(error: &Error) -> bool {
    error.details().contains("unexpected symbol near '#'")
}

#[cfg(test)]
mod tests {
    use fred::error::ErrorKind;

    use super::*;

    #[test]
    fn a_value_of_another_type_is_foreign_and_no_refusal() {
        let error = Error::new(ErrorKind::InvalidArgument, "WRONGTYPE Op");
        assert_eq!(fault(&error).reason(), "foreign");
        let error = Error::new(ErrorKind::Auth, "WRONGPASS invalid");
        assert_eq!(fault(&error).reason(), "refused");
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
}
