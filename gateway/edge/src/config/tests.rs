//! Whole files: what is accepted, and how errors are explained.

use proptest::prelude::*;

use super::*;

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
fn a_route_gives_its_streams_some_time() {
    for (section, key) in [
        ("limits", "body_timeout"),
        ("limits", "upload_timeout"),
        ("limits", "min_rate_grace"),
        ("timeouts", "stream_idle"),
        ("timeouts", "tunnel"),
    ] {
        let all = said(&file(&format!("    {section}: {{ {key}: 0s }}\n")));
        let told = format!("routes[0].{section}.{key}: 0 would allow nothing");
        assert!(all.len() == 1 && all[0].contains(&told), "{all:#?}");
    }
    let unlimited = file("    limits: { min_rate: 0 }\n    timeouts: { tunnel: 1h }\n");
    assert_eq!(said(&unlimited), [""; 0]);
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
fn references_must_exist() {
    says(
        &file("").replace("upstream: demo", "upstream: dmeo"),
        "10:15: routes[0].upstream: no upstream is named `dmeo`; expected `demo`; did you mean `demo`?",
    );
    says(
        &file("    key: { plugin: compos }\n"),
        "11:20: routes[0].key.plugin: no plugin is named `compos`; expected `compose`; did you mean `compose`?",
    );
    says(
        &file("    loader: { plugin: x }\n"),
        "11:23: routes[0].loader.plugin: no plugin is named `x`",
    );
    says(
        &file("").replace("c.wasm }", "c.wasm, fetch: [other] }"),
        "7:36: plugins.compose.fetch[0]: no upstream is named `other`; expected `demo`",
    );
    says(
        &file("    invalidate: [{ purge: [{ route: sit }] }]\n"),
        "11:37: routes[0].invalidate[0].purge[0].route: no route is named `sit`",
    );
}

#[test]
fn a_route_must_go_somewhere() {
    let none = "version: 1\nlisteners: [{ address: 127.0.0.1:1 }]\nroutes:\n  - name: site\n";
    says(
        none,
        "4:5: routes[0].upstream: the route has neither `upstream` nor `loader`; expected an upstream: one, after defining it",
    );
    says(
        &format!("{none}    upstream: demo\n"),
        "5:15: routes[0].upstream: no upstream is named `demo`; but `upstreams` defines none",
    );
    let loader = file("    loader: { plugin: compose }\n").replace("    upstream: demo\n", "");
    assert!(read(&loader).is_ok());
    says(
        &loader.replace("c.wasm }", "c.wasm, on_error: { loader: origin } }"),
        "9:5: routes[0].upstream: missing, but plugin `compose`",
    );
}

#[test]
fn a_route_that_can_never_match_is_refused() {
    let first = file("").replace(
        "    upstream: demo\n",
        "    upstream: demo\n    match: { path: [/a, /b], host: A.example }\n",
    );
    let second =
        "  - name: two\n    upstream: demo\n    match: { host: [a.example], path: [/b, /a] }\n";
    says(
        &format!("{first}{second}"),
        "14:12: routes[1].match: never reached: routes[0] (`site`) has the same match",
    );
    says(
        &file(second),
        "13:12: routes[1].match: never reached: routes[0] (`site`) matches every request",
    );
    says(
        &format!(
            "{first}{}",
            second.replace("two", "site").replace("/b", "/c")
        ),
        "12:11: routes[1].name: routes[0] is also named `site`",
    );
}

#[test]
fn values_that_cannot_be_meant_are_refused() {
    for (extra, start) in [
        (
            "    policy: { statuses: [200, 99] }\n",
            "11:31: routes[0].policy.statuses[1]: 99 is not a status; expected 100 to 999",
        ),
        (
            "    policy: { jitter: 101 }\n",
            "11:23: routes[0].policy.jitter: 101 is more than 100 percent; expected 0 to 100",
        ),
        (
            "    policy: { mode: override }\n",
            "11:21: routes[0].policy.mode: mode `override` without a lifetime",
        ),
        (
            "    policy: { timeouts: { soft: 5s, hard: 2s } }\n",
            "11:33: routes[0].policy.timeouts.soft: soft (5s) is not below hard (2s)",
        ),
        (
            "    policy: { timeouts: { hard: 2s } }\ndefaults: { timeouts: { soft: 2s } }\n",
            "11:33: routes[0].policy.timeouts.hard: soft (2s)",
        ),
        (
            "    match: { method: post }\n",
            "11:22: routes[0].match.method: \"post\" is not a method; expected capitals, as in POST; did you mean `POST`?",
        ),
        (
            "    match: { header: { \"a b\": x } }\n",
            "11:24: routes[0].match.header.\"a b\": \"a b\" is not a header name",
        ),
        (
            "    key: { headers: [\"x:y\"] }\n",
            "11:22: routes[0].key.headers[0]: \"x:y\" is not a header name",
        ),
        (
            "    match: { path: pages/* }\n",
            "11:20: routes[0].match.path: \"pages/*\" can match no path",
        ),
        (
            "    invalidate: [{ purge: [{ url: \"{paht}\" }] }]\n",
            "11:35: routes[0].invalidate[0].purge[0].url: unknown placeholder `{paht}`; expected {path}, {path.N}, {query.NAME}, {header.NAME} or {host}; did you mean `path`?",
        ),
        (
            "cache: { l1: { max_bytes: 1MiB } }\n",
            "11:10: cache.l1.max_object_bytes: an object of 8MiB does not fit into max_bytes (1MiB)",
        ),
        (
            "admin: { address: 0.0.0.0:9180 }\n",
            "11:19: admin.address: 0.0.0.0:9180 can be reached from outside; expected `admin.token`",
        ),
        (
            "admin: { token: \"\" }\n",
            "11:17: admin.token: an empty token",
        ),
        (
            "purge_method: { enabled: true }\n",
            "11:26: purge_method.enabled: anybody could purge",
        ),
        (
            "purge_method: { allow: [10.0.0.0/33] }\n",
            "11:25: purge_method.allow[0]: bad prefix length",
        ),
        (
            "purge_method: { drupal_headers: [\"a b\"] }\n",
            "11:34: purge_method.drupal_headers[0]: \"a b\" is not a header name",
        ),
        (
            "purge_method: { nginx_prefix: purge }\n",
            "11:31: purge_method.nginx_prefix: \"purge\" is no prefix of paths; expected a text as /purge/",
        ),
        (
            "purge_method: { max_selectors: 0 }\n",
            "11:32: purge_method.max_selectors: ",
        ),
        (
            "purge_method: { dialects: [varnish, squid] }\n",
            "11:37: purge_method.dialects[1]: ",
        ),
        (
            "purge_method: { enabled: true, token: abcdefgh, dialects: [url, refresh] }\n",
            "11:65: purge_method.dialects[1]: every browser can ask for a refresh; expected addresses in",
        ),
        (
            "admin: { purge_apis: { fastly: { id: [nowhere] } } }\n",
            "11:38: admin.purge_apis.fastly.id: no route is named `nowhere`; expected names of routes, or \"*\"",
        ),
        (
            "defaults: { tags_from: [{ header: \"a b\", split: \",\" }] }\n",
            "11:35: defaults.tags_from[0].header: ",
        ),
        (
            "defaults: { tags_from: [{ header: a, split: \"-\" }] }\n",
            "11:45: defaults.tags_from[0].split: ",
        ),
        (
            "server: { threads: 0 }\n",
            "11:20: server.threads: 0 threads",
        ),
    ] {
        says(&file(extra), start);
    }
}

#[test]
fn who_may_use_the_admin_listener_is_checked() {
    let token = "token: \"0123456789\"";
    let tokens = |tokens: &str| file(&format!("admin: {{ tokens: [{tokens}] }}\n"));
    for (given, message) in [
        (
            format!("{{ name: a, {token}, can: [] }}"),
            "11:56: admin.tokens[0].can: a token without rights; expected one or more of `read`",
        ),
        (
            format!("{{ name: a, {token}, can: [raed] }}"),
            "11:57: admin.tokens[0].can[0]: unknown word `raed`; expected `read`, `purge`, `plugins`, `certificates`, `targets` or `config`; did you mean `read`?",
        ),
        (
            format!("{{ name: a b, {token}, can: [read] }}"),
            "11:27: admin.tokens[0].name: \"a b\" is not a name",
        ),
        (
            format!("{{ name: admin, {token}, can: [read] }}"),
            "11:27: admin.tokens[0].name: \"admin\" has another meaning in audit lines",
        ),
        (
            "{ name: a, can: [read] }".to_owned(),
            "11:19: admin.tokens[0]: no token; expected `token_file` or `token`",
        ),
        (
            "{ name: a, token: \"\", can: [read] }".to_owned(),
            "11:37: admin.tokens[0].token: an empty token",
        ),
        (
            "{ name: a, token: s3cret, can: [read] }".to_owned(),
            "11:37: admin.tokens[0].token: shorter than 8 characters",
        ),
        (
            "{ name: a, token_file: none, can: [read] }".to_owned(),
            "11:42: admin.tokens[0].token_file: cannot read",
        ),
        (
            format!(
                "{{ name: a, {token}, can: [read] }}, {{ name: a, token: another one, can: [read] }}"
            ),
            "11:74: admin.tokens[1].name: another token is named \"a\"",
        ),
        (
            format!("{{ name: a, {token}, can: [read] }}, {{ name: b, {token}, can: [purge] }}"),
            "11:84: admin.tokens[1].token: the same token is given twice",
        ),
    ] {
        says(&tokens(&given), message);
    }
    for (given, message) in [
        (
            "{ hosts: [\"*\"] }",
            "11:18: admin.hosts[0]: \"*\" also matches the names of foreign web sites",
        ),
        (
            "{ hosts: [\"http://a\"] }",
            "11:18: admin.hosts[0]: \"http://a\" is not a host",
        ),
        (
            "{ hosts: [\"::1\"] }",
            "11:18: admin.hosts[0]: \"::1\" is to be written as in a URL; expected [::1]",
        ),
        (
            "{ address: \"unix:a.sock\" }",
            "11:19: admin.address: the path of the Unix socket is not absolute",
        ),
        (
            "{ address: localhost }",
            "11:19: admin.address: not an address; expected an IP address and a port, as in 127.0.0.1:9180, or a Unix socket",
        ),
        (
            "{ socket_mode: 0888 }",
            "11:23: admin.socket_mode: \"0888\" is not the mode of a socket",
        ),
    ] {
        says(&file(&format!("admin: {given}\n")), message);
    }
    let good = "{ address: 0.0.0.0:1, socket_mode: 0660, hosts: [\"*.a.example\", 10.0.0.1, \"[fd00::1]\"], \
                tokens: [{ name: ci, token: 0123456789, can: [purge, targets] }] }";
    let config = read(&file(&format!("admin: {good}\n"))).unwrap().admin;
    assert_eq!(config.socket_mode.to_string(), "0660");
    assert_eq!(
        config.token_for(crate::admin::config::AdminRight::Purge),
        Some("0123456789")
    );
    assert_eq!(
        config.token_for(crate::admin::config::AdminRight::Read),
        None
    );
}

#[test]
fn listeners_and_targets_are_checked() {
    says(
        &file("").replace("listeners:\n  - address: 127.0.0.1:8080", "listeners: []"),
        "2:12: listeners: no listeners",
    );
    says(
        &file("").replace("8080\n", "8080\n    proxy_protocol: true\n"),
        "4:21: listeners[0].proxy_protocol: no trusted_proxies",
    );
    says(
        &file("").replace("8080\n", "8080\n  - address: 127.0.0.1:8080\n"),
        "4:14: listeners[1].address: 127.0.0.1:8080 is another listener's address",
    );
    says(
        &file("").replace("8080\n", "9180\n"),
        "3:14: listeners[0].address: 127.0.0.1:9180 is the admin listener's address",
    );
    says(
        &file("").replace("8080\n", "8080\n    trusted_proxies: [10/8]\n"),
        "4:23: listeners[0].trusted_proxies[0]: \"10/8\" is not a block of addresses",
    );
    let listed = |names: &str| {
        let more =
            format!("8080\n    trusted_proxies: [10.0.0.0/8]\n    trusted_headers: [{names}]\n");
        file("").replace("8080\n", &more)
    };
    let good = listed("X-Forwarded-Prefix, x-original-url");
    assert!(said(&good).is_empty(), "{:#?}", said(&good));
    for (name, problem) in [
        (
            "x-forwarded-for",
            "`x-forwarded-for` is read and then written anew",
        ),
        ("x-plan", "`x-plan` is passed on from every client anyway"),
        ("te", "`te` is for one connection alone"),
        (
            "x_original_url",
            "`x_original_url` is another spelling of `x-original-url`",
        ),
        ("\"a b\"", "\"a b\" is not the name of a header field"),
    ] {
        says(
            &listed(name),
            &format!("5:23: listeners[0].trusted_headers[0]: {problem}"),
        );
    }
    for (rule, at) in [
        (
            "    key: { headers: [x-original-url] }\n",
            "11:22: routes[0].key.headers[0]",
        ),
        (
            "    match: { header: { x-original-url: a } }\n",
            "11:24: routes[0].match.header.x-original-url",
        ),
        (
            "    key: { headers: [X-Forwarded-Proto] }\n",
            "11:22: routes[0].key.headers[0]",
        ),
        (
            "    key: { headers: [te] }\n",
            "11:22: routes[0].key.headers[0]",
        ),
    ] {
        says(&file(rule), at);
    }
    let keyed = good + "    key: { headers: [x-original-url] }\n";
    assert!(said(&keyed).is_empty(), "{:#?}", said(&keyed));
    says(
        &file("").replace("8080\n", "8080\n    trusted_headers: [x-real-ip]\n"),
        "4:22: listeners[0].trusted_headers: no trusted_proxies",
    );
    says(
        &file("").replace("http://127.0.0.1:8081", "{ targets: [] }"),
        "5:20: upstreams.demo.targets: no targets",
    );
    says(
        &file("").replace(
            "http://127.0.0.1:8081",
            "{ targets: [http://a], pool: { stream_window: 0 } }",
        ),
        "5:55: upstreams.demo.pool.stream_window: 0B is no window of a stream",
    );
    let sealed = file("").replace("http://127", "https://127");
    assert!(said(&sealed).is_empty(), "{:#?}", said(&sealed));
    says(
        &file("").replace(
            "http://127.0.0.1:8081",
            "{ targets: [https://a], tls: { verify: off } }",
        ),
        "5:48: upstreams.demo.tls.verify: anybody on the way can pose as the origin",
    );
    says(
        &file("").replace(
            "http://127.0.0.1:8081",
            "{ targets: [https://a], tls: { insecure: why } }",
        ),
        "5:50: upstreams.demo.tls.insecure: given beside `verify: on`",
    );
    says(
        &file("").replace(
            "http://127.0.0.1:8081",
            "{ targets: [http://a, http://b/c] }",
        ),
        "5:31: upstreams.demo.targets[1]: \"http://b/c\" has a path",
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

#[test]
fn broken_yaml_is_shown_where_it_breaks() {
    says(
        &file("server:\n\tthreads: 2\n"),
        "12:1: a tab in the indentation; YAML is indented with spaces",
    );
    says(
        &file("    tags: [a, b\n"),
        "11:16: not valid YAML: while parsing a flow sequence, expected ',' or ']'; the file ends here",
    );
    says(
        &file("admin:\n  token: \"abc\n"),
        "12:10: not valid YAML: while scanning a quoted scalar",
    );
    says(
        &file("server: { threads: ${N} }\n"),
        "11:21: not valid YAML: while parsing a flow mapping, did not find expected ',' or '}'; inside { } and [ ] put quotes",
    );
    says(
        &file("a: b: c\n"),
        "11:5: not valid YAML: mapping values are not allowed in this context",
    );
    says(
        &file("    tags: [a]\n    tags: [b]\n"),
        "12:5: routes[0].tags: given twice, first in line 11; expected once",
    );
    says(
        &file("server: !custom {}\n"),
        "11:9: server: the YAML tag `!custom` is not supported",
    );
    says(
        &file("server: {<<: {}}\n"),
        "11:10: server.\"<<\": merge keys are not supported",
    );
    says(&file("---\nversion: 1\n"), "11:1: a second YAML document");
    says("- a\n", "1:1: not a mapping");
    says("", " the file is empty");
    says("# nothing yet\n", " the file is empty");
    says("~", "1:1: not a mapping");
}

#[test]
fn a_file_cut_at_any_place_is_read_or_explained() {
    for end in (0..QUICKSTART.len()).filter(|end| QUICKSTART.is_char_boundary(*end)) {
        sound(&QUICKSTART[..end]);
    }
}

#[test]
fn aliases_and_nesting_without_end_are_refused_quickly() {
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..40 {
        let one = format!("*a{}, ", i - 1);
        laughs.push_str(&format!("a{i}: &a{i} [{}]\n", one.repeat(10)));
    }
    assert!(
        said(&laughs)[0].contains("too large") || said(&laughs)[0].contains("too much"),
        "{:?}",
        said(&laughs)
    );
    for deep in [
        "[".repeat(200_000),
        "{a: ".repeat(100_000),
        "- ".repeat(200_000),
    ] {
        assert!(
            said(&deep)[0].contains("nested too deep"),
            "{}",
            said(&deep)[0]
        );
    }
    assert!(said("a: &a [*a]\n")[0].contains("inside the value that it names"));
}

#[test]
fn a_full_sized_file_with_endless_mistakes_is_answered_with_the_first_hundred() {
    let routes: String = (0..25_000)
        .map(|i| format!("  - {{ name: r{i}, upstream: x }}\n"))
        .collect();
    assert_eq!(read(&file(&routes)).unwrap_err().count(), 100);
    let tags = "      - ${NONE}\n".repeat(60_000);
    assert_eq!(
        read(&file(&format!("    tags:\n{tags}")))
            .unwrap_err()
            .count(),
        100
    );
}

#[test]
fn aliases_within_reason_work() {
    let text = file("    policy: &p { ttl: 5s }\ndefaults: *p\n");
    assert_eq!(
        read(&text).unwrap().defaults.policy.ttl,
        Some(crate::units::ConfigDuration::secs(5))
    );
}

#[test]
fn size_and_encoding_are_checked_before_parsing() {
    let dir = tempfile::tempdir().unwrap();
    let name = dir.path().join("c.yaml");
    std::fs::write(&name, vec![b'#'; 50 << 20]).unwrap();
    assert!(
        load(&name)
            .unwrap_err()
            .to_string()
            .ends_with(": larger than 1 MiB; expected a configuration file")
    );
    std::fs::write(&name, b"version: 1\nx: \xff\xfe\n").unwrap();
    let message = load(&name).unwrap_err().to_string();
    assert!(message.contains("c.yaml:2:4: not UTF-8"), "{message}");
    assert!(
        load(&dir.path().join("none.yaml"))
            .unwrap_err()
            .to_string()
            .contains("cannot be read")
    );
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_are_accepted() {
    let text = format!("\u{feff}{}", file("").replace('\n', "\r\n"));
    assert!(read(&text).is_ok(), "{:?}", said(&text));
}

#[test]
fn a_variable_becomes_what_the_type_needs() {
    let text = file("    cache: ${WORD}\nserver:\n  threads: ${N}\n");
    let config = read(&text).unwrap();
    assert_eq!(
        (config.server.threads, config.routes[0].cache),
        (Some(3), crate::proxy::config::OnOffSwitch::Off)
    );
    assert_eq!(
        read(&file("server: { threads: \"${NONE:-2}\" }\n"))
            .unwrap()
            .server
            .threads,
        Some(2)
    );
    assert_eq!(
        read(&file("server:\n  threads: ${NONE:-}\n"))
            .unwrap()
            .server
            .threads,
        None
    );
    assert_eq!(
        read(&file("admin:\n  token: ${DIGITS}\n"))
            .unwrap()
            .admin
            .token
            .as_deref(),
        Some("123456")
    );
    let plugin = read(&file("").replace(
        "{ file: c.wasm }",
        "\n    file: c.wasm\n    config:\n      n: ${N}\n      s: \"${N}\"",
    ))
    .unwrap()
    .plugins
    .by_name["compose"]
        .config
        .clone();
    assert_eq!(plugin, serde_json::json!({ "n": 3, "s": "3" }));
}

#[test]
fn a_variable_cannot_inject_yaml() {
    let config = read(&file("    tags: [\"${EVIL}\"]\n"));
    assert!(
        config
            .unwrap_err()
            .to_string()
            .contains("routes[0].tags[0]")
    );
    says(
        &file("server: { threads: \"${EVIL}\" }\n"),
        "11:20: server.threads: found the text \"1\\nadmin: {token: ***\"",
    );
}

#[test]
fn all_missing_variables_are_named_at_once() {
    let all = said(&file(
        "admin: { token: \"${A}\" }\nserver:\n  threads: ${B:?how many}\n",
    ));
    assert_eq!(all.len(), 2);
    assert!(
        all[0].starts_with("lamina.yaml:11:17: admin.token: environment variable `A` is not set"),
        "{}",
        all[0]
    );
    assert!(all[1].contains("`B` is not set: how many"), "{}", all[1]);
}

#[test]
fn secrets_come_from_files_beside_the_configuration() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("token"), "s3cret\r\n").unwrap();
    std::fs::write(dir.path().join("empty"), "\n").unwrap();
    let name = dir.path().join("lamina.yaml");
    let with = |extra: &str| {
        std::fs::write(&name, file(extra)).unwrap();
        load(&name)
    };
    let config = with("admin: { address: 0.0.0.0:1, token_file: token }\n").unwrap();
    assert_eq!(config.admin.token.as_deref(), Some("s3cret"));
    assert_eq!(
        config.plugins.by_name["compose"].file,
        dir.path().join("c.wasm")
    );
    for (extra, want) in [
        (
            "admin: { token_file: none }\n",
            "admin.token_file: cannot read",
        ),
        (
            "admin: { token_file: empty }\n",
            "is empty; expected a secret",
        ),
        (
            "purge_method: { token: x, token_file: token }\n",
            "purge_method.token_file: given beside `token`",
        ),
    ] {
        let message = with(extra).unwrap_err().to_string();
        assert!(message.contains(want), "{message}");
    }
}

#[test]
fn what_the_second_tier_names_lies_beside_the_configuration() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("pw"), "a s3cret of 16 bytes\n").unwrap();
    let name = dir.path().join("lamina.yaml");
    let with = |l2: &str| {
        std::fs::write(&name, file(&format!("cache: {{ l2: {l2} }}\n"))).unwrap();
        load(&name)
    };
    let redis = "{ redis: { password_file: pw, sentinel_password_file: pw, ca_file: ca.pem }, seal_key_file: pw }";
    let l2 = with(redis).unwrap().cache.l2;
    let redis = l2.redis.unwrap();
    assert_eq!(l2.seal_key.as_deref(), Some("a s3cret of 16 bytes"));
    assert_eq!(redis.password.as_deref(), Some("a s3cret of 16 bytes"));
    assert_eq!(
        redis.sentinel_password.as_deref(),
        Some("a s3cret of 16 bytes")
    );
    assert_eq!(redis.ca_file, Some(dir.path().join("ca.pem")));
    let disk = with("{ disk: { path: x.l2 } }").unwrap().cache.l2.disk;
    assert_eq!(disk.unwrap().path, dir.path().join("x.l2"));
    for (l2, want) in [
        (
            "{ redis: {}, disk: {} }",
            "cache.l2.disk: given beside `redis`",
        ),
        (
            "{ redis: { password: x, password_file: pw } }",
            "cache.l2.redis.password_file: given beside `password`",
        ),
        (
            "{ redis: { url: x } }",
            "cache.l2.redis.url: \"x\" is not the address of a Redis server",
        ),
        (
            "{ redis: { url: 'redis://me:s3cret@h' } }",
            "cache.l2.redis.url: credentials in the URL",
        ),
        ("{ redis: { prefix: '{a}' } }", "cache.l2.redis.prefix: "),
        (
            "{ redis: { connections: 0 } }",
            "cache.l2.redis.connections: ",
        ),
        ("{ max_concurrent: 0 }", "cache.l2.max_concurrent: "),
    ] {
        let message = with(l2).unwrap_err().to_string();
        assert!(
            message.contains(want) && !message.contains("s3cret"),
            "{message}"
        );
    }
}

