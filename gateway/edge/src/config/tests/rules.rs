//! Rules of routes and compression.

use super::*;

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

/// What works, and does nothing or the contrary of something else, each with its place.
#[test]
fn rules_that_have_no_effect_are_warnings_where_they_stand() {
    for (keys, warning) in [
        (
            "cache: off\n    bypass: { cookie: [a] }",
            "routes[0].bypass: without effect",
        ),
        (
            "cache: off\n    cookies: { drop: [a] }",
            "routes[0].cookies: with `cache: off` nothing is stored",
        ),
        (
            "cache: off\n    accept_language: [de]\n    bypass: { cookie: [a] }",
            "routes[0].accept_language: with `cache: off` nothing is stored",
        ),
        (
            "cache: off\n    maintenance: { serve: cached }",
            "routes[0].maintenance.serve: without effect",
        ),
        (
            "cookies: { drop: [_g*] }\n    key: { cookies: [theme, _ga] }",
            "routes[0].key.cookies[1]: `cookies` removes _ga",
        ),
        (
            "cookies: { keep: [session] }\n    key: { cookies: [theme] }",
            "routes[0].key.cookies[0]: `cookies` removes theme",
        ),
        (
            "accept_language: [de]\n    key: { headers: [x-a, Accept-Language] }",
            "routes[0].key.headers[1]: `accept_language` puts",
        ),
        (
            "esi: {}\n    compress: {}",
            "routes[0].esi: pages that are put together are not compressed",
        ),
        (
            "errors: [{ of: any }, { statuses: [502] }]",
            "routes[0].errors[1]: without effect",
        ),
        (
            "errors: [{ statuses: [502] }, { statuses: [503] }, { statuses: [503, 502] }]",
            "routes[0].errors[2]: without effect",
        ),
        (
            "policy: { lifetimes: [{ types: [\"image/*\"], ttl: 1h }, { types: [image/png], ttl: 2h }] }",
            "routes[0].policy.lifetimes[1]: without effect: entry 1",
        ),
        (
            "policy: { lifetimes: [{ paths: [/a], ttl: 1h }, { ttl: 2h }, { min_bytes: 1MiB, ttl: 3h }] }",
            "routes[0].policy.lifetimes[2]: without effect: entry 2",
        ),
        (
            "policy: { lifetimes: [{ min_bytes: 1KiB, ttl: 1h }, { min_bytes: 1MiB, ttl: 3h }] }",
            "routes[0].policy.lifetimes[1]: without effect: entry 1",
        ),
        (
            "device: x-device\n    headers: { request: { set: { X-Device: big } } }",
            "routes[0].headers.request.set.X-Device: `X-Device` set here hides",
        ),
        (
            "accept_language: [de]\n    headers: { request: { add: { accept-language: fr } } }",
            "routes[0].headers.request.add.accept-language: `accept-language` set here hides",
        ),
        (
            "request_id: on\n    headers: { request: { set: { x-request-id: one } } }",
            "routes[0].headers.request.set.x-request-id: `x-request-id` set here hides",
        ),
        (
            "headers: { request: { set: { accept-encoding: br } } }",
            "routes[0].headers.request.set.accept-encoding: `accept-encoding` set here hides",
        ),
        (
            "headers: { response: { set: { etag: '\"a\"' } } }",
            "routes[0].headers.response.set.etag: clients ask with the `etag`",
        ),
        (
            "cors: { origins: [https://a.test] }\n    headers: { response: { set: { access-control-allow-origin: '*' } } }",
            "routes[0].headers.response.set.access-control-allow-origin: without effect: `cors`",
        ),
        (
            "headers: { request: { set: { authorization: 'Bearer {header.x-token}' } } }",
            "routes[0].headers.request.set.authorization: `authorization` depends on who asks ({header.x-token})",
        ),
        (
            "headers: { request: { add: { x-ip: '{client}' } } }",
            "routes[0].headers.request.add.x-ip: `x-ip` depends on who asks ({client})",
        ),
        (
            "access: { allow: [10.0.0.0/8, 192.0.2.0/24], deny: [192.0.2.0/24] }",
            "routes[0].access.allow[1]: without effect: `deny` names",
        ),
        (
            "match: { path: /a/* }\n    rewrite: { strip_prefix: /b }",
            "routes[0].rewrite.strip_prefix: without effect: no path that `match` takes",
        ),
        (
            "mirror: { upstream: demo }",
            "routes[0].mirror.upstream: the copies go to `demo`",
        ),
        (
            "esi: { depth: 0 }",
            "routes[0].esi.depth: with 0 every include",
        ),
        (
            "auth: { forward: { upstream: demo, path: /ask } }\n    headers: { response: { set: { cache-control: 'public, max-age=60' } } }",
            "routes[0].headers.response.set.cache-control: a cache between the gateway and its clients",
        ),
        (
            "auth: { forward: { upstream: demo, path: /ask } }\n    headers: { response: { add: { CDN-Cache-Control: max-age=60 } } }",
            "routes[0].headers.response.add.CDN-Cache-Control: a cache between the gateway and its clients",
        ),
    ] {
        let config = read(&file(&format!("    {keys}\n"))).unwrap();
        let warnings: Vec<String> = config.warnings.iter().map(ToString::to_string).collect();
        assert_eq!(warnings.len(), 1, "{keys}: {warnings:?}");
        assert!(warnings[0].contains(warning), "{keys}: {warnings:?}");
    }
}

