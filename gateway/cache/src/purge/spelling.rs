//! Selectors from texts that people, services and rules wrote. Paths are stored in normal form, so
//! a text in another spelling is turned into a selector for the normal form.
//!
//! The text as it was written counts as well, because a text that a key plugin returned in place of
//! a URL is compared as the plugin wrote it. One selector too many does no harm.
//!
//! Rules build texts from what clients send, and the normal form may be three times as long. A text
//! that is too long to be sent to other nodes would purge everything there, so it is left out; the
//! paths that listeners accept by default are shorter.

use std::borrow::Cow;

use super::Selector;
use crate::http::path::text;
use crate::pattern::Pattern;

/// The longest normal form, in octets, that can be sent to other nodes whatever escapes it needs.
const MOST_OCTETS: usize = 32_000;

impl Selector {
    /// URLs that begin with `prefix`.
    pub fn prefixes(prefix: &str) -> Vec<Self> {
        let prefixes = spellings(prefix, text::beginning(prefix));
        prefixes.map(Self::Prefix).collect()
    }

    /// URLs that match `pattern`.
    pub fn patterns(pattern: &str) -> Vec<Self> {
        let patterns = spellings(pattern, text::pattern(pattern));
        patterns
            .map(|text| Self::Pattern(Pattern::new(&text)))
            .collect()
    }

    /// The one URL that `address` spells: `host/path?query`, or `/path?query` on every host.
    pub fn addresses(address: &str) -> Vec<Self> {
        let addresses = spellings(address, text::whole(address));
        addresses
            .map(|text| Self::Pattern(Pattern::exactly(&text)))
            .collect()
    }
}

/// The text as it was written and, if it is different, its normal form.
fn spellings(written: &str, normal: Cow<'_, str>) -> impl Iterator<Item = String> {
    let is_another = written != normal && normal.len() <= MOST_OCTETS;
    let other = is_another.then(|| normal.into_owned());
    std::iter::once(written.to_owned()).chain(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(selectors: Vec<Selector>) -> Vec<String> {
        selectors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_text_counts_as_it_was_written_and_in_normal_form() {
        assert_eq!(texts(Selector::prefixes("/a/")), ["prefix:/a/"]);
        assert_eq!(
            texts(Selector::prefixes("/%61é")),
            ["prefix:/%61é", "prefix:/a%C3%A9"]
        );
        assert_eq!(
            texts(Selector::patterns("*/é?")),
            ["pattern:*/é?", "pattern:*/%C3%A9?"]
        );
        assert_eq!(
            texts(Selector::addresses("/x/../*")),
            [r"pattern:/x/../\*", r"pattern:/\*"]
        );
    }

    #[test]
    fn a_normal_form_that_nobody_can_be_told_of_is_left_out() {
        let long = format!("/{}", "é".repeat(MOST_OCTETS / 6 + 1));
        assert_eq!(Selector::prefixes(&long).len(), 1);
        assert_eq!(Selector::prefixes(&long[..long.len() - 2]).len(), 2);
    }
}
