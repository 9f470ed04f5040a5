//! Lifetimes for some responses of a route: by type, path, status and size.

use std::time::Duration;

use http::StatusCode;
use http::header::CONTENT_TYPE;

use super::{HttpExchange, codes};
use crate::config::LifetimeRuleConfig;
use crate::pattern::Pattern;

/// A lifetime for the responses of which all conditions are true.
#[derive(Clone, Debug)]
pub struct LifetimeRule {
    types: Box<[Pattern]>,
    paths: Box<[Pattern]>,
    /// Empty: those to which the policy's `ttl` applies.
    pub(super) statuses: Box<[StatusCode]>,
    /// The lengths that are meant. None: any, also an unknown one.
    lengths: Option<(u64, u64)>,
    /// Zero: such a response gets no lifetime from us.
    pub(super) ttl: Duration,
    pub(super) while_revalidate: Option<Duration>,
    pub(super) if_error: Option<Duration>,
    words: Box<str>,
}

impl LifetimeRule {
    pub(super) fn new(config: &LifetimeRuleConfig) -> Self {
        let patterns = |texts: &[String]| texts.iter().map(|text| Pattern::new(text)).collect();
        let types: Vec<String> = config
            .types
            .iter()
            .map(|kind| kind.to_lowercase())
            .collect();
        let (min, max) = (config.min_bytes, config.max_bytes);
        let lengths = (
            min.map_or(0, |min| min.0),
            max.map_or(u64::MAX, |max| max.0),
        );
        Self {
            types: patterns(&types),
            paths: patterns(&config.paths),
            statuses: codes(&config.statuses),
            lengths: (min.is_some() || max.is_some()).then_some(lengths),
            ttl: config.ttl.into(),
            while_revalidate: config.stale_while_revalidate.map(Into::into),
            if_error: config.stale_if_error.map(Into::into),
            words: words(config).into(),
        }
    }

    /// Whether it is for this response; `usual` are the statuses to which the policy's `ttl`
    /// applies.
    pub(super) fn applies(&self, exchange: &HttpExchange<'_>, usual: &[StatusCode]) -> bool {
        let statuses = match self.statuses.is_empty() {
            true => usual,
            false => &self.statuses,
        };
        let is_long = |(min, max)| {
            exchange
                .length
                .is_some_and(|len| (min..=max).contains(&len))
        };
        statuses.contains(&exchange.status)
            && self.lengths.is_none_or(is_long)
            && is_one_of(&self.paths, || exchange.path.to_owned())
            && is_one_of(&self.types, || content_type(exchange))
    }

    /// The rule in words.
    pub fn describe(&self) -> &str {
        &self.words
    }
}

fn is_one_of(patterns: &[Pattern], text: impl FnOnce() -> String) -> bool {
    patterns.is_empty() || {
        let text = text();
        patterns.iter().any(|pattern| pattern.matches(&text))
    }
}

/// The type of the content in small letters, without parameters.
fn content_type(exchange: &HttpExchange<'_>) -> String {
    let field = exchange.response.get(CONTENT_TYPE);
    let text = field
        .and_then(|kind| kind.to_str().ok())
        .unwrap_or_default();
    let kind = text.split(';').next().unwrap_or_default();
    kind.trim().to_ascii_lowercase()
}

fn words(config: &LifetimeRuleConfig) -> String {
    let list = |name: &str, texts: &[String]| {
        (!texts.is_empty()).then(|| format!("{name} {}", texts.join(", ")))
    };
    let statuses: Vec<String> = config.statuses.iter().map(u16::to_string).collect();
    let conditions = [
        list("types", &config.types),
        list("paths", &config.paths),
        list("statuses", &statuses),
        config.min_bytes.map(|min| format!("at least {min}")),
        config.max_bytes.map(|max| format!("at most {max}")),
    ];
    let conditions: Vec<String> = conditions.into_iter().flatten().collect();
    let what = match conditions.is_empty() {
        true => "all others".to_owned(),
        false => conditions.join(", "),
    };
    format!("policy.lifetimes: {} for {what}", config.ttl)
}
