//! The files of the gateway, each with its module and its code without tests and comments.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::code_text::{
    after_word, members, path_at, paths_below, uses, without_comments, without_tests,
};

/// The least that has code; far fewer means that the rules look at nothing.
const MIN_FILES_WITH_CODE: usize = 250;

pub(super) struct SourceFile {
    /// With the module first, as `cache/l2.rs` or `proxy/miss.rs`, whatever crate it is in.
    pub(super) path: PathBuf,
    /// The top-level module it belongs to.
    pub(super) module: String,
    pub(super) text: String,
    /// The text without what `#[cfg(test)]` guards and without comments.
    pub(super) code: String,
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

/// All files of the gateway. Asserts that most of them have code to judge.
pub(super) fn sources() -> Vec<SourceFile> {
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
pub(super) fn crates() -> Vec<String> {
    let folder = e2e::cli::repository().join("gateway");
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let folders = entries.filter(|entry| entry.path().join("Cargo.toml").exists());
    let mut names: Vec<_> = folders
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

pub(super) fn collect(dir: &Path, found: &mut Vec<PathBuf>) {
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

fn source(crate_name: &str, root: &Path, path: &Path) -> SourceFile {
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
    SourceFile {
        module: stems[0].clone(),
        path,
        text,
        code,
        only_module,
    }
}

/// The names of the modules that a file is in and is: `cache/l2.rs` is `[cache, l2]`.
pub(super) fn stems(path: &Path) -> Vec<String> {
    let stem = |part: std::path::Component<'_>| {
        let stem = Path::new(part.as_os_str()).file_stem().unwrap();
        stem.to_str().unwrap().to_owned()
    };
    path.components().map(stem).collect()
}

impl SourceFile {
    /// Every path into a module, from the root of the crate: those that begin with `crate::`,
    /// and those that go up with `super::`.
    pub(super) fn paths(&self) -> Vec<String> {
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
fn test_modules(source: &SourceFile) -> Vec<Vec<String>> {
    let mut base = stems(&source.path);
    base.retain(|stem| stem != "lib" && stem != "main");
    let declared = source.text.match_indices("#[cfg(test)]\nmod ");
    declared
        .filter_map(|(at, found)| source.text[at + found.len()..].split_once('\n'))
        .filter_map(|(name, _)| name.strip_suffix(';'))
        .map(|name| [&base[..], &[name.to_owned()]].concat())
        .collect()
}

#[test]
fn edges_are_read_from_every_form() {
    let code = "use crate::cache::Key;\nuse crate::{http, proxy::{a, b}, units};\nlet x = crate::origin::f();";
    assert_eq!(
        paths_below("crate::", code),
        ["cache::Key", "http", "proxy", "units", "origin::f"]
    );
    let source = SourceFile {
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
    let source = SourceFile {
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
