//! Tests of included files: what is joined, and that each message names the file where it belongs.

use tempfile::TempDir;

use crate::config::{self, GatewayConfig};

const MAIN: &str = "version: 1
include: routes/*.yaml
listeners: [{ address: 127.0.0.1:0 }]
upstreams:
  main: http://127.0.0.1:1
";

/// A folder with `lamina.yaml` and further files.
fn folder(main: &str, files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [("lamina.yaml", main)].iter().chain(files) {
        let file = folder.path().join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }
    folder
}

fn read(folder: &TempDir) -> GatewayConfig {
    config::load(&folder.path().join("lamina.yaml")).unwrap_or_else(|problems| panic!("{problems}"))
}

/// What is said about these files, without the name of the folder.
fn refused(main: &str, files: &[(&str, &str)]) -> String {
    let folder = folder(main, files);
    match config::load(&folder.path().join("lamina.yaml")) {
        Ok(_) => "nothing".to_owned(),
        Err(problems) => without_folder(&folder, &problems.to_string()),
    }
}

fn without_folder(folder: &TempDir, said: &str) -> String {
    said.replace(&format!("{}/", folder.path().display()), "")
}

const SHOP: &str = "routes:
  - name: shop
    match: { host: shop.example }
    upstream: shop
upstreams:
  shop: http://127.0.0.1:2
";

#[test]
fn lists_are_appended_in_the_order_of_the_files_and_mappings_joined() {
    let blog = "version: 1\nroutes: [{ name: blog, upstream: main }]\nupstreams:\ncache:\n  inflight: { hit_for_miss: 3s }\n";
    let main = format!(
        "{MAIN}cache: {{ l1: {{ max_bytes: 64MiB }} }}\nroutes: [{{ name: first, match: {{ path: /a }}, upstream: main }}]\n"
    );
    let folder = folder(&main, &[("routes/2.yaml", blog), ("routes/10.yaml", SHOP)]);
    let config = read(&folder);
    let names: Vec<_> = config.routes.iter().map(|route| &*route.name).collect();
    assert_eq!(names, ["first", "shop", "blog"]);
    assert_eq!(
        config.upstreams.keys().collect::<Vec<_>>(),
        ["main", "shop"]
    );
    assert_eq!(config.files_read.len(), 3);
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
}

#[test]
fn each_message_stands_in_the_file_that_it_is_about() {
    for (file, text, expected) in [
        (
            "routes/a.yaml",
            "routes:\n  - name: a\n    upstraem: main\n",
            "routes/a.yaml:3:5: routes[0].upstraem: unknown key",
        ),
        (
            "routes/a.yaml",
            "routes:\n  - { name: a, upstream: man }\n",
            "routes/a.yaml:2:26: routes[0].upstream",
        ),
        (
            "routes/a.yaml",
            "routes:\n  - { name: a, upstream: \"${NOBODY_SETS_IT}\" }\n",
            "routes/a.yaml:2:26: routes[0].upstream: environment",
        ),
        (
            "routes/a.yaml",
            "routes: [\n",
            "routes/a.yaml:1:10: not valid YAML",
        ),
        (
            "routes/a.yaml",
            "routes:\n\t- name: a\n",
            "routes/a.yaml:2:1: a tab",
        ),
        ("routes/a.yaml", "", "routes/a.yaml: the file is empty"),
        (
            "routes/a.yaml",
            "# all\n",
            "routes/a.yaml: the file is empty",
        ),
        (
            "routes/a.yaml",
            "- name: a\n",
            "routes/a.yaml:1:1: not a mapping",
        ),
        (
            "routes/a.yaml",
            "version: 2\n",
            "routes/a.yaml:1:10: version: not the version",
        ),
        (
            "routes/a.yaml",
            "include: b.yaml\n",
            "routes/a.yaml:1:1: include: an included file includes no",
        ),
        (
            "routes/a.yaml",
            "route: []\n",
            "routes/a.yaml:1:1: route: unknown key",
        ),
        (
            "routes/a.yaml",
            "upstreams:\n  main: http://b\n",
            "routes/a.yaml:2:3: upstreams.main: given twice, first at lamina.yaml:5",
        ),
        (
            "routes/a.yaml",
            "listeners: { a: b }\n",
            "routes/a.yaml:1:1: listeners: given twice, first at lamina.yaml:3",
        ),
    ] {
        let said = refused(MAIN, &[(file, text)]);
        assert!(said.starts_with(expected), "{text:?}: {said}");
        assert!(!said.contains("lamina.yaml:1"), "{text:?}: {said}");
    }
}

#[test]
fn problems_are_listed_file_by_file_with_the_lines_of_each() {
    let bad = |name: &str| {
        format!(
            "routes:\n  - {{ name: {name}, upstream: gone-{name}, match: {{ path: /{name} }} }}\n"
        )
    };
    let said = refused(
        &format!("{MAIN}routes: [{{ name: c, upstream: gone-c, match: {{ path: /c }} }}]\n"),
        &[("routes/b.yaml", &bad("b")), ("routes/a.yaml", &bad("a"))],
    );
    let places: Vec<_> = said
        .lines()
        .filter_map(|line| line.split_once(": routes["))
        .collect();
    let files: Vec<_> = places.iter().map(|(place, _)| *place).collect();
    assert_eq!(
        files,
        [
            "lamina.yaml:6:31",
            "routes/a.yaml:2:26",
            "routes/b.yaml:2:26"
        ],
        "{said}"
    );
    assert!(
        said.contains("2 |   - { name: a, upstream: gone-a,"),
        "{said}"
    );
}

#[test]
fn a_name_in_two_included_files_is_named_with_both_places() {
    let said = refused(MAIN, &[("routes/a.yaml", SHOP), ("routes/b.yaml", SHOP)]);
    let expected = "routes/b.yaml:6:3: upstreams.shop: given twice, first at routes/a.yaml:6; expected it in one of the files";
    assert!(said.starts_with(expected), "{said}");
}

#[test]
fn what_can_not_be_included_is_said_at_the_pattern() {
    for (include, expected) in [
        (
            "gone.yaml",
            "lamina.yaml:2:10: include: gone.yaml cannot be read: No such file",
        ),
        (
            "[routes/a.yaml, gone.yaml]",
            "lamina.yaml:2:26: include: gone.yaml cannot be read",
        ),
        (
            "routes",
            "lamina.yaml:2:10: include: routes cannot be read: Is a directory",
        ),
        (
            "/dev/null",
            "lamina.yaml:2:10: include: /dev/null is no regular file",
        ),
        (
            "'*.yaml'",
            "lamina.yaml:2:10: include: lamina.yaml is this file itself",
        ),
        (
            "routes/**/*.yaml",
            "`**` in `routes/**/*.yaml` is not supported",
        ),
        (
            "{ a: b }",
            "lamina.yaml:2:10: include: not the name of a file",
        ),
        ("''", "lamina.yaml:2:10: include: not the name of a file"),
        ("[[a]]", "lamina.yaml:2:11: include: not the name of a file"),
        (
            "\"${NOBODY_SETS_IT}\"",
            "lamina.yaml:2:10: include: environment variable",
        ),
    ] {
        let main = MAIN.replace("routes/*.yaml", include);
        let said = refused(&main, &[("routes/a.yaml", SHOP)]);
        assert!(said.contains(expected), "{include}: {said}");
    }
}

