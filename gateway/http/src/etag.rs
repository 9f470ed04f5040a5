//! Entity tags and their two comparisons (RFC 9110 §8.8.3).
//!
//! A tag is compared octet for octet, quotes included. A tag that an origin sent without quotes
//! still works as long as the client repeats it: the comparison checks equality, not grammar.

use http::HeaderValue;

use super::list::{self, QuoteSyntax};

/// An entity tag as it is written in a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntityTag<'a> {
    /// Whether it begins with `W/`: then equal tags mean equivalent, not identical octets.
    pub weak: bool,
    /// The tag with its quotes.
    pub opaque: &'a [u8],
}

impl<'a> EntityTag<'a> {
    pub fn read(text: &'a [u8]) -> Self {
        match text {
            [b'W', b'/', opaque @ ..] => Self { weak: true, opaque },
            opaque => Self {
                weak: false,
                opaque,
            },
        }
    }

    /// The tag in an `ETag` field.
    pub fn of(value: &'a HeaderValue) -> Self {
        Self::read(list::trim(value.as_bytes()))
    }

    /// The strong comparison: both are strong and equal (RFC 9110 §8.8.3.2).
    pub fn strong_eq(self, other: EntityTag<'_>) -> bool {
        !self.weak && !other.weak && self.opaque == other.opaque
    }

    /// The weak comparison: they are equal, whether weak or strong (RFC 9110 §8.8.3.2).
    pub fn weak_eq(self, other: EntityTag<'_>) -> bool {
        self.opaque == other.opaque
    }
}

/// The tags of one line of `If-None-Match` or `If-Match`.
pub fn list(line: &HeaderValue) -> impl Iterator<Item = EntityTag<'_>> {
    list::members(line.as_bytes(), QuoteSyntax::Verbatim).map(EntityTag::read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_comparison_table_of_rfc_9110_8_8_3_2_holds() {
        for (one, other, strong, weak) in [
            (r#"W/"1""#, r#"W/"1""#, false, true),
            (r#"W/"1""#, r#"W/"2""#, false, false),
            (r#"W/"1""#, r#""1""#, false, true),
            (r#""1""#, r#""1""#, true, true),
            (r#"w/"1""#, r#""1""#, false, false),
        ] {
            let (one, other) = (
                EntityTag::read(one.as_bytes()),
                EntityTag::read(other.as_bytes()),
            );
            assert_eq!(
                (one.strong_eq(other), one.weak_eq(other)),
                (strong, weak),
                "{one:?} {other:?}"
            );
        }
    }

    #[test]
    fn a_list_may_hold_commas_and_backslashes_inside_tags() {
        let line = HeaderValue::from_static(r#""a,b" , W/"c\",d"#);
        let tags: Vec<_> = list(&line).map(|tag| (tag.weak, tag.opaque)).collect();
        assert_eq!(
            tags,
            [(false, &br#""a,b""#[..]), (true, br#""c\""#), (false, b"d")]
        );
    }
}
