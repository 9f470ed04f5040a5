//! Checks the meaning of `compress`, and what of it has no effect.

use std::ops::RangeInclusive;

use super::super::FindingCollector;
use crate::config::problem::{ConfigFinding, ConfigPath};
use crate::pattern::Pattern;
use crate::proxy::config::rules::compress::{CompressEncoding, HotLevels};
use crate::proxy::config::{CompressConfig, OnOffSwitch, OriginEncoding, RouteConfig};

/// Checks the compression at `at`.
pub fn check(compress: &CompressConfig, at: &ConfigPath, report: &mut FindingCollector) {
    for (n, encoding) in compress.encodings.iter().enumerate() {
        if compress.encodings[..n].contains(encoding) {
            let message = "it is in the list already; expected each encoding once";
            report.add(at.key("encodings").index(n), message);
        }
    }
    report.each(&at.key("types"), &compress.types, content_type);
    let levels = &compress.levels;
    let mut level = |name, value: u8, valid: RangeInclusive<u8>| {
        if !valid.contains(&value) {
            let (least, most) = valid.into_inner();
            let message = format!("{value} is no level; expected {least} to {most}");
            report.add(at.key("levels").key(name), message);
        }
    };
    level("gzip", levels.gzip, 1..=12);
    level("br", levels.br, 0..=11);
    level("zstd", levels.zstd, 1..=19);
    if let Some(hot) = &compress.hot {
        self::hot(compress, hot, &at.key("hot"), report);
    }
}

/// Levels that are better than the first ones, of encodings that are made.
fn hot(compress: &CompressConfig, hot: &HotLevels, at: &ConfigPath, report: &mut FindingCollector) {
    let levels = &compress.levels;
    let given = [
        ("gzip", hot.gzip, levels.gzip, 12, CompressEncoding::Gzip),
        ("br", hot.br, levels.br, 11, CompressEncoding::Br),
        ("zstd", hot.zstd, levels.zstd, 19, CompressEncoding::Zstd),
    ];
    for (name, level, first, most, encoding) in given {
        let Some(level) = level else { continue };
        if level <= first || level > most {
            let message = format!(
                "{level} is not better than `levels`; expected {} to {most}",
                first.saturating_add(1)
            );
            report.add(at.key(name), message);
        }
        if !compress.encodings.contains(&encoding) {
            let message = format!("{name} is not among the `encodings`; expected it there");
            report.push(ConfigFinding::key(at.key(name), message));
        }
    }
    if given.iter().all(|(_, level, ..)| level.is_none()) {
        let message = "no level; expected one of `gzip`, `br` and `zstd`";
        report.add(at.clone(), message);
    }
    report.positive(at.key("after_hits"), hot.after_hits.into());
}

/// A pattern for content types, without parameters.
fn content_type(text: &str) -> Result<(), String> {
    let is_odd = |c: char| c.is_whitespace() || matches!(c, ';' | ',' | '"');
    match text.is_empty() || text.contains(is_odd) || (text != "*" && !text.contains('/')) {
        true => Err(format!(
            "{text:?} is no content type; expected one without parameters, as in text/html or text/*"
        )),
        false => Ok(()),
    }
}

/// Types whose content is compressed already.
const COMPRESSED: [&str; 5] = [
    "image/png",
    "image/jpeg",
    "video/mp4",
    "application/zip",
    "font/woff2",
];

/// What works and is not worth it, or has no effect.
pub fn warnings(
    route: &RouteConfig,
    defaults: Option<&CompressConfig>,
    at: &ConfigPath,
) -> Vec<ConfigFinding> {
    let own = route.compress.as_ref();
    let Some(compress) = own.or(defaults).filter(|any| !any.encodings.is_empty()) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    let keyed = &route.key.headers;
    let key = keyed
        .iter()
        .position(|name| name.eq_ignore_ascii_case("accept-encoding"));
    if let Some(n) = key.filter(|_| compress.origin != OriginEncoding::Keep) {
        let message = "`compress` replaces `Accept-Encoding` by one value for all clients, so that \
                       it tells no requests apart; expected a key without it";
        let at = at.key("key").key("headers").index(n);
        found.push(ConfigFinding::value(at, message));
    }
    if own.is_none() {
        return found;
    }
    let at = at.key("compress");
    if route.cache == OnOffSwitch::Off && !compress.passes {
        let message = "without effect: with `cache: off` nothing is stored, and only what is \
                       stored is compressed unless `passes: true`";
        found.push(ConfigFinding::key(at.clone(), message));
    }
    let streams = [
        ("passes", compress.passes),
        ("stream_min", compress.stream_min.is_some()),
    ];
    let is_brotli = |encoding: &CompressEncoding| *encoding == CompressEncoding::Br;
    for (key, _) in streams.into_iter().filter(|(_, is_given)| *is_given) {
        if compress.encodings.iter().all(is_brotli) {
            let message = format!(
                "without effect for `{key}`: what is encoded while it goes out is in zstd or gzip; \
                 expected one of them beside br"
            );
            found.push(ConfigFinding::key(at.key("encodings"), message));
        }
    }
    for (n, listed) in compress.types.iter().enumerate() {
        let pattern = Pattern::new(&listed.to_ascii_lowercase());
        if let Some(coded) = COMPRESSED.iter().find(|coded| pattern.matches(coded)) {
            let message = format!(
                "it takes in {coded}, whose content is compressed already: that costs processor \
                 time and saves nothing"
            );
            found.push(ConfigFinding::value(at.key("types").index(n), message));
        }
    }
    found
}
