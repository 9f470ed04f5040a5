//! The files that ship with Lamina: each is valid, the reference is complete and correct, and the
//! checked-in schema equals that of the code.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::*;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read_file(name: &Path) -> String {
    std::fs::read_to_string(name).unwrap_or_else(|e| panic!("{}: {e}", name.display()))
}

/// Folders with build results or fetched files, and with templates, whose YAML blocks have
/// placeholders.
const NOT_OURS: [&str; 3] = ["target", "node_modules", "templates"];

/// Every file below `folder` whose name ends like this.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let paths = entries.map(|e| e.unwrap().path());
    let mut found: Vec<PathBuf> = paths
        .filter(|p| !NOT_OURS.iter().any(|name| p.ends_with(name)))
        .flat_map(|p| {
            if p.is_dir() {
                files(&p, ending)
            } else {
                vec![p]
            }
        })
        .filter(|p| p.extension().is_some_and(|e| e == ending))
        .collect();
    found.sort();
    found
}

/// The value of a variable that the file requires with `:?`. Others have a default.
fn demanded(name: &str) -> Option<String> {
    name.ends_with("_TOKEN").then(|| "x".repeat(32))
}

#[track_caller]
fn valid(text: &str, name: &str) {
    if let Err(problems) = parse(text, name, &demanded) {
        panic!("{problems}");
    }
}

/// Whether a YAML file is a configuration of ours, and not, for example, of Prometheus.
fn is_ours(text: &str) -> bool {
    text.lines().any(|line| line.starts_with("version: 1"))
}

#[test]
fn every_shipped_file_is_valid_and_names_the_schema() {
    let all = files(&root().join("config"), "yaml");
    let ours: Vec<_> = all.iter().filter(|f| is_ours(&read_file(f))).collect();
    assert!(ours.len() >= 5, "{ours:?}");
    for file in ours {
        let text = read_file(file);
        valid(&text, &file.display().to_string());
        let schema = text
            .lines()
            .next()
            .and_then(|l| l.strip_prefix("# yaml-language-server: $schema="));
        let schema = schema.unwrap_or_else(|| {
            panic!(
                "{} does not name the schema in its first line",
                file.display()
            )
        });
        assert!(file.with_file_name(schema).exists(), "{}", file.display());
    }
}

/// A whole configuration is read as it is; a part of one is completed first. Other YAML, such as
/// the test cases of a plugin, is checked elsewhere and must not look like ours.
#[test]
fn every_yaml_block_of_the_documents_is_valid() {
    let documents = documents();
    let (mut whole, mut parts) = (0, 0);
    for document in &documents {
        for block in yaml_blocks(&read_file(document)) {
            let text = match () {
                () if is_ours(&block) => {
                    whole += 1;
                    block
                }
                () if is_part_of_ours(&block) => {
                    parts += 1;
                    completed(&block)
                }
                () => continue,
            };
            // The reader of a document sets the variables.
            let set = |_: &str| Some("x".repeat(32));
            if let Err(problems) = parse(&text, &document.display().to_string(), &set) {
                panic!("{problems}");
            }
        }
    }
    assert!(documents.len() >= 35, "{documents:#?}");
    let docs = root().join("docs");
    let pages = documents.iter().filter(|page| page.starts_with(&docs));
    assert!(pages.count() >= 15, "{documents:#?}");
    assert!(
        whole >= 12 && parts >= 20,
        "only {whole} configurations and {parts} parts were judged"
    );
}

/// Every document of the project: those below these folders, at any depth, and those at the top.
fn documents() -> Vec<PathBuf> {
    let mut found = files(&root().join("docs"), "md");
    for folder in ["config", "plugin-sdk", "plugins", "tests"] {
        found.extend(files(&root().join(folder), "md"));
    }
    let top = std::fs::read_dir(root()).unwrap();
    found.extend(
        top.map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|ending| ending == "md")),
    );
    found
}