#[test]
fn no_dump_and_no_message_shows_a_secret() {
    let text = file("admin: { token: s3cret }\n")
        .replace("c.wasm }", "c.wasm, config: { api_key: s3cret, n: 1 } }");
    let dump = redacted(&read(&text).unwrap());
    assert!(
        !dump.contains("s3cret")
            && dump.contains("token: '***'")
            && dump.contains("api_key: '***'"),
        "{dump}"
    );
    for bad in [
        "admin: { token: [s3cret] }\n",
        "admin: { token: s3cret, s: s3cret }\n",
        "admin: { token: s3cret\n",
        "  # x\nupstreams2: https://me:s3cret@h\n",
    ] {
        let shown = said(&file(bad)).join("\n");
        assert!(!shown.is_empty() && !shown.contains("s3cret"), "{shown}");
    }
}

#[test]
fn a_password_in_a_url_is_refused_and_not_shown() {
    for url in ["https://me:s3cret@h", "http://me:s3cret@h"] {
        let shown = said(&file("").replace("http://127.0.0.1:8081", url)).join("\n");
        assert!(
            shown.contains("user information") && !shown.contains("s3cret"),
            "{shown}"
        );
    }
}

#[test]
fn the_redacted_dump_reads_back_as_the_same_configuration() {
    let dump = redacted(&read(QUICKSTART).unwrap());
    let again = parse(&dump, "lamina.yaml", &env).unwrap_or_else(|e| panic!("{e}\n{dump}"));
    assert_eq!(redacted(&again), dump);
}

