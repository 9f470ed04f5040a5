//! Whole files: what is accepted, and how errors are explained.

use super::*;

mod automatic;
mod meaning;
mod rules;
mod syntax;
mod values;

const QUICKSTART: &str = include_str!("../../../../config/quickstart.yaml");

/// A valid file; `extra` is put at its end, from line 11 on.
fn file(extra: &str) -> String {
    format!(
        "version: 1\nlisteners:\n  - address: 127.0.0.1:8080\nupstreams:\n  demo: http://127.0.0.1:8081\n\
         plugins:\n  compose: {{ file: c.wasm }}\n\
         routes:\n  - name: site\n    upstream: demo\n{extra}"
    )
}

fn env(name: &str) -> Option<String> {
    match name {
        "N" => Some("3".to_owned()),
        "WORD" => Some("off".to_owned()),
        "DIGITS" => Some("123456".to_owned()),
        "EVIL" => Some("1\nadmin: {token: x}".to_owned()),
        _ => None,
    }
}

fn read(text: &str) -> Result<GatewayConfig, ConfigProblems> {
    parse(text, "lamina.yaml", &env)
}

/// The problems of `text`, one string for each.
fn said(text: &str) -> Vec<String> {
    match read(text) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

/// Checks that `text` has exactly one problem, which starts with `lamina.yaml:` and `start`.
#[track_caller]
fn says(text: &str, start: &str) {
    let all = said(text);
    assert_eq!(all.len(), 1, "{all:#?}");
    let want = format!("lamina.yaml:{start}");
    assert!(all[0].starts_with(&want), "want {want}\ngot  {}", all[0]);
}

#[test]
fn a_minimal_file_is_accepted() {
    let config = read(&file("")).unwrap();
    assert_eq!(
        config.upstreams["demo"].targets,
        [crate::origin::config::TargetConfig::from_url(
            "http://127.0.0.1:8081"
        )]
    );
    assert_eq!(config.routes[0].upstream.as_deref(), Some("demo"));
    assert_eq!(config.admin.address.to_string(), "127.0.0.1:9180");
}

#[test]
fn a_problem_shows_its_line_with_a_caret() {
    let text = file("    polcy: {}\n");
    let all = said(&text);
    let [told] = &all[..] else {
        panic!("{all:#?}");
    };
    let want =
        "lamina.yaml:11:5: routes[0].polcy: unknown key; expected `name`, `match`, `upstream`, ";
    assert!(told.starts_with(want), "{told}");
    let want = "; did you mean `policy`?\n   |\n11 |     polcy: ***\n   |     ^^^^^";
    assert!(told.ends_with(want), "{told}");
}

#[test]
fn unknown_keys_are_found_at_any_depth() {
    says(
        &file("sever: {}\n"),
        "11:1: sever: unknown key; expected `version`, `include`, `server`",
    );
    says(
        &file("    match: { paht: / }\n"),
        "11:14: routes[0].match.paht: unknown key; expected `host`, `path`, `method`, `header`, `query` or `tls`; did you mean `path`?",
    );
    says(
        &file("cache:\n  l1:\n    max_byte: 5\n"),
        "13:5: cache.l1.max_byte: unknown key",
    );
    let text = file("").replace(
        "demo: http://127.0.0.1:8081",
        "demo: { targets: [], timeouts: { conect: 1s } }",
    );
    says(
        &text,
        "5:36: upstreams.demo.timeouts.conect: unknown key; expected `connect`, `first_byte`, `idle`, `stream_idle`, `total` or `tunnel`; did you mean `connect`?",
    );
}

#[test]
fn a_missing_required_key_is_shown_at_the_block_that_lacks_it() {
    says(
        "version: 1\nroutes: []\n",
        "1:1: listeners: missing; this key is required",
    );
    says(
        &file("  - upstream: demo\n"),
        "11:5: routes[1].name: missing; this key is required",
    );
    says(
        &file("").replace("{ file: c.wasm }", "{}"),
        "7:3: plugins.compose.file: missing",
    );
    says("version: 1\n", "1:1: listeners: missing");
}

#[test]
fn a_wrong_type_says_what_was_found_and_what_is_expected() {
    says(
        &file("server: { threads: many }\n"),
        "11:20: server.threads: found the text \"many\"; expected a whole number, 0 or more",
    );
    says(
        &file("server: [1]\n"),
        "11:9: server: found a list; expected a mapping",
    );
    says(
        &file("    tags: blog\n"),
        "11:11: routes[0].tags: found the text \"blog\"; expected a list",
    );
    says(
        &file("server: { threads: 08 }\n"),
        "11:20: server.threads: found the text \"08\"; expected a whole number",
    );
    says(
        &file("    tags: [1]\n"),
        "11:12: routes[0].tags[0]: found the number 1; expected a text",
    );
    says(
        &file("    match: { path: {} }\n"),
        "11:20: routes[0].match.path: found a mapping; expected a text or a list of texts",
    );
    says(
        &file("    match: { path: [/a, 5] }\n"),
        "11:25: routes[0].match.path[1]: found the number 5; expected a text",
    );
    says(
        &file("    policy: { jitter: 300 }\n"),
        "11:23: routes[0].policy.jitter: found the number 300; expected a whole number from 0 to 255",
    );
    says(
        &file("    policy: { statuses: [-1] }\n"),
        "11:26: routes[0].policy.statuses[0]: found the number -1",
    );
    says(
        &file("").replace("127.0.0.1:8080", "localhost"),
        "3:14: listeners[0].address: not an address; expected an IP address and a port",
    );
    says(
        &file("").replace("http://127.0.0.1:8081", "[x]"),
        "5:9: upstreams.demo: found a list; expected a URL",
    );
    says(
        &file("").replace("version: 1", "version: one"),
        "1:10: version: found the text \"one\"",
    );
}

#[test]
fn durations_sizes_and_words_explain_themselves() {
    says(
        &file("    policy: { ttl: 5 parsecs }\n"),
        "11:20: routes[0].policy.ttl: \"5 parsecs\" is not a duration: a number with ms, s, m, h or d",
    );
    says(
        &file("    policy: { ttl: 5 }\n"),
        "11:20: routes[0].policy.ttl: \"5\" is not a duration",
    );
    says(
        &file("cache: { l1: { max_bytes: 1.5GiB } }\n"),
        "11:27: cache.l1.max_bytes: \"1.5GiB\" is not a size",
    );
    says(
        &file("    policy: { mode: overide }\n"),
        "11:21: routes[0].policy.mode: unknown word `overide`; expected `respect`, `override` or `cap`; did you mean `override`?",
    );
    says(
        &file("    cache: false\n"),
        "11:12: routes[0].cache: unknown word `false`; expected `on` or `off`",
    );
    says(
        &file("    invalidate: [{ purge: [{ tga: x }] }]\n"),
        "11:30: routes[0].invalidate[0].purge[0].tga: unknown word `tga`; expected `url`, `prefix`, `pattern`, `tag` or `route`; did you mean `tag`?",
    );
    says(
        &file("    invalidate: [{ purge: [{ tag: x, url: y }] }]\n"),
        "11:28: routes[0].invalidate[0].purge[0]: found a mapping with 2 keys; expected one of `url`, `prefix`",
    );
}

#[test]
fn everything_wrong_in_meaning_is_said_at_once_and_in_order() {
    let text =
        file("    policy: { jitter: 200, statuses: [1] }\n  - name: site\n    upstream: none\n")
            .replace("8080", "9180");
    let problems = read(&text).unwrap_err();
    let lines: Vec<_> = problems.iter().map(|p| p.position.unwrap().0).collect();
    assert_eq!(lines, [3, 11, 11, 12, 12, 13]);
}

#[test]
fn the_version_comes_first() {
    says(
        &file("unheard_of: 1\n").replace("version: 1", "version: 2"),
        "1:10: version: version 2 of the format is not known; expected 1",
    );
}
