//! Joins the files that `include` names to the tree of the main file.
//!
//! Decisions: an included file has the form of the main one, so that a part can be moved into it as
//! it is. Files are included by the main file alone: the order of the routes can then be seen in
//! one place, and there are neither circles nor levels. Joining goes one level deep: what lies below
//! the name of an upstream, or below `cache.l1`, stands in one file. Nothing is replaced, so the
//! order of the files decides about the order of lists and about nothing else.
//!
//! Invariant: all files together are not larger than one file may be, and share one budget of
//! aliases.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::MAX_BYTES;
use super::expand::{self, VariableLookup};
use super::file_pattern::{self, MatchedFiles};
use super::parser::{self, AliasBudget};
use super::problem::{ConfigFinding, ConfigPath, MAX_FINDINGS, path};
use super::sources::{self, ConfigSources};
use super::text_file::{BoundedFile, NOT_UTF8, read_bounded};
use super::tree::{YamlKey, YamlNode, YamlPosition, YamlValue};

/// The key.
pub const INCLUDE: &str = "include";

/// The most files that one configuration may include.
pub const MAX_FILES: usize = 1_000;

/// What the joined files say beside their values.
pub struct IncludeFindings {
    /// What is wrong.
    pub errors: Vec<ConfigFinding>,
    /// What is risky.
    pub warnings: Vec<ConfigFinding>,
}

/// Takes `include` out of the tree of the main file, and joins what it names to the tree.
pub fn join(
    root: &mut YamlNode,
    sources: &mut ConfigSources,
    budget: &mut AliasBudget,
    env: VariableLookup<'_>,
) -> IncludeFindings {
    let mut joiner = IncludeJoiner {
        folder: folder_of(sources.name(sources::MAIN)),
        keys: HashMap::new(),
        names: HashMap::new(),
        files: HashSet::new(),
        sources,
        budget,
        findings: IncludeFindings {
            errors: Vec::new(),
            warnings: Vec::new(),
        },
    };
    let YamlValue::Map(entries) = &mut root.body else {
        return joiner.findings;
    };
    let Some(at) = entries.iter().position(|(key, _)| key.name == INCLUDE) else {
        return joiner.findings;
    };
    let (_, named) = entries.remove(at);
    for (n, (key, node)) in entries.iter().enumerate() {
        joiner.keys.insert(key.name.clone(), n);
        joiner.note(key, node);
    }
    for (pattern, at) in joiner.patterns(named, env) {
        joiner.pattern(&pattern, at, entries);
        if joiner.findings.errors.len() >= MAX_FINDINGS {
            break;
        }
    }
    joiner.findings
}

fn folder_of(file: &str) -> PathBuf {
    Path::new(file)
        .parent()
        .map(Path::to_owned)
        .unwrap_or_default()
}

struct IncludeJoiner<'a> {
    folder: PathBuf,
    /// Where each top-level key stands in the tree.
    keys: HashMap<String, usize>,
    /// Where each name of each top-level mapping was first given.
    names: HashMap<String, HashMap<String, YamlPosition>>,
    /// The files that were read, links followed.
    files: HashSet<PathBuf>,
    sources: &'a mut ConfigSources,
    budget: &'a mut AliasBudget,
    findings: IncludeFindings,
}