/// Whatever the text is: no panic, and all positions are inside the file.
fn sound(text: &str) {
    let Err(problems) = read(text) else { return };
    let lines: Vec<&str> = excerpt::lines(text.strip_prefix('\u{feff}').unwrap_or(text)).collect();
    assert!(problems.count() > 0);
    for problem in problems.iter() {
        let Some((line, column)) = problem.position else {
            continue;
        };
        assert!(line >= 1 && line <= lines.len(), "{problem}");
        let width = lines[line - 1].chars().count();
        assert!(column >= 1 && column <= width + 1, "{width} {problem}");
        assert!(!problem.message.is_empty());
    }
}

/// One change to a text.
#[derive(Clone, Debug)]
enum Change {
    Cut(usize, usize),
    Insert(usize, String),
    Repeat(usize, usize),
}

fn change() -> impl Strategy<Value = Change> {
    let len = QUICKSTART.len();
    let junk = prop_oneof![
        proptest::sample::select(vec![
            "\t",
            "\n",
            "  ",
            ": ",
            "- ",
            "{",
            "}",
            "[",
            "]",
            "\"",
            "'",
            "#",
            "&a ",
            "*a",
            "!x ",
            "|\n",
            ">\n",
            "?",
            "<<",
            "%",
            "---\n",
            "${",
            "}",
            "$$",
            "\r",
            "\0",
            "é",
            "\u{2028}",
            "99999999999999999999",
            "-1",
            "null",
            "1e999"
        ])
        .prop_map(str::to_owned),
        "\\PC{0,8}",
    ];
    prop_oneof![
        (0..len, 0..40usize).prop_map(|(at, n)| Change::Cut(at, n)),
        (0..len, junk).prop_map(|(at, text)| Change::Insert(at, text)),
        (0..len, 0..80usize).prop_map(|(at, n)| Change::Repeat(at, n)),
    ]
}

