//! What a plugin sees of the headers of a client's request, besides the inputs of the key hook.

use http::header::{COOKIE, HeaderMap, HeaderName, HeaderValue};

use super::bindings::types;
use super::error::PluginFault;
use super::manifest::{HeaderNeed, headers, patterns};
use super::names::{self, NamePattern};
use super::seen::SeenField;

/// The headers and cookies that it sees, by name.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct DeclaredReads {
    pub(super) headers: Vec<HeaderNeed>,
    pub(super) cookies: Vec<NamePattern>,
}

impl DeclaredReads {
    pub(super) fn read(given: &types::Reads) -> Result<Self, PluginFault> {
        Ok(Self {
            headers: headers(&given.headers)?,
            cookies: patterns(&given.cookies)?,
        })
    }

    /// Whether nothing is read.
    pub(super) fn is_empty(&self) -> bool {
        self.headers.is_empty() && self.cookies.is_empty()
    }

    /// Whether header lines with this name are read.
    pub fn reads_header(&self, name: &HeaderName) -> bool {
        self.headers.iter().any(|need| need.matches(name))
    }

    /// Whether this cookie is read, apart from reading the whole `Cookie` header.
    pub fn reads_cookie(&self, name: &[u8]) -> bool {
        self.cookies.iter().any(|wanted| wanted.matches(name))
    }

    /// What is read, as full names; cookies that are read by a prefix are represented by `Cookie`.
    pub(super) fn named(&self) -> impl Iterator<Item = SeenField> {
        let headers = self.headers.iter().filter_map(|need| match need {
            HeaderNeed::Exact(name) => Some(SeenField::Header(name.clone())),
            HeaderNeed::Prefix(_) => None,
        });
        let cookies = self.cookies.iter().map(|wanted| match wanted {
            NamePattern::Exact(name) => SeenField::Cookie(name.as_bytes().into()),
            NamePattern::Prefix(_) => SeenField::Header(COOKIE),
        });
        headers.chain(cookies)
    }

    /// The headers that the guest gets.
    pub(super) fn of(&self, headers: &HeaderMap) -> Vec<types::Header> {
        let lines = headers.iter().filter(|(name, _)| self.reads_header(name));
        let mut seen: Vec<_> = lines.map(types::Header::from).collect();
        if !self.cookies.is_empty() && !self.reads_header(&COOKIE) {
            seen.extend(self.cookie_line(headers).map(|value| types::Header {
                name: COOKIE.as_str().to_owned(),
                value,
            }));
        }
        seen
    }

    /// The headers that the guest does not get, and so can't return.
    pub(super) fn rest(&self, mut headers: HeaderMap) -> HeaderMap {
        let seen: Vec<HeaderName> = headers
            .keys()
            .filter(|name| self.reads_header(name))
            .cloned()
            .collect();
        for name in seen {
            headers.remove(name);
        }
        headers
    }

    fn cookie_line(&self, headers: &HeaderMap) -> Option<Vec<u8>> {
        let lines = headers.get_all(COOKIE).iter();
        let pairs = lines.flat_map(|line| names::cookies(line.as_bytes()));
        let wanted = pairs.filter(|(name, _)| self.reads_cookie(name));
        let pairs: Vec<Vec<u8>> = wanted
            .map(|(name, value)| [name, b"=", value].concat())
            .collect();
        (!pairs.is_empty()).then(|| pairs.join(&b"; "[..]))
    }
}

impl From<(&HeaderName, &HeaderValue)> for types::Header {
    fn from((name, value): (&HeaderName, &HeaderValue)) -> Self {
        Self {
            name: name.as_str().to_owned(),
            value: value.as_bytes().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads(headers: &[&str], cookies: &[&str]) -> DeclaredReads {
        let texts = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        let given = types::Reads {
            headers: texts(headers),
            cookies: texts(cookies),
        };
        DeclaredReads::read(&given).unwrap()
    }

    fn request() -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("accept", "text/html"),
            ("cookie", "a=1; b=2"),
            ("x-one", "1"),
            ("x-two", "2"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        headers
    }

    fn seen(reads: &DeclaredReads) -> Vec<String> {
        let line =
            |h: types::Header| format!("{}: {}", h.name, String::from_utf8(h.value).unwrap());
        reads.of(&request()).into_iter().map(line).collect()
    }

    #[test]
    fn a_guest_sees_what_it_reads_and_the_rest_goes_along() {
        let some = reads(&["x-*"], &["b"]);
        assert_eq!(seen(&some), ["x-one: 1", "x-two: 2", "cookie: b=2"]);
        let rest = some.rest(request());
        let names: Vec<_> = rest.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["accept", "cookie"]);
    }

    #[test]
    fn nothing_is_read_unless_it_is_named_and_a_star_is_all() {
        assert_eq!(seen(&reads(&[], &[])), [""; 0]);
        assert_eq!(seen(&reads(&["*"], &["b"])).len(), 4);
        assert!(reads(&["*"], &[]).rest(request()).is_empty());
    }
}
