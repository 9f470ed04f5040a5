//! What is different in another configuration.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::config::{self, GatewayConfig};
use crate::proxy::config::auth::AuthConfig;

/// The differences between two configurations.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct ConfigChanges {
    pub routes: NamedChanges,
    /// Routes that stand before or behind other ones than before: the first that matches is used.
    pub moved_routes: Vec<String>,
    pub upstreams: NamedChanges,
    pub plugins: NamedChanges,
    /// By their addresses.
    pub listeners: NamedChanges,
    /// All else.
    pub settings: Vec<ChangedValue>,
}

/// The differences between two sets of things with names.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct NamedChanges {
    pub added: Vec<String>,
    pub removed: Vec<String>,
    /// What is different in those that stay.
    pub changed: BTreeMap<String, Vec<ChangedValue>>,
}

/// A key with another value.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct ChangedValue {
    /// As in `cache.l1.max_bytes`.
    pub key: String,
    /// Null if it was not there; hidden if it is a secret.
    pub before: Value,
    pub after: Value,
}

/// A value of a configuration: as it is compared, and as it is shown, without secrets.
#[derive(Clone, Default)]
struct ComparedValue {
    value: Value,
    shown: Value,
}

/// The keys whose values have names, and are compared by these.
const NAMED: [&str; 4] = ["routes", "upstreams", "plugins", "listeners"];

impl ConfigChanges {
    /// What is different in `after`.
    pub fn between(before: &GatewayConfig, after: &GatewayConfig) -> Self {
        let values = [before, after].map(compared);
        if values[0] == values[1] {
            return Self::default();
        }
        let [mut before, mut after] = values.map(ComparedValue::of);
        let order = |config: &ComparedValue| names(&config.value["routes"], "name");
        let moved_routes = moved(&order(&before), &order(&after));
        let named = |key: &str, name: &str| {
            let of = |config: &ComparedValue| config.at(key).by_name(name);
            NamedChanges::between(&of(&before), &of(&after))
        };
        let (routes, listeners) = (named("routes", "name"), named("listeners", "address"));
        let (upstreams, plugins) = (named("upstreams", ""), named("plugins", ""));
        for config in [&mut before, &mut after] {
            if let Value::Object(keys) = &mut config.value {
                keys.retain(|key, _| !NAMED.contains(&key.as_str()) && key != "include");
            }
        }
        let mut settings = Vec::new();
        compare("", &before, &after, &mut settings);
        Self {
            routes,
            moved_routes,
            upstreams,
            plugins,
            listeners,
            settings,
        }
    }

    /// Whether nothing is different.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What is compared of a configuration: its values, and what the files say that its routes name, and
/// the TLS of its upstreams.
pub fn compared(config: &GatewayConfig) -> Value {
    let mut compared = serde_json::to_value(config).unwrap_or_default();
    let add = |place: Option<&mut Value>, digest: &str| {
        if let Some(Value::String(file)) = place {
            file.push_str(&format!(" (SHA-256 {digest})"));
        }
    };
    for (name, upstream) in &config.upstreams {
        let shown = compared["upstreams"].get_mut(name);
        let Some(tls) = shown.and_then(|shown| shown.get_mut("tls")) else {
            continue;
        };
        for (below, digest) in &upstream.tls.contents {
            add(
                tls.pointer_mut(&format!("/{}", below.replace('.', "/"))),
                digest,
            );
        }
    }
    for (n, route) in config.routes.iter().enumerate() {
        let mut note = |below: &str, content: &[u8]| {
            let below = below.replace(['.', '['], "/").replace(']', "");
            let place = compared.pointer_mut(&format!("/routes/{n}/{below}"));
            add(place, &config::shown_digest(content));
        };
        for (below, file) in route.clone().answer_files() {
            note(&below, &file.content);
        }
        let auth = route.auth.iter();
        for (below, text) in auth.flat_map(AuthConfig::texts_of_files) {
            note(&format!("auth.{below}"), text.as_bytes());
        }
    }
    compared
}

/// The configuration without what the TLS files of its upstreams hold. These are looked at again while
/// they are used, so what they held when a configuration was read says nothing of what is in use.
pub fn without_origin_files(config: &GatewayConfig) -> GatewayConfig {
    let mut config = config.clone();
    for upstream in config.upstreams.values_mut() {
        upstream.tls.contents.clear();
    }
    config
}

impl NamedChanges {
    fn between(
        before: &BTreeMap<String, ComparedValue>,
        after: &BTreeMap<String, ComparedValue>,
    ) -> Self {
        type Named = BTreeMap<String, ComparedValue>;
        let only = |these: &Named, those: &Named| {
            let names = these.keys().filter(|name| !those.contains_key(*name));
            names.cloned().collect()
        };
        let mut changed = BTreeMap::new();
        for (name, now) in after {
            let mut values = Vec::new();
            if let Some(then) = before.get(name) {
                compare("", then, now, &mut values);
            }
            if !values.is_empty() {
                changed.insert(name.clone(), values);
            }
        }
        Self {
            added: only(after, before),
            removed: only(before, after),
            changed,
        }
    }
}

impl ComparedValue {
    fn of(value: Value) -> Self {
        let shown = config::hidden(&value);
        Self { value, shown }
    }

    /// What is there under a key; null if there is nothing.
    fn at(&self, key: &str) -> Self {
        let of = |value: &Value| value.get(key).cloned().unwrap_or_default();
        Self {
            value: of(&self.value),
            shown: of(&self.shown),
        }
    }