/// The same where they do have an effect.
#[test]
fn rules_that_have_an_effect_are_no_warnings() {
    for keys in [
        "bypass: { cookie: [a] }\n    cookies: { drop: [a] }",
        "cache: off\n    device: x-device",
        "cookies: { drop: [_g*] }\n    key: { cookies: [theme] }",
        "cookies: { keep: [theme*] }\n    key: { cookies: [theme] }",
        "key: { headers: [Accept-Language] }",
        "esi: {}\n    compress: { passes: true }",
        "esi: {}\n    compress: { encodings: [] }",
        "errors: [{ statuses: [502] }, {}]",
        "errors: [{}, { of: any }]",
        "policy: { lifetimes: [{ types: [image/png], ttl: 1h }, { types: [\"image/*\"], ttl: 2h }] }",
        "policy: { lifetimes: [{ ttl: 1h }, { statuses: [404], ttl: 2h }] }",
        "policy: { lifetimes: [{ statuses: [404], ttl: 1h }, { ttl: 2h }] }",
        "policy: { lifetimes: [{ max_bytes: 1MiB, ttl: 1h }, { min_bytes: 1MiB, ttl: 3h }] }",
        "policy: { lifetimes: [{ paths: [\"/?\"], ttl: 1h }, { paths: [\"/*\"], ttl: 2h }] }",
        "key: { headers: [X-Token] }\n    headers: { request: { set: { authorization: 'Bearer {header.x-token}' } } }",
        "cache: off\n    headers: { request: { set: { x-t: '{header.x-token}' } } }",
        "headers: { request: { set: { x-real-ip: '{client}', x-h: '{host}{path}' } } }",
        "device: x-device\n    headers: { request: { set: { x-d: '{header.x-device}' } } }",
        "match: { path: [/a/*, /*] }\n    rewrite: { strip_prefix: /b }",
        "match: { path: /a/* }\n    rewrite: { strip_prefix: /a/b }",
        "access: { allow: [10.0.0.0/8], deny: [10.6.6.6] }",
        "headers: { response: { set: { access-control-allow-origin: '*', cache-control: no-cache } } }",
        "auth: { forward: { upstream: demo, path: /ask } }\n    headers: { response: { set: { Surrogate-Control: 'content=\"ESI/1.0\"' } } }",
        "auth: { forward: { upstream: demo, path: /ask } }\n    headers: { response: { set: { CDN-Cache-Control: max-age=0, cache-control: 's-maxage=0' } } }",
    ] {
        let config = read(&file(&format!("    {keys}\n"))).unwrap();
        assert!(config.warnings.is_empty(), "{keys}: {:?}", config.warnings);
    }
    let defaults = "defaults: { lifetimes: [{ ttl: 1h }, { paths: [/a], ttl: 2h }] }\n";
    let config = read(&file(defaults)).unwrap();
    let warning = config.warnings[0].to_string();
    assert!(warning.contains("defaults.lifetimes[1]"), "{warning}");
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
            "headers: { request: { set: { X-A: b, x-a: c } } }",
            "11:42: routes[0].headers.request.set.x-a: `x-a` is set twice",
        ),
        (
            "device: X-Forwarded-For",
            "11:13: routes[0].device: `X-Forwarded-For` says something else",
        ),
        (
            "device: cookie",
            "11:13: routes[0].device: `cookie` says something else",
        ),
        (
            "device: range",
            "11:13: routes[0].device: range is set by the gateway alone",
        ),
        (
            "device: transfer-encoding",
            "11:13: routes[0].device: transfer-encoding is for one connection only",
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
            "respond: { body: secret }\n    auth: { forward: { upstream: demo, path: /ask } }",
            "11:5: routes[0].auth: given beside `respond`, which answers everybody before",
        ),
        (
            "redirect: { to: /x }\n    auth: { forward: { upstream: demo, path: /ask } }",
            "11:5: routes[0].auth: given beside `redirect`, which answers everybody before",
        ),
        (
            "respond: { body: a }\n    accept_language: [de, en]",
            "11:5: routes[0].accept_language: given beside `respond`, which answers",
        ),
        (
            "respond: { body: a }\n    cookies: { drop: [_ga] }",
            "11:5: routes[0].cookies: given beside `respond`, which answers",
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

/// A redirect that leads back to itself, and one before which no preflight is answered.
#[test]
fn a_redirect_without_an_end_is_a_warning() {
    let with = |keys: &str| {
        let route = format!("routes:\n  - name: one\n    match: {{ path: /old/* }}\n    {keys}\n");
        let text = file("");
        let (before, _) = text.split_once("routes:").unwrap();
        let config = read(&format!("{before}{route}")).unwrap();
        let warnings = config.warnings.iter().map(ToString::to_string);
        warnings.collect::<Vec<String>>()
    };
    for (keys, warning) in [
        (
            "redirect: { to: \"{path}\" }",
            "routes[0].redirect.to: leads to where",
        ),
        (
            "redirect: { to: \"/old/new?a=b\" }",
            "routes[0].redirect.to: leads to where",
        ),
        (
            "redirect: { to: /new }\n    cors: { origins: [https://a.test] }",
            "routes[0].cors: preflights get the redirect",
        ),
    ] {
        let warnings = with(keys);
        assert_eq!(warnings.len(), 1, "{keys}: {warnings:?}");
        assert!(warnings[0].contains(warning), "{keys}: {warnings:?}");
    }
    for keys in [
        "redirect: { to: /new }",
        "redirect: { to: \"https://a.test{path}\" }",
    ] {
        assert!(with(keys).is_empty(), "{keys}");
    }
}
