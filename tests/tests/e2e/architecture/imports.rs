//! Which module may import which, as the table in `ARCHITECTURE.md` says it, and what some files
//! inside of a module may not name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::code_text::uses;
use super::sources::sources;
use super::{architecture_document, assert_holds, lines_of_block, section};

/// The least that there is; far fewer means that a rule looks at nothing.
const MIN_EDGES: usize = 300;
const MIN_PURE_FILES: usize = 20;

/// Who may import whom, as `ARCHITECTURE.md` says it.
pub(super) struct ImportTable {
    pub(super) rows: BTreeMap<String, ImportableName>,
    /// What every module may import.
    pub(super) for_all: BTreeSet<String>,
}

/// What one module may import.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum ImportableName {
    Everything,
    /// Of each module its `config`, and nothing else.
    ConfigTypes,
    Modules(BTreeSet<String>),
}

impl ImportTable {
    /// Reads the lines `a, b → c d` of the first code block after the heading.
    fn read(document: &str) -> Self {
        let mut table = Self {
            rows: BTreeMap::new(),
            for_all: BTreeSet::new(),
        };
        for line in lines_of_block(section(document, "## Who may import whom")) {
            let (importers, imported) = line.split_once('→').expect("a line has an arrow");
            let words: BTreeSet<String> = imported.split_whitespace().map(str::to_owned).collect();
            for importer in importers.split(',').map(str::trim) {
                if importer == "every module" {
                    table.for_all = words.clone();
                    continue;
                }
                let importable = match imported.trim() {
                    "everything" => ImportableName::Everything,
                    "nothing" => ImportableName::Modules(BTreeSet::new()),
                    "the `config` of each module" => ImportableName::ConfigTypes,
                    _ => ImportableName::Modules(words.clone()),
                };
                let before = table.rows.insert(importer.to_owned(), importable);
                assert!(before.is_none(), "{importer} stands twice in the table");
            }
        }
        table
    }

    pub(super) fn of_the_project() -> Self {
        Self::read(&architecture_document())
    }

    /// Whether `importer` may name `path`, whose first part is another module.
    fn allows(&self, importer: &str, path: &str) -> bool {
        let mut parts = path.split("::");
        let module = parts.next().unwrap_or_default();
        self.for_all.contains(module)
            || match self.rows.get(importer) {
                Some(ImportableName::Everything) => true,
                Some(ImportableName::ConfigTypes) => {
                    parts.next().is_none_or(|part| part == "config")
                }
                Some(ImportableName::Modules(modules)) => modules.contains(module),
                None => false,
            }
    }
}

#[test]
fn modules_import_only_along_the_table() {
    let table = ImportTable::of_the_project();
    let sources = sources();
    let modules: BTreeSet<_> = sources.iter().map(|source| source.module.clone()).collect();
    let listed: BTreeSet<_> = table.rows.keys().cloned().collect();
    assert_eq!(modules, listed, "the table has a row for each module");
    let (mut faults, mut edges) = (Vec::new(), 0);
    for source in &sources {
        for path in source.paths() {
            let target = path.split("::").next().unwrap_or_default();
            if target == source.module || !modules.contains(target) {
                continue;
            }
            edges += 1;
            if !table.allows(&source.module, &path) {
                let (file, importer) = (source.path.display(), &source.module);
                faults.push(format!("{file}: {importer} may not import {path}"));
            }
        }
    }
    assert_holds(&faults, edges, MIN_EDGES);
}

#[test]
fn wildcard_imports_are_left_out() {
    let (mut faults, mut imports) = (Vec::new(), 0);
    for source in sources() {
        for import in uses(&source.code) {
            imports += 1;
            if import.contains("::*") {
                faults.push(format!("{}: use {import}", source.path.display()));
            }
        }
    }
    assert_holds(&faults, imports, MIN_EDGES);
}

/// Inside of two crates: what decides about storing and freshness knows no second tier, and what
/// messages mean is known without a runtime.
#[test]
fn inner_borders_hold() {
    let pure: [(&str, &[&str], &[&str]); 2] = [
        (
            "cache",
            &["policy", "freshness", "key"],
            &["l2::", "tokio::"],
        ),
        (
            "http",
            &[
                "accept_language",
                "age",
                "cache_control",
                "cache_groups",
                "cache_status",
                "conditional",
                "date",
                "etag",
                "path",
                "reference",
                "vary",
            ],
            &["tokio::", "hyper::", "server::"],
        ),
    ];
    let sources = sources();
    let (mut faults, mut judged) = (Vec::new(), 0);
    for (module, files, forbidden) in pure {
        for name in files {
            let own = Path::new(module).join(name);
            let is_own = |path: &Path| path == own.with_extension("rs") || path.starts_with(&own);
            for source in sources.iter().filter(|source| is_own(&source.path)) {
                judged += 1;
                for word in forbidden {
                    if source.code.contains(word) {
                        faults.push(format!("{} names {word}", source.path.display()));
                    }
                }
            }
        }
    }
    assert_holds(&faults, judged, MIN_PURE_FILES);
}

#[test]
fn the_table_says_who_may_import_whom() {
    let table = ImportTable::read(
        "\n## Who may import whom\n\n```\nevery module → units\nmain → everything\nconfig → the `config` of each module\nproxy, admin → cache\ncache → nothing\n```\n",
    );
    for (importer, path, allowed) in [
        ("main", "proxy::x", true),
        ("proxy", "cache::Key", true),
        ("admin", "cache", true),
        ("admin", "proxy::x", false),
        ("cache", "units::Bytes", true),
        ("cache", "proxy::x", false),
        ("config", "cache::config::L1", true),
        ("config", "cache::L1", false),
        ("nobody", "cache", false),
    ] {
        assert_eq!(table.allows(importer, path), allowed, "{importer} → {path}");
    }
}