    /// The values of a mapping by their keys, or those of a list by what each has under `name`. Of
    /// several with one name, such as listeners on port 0, each has its number.
    fn by_name(&self, name: &str) -> BTreeMap<String, Self> {
        let mut all = BTreeMap::new();
        match &self.value {
            Value::Object(keys) => {
                all.extend(keys.keys().map(|key| (key.clone(), self.at(key))));
            }
            Value::Array(list) => {
                for (n, name) in names(&self.value, name).into_iter().enumerate() {
                    let mut unique = name.clone();
                    let mut number = 1;
                    while all.contains_key(&unique) {
                        number += 1;
                        unique = format!("{name} ({number})");
                    }
                    let value = list[n].clone();
                    let shown = self.shown.get(n).cloned().unwrap_or_default();
                    all.insert(unique, Self { value, shown });
                }
            }
            _ => {}
        }
        all
    }
}

fn names(list: &Value, name: &str) -> Vec<String> {
    let list = list.as_array().into_iter().flatten();
    let names = list.map(|value| value[name].as_str().unwrap_or_default().to_owned());
    names.collect()
}

/// Those that stand in another order: which of the others are before them has changed.
fn moved(before: &[String], after: &[String]) -> Vec<String> {
    let stay = |these: &[String], those: &[String]| -> Vec<String> {
        let both = these.iter().filter(|name| those.contains(name));
        both.cloned().collect()
    };
    let (before, after) = (stay(before, after), stay(after, before));
    let differ = before.iter().zip(&after).filter(|(then, now)| then != now);
    differ.map(|(_, now)| now.clone()).collect()
}

/// Collects the keys below `path` that have different values.
fn compare(
    path: &str,
    before: &ComparedValue,
    after: &ComparedValue,
    found: &mut Vec<ChangedValue>,
) {
    if before.value == after.value {
        return;
    }
    match (&before.value, &after.value) {
        (Value::Object(then), Value::Object(now)) => {
            let mut keys: Vec<&String> = then.keys().chain(now.keys()).collect();
            keys.sort_unstable();
            keys.dedup();
            for key in keys {
                let path = match path {
                    "" => key.clone(),
                    path => format!("{path}.{key}"),
                };
                compare(&path, &before.at(key), &after.at(key), found);
            }
        }
        _ => found.push(ChangedValue {
            key: path.to_owned(),
            before: before.shown.clone(),
            after: after.shown.clone(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn changes(before: &str, after: &str) -> ConfigChanges {
        let read = |text: &str| {
            let text = format!("version: 1\n{text}");
            config::parse(&text, "lamina.yaml", &|_| None).unwrap()
        };
        ConfigChanges::between(&read(before), &read(after))
    }

    const BEFORE: &str = "
listeners: [{address: 127.0.0.1:0}, {address: 127.0.0.1:8443}]
upstreams: {a: \"http://127.0.0.1:1\", b: \"http://127.0.0.1:2\"}
admin: {token: before-before}
routes:
  - {name: one, match: {path: /one}, upstream: a}
  - {name: two, match: {path: /two}, upstream: b}
  - {name: rest, upstream: a, policy: {ttl: 1m}}
";

    #[test]
    fn each_part_is_told_by_its_name() {
        let after = "
listeners: [{address: 127.0.0.1:0, limits: {max_connections: 7}}, {address: 127.0.0.1:9000}]
upstreams: {a: \"http://127.0.0.1:1\", c: \"http://127.0.0.1:3\"}
admin: {token: after-after}
cache: {l1: {max_bytes: 1GiB}}
routes:
  - {name: new, match: {path: /one}, upstream: a}
  - {name: two, match: {path: /two}, upstream: c}
  - {name: rest, upstream: a, policy: {ttl: 2m}}
";
        let changes = changes(BEFORE, after);
        assert_eq!(changes.routes.added, ["new"]);
        assert_eq!(changes.routes.removed, ["one"]);
        let of_rest = &changes.routes.changed["rest"];
        assert_eq!(of_rest.len(), 1, "{of_rest:?}");
        assert_eq!(of_rest[0].key, "policy.ttl");
        assert_eq!(of_rest[0].after, "2m");
        assert!(changes.routes.changed.contains_key("two"));
        assert_eq!(changes.upstreams.removed, ["b"]);
        assert_eq!(changes.listeners.added, ["127.0.0.1:9000"]);
        let of_first = &changes.listeners.changed["127.0.0.1:0"];
        assert_eq!(of_first[0].key, "limits.max_connections");
        let keys: Vec<_> = changes.settings.iter().map(|value| &*value.key).collect();
        assert_eq!(keys, ["admin.token", "cache.l1.max_bytes"]);
        let token = &changes.settings[0];
        assert_eq!(
            (&token.before, &token.after),
            (&"***".into(), &"***".into())
        );
    }

    #[test]
    fn the_same_is_no_change_and_another_order_is_one() {
        assert!(changes(BEFORE, BEFORE).is_empty());
        let swapped = BEFORE
            .replace("name: one", "name: 1")
            .replace("name: two", "name: one");
        let swapped = swapped.replace("name: 1", "name: two");
        let changes = changes(BEFORE, &swapped);
        assert_eq!(changes.moved_routes, ["two", "one"]);
    }

    #[test]
    fn what_tls_files_of_upstreams_held_when_they_were_read_can_be_left_out() {
        let mut both = [(); 2].map(|()| {
            let text = format!("version: 1\n{BEFORE}");
            config::parse(&text, "lamina.yaml", &|_| None).unwrap()
        });
        for (config, digest) in both.iter_mut().zip(["1", "2"]) {
            let tls = &mut config.upstreams.get_mut("a").unwrap().tls;
            tls.ca_file = Some("ca.pem".into());
            tls.contents = vec![("ca_file", digest.to_owned())];
        }
        let [before, after] = &both;
        assert!(!ConfigChanges::between(before, after).is_empty());
        let [before, after] = [before, after].map(without_origin_files);
        assert!(ConfigChanges::between(&before, &after).is_empty());
    }
}
