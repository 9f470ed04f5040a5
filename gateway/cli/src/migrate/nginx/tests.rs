//! Drafts out of short configurations: never less safe than the original, and never storing more, unless
//! a comment says so in its place.

use super::super::{MigrateCommand, folder_of};

/// The draft out of a text.
fn drafted(text: &str) -> Result<String, String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.conf");
    std::fs::write(&file, text).unwrap();
    let command = MigrateCommand::Nginx { file };
    command.draft().map_err(|error| format!("{error:#}"))
}

/// The draft out of a server with this in it.
#[track_caller]
fn of_server(inside: &str) -> String {
    drafted(&format!(
        "server {{ listen 80; server_name a.example;\n{inside}\n}}"
    ))
    .unwrap()
}

const PASS: &str = "proxy_pass http://127.0.0.1:1;";
const CACHE: &str = "proxy_pass http://127.0.0.1:1; proxy_cache z; proxy_cache_valid 200 1h;";

/// The route for exactly these patterns, or for all paths.
#[track_caller]
fn route<'a>(draft: &'a str, path: &str) -> &'a str {
    let routes = draft.split_once("routes:\n").unwrap().1;
    let mut each = routes.split("  - name: ");
    let fits = |one: &&str| {
        let matched = one.lines().find(|line| line.starts_with("    match: "));
        match path {
            "" => !one.is_empty() && matched.is_none_or(|line| !line.contains("path:")),
            path => matched.is_some_and(|line| {
                line.contains(&format!("path: [{path}]"))
                    || line.contains(&format!("path: [\"{path}\"]"))
            }),
        }
    };
    each.find(fits)
        .unwrap_or_else(|| panic!("no route for {path} in\n{draft}"))
}

fn is_closed(route: &str) -> bool {
    route.contains("deny: [\"0.0.0.0/0\", \"::/0\"]") || route.contains("respond: { status: 40")
}

fn is_uncached(route: &str) -> bool {
    route.contains("cache: \"off\"")
}

/// That something in a location, which caches, closes its route with a comment.
#[track_caller]
fn closes(inside: &str) {
    let draft = of_server(&format!("location / {{ {CACHE} {inside} }}"));
    let route = route(&draft, "");
    assert!(is_closed(route), "{inside}\n{draft}");
    assert!(route.contains("# closed: x.conf:2 "), "{inside}\n{draft}");
}

/// That it leaves its route uncached with a comment.
#[track_caller]
fn leaves_uncached(inside: &str) {
    let draft = of_server(&format!("location / {{ {CACHE} {inside} }}"));
    let route = route(&draft, "");
    assert!(is_uncached(route), "{inside}\n{draft}");
    assert!(
        route.contains("# not cached: x.conf:2 "),
        "{inside}\n{draft}"
    );
    assert!(!is_closed(route), "{inside}\n{draft}");
}

/// That a route still caches, and what it says beside.
#[track_caller]
fn caches_with(inside: &str, wanted: &[&str]) {
    let draft = of_server(&format!("location / {{ {CACHE} {inside} }}"));
    let route = route(&draft, "");
    assert!(
        !is_uncached(route) && !is_closed(route),
        "{inside}\n{draft}"
    );
    for text in wanted {
        assert!(route.contains(text), "{inside}: {text}\n{draft}");
    }
}

#[test]
fn the_innermost_block_with_rules_for_addresses_decides() {
    let draft = of_server(&format!(
        "allow 10.0.0.0/8; location /admin {{ deny all; {PASS} }} location /x {{ {PASS} }}"
    ));
    assert!(is_closed(route(&draft, "/admin*")), "{draft}");
    assert!(!route(&draft, "/admin*").contains("10.0.0.0/8"), "{draft}");
    assert!(!route(&draft, "/x*").contains("access"), "{draft}");
    let draft = of_server(&format!("deny all; location / {{ {PASS} }}"));
    assert!(is_closed(route(&draft, "")), "{draft}");
    let draft = of_server(&format!("deny all; location / {{ allow all; {PASS} }}"));
    assert!(!draft.contains("access"), "{draft}");
    let draft = of_server(&format!(
        "location / {{ allow 10.0.0.1; deny 10.0.0.0/8; allow 11.0.0.0/8; deny all; {PASS} }}"
    ));
    let access = "access: { allow: [\"10.0.0.1/32\", \"11.0.0.0/8\"], deny: [\"10.0.0.0/8\"] }";
    assert!(route(&draft, "").contains(access), "{draft}");
    assert!(
        draft.contains("# differs: x.conf:2 deny 10.0.0.0/8"),
        "{draft}"
    );
    closes("deny nowhere.example;");
}

#[test]
fn what_must_be_asked_and_can_not_be_closes_the_route() {
    for inside in [
        "auth_basic x; auth_basic_user_file /nowhere/at/all;",
        "auth_basic x;",
        "auth_basic $realm; auth_basic_user_file /etc/hosts;",
        "auth_request /verify;",
        "auth_jwt x;",
        "access_by_lua_block { }",
        "include snippets/who.conf;",
        "if ($invalid_referer) { return 403; }",
        "if ($ssl_client_verify != SUCCESS) { return 403; }",
        "if ($cookie_session = \"\") { return 302 /login; }",
    ] {
        closes(inside);
    }
    let draft = of_server(&format!("ssl_verify_client on; location / {{ {CACHE} }}"));
    assert!(is_closed(route(&draft, "")), "{draft}");
    let draft = of_server(&format!(
        "auth_request /v; location / {{ {PASS} auth_request off; auth_basic off; }}"
    ));
    assert!(!is_closed(route(&draft, "")), "{draft}");
}

