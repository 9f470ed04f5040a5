//! Which requests of a route are not for the cache.

use http::request::Parts;

use super::config::CacheBypassConfig;
use crate::http::cookies;
use crate::pattern::Pattern;
use crate::proxy::config::{OneOrMany, RouteMatchConfig, ValueMatchConfig};
use crate::proxy::route::matching::RouteConditions;

/// Conditions of which one suffices.
pub(super) struct BypassConditions {
    cookies: Box<[Pattern]>,
    /// One condition each.
    others: Box<[RouteConditions]>,
    words: Box<str>,
}

impl BypassConditions {
    /// None: no request bypasses the cache because of its head.
    pub fn new(config: &CacheBypassConfig) -> Option<Self> {
        let named = |(name, value): (&String, &ValueMatchConfig)| {
            std::iter::once((name.clone(), value.clone())).collect()
        };
        let path = (!config.path.is_empty()).then(|| RouteMatchConfig {
            path: Some(OneOrMany::Many(config.path.clone())),
            ..RouteMatchConfig::default()
        });
        let headers = config.header.iter().map(|field| RouteMatchConfig {
            header: named(field),
            ..RouteMatchConfig::default()
        });
        let parameters = config.query.iter().map(|parameter| RouteMatchConfig {
            query: named(parameter),
            ..RouteMatchConfig::default()
        });
        let others = path.into_iter().chain(headers).chain(parameters);
        let conditions = Self {
            cookies: config
                .cookie
                .iter()
                .map(|text| Pattern::new(text))
                .collect(),
            others: others.map(|one| RouteConditions::new(&one)).collect(),
            words: words(config).into(),
        };
        (!conditions.words.is_empty()).then_some(conditions)
    }

    /// Whether one of them holds.
    pub fn hold(&self, parts: &Parts) -> bool {
        let path = parts.uri.path();
        self.has_cookie(parts) || self.others.iter().any(|one| one.takes("", parts, path))
    }

    fn has_cookie(&self, parts: &Parts) -> bool {
        if self.cookies.is_empty() {
            return false;
        }
        let mut pairs = cookies::pairs(&parts.headers);
        pairs.any(|pair| {
            let name = cookies::name_and_value(pair).0;
            let mut patterns = self.cookies.iter();
            patterns.any(|pattern| pattern.matches_octets(name))
        })
    }

    /// The conditions in words.
    pub fn describe(&self) -> String {
        format!("bypass: for {}", self.words)
    }
}

fn words(config: &CacheBypassConfig) -> String {
    let cookies = config.cookie.iter().map(|name| format!("cookie {name}"));
    let headers = config.header.keys().map(|name| format!("header {name}"));
    let paths = config.path.iter().map(|path| format!("path {path}"));
    let parameters = config.query.keys().map(|name| format!("parameter {name}"));
    let all: Vec<String> = cookies
        .chain(headers)
        .chain(paths)
        .chain(parameters)
        .collect();
    all.join(", ")
}
