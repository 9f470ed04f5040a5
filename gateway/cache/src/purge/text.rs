//! Purges as text, for the log that nodes share and for the bus: `tag:x`, `url:0123456789abcdef`,
//! `all`. A purge that a client's request caused has the prefix `by-request:`. `invalidated:` with
//! numbers is what requests made invalid. `doubt` says that more was purged than could be kept.
//! Later versions read these texts too: a word keeps its meaning once it was written, and a reader
//! that does not know a word takes it for a purge of everything.

use std::fmt;
use std::str::FromStr;

use super::{PurgeInitiator, Selector};
use crate::key::{KeyId, PurgeHash};
use crate::pattern::Pattern;

/// A statement of one node to the others.
#[derive(Clone, Debug)]
pub enum PurgeStatement {
    /// This selector was purged.
    Purged(PurgeInitiator, Selector),
    /// URLs and groups with these numbers were invalidated.
    Invalidated(Vec<PurgeHash>),
    /// Requests purged more than could be kept: what is stored must be validated.
    Doubt,
}

const BY_REQUEST: &str = "by-request:";
const INVALIDATED: &str = "invalidated:";
const DOUBT: &str = "doubt";
/// The digits of one number.
const DIGITS: usize = 16;

/// The length in bytes of a statement about this many invalidated numbers.
pub const fn length_of_invalidated(numbers: usize) -> usize {
    INVALIDATED.len() + numbers * DIGITS
}

/// A text that is not a selector, or that only a later version knows.
#[derive(Debug, thiserror::Error)]
#[error("not a selector: {0:?}")]
pub struct UnknownPurgeText(String);

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(id) => write!(f, "key:{id}"),
            Self::Url(identity) => write!(f, "url:{identity:016x}"),
            Self::Prefix(prefix) => write!(f, "prefix:{prefix}"),
            Self::Pattern(pattern) => write!(f, "pattern:{pattern}"),
            Self::Tag(tag) => write!(f, "tag:{tag}"),
            Self::Group(group) => write!(f, "group:{group:016x}"),
            Self::Route(route) => write!(f, "route:{route}"),
            Self::All => f.write_str("all"),
        }
    }
}

impl FromStr for Selector {
    type Err = UnknownPurgeText;

    fn from_str(text: &str) -> Result<Self, UnknownPurgeText> {
        let unknown = || UnknownPurgeText(text.to_owned());
        if text == "all" {
            return Ok(Self::All);
        }
        let (word, rest) = text.split_once(':').ok_or_else(unknown)?;
        let number = || KeyId::parse(rest).ok_or_else(unknown);
        Ok(match word {
            "key" => Self::Key(number()?),
            "url" => Self::Url(number()?.0),
            "prefix" => Self::Prefix(rest.to_owned()),
            "pattern" => Self::Pattern(Pattern::new(rest)),
            "tag" => Self::Tag(rest.to_owned()),
            "group" => Self::Group(number()?.0),
            "route" => Self::Route(rest.to_owned()),
            _ => return Err(unknown()),
        })
    }
}

impl fmt::Display for PurgeStatement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Purged(PurgeInitiator::Operator, selector) => selector.fmt(f),
            Self::Purged(PurgeInitiator::Request, selector) => write!(f, "{BY_REQUEST}{selector}"),
            Self::Invalidated(numbers) => {
                f.write_str(INVALIDATED)?;
                numbers
                    .iter()
                    .try_for_each(|number| write!(f, "{number:016x}"))
            }
            Self::Doubt => f.write_str(DOUBT),
        }
    }
}

impl FromStr for PurgeStatement {
    type Err = UnknownPurgeText;

    fn from_str(text: &str) -> Result<Self, UnknownPurgeText> {
        if text == DOUBT {
            return Ok(Self::Doubt);
        }
        if let Some(purge) = text.strip_prefix(BY_REQUEST) {
            return Ok(Self::Purged(PurgeInitiator::Request, purge.parse()?));
        }
        match text.strip_prefix(INVALIDATED) {
            Some(digits) => {
                let numbers = digits.as_bytes().chunks(DIGITS).map(number);
                let numbers: Option<Vec<PurgeHash>> = numbers.collect();
                let unknown = || UnknownPurgeText(text.to_owned());
                numbers.map(Self::Invalidated).ok_or_else(unknown)
            }
            None => Ok(Self::Purged(PurgeInitiator::Operator, text.parse()?)),
        }
    }
}

fn number(digits: &[u8]) -> Option<PurgeHash> {
    KeyId::parse(std::str::from_utf8(digits).ok()?).map(|id| id.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(word in "prefix|pattern|tag|route", rest in ".{0,20}", n: u64) {
            for text in [format!("{word}:{rest}"), format!("key:{n:016x}"), format!("url:{n:016x}"), format!("group:{n:016x}"), "all".into()] {
                prop_assert_eq!(text.parse::<Selector>().unwrap().to_string(), text);
            }
        }

        #[test]
        fn what_nodes_say_is_read(numbers: Vec<PurgeHash>, rest in ".{0,20}") {
            let invalidated = PurgeStatement::Invalidated(numbers.clone()).to_string();
            prop_assert_eq!(invalidated.len(), length_of_invalidated(numbers.len()));
            for text in [invalidated, format!("by-request:tag:{rest}"), format!("tag:{rest}"), "doubt".into()] {
                prop_assert_eq!(text.parse::<PurgeStatement>().unwrap().to_string(), text);
            }
        }

        #[test]
        fn nothing_panics(text in ".{0,30}", word in "invalidated:|by-request:|") {
            let _ = text.parse::<Selector>();
            let _ = format!("{word}{text}").parse::<PurgeStatement>();
        }
    }
}
