//! The draft: what translators put into it, and its text.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::source::{self, SourcePlace, SourceStatement, StatementFate};

/// Keys with their values, in the order in which they came.
#[derive(Clone, Default)]
pub struct DraftMap {
    entries: Vec<(String, Value)>,
    cautions: Vec<RouteCaution>,
}

/// What a route does as long as nobody has said what the draft could not say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CautiousStep {
    /// It answers 403 to everybody.
    Close,
    /// It goes past the cache.
    LeaveUncached,
}

impl CautiousStep {
    /// How its comment begins, and what it tells a person to do.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Close => (
                "closed",
                "say who may have it (access, auth, a route before this one), then take `access.deny` away",
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
struct RouteCaution {
    step: CautiousStep,
    place: SourcePlace,
    text: String,
    why: String,
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
            text: shown_text(one),
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
    fn obey_cautions(&mut self) {
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

/// A configuration that is being put together.
#[derive(Default)]
pub struct ConfigDraft {
    /// `server`, `cache`, `defaults`, `limits`, `purge_method`, `telemetry`.
    pub top: DraftMap,
    pub listeners: Vec<DraftMap>,
    pub upstreams: Vec<(String, DraftMap)>,
    /// Each has its `name`.
    pub routes: Vec<DraftMap>,
}

/// What stands at the top, by its place.
const KEYS_BEFORE_LISTENERS: [&str; 2] = ["server", "telemetry"];
const KEYS_BEFORE_ROUTES: [&str; 3] = ["cache", "defaults", "limits"];
const KEYS_AFTER_ROUTES: [&str; 1] = ["purge_method"];

/// The upstream of routes whose server nobody named.
pub const STAND_IN: &str = "origin";

impl ConfigDraft {
    /// A name for a route that no other has.
    pub fn route_name(&self, wanted: &str) -> String {
        let tidy = tidy_name(wanted);
        let taken = |name: &str| {
            let named = self.routes.iter().filter_map(|route| route.get("name"));
            named.into_iter().any(|known| known == name)
        };
        let numbered = (2..).map(|n| format!("{tidy}-{n}"));
        let mut names = std::iter::once(tidy.clone()).chain(numbered);
        names.find(|name| !taken(name)).unwrap_or(tidy)
    }

    /// A name for an upstream that has this target alone: over http and over https a server is two.
    pub fn upstream_name(&self, wanted: &str, target: &str) -> String {
        let is_other = |name: &str| {
            let known = self.upstreams.iter().find(|(known, _)| known == name);
            known.is_some_and(|(_, map)| map.get("targets") != Some(&json!([target])))
        };
        let numbered = (2..).map(|n| format!("{wanted}-{n}"));
        let mut names = std::iter::once(wanted.to_owned()).chain(numbered);
        let free = names.find(|name| !is_other(name));
        free.unwrap_or_else(|| wanted.to_owned())
    }

    /// The upstream of this name, new if need be.
    pub fn upstream(&mut self, name: &str) -> &mut DraftMap {
        let known = self.upstreams.iter().position(|(known, _)| known == name);
        let at = known.unwrap_or_else(|| {
            self.upstreams.push((name.to_owned(), DraftMap::default()));
            self.upstreams.len() - 1
        });
        &mut self.upstreams[at].1
    }

    /// Puts in what every configuration must have and nothing of the original says; what that was.
    fn complete(&mut self) -> Vec<String> {
        let mut missing = Vec::new();
        if self.listeners.is_empty() {
            let mut listener = DraftMap::default();
            listener.set("address", "0.0.0.0:8080");
            self.listeners.push(listener);
            missing.push("the original names no address to listen on; put yours".to_owned());
        }
        if self.routes.is_empty() {
            let mut route = DraftMap::default();
            route.set("name", "site");
            route.set("upstream", STAND_IN);
            self.routes.push(route);
        }
        let used = self.routes.iter().filter_map(|route| route.get("upstream"));
        let used: Vec<String> = used.filter_map(Value::as_str).map(str::to_owned).collect();
        for name in &used {
            if !self.upstream(name).has("targets") {
                self.upstream(name).add("targets", "http://127.0.0.1:8081");
                missing.push(format!(
                    "the original names no HTTP server for upstream {name}; put yours"
                ));
            }
        }
        self.upstreams.retain(|(name, _)| used.contains(name));
        missing
    }

    /// The draft as YAML, with a comment for each statement that it does not say.
    pub fn text(mut self, file: &Path, statements: &[SourceStatement]) -> String {
        let missing = self.complete();
        self.routes.iter_mut().for_each(DraftMap::obey_cautions);
        let every = source::all(statements);
        let names = self.routes.iter().filter_map(name_of_route);
        let mut of_routes: HashMap<String, Vec<&SourceStatement>> =
            names.map(|name| (name, Vec::new())).collect();
        let mut of_none = Vec::new();
        for one in every.iter().copied() {
            match one.home().and_then(|home| of_routes.get_mut(&home)) {
                Some(own) => own.push(one),
                None => of_none.push(one),
            }
        }

        let mut text = format!(
            "# A draft out of {}. Read it, put in what is missing, and try it:\n\
             # lamina validate -c FILE; lamina explain -c FILE URL\n",
            file.display()
        );
        for remark in missing {
            let _ = writeln!(text, "# missing: {remark}");
        }
        for one in of_none {
            write_comment(&mut text, "", one);
        }
        text.push_str("version: 1\n");
        self.write_top(&mut text, &KEYS_BEFORE_LISTENERS);
        self.write_listeners(&mut text);
        self.write_upstreams(&mut text);
        self.write_top(&mut text, &KEYS_BEFORE_ROUTES);
        self.write_routes(&mut text, &of_routes);
        self.write_top(&mut text, &KEYS_AFTER_ROUTES);
        self.write_cautious_routes(&mut text);
        let _ = writeln!(text, "# {}", DraftTally::of(&every));
        text
    }

    /// How many routes are more careful than the original.
    fn write_cautious_routes(&self, text: &mut String) {
        let count = |step: CautiousStep| {
            let has = |route: &&DraftMap| route.cautions.iter().any(|one| one.step == step);
            self.routes.iter().filter(has).count()
        };
        let closed = count(CautiousStep::Close);
        let uncached = count(CautiousStep::LeaveUncached);
        if closed + uncached > 0 {
            let _ = writeln!(
                text,
                "# {closed} routes are closed and {uncached} are not cached until you have said what their comments name"
            );
        }
    }

    fn write_top(&self, text: &mut String, keys: &[&str]) {
        for key in keys {
            match self.top.get(key) {
                Some(Value::Object(inside)) if !inside.is_empty() => {
                    let _ = writeln!(text, "{key}:");
                    for pair in flow_pairs(inside) {
                        let _ = writeln!(text, "  {pair}");
                    }
                }
                Some(value) if !value.is_null() => {
                    let _ = writeln!(text, "{key}: {}", flow_style(value));
                }
                _ => {}
            }
        }
    }

    fn write_listeners(&self, text: &mut String) {
        text.push_str("listeners:\n");
        self.listeners
            .iter()
            .for_each(|one| write_list_item(text, one, &[]));
    }

    fn write_upstreams(&self, text: &mut String) {
        if !self.upstreams.is_empty() {
            text.push_str("upstreams:\n");
        }
        for (name, upstream) in &self.upstreams {
            let _ = writeln!(text, "  {name}:");
            for (key, value) in &upstream.entries {
                let _ = writeln!(text, "    {key}: {}", flow_style(value));
            }
        }
    }

    fn write_routes(&self, text: &mut String, of_routes: &HashMap<String, Vec<&SourceStatement>>) {
        text.push_str("routes:\n");
        for route in &self.routes {
            let own = name_of_route(route).and_then(|name| of_routes.get(&name));
            write_list_item(text, route, own.map_or(&[], Vec::as_slice));
        }
    }
}

/// The name of a route.
pub fn name_of_route(route: &DraftMap) -> Option<String> {
    Some(route.get("name")?.as_str()?.to_owned())
}

/// An item of a list, with the comments after its first line.
fn write_list_item(text: &mut String, map: &DraftMap, comments: &[&SourceStatement]) {
    for (n, (key, value)) in map.entries.iter().enumerate() {
        let dash = if n == 0 { "- " } else { "  " };
        let _ = writeln!(text, "  {dash}{key}: {}", flow_style(value));
        if n == 0 {
            comments
                .iter()
                .for_each(|one| write_comment(text, "    ", one));
            map.cautions.iter().for_each(|one| write_caution(text, one));
        }
    }
}

fn write_caution(text: &mut String, caution: &RouteCaution) {
    let (begin, advice) = caution.step.words();
    let RouteCaution {
        place,
        text: shown,
        why,
        ..
    } = caution;
    let _ = writeln!(text, "    # {begin}: {place} {shown} ({why}); {advice}");
}

/// The comment for a statement that the draft does not say, or says otherwise.
fn write_comment(text: &mut String, indent: &str, one: &SourceStatement) {
    let why = one.remark();
    let shown = shown_text(one);
    let (words, place) = (why.as_deref(), &one.place);
    let why = words.map_or_else(String::new, |why| format!(" ({why})"));
    let _ = match one.fate() {
        StatementFate::Untouched => {
            writeln!(text, "{indent}# not translated: {place} {shown}{why}")
        }
        StatementFate::InPart => {
            writeln!(text, "{indent}# not translated: {place} {shown}{why}")
        }
        StatementFate::Translated if words.is_some() => {
            writeln!(text, "{indent}# differs: {place} {shown}{why}")
        }
        StatementFate::Translated | StatementFate::NeedsNothing => Ok(()),
    };
}

/// A statement as comments show it: its beginning, in one line.
fn shown_text(one: &SourceStatement) -> String {
    let shown: String = one.text.chars().take(LONGEST_SHOWN).collect();
    shown.replace(['\n', '\r'], " ")
}

/// The most characters of a statement that a comment shows.
const LONGEST_SHOWN: usize = 200;

/// How many statements became what.
#[derive(PartialEq, Eq, Debug)]
struct DraftTally {
    all: usize,
    translated: usize,
    needs_nothing: usize,
    not_translated: usize,
}

impl DraftTally {
    fn of(every: &[&SourceStatement]) -> Self {
        let count = |fates: &[StatementFate]| {
            let of_these = every.iter().filter(|one| fates.contains(&one.fate()));
            of_these.count()
        };
        Self {
            all: every.len(),
            translated: count(&[StatementFate::Translated]),
            needs_nothing: count(&[StatementFate::NeedsNothing]),
            not_translated: count(&[StatementFate::Untouched, StatementFate::InPart]),
        }
    }
}

impl std::fmt::Display for DraftTally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} statements: {} translated, {} that need nothing here, {} not translated",
            self.all, self.translated, self.needs_nothing, self.not_translated
        )
    }
}

