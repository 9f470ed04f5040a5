//! Which requests and answers compression concerns.

use http::Request;
use prometheus::Registry;

use super::*;
use crate::cache::Cache;

fn rules(config: &CompressConfig) -> Option<Arc<CompressRules>> {
    let cache = Cache::new(&Default::default(), &Registry::new()).unwrap();
    let with = CompressDependencies {
        defaults: None,
        encoder: cache.encoder(),
        most: 1 << 20,
    };
    CompressRules::new(Some(config), &with)
}

fn request(method: &str, fields: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().method(method).uri("/");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn lines(headers: &HeaderMap) -> Vec<&str> {
    let lines = headers.get_all(ACCEPT_ENCODING).into_iter();
    lines.map(|line| line.to_str().unwrap()).collect()
}

#[test]
fn no_encodings_mean_that_it_is_off() {
    let off = CompressConfig {
        encodings: Vec::new(),
        ..CompressConfig::default()
    };
    assert!(rules(&off).is_none());
    assert!(rules(&CompressConfig::default()).is_some());
}

#[test]
fn the_origin_is_asked_with_one_word_and_for_one_client_with_its_own() {
    for (origin, method, range, shared, alone) in [
        (
            OriginEncoding::Gzip,
            "GET",
            None,
            &["gzip"][..],
            &["br", "zstd"][..],
        ),
        (
            OriginEncoding::Gzip,
            "GET",
            Some("bytes=0-1"),
            &["gzip"],
            &["identity"],
        ),
        (OriginEncoding::Gzip, "HEAD", None, &["gzip"], &["gzip"]),
        (
            OriginEncoding::Identity,
            "GET",
            None,
            &["identity"],
            &["br", "zstd"],
        ),
        (
            OriginEncoding::Keep,
            "GET",
            None,
            &["br", "zstd"],
            &["br", "zstd"],
        ),
        (
            OriginEncoding::Gzip,
            "POST",
            None,
            &["br", "zstd"],
            &["br", "zstd"],
        ),
    ] {
        let config = CompressConfig {
            origin,
            ..CompressConfig::default()
        };
        let rules = rules(&config).unwrap();
        let mut fields = vec![("accept-encoding", "br"), ("accept-encoding", "zstd")];
        fields.extend(range.map(|range| ("range", range)));
        let mut parts = request(method, &fields);
        let client = rules.client(&parts);
        parts.extensions.insert(Arc::new(client));
        rules.clean(&mut parts);
        assert_eq!(
            lines(&parts.headers),
            shared,
            "{origin:?} {method} {range:?}"
        );
        let mut headers = parts.headers.clone();
        ask_for_one(&parts, &mut headers);
        assert_eq!(lines(&headers), alone, "{origin:?} {method} {range:?}");
    }
}

#[test]
fn types_are_compared_without_parameters_and_case() {
    let rules = rules(&CompressConfig::default()).unwrap();
    let of = |kind: &str| HeaderMap::from_iter([(CONTENT_TYPE, kind.parse().unwrap())]);
    for (kind, expected) in [
        ("text/html; charset=utf-8", true),
        ("Text/HTML", true),
        ("application/ld+json", true),
        ("application/problem+xml ;a=b", true),
        ("image/svg+xml", true),
        ("image/png", false),
        ("text/event-stream", false),
        ("application/grpc", false),
        ("", false),
    ] {
        assert_eq!(rules.lists_type(&of(kind)), expected, "{kind}");
    }
    assert!(!rules.lists_type(&HeaderMap::new()));
}

#[test]
fn what_must_not_be_changed_is_left_alone() {
    let of = |name: &'static str, value: &'static str| {
        let value = HeaderValue::from_static(value);
        HeaderMap::from_iter([(http::HeaderName::from_static(name), value)])
    };
    for (name, value, expected) in [
        ("cache-control", "max-age=5, No-Transform", true),
        ("cache-control", "max-age=5", false),
        ("content-digest", "sha-256=:AA==:", true),
        ("repr-digest", "sha-256=:AA==:", true),
        ("x-accel-buffering", "no", true),
        ("x-accel-buffering", "yes", false),
        ("etag", "\"a\"", false),
    ] {
        assert_eq!(is_left_alone(&of(name, value)), expected, "{name}: {value}");
    }
}
