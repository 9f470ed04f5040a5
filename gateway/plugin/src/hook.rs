//! The hooks of the contract, by name.

use std::fmt;

/// A hook of the contract.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hook {
    Key,
    Load,
    Request,
    Response,
}

impl Hook {
    /// Every hook, in the order of its index.
    pub const ALL: [Self; 4] = [Self::Key, Self::Load, Self::Request, Self::Response];

    /// Its name in the contract, in the YAML and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Load => "load",
            Self::Request => "request",
            Self::Response => "response",
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
