//! Maps faults of Redis to errors of the store.

use lamina_base::redis::driver::Error;

use crate::l2::store::{StoreError, StoreRefusal};
use crate::redis::RedisError;

impl From<RedisError> for StoreError {
    fn from(fault: RedisError) -> Self {
        match fault {
            RedisError::Down(why) => Self::Down(why),
            RedisError::Timeout => Self::Timeout,
            RedisError::Refused(said) if says(&said, "WRONGTYPE") => Self::Foreign(said),
            RedisError::Refused(said) => Self::Refused(refusal(&said), without_script(said)),
            RedisError::Corrupt(why) => Self::Corrupt(why),
        }
    }
}

/// The failure of a command.
pub(super) fn fault(error: &Error) -> StoreError {
    RedisError::from(error).into()
}

/// An answer that does not have the form that the command returns.
pub(super) fn unexpected(command: &str) -> StoreError {
    StoreError::Corrupt(format!("the answer to {command} has an unexpected form"))
}

/// Redis 7.0 begins with this when a script's command is refused for want of a right. Later versions
/// say `ACL failure in script`.
const OF_A_SCRIPT: &str = "The user executing the script can't";

fn refusal(said: &str) -> StoreRefusal {
    const WORDS: [(&str, StoreRefusal); 10] = [
        ("OOM", StoreRefusal::OutOfMemory),
        ("READONLY", StoreRefusal::ReadOnly),
        ("MASTERDOWN", StoreRefusal::ReadOnly),
        ("NOREPLICAS", StoreRefusal::NoReplicas),
        ("MISCONF", StoreRefusal::Unsaved),
        ("LOADING", StoreRefusal::Loading),
        ("NOAUTH", StoreRefusal::NoAccess),
        ("WRONGPASS", StoreRefusal::NoAccess),
        ("NOPERM", StoreRefusal::NoAccess),
        // A command of a script.
        ("ACL", StoreRefusal::NoAccess),
    ];
    let known = WORDS.iter().find(|(word, _)| says(said, word));
    match known {
        Some((_, refusal)) => *refusal,
        None if said.contains(OF_A_SCRIPT) => StoreRefusal::NoAccess,
        None => StoreRefusal::Other,
    }
}

/// The message without the name of the script and the line in it, which tell an operator nothing.
fn without_script(mut said: String) -> String {
    if let Some(at) = said
        .find(" script: ")
        .filter(|_| said.contains("@user_script"))
    {
        said.truncate(at);
    }
    said
}

/// Whether a word occurs in the message. Versions of Redis before 7 wrap the error of a command in
/// a script.
fn says(said: &str, word: &str) -> bool {
    said.split([' ', '-']).any(|one| one == word)
}

/// Whether the server is too old to know the flags at the beginning of a script.
pub(super) fn knows_no_flags(error: &Error) -> bool {
    error.details().contains("unexpected symbol near '#'")
}

#[cfg(test)]
mod tests {
    use lamina_base::redis::driver::ErrorKind;

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
            (
                "ERR ACL failure in script: User x has no permissions",
                "no-access",
            ),
            (
                "ERR The user executing the script can't run this command or subcommand",
                "no-access",
            ),
            (
                "NOREPLICAS Not enough good replicas to write.",
                "no-replicas",
            ),
            ("MISCONF Redis is configured to save", "unsaved"),
            ("ERR something else", "other"),
        ] {
            assert_eq!(refusal(said).as_str(), why, "{said}");
        }
    }
}
