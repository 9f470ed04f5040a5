//! The rules of the code that the compiler does not keep: who may import whom, and style.
//!
//! The table is the one of `ARCHITECTURE.md`. Every `crate::module` in every file
//! of the gateway is an edge, in `use` lines and in paths alike; test modules are
//! left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Who may import whom. `*` is everything; `config` may name each module's `config` alone.
const ALLOWED: [(&str, &[&str]); 21] = [
    ("main", &["*"]),
    ("lib", &["*"]),
    ("app", &["*"]),
    ("config", &["telemetry", "units", "pattern"]),
    (
        "proxy",
        &[
            "cache",
            "plugin",
            "origin",
            "cluster",
            "http",
            "telemetry",
            "units",
            "pattern",
        ],
    ),
    (
        "admin",
        &[
            "cluster",
            "cache",
            "plugin",
            "bus",
            "proxy",
            "http",
            "telemetry",
            "units",
            "pattern",
        ],
    ),
    (
        "cluster",
        &["cache", "bus", "telemetry", "units", "pattern"],
    ),
    (
        "cache",
        &[
            "breaker",
            "hc1",
            "redis",
            "http",
            "telemetry",
            "units",
            "pattern",
        ],
    ),
    ("plugin", &["http", "telemetry", "units", "pattern"]),
    ("origin", &["http", "telemetry", "units", "pattern"]),
    (
        "bus",
        &[
            "backoff",
            "breaker",
            "hc1",
            "redis",
            "telemetry",
            "units",
            "pattern",
        ],
    ),
    ("http", &["telemetry", "units", "pattern"]),
    ("telemetry", &["units", "pattern"]),
    ("demo", &["http", "units", "pattern"]),
    ("backoff", &[]),
    ("breaker", &[]),
    ("hc1", &[]),
    ("redis", &["backoff", "units"]),
    ("units", &[]),
    ("pattern", &[]),
    ("allocator", &[]),
];

struct Source {
    path: PathBuf,
    /// The top-level module it belongs to.
    module: String,
    text: String,
    /// The text without what `#[cfg(test)]` guards and without comments.
    code: String,
}

