//! Tests of what is shown of a configuration: all of it, where it comes from, and no secret.

use super::*;
use crate::config::{self, redacted};

const FILE: &str = "/nowhere/lamina.yaml";

fn variable(name: &str) -> Option<String> {
    match name {
        "PORT" => Some("8080".to_owned()),
        "HOST" => Some("127.0.0.1".to_owned()),
        "NUMBER" => Some("0123".to_owned()),
        _ => None,
    }
}

fn shown(text: &str) -> EffectiveConfig {
    let read = EffectiveConfig::read(text, FILE, &variable);
    read.unwrap_or_else(|problems| panic!("{problems}"))
}

const TEXT: &str = "version: 1
listeners:
  - address: ${HOST}:${PORT}
upstreams:
  shop: http://127.0.0.1:1
  blog: { targets: [http://b, { url: http://c, weight: 2 }] }
plugins:
  max_total_memory: 1GiB
routes:
  - name: \"${NUMBER}\"
    match: { path: [/a/*, /$$x], host: shop.example }
    upstream: shop
    policy: { ttl: 90s }
";

#[test]
fn each_value_is_shown_with_where_it_comes_from() {
    let yaml = shown(TEXT).yaml(ShownValues::All);
    for line in [
        "version: 1  # /nowhere/lamina.yaml:1",
        "  - address: 127.0.0.1:8080  # ${HOST} ${PORT}, /nowhere/lamina.yaml:3",
        "      - http://127.0.0.1:1  # /nowhere/lamina.yaml:5",
        "    protocol: auto  # default",
        "        weight: 2  # /nowhere/lamina.yaml:6",
        "  max_total_memory: 1GiB  # /nowhere/lamina.yaml:8",
        "  - name: \"0123\"  # ${NUMBER}, /nowhere/lamina.yaml:10",
        "        - \"/a/*\"  # /nowhere/lamina.yaml:11",
        "bus: null  # default",
    ] {
        assert!(yaml.lines().any(|shown| shown == line), "{line}\n{yaml}");
    }
    let uncommented: Vec<_> = yaml.lines().filter(|line| !line.contains('#')).collect();
    assert!(
        uncommented.iter().all(|line| line.ends_with(':')),
        "{uncommented:#?}"
    );
    assert!(!yaml.contains("\ninclude"), "{yaml}");
}

#[test]
fn what_is_given_is_shown_alone_on_demand() {
    let yaml = shown(TEXT).yaml(ShownValues::Given);
    let lines: Vec<_> = yaml
        .lines()
        .map(|line| line.split("  # ").next().unwrap())
        .collect();
    let expected = "\
version: 1
listeners:
  - address: 127.0.0.1:8080
upstreams:
  shop: http://127.0.0.1:1
  blog:
    targets:
      - http://b
      - url: http://c
        weight: 2
plugins:
  max_total_memory: 1GiB
routes:
  - name: \"0123\"
    match:
      path:
        - \"/a/*\"
        - \"/$x\"
      host: shop.example
    upstream: shop
    policy:
      ttl: 90s";
    assert_eq!(lines[1..].join("\n"), expected);
    assert!(!yaml.contains("default"), "{yaml}");
}

/// What is shown of a file means the same as the file, with defaults and without.
#[track_caller]
fn means_the_same(text: &str) {
    let meant = config::parse(text, FILE, &variable).map(|config| redacted(&config));
    let meant = meant.unwrap_or_else(|problems| panic!("{problems}"));
    for values in [ShownValues::All, ShownValues::Given] {
        let yaml = shown(text).yaml(values);
        let read = config::parse(&yaml, FILE, &|_| None);
        let read = read.unwrap_or_else(|problems| panic!("{problems}\n{yaml}"));
        assert_eq!(redacted(&read), meant, "{values:?}\n{yaml}");
        let json = shown(text).json(values).to_string().replace('$', "$$");
        let read = config::parse(&json, FILE, &|_| None);
        let read = read.unwrap_or_else(|problems| panic!("{problems}\n{json}"));
        assert_eq!(redacted(&read), meant, "{values:?}\n{json}");
    }
}

#[test]
fn what_is_shown_means_the_same() {
    means_the_same(TEXT);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config");
    let examples = std::fs::read_dir(root.join("examples")).unwrap();
    let examples = examples.map(|entry| entry.unwrap().path());
    let mut judged = 0;
    for file in examples.chain([root.join("quickstart.yaml"), root.join("reference.yaml")]) {
        let text = std::fs::read_to_string(&file).unwrap();
        let is_alone = !text.contains("_file:") && !text.contains(":?");
        if file.extension().is_some_and(|end| end == "yaml") && is_alone {
            means_the_same(&text);
            judged += 1;
        }
    }
    assert!(judged >= 5, "only {judged} files were judged");
}

#[test]
fn secrets_are_hidden_and_everything_else_is_shown() {
    let text = format!(
        "{TEXT}admin: {{ token: Zq8w-a-token-of-more-than-32-bytes-Zq8w }}\n\
         bus: {{ seal_key: Zq8w-a-key-of-16-bytes, redis: {{}} }}\n"
    );
    let text = text.replace("upstreams:\n", "upstreams:\n  api-token: http://d\n");
    let plugin = "plugins:\n  a: { file: a.wasm, config: { dsn: 'redis://me:Zq8w@127.0.0.1', secrets: [Zq8w], api-key: { a: Zq8w } } }\n";
    let text = text.replace("plugins:\n", plugin);
    for values in [ShownValues::All, ShownValues::Given] {
        let (yaml, json) = (
            shown(&text).yaml(values),
            shown(&text).json(values).to_string(),
        );
        for shown in [&yaml, &json] {
            assert!(!shown.contains("Zq8w"), "{shown}");
            assert!(shown.contains("redis://me:***@127.0.0.1"), "{shown}");
            assert!(shown.contains("http://d"), "{shown}");
        }
        assert!(
            yaml.contains("token: \"***\"  # /nowhere/lamina.yaml:16"),
            "{yaml}"
        );
    }
}

#[test]
fn a_secret_from_a_file_stays_a_name_of_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let token = "Zq8w-a-token-of-more-than-32-bytes-Zq8w";
    std::fs::write(folder.path().join("token"), token).unwrap();
    let text = format!("{TEXT}admin: {{ token_file: token }}\n");
    let file = folder.path().join("lamina.yaml");
    let read = EffectiveConfig::read(&text, file.to_str().unwrap(), &variable);
    let yaml = read
        .unwrap_or_else(|problems| panic!("{problems}"))
        .yaml(ShownValues::All);
    assert!(yaml.contains("  token: null  # default"), "{yaml}");
    assert!(yaml.contains("  token_file: token  # "), "{yaml}");
    assert!(!yaml.contains("Zq8w"), "{yaml}");
}
