//! The rules of the code that the compiler does not keep: who may import whom, and style.
//! Cargo keeps the arrows between crates; here it is looked after that they are those of
//! `ARCHITECTURE.md`.
//!
//! The table is read from the block under "Who may import whom" in `ARCHITECTURE.md`. Every
//! path that leads from one module of the gateway into another is an edge, whether it is
//! written as `crate::x`, inside a group, or with `super::`; test modules are left out.
//! Each rule also asserts how much it has judged, because a rule that looks at nothing
//! passes whatever the code says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use lamina_cache::config::L2Config;
use lamina_cluster::bus::config::BusConfig;

/// The least that the gateway has of each; far fewer means that a rule went blind.
const MIN_FILES_WITH_CODE: usize = 250;
const MIN_EDGES: usize = 300;
const MIN_CONFIG_PATHS: usize = 10;
const MIN_TYPES: usize = 900;
const MIN_JUDGED_LINES: usize = 15_000;

struct Source {
    /// With the module first, as `cache/l2.rs` or `proxy/miss.rs`, whatever crate it is in.
    path: PathBuf,
    /// The top-level module it belongs to.
    module: String,
    text: String,
    /// The text without what `#[cfg(test)]` guards and without comments.
    code: String,
    /// The crate, if all of it is one module: its paths do not name that.
    only_module: Option<OnlyModule>,
}

/// The module that a crate is.
struct OnlyModule {
    name: String,
    /// Modules of other crates that it knows under its own root, by a `use` in `lib.rs`.
    known_at_root: BTreeSet<String>,
}

impl OnlyModule {
    fn of(name: &str, root: &Path) -> Self {
        let text = fs::read_to_string(root.join("lib.rs")).unwrap();
        let imports = uses(&text).into_iter();
        let imports = imports.filter(|import| import.starts_with("lamina_"));
        let known = imports.flat_map(|import| match import.split_once("::{") {
            Some((_, group)) => members(group),
            None => import.rsplit(' ').take(1).map(str::to_owned).collect(),
        });
        Self {
            name: name.to_owned(),
            known_at_root: known.collect(),
        }
    }
}

/// Crates that are one module each.
const ONE_MODULE: [&str; 3] = ["http", "cache", "plugin"];

/// What a path through another crate begins with, and the module that it leads to.
const OTHER_CRATES: [(&str, &str); 6] = [
    ("lamina_base::", ""),
    ("lamina_cluster::", ""),
    ("lamina_edge::", ""),
    ("lamina_http::", "http::"),
    ("lamina_cache::", "cache::"),
    ("lamina_plugin_host::", "plugin::"),
];

/// Who may import whom, as `ARCHITECTURE.md` says it.
struct ImportTable {
    rows: BTreeMap<String, Importable>,
    /// What every module may import.
    for_all: BTreeSet<String>,
}

/// What one module may import.
#[derive(PartialEq, Eq, Debug)]
enum Importable {
    Everything,
    /// Of each module its `config`, and nothing else.
    ConfigTypes,
    Modules(BTreeSet<String>),
}

impl ImportTable {
    /// Reads the lines `a, b → c d` of the first code block after the heading.
    fn read(document: &str) -> Self {
        let (_, section) = document
            .split_once("## Who may import whom")
            .expect("ARCHITECTURE.md has the section");
        let block = section.split("```").nth(1).expect("it has a code block");
        let mut table = Self {
            rows: BTreeMap::new(),
            for_all: BTreeSet::new(),
        };
        for line in block.lines().filter(|line| !line.trim().is_empty()) {
            let (importers, imported) = line.split_once('→').expect("a line has an arrow");
            let words: BTreeSet<String> = imported.split_whitespace().map(str::to_owned).collect();
            for importer in importers.split(',').map(str::trim) {
                if importer == "every module" {
                    table.for_all = words.clone();
                    continue;
                }
                let importable = match imported.trim() {
                    "everything" => Importable::Everything,
                    "nothing" => Importable::Modules(BTreeSet::new()),
                    "the `config` of each module" => Importable::ConfigTypes,
                    _ => Importable::Modules(words.clone()),
                };
                let before = table.rows.insert(importer.to_owned(), importable);
                assert!(before.is_none(), "{importer} stands twice in the table");
            }
        }
        table
    }