#[test]
fn a_pattern_without_a_match_is_a_warning_and_nothing_is_no_pattern() {
    let main = format!("{MAIN}routes: [{{ name: a, upstream: main }}]\n");
    let config = read(&folder(&main, &[]));
    let said = config.warnings[0].headline();
    assert!(
        said.contains("lamina.yaml:2:10: include: no file matches `routes/*.yaml`"),
        "{said}"
    );
    for include in ["", "[]", "~"] {
        let main = main.replace("routes/*.yaml", include);
        assert!(read(&folder(&main, &[])).warnings.is_empty());
    }
}

#[test]
fn a_file_that_two_patterns_name_is_read_where_the_first_names_it() {
    let route = |name: &str| {
        format!("routes: [{{ name: {name}, match: {{ path: /{name} }}, upstream: main }}]\n")
    };
    let main = MAIN.replace("routes/*.yaml", "[routes/z.yaml, ./routes/*.yaml]");
    let files = [("routes/a.yaml", route("a")), ("routes/z.yaml", route("z"))];
    let files: Vec<_> = files.iter().map(|(name, text)| (*name, &**text)).collect();
    let config = read(&folder(&main, &files));
    let names: Vec<_> = config.routes.iter().map(|route| &*route.name).collect();
    assert_eq!(names, ["z", "a"]);
}