#[test]
fn modules_import_only_along_the_table() {
    let allowed: BTreeMap<_, _> = ALLOWED.into_iter().collect();
    let sources = sources();
    let modules: BTreeSet<_> = sources.iter().map(|source| source.module.clone()).collect();
    let mut faults = Vec::new();
    for source in &sources {
        let Some(may) = allowed.get(source.module.as_str()) else {
            faults.push(format!(
                "{}: module `{}` is not in the table",
                source.path.display(),
                source.module
            ));
            continue;
        };
        for path in crate_paths(&source.code) {
            let target = path.split("::").next().unwrap_or("");
            let own = target == source.module || !modules.contains(target);
            let configures = source.module == "config" && path.split("::").nth(1) == Some("config");
            let grouped = source.module == "config" && !path.contains("::");
            if !(own || configures || grouped || may.contains(&"*") || may.contains(&target)) {
                faults.push(format!(
                    "{}: {} may not import {path}",
                    source.path.display(),
                    source.module
                ));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

/// `use crate::{a, b}` in `config` names modules; what it takes of them is their `config`.
#[test]
fn config_takes_nothing_but_config_types() {
    let mut faults = Vec::new();
    for source in sources().iter().filter(|source| source.module == "config") {
        for (module, _) in ALLOWED {
            if ["units", "pattern", "telemetry", "config", "main", "lib"].contains(&module) {
                continue;
            }
            for rest in after_word(&source.code, &format!("{module}::")) {
                if !rest.starts_with("config::") && !rest.starts_with("config}") {
                    let end = rest
                        .find(|c: char| !(c.is_alphanumeric() || c == '_'))
                        .unwrap_or(rest.len());
                    faults.push(format!(
                        "{}: {module}::{}",
                        source.path.display(),
                        &rest[..end]
                    ));
                }
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn every_file_opens_with_its_duty() {
    let silent: Vec<_> = sources()
        .into_iter()
        .filter(|source| !source.text.starts_with("//!"))
        .map(|source| source.path)
        .collect();
    assert!(silent.is_empty(), "without a `//!` at the top: {silent:#?}");
}

#[test]
fn nothing_is_left_for_later_and_nothing_unwraps() {
    let mut faults = Vec::new();
    for source in sources() {
        for word in [".unwrap()", "todo!(", "unimplemented!(", "dbg!("] {
            if source.code.contains(word) {
                faults.push(format!("{}: {word}", source.path.display()));
            }
        }
        for word in ["TODO", "FIXME", "XXX"] {
            if source
                .text
                .split(|c: char| !c.is_alphanumeric())
                .any(|found| found == word)
            {
                faults.push(format!("{}: {word}", source.path.display()));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn wildcard_imports_are_left_out() {
    let starred: Vec<_> = sources()
        .into_iter()
        .filter(|source| {
            source.code.lines().any(|line| {
                let line = line.trim_start();
                (line.starts_with("use ") || line.starts_with("pub use ")) && line.contains("::*")
            })
        })
        .map(|source| source.path)
        .collect();
    assert!(starred.is_empty(), "wildcard imports in {starred:#?}");
}

fn sources() -> Vec<Source> {
    let root = e2e::cli::repository().join("gateway/src");
    let mut paths = Vec::new();
    collect(&root, &mut paths);
    assert!(!paths.is_empty(), "no sources under {}", root.display());
    paths.into_iter().map(|path| source(&root, path)).collect()
}

fn collect(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
    {
        if entry.is_dir() {
            collect(&entry, found);
        } else if entry.extension().is_some_and(|ending| ending == "rs") {
            found.push(entry);
        }
    }
}

fn source(root: &Path, path: PathBuf) -> Source {
    let text = fs::read_to_string(&path).unwrap();
    let first = path
        .strip_prefix(root)
        .unwrap()
        .components()
        .next()
        .unwrap();
    let module = Path::new(first.as_os_str())
        .file_stem()
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    // A whole file of tests (`tests.rs`, `tests/x.rs`) is named so.
    let is_test = path.components().any(|part| {
        Path::new(part.as_os_str())
            .file_stem()
            .is_some_and(|s| s == "tests")
    });
    let code = if is_test {
        String::new()
    } else {
        without_comments(&without_tests(&text))
    };
    Source {
        path,
        module,
        text,
        code,
    }
}

/// Leaves out each item under `#[cfg(test)]`: rustfmt closes it with a `}` (or ends it
/// with a `;`) at the indentation of the attribute.
fn without_tests(text: &str) -> String {
    let mut kept = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if !line.trim_start().starts_with("#[cfg(test)]") {
            kept.push_str(line);
            kept.push('\n');
            continue;
        }
        let indent = &line[..line.len() - line.trim_start().len()];
        let close = format!("{indent}}}");
        let mut first = true;
        for inside in lines.by_ref() {
            let attribute = inside.trim_start().starts_with("#[");
            if inside == close
                || (first && !attribute && (inside.ends_with(';') || inside.ends_with("{}")))
            {
                break;
            }
            first = first && attribute;
        }
    }
    kept
}

fn without_comments(text: &str) -> String {
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .fold(String::new(), |all, line| all + line + "\n")
}

/// Every `crate::a::b…`; a group `crate::{a, b::c}` is taken apart at its top level.
fn crate_paths(code: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for rest in after_word(code, "crate::") {
        if let Some(group) = rest.strip_prefix('{') {
            paths.extend(members(group));
        } else {
            paths.push(path_at(rest));
        }
    }
    paths
}

/// What follows each place where `word` begins a path.
fn after_word<'a>(code: &'a str, word: &str) -> Vec<&'a str> {
    code.match_indices(word)
        .filter(|(at, _)| {
            !code[..*at]
                .ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':' || c == '$')
        })
        .map(|(at, _)| &code[at + word.len()..])
        .collect()
}

fn path_at(text: &str) -> String {
    let end = text
        .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'))
        .unwrap_or(text.len());
    text[..end].trim_end_matches(':').to_owned()
}

fn members(group: &str) -> Vec<String> {
    let (mut depth, mut member, mut found) = (0, String::new(), Vec::new());
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => found.push(std::mem::take(&mut member)),
            _ if depth == 0 => member.push(c),
            _ => {}
        }
    }
    found.push(member);
    found
        .iter()
        .map(|member| path_at(member.trim()))
        .filter(|path| !path.is_empty())
        .collect()
}

#[test]
fn edges_are_read_from_every_form() {
    let code = "use crate::cache::Key;\nuse crate::{http, proxy::{a, b}, units};\nlet x = crate::origin::f();";
    assert_eq!(
        crate_paths(code),
        ["cache::Key", "http", "proxy", "units", "origin::f"]
    );
    let guarded =
        "a\n#[cfg(test)]\nmod tests {\n    use crate::bus;\n}\nb\n#[cfg(test)]\nuse crate::x;\nc\n";
    assert_eq!(without_tests(guarded), "a\nb\nc\n");
}
