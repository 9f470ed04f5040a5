//! The draft: what translators put into it, and its text.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::source::{self, SourceStatement, StatementFate};

/// Keys with their values, in the order in which they came.
#[derive(Clone, Default)]
pub struct DraftMap {
    entries: Vec<(String, Value)>,
}

impl DraftMap {
    /// Sets the value at a path of keys with dots between them.
    pub fn set(&mut self, path: &str, value: impl Into<Value>) {
        *self.place(path) = value.into();
    }

    /// Sets it where there is none.
    pub fn set_default(&mut self, path: &str, value: impl Into<Value>) {
        let place = self.place(path);
        if place.is_null() {
            *place = value.into();
        }
    }

    /// Adds to the list at a path what it does not have yet.
    pub fn add(&mut self, path: &str, value: impl Into<Value>) {
        let (place, value) = (self.place(path), value.into());
        match place {
            Value::Array(list) if list.contains(&value) => {}
            Value::Array(list) => list.push(value),
            place => *place = json!([value]),
        }
    }

    /// Sets a key, which may contain dots, of the mapping at a path.
    pub fn set_in(&mut self, path: &str, key: &str, value: impl Into<Value>) {
        let place = self.place(path);
        if !place.is_object() {
            *place = json!({});
        }
        place[key] = value.into();
    }

