//! Selectors from texts that people, services and rules wrote. Paths are stored in normal form, so
//! a text in another spelling is turned into a selector for the normal form.
//!
//! Listeners and routes may decode escaped slashes and merge repeated ones. Who wrote the text may know
//! either form, so the text counts in each of them, whatever the rules are.
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
use crate::http::reference::normal_address;
use crate::pattern::Pattern;

/// The longest normal form, in octets, that can be sent to other nodes whatever escapes it needs.
const MOST_OCTETS: usize = 32_000;

impl Selector {
    /// URLs that begin with `prefix`.
    pub fn prefixes(prefix: &str) -> Vec<Self> {
        let prefixes = spellings(prefix, "?", text::beginning);
        let open = prefixes
            .iter()
            .filter_map(|prefix| before_cut_escape(prefix));
        let open: Vec<String> = open.map(str::to_owned).collect();
        prefixes.into_iter().chain(open).map(Self::Prefix).collect()
    }

    /// URLs that match `pattern`.
    pub fn patterns(pattern: &str) -> Vec<Self> {
        let patterns = spellings(pattern, "\\?", text::pattern);
        patterns
            .into_iter()
            .map(|text| Self::Pattern(Pattern::new(&text)))
            .collect()
    }

    /// The one URL that `address` spells: `host/path?query`, or `/path?query` on every host.
    pub fn addresses(address: &str) -> Vec<Self> {
        let addresses = spellings(address, "?", text::whole);
        addresses
            .into_iter()
            .map(|text| Self::Pattern(Pattern::exactly(&text)))
            .collect()
    }
}

/// The text as it was written, its normal form, and the forms that this has where slashes are decoded
/// or merged. `query` is what its query begins with.
fn spellings(written: &str, query: &str, normal: fn(&str) -> Cow<'_, str>) -> Vec<String> {
    let named = with_normal_address(written);
    let form = normal(&named);
    let others = text::reshaped(&form, query, normal);
    let all = std::iter::once(form.into_owned()).chain(others);
    let fitting = all.filter(|form| form.len() <= MOST_OCTETS && form != written);
    std::iter::once(written.to_owned()).chain(fitting).collect()
}

/// The text, in which an IPv6 address at its beginning is written as keys have it.
fn with_normal_address(text: &str) -> Cow<'_, str> {
    let end = text.find(']').map_or(0, |end| end + 1);
    let (address, rest) = text.split_at(end);
    match normal_address(address) {
        Cow::Owned(address) => Cow::Owned(address + rest),
        Cow::Borrowed(_) => Cow::Borrowed(text),
    }
}

/// Returns the text before an escape that is cut off at the end and may be that of a slash, which
/// listeners may decode.
fn before_cut_escape(prefix: &str) -> Option<&str> {
    let before = prefix.strip_suffix("%2").or(prefix.strip_suffix('%'))?;
    let is_path = !before.contains('?') && before.contains('/');
    is_path.then_some(before)
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
            texts(Selector::prefixes("h.example//a%2Fb//?//")),
            [
                "prefix:h.example//a%2Fb//?//",
                "prefix:h.example//a/b//?//",
                "prefix:h.example/a%2Fb/?//",
                "prefix:h.example/a/b/?//",
            ]
        );
        assert_eq!(
            texts(Selector::prefixes("/a%2")),
            ["prefix:/a%2", "prefix:/a"]
        );
        assert_eq!(
            texts(Selector::patterns("*/a//*/b?")),
            ["pattern:*/a//*/b?", "pattern:*/a/*/b?"]
        );
        assert_eq!(
            texts(Selector::prefixes("[2001:DB8:0:0::a]:81/x")),
            ["prefix:[2001:DB8:0:0::a]:81/x", "prefix:[2001:db8::a]:81/x"]
        );
        assert_eq!(
            texts(Selector::patterns("[2001:db8:0:0::a]/*")),
            ["pattern:[2001:db8:0:0::a]/*", "pattern:[2001:db8::a]/*"]
        );
        assert_eq!(
            texts(Selector::patterns("[a-z]/*")),
            ["pattern:[a-z]/*"],
            "no address"
        );
        assert_eq!(
            texts(Selector::addresses("/a//b?q=//")),
            ["pattern:/a//b\\?q=//", "pattern:/a/b\\?q=//"]
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
