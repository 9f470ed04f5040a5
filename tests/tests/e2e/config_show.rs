//! `lamina config show`: the whole configuration, where it comes from, and nothing secret.

use std::path::Path;

use e2e::cli::{Ran, run_with};

const MAIN: &str = "\
version: 1
include: routes/*.yaml
listeners: [{ address: \"127.0.0.1:${LAMINA_TEST_PORT}\" }]
admin:
  token: Zq8w-a-long-random-text-for-this-test
upstreams: { origin: http://127.0.0.1:9 }
";

const SHOP: &str = "routes:\n  - name: shop\n    upstream: origin\n    policy: { ttl: 90s }\n";

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("routes")).unwrap();
    std::fs::write(folder.path().join("lamina.yaml"), MAIN).unwrap();
    std::fs::write(folder.path().join("routes/shop.yaml"), SHOP).unwrap();
    folder
}

fn lamina(name: &[&str], file: &Path, further: &[&str]) -> Ran {
    let arguments = [name, &["-c", file.to_str().unwrap()], further].concat();
    run_with(&arguments, &[("LAMINA_TEST_PORT", "8080")])
}

fn show(folder: &Path, further: &[&str]) -> Ran {
    let mut ran = lamina(&["config", "show"], &folder.join("lamina.yaml"), further);
    ran.stdout = ran.stdout.replace(&format!("{}/", folder.display()), "");
    ran
}

#[test]
fn each_value_has_its_place_and_secrets_have_none() {
    let folder = folder();
    let ran = show(folder.path(), &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.output());
    for line in [
        "version: 1  # lamina.yaml:1",
        "  - address: 127.0.0.1:8080  # ${LAMINA_TEST_PORT}, lamina.yaml:3",
        "  token: \"***\"  # lamina.yaml:5",
        "  - name: shop  # routes/shop.yaml:2",
        "      ttl: 1m30s  # routes/shop.yaml:4",
        "      ttl: 90s  # routes/shop.yaml:4",
        "  log_format: text  # default",
    ] {
        // A duration has one of two forms.
        let is_there = ran.stdout.lines().any(|shown| shown == line);
        assert!(is_there || line.contains("ttl"), "{line}\n{}", ran.stdout);
    }
    assert!(
        ran.stdout.contains("s  # routes/shop.yaml:4"),
        "{}",
        ran.stdout
    );
    assert!(!ran.output().contains("Zq8w"), "{}", ran.output());
}

#[test]
fn what_is_shown_is_valid_when_the_secrets_are_put_back() {
    let folder = folder();
    for further in [&[][..], &["--no-defaults"]] {
        let shown = show(folder.path(), further).stdout;
        let file = folder.path().join("whole.yaml");
        let whole = shown.replace("\"***\"", "Zq8w-a-long-random-text-for-this-test");
        std::fs::write(&file, whole).unwrap();
        let ran = lamina(&["validate"], &file, &[]);
        assert_eq!(ran.code, Some(0), "{}\n{shown}", ran.output());
        assert!(
            ran.stdout.contains("ok, 1 routes, 1 upstreams"),
            "{}",
            ran.stdout
        );
    }
}

#[test]
fn defaults_can_be_left_out_and_json_has_the_same_values() {
    let folder = folder();
    let ran = show(folder.path(), &["--no-defaults"]);
    assert_eq!(ran.code, Some(0), "{}", ran.output());
    assert!(!ran.stdout.contains("# default"), "{}", ran.stdout);
    assert!(!ran.stdout.contains("telemetry"), "{}", ran.stdout);
    assert!(
        ran.stdout.contains("ttl: 90s  # routes/shop.yaml:4"),
        "{}",
        ran.stdout
    );

    let json = |further: &[&str]| -> serde_json::Value {
        let ran = show(folder.path(), further);
        assert_eq!(ran.code, Some(0), "{}", ran.output());
        serde_json::from_str(&ran.stdout).unwrap()
    };
    let all = json(&["--json"]);
    assert_eq!(all["listeners"][0]["address"], "127.0.0.1:8080");
    assert_eq!(all["admin"]["token"], "***");
    assert_eq!(all["telemetry"]["log_format"], "text");
    let given = json(&["--json", "--no-defaults"]);
    assert_eq!(given["routes"][0]["name"], "shop");
    assert!(given.get("telemetry").is_none(), "{given}");
}

#[test]
fn a_wrong_configuration_is_explained_instead() {
    let folder = folder();
    std::fs::write(
        folder.path().join("routes/shop.yaml"),
        SHOP.replace("origin", "orign"),
    )
    .unwrap();
    let ran = show(folder.path(), &[]);
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (Some(2), ""),
        "{}",
        ran.output()
    );
    assert!(
        ran.stderr.contains("routes/shop.yaml:3:15"),
        "{}",
        ran.stderr
    );
}