    fn of_the_project() -> Self {
        let path = e2e::cli::repository().join("ARCHITECTURE.md");
        Self::read(&fs::read_to_string(path).unwrap())
    }

    /// Whether `importer` may name `path`, whose first part is another module.
    fn allows(&self, importer: &str, path: &str) -> bool {
        let mut parts = path.split("::");
        let module = parts.next().unwrap_or_default();
        self.for_all.contains(module)
            || match self.rows.get(importer) {
                Some(Importable::Everything) => true,
                Some(Importable::ConfigTypes) => parts.next().is_none_or(|part| part == "config"),
                Some(Importable::Modules(modules)) => modules.contains(module),
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
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    assert!(edges >= MIN_EDGES, "only {edges} edges were judged");
}

/// `use crate::{a, b}` in `config` names modules; what it takes of them is their `config`.
#[test]
fn config_takes_nothing_but_config_types() {
    let table = ImportTable::of_the_project();
    let (mut faults, mut judged) = (Vec::new(), 0);
    for source in sources().iter().filter(|source| source.module == "config") {
        for module in table.rows.keys() {
            if table.for_all.contains(module) || module == "config" {
                continue;
            }
            for rest in after_word(&source.code, &format!("{module}::")) {
                judged += 1;
                if !rest.starts_with("config::") && !rest.starts_with("config}") {
                    let name = path_at(rest);
                    faults.push(format!("{}: {module}::{name}", source.path.display()));
                }
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    assert!(
        judged >= MIN_CONFIG_PATHS,
        "only {judged} paths were judged"
    );
}

/// A transport or a store is described beside its module, and named in one table; see "Where do I
/// add a transport, or a store?" in `ARCHITECTURE.md`.
#[test]
fn transports_and_stores_are_named_where_they_are_described() {
    let names: BTreeSet<_> = [BusConfig::TRANSPORTS, L2Config::STORES]
        .concat()
        .into_iter()
        .collect();
    // `acme` keeps its records in Redis by means of its own; `migrate` writes the words of a
    // configuration.
    let owners = ["acme", "bus", "cache", "migrate", "redis"];
    let (mut faults, mut judged) = (Vec::new(), 0);
    for source in sources() {
        if owners.contains(&source.module.as_str()) {
            continue;
        }
        judged += source.code.lines().count();
        for name in &names {
            for named in [
                format!(".{name}"),
                format!("\"{name}\""),
                format!("bus::{name}"),
                format!("l2::{name}"),
            ] {
                if names_word(&source.code, &named) {
                    faults.push(format!("{}: {named}", source.path.display()));
                }
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    assert!(names.len() >= 4, "only {names:?} were looked for");
    assert!(
        judged >= MIN_JUDGED_LINES,
        "only {judged} lines were judged"
    );
}

/// Whether `word` stands there, and not as the beginning of a longer name.
fn names_word(code: &str, word: &str) -> bool {
    let mut found = code.match_indices(word);
    found.any(|(at, _)| {
        let next = code[at + word.len()..].chars().next();
        !next.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '(')
    })
}

/// What the configuration of a module may name besides other configurations: modules that are pure,
/// with types or rules of which a value in the file is one.
const CONFIG_LEAVES: [&str; 9] = [
    "units",
    "pattern",
    "description",
    "redis_section",
    "http::endpoint",
    "http::forward",
    "http::path",
    "proxy::rules::template",
    "http::tls::names",
];

/// The configuration of a module imports types of configurations and leaves, and nothing that acts.
#[test]
fn configuration_types_are_leaves() {
    let is_leaf = |path: &str| {
        CONFIG_LEAVES.iter().any(|leaf| {
            let rest = path.strip_prefix(leaf);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        })
    };
    let (mut faults, mut judged, mut leaves) = (Vec::new(), 0, 0);
    for source in sources() {
        let stems = stems(&source.path);
        if is_leaf(&stems.join("::")) {
            leaves += 1;
            let acting = ["tokio::", "hyper::", "http_body::", "async fn "];
            let acting = acting.iter().filter(|word| source.code.contains(**word));
            faults.extend(acting.map(|word| format!("{}: {word}", source.path.display())));
        }
        // The module `config` reads the file and composes what the others have.
        if source.module == "config" || !stems.iter().any(|stem| stem == "config") {
            continue;
        }
        for path in source.paths() {
            judged += 1;
            if !is_leaf(&path) && !path.split("::").any(|part| part == "config") {
                faults.push(format!("{}: {path}", source.path.display()));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    assert!(leaves >= CONFIG_LEAVES.len(), "only {leaves} leaves");
    assert!(
        judged >= 3 * MIN_CONFIG_PATHS,
        "only {judged} paths were judged"
    );
}

#[test]
fn type_names_are_told_apart_and_say_what_they_are() {
    let document = fs::read_to_string(e2e::cli::repository().join("ARCHITECTURE.md")).unwrap();
    let (_, section) = document
        .split_once("## Glossary")
        .expect("it has the section");
    let block = section.split("```").nth(1).expect("it has a code block");
    let listed: BTreeSet<String> = block.split_whitespace().map(str::to_owned).collect();
    let (mut known, mut alone) = (BTreeMap::new(), BTreeSet::new());
    let mut faults = Vec::new();
    for source in sources() {
        let file = source.path.display().to_string();
        for name in types(&source.code) {
            if name.chars().filter(char::is_ascii_uppercase).count() == 1 {
                alone.insert(name.clone());
            }
            if let Some(other) = known.insert(name.clone(), file.clone()) {
                faults.push(format!("{name} is a type in {other} and in {file}"));
            }
        }
    }
    let unlisted = alone.difference(&listed);
    faults.extend(unlisted.map(|name| format!("{name} is one word and not in the glossary")));
    let gone = listed.difference(&alone);
    faults.extend(gone.map(|name| format!("{name} is in the glossary and no type")));
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    assert!(
        known.len() >= MIN_TYPES,
        "only {} types were judged",
        known.len()
    );
}

/// The names of the types that a file defines, but for associated types.
fn types(code: &str) -> Vec<String> {
    let mut names = Vec::new();
    for line in code.lines() {
        let indented = line.starts_with("    ");
        let words = line.trim_start().trim_start_matches("unsafe ");
        let words = match words.strip_prefix("pub") {
            Some(rest) => rest.split_once(' ').map_or("", |(_, rest)| rest),
            None => words,
        };
        for kind in ["struct ", "enum ", "trait ", "union ", "type "] {
            if kind == "type " && indented {
                continue;
            }
            if let Some(rest) = words.strip_prefix(kind) {
                names.push(path_at(rest));
            }
        }
    }
    // A macro has a variable where it defines a type.
    names.retain(|name| !name.is_empty());
    names
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

/// A library that may have to be replaced is named where that would be done.
#[test]
fn the_client_for_redis_is_named_in_one_file() {
    let sources = sources();
    let names = |source: &&Source| !after_word(&source.code, "fred::").is_empty();
    let files: Vec<_> = sources.iter().filter(names).collect();
    let files: Vec<_> = files.iter().map(|source| source.path.clone()).collect();
    assert_eq!(files, [Path::new("redis/driver.rs")]);
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
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    assert!(imports >= MIN_EDGES, "only {imports} imports were judged");
}

/// All files of the gateway. Asserts that most of them have code to judge.
fn sources() -> Vec<Source> {
    let mut sources = Vec::new();
    for name in crates() {
        let root = e2e::cli::repository()
            .join("gateway")
            .join(&name)
            .join("src");
        let mut paths = Vec::new();
        collect(&root, &mut paths);
        sources.extend(paths.iter().map(|path| source(&name, &root, path)));
    }
    let tests: Vec<_> = sources.iter().flat_map(test_modules).collect();
    for source in &mut sources {
        let stems = stems(&source.path);
        if tests.iter().any(|module| stems.starts_with(module)) {
            source.code.clear();
        }
    }
    let with_code = sources.iter().filter(|source| !source.code.is_empty());
    let (with_code, all) = (with_code.count(), sources.len());
    assert!(
        with_code >= MIN_FILES_WITH_CODE,
        "only {with_code} of {all} files have code that is judged"
    );
    sources
}

/// The folders of the gateway's crates.
fn crates() -> Vec<String> {
    let folder = e2e::cli::repository().join("gateway");
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let folders = entries.filter(|entry| entry.path().join("Cargo.toml").exists());
    let mut names: Vec<_> = folders
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// The arrows between crates are Cargo's dependencies, and those that the document draws.
#[test]
fn crates_depend_on_each_other_as_the_document_says() {
    let document = fs::read_to_string(e2e::cli::repository().join("ARCHITECTURE.md")).unwrap();
    let (_, section) = document
        .split_once("## Crates")
        .expect("it has the section");
    let block = section.split("```").nth(1).expect("it has a code block");
    let mut drawn = BTreeMap::new();
    for line in block.lines().filter(|line| !line.trim().is_empty()) {
        let (name, rest) = line.split_once(' ').expect("a line begins with a crate");
        let (_, arrows) = rest.rsplit_once('→').expect("a line has an arrow");
        let arrows = arrows.split_whitespace().filter(|word| *word != "nothing");
        drawn.insert(
            name.to_owned(),
            arrows.map(str::to_owned).collect::<BTreeSet<_>>(),
        );
    }
    let mut built = BTreeMap::new();
    for name in crates() {
        let manifest = e2e::cli::repository()
            .join("gateway")
            .join(&name)
            .join("Cargo.toml");
        let manifest = fs::read_to_string(manifest).unwrap();
        let lines = manifest
            .lines()
            .filter_map(|line| line.strip_prefix("lamina-"));
        let others = lines.filter_map(|line| line.split_once(".workspace"));
        let others = others.map(|(other, _)| other.trim_end_matches("-host").to_owned());
        built.insert(name, others.collect::<BTreeSet<_>>());
    }
    assert_eq!(built, drawn);
    assert_eq!(built.len(), 7, "{built:?}");
}

/// A package of fuzz targets links the crates that its laws name, and no other crate of ours.
#[test]
fn fuzz_targets_link_what_they_test() {
    let fuzz = e2e::cli::repository().join("tests/fuzz");
    let (mut faults, mut judged) = (Vec::new(), 0);
    for crate_name in crates().iter().filter(|name| *name != "cli") {
        let folder = fuzz.join(crate_name);
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        let mut files = Vec::new();
        collect(&folder.join("src"), &mut files);
        let code: String = files
            .iter()
            .map(|file| fs::read_to_string(file).unwrap())
            .collect();
        let (_, dependencies) = manifest.split_once("[dependencies]").unwrap();
        let linked = dependencies
            .lines()
            .filter_map(|line| line.split('.').next());
        for linked in linked.filter(|name| name.starts_with("lamina-")) {
            judged += 1;
            if !code.contains(&format!("{}::", linked.replace('-', "_"))) {
                faults.push(format!(
                    "fuzz-{crate_name} links {linked} and does not name it"
                ));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    assert!(judged >= 6, "only {judged} links were judged");
}

/// The tour leads from a row of a table to a file, and in it to what is named.
#[test]
fn the_tour_ends_where_it_says() {
    let document = fs::read_to_string(e2e::cli::repository().join("ARCHITECTURE.md")).unwrap();
    let (before, tour) = document.split_once("## A tour").expect("it has a tour");
    let (tour, _) = tour.split_once("\n## ").expect("something follows it");
    let sources = sources();
    let (mut faults, mut questions) = (Vec::new(), 0);
    for row in tour
        .lines()
        .filter(|line| line.starts_with("| ") && line.contains('?'))
    {
        questions += 1;
        let columns: Vec<_> = row.split('|').map(str::trim).collect();
        let (table, goal) = (columns[2], columns[3]);
        if let Some((_, quoted)) = table.split_once('"') {
            let wanted = quoted.trim_end_matches('"');
            let named = before.replace("**", "");
            if !named
                .lines()
                .any(|line| line.starts_with('|') && line.contains(wanted))
            {
                faults.push(format!("no row of a table has {wanted:?}"));
            }
        }
        let words: Vec<_> = goal.split('`').skip(1).step_by(2).collect();
        let (files, names): (Vec<&str>, Vec<&str>) =
            words.into_iter().partition(|word| word.ends_with(".rs"));
        let files = files.iter().map(|file| {
            let found = sources.iter().find(|source| source.path == Path::new(file));
            found.ok_or_else(|| format!("there is no {file}"))
        });
        let files: Result<Vec<_>, _> = files.collect();
        match files {
            Ok(files) => faults.extend(
                names
                    .iter()
                    .filter(|name| {
                        !files.iter().any(|file| {
                            names_word(&file.code, &format!(" {name}"))
                                || file.code.contains(&format!(" {name}("))
                        })
                    })
                    .map(|name| format!("{goal}: {name} is not there")),
            ),
            Err(missing) => faults.push(missing),
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    assert_eq!(questions, 10);
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

fn source(crate_name: &str, root: &Path, path: &Path) -> Source {
    let text = fs::read_to_string(path).unwrap();
    // What stands above `src` says nothing about a file.
    let path = path.strip_prefix(root).unwrap().to_owned();
    let only_module = ONE_MODULE
        .contains(&crate_name)
        .then(|| OnlyModule::of(crate_name, root));
    let path = match &only_module {
        Some(module) if path == Path::new("lib.rs") => PathBuf::from(format!("{}.rs", module.name)),
        Some(module) => Path::new(&module.name).join(path),
        None => path,
    };
    let stems = stems(&path);
    // A whole file of tests (`tests.rs`, `tests/x.rs`) is named so.
    let is_test = stems.iter().any(|stem| stem == "tests");
    let code = if is_test {
        String::new()
    } else {
        without_comments(&without_tests(&text))
    };
    Source {
        module: stems[0].clone(),
        path,
        text,
        code,
        only_module,
    }
}

/// The names of the modules that a file is in and is: `cache/l2.rs` is `[cache, l2]`.
fn stems(path: &Path) -> Vec<String> {
    let stem = |part: std::path::Component<'_>| {
        let stem = Path::new(part.as_os_str()).file_stem().unwrap();
        stem.to_str().unwrap().to_owned()
    };
    path.components().map(stem).collect()
}

impl Source {
    /// Every path into a module, from the root of the crate: those that begin with `crate::`,
    /// and those that go up with `super::`.
    fn paths(&self) -> Vec<String> {
        let mut paths = paths_below("crate::", &self.code);
        if let Some(module) = &self.only_module {
            for path in &mut paths {
                let first = path.split("::").next().unwrap_or_default();
                if !module.known_at_root.contains(first) {
                    *path = format!("{}::{path}", module.name);
                }
            }
        }
        for (prefix, module) in OTHER_CRATES {
            let others = paths_below(prefix, &self.code).into_iter();
            paths.extend(others.map(|path| format!("{module}{path}")));
        }
        let own = stems(&self.path);
        for rest in after_word(&self.code, "super::") {
            let more = rest.matches("super::").count();
            let leading = (0..=more)
                .take_while(|n| rest.starts_with(&"super::".repeat(*n)))
                .count();
            // A module inside the file, as tests are, stands one deeper; it is left out here.
            let Some(up) = own.len().checked_sub(leading) else {
                continue;
            };
            let rest = &rest["super::".len() * (leading - 1)..];
            let base = own[..up].iter().map(|name| format!("{name}::"));
            let base: String = base.collect();
            let tails = match rest.strip_prefix('{') {
                Some(group) => members(group),
                None => vec![path_at(rest)],
            };
            paths.extend(tails.into_iter().map(|tail| format!("{base}{tail}")));
        }
        paths
    }
}

/// The modules in files of their own that a file declares for tests alone.
fn test_modules(source: &Source) -> Vec<Vec<String>> {
    let mut base = stems(&source.path);
    base.retain(|stem| stem != "lib" && stem != "main");
    let declared = source.text.match_indices("#[cfg(test)]\nmod ");
    declared
        .filter_map(|(at, found)| source.text[at + found.len()..].split_once('\n'))
        .filter_map(|(name, _)| name.strip_suffix(';'))
        .map(|name| [&base[..], &[name.to_owned()]].concat())
        .collect()
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

/// What each `use` names, over several lines, too.
fn uses(code: &str) -> Vec<String> {
    after_word(code, "use ")
        .into_iter()
        .filter_map(|rest| rest.split_once(';'))
        .map(|(import, _)| import.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

/// Every `crate::a::b…`; a group `crate::{a, b::c}` is taken apart at its top level.
fn paths_below(root: &str, code: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for rest in after_word(code, root) {
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
        paths_below("crate::", code),
        ["cache::Key", "http", "proxy", "units", "origin::f"]
    );
    let source = Source {
        path: PathBuf::from("cache/l2/feed.rs"),
        module: "cache".to_owned(),
        text: String::new(),
        code: "use super::super::super::bus::X;\nuse super::{find, put};\nuse super::super::l1;"
            .to_owned(),
        only_module: None,
    };
    assert_eq!(
        source.paths(),
        ["bus::X", "cache::l2::find", "cache::l2::put", "cache::l1"]
    );
    let source = Source {
        path: PathBuf::from("cache/policy.rs"),
        text: "#[cfg(test)]\nmod oracle;\nmod other;\n#[cfg(test)]\nmod tests {\n".to_owned(),
        ..source
    };
    assert_eq!(test_modules(&source), [["cache", "policy", "oracle"]]);
    let guarded =
        "a\n#[cfg(test)]\nmod tests {\n    use crate::bus;\n}\nb\n#[cfg(test)]\nuse crate::x;\nc\n";
    assert_eq!(without_tests(guarded), "a\nb\nc\n");
    assert_eq!(
        uses("use a::{\n    b::*,\n    c,\n};\npub use d;"),
        ["a::{ b::*, c, }", "d"]
    );
}

#[test]
fn the_table_says_who_may_import_whom() {
    let table = ImportTable::read(
        "## Who may import whom\n\n```\nevery module → units\nmain → everything\nconfig → the `config` of each module\nproxy, admin → cache\ncache → nothing\n```\n",
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

/// Each file that the document names is there.
#[test]
fn every_path_of_the_document_exists() {
    let document = fs::read_to_string(e2e::cli::repository().join("ARCHITECTURE.md")).unwrap();
    let sources: BTreeSet<PathBuf> = sources().into_iter().map(|source| source.path).collect();
    let (mut faults, mut judged) = (Vec::new(), 0);
    let quoted = document.split('`').skip(1).step_by(2);
    for path in quoted.filter(|quoted| quoted.ends_with(".rs") && !quoted.contains(' ')) {
        for path in alternatives(path) {
            judged += 1;
            let is_source = sources.contains(Path::new(&path));
            if !is_source && !e2e::cli::repository().join(&path).exists() && path != "foo.rs" {
                faults.push(format!("there is no {path}"));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    assert!(judged >= 350, "only {judged} paths were judged");
}

/// `a/{b,c}.rs` as `a/b.rs` and `a/c.rs`.
fn alternatives(path: &str) -> Vec<String> {
    let Some((before, rest)) = path.split_once('{') else {
        return vec![path.to_owned()];
    };
    let (group, after) = rest.split_once('}').expect("a brace is closed");
    let paths = group
        .split(',')
        .flat_map(|one| alternatives(&format!("{before}{one}{after}")));
    paths.collect()
}

/// The table of modules names each file that lies directly in a module's folder.
#[test]
fn every_file_of_a_module_is_in_the_table() {
    let document = fs::read_to_string(e2e::cli::repository().join("ARCHITECTURE.md")).unwrap();
    let (_, section) = document
        .split_once("## Modules")
        .expect("it has the section");
    let (section, _) = section.split_once("\n## ").expect("something follows it");
    let sources = sources();
    let (mut faults, mut judged) = (Vec::new(), 0);
    for row in section.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> = row.split('|').collect();
        let names: Vec<_> = cells[1].split('`').skip(1).step_by(2).collect();
        let [module] = names[..] else { continue };
        let said = cells[2..].join(" ");
        let said: BTreeSet<_> = said
            .split(|c: char| !c.is_alphanumeric() && c != '_')
            .collect();
        for source in &sources {
            let below = source.path.strip_prefix(module).ok().and_then(Path::to_str);
            let Some(file) = below.and_then(|below| below.strip_suffix(".rs")) else {
                continue;
            };
            // Each module may have its part of the configuration.
            if file.contains('/') || matches!(file, "config" | "tests" | "shipped") {
                continue;
            }
            judged += 1;
            if !said.contains(file) && file != "upgrade_hazards" {
                faults.push(format!("the row of {module} does not name {file}"));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    assert!(judged >= 250, "only {judged} files were judged");
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
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    assert!(judged >= 20, "only {judged} files were judged");
}