fn mutate(changes: &[Change]) -> String {
    let mut text: Vec<char> = QUICKSTART.chars().collect();
    for change in changes {
        let place = |at: &usize, n: usize, len: usize| ((*at).min(len), (at + n).min(len));
        match change {
            Change::Cut(at, n) => {
                let (from, to) = place(at, *n, text.len());
                text.drain(from..to);
            }
            Change::Insert(at, junk) => {
                let (from, _) = place(at, 0, text.len());
                text.splice(from..from, junk.chars());
            }
            Change::Repeat(at, n) => {
                let (from, to) = place(at, *n, text.len());
                let piece = text[from..to].to_vec();
                text.splice(from..from, piece);
            }
        }
    }
    text.into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn arbitrary_text_never_panics(text in any::<String>()) {
        sound(&text);
    }

    #[test]
    fn yaml_like_text_never_panics(text in "([a-z]{0,3}[:\\-\\[\\]{},&*!|>'\"%@`#?~$ \n\t]{0,3}){0,30}") {
        sound(&text);
    }

    #[test]
    fn a_mutated_file_is_read_or_explained_inside_the_file(changes in proptest::collection::vec(change(), 1..6)) {
        sound(&mutate(&changes));
    }

    /// The parser of our tree and `serde_yaml` may differ in what they accept, but never in what
    /// they read, except where `serde_yaml` still follows YAML 1.1: Unicode's line breaks,
    /// `{ ?a: 1 }`, names of anchors.
    #[test]
    fn both_yaml_parsers_read_the_same(changes in proptest::collection::vec(change(), 0..3)) {
        let text = mutate(&changes).replace(['\u{85}', '\u{2028}', '\u{2029}', '?', '&'], "");
        let ours = parser::parse(&text).ok().and_then(|root| de::read::<serde_json::Value>(&root).ok());
        let theirs = serde_yaml::from_str::<serde_json::Value>(&text).ok();
        if let (Some(ours), Some(theirs)) = (ours, theirs) {
            prop_assert_eq!(ours, theirs);
        }
    }
}

