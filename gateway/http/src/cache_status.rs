//! `Cache-Status` (RFC 9211): how this cache handled the request, for debugging.
//!
//! A response is a hit or was forwarded, never both; the type expresses that. The value is built
//! on the stack and copied once, since every response carries it.

use std::cell::RefCell;

use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

use super::forward::PSEUDONYM;
use super::numbered::{self, NumberedValues};

/// The field's name.
pub const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// The range of a structured field's integer (RFC 9651 §3.3.1).
const LIMIT: i64 = 999_999_999_999_999;

/// The buffer for a value; up to this size it stays on the stack.
type CacheStatusBuffer = SmallVec<[u8; 192]>;

/// Why a request went to the origin (RFC 9211 §2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardReason {
    /// The cache is configured not to handle it.
    Bypass,
    /// The method's semantics require it.
    Method,
    /// Nothing is stored for the key.
    UriMiss,
    /// Something is stored for the key, but no variant of it matches.
    VaryMiss,
    /// Nothing is stored, and the cache does not know which of the two above it is.
    Miss,
    /// The stored response is fresh, but the request's directives forbid its use.
    Request,
    /// The stored response is stale.
    Stale,
    /// A part of the response is stored, but not the part that was asked for.
    Partial,
}

/// What happened to one request. Times to live are in seconds, negative when stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheStatus<'a> {
    /// Answered from the store.
    Hit { ttl: i64, detail: Option<&'a str> },
    /// Answered by the origin.
    Fwd {
        reason: ForwardReason,
        /// The origin's status, if it answered.
        fwd_status: Option<u16>,
        stored: bool,
        /// The request shared the answer to another client's request (coalescing).
        collapsed: bool,
        ttl: Option<i64>,
        detail: Option<&'a str>,
    },
}

impl ForwardReason {
    /// The name in RFC 9211, which is also the label in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Miss => "miss",
            Self::Request => "request",
            Self::Stale => "stale",
            Self::Partial => "partial",
        }
    }
}

impl CacheStatus<'static> {
    /// That of an answer that neither comes from the cache nor is stored.
    pub const fn not_stored(reason: ForwardReason, detail: Option<&'static str>) -> Self {
        Self::Fwd {
            reason,
            fwd_status: None,
            stored: false,
            collapsed: false,
            ttl: None,
            detail,
        }
    }
}

impl CacheStatus<'_> {
    /// The member for this cache, as in `lamina; hit; ttl=35`.
    pub fn to_value(&self) -> HeaderValue {
        let mut out = CacheStatusBuffer::new();
        out.extend_from_slice(PSEUDONYM.as_bytes());
        match *self {
            Self::Hit { ttl, detail: None } => return plain_hit(ttl),
            Self::Hit { ttl, detail } => {
                out.extend_from_slice(b"; hit");
                push_end(&mut out, Some(ttl), detail);
            }
            Self::Fwd {
                reason,
                fwd_status,
                stored,
                collapsed,
                ttl,
                detail,
            } => {
                out.extend_from_slice(b"; fwd=");
                out.extend_from_slice(reason.as_str().as_bytes());
                push_integer(&mut out, "; fwd-status=", fwd_status.map(i64::from));
                out.extend_from_slice(if stored { b"; stored" } else { b"" });
                out.extend_from_slice(if collapsed { b"; collapsed" } else { b"" });
                push_end(&mut out, ttl, detail);
            }
        }
        HeaderValue::from_bytes(&out).expect("names, integers and quoted visible ASCII")
    }

    /// Adds our member behind those of caches nearer to the origin (RFC 9211 §2).
    pub fn append(&self, headers: &mut HeaderMap) {
        headers.append(CACHE_STATUS, self.to_value());
    }
}

/// `lamina; hit; ttl=…`, which most responses carry.
fn plain_hit(ttl: i64) -> HeaderValue {
    thread_local!(static HITS: RefCell<NumberedValues> = const { NumberedValues::new() });
    numbered::value(&HITS, ttl.clamp(-LIMIT, LIMIT), || new_hit(ttl))
}