#[test]
fn requests_that_an_if_refuses_have_a_route_of_their_own() {
    let draft = of_server(&format!(
        "if ($http_user_agent ~* evil) {{ set $x 1; return 403; }} location / {{ {CACHE} }}"
    ));
    let guard = "header: { user-agent: { any: [\"*evil*\"], case: ignore } }, host: [a.example] }\n    respond: { status: 403 }";
    assert!(draft.contains(guard), "{draft}");
    let before = draft.find("user-agent").unwrap();
    assert!(before < draft.find("upstream: ").unwrap(), "{draft}");

    let draft = of_server(&format!(
        "location / {{ if ($http_x_key != \"s3\") {{ return 403; }} {CACHE} }}"
    ));
    assert!(
        route(&draft, "").contains("x-key: { any: [s3], case: exact }"),
        "{draft}"
    );
    let (_, behind) = draft.split_once("x-key").unwrap();
    assert!(behind.contains("respond: { status: 403 }"), "{draft}");

    let draft = of_server(&format!(
        "if ($request_method !~ ^(GET|HEAD|POST)$) {{ return 405; }} location / {{ {CACHE} }}"
    ));
    assert!(
        route(&draft, "").contains("method: [GET, HEAD, POST]"),
        "{draft}"
    );
    assert!(draft.contains("respond: { status: 405 }"), "{draft}");

    let draft = of_server(&format!(
        "location /a {{ limit_except GET {{ allow 10.0.0.1; deny all; }} {PASS} }}"
    ));
    assert!(
        route(&draft, "/a*").contains("method: [GET, HEAD]"),
        "{draft}"
    );
    let (_, behind) = draft.split_once("[GET, HEAD]").unwrap();
    assert!(behind.contains("allow: [\"10.0.0.1/32\"]"), "{draft}");
}

#[test]
fn a_guard_that_can_not_be_put_around_its_route_closes_it() {
    // The route asks for paths already.
    let draft = of_server(&format!(
        "location ~ b {{ if ($uri ~ ^/a) {{ return 403; }} {PASS} }} location / {{ return 404; }}"
    ));
    assert!(is_closed(route(&draft, "*b*")), "{draft}");
    // The location has no route.
    let draft = of_server(&format!(
        "location ~ ^/(?!pub) {{ if ($http_x != 1) {{ return 403; }} {PASS} }} location / {{ {PASS} }}"
    ));
    assert!(is_closed(route(&draft, "")), "{draft}");
    // Two guards say the same: the one behind is hidden.
    let guard = "if ($request_method !~ ^(GET|HEAD)$) { return 405; }";
    let draft = of_server(&format!("{guard} location / {{ {guard} {PASS} }}"));
    assert_eq!(draft.matches("method: [GET, HEAD]").count(), 1, "{draft}");
    assert_eq!(draft.matches("status: 405").count(), 1, "{draft}");
}

#[test]
fn a_guard_may_ask_for_a_variable_of_the_configuration() {
    let with = |map: &str| {
        drafted(&format!(
            "http {{ map $http_user_agent $bad {{ {map} }} server {{ listen 80; server_name a.example; if ($bad) {{ return 403; }} location / {{ {PASS} }} }} }}"
        ))
        .unwrap()
    };
    let draft = with("default 0; ~*evil 1; ~*worse 1;");
    let guard = "user-agent: { any: [\"*evil*\", \"*worse*\"], case: ignore }";
    assert!(
        draft.contains(guard) && !draft.contains("# closed"),
        "{draft}"
    );
    for map in [
        "default 1; ~*good 0;",
        "default 0; include bots.conf;",
        "default 0; ~(?=x) 1;",
    ] {
        let draft = with(map);
        assert!(draft.contains("# closed: x.conf:1 if"), "{draft}");
    }
    let draft = of_server(&format!(
        "set $no 0; if ($arg_a = b) {{ set $no 1; }} if ($no = 1) {{ return 404; }} location / {{ {PASS} }}"
    ));
    assert!(
        draft.contains("query: { a: { any: [b], case: exact } }"),
        "{draft}"
    );
}

#[test]
fn a_variable_that_says_what_is_not_cached_is_read_as_nginx_reads_it() {
    let skip = "proxy_no_cache $skip; proxy_cache_bypass $skip;";
    for before in [
        "set $skip 1;",
        "set $skip 1; if ($uri ~ ^/public/) { set $skip \"\"; }",
        "set $skip $upstream_status;",
        "if (-f /x) { set $skip 1; }",
        "set $a 0; set $b 0; set $skip $a$b;",
        "set $skip x$arg_y;",
    ] {
        leaves_uncached(&format!("{before} {skip}"));
    }
    caches_with(
        &format!(
            "set $skip 0; if ($arg_a = b) {{ set $skip 1; }} if ($arg_c) {{ set $skip 0; }} {skip}"
        ),
        &[
            "bypass: { query: { A: { any: [b], case: exact }, a: { any: [b], case: exact } } }",
            "go past the cache as well",
        ],
    );
    caches_with(
        &format!("set $skip \"\"; if ($http_x = y) {{ set $skip \"${{skip}}1\"; }} {skip}"),
        &["bypass: { header: { x: { any: [y], case: exact } } }"],
    );
    caches_with(
        "proxy_no_cache $cookie_a$arg_b;",
        &[
            "bypass: { header: { cookie: { any: [\"*a=*\"], case: ignore } }, query: { B: \"*\", b: \"*\" } }",
        ],
    );
    leaves_uncached("proxy_no_cache $upstream_http_x;");
    leaves_uncached("proxy_cache_bypass 1;");
    for (entries, is_said) in [
        ("default 0; ~*bot 1;", true),
        ("default 1; ~*bot 0;", false),
        ("default 0; include bots.conf;", false),
        ("default 0; ~(?=x) 1;", false),
    ] {
        let draft = drafted(&format!(
            "http {{ map $http_user_agent $bot {{ {entries} }} server {{ listen 80; server_name a.example;\nlocation / {{ {CACHE} proxy_no_cache $bot; }} }} }}"
        ));
        let draft = draft.unwrap();
        assert_eq!(
            !is_uncached(route(&draft, "")),
            is_said,
            "{entries}\n{draft}"
        );
    }
}