/// The code blocks whose fence begins with `yaml`, whatever follows it.
fn yaml_blocks(text: &str) -> Vec<String> {
    text.split("```yaml")
        .skip(1)
        .filter_map(|rest| rest.split_once('\n'))
        .filter_map(|(_, rest)| rest.split("```").next())
        .map(str::to_owned)
        .collect()
}

/// Whether a block begins with a top-level key of a configuration, and so is a part of one.
fn is_part_of_ours(block: &str) -> bool {
    let schema = schema();
    let known = schema["properties"].as_object().unwrap();
    let mut keys = block
        .lines()
        .filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()))
        .filter_map(|line| line.split(':').next())
        .peekable();
    keys.peek().is_some() && keys.all(|key| known.contains_key(key))
}

/// A part, completed with the keys that a configuration must have.
fn completed(part: &str) -> String {
    let lacks = |key: &str| {
        !part
            .lines()
            .any(|line| line.starts_with(&format!("{key}:")))
    };
    let mut text = format!("version: 1\n{part}\n");
    if lacks("listeners") {
        text.push_str("listeners: [{ address: 127.0.0.1:8080 }]\n");
    }
    if lacks("upstreams") {
        text.push_str("upstreams:\n");
        let granted = part.lines().filter_map(|line| line.split_once("fetch: ["));
        let granted = granted.filter_map(|(_, rest)| rest.split(']').next());
        let granted = granted.flat_map(|names| names.split(',').map(str::trim));
        let named = part
            .lines()
            .filter_map(|line| line.split_once("upstream: "));
        let named = named.filter_map(|(_, rest)| rest.split([' ', ',', '}']).next());
        for name in granted
            .chain(named)
            .chain(["origin"])
            .collect::<BTreeSet<_>>()
        {
            text.push_str(&format!("  {name}: http://127.0.0.1:9000\n"));
        }
    }
    if lacks("routes") {
        text.push_str("routes: [{ name: site, upstream: origin }]\n");
    }
    text
}

/// `LAMINA_BLESS=1 cargo test -p lamina-edge schema` writes the file anew.
#[test]
fn the_checked_in_schema_is_the_codes() {
    let file = root().join("config/lamina.schema.json");
    let want = format!("{:#}\n", schema());
    if std::env::var_os("LAMINA_BLESS").is_some() {
        std::fs::write(&file, &want).unwrap();
    }
    assert!(
        read_file(&file) == want,
        "config/lamina.schema.json is old; write it anew with LAMINA_BLESS=1"
    );
}

