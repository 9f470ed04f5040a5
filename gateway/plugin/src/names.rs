//! Names in a manifest: `utm_source`, or `utm_*` for all names that begin with `utm_`.
//!
//! Not [`lamina_base::pattern`]: the contract allows a star only at the end, `?` and `\` are
//! ordinary characters of a name, names are bytes that need not be text, and a manifest with any
//! other form is refused. Header names have the same two forms.

/// One name, or a prefix of names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NamePattern {
    /// This name.
    Exact(Box<str>),
    /// Every name that begins with this.
    Prefix(Box<str>),
}

impl NamePattern {
    /// Reads a pattern; a `*` may only stand at its end. `None` if it is empty, or has a `*`
    /// elsewhere.
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text.strip_suffix('*') {
            Some(prefix) if !prefix.contains('*') => Some(Self::Prefix(prefix.into())),
            None if !text.is_empty() && !text.contains('*') => Some(Self::Exact(text.into())),
            _ => None,
        }
    }

    pub(super) fn matches(&self, name: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => name == exact.as_bytes(),
            Self::Prefix(prefix) => name.starts_with(prefix.as_bytes()),
        }
    }
}

/// The pieces of a query whose name `wanted` accepts, as the request spells them. The name is
/// decoded before it is compared: every origin takes `utm%5Fsource` for `utm_source`. A piece that
/// contains `;` is always included: some origins split parameters there, and would find a parameter
/// that `wanted` was not asked about.
pub(super) fn parameters(
    query: &str,
    wanted: impl Fn(&[u8]) -> bool,
) -> impl Iterator<Item = &str> {
    query.split('&').filter(move |piece| {
        let name = piece.split('=').next().unwrap_or(piece);
        let decoded: std::borrow::Cow<'_, [u8]> = percent_encoding::percent_decode_str(name).into();
        !piece.is_empty() && (piece.contains(';') || wanted(&decoded))
    })
}

/// The pairs of a `Cookie` header's value (RFC 6265 §4.2.1).
pub(super) fn cookies(value: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    value.split(|b| *b == b';').filter_map(|pair| {
        let pair = pair.trim_ascii();
        let at = memchr::memchr(b'=', pair)?;
        Some((pair[..at].trim_ascii_end(), &pair[at + 1..]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_at_the_end_or_nowhere() {
        assert_eq!(
            NamePattern::parse("utm_*"),
            Some(NamePattern::Prefix("utm_".into()))
        );
        assert_eq!(
            NamePattern::parse("*"),
            Some(NamePattern::Prefix("".into()))
        );
        assert_eq!(
            NamePattern::parse("a"),
            Some(NamePattern::Exact("a".into()))
        );
        assert_eq!(
            [
                NamePattern::parse(""),
                NamePattern::parse("a*b"),
                NamePattern::parse("**")
            ],
            [None, None, None]
        );
    }

    #[test]
    fn an_encoded_name_is_still_that_name() {
        let drop = NamePattern::parse("utm_*").unwrap();
        let kept: Vec<_> =
            parameters("utm%5Fsource=1&a=%3D&&utm_x&b", |n| !drop.matches(n)).collect();
        assert_eq!(kept, ["a=%3D", "b"]);
    }

    /// Guards against `utm_x=1;id=evil` being dropped as a whole although the origin sees an `id`.
    #[test]
    fn a_piece_with_a_semicolon_is_always_wanted() {
        let kept: Vec<_> = parameters("utm_x=1;id=2&b", |_| false).collect();
        assert_eq!(kept, ["utm_x=1;id=2"]);
    }

    #[test]
    fn cookies_are_split_leniently() {
        let pairs: Vec<_> = cookies(b" a=1;b =x=y ;;junk; c=").collect();
        assert_eq!(pairs, [(&b"a"[..], &b"1"[..]), (b"b", b"x=y"), (b"c", b"")]);
    }
}