#[test]
fn a_key_that_can_not_be_said_leaves_the_route_uncached() {
    for key in [
        "$scheme$host$request_uri$remote_user",
        "$uri$mobile",
        "$request_uri|${ssl_client_serial}",
    ] {
        leaves_uncached(&format!("proxy_cache_key \"{key}\";"));
    }
    caches_with(
        "proxy_cache_key \"${scheme}${host}${request_uri}|$cookie_session|v2\";",
        &["key: { cookies: [session] }"],
    );
    caches_with(
        "proxy_cache_key $host$uri$arg_page;",
        &["key: { query: { include: [page] } }"],
    );
    caches_with(
        "proxy_cache_key $host$uri;",
        &["key: { query: { include: [] } }"],
    );
    leaves_uncached("fancy_new_directive on;");
    leaves_uncached("rewrite ^/a([0-9])$ /b/$1 last;");
}

#[test]
fn lifetimes_are_those_that_nginx_would_take() {
    let draft = of_server(&format!(
        "location / {{ {PASS} proxy_cache z; proxy_cache_valid 200 1m; proxy_cache_valid 200 301 1h; proxy_cache_valid any 1s; proxy_cache_valid 302 1d; }}"
    ));
    let policy = "lifetimes: [{ statuses: [301], ttl: 1h }, { statuses: [203, 204, 300, 308, 404, 410, 501], ttl: 0s }], statuses: [200], ttl: 1m }";
    assert!(route(&draft, "").contains(policy), "{draft}");
    caches_with(
        "proxy_ignore_headers Cache-Control Expires;",
        &["mode: override"],
    );
    caches_with("proxy_ignore_headers Expires;", &["mode: cap"]);
    let draft = of_server(&format!("location / {{ {PASS} proxy_cache z; }}"));
    let guesses =
        "lifetimes: [{ statuses: [200, 203, 204, 300, 301, 308, 404, 410, 501], ttl: 0s }] }";
    assert!(route(&draft, "").contains(guesses), "{draft}");
    let draft = of_server(&format!(
        "location / {{ {PASS} proxy_cache z; proxy_ignore_headers Cache-Control Expires; }}"
    ));
    assert!(is_uncached(route(&draft, "")), "{draft}");
    let draft = of_server(&format!(
        "fastcgi_cache z; fastcgi_cache_valid 200 1h; location / {{ {PASS} }}"
    ));
    assert!(
        is_uncached(route(&draft, "")),
        "FastCGI's cache is none of HTTP's: {draft}"
    );
}

#[test]
fn the_case_of_letters_is_not_lost_silently() {
    let draft = of_server(&format!(
        "location ~* \\.sq$ {{ deny all; }} location / {{ {PASS} }}"
    ));
    assert!(
        draft.contains("path: [\"*.SQ\", \"*.Sq\", \"*.sQ\", \"*.sq\"]"),
        "{draft}"
    );
    // Too many spellings: what restricts takes more, and all else is told.
    let draft = of_server(&format!(
        "location ~ (?i)^/administration {{ deny all; }} location / {{ {CACHE} }}"
    ));
    assert!(draft.contains("path: [/??????????????*]"), "{draft}");
    assert!(
        draft.contains("# differs: x.conf:2 location ~ (?i)^/administration"),
        "{draft}"
    );
    let draft = of_server(&format!(
        "location ~* ^/administration {{ {PASS} }} location / {{ {CACHE} }}"
    ));
    assert!(
        draft.contains("# differs: x.conf:2 location ~* ^/administration"),
        "{draft}"
    );
    let past = "bypass: { path: [/??????????????*] }";
    assert!(
        route(&draft, "").contains(past),
        "other spellings must not be stored: {draft}"
    );
    caches_with(
        "proxy_no_cache $s; if ($http_cookie ~* Sess) { set $s 1; } if ($request_uri ~* ^/administration) { set $s 1; }",
        &[
            "cookie: { any: [\"*Sess*\"], case: ignore }",
            "# differs: x.conf:2 if ($request_uri ~* ^/administration",
        ],
    );
}

#[test]
fn a_condition_about_the_whole_target_is_about_path_and_query() {
    caches_with(
        "proxy_no_cache $s; if ($request_uri ~ \"preview=true|/admin/\") { set $s 1; }",
        &[
            "path: [\"*preview=true*\", \"*/admin/*\"]",
            "\"*preview\": { any: [true*], case: exact }",
            "\"*\": { any: [\"*preview=true*\", \"*/admin/*\"], case: exact }",
        ],
    );
}

