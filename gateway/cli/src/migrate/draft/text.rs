//! The text of a draft: YAML, with a comment for each statement that it does not say.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use super::super::source::{self, SourceStatement, StatementFate};
use super::map::{CautiousStep, DraftMap, RouteCaution};
use super::{ConfigDraft, name_of_route, yaml};

/// What stands at the top, by its place.
const KEYS_BEFORE_LISTENERS: [&str; 2] = ["server", "telemetry"];
const KEYS_BEFORE_ROUTES: [&str; 3] = ["cache", "defaults", "limits"];
const KEYS_AFTER_ROUTES: [&str; 1] = ["purge_method"];

impl ConfigDraft {
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
        let count = |steps: &[CautiousStep]| {
            let is_one = |one: &RouteCaution| steps.contains(&one.step);
            let has = |route: &&DraftMap| route.cautions.iter().any(is_one);
            self.routes.iter().filter(has).count()
        };
        let closed = count(&[CautiousStep::Close, CautiousStep::Refuse]);
        let uncached = count(&[CautiousStep::LeaveUncached]);
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
                    for pair in yaml::flow_pairs(inside) {
                        let _ = writeln!(text, "  {pair}");
                    }
                }
                Some(value) if !value.is_null() => {
                    let _ = writeln!(text, "{key}: {}", yaml::flow_style(value));
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
                let _ = writeln!(text, "    {key}: {}", yaml::flow_style(value));
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

/// An item of a list, with the comments after its first line.
fn write_list_item(text: &mut String, map: &DraftMap, comments: &[&SourceStatement]) {
    for (n, (key, value)) in map.entries.iter().enumerate() {
        let dash = if n == 0 { "- " } else { "  " };
        let _ = writeln!(text, "  {dash}{key}: {}", yaml::flow_style(value));
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
    let shown = shown(one);
    let (words, place) = (why.as_deref(), &one.place);
    let why = words.map_or_else(String::new, |why| format!(" ({why})"));
    let _ = match one.fate() {
        StatementFate::Untouched | StatementFate::InPart => {
            writeln!(text, "{indent}# not translated: {place} {shown}{why}")
        }
        StatementFate::Translated if words.is_some() => {
            writeln!(text, "{indent}# differs: {place} {shown}{why}")
        }
        StatementFate::Translated | StatementFate::NeedsNothing => Ok(()),
    };
}

/// A statement as comments show it: its beginning, in one line.
pub(super) fn shown(one: &SourceStatement) -> String {
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