    /// Adds a pattern for the value of a header field or a parameter: one of several may fit.
    pub fn add_value(&mut self, path: &str, name: &str, pattern: impl Into<Value>) {
        let place = self.place(path);
        if !place.is_object() {
            *place = json!({});
        }
        let (known, pattern) = (&mut place[name], pattern.into());
        if known.is_null() {
            *known = pattern;
        } else if *known != pattern {
            let mut case = json!("exact");
            let mut any = Vec::new();
            for one in [known.take(), pattern] {
                if one["case"] == "ignore" {
                    case = json!("ignore");
                }
                match one.get("any").and_then(Value::as_array) {
                    Some(list) => any.extend(list.iter().cloned()),
                    None => any.push(one),
                }
            }
            *known = json!({ "any": any, "case": case });
        }
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
                Some((_, own)) => merge(own, value),
                None => self.entries.push((key.clone(), value.clone())),
            }
        }
    }

    fn place(&mut self, path: &str) -> &mut Value {
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
fn merge(own: &mut Value, other: &Value) {
    match (own, other) {
        (Value::Object(own), Value::Object(other)) => {
            for (key, value) in other {
                merge(own.entry(key.clone()).or_insert(Value::Null), value);
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

/// The order of what stands at the top.
const BEFORE: [&str; 2] = ["server", "telemetry"];
const BETWEEN: [&str; 3] = ["cache", "defaults", "limits"];
const AFTER: [&str; 1] = ["purge_method"];

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

    /// The upstream of this name, new if need be.
    pub fn upstream(&mut self, name: &str) -> &mut DraftMap {
        let known = self.upstreams.iter().position(|(known, _)| known == name);
        let at = known.unwrap_or_else(|| {
            self.upstreams.push((name.to_owned(), DraftMap::default()));
            self.upstreams.len() - 1
        });
        &mut self.upstreams[at].1
    }

    /// What every configuration must have, where nothing of the original says it.
    fn completed(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        if self.listeners.is_empty() {
            let mut listener = DraftMap::default();
            listener.set("address", "0.0.0.0:8080");
            self.listeners.push(listener);
            told.push("the original names no address to listen on; put yours".to_owned());
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
                told.push(format!(
                    "the original names no HTTP server for upstream {name}; put yours"
                ));
            }
        }
        self.upstreams.retain(|(name, _)| used.contains(name));
        told
    }

    /// The draft as YAML, with a comment for each statement that it does not say.
    pub fn text(mut self, file: &Path, statements: &[SourceStatement]) -> String {
        let told = self.completed();
        let names: Vec<String> = self.routes.iter().filter_map(name_of).collect();
        let at_home = |one: &&SourceStatement| one.home().is_some_and(|home| names.contains(&home));
        let every = source::all(statements);
        let (housed, homeless): (Vec<_>, Vec<_>) = every.iter().copied().partition(at_home);

        let mut text = format!(
            "# A draft out of {}. Read it, put in what is missing, and try it:\n\
             # lamina validate -c FILE; lamina explain -c FILE URL\n",
            file.display()
        );
        for remark in told {
            let _ = writeln!(text, "# missing: {remark}");
        }
        for one in homeless {
            comment(&mut text, "", one);
        }
        text.push_str("version: 1\n");
        self.write_top(&mut text, &BEFORE);
        self.write_listeners(&mut text);
        self.write_upstreams(&mut text);
        self.write_top(&mut text, &BETWEEN);
        self.write_routes(&mut text, &housed);
        self.write_top(&mut text, &AFTER);
        let _ = writeln!(text, "# {}", DraftTally::of(&every));
        text
    }

    fn write_top(&self, text: &mut String, keys: &[&str]) {
        for key in keys {
            match self.top.get(key) {
                Some(Value::Object(inside)) if !inside.is_empty() => {
                    let _ = writeln!(text, "{key}:");
                    for pair in pairs(inside) {
                        let _ = writeln!(text, "  {pair}");
                    }
                }
                Some(value) if !value.is_null() => {
                    let _ = writeln!(text, "{key}: {}", flow(value));
                }
                _ => {}
            }
        }
    }

    fn write_listeners(&self, text: &mut String) {
        text.push_str("listeners:\n");
        self.listeners.iter().for_each(|one| item(text, one, &[]));
    }

    fn write_upstreams(&self, text: &mut String) {
        if !self.upstreams.is_empty() {
            text.push_str("upstreams:\n");
        }
        for (name, upstream) in &self.upstreams {
            let _ = writeln!(text, "  {name}:");
            for (key, value) in &upstream.entries {
                let _ = writeln!(text, "    {key}: {}", flow(value));
            }
        }
    }

    fn write_routes(&self, text: &mut String, housed: &[&SourceStatement]) {
        text.push_str("routes:\n");
        for route in &self.routes {
            let name = name_of(route);
            let own = housed.iter().filter(|one| one.home() == name);
            let own: Vec<&SourceStatement> = own.copied().collect();
            item(text, route, &own);
        }
    }
}

fn name_of(route: &DraftMap) -> Option<String> {
    Some(route.get("name")?.as_str()?.to_owned())
}

/// An item of a list, with the comments after its first line.
fn item(text: &mut String, map: &DraftMap, comments: &[&SourceStatement]) {
    for (n, (key, value)) in map.entries.iter().enumerate() {
        let dash = if n == 0 { "- " } else { "  " };
        let _ = writeln!(text, "  {dash}{key}: {}", flow(value));
        if n == 0 {
            comments.iter().for_each(|one| comment(text, "    ", one));
        }
    }
}

/// The comment for a statement that the draft does not say, or says otherwise.
fn comment(text: &mut String, indent: &str, one: &SourceStatement) {
    let why = one.remark();
    let shown: String = one.text.chars().take(200).collect();
    let shown = shown.replace(['\n', '\r'], " ");
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
fn flow(value: &Value) -> String {
    match value {
        Value::Object(map) if map.is_empty() => "{}".to_owned(),
        Value::Object(map) => format!("{{ {} }}", pairs(map).join(", ")),
        Value::Array(list) => {
            let items: Vec<String> = list.iter().map(flow).collect();
            format!("[{}]", items.join(", "))
        }
        Value::String(text) => scalar(text),
        other => other.to_string(),
    }
}

/// The pairs of a mapping in the order of their keys, so that the same original gives the same text.
fn pairs(map: &Map<String, Value>) -> Vec<String> {
    let mut pairs: Vec<(&String, &Value)> = map.iter().collect();
    pairs.sort_by_key(|(key, _)| *key);
    let pair = |(key, value): &(&String, &Value)| format!("{}: {}", scalar(key), flow(value));
    pairs.iter().map(pair).collect()
}

/// A text as YAML, in quotation marks where it needs them. A dollar sign that begins no variable is
/// doubled, since Lamina expands variables.
fn scalar(text: &str) -> String {
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