#[test]
fn a_longer_prefix_stands_before_one_that_comes_first() {
    let draft = of_server(&format!(
        "location ^~ /files {{ {PASS} }} location /files/private {{ deny all; }} location ~ \\.secret$ {{ deny all; }}"
    ));
    let at = |text: &str| draft.find(text).unwrap();
    assert!(
        at("path: [/files/private*]") < at("path: [/files*]"),
        "{draft}"
    );
    assert!(
        at("path: [/files*]") < at("path: [\"*.secret\"]"),
        "{draft}"
    );
    // The longer one would give way to the expression with nginx, and can't here.
    let draft = of_server(&format!(
        "location ^~ /files {{ {PASS} }} location /files/open {{ {PASS} }} location ~ \\.secret$ {{ deny all; }}"
    ));
    assert!(is_closed(route(&draft, "/files/open*")), "{draft}");
    assert!(!is_closed(route(&draft, "/files*")), "{draft}");
}

#[test]
fn what_takes_requests_of_a_stricter_location_is_as_strict() {
    // No pattern says it, and it must not be cached.
    let draft = of_server(&format!(
        "location ~ ^/shop/(?!public) {{ {PASS} }} location /shop/ {{ {CACHE} }} location / {{ {CACHE} }}"
    ));
    assert!(is_uncached(route(&draft, "/shop/*")), "{draft}");
    assert!(route(&draft, "").contains("not cached"), "{draft}");
    let draft = of_server(&format!(
        "location ~ ^/(?!public) {{ deny all; }} location / {{ {CACHE} }}"
    ));
    assert!(is_closed(route(&draft, "")), "{draft}");
    // It says more than its expression.
    let draft = of_server(&format!(
        "location ~ ^/[a-z]+$ {{ {PASS} }} location /admin/ {{ deny all; }}"
    ));
    assert!(is_closed(route(&draft, "/?*")), "{draft}");
    // A location in a location.
    let draft = of_server(&format!(
        "location /a {{ {PASS} location /a/b {{ deny all; }} location ~ \\.key$ {{ deny all; }} }}"
    ));
    let at = |text: &str| draft.find(text).unwrap();
    assert!(at("path: [/a/b*]") < at("path: [/a*]"), "{draft}");
    assert!(at("path: [/a*.key]") < at("path: [/a*]"), "{draft}");
    // It is reached from other locations alone.
    let draft = of_server(&format!(
        "location / {{ try_files $uri @app; }} location @app {{ auth_basic x; auth_basic_user_file /nowhere; {PASS} }}"
    ));
    assert!(is_closed(route(&draft, "")), "{draft}");
    // What is answered can't be said.
    let draft = of_server(&format!(
        "location /x {{ return 403 $request_uri; }} location /y {{ return 301 https://$x/; }} location / {{ {PASS} }}"
    ));
    assert!(
        is_closed(route(&draft, "/x*")) && is_closed(route(&draft, "/y*")),
        "{draft}"
    );
    let draft = of_server(&format!(
        "location /i {{ internal; alias /x; }} location / {{ {PASS} }}"
    ));
    assert!(
        route(&draft, "/i*").contains("respond: { status: 404 }"),
        "{draft}"
    );
}

#[test]
fn a_location_that_also_purges_keeps_its_route() {
    for purges in ["PURGE from 127.0.0.1", "$purges"] {
        caches_with(&format!("proxy_cache_purge {purges};"), &["upstream:"]);
    }
}

#[test]
fn servers_keep_their_hosts_and_their_order() {
    let server = |names: &str, inside: &str| {
        format!("server {{ listen 80; server_name {names};\nlocation / {{ {inside} }} }}\n")
    };
    let text = server("~^internal", PASS) + &server("b.example", PASS);
    let draft = drafted(&text).unwrap();
    assert!(draft.contains("host: [internal*]"), "{draft}");
    let text = server("a.example *.a.example", PASS) + &server("admin.a.example", "deny all;");
    let draft = drafted(&text).unwrap();
    let admin = draft.find("host: [admin.a.example]").unwrap();
    assert!(admin < draft.find("*.a.example").unwrap(), "{draft}");
    // One that no request reaches does not move the default one before others.
    let block = |inside: &str| format!("server {{ listen 80; {inside} }}\n");
    let pass = format!("location / {{ {PASS} }}");
    let text = block(&pass) + &block(&pass) + &block(&format!("server_name ~^x; {pass}"));
    let draft = drafted(&text).unwrap();
    assert!(
        draft.find("host: [x*]").unwrap() < draft.find("name: site-2").unwrap(),
        "{draft}"
    );
    // What no location of a server takes is not for the default one.
    let text = format!(
        "server {{ listen 80; server_name a.example; location /x {{ {PASS} }} }} server {{ listen 80 default_server; location / {{ {PASS} }} }}"
    );
    let draft = drafted(&text).unwrap();
    let rest = "match: { host: [a.example] }\n    respond: { status: 404 }";
    assert!(draft.contains(rest), "{draft}");
    // An expression without a pattern: its hosts meet the default server.
    let text = server("~^(?!www)", "deny all;")
        + &format!("server {{ listen 80 default_server; location / {{ {PASS} }} }}");
    let draft = drafted(&text).unwrap();
    assert!(is_closed(route(&draft, "")), "{draft}");
}

