//! The cookies of a request, read in one way wherever the gateway asks for one (RFC 6265 §4.2.1).
//!
//! White space around a name does not count, as servers read it: otherwise a request could show a
//! cookie to the origin, or to a service that decides about it, that is not there for the gateway.

use http::header::{COOKIE, ValueIter};
use http::{HeaderMap, HeaderValue};

/// The pieces of all `Cookie` lines, as `name=value`, without the white space around them.
pub fn pairs(request: &HeaderMap) -> CookiePairs<'_> {
    CookiePairs {
        lines: request.get_all(COOKIE).into_iter(),
        rest: &[],
    }
}

/// The name in a piece of a `Cookie` line, and its value as it is written. No value: there is no
/// `=`, and the piece is all name (RFC 6265bis §5.6).
pub fn name_and_value(pair: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(b'=', pair) {
        Some(equals) => (pair[..equals].trim_ascii_end(), Some(&pair[equals + 1..])),
        None => (pair.trim_ascii_end(), None),
    }
}

/// The values of all cookies with this name, as they are written. All of them count: one server
/// takes the first, another one the last.
pub fn values<'a>(request: &'a HeaderMap, name: &[u8]) -> impl Iterator<Item = &'a [u8]> {
    pairs(request).filter_map(move |pair| match name_and_value(pair) {
        (own, value) if own == name => value,
        _ => None,
    })
}

/// See [`pairs`].
pub struct CookiePairs<'a> {
    lines: ValueIter<'a, HeaderValue>,
    /// What is left of the line under way.
    rest: &'a [u8],
}

impl<'a> Iterator for CookiePairs<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            while !self.rest.is_empty() {
                let end = memchr::memchr(b';', self.rest).unwrap_or(self.rest.len());
                let pair = self.rest[..end].trim_ascii();
                self.rest = self.rest.get(end + 1..).unwrap_or_default();
                if !pair.is_empty() {
                    return Some(pair);
                }
            }
            self.rest = self.lines.next()?.as_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_found_however_white_space_stands_around_it() {
        for (line, found) in [
            ("session=1", &["1"][..]),
            ("a=b;session=1", &["1"]),
            ("session =1", &["1"]),
            ("a=b;\tsession\t =1 ; c=d", &["1"]),
            ("session= 1", &[" 1"]),
            ("session=1; session=2", &["1", "2"]),
            ("session=", &[""]),
            ("session", &[]),
            ("sessions=1; xsession=2; Session=3", &[]),
            (";;", &[]),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(COOKIE, HeaderValue::from_static(line));
            let values: Vec<&[u8]> = values(&headers, b"session").collect();
            let expected: Vec<&[u8]> = found.iter().map(|value| value.as_bytes()).collect();
            assert_eq!(values, expected, "{line:?}");
        }
    }
}
