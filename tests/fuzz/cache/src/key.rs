//! Cache keys: two requests share one only if all that the rules count is the same in both.
//!
//! Input: rules (`include NAME`, `drop NAME`, `sort`, `header NAME`, `cookie NAME`), then two
//! requests. What counts is computed here anew, as an origin might read it.

use http::HeaderName;
use http::header::{COOKIE, HOST};
use http::request::Parts;
use lamina_base::pattern::Pattern;
use lamina_cache::config;
use lamina_cache::key::{CacheKeyInput, CacheKeyTemplate, KeyBuf, KeyId, describe};

use fuzz_harness::input;

pub fn check(data: &[u8]) {
    let [rules, one, other] = input::blocks(data);
    let rules = read(rules);
    let template = CacheKeyTemplate::new(&rules);
    let (Some(one), Some(other)) = (input::request(one), input::request(other)) else {
        return;
    };
    let (a, b) = (build(&template, &one), build(&template, &other));
    reads_back(&a, &one);
    let same = counted(&rules, &one) == counted(&rules, &other);
    assert_eq!(
        a.as_bytes() == b.as_bytes(),
        same,
        "{} {}",
        describe(a.as_bytes()),
        describe(b.as_bytes())
    );
    if a.identity() == b.identity() {
        assert_eq!(url(&rules, &one), url(&rules, &other));
    }
    let text = |parts: &Parts| {
        let words = [parts.uri.path(), parts.uri.query().unwrap_or("")].map(str::to_owned);
        template.build_text(&words[0], &words[1..], &subject(parts))
    };
    if text(&one).as_bytes() == text(&other).as_bytes() {
        assert_eq!(
            one.uri.path(),
            other.uri.path(),
            "a plugin's text and parts stay apart"
        );
    }
    variants(&a, &one, &other);
}

fn read(block: &[u8]) -> config::CacheKeyConfig {
    let mut key = config::CacheKeyConfig::default();
    for line in input::texts(block).take(8) {
        let (word, name) = line.split_once(' ').unwrap_or((line, ""));
        let name = name.to_owned();
        match word {
            "include" => key.query.include.get_or_insert_default().push(name),
            "drop" => key.query.drop.push(name),
            "sort" => key.query.sort = true,
            "header" if name.parse::<HeaderName>().is_ok() => key.headers.push(name),
            "cookie" => key.cookies.push(name),
            _ => {}
        }
    }
    key
}

fn subject(parts: &Parts) -> CacheKeyInput<'_> {
    CacheKeyInput {
        scheme: parts.uri.scheme_str().unwrap_or("http"),
        host: host(parts),
        path: parts.uri.path(),
        query: parts.uri.query(),
        headers: &parts.headers,
        route: parts.method.as_str(),
    }
}

fn host(parts: &Parts) -> &str {
    parts
        .headers
        .get(HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or("")
}

fn build(template: &CacheKeyTemplate, parts: &Parts) -> KeyBuf {
    template.build(&subject(parts))
}

/// The form of a key: tag, length, value, again and again; the URL comes first.
fn reads_back(key: &KeyBuf, parts: &Parts) {
    let mut rest = key.as_bytes();
    let mut values = Vec::new();
    let mut again = KeyBuf::default();
    while let Some((&tag, tail)) = rest.split_first() {
        let (length, tail) = tail.split_first_chunk().expect("a length");
        let (value, tail) = tail.split_at(u32::from_le_bytes(*length) as usize);
        values.push((tag, value));
        rest = tail;
    }
    let subject = subject(parts);
    let url = [
        (b's', subject.scheme),
        (b'h', subject.host),
        (b'p', subject.path),
    ];
    assert_eq!(values[..3], url.map(|(tag, text)| (tag, text.as_bytes())));
    again.push(lamina_cache::key::CacheKeyField::Scheme, values[0].1);
    assert!(key.as_bytes().starts_with(again.as_bytes()));
    let id = key.to_key().id();
    assert_eq!(KeyId::parse(&id.to_string()), Some(id));
}

/// Scheme, host, path, and the part of the query that counts.
fn url(rules: &config::CacheKeyConfig, parts: &Parts) -> (String, Option<Vec<String>>) {
    let subject = subject(parts);
    let place = [subject.scheme, subject.host, subject.path].join("\n");
    let plain = rules.query.include.is_none() && rules.query.drop.is_empty() && !rules.query.sort;
    let Some(query) = subject.query.filter(|_| !plain) else {
        return (place, subject.query.map(|query| vec![query.to_owned()]));
    };
    let mut kept: Vec<_> = query
        .split('&')
        .filter(|piece| counts(rules, piece))
        .map(str::to_owned)
        .collect();
    if rules.query.sort {
        kept.sort();
    }
    (place, (!kept.is_empty()).then_some(kept))
}

/// Whether the rules count a parameter, or some origin might find a counted one in it: many split at `;` too.
fn counts(rules: &config::CacheKeyConfig, piece: &str) -> bool {
    let any = |list: &[String], name: &str| {
        list.iter()
            .any(|pattern| Pattern::new(pattern).matches(name))
    };
    let name = piece.split('=').next().unwrap_or_default();
    let name = percent_encoding::percent_decode_str(name).decode_utf8_lossy();
    let included = rules
        .query
        .include
        .as_ref()
        .is_none_or(|list| any(list, &name));
    piece.contains(';') || included && !any(&rules.query.drop, &name)
}

type Counted = (
    (String, Option<Vec<String>>),
    String,
    Vec<(String, Vec<Vec<u8>>)>,
    Vec<(String, Vec<Vec<u8>>)>,
);

fn counted(rules: &config::CacheKeyConfig, parts: &Parts) -> Counted {
    let headers = rules.headers.iter().map(|name| {
        let values = parts
            .headers
            .get_all(name.as_str())
            .iter()
            .map(|value| value.as_bytes().to_vec());
        (name.clone(), values.collect())
    });
    let cookies = rules
        .cookies
        .iter()
        .map(|name| (name.clone(), cookies(parts, name)));
    (
        url(rules, parts),
        parts.method.to_string(),
        headers.collect(),
        cookies.collect(),
    )
}

/// Every value that an origin may take for the cookie `name`.
fn cookies(parts: &Parts, name: &str) -> Vec<Vec<u8>> {
    let lines = parts.headers.get_all(COOKIE).iter();
    let pairs = lines.flat_map(|line| line.as_bytes().split(|&octet| octet == b';'));
    pairs
        .filter_map(|pair| {
            let at = pair.iter().position(|&octet| octet == b'=')?;
            let (key, value) = (pair[..at].trim_ascii(), pair[at + 1..].trim_ascii_end());
            (key == name.as_bytes()).then(|| value.to_vec())
        })
        .collect()
}

/// A variant's key never equals the key without it, nor that of another variant.
fn variants(key: &KeyBuf, one: &Parts, other: &Parts) {
    let names: Vec<_> = one.headers.keys().take(2).cloned().collect();
    let [a, b] = [one, other].map(|parts| key.variant(&names, &parts.headers));
    assert_ne!(a.as_bytes(), key.as_bytes());
    assert_eq!(a.identity(), key.identity());
    let missing = names.iter().any(|name| !other.headers.contains_key(name));
    assert!(
        !missing || a.as_bytes() != b.as_bytes(),
        "absent is not equal to there"
    );
}
