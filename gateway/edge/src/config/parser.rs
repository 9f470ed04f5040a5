//! Turns YAML text into the tree whose nodes know their position.
//!
//! Decision: the tree is built in one pass from the events of `saphyr-parser`, so that values,
//! positions and quoting cannot disagree, as they could between two parsers. Aliases are copied
//! within a budget, nesting has a limit, duplicate keys and tags are refused. A test compares the
//! result with `serde_yaml`.
//!
//! Invariant: memory is bounded by the size of the text plus `ALIAS_BUDGET`.

use std::collections::{HashMap, HashSet};

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span};

use super::excerpt::lines;
use super::problem::{ConfigFinding, ConfigPath, ConfigPathStep, FindingPlace};
use super::sources;
use super::tree::{YamlKey, YamlNode, YamlPosition, YamlScalar, YamlValue};

/// The most levels of nesting; the format itself needs eight.
const MAX_DEPTH: usize = 64;

/// The most nodes and bytes that aliases may add together.
const ALIAS_BUDGET: usize = 1 << 20;

/// What aliases may still add, in all files of a configuration together.
pub struct AliasBudget(usize);

impl Default for AliasBudget {
    fn default() -> Self {
        Self(ALIAS_BUDGET)
    }
}

/// Reads one YAML document that is no part of a configuration of several files.
pub fn parse(text: &str) -> Result<YamlNode, ConfigFinding> {
    parse_source(text, sources::MAIN, &mut AliasBudget::default())
}

/// Reads the YAML document of the source with this number.
pub fn parse_source(
    text: &str,
    source: usize,
    budget: &mut AliasBudget,
) -> Result<YamlNode, ConfigFinding> {
    let mut builder = YamlTreeBuilder {
        source,
        stack: Vec::new(),
        anchors: HashMap::new(),
        budget: budget.0,
        root: None,
    };
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|e| syntax(text, source, &e))?;
        builder.take(event, span)?;
    }
    budget.0 = builder.budget;
    let root = builder.root;
    root.ok_or_else(|| ConfigFinding::source(source, EMPTY))
}

pub const EMPTY: &str = "the file is empty; expected at least `version`, `listeners` and `routes`";

/// A list or mapping that is not closed yet.
struct OpenCollection {
    at: YamlPosition,
    anchor: usize,
    open: CollectionItems,
}

enum CollectionItems {
    List(Vec<YamlNode>),
    Map {
        entries: Vec<(YamlKey, YamlNode)>,
        names: HashSet<String>,
        key: Option<YamlKey>,
    },
}

struct YamlTreeBuilder {
    source: usize,
    stack: Vec<OpenCollection>,
    anchors: HashMap<usize, (YamlNode, usize)>,
    budget: usize,
    root: Option<YamlNode>,
}

