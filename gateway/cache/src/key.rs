//! Cache keys: what two requests must have in common to share an entry.
//!
//! A key is a sequence of tagged, length-prefixed fields, so that `a|b` + `c` never equals `a` +
//! `b|c`. It has two parts: the *identity* (the URL, or the text that a key plugin returned) and
//! the *parts* beside it (route, headers, cookies, plugin parts, later the variant). A purge by URL
//! uses the identity and so covers every combination of the parts.
//!
//! A key is built in a [`KeyBuf`] on the stack, so a hit allocates nothing for it.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::sync::Arc;

use http::HeaderMap;
use sha2::{Digest, Sha256};
use smallvec::SmallVec;

use crate::http::cookies;
use crate::pattern::Pattern;

/// The whole key, shared between the tier, the flights and the entries.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryKey(Arc<[u8]>);

/// A key under construction, or for one look-up.
#[derive(Clone)]
pub struct KeyBuf {
    /// The first `length` octets, as long as all of them fit; otherwise they are in `spilled`.
    inline: [u8; 256],
    length: usize,
    spilled: Vec<u8>,
    identity_end: usize,
}

/// What a field of a key holds. The discriminant is the byte that marks it in the key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum CacheKeyField {
    Scheme = b's',
    Host = b'h',
    Path = b'p',
    Query = b'q',
    Text = b't',
    Route = b'r',
    Header = b'H',
    Cookie = b'C',
    Part = b'P',
    Variant = b'V',
    /// The key is that of stored parts of the content, not of the whole.
    Octets = b'O',
}

/// A number that stands for a tag, a route or a URL. It is the same on every node and after a
/// restart, because purges use it for what is stored. A collision makes a purge reach too much,
/// never too little.
pub type PurgeHash = u64;

/// The first 64 bits of the SHA-256 of `bytes`. Loads and purges compute it; a hit never does.
pub fn hash64(bytes: &[u8]) -> PurgeHash {
    first_64_bits(&Sha256::digest(bytes))
}

/// The first 64 bits of a longer hash.
pub fn first_64_bits(digest: &[u8]) -> PurgeHash {
    u64::from_be_bytes(std::array::from_fn(|i| digest[i]))
}

impl Default for KeyBuf {
    fn default() -> Self {
        Self {
            inline: [0; 256],
            length: 0,
            spilled: Vec::new(),
            identity_end: 0,
        }
    }
}

impl KeyBuf {
    /// Appends one field.
    pub fn push(&mut self, field: CacheKeyField, value: &[u8]) {
        let [a, b, c, d] = (value.len() as u32).to_le_bytes();
        self.append(&[field as u8, a, b, c, d], value);
    }

    fn append(&mut self, head: &[u8], value: &[u8]) {
        let end = self.length + head.len() + value.len();
        match self.inline.get_mut(self.length..end) {
            Some(room) => {
                room[..head.len()].copy_from_slice(head);
                room[head.len()..].copy_from_slice(value);
            }
            None => self.spill(head, value),
        }
        self.length = end;
    }

    #[cold]
    fn spill(&mut self, head: &[u8], value: &[u8]) {
        if self.spilled.is_empty() {
            self.spilled.extend_from_slice(&self.inline[..self.length]);
        }
        self.spilled.extend_from_slice(head);
        self.spilled.extend_from_slice(value);
    }

    /// Ends the identity: the fields that follow are parts.
    pub fn end_identity(&mut self) {
        self.identity_end = self.length;
    }

    pub fn as_bytes(&self) -> &[u8] {
        self.inline.get(..self.length).unwrap_or(&self.spilled)
    }

    /// Whether the identity is the text of a key plugin.
    pub fn is_text(&self) -> bool {
        fields(self.as_bytes()).any(|(field, _)| field == CacheKeyField::Text as u8)
    }

    /// The hash of the identity alone, which purges by URL use.
    pub fn identity(&self) -> PurgeHash {
        hash64(&self.as_bytes()[..self.identity_end])
    }

    pub fn to_key(&self) -> EntryKey {
        EntryKey(Arc::from(self.as_bytes()))
    }

    /// The key under which parts of the content are stored.
    pub fn of_parts(&self) -> Self {
        let mut parts = self.clone();
        parts.push(CacheKeyField::Octets, b"");
        parts
    }