#[test]
fn a_bus_has_one_way_to_the_other_nodes_and_what_that_needs() {
    let with = |bus: &str| {
        let text = format!(
            "version: 1\nlisteners: [{{ address: 127.0.0.1:8080 }}]\nbus: {bus}\n\
             upstreams: {{ origin: http://127.0.0.1:9000 }}\nroutes: [{{ name: site, upstream: origin }}]\n"
        );
        parse(&text, "lamina.yaml", &|_| None).map_err(|problems| problems.to_string())
    };
    assert!(with("{ nats: {} }").is_ok());
    for (bus, problem) in [
        ("{ source: a }", "bus: no transport to the other nodes"),
        (
            "{ nats: {}, redis: {} }",
            "bus: another transport is given beside `redis`",
        ),
        ("{ nats: {}, publish_timeout: 0s }", "bus.publish_timeout: "),
        (
            "{ nats: { mode: jetstream } }",
            "bus.nats.jetstream.durable_name: no durable name",
        ),
        (
            "{ rabbitmq: { durable_invalidation_mode: true } }",
            "bus.rabbitmq.queue_name: ",
        ),
        (
            "{ redis: { url: 'redis://me:s3cret@h' } }",
            "bus.redis.url: credentials",
        ),
    ] {
        let told = with(bus).unwrap_err();
        assert!(told.contains(problem), "{bus}: {told}");
    }
}

