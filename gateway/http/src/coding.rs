//! Content codings (RFC 9110 §8.4.1): their names, which of them a client takes, and making and
//! undoing them.
//!
//! [`accept`] reads `Accept-Encoding`, [`encode`] makes a coding of a whole body, [`decode`] undoes
//! one in bounded steps, [`transcode`] does both to a body that passes by. `deflate` and `compress`
//! are not among them: nobody needs them beside gzip, and the former is two formats.

pub mod accept;
pub mod decode;
pub mod encode;
pub mod transcode;

use http::HeaderMap;
use http::HeaderValue;
use http::header::{CONTENT_ENCODING, ETAG};

use super::etag::EntityTag;
use super::list;

/// A content coding that we can make and undo.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ContentCoding {
    Gzip,
    Brotli,
    Zstd,
}

/// Which codings were applied to the content of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AppliedCoding {
    /// None.
    Identity,
    One(ContentCoding),
    /// Several, or one that is unknown here.
    Other,
}

/// All of them, by their index.
pub const CODINGS: [ContentCoding; 3] = [
    ContentCoding::Gzip,
    ContentCoding::Brotli,
    ContentCoding::Zstd,
];

impl ContentCoding {
    /// Its name in `Content-Encoding`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }

    /// The coding of this name.
    pub fn named(name: &[u8]) -> Option<Self> {
        // RFC 9110 §8.4.1.3: `x-gzip` is the same.
        let is = |text: &str| name.eq_ignore_ascii_case(text.as_bytes());
        match () {
            () if is("x-gzip") => Some(Self::Gzip),
            () => CODINGS.into_iter().find(|coding| is(coding.as_str())),
        }
    }

    /// Its place in [`CODINGS`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// The value of `Content-Encoding`.
    pub fn to_value(self) -> HeaderValue {
        HeaderValue::from_static(self.as_str())
    }
}

impl AppliedCoding {
    /// What the fields of a message say.
    pub fn of(headers: &HeaderMap) -> Self {
        if !headers.contains_key(CONTENT_ENCODING) {
            return Self::Identity;
        }
        let applied = list::field(headers, &CONTENT_ENCODING);
        let mut applied = applied.filter(|name| !name.eq_ignore_ascii_case(b"identity"));
        match (applied.next(), applied.next()) {
            (None, _) => Self::Identity,
            (Some(name), None) => ContentCoding::named(name).map_or(Self::Other, Self::One),
            (Some(_), Some(_)) => Self::Other,
        }
    }
}

/// Makes the entity tag of a representation a weak one, since its octets are now others
/// (RFC 9110 §8.8.1).
pub fn weaken_tag(headers: &mut HeaderMap) {
    let Some(tag) = headers.get_mut(ETAG) else {
        return;
    };
    if !EntityTag::of(tag).weak {
        let weak = [b"W/", list::trim(tag.as_bytes())].concat();
        if let Ok(weak) = HeaderValue::from_bytes(&weak) {
            *tag = weak;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coded(lines: &[&'static str]) -> AppliedCoding {
        let line = |line: &&'static str| (CONTENT_ENCODING, HeaderValue::from_static(line));
        AppliedCoding::of(&lines.iter().map(line).collect())
    }

    #[test]
    fn what_was_applied_is_read_as_rfc_9110_8_4_says() {
        use AppliedCoding::{Identity, One, Other};
        for (lines, expected) in [
            (&[][..], Identity),
            (&["identity"], Identity),
            (&[""], Identity),
            (&["gzip"], One(ContentCoding::Gzip)),
            (&["X-GZip"], One(ContentCoding::Gzip)),
            (&[" BR "], One(ContentCoding::Brotli)),
            (&["identity, zstd"], One(ContentCoding::Zstd)),
            (&["gzip, gzip"], Other),
            (&["gzip", "br"], Other),
            (&["deflate"], Other),
            (&["aws-chunked"], Other),
        ] {
            assert_eq!(coded(lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn a_tag_is_weakened_once() {
        for (tag, expected) in [(r#""a""#, r#"W/"a""#), (r#"W/"a""#, r#"W/"a""#)] {
            let mut headers = HeaderMap::from_iter([(ETAG, HeaderValue::from_static(tag))]);
            weaken_tag(&mut headers);
            assert_eq!(headers[ETAG], expected);
        }
        let mut without = HeaderMap::new();
        weaken_tag(&mut without);
        assert!(without.is_empty());
    }
}
