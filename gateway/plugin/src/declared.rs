//! A key that a manifest declares; the gateway derives it natively, without a call or an instance.

use http::header::COOKIE;
use http::request::Parts;

use super::KeyDecision;
use super::bindings::types;
use super::error::PluginFault;
use super::manifest::{HeaderNeed, headers, patterns};
use super::names::{self, NamePattern};
use super::seen::SeenField;

/// The rules by which the gateway derives the key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyRules {
    keep: Option<Vec<NamePattern>>,
    drop: Vec<NamePattern>,
    sort: bool,
    headers: Vec<HeaderNeed>,
    cookies: Vec<NamePattern>,
}

impl KeyRules {
    pub(super) fn read(given: types::KeyRules) -> Result<Self, PluginFault> {
        Ok(Self {
            keep: given.keep.as_deref().map(patterns).transpose()?,
            drop: patterns(&given.drop)?,
            sort: given.sort,
            headers: headers(&given.headers)?,
            cookies: patterns(&given.cookies)?,
        })
    }

    /// The key: `host/path?query`, and one part for each header line and each cookie.
    pub fn derive(&self, request: &Parts, host: &str) -> KeyDecision {
        let mut text = String::with_capacity(host.len() + request.uri.path().len() + 64);
        text.push_str(host);
        text.push_str(request.uri.path());
        self.push_query(&mut text, request.uri.query().unwrap_or(""));
        let mut parts = Vec::new();
        self.header_parts(request, &mut parts);
        self.cookie_parts(request, &mut parts);
        KeyDecision::Key {
            text,
            parts,
            tags: Vec::new(),
        }
    }

    fn push_query(&self, text: &mut String, query: &str) {
        for (i, piece) in self.pieces(query).into_iter().enumerate() {
            text.push(if i == 0 { '?' } else { '&' });
            text.push_str(piece);
        }
    }

    /// The pieces of a query that are in the key, in the key's order.
    pub(super) fn pieces<'a>(&self, query: &'a str) -> Vec<&'a str> {
        let mut pieces: Vec<_> = self.kept(query).collect();
        if self.sort {
            // Stable: the order of one name's values may mean something.
            pieces.sort_by_key(|piece| piece.split('=').next());
        }
        pieces
    }

    /// The pieces of a query that are in the key.
    fn kept<'a>(&self, query: &'a str) -> impl Iterator<Item = &'a str> {
        let any = |names: &[NamePattern], name: &[u8]| names.iter().any(|n| n.matches(name));
        names::parameters(query, move |name| {
            self.keep.as_deref().is_none_or(|keep| any(keep, name)) && !any(&self.drop, name)
        })
    }

    /// Whether the key depends on this.
    pub(super) fn covers(&self, field: &SeenField) -> bool {
        let header = |name| self.headers.iter().any(|need| need.matches(name));
        match field {
            SeenField::Header(name) => header(name),
            SeenField::Cookie(name) => {
                header(&COOKIE) || self.cookies.iter().any(|n| n.matches(name))
            }
            SeenField::Parameter(piece) => self.kept(piece).next().is_some(),
        }
    }

    fn header_parts(&self, request: &Parts, parts: &mut Vec<String>) {
        for (name, value) in &request.headers {
            if self.headers.iter().any(|need| need.matches(name)) {
                parts.push(format!("{name}:{}", escape(value.as_bytes())));
            }
        }
    }

    fn cookie_parts(&self, request: &Parts, parts: &mut Vec<String>) {
        if self.cookies.is_empty() {
            return;
        }
        let lines = request.headers.get_all(COOKIE).iter();
        for (name, value) in lines.flat_map(|line| names::cookies(line.as_bytes())) {
            if self.cookies.iter().any(|wanted| wanted.matches(name)) {
                // The space distinguishes it from the part of a header, whose name has none.
                parts.push(format!("cookie {}={}", escape(name), escape(value)));
            }
        }
    }
}

/// Injective, since two values must not share an entry: `%` is escaped, too.
fn escape(bytes: &[u8]) -> String {
    const ESCAPED: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS.add(b'%');
    percent_encoding::percent_encode(bytes, ESCAPED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(keep: Option<&[&str]>, drop: &[&str]) -> KeyRules {
        let owned = |names: &[&str]| names.iter().map(|n| n.to_string()).collect::<Vec<_>>();
        let given = types::KeyRules {
            keep: keep.map(owned),
            drop: owned(drop),
            sort: true,
            headers: owned(&["Accept-Language"]),
            cookies: owned(&["cur*"]),
        };
        KeyRules::read(given).unwrap()
    }

    fn key(rules: &KeyRules, uri: &str) -> (String, Vec<String>) {
        let request = http::Request::get(uri)
            .header("accept-language", "d%e")
            .header("cookie", "a=1; cur=EUR");
        match rules.derive(&request.body(()).unwrap().into_parts().0, "shop") {
            KeyDecision::Key { text, parts, .. } => (text, parts),
            other => panic!("not a key: {other:?}"),
        }
    }

    #[test]
    fn the_query_is_filtered_and_sorted() {
        assert_eq!(
            key(&rules(None, &["utm_*"]), "/p?b=2&utm_x=1&a=3&a=1").0,
            "shop/p?a=3&a=1&b=2"
        );
        assert_eq!(key(&rules(Some(&["a"]), &[]), "/p?b=2&a=3").0, "shop/p?a=3");
        assert_eq!(key(&rules(Some(&[]), &[]), "/p?b=2").0, "shop/p");
    }

    #[test]
    fn headers_and_cookies_are_parts() {
        assert_eq!(
            key(&rules(None, &[]), "/").1,
            ["accept-language:d%25e", "cookie cur=EUR"]
        );
    }

    /// Guards against a cookie `accept-language:de=1` that is taken for the header.
    #[test]
    fn a_cookie_never_passes_for_a_header() {
        let rules = KeyRules::read(types::KeyRules {
            keep: None,
            drop: vec![],
            sort: false,
            headers: vec!["a".into()],
            cookies: vec!["*".into()],
        })
        .unwrap();
        let key = |name: &str, value: &str| {
            let request = http::Request::get("/").header(name, value);
            rules.derive(&request.body(()).unwrap().into_parts().0, "shop")
        };
        assert_ne!(key("a", "b=c"), key("cookie", "a:b=c"));
    }

    #[test]
    fn a_name_with_a_star_inside_is_refused() {
        let given = types::KeyRules {
            keep: None,
            drop: vec!["a*b".into()],
            sort: false,
            headers: vec![],
            cookies: vec![],
        };
        assert!(KeyRules::read(given).is_err_and(|e| e.to_string().contains("a*b")));
    }
}
