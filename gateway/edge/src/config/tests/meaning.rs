//! What can't be meant: routes, values, listeners, the bus.

use super::*;

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
