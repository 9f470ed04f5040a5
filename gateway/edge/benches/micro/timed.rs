//! What each request does: look up, build a key, call a plugin.

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use criterion::{BatchSize, Criterion};
use http::HeaderMap;
use lamina_cache::Lookup;
use lamina_cache::config::{CacheKeyConfig, KeyQueryConfig};
use lamina_cache::key::CacheKeyTemplate;

use crate::report::{self, Row};
use crate::{entries, plugins};

/// The number of keys to look up: a power of two.
const KEYS: usize = 64;

/// Criterion's name of a figure, its description, and its goal.
const FIGURES: [(&str, &str, &str); 9] = [
    (
        "lookup",
        "look-up of an L1 hit, 64 keys × 1 KiB",
        "< 0.3 µs",
    ),
    (
        "key-lookup",
        "the same with its native key built, as a request does",
        "",
    ),
    ("native-key", "native key, no rules", ""),
    (
        "native-key-rules",
        "native key that drops `utm_*` and sorts",
        "",
    ),
    ("key-memoised", "key plugin, memoised", ""),
    (
        "key-called",
        "key plugin, not memoised (fresh inputs)",
        "≤ 2 µs",
    ),
    ("key-declared", "key plugin, declarative", ""),
    (
        "clock",
        "for scale: reading the clock, which a request does once",
        "",
    ),
    (
        "loader",
        "loader plugin that fetches and returns 1 KiB, one at a time (two thread hops included)",
        "",
    ),
];

/// Measures all figures.
pub fn all() -> anyhow::Result<Vec<Row>> {
    let folder = tempfile::tempdir().context("a folder for criterion")?;
    let mut criterion = Criterion::default()
        .without_plots()
        .output_directory(folder.path())
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3));
    lookups(&mut criterion)?;
    native_keys(&mut criterion);
    key_plugins(&mut criterion)?;
    loader(&mut criterion)?;
    criterion.bench_function("clock", |b| b.iter(Instant::now));
    let row = |(id, what, goal): (&str, &str, &'static str)| {
        Ok(Row::new(
            what,
            report::time(median(folder.path(), id)?),
            goal,
        ))
    };
    FIGURES.into_iter().map(row).collect()
}

fn lookups(criterion: &mut Criterion) -> anyhow::Result<()> {
    let cache = entries::cache(64)?;
    let keys: Vec<_> = (0..KEYS)
        .map(|i| entries::store(&cache, i, entries::body(), "bench"))
        .collect();
    let paths: Vec<_> = (0..KEYS)
        .map(|i| format!("/catalogue/products/{i}"))
        .collect();
    let (headers, template, now) = (
        entries::request_headers(),
        CacheKeyTemplate::default(),
        Instant::now(),
    );
    let fresh = |key| matches!(cache.lookup(key, &headers, now), Lookup::Fresh(_));
    ensure!(keys.iter().all(fresh), "every key is a hit");
    let mut at = 0;
    criterion.bench_function("lookup", |b| {
        b.iter(|| {
            at = (at + 1) % KEYS;
            cache.lookup(black_box(&keys[at]), &headers, now)
        });
    });
    criterion.bench_function("key-lookup", |b| {
        b.iter(|| {
            at = (at + 1) % KEYS;
            let key = entries::key(&template, black_box(&paths[at]), None, &headers);
            cache.lookup(&key, &headers, now)
        });
    });
    Ok(())
}

fn native_keys(criterion: &mut Criterion) {
    let rules = CacheKeyTemplate::new(&CacheKeyConfig {
        query: KeyQueryConfig {
            drop: vec!["utm_*".into()],
            sort: true,
            ..KeyQueryConfig::default()
        },
        ..CacheKeyConfig::default()
    });
    let headers = HeaderMap::new();
    for (id, template) in [
        ("native-key", CacheKeyTemplate::default()),
        ("native-key-rules", rules),
    ] {
        criterion.bench_function(id, |b| {
            b.iter(|| {
                let query = black_box(Some("q=tea&utm_source=letter&page=2"));
                entries::key(&template, "/search", query, &headers)
            });
        });
    }
}

fn key_plugins(criterion: &mut Criterion) -> anyhow::Result<()> {
    let shipped = plugins::load(&plugins::runtime()?)?;
    let known = plugins::request(0)?;
    let key = shipped.called.key(&known, "shop.example");
    ensure!(key == shipped.declared.key(&known, "shop.example") && key.is_ok());
    criterion.bench_function("key-memoised", |b| {
        b.iter(|| shipped.called.key(black_box(&known), "shop.example"));
    });
    let mut campaign = 0;
    criterion.bench_function("key-called", |b| {
        b.iter_batched_ref(
            || {
                campaign += 1;
                plugins::request(campaign).expect("the address is well formed")
            },
            |fresh| shipped.called.key(fresh, "shop.example"),
            BatchSize::SmallInput,
        );
    });
    criterion.bench_function("key-declared", |b| {
        b.iter(|| shipped.declared.key(black_box(&known), "shop.example"));
    });
    Ok(())
}

fn loader(criterion: &mut Criterion) -> anyhow::Result<()> {
    let runtime = plugins::runtime()?;
    let shipped = plugins::load(&runtime)?;
    let request = plugins::load_request();
    criterion.bench_function("loader", |b| {
        b.iter(|| runtime.block_on(shipped.loader.load(request.clone())));
    });
    Ok(())
}

/// The median in nanoseconds, read from what criterion wrote.
fn median(folder: &Path, id: &str) -> anyhow::Result<f64> {
    let file = folder.join(id).join("new/estimates.json");
    let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let estimates: serde_json::Value = serde_json::from_str(&text)?;
    estimates["median"]["point_estimate"]
        .as_f64()
        .context("criterion's median")
}