fn new_hit(ttl: i64) -> HeaderValue {
    const START: &[u8] = b"lamina; hit; ttl=";
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(ttl.clamp(-LIMIT, LIMIT)).as_bytes();
    let mut out = [0; START.len() + 16];
    out[..START.len()].copy_from_slice(START);
    out[START.len()..][..digits.len()].copy_from_slice(digits);
    HeaderValue::from_bytes(&out[..START.len() + digits.len()]).expect("visible ASCII")
}

fn push_end(out: &mut CacheStatusBuffer, ttl: Option<i64>, detail: Option<&str>) {
    push_integer(out, "; ttl=", ttl);
    if let Some(detail) = detail {
        out.extend_from_slice(b"; detail=");
        push_token_or_string(out, detail);
    }
}

fn push_integer(out: &mut CacheStatusBuffer, label: &str, number: Option<i64>) {
    if let Some(number) = number {
        out.extend_from_slice(label.as_bytes());
        out.extend_from_slice(
            itoa::Buffer::new()
                .format(number.clamp(-LIMIT, LIMIT))
                .as_bytes(),
        );
    }
}

/// Appends a token if the text is one, else a string, with `?` for characters that a string cannot
/// hold (RFC 9651 §3.3.3).
fn push_token_or_string(out: &mut CacheStatusBuffer, text: &str) {
    let is_token =
        |octet: u8| octet.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&octet);
    if text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '*')
        && text.bytes().all(is_token)
    {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    out.push(b'"');
    for octet in text.bytes() {
        match octet {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', octet]),
            b' '..=b'~' => out.push(octet),
            _ => out.push(b'?'),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sfv::{List, Parser};

    const FWD: CacheStatus<'static> = CacheStatus::Fwd {
        reason: ForwardReason::UriMiss,
        fwd_status: None,
        stored: false,
        collapsed: false,
        ttl: None,
        detail: None,
    };

    #[test]
    fn a_hit_shows_its_time_to_live() {
        assert_eq!(
            CacheStatus::Hit {
                ttl: 35,
                detail: None
            }
            .to_value(),
            "lamina; hit; ttl=35"
        );
        assert_eq!(
            CacheStatus::Hit {
                ttl: -3,
                detail: Some("STALE")
            }
            .to_value(),
            "lamina; hit; ttl=-3; detail=STALE"
        );
    }

    #[test]
    fn a_forwarded_request_shows_why_and_what_came_of_it() {
        assert_eq!(FWD.to_value(), "lamina; fwd=uri-miss");
        let full = CacheStatus::Fwd {
            reason: ForwardReason::Stale,
            fwd_status: Some(304),
            stored: true,
            collapsed: true,
            ttl: Some(60),
            detail: Some("two words, \"quoted\""),
        };
        let expected = r#"lamina; fwd=stale; fwd-status=304; stored; collapsed; ttl=60; detail="two words, \"quoted\"""#;
        assert_eq!(full.to_value(), expected);
    }

    #[test]
    fn our_member_comes_last() {
        let mut headers =
            HeaderMap::from_iter([(CACHE_STATUS, HeaderValue::from_static("origin; hit"))]);
        FWD.append(&mut headers);
        let lines: Vec<_> = headers.get_all(CACHE_STATUS).iter().collect();
        assert_eq!(lines, ["origin; hit", "lamina; fwd=uri-miss"]);
    }

    proptest! {
        #[test]
        fn every_value_is_a_structured_list(ttl in any::<i64>(), detail in any::<String>()) {
            for status in [
                CacheStatus::Hit { ttl, detail: Some(&detail) },
                CacheStatus::Fwd { reason: ForwardReason::Miss, fwd_status: Some(200), stored: true, collapsed: false, ttl: Some(ttl), detail: Some(&detail) },
            ] {
                let value = status.to_value();
                let list: List = Parser::new(value.as_bytes()).parse().unwrap();
                prop_assert_eq!(list.len(), 1);
            }
        }
    }
}