    /// The key of one variant of the response (RFC 9111 §4.1): the field names and the request's
    /// values for them, in an unambiguous form.
    pub fn variant(&self, fields: &[http::HeaderName], request: &HeaderMap) -> Self {
        let mut values = Vec::new();
        for name in fields {
            values.extend_from_slice(name.as_str().as_bytes());
            values.push(0);
        }
        crate::http::vary::selecting_values(fields, request, &mut values);
        let mut variant = self.clone();
        variant.push(CacheKeyField::Variant, &values);
        variant
    }
}

impl EntryKey {
    /// Makes a key from its bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The key of a load that requests only the octets that `range` names.
    pub fn of_range(&self, range: &[u8], if_range: &[u8]) -> Self {
        let mut key = KeyBuf::default();
        key.append(&[], &self.0);
        key.push(CacheKeyField::Octets, range);
        key.push(CacheKeyField::Octets, if_range);
        key.to_key()
    }

    /// The bytes of the key, shared without a copy.
    pub fn shared(&self) -> Arc<[u8]> {
        Arc::clone(&self.0)
    }

    /// The key's short name for people, logs and the `key` selector: 16 hexadecimal digits, the
    /// same on every node.
    pub fn id(&self) -> KeyId {
        KeyId::of(&self.0)
    }
}

/// The [`hash64`] of a whole key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct KeyId(pub u64);

impl KeyId {
    /// The short name of the key with these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(hash64(bytes))
    }

    /// Reads what [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        // `from_str_radix` would accept a sign as well.
        let digits = text.len() == 16 && text.bytes().all(|octet| octet.is_ascii_hexdigit());
        digits.then(|| u64::from_str_radix(text, 16).ok().map(Self))?
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Borrow<[u8]> for EntryKey {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for EntryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        describe(&self.0).fmt(f)
    }
}

/// The key's fields in readable form, for `explain`: `host=shop.example path=/a?…`.
pub fn describe(key: &[u8]) -> String {
    let mut out = String::new();
    for (field, value) in fields(key) {
        let name = match field {
            b's' => "scheme",
            b'h' => "host",
            b'p' => "path",
            b'q' => "query",
            b't' => "text",
            b'r' => "route",
            b'H' => "header",
            b'C' => "cookie",
            b'P' => "part",
            b'O' => "octets",
            _ => "variant",
        };
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(name);
        out.push('=');
        out.push_str(&value.escape_ascii().to_string());
    }
    out
}

fn fields(key: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = key;
    std::iter::from_fn(move || {
        let (&field, tail) = rest.split_first()?;
        let (length, tail) = tail.split_first_chunk::<4>()?;
        let (value, tail) = tail.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        rest = tail;
        Some((field, value))
    })
}

/// What the key of a stored response says of the request that it was loaded for.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct StoredKeyFields<'a> {
    /// The key without its variant and without the octets of parts.
    pub primary: &'a [u8],
    pub scheme: &'a str,
    pub host: &'a str,
    pub path: &'a str,
    /// As far as the key contains it.
    pub query: Option<&'a str>,
    /// What a key plugin put in the place of path and query.
    pub text: Option<&'a str>,
    pub route: &'a str,
    pub headers: Vec<(&'a [u8], &'a [u8])>,
    pub cookies: Vec<(&'a [u8], &'a [u8])>,
}

impl<'a> StoredKeyFields<'a> {
    /// Reads the bytes of a whole key. None: they are none.
    pub fn read(key: &'a [u8]) -> Option<Self> {
        let mut read = Self {
            primary: key,
            ..Self::default()
        };
        let mut length = 0;
        // Names and values of headers and cookies take turns.
        let mut name = None;
        for (field, value) in fields(key) {
            let text = || std::str::from_utf8(value).ok();
            match field {
                b's' => read.scheme = text()?,
                b'h' => read.host = text()?,
                b'p' => read.path = text()?,
                b'q' => read.query = Some(text()?),
                b't' => read.text = Some(text()?),
                b'r' => read.route = text()?,
                b'H' | b'C' => match name.take() {
                    None => name = Some(value),
                    Some(name) if field == b'H' => read.headers.push((name, value)),
                    Some(name) => read.cookies.push((name, value)),
                },
                b'V' | b'O' => {
                    read.primary = &key[..length];
                    break;
                }
                _ => {}
            }
            length += 5 + value.len();
        }
        Some(read)
    }
}

