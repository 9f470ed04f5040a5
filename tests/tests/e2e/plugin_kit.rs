//! `lamina plugin …` as an author runs it: what it prints, and its exit codes.

use std::path::Path;

use e2e::cli::{Ran, repository, run};
use e2e::guest;
use tempfile::TempDir;

/// A shipped plugin that `plugins/build.sh` has built.
fn shipped(name: &str) -> String {
    let file = repository().join(format!("plugins/dist/{name}.wasm"));
    assert!(
        file.exists(),
        "{} is not there: run plugins/build.sh first",
        file.display()
    );
    text(&file)
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn kit(arguments: &[&str]) -> Ran {
    run(&[&["plugin"], arguments].concat())
}

/// A folder with one file in it.
fn with(name: &str, content: impl AsRef<[u8]>) -> (TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, content).unwrap();
    (dir, text(&path))
}

fn tested(plugin: &str, cases: &str) -> Ran {
    let (_dir, cases) = with("cases.yaml", cases);
    kit(&["test", &shipped(plugin), "--cases", &cases])
}

#[track_caller]
fn says(ran: &Ran, code: i32, words: &[&str]) {
    assert_eq!(ran.code, Some(code), "{}", ran.output());
    for word in words {
        assert!(ran.output().contains(word), "{word:?} in {}", ran.output());
    }
}

const PARTS: &str = r#"{"parts": {"user": {"upstream": "users", "path": "/api/{1}"}, "orders": {"upstream": "orders", "path": "/of/{1}"}}}"#;

#[test]
fn check_tells_what_a_key_plugin_is_made_of_and_the_yaml_for_it() {
    let ran = kit(&["check", &shipped("normalize-query")]);
    let yaml = [
        "plugins:\n  normalize-query:\n",
        "key: {plugin: normalize-query}",
    ];
    let told = [
        "hooks     key",
        "host; path; the whole query",
        "lamina:plugin@1.0.0",
        "KiB",
    ];
    says(&ran, 0, &yaml);
    says(&ran, 0, &told);
    assert!(!ran.stdout.contains("fetch: ["), "{}", ran.stdout);
}

#[test]
fn check_names_the_grants_that_a_loader_needs() {
    let ran = kit(&["check", &shipped("api-compose"), "--config", PARTS]);
    says(
        &ran,
        0,
        &["fetch: [origin]", "loader: {plugin: api-compose}"],
    );
}

#[test]
fn the_yaml_that_check_prints_is_valid() {
    let ran = kit(&["check", &shipped("api-compose"), "--config", PARTS]);
    let printed = ran.stdout.split("in its YAML:\n").nth(1).unwrap();
    let head = "version: 1\nlisteners: [{address: \"127.0.0.1:0\"}]\nadmin: {address: \"127.0.0.1:0\"}\nupstreams: {origin: \"http://127.0.0.1:9\"}\n";
    let (_dir, config) = with("lamina.yaml", format!("{head}{printed}"));
    says(&run(&["validate", "-c", &config]), 0, &["1 plugins"]);
}

#[test]
fn check_refuses_what_a_gateway_refuses_and_says_what_to_do() {
    let (_a, no_wasm) = with("plugin.rs", "fn main() {}");
    says(
        &kit(&["check", &no_wasm]),
        1,
        &["not a WebAssembly file", "lamina plugin build"],
    );
    let module = wat::parse_str("(module)").unwrap();
    let (_b, no_plugin) = with("empty.wasm", module);
    says(
        &kit(&["check", &no_plugin]),
        1,
        &["refuses it", "What to do"],
    );
    let text = "(module (import \"wasi_snapshot_preview1\" \"fd_write\" (func (param i32 i32 i32 i32) (result i32))))";
    let (_c, of_wasi) = with("wasi.wasm", wat::parse_str(text).unwrap());
    says(&kit(&["check", &of_wasi]), 1, &["wasm32-unknown-unknown"]);
    says(&kit(&["check", "/nowhere/x.wasm"]), 1, &["/nowhere/x.wasm"]);
    let unconfigured = kit(&["check", &shipped("api-compose")]);
    says(&unconfigured, 1, &["parts", "--config"]);
}

#[test]
fn a_component_of_another_contract_is_refused_by_the_name_of_its_interface() {
    let component =
        wat::parse_str("(component (import \"lamina:plugin/telepathy@1.0.0\" (instance)))");
    let (_dir, file) = with("odd.wasm", component.unwrap());
    says(
        &kit(&["check", &file]),
        1,
        &["lamina:plugin/telepathy@1.0.0", "does not exist"],
    );
}

#[test]
fn what_check_prints_fits_a_screen() {
    let imports: String = (0..200)
        .map(|n| format!("(import \"odd:host/part-{n}@1.0.0\" (instance))"))
        .collect();
    let component = wat::parse_str(format!("(component {imports})")).unwrap();
    let (_dir, file) = with("many.wasm", component);
    let ran = kit(&["check", &file]);
    says(
        &ran,
        1,
        &[
            "odd:host/part-0@1.0.0",
            "and 195 more",
            "wasm-tools component wit",
        ],
    );
    assert!(ran.stdout.lines().count() <= 40, "{}", ran.stdout);
    for name in ["api-compose", "geo-key-py", "ab-bucket-js"] {
        let ran = kit(&["check", &shipped(name), "--config", PARTS]);
        assert!(ran.stdout.lines().count() <= 40, "{}", ran.output());
    }
}