#[test]
fn keys_that_seal_are_long_enough_and_names_of_nodes_short_enough() {
    let with = |rest: &str| parse(&file(rest), "x.yaml", &|_| None);
    let long = "n".repeat(256);
    for (rest, want) in [
        (
            "bus: { nats: {}, seal_key: short }\n".to_owned(),
            "bus.seal_key: 5 bytes can be guessed; expected 16 or more",
        ),
        (
            "bus: { nats: {}, seal_key: 'a key of 16 bytes', accepted_seal_key: short }\n"
                .to_owned(),
            "bus.accepted_seal_key: 5 bytes can be guessed",
        ),
        (
            "cache: { l2: { redis: {}, seal_key: '   15 bytes here   ' } }\n".to_owned(),
            "cache.l2.seal_key: 13 bytes can be guessed",
        ),
        (
            "bus: { nats: {}, accepted_seal_key: 'a key of 16 bytes' }\n".to_owned(),
            "bus.accepted_seal_key: no `seal_key` is given beside it",
        ),
        (
            format!("bus: {{ nats: {{}}, source: {long} }}\n"),
            "bus.source: 256 bytes; expected a name of 1 to 255 bytes",
        ),
        (
            "bus: { nats: {}, source: '' }\n".to_owned(),
            "bus.source: 0 bytes",
        ),
        (
            "bus: { nats: {}, max_nodes: 0 }\n".to_owned(),
            "bus.max_nodes",
        ),
    ] {
        let message = with(&rest).unwrap_err().to_string();
        assert!(message.contains(want), "{message}");
        assert!(!message.contains("short"), "{message}");
    }
    let name = "n".repeat(255);
    let right = format!("bus: {{ nats: {{}}, source: {name}, seal_key: 'a key of 16 bytes' }}\n");
    assert!(with(&right).is_ok());
}

