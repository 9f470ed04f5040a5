//! What authors get wrong in languages without a compiler's check: the build or the log names
//! the place and what was expected. Built with the tools that `plugins/build.sh` installed.

use std::path::Path;
use std::process::{Command, Output};

use e2e::cli::{repository, run};
use tempfile::TempDir;

const CASES: &str = "cases: [{name: it answers, hook: key, request: {url: /a}, expect: key}]";
const JS: &str = "export const manifest = { describe() { return { name: 'm', version: '1', \
    inputs: { method: false, host: true, path: false, query: { tag: 'none' }, headers: [], cookies: [] }, \
    declarative: null, reads: { headers: [], cookies: [] } }; } };\n";
const PYTHON: &str = "from wit_world import exports\nfrom wit_world.imports import types\n\
    class Manifest(exports.Manifest):\n    def describe(self, config):\n        \
    needs = types.KeyNeeds(False, True, False, types.QueryNeed_None_(), [], [])\n        \
    return types.Manifest('m', '1', needs, None, types.Reads([], []))\n";

#[test]
fn a_plugin_in_javascript_without_its_hook_is_told_at_the_build() {
    let (_dir, built) = js("export const keys = { derive() {} };");
    let told = String::from_utf8_lossy(&built.stderr).into_owned();
    assert!(!built.status.success(), "{told}");
    for words in [
        "plugin.js: expected `export const key = { derive(",
        "it exports: keys, manifest",
    ] {
        assert!(told.contains(words), "{told}");
    }
}

#[test]
fn what_a_plugin_in_javascript_throws_is_in_the_log_with_its_place() {
    let (dir, built) =
        js("export const key = { derive(inputs) {\n  return inputs.path.length;\n} };");
    assert!(built.status.success(), "{built:?}");
    let told = tested(dir.path());
    for words in ["key.derive: TypeError", "plugin.js:3", "FAIL  it answers"] {
        assert!(told.contains(words), "{told}");
    }
}

#[test]
fn an_answer_in_javascript_that_is_none_is_told_with_what_was_expected() {
    let (dir, built) = js("export const key = { derive() { return 'shop/tea'; } };");
    assert!(built.status.success(), "{built:?}");
    let told = tested(dir.path());
    assert!(
        told.contains("returned \"shop/tea\"; expected { tag, val }"),
        "{told}"
    );
}

#[test]
fn what_is_wrong_with_a_plugin_in_python_is_told_by_its_build_or_its_log() {
    let (_dir, built) = python("class Keys(exports.Key):\n    def derive(self, inputs): pass\n");
    let told = String::from_utf8_lossy(&built.stderr).into_owned();
    assert!(!built.status.success(), "{told}");
    let words = "plugin.py: expected `class Key(exports.Key)` with a method `derive`";
    assert!(told.contains(words), "{told}");

    let (dir, built) = python(
        "class Key(exports.Key):\n    def derive(self, inputs):\n        return inputs.path.lower()\n",
    );
    assert!(built.status.success(), "{built:?}");
    let told = tested(dir.path());
    for words in [
        "AttributeError: 'NoneType'",
        "plugin.py:9, in derive",
        "FAIL  it answers",
    ] {
        assert!(told.contains(words), "{told}");
    }
}

fn js(hook: &str) -> (TempDir, Output) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("plugin.js"), format!("{JS}{hook}")).unwrap();
    let tools = repository().join("plugins/target/js/node_modules");
    let built = Command::new("node")
        .arg(repository().join("plugin-sdk/js/build.mjs"))
        .args(["plugin.js", "plugin.wasm", "key"])
        .env(
            "NODE_PATH",
            tools.canonicalize().expect("plugins/build.sh --install"),
        )
        .current_dir(dir.path())
        .output()
        .unwrap();
    (dir, built)
}

fn python(hook: &str) -> (TempDir, Output) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("plugin.py"), format!("{PYTHON}{hook}")).unwrap();
    let tool = repository()
        .canonicalize()
        .unwrap()
        .join("plugins/target/python/bin/python");
    let built = Command::new(tool)
        .arg(
            repository()
                .canonicalize()
                .unwrap()
                .join("plugin-sdk/python/build.py"),
        )
        .args(["plugin", "plugin.wasm", "key"])
        .current_dir(dir.path())
        .output()
        .expect("plugins/build.sh --install");
    (dir, built)
}

/// What the kit says of the plugin in this folder, and what the plugin logged.
fn tested(dir: &Path) -> String {
    let (file, cases) = (dir.join("plugin.wasm"), dir.join("cases.yaml"));
    std::fs::write(&cases, CASES).unwrap();
    let [file, cases] = [&file, &cases].map(|path| path.to_str().unwrap());
    run(&["plugin", "test", file, "--cases", cases]).output()
}

#[tokio::test]
async fn a_component_for_another_host_is_named_for_what_it_is_with_what_to_build_instead() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("other.wasm");
    let handler = "build it for `wasi:http/incoming-handler@0.2`, which can be used as a loader";
    for (interface, what, instead) in [
        (
            "wasi:http/handler@0.3.0",
            "a `wasi:http` 0.3 component",
            handler,
        ),
        (
            "wasi:cli/run@0.2.0",
            "a command",
            "build a library that exports a hook (`crate-type = [\"cdylib\"]`), or a handler of `wasi:http` 0.2",
        ),
        ("fermyon:spin/inbound-http", "a component for Spin", handler),
    ] {
        let component =
            format!("(component (instance $nothing) (export \"{interface}\" (instance $nothing)))");
        std::fs::write(&file, wat::parse_str(component).unwrap()).unwrap();
        let ran = e2e::cli::run(&["plugin", "check", file.to_str().unwrap()]);
        assert_eq!(ran.code, Some(1), "{}", ran.output());
        for words in [what, instead] {
            assert!(ran.output().contains(words), "{words}: {}", ran.output());
        }
    }
}
