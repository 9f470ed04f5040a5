//! `Cache-Control` of responses and requests: one list over all lines, that only ever restricts.
//!
//! Input: two blocks of field values, the lines of one message and further lines.

use http::{HeaderMap, HeaderValue, header::CACHE_CONTROL};
use lamina_http::cache_control::{
    FieldForm, MAX_DELTA_SECONDS, RequestDirectives, ResponseDirectives,
};

use fuzz_harness::input;

pub fn check(data: &[u8]) {
    let [one, other] = input::blocks(data).map(|block| input::values(&CACHE_CONTROL, block));
    let both = input::joined(&one, &other);
    response(&one, &other, &both);
    request(&one, &other, &both);
}

fn response(one: &HeaderMap, other: &HeaderMap, both: &HeaderMap) {
    let [a, b, all] = [one, other, both].map(ResponseDirectives::parse);
    for (a, b, all) in [
        (a.no_store, b.no_store, all.no_store),
        (a.must_revalidate, b.must_revalidate, all.must_revalidate),
        (a.proxy_revalidate, b.proxy_revalidate, all.proxy_revalidate),
        (a.must_understand, b.must_understand, all.must_understand),
        (a.public, b.public, all.public),
        (a.immutable, b.immutable, all.immutable),
        (a.no_transform, b.no_transform, all.no_transform),
    ] {
        assert_eq!(all, a || b, "a flag holds wherever it stands");
    }
    for (a, b, all) in [
        (a.max_age, b.max_age, all.max_age),
        (a.s_maxage, b.s_maxage, all.s_maxage),
        (
            a.stale_while_revalidate,
            b.stale_while_revalidate,
            all.stale_while_revalidate,
        ),
        (a.stale_if_error, b.stale_if_error, all.stale_if_error),
    ] {
        let expected = match (a, b) {
            (Some(a), Some(b)) if a != b => Some(0),
            (a, b) => a.or(b),
        };
        assert_eq!(all, expected, "differing values are none at all");
        assert!(all.is_none_or(|seconds| seconds <= MAX_DELTA_SECONDS));
    }
    wider(&a.no_cache, &b.no_cache, &all.no_cache);
    wider(&a.private, &b.private, &all.private);
    let swapped = ResponseDirectives::parse(&input::joined(other, one));
    assert_eq!(swapped, all, "order means nothing");
    assert_eq!(
        ResponseDirectives::parse(&upper(both)),
        all,
        "nor does case"
    );
    let strange = input::joined(both, &values(&["ext", "ext=\"no-store, max-age=1\"", ""]));
    assert_eq!(
        ResponseDirectives::parse(&strange),
        all,
        "nor do unknown directives"
    );
    let hidden = input::joined(both, &values(&["a=\"b, no-store"]));
    assert!(
        ResponseDirectives::parse(&hidden).no_store,
        "an open quote hides nothing"
    );
}

fn wider(a: &FieldForm, b: &FieldForm, all: &FieldForm) {
    match (a, b, all) {
        (FieldForm::Absent, form, all) | (form, FieldForm::Absent, all) => assert_eq!(form, all),
        (FieldForm::Fields(a), FieldForm::Fields(b), FieldForm::Fields(all)) => {
            assert!(a.iter().chain(b).all(|name| all.contains(name)));
            assert!(all.iter().all(|name| a.contains(name) || b.contains(name)));
        }
        _ => assert_eq!(*all, FieldForm::Whole),
    }
}

fn request(one: &HeaderMap, other: &HeaderMap, both: &HeaderMap) {
    let [a, b, all] = [one, other, both].map(RequestDirectives::parse);
    assert_eq!(all.no_cache, a.no_cache || b.no_cache);
    assert_eq!(all.no_store, a.no_store || b.no_store);
    assert_eq!(all.only_if_cached, a.only_if_cached || b.only_if_cached);
    assert_eq!(all.max_age, least(a.max_age, b.max_age));
    assert_eq!(all.max_stale, least(a.max_stale, b.max_stale));
    assert_eq!(
        all.stale_if_error,
        least(a.stale_if_error, b.stale_if_error)
    );
    assert_eq!(
        all.min_fresh,
        a.min_fresh.max(b.min_fresh),
        "the stricter is the longer"
    );
    let swapped = RequestDirectives::parse(&input::joined(other, one));
    assert_eq!(swapped, all, "order means nothing");
    assert_eq!(RequestDirectives::parse(&upper(both)), all, "nor does case");
}

fn least<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

fn values(lines: &[&'static str]) -> HeaderMap {
    let values = lines.iter().map(|line| HeaderValue::from_static(line));
    values.map(|value| (CACHE_CONTROL, value)).collect()
}

fn upper(headers: &HeaderMap) -> HeaderMap {
    let values = headers
        .values()
        .map(|value| value.as_bytes().to_ascii_uppercase());
    values
        .filter_map(|value| HeaderValue::from_bytes(&value).ok())
        .map(|value| (CACHE_CONTROL, value))
        .collect()
}