#[test]
fn cases_that_hold_are_one_line_each() {
    let ran = tested(
        "normalize-query",
        r#"
config: {drop: ["utm_*"], sort: true}
cases:
  - name: tracking is dropped
    hook: key
    request: {url: "http://Shop.example/?b=1&a=2&utm_source=x"}
    expect: {key: {text: "shop.example/?a=2&b=1", parts: []}}
  - name: a config of its own
    hook: key
    config: {}
    request: {url: "http://shop.example/?b=1&a=2"}
    expect: {key: {text: "shop.example/?b=1&a=2"}}
"#,
    );
    says(
        &ran,
        0,
        &[
            "ok    tracking is dropped\n",
            "ok    a config of its own\n",
            "2 cases, 0 failed",
        ],
    );
}

#[test]
fn a_case_that_fails_shows_what_was_expected_and_what_came() {
    let ran = tested(
        "normalize-query",
        r#"
cases:
  - name: another text
    hook: key
    request: {url: "http://shop.example/?b=1"}
    expect: {key: {text: "shop.example/"}}
  - name: another decision
    hook: key
    request: {url: "http://shop.example/"}
    expect: {bypass: "signed in"}
  - name: no such hook
    hook: load
    request: {url: "http://shop.example/"}
    expect: absent
"#,
    );
    let first =
        "key.text\n          expected \"shop.example/\"\n          got      \"shop.example/?b=1\"";
    says(
        &ran,
        1,
        &[
            "FAIL  another text",
            first,
            "expected {\"bypass\":\"signed in\"}",
        ],
    );
    says(
        &ran,
        1,
        &["no hook `load`; it has: key", "3 cases, 3 failed"],
    );
}

#[test]
fn a_loader_gets_the_answers_that_a_case_gives() {
    let cases = format!(
        r#"
config: {PARTS}
cases:
  - name: both
    hook: load
    request: {{url: "http://shop.example/account/42"}}
    fetch:
      "users /api/42": {{body: '{{"name": "Ada"}}', headers: {{content-type: application/json}}}}
      "orders /of/42": {{status: 200, body: "[1]"}}
    expect: {{status: 200, json: {{user: {{name: Ada}}, orders: [1]}}}}
  - name: one is missing
    hook: load
    request: {{url: "http://shop.example/account/42"}}
    fetch:
      "users /api/42": {{body: '{{"name": "Ada"}}'}}
    expect: {{status: 200, json: {{}}}}
"#
    );
    let ran = tested("api-compose", &cases);
    says(
        &ran,
        1,
        &[
            "ok    both\n",
            "FAIL  one is missing",
            "`orders /of/42`",
            "2 cases, 1 failed",
        ],
    );
}

#[test]
fn cases_that_are_none_are_told_with_the_place() {
    let ran = tested("normalize-query", "cases:\n  - name: x\n    hok: key\n");
    says(&ran, 1, &["cases.yaml", "hok", "expected one of"]);
    let ran = tested(
        "normalize-query",
        "cases: [{name: x, hook: key, request: {url: /}, fetch: {shop: {}}, expect: key}]",
    );
    says(&ran, 1, &["\"shop\"", "`shop /api/user/7`"]);
    let ran = kit(&[
        "test",
        &shipped("normalize-query"),
        "--cases",
        "/nowhere.yaml",
    ]);
    says(&ran, 1, &["/nowhere.yaml", "--cases"]);
}

#[test]
fn a_guest_that_never_returns_is_a_failed_call_not_a_hang() {
    let (_a, file) = with("loop.wasm", guest::looping());
    let case =
        "cases: [{name: it ends, hook: key, request: {url: /}, expect: {failed: {kind: timeout}}}]";
    let (_b, cases) = with("cases.yaml", case);
    says(
        &kit(&["test", &file, "--cases", &cases]),
        0,
        &["ok    it ends"],
    );
}

#[test]
fn bench_measures_every_way_to_call() {
    let ran = kit(&[
        "bench",
        &shipped("normalize-query"),
        "--seconds",
        "0.3",
        "--json",
    ]);
    says(&ran, 0, &[]);
    let told: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    for way in ["fresh_us", "reused_us", "remembered_us"] {
        assert!(told["hooks"]["key"][way].as_f64().unwrap() > 0.0, "{told}");
    }
    assert!(
        told["instance"]["linear_bytes"].as_u64().unwrap() >= 65_536,
        "{told}"
    );
    let table = kit(&["bench", &shipped("normalize-query"), "--seconds", "0.1"]);
    says(&table, 0, &["fresh", "reused", "remembered", "KiB linear"]);
    let (_dir, trap) = with("trap.wasm", guest::trapping());
    says(
        &kit(&["bench", &trap, "--seconds", "0.1"]),
        1,
        &["`key`", "trap"],
    );
}