/// A valid file with an automatic certificate for these names; `acme` begins at line 12.
fn obtained(source: &str, acme: &str) -> String {
    let listener = format!(
        "  - address: 127.0.0.1:8080\n  - address: 127.0.0.1:8443\n    tls: {{ certificates: [{source}] }}\n"
    );
    file(acme).replace("  - address: 127.0.0.1:8080\n", &listener)
}

const LETS_ENCRYPT: &str = "acme:\n  storage: certificates\n  issuers:\n    letsencrypt: { directory: \"https://acme.example/dir\", agree_to_terms: true }\n";

#[test]
fn an_automatic_certificate_is_read() {
    let text = obtained(
        "{ acme: letsencrypt, names: [shop.example.com] }",
        LETS_ENCRYPT,
    );
    let config = read(&text).unwrap();
    let tls = config.listeners[1].tls.as_ref().unwrap();
    let issuers = tls.certificates[0].acme.as_ref().unwrap();
    assert_eq!(issuers.as_slice(), ["letsencrypt"]);
    let acme = config.acme.unwrap();
    let folder = crate::acme::config::AcmeStorageConfig::Folder("certificates".into());
    assert_eq!(acme.storage, folder);
}

#[test]
fn a_wildcard_needs_the_challenge_of_the_dns() {
    let text = obtained(
        "{ acme: letsencrypt, names: [example.com, \"*.example.com\"] }",
        LETS_ENCRYPT,
    );
    says(
        &text,
        "5:69: listeners[1].tls.certificates[0].names[1]: *.example.com is a wildcard",
    );
    let dns = "agree_to_terms: true, challenge: { dns-01: { exec: [./hook] } }, key: both";
    assert!(read(&text.replace("agree_to_terms: true", dns)).is_ok());
}

#[test]
fn what_an_automatic_certificate_lacks_is_told() {
    let source = "{ acme: letsencrypt, names: [shop.example.com] }";
    let whole = obtained(source, LETS_ENCRYPT);
    for (given, instead, start) in [
        (
            "storage: certificates",
            "storage: redis\n  seal_key: 0123456789abcdef",
            "14:12: acme.storage: `cache.l2` has no Redis",
        ),
        (
            "acme: letsencrypt,",
            "acme: [letsencrypt, zerossl],",
            "5:49: listeners[1].tls.certificates[0].acme[1]: no issuer is named `zerossl`; expected `letsencrypt`",
        ),
        (
            ", agree_to_terms: true",
            "",
            "16:5: acme.issuers.letsencrypt.agree_to_terms: the issuer gives out nothing",
        ),
        (
            "https://acme.example/dir",
            "http://acme.example/dir",
            "16:31: acme.issuers.letsencrypt.directory: \"http://acme.example/dir\" is not the URL",
        ),
        (
            ", names: [shop.example.com]",
            "",
            "5:27: listeners[1].tls.certificates[0].names: no names",
        ),
        (
            "acme: letsencrypt,",
            "acme: letsencrypt, dir: x,",
            "5:48: listeners[1].tls.certificates[0].dir: given beside `acme`",
        ),
        (
            "agree_to_terms: true",
            "agree_to_terms: true, challenge: dns-02",
            "16:92: acme.issuers.letsencrypt.challenge: found the text \"dns-02\"",
        ),
        (
            "agree_to_terms: true",
            "agree_to_terms: true, contact: [ops@example.com]",
            "16:91: acme.issuers.letsencrypt.contact[0]",
        ),
    ] {
        assert!(whole.contains(given), "{given}");
        says(&whole.replace(given, instead), start);
    }
    says(
        &obtained(source, ""),
        "5:35: listeners[1].tls.certificates[0].acme: there is no `acme`",
    );
    let redis = whole.replace("storage: certificates", "storage: redis");
    let redis = format!("{redis}cache: {{ l2: {{ redis: {{}} }} }}\n");
    says(
        &redis,
        "14:12: acme.storage: private keys would lie in Redis",
    );
    let clear = whole.replace("  - address: 127.0.0.1:8080\n", "");
    says(
        &clear,
        "4:35: listeners[0].tls.certificates[0].acme: its issuer has `challenge: http-01`",
    );
}

#[test]
fn compression_is_a_route_s_own_or_the_default() {
    let own = "    compress: { encodings: [gzip], levels: { gzip: 9 } }\n";
    let config = read(&file(&format!(
        "{own}defaults: {{ ttl: 5s, compress: {{}} }}\n"
    )))
    .unwrap();
    let of_route = config.routes[0].compress.as_ref().unwrap();
    assert_eq!((of_route.levels.gzip, of_route.levels.br), (9, 5));
    assert_eq!(of_route.encodings.len(), 1);
    let default = config.defaults.compress.as_ref().unwrap();
    assert_eq!(default.encodings.len(), 3);
    assert_eq!(
        config.defaults.policy.ttl.map(|ttl| ttl.0.as_secs()),
        Some(5)
    );
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
}

