//! Selectors as text, for the log that nodes share: `tag:x`, `url:0123456789abcdef`, `all`.
//! They are read by later versions too: a word, once written, keeps its meaning.

use std::fmt;
use std::str::FromStr;

use super::Selector;
use crate::cache::key::KeyId;
use crate::pattern::Pattern;

/// What is no selector, or one that only a later version knows.
#[derive(Debug, thiserror::Error)]
#[error("not a selector: {0:?}")]
pub struct Unknown(String);

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
    type Err = Unknown;

    fn from_str(text: &str) -> Result<Self, Unknown> {
        let unknown = || Unknown(text.to_owned());
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
        fn nothing_panics(text in ".{0,30}") {
            let _ = text.parse::<Selector>();
        }
    }
}
