//! `Vary` and the selecting values: equal bytes if and only if the requests match.
//!
//! Input: lines of `Vary`, then the fields of two requests.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use lamina_http::vary::{Vary, selecting_values};

use fuzz_harness::input;

pub fn check(data: &[u8]) {
    let [vary, one, other] = input::blocks(data);
    let vary = input::values(&header::VARY, vary);
    let (one, other) = (input::fields(one), input::fields(other));
    let Vary::Fields(fields) = parse(&vary) else {
        return;
    };
    assert!(fields.is_sorted_by(|a, b| a.as_str() < b.as_str()));
    let whole = select(&fields, &one) == select(&fields, &other);
    let each = |name: &HeaderName| {
        let name = std::slice::from_ref(name);
        select(name, &one) == select(name, &other)
    };
    assert_eq!(
        whole,
        fields.iter().all(each),
        "values never run into each other"
    );
    for name in &fields {
        same_meaning(name, &one, &other);
        one_line_is_many(name, &one);
        space_is_nothing(name, &one);
    }
}

fn parse(vary: &HeaderMap) -> Vary {
    let parsed = Vary::parse(vary);
    let starred = input::joined(vary, &line(&header::VARY, b"*"));
    assert_eq!(
        Vary::parse(&starred),
        Vary::Any,
        "a star anywhere is enough"
    );
    if let Vary::Fields(fields) = &parsed {
        assert!(!fields.is_empty());
        let again: HeaderMap = fields
            .iter()
            .map(|name| (header::VARY, name.clone().into()))
            .collect();
        assert_eq!(Vary::parse(&again), parsed);
    }
    parsed
}

/// Nothing of a value is lost but white space and commas, and case where the grammar says so.
fn same_meaning(name: &HeaderName, one: &HeaderMap, other: &HeaderMap) {
    let fields = std::slice::from_ref(name);
    if select(fields, one) == select(fields, other) {
        assert_eq!(one.contains_key(name), other.contains_key(name));
        assert_eq!(essence(name, one), essence(name, other));
    }
}

fn essence(name: &HeaderName, headers: &HeaderMap) -> Vec<u8> {
    let known = [
        header::ACCEPT_LANGUAGE,
        header::ACCEPT_ENCODING,
        header::ACCEPT_CHARSET,
    ];
    let octets = headers
        .get_all(name)
        .into_iter()
        .flat_map(|value| value.as_bytes());
    let kept = octets.copied().filter(|octet| !b" \t,".contains(octet));
    match known.contains(name) {
        true => kept.map(|octet| octet.to_ascii_lowercase()).collect(),
        false => kept.collect(),
    }
}

/// RFC 9110 §5.3: lines of one field are one list, where no quote is left open between them.
fn one_line_is_many(name: &HeaderName, headers: &HeaderMap) {
    let lines: Vec<_> = headers
        .get_all(name)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if lines.is_empty() || lines.iter().any(|line| line.contains(&b'"')) {
        return;
    }
    let joined = line(name, &lines.join(&b" ,\t "[..]));
    let fields = std::slice::from_ref(name);
    assert_eq!(select(fields, &joined), select(fields, headers));
}

fn space_is_nothing(name: &HeaderName, headers: &HeaderMap) {
    let fields = std::slice::from_ref(name);
    let padded: HeaderMap = headers
        .get_all(name)
        .iter()
        .filter_map(|value| {
            HeaderValue::from_bytes(&[b" \t", value.as_bytes(), b" "].concat()).ok()
        })
        .map(|value| (name.clone(), value))
        .collect();
    assert_eq!(select(fields, &padded), select(fields, headers));
}

fn line(name: &HeaderName, value: &[u8]) -> HeaderMap {
    let value = HeaderValue::from_bytes(value).expect("made of values");
    HeaderMap::from_iter([(name.clone(), value)])
}

fn select(fields: &[HeaderName], request: &HeaderMap) -> Vec<u8> {
    let mut out = Vec::new();
    selecting_values(fields, request, &mut out);
    out
}
