//! Keys with their values, and why a route is more careful than the original.

use serde_json::{Value, json};

use super::super::source::{SourcePlace, SourceStatement};
use super::text;

/// Keys with their values, in the order in which they came.
#[derive(Clone, Default)]
pub struct DraftMap {
    pub(super) entries: Vec<(String, Value)>,
    pub(super) cautions: Vec<RouteCaution>,
}

/// What a route does as long as nobody has said what the draft could not say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CautiousStep {
    /// It answers 403 to everybody.
    Close,
    /// So it does, and has nothing else to show.
    Refuse,
    /// It goes past the cache.
    LeaveUncached,
}

impl CautiousStep {
    /// How its comment begins, and what it tells a person to do.
    pub(super) fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Close => (
                "closed",
                "say who may have it (access, auth, a route before this one), then take `access.deny` away",
            ),
            Self::Refuse => (
                "closed",
                "say where it leads (redirect, rewrite, a route before this one), then take this route away",
            ),
            Self::LeaveUncached => (
                "not cached",
                "say it (bypass, key, a route before this one), then take `cache: off` away",
            ),
        }
    }
}

/// Why a route is more careful than the original: this statement bears on who may see something, or on
/// what is stored, and the draft does not say it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct RouteCaution {
    pub(super) step: CautiousStep,
    pub(super) place: SourcePlace,
    pub(super) text: String,
    pub(super) why: String,
}

/// All addresses.
const EVERYBODY: [&str; 2] = ["0.0.0.0/0", "::/0"];

impl DraftMap {
    /// Sets the value at a path of keys with dots between them.
    pub fn set(&mut self, path: &str, value: impl Into<Value>) {
        *self.value_at(path) = value.into();
    }

    /// Sets it where there is none.
    pub fn set_default(&mut self, path: &str, value: impl Into<Value>) {
        let place = self.value_at(path);
        if place.is_null() {
            *place = value.into();
        }
    }

    /// Adds to the list at a path what it does not have yet.
    pub fn add(&mut self, path: &str, value: impl Into<Value>) {
        let (place, value) = (self.value_at(path), value.into());
        match place {
            Value::Array(list) if list.contains(&value) => {}
            Value::Array(list) => list.push(value),
            place => *place = json!([value]),
        }
    }

    /// Sets a key, which may contain dots, of the mapping at a path.
    pub fn set_in(&mut self, path: &str, key: &str, value: impl Into<Value>) {
        let place = self.value_at(path);
        if !place.is_object() {
            *place = json!({});
        }
        place[key] = value.into();
    }

    /// Adds a pattern for the value of a header field or a parameter: one of several may fit.
    pub fn add_value(&mut self, path: &str, name: &str, pattern: impl Into<Value>) {
        let place = self.value_at(path);
        if !place.is_object() {
            *place = json!({});
        }
        let (known, pattern) = (&mut place[name], pattern.into());
        if known.is_null() {
            *known = pattern;
        } else if *known != pattern {
            let mut case = json!("exact");
            let mut any: Vec<Value> = Vec::new();
            for one in [known.take(), pattern] {
                if one["case"] == "ignore" {
                    case = json!("ignore");
                }
                let list = one.get("any").and_then(Value::as_array).cloned();
                for value in list.unwrap_or_else(|| vec![one]) {
                    if !any.contains(&value) {
                        any.push(value);
                    }
                }
            }
            *known = json!({ "any": any, "case": case });
        }
    }

    /// Lets nobody in, since this statement can't be said.
    pub fn close(&mut self, one: &SourceStatement, why: &str) {
        self.note_caution(CautiousStep::Close, one, why);
        self.deny_everybody();
    }

    /// Answers 403 to all of its requests, which this statement leads elsewhere.
    pub fn refuse(&mut self, one: &SourceStatement, why: &str) {
        self.note_caution(CautiousStep::Refuse, one, why);
        self.set("respond.status", 403);
    }

    /// Lets nobody in.
    pub fn deny_everybody(&mut self) {
        self.set("access.deny", EVERYBODY.to_vec());
    }