#[test]
fn servers_with_the_same_names_are_as_strict_as_the_stricter_one() {
    let draft = drafted(&format!(
        "server {{ listen 80; server_name a.example; location / {{ {PASS} }} }}\n\
         server {{ listen 81; server_name a.example; location / {{ {PASS} deny all; }} location /x {{ allow 10.0.0.1; deny all; {PASS} }} }}"
    ))
    .unwrap();
    assert!(is_closed(route(&draft, "")), "{draft}");
    let at = |text: &str| draft.find(text).unwrap();
    assert!(at("path: [/x*]") < at("name: a-example\n"), "{draft}");
    let draft = drafted(&format!(
        "server {{ listen 80; server_name a.example; location / {{ {PASS} }} }}\n\
         server {{ listen 127.0.0.1:81; server_name b.example; location / {{ {PASS} }} }}\n\
         server {{ listen unix:/x; server_name c.example; location / {{ {PASS} }} }}"
    ))
    .unwrap();
    let (_, local) = draft.split_once("host: [b.example]").unwrap();
    assert!(
        local.contains("access: { allow: [\"127.0.0.0/8\", \"::1/128\"] }"),
        "{draft}"
    );
    let (_, socket) = draft.split_once("host: [c.example]").unwrap();
    assert!(is_closed(socket), "{draft}");
}

#[test]
fn a_server_that_sends_every_name_to_https_is_a_matter_of_its_listener() {
    let draft = drafted(&format!(
        "server {{ listen 443 ssl; server_name a.example; location / {{ {PASS} }} }}\n\
         server {{ if ($host = a.example) {{ return 301 https://$host$request_uri; }} listen 80; server_name a.example; return 404; }}"
    ))
    .unwrap();
    assert!(
        draft.contains("redirect_to_https: { status: 301 }"),
        "{draft}"
    );
    assert!(!is_closed(route(&draft, "")), "{draft}");
}

#[test]
fn http_and_https_to_one_address_are_two_upstreams() {
    let draft = drafted(
        "upstream app { server 10.0.0.1; }\n\
         server { listen 80; server_name a.example; location / { proxy_pass http://app; } location /s { proxy_pass https://app; } \
         location /t { proxy_pass http://t.example; } location /u { proxy_pass https://t.example; } location /v { proxy_pass https://app; } }",
    )
    .unwrap();
    for targets in [
        "app:\n    targets: [http://10.0.0.1]",
        "app-https:\n    targets: [https://10.0.0.1]",
        "t-example:\n    targets: [http://t.example]",
        "t-example-2:\n    targets: [https://t.example]",
    ] {
        assert!(draft.contains(targets), "{targets}\n{draft}");
    }
}

#[test]
fn fields_are_not_dropped() {
    caches_with(
        "proxy_hide_header Set-Cookie; add_header Link <a>; add_header Link <b>; add_header Vary X;",
        &[
            "remove: [set-cookie]",
            "link: [\"<a>\", \"<b>\"]",
            "vary: [X]",
        ],
    );
    caches_with(
        "proxy_set_header X-Original-URI $request_uri; proxy_set_header X-User $remote_user;",
        &[
            "x-original-uri: \"{path}?{query}\"",
            "remove: [x-user]",
            "# not translated: x.conf:2 proxy_set_header X-User",
        ],
    );
    let host = "proxy_set_header Host app.internal;";
    let draft = of_server(&format!("location / {{ {PASS} {host} }}"));
    assert!(draft.contains("host_header: upstream"), "{draft}");
    let draft = of_server(&format!(
        "rewrite ^/i/\\d+$ /j permanent; location / {{ {PASS} }}"
    ));
    assert!(draft.contains("# differs: x.conf:2 rewrite"), "{draft}");
}

#[test]
fn clients_are_known_by_the_proxies_of_all_servers_or_not_at_all() {
    let real = "set_real_ip_from 10.0.0.0/8; real_ip_header X-Forwarded-For;";
    let location = format!("location / {{ {PASS} allow 10.1.0.0/16; deny all; }}");
    let one = format!("server {{ listen 80; server_name a.example; {real}\n{location} }}");
    let draft = drafted(&one).unwrap();
    assert!(
        draft.contains("trusted_proxies") && !is_closed(route(&draft, "")),
        "{draft}"
    );
    for text in [
        one.replace("X-Forwarded-For", "X-Real-IP"),
        format!("{one} server {{ listen 80; server_name b.example; location / {{ {PASS} }} }}"),
    ] {
        let draft = drafted(&text).unwrap();
        assert!(!draft.contains("trusted_proxies: ["), "{draft}");
        assert!(is_closed(route(&draft, "")), "{draft}");
    }
}

