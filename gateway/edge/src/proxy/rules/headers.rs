//! What a route does to the header fields of requests and answers: `remove` before `set` before
//! `add`.

pub mod config;

use http::header::{CACHE_CONTROL, EXPIRES, PRAGMA};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::lifetime_claim::LifetimeClaim;
use super::present::RuledField;
use super::template::{TemplatePiece, TemplateSource, TextTemplate, ValueForm};
use crate::http::cache_control::{FieldForm, ResponseDirectives};
use crate::http::{cache_control, field_value, forward};
use crate::proxy::metrics::DroppedValueCount;
use config::HeaderChangesConfig;

/// Changes of header fields.
pub struct HeaderChanges {
    remove: Box<[HeaderName]>,
    set: Box<[(HeaderName, FieldValue)]>,
    add: Box<[(HeaderName, FieldValue)]>,
    /// Whether a value depends on the request.
    makes_values: bool,
    /// Whether one of the fields is one that other rules ask for.
    concern_other_rules: bool,
}

/// The fields by which an answer tells every cache whether it may be stored.
static FOR_ALL_CACHES: [HeaderName; 3] = [CACHE_CONTROL, EXPIRES, PRAGMA];

/// The lines of some fields.
fn lines_of(
    headers: &HeaderMap,
    which: impl Fn(&HeaderName) -> bool,
) -> Vec<(HeaderName, HeaderValue)> {
    let lines = headers.iter().filter(|(name, _)| which(name));
    lines
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// Whether the lines of `Cache-Control` are these.
fn is_said(headers: &HeaderMap, lines: &[(HeaderName, HeaderValue)]) -> bool {
    let said = lines.iter().filter(|(name, _)| name == CACHE_CONTROL);
    let said = said.map(|(_, value)| value);
    headers.get_all(CACHE_CONTROL).iter().eq(said)
}

/// The value of a field that a rule writes.
enum FieldValue {
    Fixed(HeaderValue),
    Made(TextTemplate),
}

/// The values of one request for the fields that have no fixed value, in their order. None: there is
/// none to be written.
pub type MadeValues = Box<[Option<HeaderValue>]>;

impl HeaderChanges {
    /// None: nothing is changed.
    pub fn new(config: &HeaderChangesConfig) -> Option<Self> {
        let named = |name: &String| name.parse::<HeaderName>().ok();
        let field = |(name, text): (&String, &String)| Some((named(name)?, FieldValue::of(text)?));
        let lines = config.add.iter().flat_map(|(name, values)| {
            let values = values.as_slice().iter();
            values.map(move |value| (name, value))
        });
        let mut changes = Self {
            remove: config.remove.iter().filter_map(named).collect(),
            set: config.set.iter().filter_map(field).collect(),
            add: lines.filter_map(field).collect(),
            makes_values: false,
            concern_other_rules: false,
        };
        let is_made = |(_, value): &(_, FieldValue)| matches!(value, FieldValue::Made(_));
        let makes_values = changes.written().any(is_made);
        let written = changes.written().map(|(name, _)| name);
        let ruled = |name: &HeaderName| RuledField::named(name).is_some();
        let concern_other_rules = changes.remove.iter().chain(written).any(ruled);
        changes.makes_values = makes_values;
        changes.concern_other_rules = concern_other_rules;
        let any = !(changes.remove.is_empty() && changes.set.is_empty() && changes.add.is_empty());
        any.then_some(changes)
    }

    /// The values that depend on the request. What can't be the value of a field is dropped and
    /// counted.
    pub fn made(&self, source: TemplateSource<'_>, dropped: &DroppedValueCount) -> MadeValues {
        if !self.makes_values {
            return MadeValues::default();
        }
        let templates = self.written().filter_map(|(_, value)| match value {
            FieldValue::Fixed(_) => None,
            FieldValue::Made(template) => Some(template),
        });
        let mut filled = Vec::new();
        let value = |template: &TextTemplate| {
            filled.clear();
            template.fill_into(source, ValueForm::Plain, &mut filled);
            let value = field_value::of_text(&filled);
            let value = value.inspect_err(|_| dropped.inc()).ok();
            value.filter(|value| !value.is_empty())
        };
        templates.map(value).collect()
    }

    /// Changes the fields of an answer that no cache may keep for others: what it says about that
    /// stays as it is, unless the rule says `no-store`, or `private` where the client may keep it.
    pub fn change_beside_lifetimes(
        &self,
        headers: &mut HeaderMap,
        made: MadeValues,
        claim: LifetimeClaim,
    ) {
        let may_be_kept =
            claim == LifetimeClaim::ForOneClient && !ResponseDirectives::parse(headers).no_store;
        let said = lines_of(headers, cache_control::tells_lifetime);
        self.change(headers, made);
        let after = ResponseDirectives::parse(headers);
        let is_for_one = after.private == FieldForm::Whole && !after.public;
        // What was private before any rule is no word of a rule.
        let may_be_kept = may_be_kept && !is_said(headers, &said);
        let ruled = match after.no_store || (may_be_kept && is_for_one) {
            true => lines_of(headers, |name| FOR_ALL_CACHES.contains(name)),
            false => Vec::new(),
        };
        cache_control::remove_lifetimes(headers);
        let forbids = !ruled.is_empty();
        let kept = said
            .into_iter()
            .filter(|(name, _)| !forbids || !FOR_ALL_CACHES.contains(name));
        for (name, value) in kept.chain(ruled) {
            headers.append(name, value);
        }
    }

    /// Changes the fields of an answer.
    pub fn change(&self, headers: &mut HeaderMap, made: MadeValues) {
        for name in &self.remove {
            headers.remove(name);
        }
        self.write(headers, made);
    }

    /// Changes the fields of a request for an origin. What goes, goes under every name that servers
    /// may take for it.
    pub fn change_request(&self, headers: &mut HeaderMap, made: MadeValues) {
        let set = self.set.iter().map(|(name, _)| name);
        for name in self.remove.iter().chain(set) {
            forward::remove_spellings(headers, name);
        }
        self.write(headers, made);
    }

    fn write(&self, headers: &mut HeaderMap, made: MadeValues) {
        let mut made = made.into_iter();
        let mut value = |value: &FieldValue| match value {
            FieldValue::Fixed(value) => Some(value.clone()),
            FieldValue::Made(_) => made.next().flatten(),
        };
        for (name, written) in &self.set {
            match value(written) {
                Some(value) => drop(headers.insert(name, value)),
                None => drop(headers.remove(name)),
            }
        }
        for (name, written) in &self.add {
            if let Some(value) = value(written) {
                headers.append(name, value);
            }
        }
    }

    /// Whether one of the fields is one that other rules ask for.
    pub fn concern_other_rules(&self) -> bool {
        self.concern_other_rules
    }

    /// Whether the field `name` gets a value that may differ between requests that are the same to
    /// the cache.
    pub fn tells_of_the_client(&self, name: &HeaderName) -> bool {
        self.written().any(|(written, value)| {
            let FieldValue::Made(template) = value else {
                return false;
            };
            written == name
                && template
                    .pieces()
                    .iter()
                    .any(TemplatePiece::is_of_the_client)
        })
    }

    /// Whether the field `name` gets a value that may differ between two requests although these
    /// fields of theirs, and all else that the key holds, are the same.
    pub fn make_of_what_is_unkeyed(
        &self,
        name: &HeaderName,
        is_keyed: &dyn Fn(&HeaderName) -> bool,
    ) -> bool {
        let differs = |piece: &TemplatePiece| match piece {
            TemplatePiece::Header(source) => !is_keyed(source),
            other => other.is_of_the_client(),
        };
        self.written().any(|(written, value)| match value {
            FieldValue::Made(template) => written == name && template.pieces().iter().any(differs),
            FieldValue::Fixed(_) => false,
        })
    }

    fn written(&self) -> impl Iterator<Item = &(HeaderName, FieldValue)> {
        self.set.iter().chain(&self.add)
    }

    /// The changes in words.
    pub fn describe(&self) -> String {
        let mut words = Vec::new();
        let names = |names: &[HeaderName]| {
            let names: Vec<&str> = names.iter().map(HeaderName::as_str).collect();
            names.join(", ")
        };
        if !self.remove.is_empty() {
            words.push(format!("without {}", names(&self.remove)));
        }
        for (word, fields) in [("with", &self.set), ("and one more", &self.add)] {
            let fields: Vec<HeaderName> = fields.iter().map(|(name, _)| name.clone()).collect();
            if !fields.is_empty() {
                words.push(format!("{word} {}", names(&fields)));
            }
        }
        words.join("; ")
    }
}

impl FieldValue {
    fn of(text: &str) -> Option<Self> {
        let template = TextTemplate::parse(text).ok()?;
        match template.fixed() {
            Some(fixed) => {
                let value = field_value::of_text(fixed.as_bytes());
                value.ok().map(Self::Fixed)
            }
            None => Some(Self::Made(template)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use prometheus::Registry;

    use super::*;
    use crate::proxy::metrics::RequestFamilies;

    /// What is for one client stays so, and a rule may make it stricter.
    #[test]
    fn a_rule_forbids_storing_and_does_not_allow_it_where_an_answer_is_for_one_client() {
        let (claim, for_one) = (LifetimeClaim::ForOneClient, "private, no-cache");
        for (claim, said, ruled, after) in [
            (claim, for_one, "public, max-age=60", [for_one, "0"]),
            (claim, for_one, "max-age=60", [for_one, "0"]),
            (claim, for_one, "private, public", [for_one, "0"]),
            (claim, for_one, "private=\"set-cookie\"", [for_one, "0"]),
            (
                claim,
                for_one,
                "private, max-age=60",
                ["private, max-age=60", "-1"],
            ),
            (claim, "no-store", "private, max-age=60", ["no-store", "0"]),
            (
                claim,
                for_one,
                "no-store, max-age=0",
                ["no-store, max-age=0", "-1"],
            ),
            // A browser that keeps an error shows it longer than it lasts.
            (
                LifetimeClaim::Kept,
                for_one,
                "private, max-age=60",
                [for_one, "0"],
            ),
            (LifetimeClaim::Kept, for_one, "no-store", ["no-store", "-1"]),
        ] {
            let config = HeaderChangesConfig {
                set: [
                    ("cache-control", ruled),
                    ("expires", "-1"),
                    ("cdn-cache-control", "max-age=60"),
                ]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
                ..HeaderChangesConfig::default()
            };
            let mut headers = HeaderMap::new();
            headers.insert(CACHE_CONTROL, HeaderValue::from_static(said));
            headers.insert(EXPIRES, HeaderValue::from_static("0"));
            let changes = HeaderChanges::new(&config).unwrap();
            changes.change_beside_lifetimes(&mut headers, MadeValues::default(), claim);
            assert_eq!(
                [&headers[CACHE_CONTROL], &headers[EXPIRES]],
                after,
                "{claim:?} {said}: {ruled}"
            );
            assert!(!headers.contains_key("cdn-cache-control"), "{ruled}");
        }
    }

    #[test]
    fn a_rule_about_other_fields_lets_nobody_keep_what_is_for_one_client() {
        for (name, value) in [("expires", "-1"), ("pragma", "cache")] {
            let config = HeaderChangesConfig {
                set: [(name.to_owned(), value.to_owned())].into(),
                ..HeaderChangesConfig::default()
            };
            let mut headers = HeaderMap::new();
            let said = HeaderValue::from_static("private, no-cache");
            headers.insert(CACHE_CONTROL, said.clone());
            let changes = HeaderChanges::new(&config).unwrap();
            let claim = LifetimeClaim::ForOneClient;
            changes.change_beside_lifetimes(&mut headers, MadeValues::default(), claim);
            assert_eq!(headers.len(), 1, "{headers:?}");
            assert_eq!(headers[CACHE_CONTROL], said);
        }
    }

    /// HD2: nothing that a request brings begins another line. A server that reads requests by the
    /// rules lets no such octet in, so this is the last line of defence.
    #[test]
    fn a_value_with_an_end_of_line_is_dropped_and_counted() {
        let registry = Registry::new();
        let families = RequestFamilies::new(&registry, 100).unwrap();
        let dropped = families.dropped_values(&Arc::from("site"));
        let config = HeaderChangesConfig {
            set: [("x-host", "<{host}>"), ("x-route", "{route}")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            ..HeaderChangesConfig::default()
        };
        let changes = HeaderChanges::new(&config).unwrap();
        let (parts, ()) = http::Request::new(()).into_parts();
        for host in ["a\r\nset-cookie: x=1", "a\nb", "a\rb", "a\0b"] {
            let source = TemplateSource {
                parts: &parts,
                host,
                scheme: "http",
                client: None,
                route: "site",
                request_id: None,
            };
            let mut headers = HeaderMap::new();
            headers.insert("x-host", HeaderValue::from_static("the origin's"));
            changes.change(&mut headers, changes.made(source, &dropped));
            let lines: Vec<_> = headers.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(lines, ["x-route"], "{host:?}");
        }
        let families = registry.gather();
        let counted = families
            .iter()
            .find(|family| family.name() == "lamina_rule_values_dropped_total");
        let counted = counted.unwrap().get_metric()[0].get_counter().get_value();
        assert_eq!(counted, 4.0);
    }
}
