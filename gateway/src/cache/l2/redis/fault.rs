//! What went wrong with Redis, in the store's words.

use fred::error::Error;

use crate::cache::l2::store::StoreError;
use crate::redis::Fault;

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Down(why) => Self::Down(why),
            Fault::Timeout => Self::Timeout,
            Fault::Refused(why) => Self::Refused(why),
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

/// Whether a script is to be sent whole.
pub(super) fn is_unknown_script(error: &Error) -> bool {
    error.details().starts_with("NOSCRIPT")
}