/// A text as a name: letters, digits and dashes.
fn tidy_name(wanted: &str) -> String {
    let kept = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let text: String = wanted.chars().map(kept).collect::<String>().to_lowercase();
    let parts: Vec<&str> = text.split('-').filter(|part| !part.is_empty()).collect();
    match parts.is_empty() {
        true => "site".to_owned(),
        false => {
            let name: String = parts.join("-").chars().take(LONGEST_NAME).collect();
            name.trim_matches('-').to_owned()
        }
    }
}

/// The longest name of a route that is made here; a number may follow.
const LONGEST_NAME: usize = 48;

/// A value in YAML's flow style.
fn flow_style(value: &Value) -> String {
    match value {
        Value::Object(map) if map.is_empty() => "{}".to_owned(),
        Value::Object(map) => format!("{{ {} }}", flow_pairs(map).join(", ")),
        Value::Array(list) => {
            let items: Vec<String> = list.iter().map(flow_style).collect();
            format!("[{}]", items.join(", "))
        }
        Value::String(text) => quoted_if_needed(text),
        other => other.to_string(),
    }
}

/// The pairs of a mapping in the order of their keys, so that the same original gives the same text.
fn flow_pairs(map: &Map<String, Value>) -> Vec<String> {
    let mut pairs: Vec<(&String, &Value)> = map.iter().collect();
    pairs.sort_by_key(|(key, _)| *key);
    let pair = |(key, value): &(&String, &Value)| {
        format!("{}: {}", quoted_if_needed(key), flow_style(value))
    };
    pairs.iter().map(pair).collect()
}

/// A text as YAML, in quotation marks where it needs them. A dollar sign that begins no variable is
/// doubled, since Lamina expands variables.
fn quoted_if_needed(text: &str) -> String {
    let text = text.replace('$', "$$").replace("$${", "${");
    let begins_well = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/' || c == '_');
    let is_plain = text
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "/._-*?:".contains(c));
    let is_word =
        ["true", "false", "yes", "no", "on", "off", "null"].contains(&text.to_lowercase().as_str());
    let is_size = text.starts_with(|c: char| c.is_ascii_digit())
        && text.ends_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric());
    let is_safe =
        begins_well && is_plain && !is_word && !text.ends_with(':') && !text.contains(": ");
    match is_safe || is_size {
        true => text,
        false => Value::String(text).to_string(),
    }
}