impl YamlTreeBuilder {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), ConfigFinding> {
        let mut at = mark(span, self.source);
        if !matches!(event, Event::Scalar(..) | Event::Alias(_)) {
            // For a list or mapping, only the first character is known here.
            at.width = 1;
        }
        match event {
            Event::Scalar(_, _, _, Some(tag))
            | Event::SequenceStart(_, Some(tag))
            | Event::MappingStart(_, Some(tag)) => Err(self.wrong(
                at,
                format!(
                    "the YAML tag `{}{}` is not supported; expected a plain value",
                    tag.handle, tag.suffix
                ),
            )),
            Event::Scalar(text, style, anchor, None) => {
                let scalar = YamlScalar {
                    text: text.into_owned(),
                    plain: style == ScalarStyle::Plain,
                    expanded: false,
                    variables: Vec::new(),
                };
                self.add(
                    YamlNode {
                        at,
                        body: YamlValue::Scalar(scalar),
                    },
                    anchor,
                )
            }
            Event::SequenceStart(anchor, None) => {
                self.open(at, anchor, CollectionItems::List(Vec::new()))
            }
            Event::MappingStart(anchor, None) => self.open(
                at,
                anchor,
                CollectionItems::Map {
                    entries: Vec::new(),
                    names: HashSet::new(),
                    key: None,
                },
            ),
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(anchor) => self.alias(at, anchor),
            Event::DocumentStart(_) if self.root.is_some() => {
                Err(self.wrong(at, "a second YAML document; expected one in a file"))
            }
            Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::StreamStart
            | Event::StreamEnd
            | Event::Nothing => Ok(()),
        }
    }

    fn open(
        &mut self,
        at: YamlPosition,
        anchor: usize,
        open: CollectionItems,
    ) -> Result<(), ConfigFinding> {
        if self.stack.len() == MAX_DEPTH {
            return Err(ConfigFinding::at(at, too_deep()));
        }
        self.stack.push(OpenCollection { at, anchor, open });
        Ok(())
    }

    fn close(&mut self) -> Result<(), ConfigFinding> {
        let Some(OpenCollection { at, anchor, open }) = self.stack.pop() else {
            return Ok(());
        };
        let body = match open {
            CollectionItems::List(items) => YamlValue::List(items),
            CollectionItems::Map { entries, .. } => YamlValue::Map(entries),
        };
        self.add(YamlNode { at, body }, anchor)
    }

    fn alias(&mut self, at: YamlPosition, anchor: usize) -> Result<(), ConfigFinding> {
        let Some((node, weight)) = self.anchors.get(&anchor) else {
            return Err(self.wrong(
                at,
                "this alias stands inside the value that it names; expected a finished value",
            ));
        };
        let Some(rest) = self.budget.checked_sub(*weight) else {
            return Err(self.wrong(
                at,
                "aliases make the file too large; expected fewer or smaller ones",
            ));
        };
        let node = node.clone();
        self.budget = rest;
        self.add(node, 0)
    }

    fn add(&mut self, node: YamlNode, anchor: usize) -> Result<(), ConfigFinding> {
        if anchor != 0 {
            // Nested anchors copy their content as well, so it counts against the budget, too.
            let weight = node.weight();
            self.budget = self.budget.checked_sub(weight).ok_or_else(|| {
                self.wrong(
                    node.at,
                    "anchors hold too much; expected fewer or smaller ones",
                )
            })?;
            self.anchors.insert(anchor, (node.clone(), weight));
        }
        match self.stack.last_mut().map(|frame| &mut frame.open) {
            None => self.root = Some(node),
            Some(CollectionItems::List(items)) => items.push(node),
            Some(CollectionItems::Map { entries, key, .. }) if key.is_some() => {
                entries.extend(key.take().map(|key| (key, node)));
            }
            Some(CollectionItems::Map { .. }) => return self.add_key(node),
        }
        Ok(())
    }

    fn add_key(&mut self, node: YamlNode) -> Result<(), ConfigFinding> {
        let YamlValue::Scalar(YamlScalar { text: name, .. }) = node.body else {
            return Err(self.wrong(node.at, "a list or mapping as a key; expected a name"));
        };
        let key = YamlKey { name, at: node.at };
        if let Some(complaint) = self.refuse_key(&key) {
            let mut finding = self.wrong(key.at, complaint);
            finding.path = finding.path.key(key.name);
            return Err(finding);
        }
        if let Some(OpenCollection {
            open: CollectionItems::Map {
                names, key: slot, ..
            },
            ..
        }) = self.stack.last_mut()
        {
            names.insert(key.name.clone());
            *slot = Some(key);
        }
        Ok(())
    }

    fn refuse_key(&self, key: &YamlKey) -> Option<String> {
        let Some(OpenCollection {
            open: CollectionItems::Map { entries, names, .. },
            ..
        }) = self.stack.last()
        else {
            return None;
        };
        if key.name == "<<" {
            return Some(
                "merge keys are not supported; expected values for all routes under `defaults`"
                    .to_owned(),
            );
        }
        if !names.contains(&key.name) {
            return None;
        }
        let first = entries
            .iter()
            .find(|(k, _)| k.name == key.name)
            .map_or(0, |(k, _)| k.at.line);
        Some(format!("given twice, first in line {first}; expected once"))
    }

    /// A finding at `at`, with the path to the builder's current position.
    fn wrong(&self, at: YamlPosition, message: impl Into<String>) -> ConfigFinding {
        let steps = self.stack.iter().filter_map(|frame| match &frame.open {
            CollectionItems::List(items) => Some(ConfigPathStep::Index(items.len())),
            CollectionItems::Map { key, .. } => {
                key.as_ref().map(|k| ConfigPathStep::Key(k.name.clone()))
            }
        });
        ConfigFinding {
            path: ConfigPath(steps.collect()),
            place: FindingPlace::At(at),
            message: message.into(),
        }
    }
}

fn mark(span: Span, source: usize) -> YamlPosition {
    let (start, end) = (span.start, span.end);
    let width = if start.line() == end.line() {
        end.col().saturating_sub(start.col())
    } else {
        usize::MAX
    };
    YamlPosition {
        source,
        line: start.line(),
        column: start.col() + 1,
        width: width.max(1),
    }
}

fn too_deep() -> String {
    format!("nested too deep; expected at most {MAX_DEPTH} levels")
}

/// The parser's error, with the usual cause if the line shows it.
fn syntax(text: &str, source: usize, error: &ScanError) -> ConfigFinding {
    let at = YamlPosition {
        source,
        line: error.marker().line(),
        column: error.marker().col() + 1,
        width: 1,
    };
    let source_line = lines(text)
        .nth(at.line.saturating_sub(1))
        .unwrap_or_default();
    let indent = &source_line[..source_line.len() - source_line.trim_start().len()];
    if let Some(tab) = indent.chars().position(|c| c == '\t') {
        return ConfigFinding::at(
            YamlPosition {
                column: tab + 1,
                ..at
            },
            "a tab in the indentation; YAML is indented with spaces",
        );
    }
    // The parser looks ahead, so it may reach its own limit before ours.
    if error.info().contains("recursion limit") {
        return ConfigFinding::at(at, too_deep());
    }
    let hint = if lines(text)
        .skip(at.line.saturating_sub(1))
        .all(|line| line.trim().is_empty())
    {
        "; the file ends here"
    } else if source_line.contains("${") && error.info().contains("flow") {
        "; inside { } and [ ] put quotes around ${…}"
    } else {
        ""
    };
    ConfigFinding::at(at, format!("not valid YAML: {}{hint}", error.info()))
}