#[test]
fn what_is_too_much_is_named_with_file_and_line() {
    let deep = "a {\n".repeat(100);
    let deep = format!("{deep}{}", "}".repeat(100));
    for (text, said) in [
        (deep.as_str(), "x.conf:66: blocks lie more than 64 deep"),
        (
            "user x;\ninclude x.conf;",
            "x.conf:2: files include each other more than 8 deep",
        ),
        (
            "user x;\ninclude /dev/null/*; http {\n",
            "x.conf:2: a block does not end",
        ),
        ("user x;\nhttp { server {", "x.conf:2: a block does not end"),
        (
            &"user x;\n".repeat(200_001),
            "x.conf:200001: there are more than 200000 statements",
        ),
        (
            &"a {}\n".repeat(10_001),
            "x.conf:10001: there are more than 10000 blocks",
        ),
        (
            &"#".repeat(4 * 1024 * 1024 + 1),
            "has more than 4194304 bytes",
        ),
    ] {
        let refused = drafted(text).unwrap_err();
        assert!(refused.contains(said), "{refused}");
    }
    let many = "include x.conf;".repeat(4);
    assert!(drafted(&many).unwrap_err().contains("more than 8 deep"));
    let command = MigrateCommand::Nginx {
        file: "/dev/zero".into(),
    };
    assert!(format!("{:#}", command.draft().unwrap_err()).contains("bytes"));
    let counts = format!(
        "server {{ listen 80; location ~ \"{}a{}\" {{ deny all; }} location / {{ {PASS} }} }}",
        "(".repeat(7),
        "{64})".repeat(7)
    );
    let draft = drafted(&counts).unwrap();
    assert!(
        draft.len() < 10_000 && is_closed(route(&draft, "")),
        "{draft}"
    );
}

#[test]
fn cookies_have_names_in_letters_of_any_case() {
    caches_with(
        "proxy_no_cache $cookie_session; proxy_cache_bypass $cookie_session;",
        &["bypass: { header: { cookie: { any: [\"*session=*\"], case: ignore } } }"],
    );
    caches_with(
        "proxy_no_cache $skip; if ($cookie_session ~ ^a) { set $skip 1; }",
        &[
            "any: [\"*session=*\"], case: ignore",
            "# differs: x.conf:2 if ($cookie_session ~ ^a) (all requests with this cookie",
        ],
    );
    // In a key no case can be left out, so it stands in its place.
    caches_with(
        "proxy_cache_key $scheme$host$request_uri$cookie_lang;",
        &[
            "key: { cookies: [lang] }",
            "# differs: x.conf:2 proxy_cache_key $scheme$host$request_uri$cookie_lang (nginx takes the \
             cookie lang in letters of any case",
        ],
    );
}

#[test]
fn an_expression_that_holds_for_what_is_not_there_leaves_its_route_uncached() {
    for condition in [
        "$cookie_a ~ .*",
        "$cookie_a ~ ^$",
        "$cookie_a ~ ^(?!b)",
        "$http_x ~ ^a?",
        "$http_cookie ~* ^",
        "$arg_a ~ (b|)",
    ] {
        leaves_uncached(&format!(
            "proxy_no_cache $s; if ({condition}) {{ set $s 1; }}"
        ));
    }
}

#[test]
fn what_the_origin_says_to_nginx_alone_is_told_where_the_cache_is_switched_on() {
    let told = "# differs: x.conf:2 proxy_cache z (X-Accel-Expires of the origin is not read here";
    caches_with("", &[told]);
    caches_with("proxy_ignore_headers Set-Cookie;", &[told]);
    let draft = of_server(&format!(
        "location / {{ {CACHE} proxy_ignore_headers x-accel-expires; }}"
    ));
    assert!(!draft.contains("X-Accel-Expires of"), "{draft}");
    // One location that reads it is enough for the line of all.
    let draft = of_server(&format!(
        "proxy_cache z; proxy_cache_valid 200 1h; location /a {{ {PASS} }} location /b {{ {PASS} \
         proxy_ignore_headers X-Accel-Expires; }}"
    ));
    assert!(draft.contains(told), "{draft}");
}

#[test]
fn an_expression_with_many_spellings_takes_no_request_of_a_stricter_location() {
    // Nothing of it may be shown, and nginx looks at no expression of a shorter prefix.
    let draft = of_server(&format!(
        "location /media/ {{ {PASS} location ~* \\.(ico|jpg|webp|woff2)$ {{ {CACHE} }} }} location /media/customer/ {{ deny all; }}"
    ));
    let at = |text: &str| {
        draft
            .find(text)
            .unwrap_or_else(|| panic!("{text}\n{draft}"))
    };
    assert!(
        at("path: [/media/customer/*]") < at("/media/*.ico"),
        "{draft}"
    );
    assert!(is_closed(route(&draft, "/media/customer/*")), "{draft}");
    assert!(
        !draft.contains("/MEDIA"),
        "the prefix has one spelling: {draft}"
    );
    // The expression also takes what the location behind it refuses, in whatever spelling.
    for (inside, stricter) in [
        (
            format!("location /up/ {{ location ~* \\.(jpg|internal)$ {{ {CACHE} }} }}"),
            format!("location /up/own/ {{ allow 10.0.0.1; deny all; {PASS} }}"),
        ),
        (
            format!("location ~* ^/download/[a-z]+\\.pdf$ {{ {CACHE} }}"),
            "location ~ ^/download/[0-9]+\\.pdf$ { deny all; }".to_owned(),
        ),
    ] {
        let text = format!("{inside} {stricter} location / {{ {PASS} }}");
        let draft = of_server(&text);
        let mut routes = draft.split("  - name: ").skip(1);
        let shifted = routes.next().unwrap();
        assert!(
            draft.contains("other spellings go to routes behind"),
            "{text}\n{draft}"
        );
        assert!(is_closed(shifted), "{text}\n{draft}");
        assert!(
            shifted.contains("# closed: x.conf:2 location"),
            "{text}\n{draft}"
        );
    }
    // A longer prefix that is served stays in its place, and the expression is closed.
    let draft = of_server(&format!(
        "location /m/ {{ {PASS} location ~* \\.x$ {{ {CACHE} }} }} location /m/a/ {{ deny all; }} location /m/a/b/ {{ {PASS} }}"
    ));
    assert!(
        draft.contains("# closed: x.conf:2 location /m/a/"),
        "{draft}"
    );
}