#[test]
fn what_is_wrong_with_compression_is_said_where_it_stands() {
    says(&file("    compress: { levels: { br: 12 } }\n"), "11:31: ");
    says(&file("    compress: { types: [html] }\n"), "11:25: ");
    says(&file("    compress: { encodings: [br, br] }\n"), "11:33: ");
    says(&file("    compress: { encodings: [lzma] }\n"), "11:29: ");
    says(
        &file("defaults: { compress: { levels: { zstd: 22 } } }\n"),
        "11:41: ",
    );
    says(&file("defaults: { compres: {} }\n"), "11:13: ");
    says(&file("defaults: { compress: { min: 1 } }\n"), "11:25: ");
}

#[test]
fn compression_that_has_no_effect_is_a_warning() {
    for (route, warnings) in [
        ("    cache: off\n    compress: {}\n", 1),
        ("    cache: off\n    compress: { passes: true }\n", 0),
        (
            "    compress: {}\n    key: { headers: [Accept-Encoding] }\n",
            1,
        ),
        (
            "    compress: { origin: keep }\n    key: { headers: [Accept-Encoding] }\n",
            0,
        ),
        ("    compress: { types: [\"image/*\"] }\n", 1),
        ("    compress: { encodings: [], types: [\"image/*\"] }\n", 0),
    ] {
        let config = read(&file(route)).unwrap();
        assert_eq!(
            config.warnings.len(),
            warnings,
            "{route}: {:?}",
            config.warnings
        );
    }
}

/// HD1, RD1 and what else contradicts itself, each with its place.
#[test]
fn rules_that_cannot_hold_are_refused_where_they_stand() {
    for (keys, start) in [
        (
            "headers: { response: { remove: [server, Connection] } }",
            "11:45: routes[0].headers.response.remove[1]: connection is for one connection only",
        ),
        (
            "headers: { request: { set: { host: x } } }",
            "11:34: routes[0].headers.request.set.host: host is set by the gateway alone",
        ),
        (
            "headers: { response: { add: { x-a: [b, \"{what}\"] } } }",
            "11:44: routes[0].headers.response.add.x-a[1]: unknown placeholder `{what}`",
        ),
        (
            "headers: { response: { set: { x-a: \"\" } } }",
            "11:40: routes[0].headers.response.set.x-a: empty; expected a value, or the name in `remove`",
        ),
        (
            "headers: { response: { set: { x-a: \"{request_id}\" } } }",
            "11:40: routes[0].headers.response.set.x-a: `{request_id}` is empty without an id",
        ),
        (
            "rewrite: { strip_prefix: /api/ }",
            "11:30: routes[0].rewrite.strip_prefix: \"/api/\" is not the beginning of a path",
        ),
        (
            "rewrite: { add_prefix: /v2, path: /x }",
            "11:16: routes[0].rewrite.add_prefix: given beside `path`",
        ),
        (
            "rewrite: { path: \"/{header.x}\" }",
            "11:22: routes[0].rewrite.path: \"/{header.x}\" depends on who asks",
        ),
        (
            "rewrite: { path: \"/x?{query}\" }",
            "11:22: routes[0].rewrite.path: a path has no `?`",
        ),
        (
            "errors: [{ statuses: [502, 200] }]",
            "11:32: routes[0].errors[0].statuses[1]: 200 is no error; expected 400 to 599",
        ),
        (
            "errors: [{ file: none.html }]",
            "11:22: routes[0].errors[0].file: cannot read none.html",
        ),
        (
            "maintenance: { allow: [here] }",
            "11:28: routes[0].maintenance.allow[0]: ",
        ),
        (
            "redirect: { to: /new }",
            "10:5: routes[0].upstream: given beside `redirect`, which answers all requests of the route",
        ),
    ] {
        says(&file(&format!("    {keys}\n")), start);
    }
    for (keys, start) in [
        (
            "redirect: { to: \"https://{host}/\" }",
            "10:21: routes[0].redirect.to: its host comes from the request",
        ),
        (
            "redirect: { to: \"https://{host}/\", allow_hosts: [\"*\"] }",
            "10:54: routes[0].redirect.allow_hosts[0]: \"*\" allows every host",
        ),
        (
            "redirect: { to: /x, allow_hosts: [a.example] }",
            "10:25: routes[0].redirect.allow_hosts: has no effect",
        ),
        (
            "redirect: { to: /x, status: 304 }",
            "10:33: routes[0].redirect.status: 304 is no redirect; expected `301`",
        ),
        (
            "redirect: { to: //evil.example }",
            "10:21: routes[0].redirect.to: `//evil.example` is neither a URL nor a path",
        ),
        (
            "redirect: { to: /x }\n    policy: { ttl: 5s }",
            "11:5: routes[0].policy: given beside `redirect`, which answers",
        ),
        (
            "respond: { body: a }\n    key: { headers: [x-a] }",
            "11:5: routes[0].key: given beside `respond`, which answers",
        ),
        (
            "respond: { body: a, status: 100 }",
            "10:33: routes[0].respond.status: 100 is no status of an answer",
        ),
        (
            "respond: { body: a, headers: { age: x } }",
            "10:36: routes[0].respond.headers.age: age is set by the gateway alone",
        ),
        (
            "respond: { body: a, status: 204 }",
            "10:33: routes[0].respond.status: 204 has no content",
        ),
    ] {
        let text = file(&format!("    {keys}\n")).replace("    upstream: demo\n", "");
        says(&text, start);
    }
}
