//! The commands as a person runs them: exact errors, dry runs, exit codes.

use e2e::cli::{Ran, repository, run, run_with};
use e2e::setup::write_config;

const GOOD: &str = "\
version: 1
listeners: [{address: \"127.0.0.1:0\"}]
admin: {address: \"127.0.0.1:0\"}
upstreams:
  origin: http://127.0.0.1:9
routes:
  - name: pages
    match: {path: /pages/*}
    upstream: origin
    policy: {mode: override, ttl: 90s}
    key: {query: {drop: [utm_*]}}
  - name: rest
    upstream: origin
";

fn command(name: &str, yaml: &str, further: &[&str]) -> Ran {
    let dir = tempfile::tempdir().unwrap();
    let config = write_config(dir.path(), yaml);
    let mut arguments = vec![name, "-c", config.to_str().unwrap()];
    arguments.extend(further);
    run(&arguments)
}

/// Where `needle` stands in `text`: line and column, from 1.
fn position(text: &str, needle: &str) -> (usize, usize) {
    let (line, content) = text
        .lines()
        .enumerate()
        .find(|(_, line)| line.contains(needle))
        .unwrap();
    (line + 1, content.find(needle).unwrap() + 1)
}

#[test]
fn a_good_file_is_valid() {
    let ran = command("validate", GOOD, &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.output());
}

#[test]
fn an_unknown_key_is_shown_where_it_stands_with_the_nearest_known_word() {
    let yaml = GOOD.replace("    policy: {mode", "    polcy: {mode");
    let ran = command("validate", &yaml, &[]);
    let (line, column) = position(&yaml, "polcy");
    assert_eq!(ran.code, Some(2), "{}", ran.output());
    assert!(
        ran.output()
            .contains(&format!("lamina.yaml:{line}:{column}")),
        "{}",
        ran.output()
    );
    assert!(ran.output().contains("policy"), "{}", ran.output());
}

#[test]
fn mistakes_of_meaning_are_told_all_at_once() {
    let yaml = GOOD
        .replace(
            "upstream: origin\n    policy",
            "upstream: orign\n    policy",
        )
        .replace("name: rest", "name: pages");
    let ran = command("validate", &yaml, &[]);
    assert_eq!(ran.code, Some(2));
    for word in ["orign", "origin", "pages"] {
        assert!(ran.output().contains(word), "{word} in {}", ran.output());
    }
    assert!(
        ran.output().matches("lamina.yaml:").count() >= 2,
        "{}",
        ran.output()
    );
}

#[test]
fn bad_values_name_what_is_expected() {
    for (from, to, expected) in [
        ("ttl: 90s", "ttl: 90 bananas", "90 bananas"),
        ("mode: override", "mode: overide", "override"),
        ("version: 1", "version: 7", "version"),
        ("http://127.0.0.1:9", "127.0.0.1:9", "http://"),
        ("127.0.0.1:0", "localhost", "address"),
    ] {
        let ran = command("validate", &GOOD.replacen(from, to, 1), &[]);
        assert_eq!(ran.code, Some(2), "{to}: {}", ran.output());
        assert!(ran.output().contains(expected), "{to}: {}", ran.output());
        assert!(
            ran.output().contains("lamina.yaml:"),
            "{to}: {}",
            ran.output()
        );
    }
}

#[test]
fn files_that_are_no_yaml_are_refused_with_a_place() {
    for yaml in [
        "",
        "version: 1\n\tlisteners: []\n",
        "version: \"1\nlisteners",
        "[1, 2]",
        "&a [*a]",
    ] {
        let ran = command("validate", yaml, &[]);
        assert_eq!(ran.code, Some(2), "{yaml:?}: {}", ran.output());
        assert!(
            ran.output().contains("lamina.yaml"),
            "{yaml:?}: {}",
            ran.output()
        );
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let ran = run(&["run", "-c", "/nowhere/lamina.yaml"]);
    assert_eq!(ran.code, Some(2));
    assert!(
        ran.output().contains("/nowhere/lamina.yaml"),
        "{}",
        ran.output()
    );
}

#[test]
fn run_refuses_what_validate_refuses() {
    let ran = command(
        "run",
        &GOOD.replace("upstream: origin", "upstream: ghost"),
        &[],
    );
    assert_eq!(ran.code, Some(2));
    assert!(ran.output().contains("ghost"), "{}", ran.output());
}

#[test]
fn explain_shows_route_key_and_lifetime() {
    let ran = command(
        "explain",
        GOOD,
        &["http://shop.example/pages/a?x=1&utm_source=b"],
    );
    assert_eq!(ran.code, Some(0), "{}", ran.output());
    for word in ["pages", "shop.example", "/pages/a", "x=1", "90s"] {
        assert!(ran.stdout.contains(word), "{word} in {}", ran.stdout);
    }
    let key_lines = ran
        .stdout
        .lines()
        .filter(|line| line.trim_start().starts_with("key"));
    assert!(key_lines.clone().count() > 0, "{}", ran.stdout);
    assert!(
        key_lines
            .into_iter()
            .all(|line| !line.contains("utm_source")),
        "{}",
        ran.stdout
    );
}

#[test]
fn explain_of_a_url_without_a_route_says_so() {
    let yaml = GOOD.replace("  - name: rest\n    upstream: origin\n", "");
    let ran = command("explain", &yaml, &["http://shop.example/elsewhere"]);
    assert!(
        ran.output().to_lowercase().contains("no route"),
        "{}",
        ran.output()
    );
}

#[test]
fn version_and_schema_answer() {
    let version = run(&["version"]);
    assert_eq!(version.code, Some(0));
    assert!(
        version.stdout.contains("lamina") && version.stdout.contains(env!("CARGO_PKG_VERSION")),
        "{}",
        version.stdout
    );
    let schema = run(&["schema"]);
    assert_eq!(schema.code, Some(0));
    let schema: serde_json::Value = serde_json::from_str(&schema.stdout).unwrap();
    assert!(schema["properties"]["routes"].is_object());
}

#[test]
fn variables_are_expanded_and_missing_ones_named() {
    let yaml = GOOD.replace(
        "http://127.0.0.1:9",
        "\"${LAMINA_TEST_ORIGIN:-http://127.0.0.1:9}\"",
    );
    assert_eq!(command("validate", &yaml, &[]).code, Some(0));
    let yaml = GOOD.replace(
        "http://127.0.0.1:9",
        "\"${LAMINA_TEST_MISSING:?set the origin}\"",
    );
    let ran = command("validate", &yaml, &[]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.output().contains("set the origin"), "{}", ran.output());
}

#[test]
fn every_shipped_configuration_is_valid() {
    let root = e2e::cli::repository().join("config");
    let mut found = 0;
    for folder in [root.clone(), root.join("examples"), root.join("migrate")] {
        for entry in std::fs::read_dir(&folder)
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().path())
        {
            if entry.extension().is_none_or(|ending| ending != "yaml") {
                continue;
            }
            let token = [("LAMINA_ADMIN_TOKEN", "a long random text")];
            let ran = run_with(&["validate", "-c", entry.to_str().unwrap()], &token);
            // The reference shows every key and so names a plugin file that is not there:
            // all of it but that file has to be right.
            let shows_all = entry.ends_with("reference.yaml")
                && ran.output().contains("the file has the right form");
            assert!(
                ran.code == Some(0) || shows_all,
                "{}: {}",
                entry.display(),
                ran.output()
            );
            found += 1;
        }
    }
    assert!(found >= 20, "only {found} files were judged");
}

/// `ulimit -f`, `LimitFSIZE=`, and a log that is that large already.
#[test]
fn a_start_whose_log_may_not_grow_is_refused_for_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let (log, config) = (folder.path().join("log"), folder.path().join("lamina.yaml"));
    std::fs::write(&config, "version: 1\nunknown: 1\n").unwrap();
    let log = std::fs::File::create(log).unwrap();
    let status = std::process::Command::new("bash")
        .args(["-c", "ulimit -f 0 && exec \"$0\" run -c \"$1\""])
        .args([e2e::cli::binary().as_os_str(), config.as_os_str()])
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(2), "{status}");
}

#[test]
fn a_pipe_that_nobody_reads_ends_a_command_without_a_word() {
    use std::os::fd::OwnedFd;
    for arguments in [&["schema"][..], &["version"], &["validate"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let both: OwnedFd = writer.into();
        let status = std::process::Command::new(e2e::cli::binary())
            .args(arguments)
            .env("LAMINA_CONFIG", repository().join("config/quickstart.yaml"))
            .stdout(both)
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap()
            .wait_with_output()
            .unwrap();
        let said = String::from_utf8_lossy(&status.stderr);
        assert_eq!(
            (status.status.code(), &*said),
            (Some(141), ""),
            "{arguments:?}"
        );
    }
}