/// A route's `key` rules, in compiled form.
#[derive(Clone, Debug, Default)]
pub struct CacheKeyTemplate {
    include: Option<Box<[Pattern]>>,
    drop: Box<[Pattern]>,
    sort: bool,
    headers: Box<[http::HeaderName]>,
    cookies: Box<[Box<str>]>,
}

/// The parts of a request that a key is made of.
#[derive(Clone, Copy)]
pub struct CacheKeyInput<'a> {
    pub scheme: &'a str,
    /// In lower case, with the port unless it is the scheme's default port.
    pub host: &'a str,
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub headers: &'a HeaderMap,
    pub route: &'a str,
}

impl CacheKeyTemplate {
    /// Compiles the rules. `config` has already checked the names; an invalid one is left out.
    pub fn new(config: &crate::config::CacheKeyConfig) -> Self {
        let patterns = |list: &[String]| list.iter().map(|p| Pattern::new(p)).collect();
        Self {
            include: config.query.include.as_deref().map(patterns),
            drop: patterns(&config.query.drop),
            sort: config.query.sort,
            headers: config
                .headers
                .iter()
                .filter_map(|name| name.parse().ok())
                .collect(),
            cookies: config
                .cookies
                .iter()
                .map(|name| name.as_str().into())
                .collect(),
        }
    }

    /// The same rules with these headers added.
    pub fn with_headers(mut self, more: &[http::HeaderName]) -> Self {
        let new = more.iter().filter(|name| !self.headers.contains(name));
        self.headers = self.headers.iter().chain(new).cloned().collect();
        self
    }

    /// Whether `name` is a header that the key covers.
    pub fn covers(&self, name: &http::HeaderName) -> bool {
        self.headers.contains(name)
    }

    /// Whether the key covers this cookie.
    pub fn covers_cookie(&self, name: &[u8]) -> bool {
        let named = self.cookies.iter().any(|known| known.as_bytes() == name);
        named || self.covers(&http::header::COOKIE)
    }

    /// The cookies that the key contains by their names.
    pub fn cookies(&self) -> &[Box<str>] {
        &self.cookies
    }

    /// Whether the key covers a header or a cookie that `other` does not cover.
    pub fn covers_more_than(&self, other: &Self) -> bool {
        let mut cookies = self.cookies.iter();
        self.headers.iter().any(|name| !other.covers(name))
            || cookies.any(|name| !other.covers_cookie(name.as_bytes()))
    }

    /// The native key of a request, made without a key plugin.
    pub fn build(&self, subject: &CacheKeyInput<'_>) -> KeyBuf {
        let mut key = KeyBuf::default();
        key.push(CacheKeyField::Scheme, subject.scheme.as_bytes());
        key.push(CacheKeyField::Host, subject.host.as_bytes());
        key.push(CacheKeyField::Path, subject.path.as_bytes());
        if let Some(query) = subject.query {
            self.push_query(&mut key, query);
        }
        self.finish(&mut key, subject);
        key
    }

    /// The key of a request whose identity is `text`, which a key plugin returned; the host is part
    /// of the key as well.
    pub fn build_text(&self, text: &str, parts: &[String], subject: &CacheKeyInput<'_>) -> KeyBuf {
        let mut key = KeyBuf::default();
        key.push(CacheKeyField::Scheme, subject.scheme.as_bytes());
        key.push(CacheKeyField::Host, subject.host.as_bytes());
        key.push(CacheKeyField::Text, text.as_bytes());
        self.finish(&mut key, subject);
        for part in parts {
            key.push(CacheKeyField::Part, part.as_bytes());
        }
        key
    }

    fn finish(&self, key: &mut KeyBuf, subject: &CacheKeyInput<'_>) {
        key.end_identity();
        // Two routes may differ only by header or method and lead to different origins.
        key.push(CacheKeyField::Route, subject.route.as_bytes());
        for name in &self.headers {
            for value in subject.headers.get_all(name) {
                key.push(CacheKeyField::Header, name.as_str().as_bytes());
                key.push(CacheKeyField::Header, value.as_bytes());
            }
        }
        for name in &self.cookies {
            for value in cookies::values(subject.headers, name.as_bytes()) {
                key.push(CacheKeyField::Cookie, name.as_bytes());
                key.push(CacheKeyField::Cookie, value);
            }
        }
    }

