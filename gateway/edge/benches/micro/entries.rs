//! Keys and entries, as the proxy makes them for a 1 KiB page with the usual fields.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use lamina_base::units::ByteSize;
use lamina_cache::Cache;
use lamina_cache::config::{CacheConfig, L1Config};
use lamina_cache::entry::{Entry, PurgeAttributes};
use lamina_cache::freshness::Freshness;
use lamina_cache::key::{CacheKeyInput, CacheKeyTemplate, KeyBuf, hash64};
use lamina_edge::proxy::compact;
use lamina_http::vary::Vary;

pub const BODY_BYTES: usize = 1_024;

const FIELDS: [(&str, &str); 8] = [
    ("content-type", "text/plain"),
    ("cache-control", "max-age=3600"),
    ("etag", "\"bench-1\""),
    ("date", "Sun, 22 Nov 2026 12:00:00 GMT"),
    ("server", "origin"),
    ("via", "1.1 lamina"),
    ("age", "0"),
    ("cache-status", ""),
];

/// An empty cache with room for `mib` MiB.
pub fn cache(mib: u64) -> anyhow::Result<Arc<Cache>> {
    let config = CacheConfig {
        l1: L1Config {
            max_bytes: ByteSize::mib(mib),
            ..L1Config::default()
        },
        ..CacheConfig::default()
    };
    let cache = Cache::new(&config, &prometheus::Registry::new()).context("a cache")?;
    Ok(Arc::new(cache))
}

/// The headers of a client similar to a browser.
pub fn request_headers() -> HeaderMap {
    let fields = [
        ("host", "shop.example"),
        (
            "user-agent",
            "Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101",
        ),
        ("accept", "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"),
        ("accept-encoding", "gzip, br"),
        ("accept-language", "en-GB,en;q=0.5"),
    ];
    headers(&fields)
}

/// The native key of `GET http://shop.example<path>?<query>`.
pub fn key(
    template: &CacheKeyTemplate,
    path: &str,
    query: Option<&str>,
    headers: &HeaderMap,
) -> KeyBuf {
    template.build(&CacheKeyInput {
        scheme: "http",
        host: "shop.example",
        path,
        query,
        headers,
        route: "bench",
    })
}

/// The key of page `i`.
pub fn page_key(i: usize) -> KeyBuf {
    let path = format!("/catalogue/products/{i}");
    key(&CacheKeyTemplate::default(), &path, None, &HeaderMap::new())
}

/// An entry is fresh for one hour.
pub fn freshness() -> Freshness {
    Freshness {
        received: Instant::now(),
        initial_age: Duration::ZERO,
        lifetime: Duration::from_secs(3_600),
        while_revalidate: Duration::ZERO,
        if_error: Duration::ZERO,
        must_revalidate: false,
    }
}

/// A body with a buffer of its own and of exactly its size, as a completed load leaves it.
pub fn body() -> Bytes {
    Bytes::from(vec![b'x'; BODY_BYTES])
}

/// The attributes by which purges find page `i`.
pub fn marks(key: &KeyBuf, i: usize, tag: &str) -> PurgeAttributes {
    PurgeAttributes {
        id: key.to_key().id().0,
        identity: key.identity(),
        route: hash64(b"bench"),
        tags: [hash64(tag.as_bytes())].into(),
        groups: Box::default(),
        url: format!("shop.example/catalogue/products/{i}").into(),
    }
}

/// Stores page `i`. Returns its key.
pub fn store(cache: &Cache, i: usize, body: Bytes, tag: &str) -> KeyBuf {
    let key = page_key(i);
    let entry = Entry::new(
        key.to_key(),
        StatusCode::OK,
        response_headers(),
        body,
        freshness(),
        marks(&key, i, tag),
        cache.order(),
    );
    cache.admit(key.to_key(), &Vary::None, Arc::new(entry));
    key
}

/// The fields of a stored page, compacted as every entry's are.
pub fn response_headers() -> HeaderMap {
    compact(&headers(&FIELDS))
}

fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    let one = |(name, value): &(&'static str, &'static str)| {
        (
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )
    };
    fields.iter().map(one).collect()
}