/// A part of the main file keeps its meaning when it is moved into an included one.
#[test]
fn files_that_an_included_file_names_are_relative_to_the_main_one() {
    let admin = "admin: { token_file: token }\nroutes: [{ name: a, upstream: main }]\n";
    let token = "a token of more than thirty-two bytes, for a test";
    let folder = folder(MAIN, &[("routes/a.yaml", admin), ("token", token)]);
    assert_eq!(read(&folder).admin.token.as_deref(), Some(token));
}

#[test]
fn warnings_stand_in_the_file_that_they_are_about() {
    let risky = "routes:\n  - { name: a, upstream: main, policy: { mode: override, ttl: 1s } }\n";
    let folder = folder(MAIN, &[("routes/a.yaml", risky)]);
    let config = read(&folder);
    let said = without_folder(&folder, &config.warnings[0].to_string());
    assert!(
        said.starts_with("routes/a.yaml:2:48: routes[0].policy.mode"),
        "{said}"
    );
    let at = folder.path().join("lamina.yaml");
    let place = config::place_of(&at, "routes").unwrap();
    assert_eq!(
        (without_folder(&folder, &place.file).as_str(), place.line),
        ("routes/a.yaml", 1)
    );
    let problem = config::problem_at(&at, "routes[0].policy.mode", "bad").to_string();
    assert!(
        without_folder(&folder, &problem).starts_with("routes/a.yaml:2:48"),
        "{problem}"
    );
}

#[test]
fn a_secret_in_an_included_file_is_hidden_in_its_excerpt() {
    let said = refused(
        MAIN,
        &[("routes/a.yaml", "admin: { token: Zq8w3cret, adress: x }\n")],
    );
    assert!(said.starts_with("routes/a.yaml:1:"), "{said}");
    assert!(!said.contains("Zq8w3cret"), "{said}");
}

#[test]
fn all_files_together_have_one_bound() {
    let half = format!("# {}\n{SHOP}", "x".repeat(600 << 10));
    let said = refused(MAIN, &[("routes/a.yaml", &half), ("routes/b.yaml", &half)]);
    let expected = "lamina.yaml:2:10: include: with routes/b.yaml the configuration is larger";
    assert!(said.starts_with(expected), "{said}");
    // Aliases of all files share one budget.
    let aliases = |name: &str| {
        let text = "y".repeat(100 << 10);
        format!("x-{name}: &a {text}\ny-{name}: [*a, *a, *a, *a, *a, *a]\n")
    };
    let said = refused(
        MAIN,
        &[
            ("routes/a.yaml", &aliases("a")),
            ("routes/b.yaml", &aliases("b")),
        ],
    );
    assert!(said.starts_with("routes/b.yaml:2:"), "{said}");
    assert!(said.contains("aliases make the file too large"), "{said}");
}

#[test]
fn more_files_than_the_bound_are_refused() {
    let names: Vec<_> = (0..=super::MAX_FILES)
        .map(|n| format!("routes/{n}.yaml"))
        .collect();
    let files: Vec<_> = names
        .iter()
        .map(|name| (name.as_str(), "server: {}\n"))
        .collect();
    let said = refused(&MAIN.replace("listeners", "server: {}\nlisteners"), &files);
    assert!(said.contains("include: more than 1000 files"), "{said}");
}