    fn push_query(&self, key: &mut KeyBuf, query: &str) {
        if let Some(kept) = self.query(query) {
            key.push(CacheKeyField::Query, kept.as_bytes());
        }
    }

    /// The query as the native key contains it. None: the key contains no query.
    pub fn query<'a>(&self, query: &'a str) -> Option<Cow<'a, str>> {
        if self.include.is_none() && self.drop.is_empty() && !self.sort {
            return Some(Cow::Borrowed(query));
        }
        let mut kept: SmallVec<[&str; 16]> =
            query.split('&').filter(|pair| self.keeps(pair)).collect();
        if self.sort {
            kept.sort_unstable();
        }
        (!kept.is_empty()).then(|| Cow::Owned(kept.join("&")))
    }

    /// Whether the native key contains this parameter of a query.
    pub fn keeps(&self, pair: &str) -> bool {
        // Some origins also split parameters at `;` and would find one here that we do not see.
        if pair.contains(';') {
            return true;
        }
        let name = pair.split('=').next().unwrap_or(pair);
        let name = percent_encoding::percent_decode_str(name).decode_utf8_lossy();
        let included = self
            .include
            .as_ref()
            .is_none_or(|list| list.iter().any(|p| p.matches(&name)));
        included && !self.drop.iter().any(|p| p.matches(&name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use proptest::prelude::*;

    #[test]
    fn a_stored_key_says_what_it_was_made_of() {
        let config: config::CacheKeyConfig =
            serde_yaml::from_str("{headers: [accept-language], cookies: [session]}").unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("accept-language", "de".parse().unwrap());
        headers.insert("cookie", "a=b; session=s1".parse().unwrap());
        let subject = subject("/a", Some("b=c"), &headers);
        let key = CacheKeyTemplate::new(&config).build(&subject);
        let stored = key.variant(&[http::header::ACCEPT], &headers).to_key();
        let read = StoredKeyFields::read(stored.as_bytes()).unwrap();
        assert_eq!(read.primary, key.as_bytes());
        assert_eq!((read.scheme, read.host), (subject.scheme, subject.host));
        assert_eq!((read.path, read.query), ("/a", Some("b=c")));
        assert_eq!(read.route, subject.route);
        assert_eq!(read.headers, [(&b"accept-language"[..], &b"de"[..])]);
        assert_eq!(read.cookies, [(&b"session"[..], &b"s1"[..])]);
    }

    fn subject<'a>(
        path: &'a str,
        query: Option<&'a str>,
        headers: &'a HeaderMap,
    ) -> CacheKeyInput<'a> {
        CacheKeyInput {
            scheme: "http",
            host: "a.example",
            path,
            query,
            headers,
            route: "r",
        }
    }

    fn build(template: &CacheKeyTemplate, path: &str, query: Option<&str>) -> EntryKey {
        template
            .build(&subject(path, query, &HeaderMap::new()))
            .to_key()
    }

    #[test]
    fn the_default_key_tells_apart_what_http_tells_apart() {
        let t = CacheKeyTemplate::default();
        assert_ne!(
            build(&t, "/a", None),
            build(&t, "/a", Some("")),
            "no query and an empty one"
        );
        assert_ne!(
            build(&t, "/a", Some("b")),
            build(&t, "/a?b", None),
            "a query and a path that holds a question mark"
        );
        assert_ne!(
            build(&t, "/a", Some("x=1&y=2")),
            build(&t, "/a", Some("y=2&x=1"))
        );
    }

    #[test]
    fn rules_drop_include_and_sort_parameters() {
        let rules = |query: config::KeyQueryConfig| {
            CacheKeyTemplate::new(&config::CacheKeyConfig {
                query,
                ..Default::default()
            })
        };
        let drop = rules(config::KeyQueryConfig {
            drop: vec!["utm_*".into()],
            sort: true,
            ..Default::default()
        });
        assert_eq!(
            build(&drop, "/a", Some("b=2&utm_source=x&a=1")),
            build(&drop, "/a", Some("a=1&b=2"))
        );
        assert_eq!(
            build(&drop, "/a", Some("utm%5Fsource=x")),
            build(&drop, "/a", None),
            "an encoded name is the same name"
        );
        let include = rules(config::KeyQueryConfig {
            include: Some(vec!["id".into()]),
            ..Default::default()
        });
        assert_eq!(
            build(&include, "/a", Some("x=1&id=7")),
            build(&include, "/a", Some("id=7"))
        );
    }

    #[test]
    fn headers_and_cookies_are_parts_and_leave_the_identity_alone() {
        let t = CacheKeyTemplate::new(&config::CacheKeyConfig {
            headers: vec!["x-plan".into()],
            cookies: vec!["ab".into()],
            ..Default::default()
        });
        let mut headers = HeaderMap::new();
        headers.insert("x-plan", "gold".parse().unwrap());
        headers.insert("cookie", "xab=9; ab=1".parse().unwrap());
        let with = t.build(&subject("/a", None, &headers));
        let without = t.build(&subject("/a", None, &HeaderMap::new()).clone());
        assert_ne!(with.to_key(), without.to_key());
        assert_eq!(with.identity(), without.identity());
        assert_eq!(cookies::values(&headers, b"ab").collect::<Vec<_>>(), [b"1"]);
    }

    #[test]
    fn a_key_beyond_its_place_on_the_stack_is_the_same_key() {
        for long in [240, 245, 246, 247, 256, 257, 1000] {
            let (path, query) = ("/".repeat(long), "x".repeat(long));
            let key = build(&CacheKeyTemplate::default(), &path, Some(&query));
            let whole = format!("scheme=http host=a.example path={path} query={query} route=r");
            assert_eq!(describe(key.as_bytes()), whole);
        }
    }

    /// Guards against a response to `ab=evil` that is stored for everybody without that cookie.
    #[test]
    fn a_cookie_that_some_origin_would_find_is_in_the_key() {
        let t = CacheKeyTemplate::new(&config::CacheKeyConfig {
            cookies: vec!["ab".into()],
            ..Default::default()
        });
        let key = |line: &'static [u8]| {
            let mut headers = HeaderMap::new();
            headers.insert("cookie", http::HeaderValue::from_bytes(line).unwrap());
            t.build(&subject("/a", None, &headers)).to_key()
        };
        let plain: &[u8] = b"x=1";
        for line in [&b"ab=evil; x=\xff"[..], b"ab =evil", b"ab=\xff"] {
            assert_ne!(key(line), key(plain), "{}", line.escape_ascii());
        }
        assert_ne!(key(b"ab=1; ab=evil"), key(b"ab=1"));
        assert_ne!(key(b"ab=evil; ab=1"), key(b"ab=1"));
    }

    /// Guards against `utm_x=1;id=evil` being dropped as a whole where the origin sees an `id`.
    #[test]
    fn a_parameter_with_a_semicolon_always_counts() {
        for query in [
            config::KeyQueryConfig {
                drop: vec!["utm_*".into()],
                ..Default::default()
            },
            config::KeyQueryConfig {
                include: Some(vec!["id".into()]),
                ..Default::default()
            },
        ] {
            let t = CacheKeyTemplate::new(&config::CacheKeyConfig {
                query,
                ..Default::default()
            });
            assert_ne!(
                build(&t, "/a", Some("utm_x=1;id=evil")),
                build(&t, "/a", None)
            );
        }
    }

    #[test]
    fn a_key_reads_as_its_fields() {
        let key = build(&CacheKeyTemplate::default(), "/a", Some("x=1"));
        assert_eq!(
            describe(key.as_bytes()),
            "scheme=http host=a.example path=/a query=x=1 route=r"
        );
        assert_eq!(KeyId::parse(&key.id().to_string()), Some(key.id()));
        for other in ["+123456789abcdef", "0123456789abcde", "0123456789abcdeg"] {
            assert_eq!(KeyId::parse(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn different_field_lists_make_different_keys(a in prop::collection::vec("[ab|]{0,3}", 0..4), b in prop::collection::vec("[ab|]{0,3}", 0..4)) {
            let make = |list: &[String]| {
                let mut key = KeyBuf::default();
                list.iter().for_each(|text| key.push(CacheKeyField::Part, text.as_bytes()));
                key.to_key()
            };
            prop_assert_eq!(make(&a) == make(&b), a == b);
        }
    }
}