#[test]
fn a_rewrite_of_a_prefix_is_said_where_all_requests_of_a_location_have_it() {
    let draft = of_server(&format!(
        "location /api/ {{ rewrite ^/api/(.*)$ /v2/$1 break; {PASS} }} location / {{ {PASS} }}"
    ));
    let prefixes = "rewrite: { add_prefix: /v2, strip_prefix: /api }";
    assert!(route(&draft, "/api/*").contains(prefixes), "{draft}");
    assert!(!route(&draft, "").contains("rewrite:"), "{draft}");
    for inside in [
        "rewrite ^/blog/(.*)$ /news/$1 break;",
        "rewrite ^/blog/(.*)$ /news/$1 last;",
        "rewrite ^/blog/(.*)$ /news/$1;",
        "rewrite ^/blog/(.*)$ /news/$1? break;",
    ] {
        leaves_uncached(inside);
        let draft = of_server(&format!("{inside} location / {{ {CACHE} }}"));
        assert!(!draft.contains("rewrite:"), "{inside}\n{draft}");
        assert!(
            draft.contains("# not cached: x.conf:2 rewrite"),
            "{inside}\n{draft}"
        );
    }
    // In part of a location, or of the paths that nginx leaves as they are.
    let draft = of_server(&format!(
        "location /api {{ rewrite ^/api/?(.*)$ /v2/$1 break; {PASS} }} location /b/ {{ rewrite ^/b/v1/(.*)$ /$1 break; {PASS} }}"
    ));
    assert!(!draft.contains("rewrite:"), "{draft}");
}

#[test]
fn what_a_rewrite_takes_away_is_refused() {
    let denied = "location /news/ { deny all; }";
    for (rewrite, others) in [
        ("rewrite ^/blog/(.*)$ /news/$1 last;", denied),
        ("rewrite ^/blog/(.*)$ /news/$1 break;", denied),
        ("rewrite ^/blog/(.*)$ /news/$1 redirect;", ""),
        ("rewrite ^/blog/(.*)$ /news/$1 permanent;", ""),
        ("rewrite ^/blog/(.*)$ https://x.example/$1;", ""),
        ("rewrite ^/blog/(.*)$ $1 last;", denied),
        (
            "rewrite ^/blog/(.*)$ /a/$1 last;",
            "location /a/ { rewrite ^ /news/ last; } location /news/ { return 404; }",
        ),
        (
            "rewrite ^/blog/(.*)$ /key.$1 last;",
            "location ~* \\.KEY$ { deny all; }",
        ),
    ] {
        let draft = of_server(&format!("{rewrite} {others} location / {{ {CACHE} }}"));
        let refused = route(&draft, "/blog/*");
        assert!(is_closed(refused), "{rewrite}\n{draft}");
        assert!(
            refused.contains("# closed: x.conf:2 rewrite"),
            "{rewrite}\n{draft}"
        );
        assert!(!is_closed(route(&draft, "")), "{rewrite}\n{draft}");
    }
    // In a location, for a part of its requests and for all of them.
    let draft = of_server(&format!(
        "location / {{ rewrite ^/blog/(.*)$ /news/$1 redirect; {CACHE} }} location /old/ {{ rewrite ^/old/(.*)$ /new/$1 permanent; {CACHE} }}"
    ));
    assert!(is_closed(route(&draft, "/blog/*")), "{draft}");
    assert!(!is_closed(route(&draft, "")), "{draft}");
    assert!(is_closed(route(&draft, "/old/*")), "{draft}");
    // The same page under another spelling is nothing that is taken away.
    for rewrite in [
        "rewrite ^([^.]*[^/])$ $1/ permanent;",
        "rewrite ^/(.*)$ https://a.example/$1 permanent;",
        "if ($http_x) { rewrite ^ https://$host$request_uri? permanent; }",
        "if (!-e $request_filename) { rewrite /wp-admin$ $scheme://$host$uri/ permanent; }",
    ] {
        let draft = of_server(&format!("{rewrite} location / {{ {CACHE} }}"));
        assert!(!draft.contains("# closed"), "{rewrite}\n{draft}");
    }
}

#[test]
fn a_rewrite_that_guards_closes_what_it_guards() {
    for (guard, others) in [
        (
            "if ($http_x_ok = \"\") { rewrite ^ /denied last; }",
            "location = /denied { return 403; }",
        ),
        (
            "valid_referers a.example; if ($invalid_referer) { rewrite ^ /no.png redirect; }",
            "",
        ),
        ("if ($http_x) { rewrite ^ https://b.example/ last; }", ""),
    ] {
        let draft = of_server(&format!("{guard} {others} location / {{ {CACHE} }}"));
        let open = route(&draft, "");
        assert!(is_closed(open), "{guard}\n{draft}");
        assert!(open.contains("# closed: x.conf:2 if"), "{guard}\n{draft}");
    }
    let draft = of_server(&format!(
        "if (!-e $request_filename) {{ rewrite ^ /index.php last; }} location ~ \\.php$ {{ {PASS} }} location / {{ {CACHE} }}"
    ));
    assert!(!draft.contains("# closed"), "{draft}");
    assert!(is_uncached(route(&draft, "")), "{draft}");
}