/// The reference reduced to its required keys: the code fills in everything else.
const REQUIRED: &str = "
version: 1
listeners: [{ address: 127.0.0.1:8080 }]
upstreams: { origin: { targets: [http://127.0.0.1:9000] } }
routes: [{ name: site, upstream: origin }]
plugins: { example: { file: plugin.wasm } }
";

fn reference() -> String {
    read_file(&root().join("config/reference.yaml"))
}

/// The value without nulls and empty mappings, which mean the same as missing keys.
fn pruned(value: Value) -> Value {
    let empty = |v: &Value| v.is_null() || v.as_object().is_some_and(|m| m.is_empty());
    match value {
        Value::Object(map) => map
            .into_iter()
            .map(|(k, v)| (k, pruned(v)))
            .filter(|(_, v)| !empty(v))
            .collect(),
        Value::Array(items) => items.into_iter().map(pruned).collect(),
        other => other,
    }
}

fn reference_value(text: &str) -> Value {
    serde_yaml::from_str(text).unwrap()
}

#[test]
fn the_reference_gives_exactly_the_codes_defaults() {
    let code = parse(REQUIRED, "reference.yaml", &demanded).unwrap();
    let code = pruned(serde_json::to_value(code).unwrap());
    let written = pruned(reference_value(&reference()));
    for (key, value) in code.as_object().unwrap() {
        assert_eq!(written.get(key), Some(value), "{key}");
    }
    assert_eq!(
        written.as_object().unwrap().len(),
        code.as_object().unwrap().len()
    );
}

/// The reference with its `# key: example` and `# - key: example` lines uncommented.
fn uncommented() -> String {
    let real = |line: &str| {
        let body = line.trim_start();
        let indent = &line[..line.len() - body.len()];
        let example = body.strip_prefix("# ").filter(|rest| {
            let key = rest.trim_start_matches("- ").split(':').next();
            let key = key.unwrap_or_default();
            !indent.is_empty()
                && rest.contains(':')
                && key
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || "_-".contains(c) || c.is_ascii_digit())
        });
        example.map_or_else(|| line.to_owned(), |rest| format!("{indent}{rest}"))
    };
    let text: Vec<String> = reference().lines().map(real).collect();
    // Some examples stand beside the empty lists that are the default.
    text.join("\n")
        .replace("    invalidate: []  ", "    # ")
        .replace("    errors: []  ", "    # ")
        .replace("  tokens: []  ", "  # ")
        .replace("redirect_to_https: off ", "redirect_to_https: ")
}

#[test]
fn every_example_of_the_reference_is_read() {
    let text = uncommented()
        .replace("my-key", "example")
        .replace("my-loader", "example");
    let problems = parse(&text, "reference.yaml", &|_| Some("x".repeat(32)))
        .err()
        .map(|p| p.to_string())
        .unwrap_or_default();
    // The examples cannot all be valid at once: a secret and the file that holds it, or two kinds
    // of the same thing. Nor are there the pages that they name.
    assert!(
        problems
            .lines()
            .filter(|l| l.starts_with("reference.yaml:"))
            .all(|l| l.contains("given beside `") || l.contains("cannot read ")),
        "{problems}"
    );
}

#[test]
fn every_key_of_the_schema_stands_in_the_reference_and_explained() {
    let schema = schema();
    let value = reference_value(&uncommented());
    let mut missing = BTreeSet::new();
    walk(&schema, &schema, &[&value], "", &mut missing);
    assert!(missing.is_empty(), "{missing:?}");
}

/// Walks through the schema together with all values at the same path. Collects the keys that have
/// no value.
fn walk(
    schema: &Value,
    top: &Value,
    values: &[&Value],
    path: &str,
    missing: &mut BTreeSet<String>,
) {
    if let Some(name) = schema["$ref"].as_str() {
        let target = top.pointer(name.trim_start_matches('#')).unwrap();
        return walk(target, top, values, path, missing);
    }
    // The policy is already written out below the routes.
    if path == ".defaults" {
        return;
    }
    for (key, child) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{key}");
        let below: Vec<&Value> = values.iter().filter_map(|v| v.get(key)).collect();
        if below.is_empty() {
            missing.insert(path);
        } else {
            walk(child, top, &below, &path, missing);
        }
    }
    if schema["items"].is_object() {
        let below: Vec<&Value> = values
            .iter()
            .filter_map(|v| v.as_array())
            .flatten()
            .collect();
        walk(&schema["items"], top, &below, &format!("{path}[]"), missing);
    }
    if schema["additionalProperties"].is_object() {
        let below: Vec<&Value> = values
            .iter()
            .filter_map(|v| v.as_object())
            .flat_map(|m| m.values())
            .collect();
        walk(
            &schema["additionalProperties"],
            top,
            &below,
            &format!("{path}.*"),
            missing,
        );
    }
    for alternative in ["anyOf", "oneOf"]
        .iter()
        .filter_map(|k| schema[*k].as_array())
        .flatten()
    {
        walk(alternative, top, values, path, missing);
    }
}

#[test]
fn every_line_of_the_reference_says_what_it_is_for() {
    for line in reference()
        .lines()
        .skip(1)
        .filter(|l| l.contains(": ") || l.ends_with(':'))
    {
        let commented = line.trim_start().starts_with('#') || line.contains(" # ");
        // The name of the example map needs no explanation.
        assert!(commented || line.trim() == "example:", "{line}");
    }
}
