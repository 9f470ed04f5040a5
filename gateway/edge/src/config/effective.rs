//! The whole configuration as it takes effect, with where each value comes from: a line of a file,
//! a variable, or a default.
//!
//! The values are those of the typed configuration. Their places are those of the joined tree: the
//! two have the same paths, but for short forms. What a short form stands for (`shop: http://a` for
//! a mapping with one target) comes from its line, and all else below it is a default.
//!
//! Secrets are hidden. Paths of files are shown as they are written.

use std::path::Path;

use serde_yaml::{Mapping, Value};

use super::include::INCLUDE;
use super::problem::ConfigFinding;
use super::sources::{self, ConfigSources};
use super::tree::{YamlNode, YamlScalar, YamlValue};
use super::yaml_text::{self, ValueComments};
use super::{ConfigDocument, ConfigProblems, de, read_text, secret};

/// Which values are shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ShownValues {
    /// All, with the defaults.
    All,
    /// What the files give.
    Given,
}

/// A valid configuration with the places of its values.
pub struct EffectiveConfig {
    document: ConfigDocument,
    all: Mapping,
}

/// Reads and checks a configuration, to be shown.
///
/// # Errors
/// Whatever is wrong with it.
pub fn effective(file: &Path) -> Result<EffectiveConfig, ConfigProblems> {
    let (name, text) = read_text(file)?;
    EffectiveConfig::read(&text, &name, &|variable| std::env::var(variable).ok())
}

impl EffectiveConfig {
    fn read(
        text: &str,
        file: &str,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigProblems> {
        let mut document = ConfigDocument::read(text, file, env)?;
        document.expand(env)?;
        let typed = document.typed()?;
        let all = secret::redacted_value(&typed);
        document.checked(typed)?;
        let unshown = |what: String| {
            let finding = ConfigFinding::file(format!("cannot be shown: {what}"));
            ConfigProblems::one(finding.locate(&document.sources, None))
        };
        let all = all.map_err(|error| unshown(error.to_string()))?;
        let Value::Mapping(mut all) = all else {
            return Err(unshown("it is no mapping".to_owned()));
        };
        // What it included is here.
        all.shift_remove(INCLUDE);
        Ok(Self { document, all })
    }

    /// As YAML, with where each value comes from behind it.
    pub fn yaml(&self, shown: ShownValues) -> String {
        let sources = &self.document.sources;
        let main = sources.name(sources::MAIN);
        let folder = Path::new(main)
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.map_or_else(|| ".".to_owned(), |folder| folder.display().to_string());
        let included = match sources.names().count() - 1 {
            0 => " says".to_owned(),
            1 => " and the file that it includes say".to_owned(),
            n => format!(" and the {n} files that it includes say"),
        };
        let places = ValuePlaces {
            sources,
            written: WrittenValue::Node(&self.document.root),
        };
        format!(
            "# What {main}{included}. Secrets are ***; paths are relative to {folder}\n{}",
            yaml_text::text(&self.values(shown), places)
        )
    }

    /// As JSON.
    pub fn json(&self, shown: ShownValues) -> serde_json::Value {
        let value = Value::Mapping(self.values(shown));
        serde_json::to_value(value).unwrap_or_default()
    }

    fn values(&self, shown: ShownValues) -> Mapping {
        match shown {
            ShownValues::All => self.all.clone(),
            ShownValues::Given => {
                let root = &self.document.root;
                let mut given: Value = de::read(root).unwrap_or_default();
                settle(&mut given, root, &Value::Mapping(self.all.clone()));
                secret::hide(&mut given);
                match given {
                    Value::Mapping(map) => map,
                    _ => Mapping::new(),
                }
            }
        }
    }
}

/// Gives what comes from variables the type that it is used as.
fn settle(value: &mut Value, node: &YamlNode, typed: &Value) {
    match (value, &node.body) {
        (Value::Mapping(map), YamlValue::Map(entries)) => {
            for (key, node) in entries {
                if let Some(value) = map.get_mut(key.name.as_str()) {
                    settle(
                        value,
                        node,
                        typed.get(key.name.as_str()).unwrap_or(&Value::Null),
                    );
                }
            }
        }
        (Value::Sequence(list), YamlValue::List(items)) => {
            for (n, (value, node)) in list.iter_mut().zip(items).enumerate() {
                settle(value, node, typed.get(n).unwrap_or(&Value::Null));
            }
        }
        (value, YamlValue::Scalar(scalar)) if scalar.expanded => {
            *value = match typed {
                Value::Bool(_) | Value::Number(_) => typed.clone(),
                _ => Value::String(scalar.text.clone()),
            };
        }
        _ => {}
    }
}

/// What the files have at the place of a value.
#[derive(Clone, Copy)]
enum WrittenValue<'a> {
    Node(&'a YamlNode),
    /// A short form above it.
    Short(&'a YamlNode, &'a YamlScalar),
    Nothing,
}

/// Where the values below a place come from.
#[derive(Clone, Copy)]
struct ValuePlaces<'a> {
    sources: &'a ConfigSources,
    written: WrittenValue<'a>,
}

impl<'a> ValuePlaces<'a> {
    fn step(self, below: impl FnOnce(&'a YamlNode) -> Option<&'a YamlNode>) -> Self {
        let written = match self.written {
            WrittenValue::Node(node) => match &node.body {
                YamlValue::Scalar(scalar) if !node.is_null() => WrittenValue::Short(node, scalar),
                _ => below(node).map_or(WrittenValue::Nothing, WrittenValue::Node),
            },
            above => above,
        };
        Self { written, ..self }
    }

    fn source_of(self, node: &YamlNode) -> String {
        let at = node.at;
        let place = format!("{}:{}", self.sources.name(at.source), at.line);
        match &node.body {
            YamlValue::Scalar(scalar) if !scalar.variables.is_empty() => {
                let names = scalar.variables.iter().map(|name| format!("${{{name}}}"));
                format!("{}, {place}", names.collect::<Vec<_>>().join(" "))
            }
            _ => place,
        }
    }
}

impl ValueComments for ValuePlaces<'_> {
    fn key(self, name: &str) -> Self {
        self.step(|node| node.get(name))
    }

    fn item(self, n: usize) -> Self {
        self.step(|node| match &node.body {
            YamlValue::List(items) => items.get(n),
            _ => None,
        })
    }

    fn comment(self, value: &Value) -> String {
        match self.written {
            WrittenValue::Node(node) => self.source_of(node),
            WrittenValue::Short(node, scalar) if value.as_str() == Some(&scalar.text) => {
                self.source_of(node)
            }
            WrittenValue::Short(..) | WrittenValue::Nothing => "default".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests;