    /// Sends requests past the cache, since this statement can't be said. What answers by itself has no
    /// use of a cache anyhow.
    pub fn leave_uncached(&mut self, one: &SourceStatement, why: &str) {
        if self.answers_itself() || self.get("cache").is_some_and(|cache| cache == "off") {
            return;
        }
        self.note_caution(CautiousStep::LeaveUncached, one, why);
    }

    fn note_caution(&mut self, step: CautiousStep, one: &SourceStatement, why: &str) {
        let caution = RouteCaution {
            step,
            place: one.place.clone(),
            text: text::shown(one),
            why: why.to_owned(),
        };
        if !self.cautions.contains(&caution) {
            self.cautions.push(caution);
        }
    }

    /// Whether it answers without an upstream.
    pub fn answers_itself(&self) -> bool {
        self.has("respond") || self.has("redirect")
    }

    /// Whether nobody gets anything of it.
    pub fn is_closed(&self) -> bool {
        let status = self.get("respond.status").and_then(Value::as_u64);
        let denied = self.get("access.deny").and_then(Value::as_array);
        let all = |list: &Vec<Value>| EVERYBODY.iter().all(|one| list.contains(&json!(one)));
        status.is_some_and(|status| status >= 400) || denied.is_some_and(all)
    }

    /// Whether its answers are never stored.
    pub fn is_uncached(&self) -> bool {
        let cautious = self.cautions.iter();
        self.get("cache").is_some_and(|cache| cache == "off")
            || cautious
                .into_iter()
                .any(|one| one.step == CautiousStep::LeaveUncached)
    }

    pub fn get(&self, path: &str) -> Option<&Value> {
        let (key, rest) = path.split_once('.').unwrap_or((path, ""));
        let found = &self.entries.iter().find(|(name, _)| name == key)?.1;
        rest.split('.')
            .filter(|part| !part.is_empty())
            .try_fold(found, |value, part| value.get(part))
    }

    pub fn has(&self, path: &str) -> bool {
        self.get(path).is_some_and(|value| !value.is_null())
    }

    /// Takes a key at the top, or one below it, away.
    pub fn remove(&mut self, path: &str) {
        match path.split_once('.') {
            None => self.entries.retain(|(name, _)| name != path),
            Some((key, inner)) => {
                let found = self.entries.iter_mut().find(|(name, _)| name == key);
                if let Some(Value::Object(map)) = found.map(|(_, value)| value) {
                    map.remove(inner);
                }
            }
        }
    }

    /// Takes from another one what is not here.
    pub fn fill_from(&mut self, other: &Self) {
        for (key, value) in &other.entries {
            match self.entries.iter_mut().find(|(name, _)| name == key) {
                Some((_, own)) => merge_values(own, value),
                None => self.entries.push((key.clone(), value.clone())),
            }
        }
        for caution in &other.cautions {
            if !self.cautions.contains(caution) {
                self.cautions.push(caution.clone());
            }
        }
    }

    /// Writes what cautions ask for beside what the original says.
    pub(super) fn obey_cautions(&mut self) {
        if self.is_uncached() {
            self.set("cache", "off");
        }
    }

    fn value_at(&mut self, path: &str) -> &mut Value {
        let (key, rest) = path.split_once('.').unwrap_or((path, ""));
        let known = self.entries.iter().position(|(name, _)| name == key);
        let at = known.unwrap_or_else(|| {
            self.entries.push((key.to_owned(), Value::Null));
            self.entries.len() - 1
        });
        let mut place = &mut self.entries[at].1;
        for part in rest.split('.').filter(|part| !part.is_empty()) {
            if !place.is_object() {
                *place = json!({});
            }
            place = &mut place[part];
        }
        place
    }
}

/// Adds what is not there; lists are joined.
fn merge_values(own: &mut Value, other: &Value) {
    match (own, other) {
        (Value::Object(own), Value::Object(other)) => {
            for (key, value) in other {
                merge_values(own.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (Value::Array(own), Value::Array(other)) => {
            for value in other {
                if !own.contains(value) {
                    own.push(value.clone());
                }
            }
        }
        (own @ Value::Null, other) => *own = other.clone(),
        _ => {}
    }
}