#[test]
fn a_kept_call_fails_again_with_the_bad_file_and_not_with_the_good_one() {
    let call = r#"{"calls": [{"at": "2026-01-01T00:00:00Z", "hook": "key", "error": "trap: unreachable",
        "inputs": {"method": "GET", "url": "http://shop.example/a?b=1", "headers": {"accept": "*/*"}}}]}"#;
    let (_a, call) = with("call.json", call);
    let (_b, bad) = with("bad.wasm", guest::trapping());
    says(
        &kit(&["replay", &bad, "--call", &call]),
        1,
        &["at the gateway  trap", "here            trap"],
    );
    let good = kit(&["replay", &shipped("normalize-query"), "--call", &call]);
    says(&good, 0, &["shop.example/a?b=1"]);
}

#[test]
fn a_call_that_is_none_says_what_is_expected() {
    let (_dir, call) = with("call.json", "{\"hook\": \"key\"}");
    let ran = kit(&["replay", &shipped("normalize-query"), "--call", &call]);
    says(&ran, 1, &["inputs", "GET /v1/plugins/NAME/calls"]);
}

/// Runs the kit with the working folder `dir`, as `new` writes there.
fn kit_in(dir: &Path, arguments: &[&str]) -> Ran {
    let output = std::process::Command::new(e2e::cli::binary())
        .arg("plugin")
        .args(arguments)
        .current_dir(dir)
        .output()
        .unwrap();
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

#[test]
fn a_new_project_of_each_language_and_hook_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    for lang in ["rust", "js", "python", "c", "zig"] {
        for hook in ["key", "load"] {
            let name = format!("my-{lang}-{hook}");
            let new = kit_in(dir.path(), &["new", "--lang", lang, "--hook", hook, &name]);
            says(&new, 0, &["lamina plugin build", "../plugin-sdk"]);
            let project = dir.path().join(&name);
            for file in ["build.sh", "cases.yaml", "README.md", ".gitignore"] {
                let text = std::fs::read_to_string(project.join(file)).unwrap();
                assert!(!text.contains("{{"), "{name}/{file}: {text}");
            }
        }
    }
    // There was no SDK above, so one lies beside them, once.
    assert!(dir.path().join("plugin-sdk/wit/plugin.wit").is_file());
    let again = kit_in(dir.path(), &["new", "--lang", "c", "my-c-key"]);
    says(&again, 1, &["exists already"]);
    let odd = kit_in(dir.path(), &["new", "--lang", "c", "My_C"]);
    says(&odd, 1, &["lower-case letters"]);
    let none = kit_in(
        dir.path(),
        &["new", "--lang", "c", "--hook", "request", "x"],
    );
    says(&none, 1, &["`--hook key` and `--hook load`"]);
}

#[test]
fn projects_in_c_and_zig_are_built_checked_and_tested() {
    let dir = tempfile::tempdir().unwrap();
    for lang in ["c", "zig"] {
        for hook in ["key", "load"] {
            if is_buildable(lang) {
                let name = format!("{lang}-{hook}");
                kit_in(dir.path(), &["new", "--lang", lang, "--hook", hook, &name]);
                says(&kit_in(dir.path(), &["build", &name]), 0, &["hooks ", hook]);
                let tested = kit_in(&dir.path().join(&name), &["test", &format!("{name}.wasm")]);
                says(&tested, 0, &[" 0 failed"]);
            }
        }
    }
}

/// Whether a compiler is there.
fn is_buildable(lang: &str) -> bool {
    let ok = |command: &str| {
        let ran = std::process::Command::new("sh")
            .args(["-c", command])
            .output();
        ran.is_ok_and(|ran| ran.status.success())
    };
    let has = (lang == "c" && ok("clang --version && wasm-ld --version"))
        || ok("zig version | grep '^0.17' || python3 -m venv --help");
    if !has {
        e2e::tools::is_missing(&format!("a compiler of {lang}"), "a project of the kit");
    }
    has
}

#[test]
fn a_project_whose_tool_is_missing_is_told_which_and_how_to_get_it() {
    let dir = tempfile::tempdir().unwrap();
    for (lang, tool) in [
        ("rust", "rustup"),
        ("js", "apt-get install nodejs npm"),
        ("python", "apt-get install python3 python3-venv"),
        ("c", "apt-get install clang lld"),
        ("zig", "https://ziglang.org"),
    ] {
        kit_in(dir.path(), &["new", "--lang", lang, lang]);
        let built = std::process::Command::new(e2e::cli::binary())
            .args(["plugin", "build", lang])
            .current_dir(dir.path())
            .env("PATH", "/nowhere")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&built.stderr);
        assert_eq!(built.status.code(), Some(1), "{said}");
        assert!(said.contains(tool), "{said}");
    }
}

#[test]
fn a_folder_that_is_no_project_is_told_what_one_is() {
    let dir = tempfile::tempdir().unwrap();
    says(
        &kit_in(dir.path(), &["build"]),
        1,
        &["Cargo.toml", "lamina plugin new"],
    );
}
