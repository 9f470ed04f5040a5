//! `Cache-Status`: whatever a detail says, the value is one member of a structured list.
//!
//! Input: a line with `ttl status flags`, then the detail.

use http::HeaderMap;
use lamina_http::cache_status::{CACHE_STATUS, CacheStatus, ForwardReason};
use sfv::{BareItem, List, ListEntry, Parser};

const REASONS: [ForwardReason; 8] = [
    ForwardReason::Bypass,
    ForwardReason::Method,
    ForwardReason::UriMiss,
    ForwardReason::VaryMiss,
    ForwardReason::Miss,
    ForwardReason::Request,
    ForwardReason::Stale,
    ForwardReason::Partial,
];

pub fn check(data: &[u8]) {
    let Ok(input) = std::str::from_utf8(data) else {
        return;
    };
    let (line, detail) = input.split_once('\n').unwrap_or((input, ""));
    let mut numbers = line
        .split(' ')
        .map(|word| word.parse::<i64>().unwrap_or_default());
    let mut next = || numbers.next().unwrap_or_default();
    let (ttl, status, flags) = (next(), next() as u16, next() as usize);
    let hit = CacheStatus::Hit {
        ttl,
        detail: Some(detail),
    };
    one_member(&hit, detail);
    let forwarded = CacheStatus::Fwd {
        reason: REASONS[flags % 8],
        fwd_status: (flags & 8 > 0).then_some(status),
        stored: flags & 16 > 0,
        collapsed: flags & 32 > 0,
        ttl: (flags & 64 > 0).then_some(ttl),
        detail: Some(detail),
    };
    one_member(&forwarded, detail);
}

fn one_member(status: &CacheStatus<'_>, detail: &str) {
    let mut headers = HeaderMap::new();
    status.append(&mut headers);
    let list: List = Parser::new(headers[CACHE_STATUS].as_bytes())
        .parse()
        .expect("RFC 9651");
    let [ListEntry::Item(item)] = &list[..] else {
        panic!("not one member: {headers:?}");
    };
    let hit = item.params.contains_key("hit");
    assert_ne!(
        hit,
        item.params.contains_key("fwd"),
        "a hit or forwarded (RFC 9211 §2)"
    );
    assert_eq!(hit, matches!(status, CacheStatus::Hit { .. }));
    let said = match item.params.get("detail") {
        Some(BareItem::String(text)) => text.as_str().to_owned(),
        Some(BareItem::Token(text)) => text.as_str().to_owned(),
        other => panic!("the detail became {other:?}"),
    };
    let visible = |octet: u8| {
        if (b' '..=b'~').contains(&octet) {
            octet as char
        } else {
            '?'
        }
    };
    assert_eq!(said, detail.bytes().map(visible).collect::<String>());
}