#[test]
fn texts_that_run_through_the_parts_of_a_request_are_not_looked_for_in_one() {
    caches_with(
        "proxy_no_cache $s; if ($request_uri ~ \"/shop.*add-to-cart=\") { set $s 1; }",
        &[
            "path: [\"*/shop*add-to-cart=*\"]",
            "\"*add-to-cart\": \"*\"",
            "# differs: x.conf:2 if",
        ],
    );
    for expression in ["role.admin", "a.*b", "session"] {
        let pattern = expression.replace(".*", "*").replace('.', "?");
        caches_with(
            &format!("proxy_no_cache $s; if ($http_cookie ~ \"{expression}\") {{ set $s 1; }}"),
            &[&format!(
                "cookie: {{ any: [\"*{pattern}*\"], case: exact }}"
            )],
        );
    }
    closes("if ($request_uri ~ \"^/shop.*delete\") { return 403; }");
    closes("if ($args ~ \"union.*select\") { return 403; }");
}

#[test]
fn parameters_have_names_in_letters_of_any_case() {
    caches_with(
        "proxy_no_cache $arg_no;",
        &["query: { \"NO\": \"*\", \"No\": \"*\", \"nO\": \"*\", \"no\": \"*\" }"],
    );
    caches_with(
        "proxy_no_cache $arg_nocache; proxy_cache_bypass $arg_nocache;",
        &["\"???????\": \"*\"", "# differs: x.conf:2 proxy_no_cache"],
    );
    let draft = of_server(&format!(
        "if ($arg_admin) {{ return 403; }} if ($arg_a = 1) {{ return 404; }} location / {{ {CACHE} }}"
    ));
    assert!(draft.contains("query: { \"?????\": \"*\" }"), "{draft}");
    assert!(
        draft.contains("# differs: x.conf:2 if ($arg_admin)"),
        "{draft}"
    );
    for name in ["a", "A"] {
        let guard = format!("query: {{ {name}: {{ any: [\"1\"], case: exact }} }}");
        assert!(draft.contains(&guard), "{draft}");
    }
}

#[test]
fn what_no_configuration_may_say_is_not_in_the_draft() {
    caches_with(
        "slice 1m; proxy_set_header Range $slice_range; proxy_set_header If-Match \"\"; expires 99999999999999999y;",
        &[],
    );
    let draft = of_server(&format!(
        "location / {{ {CACHE} proxy_set_header Range $slice_range; proxy_set_header Host x; }}"
    ));
    assert!(!draft.contains("remove:"), "{draft}");
    for target in ["http://h/a?b", "http://h/a//b", "http://h/../a"] {
        let draft = of_server(&format!("location /x/ {{ proxy_pass {target}; }}"));
        assert!(!draft.contains("rewrite:"), "{target}\n{draft}");
        assert!(is_closed(route(&draft, "/x/*")), "{target}\n{draft}");
    }
    let draft = of_server("location / { return 302 /login?next=$request_uri; }");
    assert!(
        draft.contains("to: \"/login?next={path}?{query}\""),
        "{draft}"
    );
    let text = format!("\u{feff}server {{ listen 80; location / {{ {PASS} }} }}");
    let draft = drafted(&text).unwrap();
    assert!(draft.contains("address: "), "{draft}");
    assert!(!draft.contains("# not translated"), "{draft}");
}

/// A draft out of a folder with these files, of which the first is the main one.
fn drafted_folder(files: &[(&str, &str)]) -> anyhow::Result<String> {
    let folder = folder_of(files)?;
    let file = folder.path().join(files[0].0);
    MigrateCommand::Nginx { file }.draft()
}

/// What nginx reads by `include` is read here, and nothing that it does not read.
#[test]
fn included_files_are_those_that_the_pattern_stands_for() {
    let refusing = format!("server {{ listen 80; location /x/ {{ deny all; {PASS} }} }}");
    for (pattern, name) in [
        ("conf.d/*.conf", "conf.d/a.conf"),
        ("conf.d/*-vhost*.conf", "conf.d/10-vhost-a.conf"),
        ("conf.d/[0-9]*.conf", "conf.d/1.conf"),
        ("conf.d/?.conf", "conf.d/a.conf"),
        ("sites/*/server.conf", "sites/shop/server.conf"),
        ("/etc/nginx/conf.d/[!z]*", "conf.d/a"),
    ] {
        let main = format!("http {{ include {pattern}; }}");
        let draft = drafted_folder(&[("nginx.conf", &main), (name, &refusing)]).unwrap();
        assert!(is_closed(route(&draft, "/x/*")), "{pattern}: {draft}");
    }
    let other = format!("server {{ listen 80; location /y/ {{ {PASS} }} }}");
    let main = format!("http {{ include conf.d/*; {other} }}");
    let files = [
        ("nginx.conf", &*main),
        ("conf.d/.a.conf.swp", "no; directive"),
    ];
    assert!(drafted_folder(&files).unwrap().contains("/y/*"));
    let main = "http { include sites/*/server.conf; }";
    let files = [
        ("nginx.conf", main),
        ("sites/a/server.conf", "\nserver { listen 80;"),
    ];
    let refused = format!("{:#}", drafted_folder(&files).unwrap_err());
    assert!(
        refused.contains("sites/a/server.conf:2: a block does not end"),
        "{refused}"
    );
}