impl IncludeJoiner<'_> {
    /// Remembers the names that a top-level key has.
    fn note(&mut self, key: &YamlKey, node: &YamlNode) {
        if let YamlValue::Map(inner) = &node.body {
            let names = inner.iter().map(|(name, _)| (name.name.clone(), name.at));
            self.names.insert(key.name.clone(), names.collect());
        }
    }

    /// The texts of `include`, each with its position.
    fn patterns(
        &mut self,
        named: YamlNode,
        env: VariableLookup<'_>,
    ) -> Vec<(String, YamlPosition)> {
        let mut named = named;
        let at = path(&[INCLUDE]);
        let unknown = expand::expand(&mut named, env).into_iter();
        let unknown = unknown.map(|finding| finding.pinned(&named).below(&at));
        self.findings.errors.extend(unknown);
        if !self.findings.errors.is_empty() || named.is_null() {
            return Vec::new();
        }
        let items = match named.body {
            YamlValue::List(items) => items,
            YamlValue::Scalar(_) | YamlValue::Map(_) => vec![named],
        };
        let mut patterns = Vec::new();
        for item in items {
            match item.body {
                YamlValue::Scalar(scalar) if !scalar.text.is_empty() => {
                    patterns.push((scalar.text, item.at));
                }
                _ => self.wrong(
                    item.at,
                    "not the name of a file; expected a path or a list of paths, as in routes/*.yaml",
                ),
            }
        }
        patterns
    }

    /// Joins the files that one pattern matches.
    fn pattern(&mut self, pattern: &str, at: YamlPosition, entries: &mut Vec<(YamlKey, YamlNode)>) {
        match file_pattern::matched(&self.folder, pattern) {
            Err(message) => self.wrong(at, message),
            Ok(MatchedFiles::One(file)) => self.file(&file, at, entries),
            Ok(MatchedFiles::Several(files)) if files.is_empty() => {
                let message = format!(
                    "no file matches `{pattern}`; expected at least one, or no such pattern"
                );
                self.findings.warnings.push(include_finding(at, message));
            }
            Ok(MatchedFiles::Several(files)) => {
                for file in files {
                    self.file(&file, at, entries);
                }
            }
        }
    }

    /// Joins one file, unless an earlier pattern has named it.
    fn file(&mut self, file: &Path, at: YamlPosition, entries: &mut Vec<(YamlKey, YamlNode)>) {
        if self.findings.errors.len() >= MAX_FINDINGS {
            return;
        }
        let name = file.display().to_string();
        let real = |file: &Path| std::fs::canonicalize(file).ok();
        let real_file = real(file);
        if real_file.is_some() && real_file == real(Path::new(self.sources.name(sources::MAIN))) {
            let message = format!(
                "{name} is this file itself; expected others, as in a folder of their own: \
                 routes/*.yaml"
            );
            return self.wrong(at, message);
        }
        let is_other = |about: std::fs::Metadata| !about.is_file() && !about.is_dir();
        if std::fs::metadata(file).is_ok_and(is_other) {
            let message = format!("{name} is no regular file; expected a file with YAML");
            return self.wrong(at, message);
        }
        if !self
            .files
            .insert(real_file.unwrap_or_else(|| file.to_owned()))
        {
            return;
        }
        if self.files.len() > MAX_FILES {
            if self.files.len() == MAX_FILES + 1 {
                let message =
                    format!("more than {MAX_FILES} files; expected fewer and larger ones");
                self.wrong(at, message);
            }
            return;
        }
        let rest = MAX_BYTES.saturating_sub(self.sources.bytes());
        let text = match read_bounded(file, rest) {
            Ok(BoundedFile::Text(text)) => text,
            Ok(BoundedFile::NotUtf8 { lossy, at: place }) => {
                let source = self.sources.add(&name, lossy);
                let finding = ConfigFinding::at(YamlPosition { source, ..place }, NOT_UTF8);
                return self.findings.errors.push(finding);
            }
            Ok(BoundedFile::TooLarge) => {
                let message = format!(
                    "with {name} the configuration is larger than 1 MiB; expected configuration \
                     files alone"
                );
                return self.wrong(at, message);
            }
            Err(error) => return self.wrong(at, format!("{name} cannot be read: {error}")),
        };
        let source = self.sources.add(&name, text);
        if let Err(finding) = self.text(source, entries) {
            self.findings.errors.push(finding);
        }
    }

    /// Joins the text of a source.
    fn text(
        &mut self,
        source: usize,
        entries: &mut Vec<(YamlKey, YamlNode)>,
    ) -> Result<(), ConfigFinding> {
        let text = self.sources.name_and_text(source).1;
        let read = parser::parse_source(text, source, self.budget);
        let root = read.map_err(|finding| match finding.message == parser::EMPTY {
            true => ConfigFinding::source(source, NOTHING),
            false => finding,
        })?;
        let at = root.at;
        match root.body {
            YamlValue::Map(given) => given
                .into_iter()
                .for_each(|entry| self.entry(entry, entries)),
            _ if root.is_null() => return Err(ConfigFinding::source(source, NOTHING)),
            _ => {
                return Err(ConfigFinding::at(
                    at,
                    "not a mapping; expected keys as `routes`",
                ));
            }
        }
        Ok(())
    }

    /// Joins one top-level key.
    fn entry(&mut self, (key, node): (YamlKey, YamlNode), entries: &mut Vec<(YamlKey, YamlNode)>) {
        match key.name.as_str() {
            INCLUDE => self.refuse(
                path(&[INCLUDE]),
                key.at,
                "an included file includes no further ones; expected this in the main file",
            ),
            VERSION => {
                let is_known = matches!(&node.body, YamlValue::Scalar(one) if one.text == "1");
                if !is_known && !node.is_null() {
                    let message = "not the version of this format; expected 1, or nothing";
                    self.refuse(path(&[VERSION]), node.at, message);
                }
            }
            _ => match self.keys.get(&key.name).and_then(|n| entries.get_mut(*n)) {
                Some((first, there)) => self.merge((first, there), (key, node)),
                None => {
                    self.keys.insert(key.name.clone(), entries.len());
                    self.note(&key, &node);
                    entries.push((key, node));
                }
            },
        }
    }

    fn merge(
        &mut self,
        (first, there): (&mut YamlKey, &mut YamlNode),
        (key, node): (YamlKey, YamlNode),
    ) {
        if node.is_null() {
            return;
        }
        if there.is_null() {
            self.note(&key, &node);
            (*first, *there) = (key, node);
            return;
        }
        match (&mut there.body, node.body) {
            (YamlValue::List(all), YamlValue::List(more)) => all.extend(more),
            (YamlValue::Map(all), YamlValue::Map(more)) => {
                for (name, value) in more {
                    let names = self.names.entry(key.name.clone()).or_default();
                    match names.get(&name.name).copied() {
                        None => {
                            names.insert(name.name.clone(), name.at);
                            all.push((name, value));
                        }
                        Some(first) => {
                            let at = path(&[&key.name, &name.name]);
                            self.twice(at, first, name.at);
                        }
                    }
                }
            }
            _ => self.twice(path(&[&key.name]), first.at, key.at),
        }
    }

    fn twice(&mut self, path: ConfigPath, first: YamlPosition, again: YamlPosition) {
        let place = format!("{}:{}", self.sources.name(first.source), first.line);
        let message = format!("given twice, first at {place}; expected it in one of the files");
        self.refuse(path, again, message);
    }

    /// Something that is wrong with a pattern.
    fn wrong(&mut self, at: YamlPosition, message: impl Into<String>) {
        self.findings.errors.push(include_finding(at, message));
    }

    fn refuse(&mut self, path: ConfigPath, at: YamlPosition, message: impl Into<String>) {
        let finding = ConfigFinding::at(at, message);
        self.findings.errors.push(finding.below(&path));
    }
}

fn include_finding(at: YamlPosition, message: impl Into<String>) -> ConfigFinding {
    ConfigFinding::at(at, message).below(&path(&[INCLUDE]))
}

const VERSION: &str = "version";

const NOTHING: &str =
    "the file is empty; expected keys as `routes`, or that `include` does not name it";

#[cfg(test)]
mod tests;
