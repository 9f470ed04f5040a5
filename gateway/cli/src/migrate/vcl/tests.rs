//! What becomes of a VCL: the draft stores no more, and lets nobody see more, than the VCL does.

use super::super::{MigrateCommand, folder_of};

/// The start of each VCL.
const HEAD: &str = "vcl 4.1; backend default { .host = \"127.0.0.1\"; .port = \"9000\"; }\n";

fn migrated(text: &str) -> anyhow::Result<String> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("a.vcl");
    std::fs::write(&file, text)?;
    MigrateCommand::Vcl { file }.draft()
}

#[track_caller]
fn draft(text: &str) -> String {
    migrated(&format!("{HEAD}{text}")).unwrap()
}

/// The draft has these texts, and lacks those.
#[track_caller]
fn says(text: &str, wanted: &[&str], unwanted: &[&str]) {
    let draft = draft(text);
    for one in wanted {
        assert!(draft.contains(one), "{one} is not in\n{draft}");
    }
    for one in unwanted {
        assert!(!draft.contains(one), "{one} is in\n{draft}");
    }
}

/// The text of the last route, which is for everything.
#[track_caller]
fn site(text: &str) -> String {
    let draft = draft(text);
    let (_, site) = draft.rsplit_once("- name: site").unwrap();
    site.to_owned()
}

const OFF: &str = "cache: \"off\"";
const ON: &str = "cache: \"on\"";
const CLOSED: &str = "maintenance: { enabled: true }";

#[test]
fn what_passes_in_any_case_is_not_cached_and_what_was_decided_before_is() {
    let text = "sub vcl_recv { if (req.url ~ \"^/static/\") { return (hash); } return (pass); }";
    says(text, &["path: [/static/*]", ON, OFF], &[CLOSED]);
    assert!(site(text).contains(OFF));
    for step in ["pass", "pipe"] {
        assert!(site(&format!("sub vcl_recv {{ return ({step}); }}")).contains(OFF));
    }
    let all_but =
        "sub vcl_recv { if (req.url !~ \"^/static/\") { return (pass); } return (hash); }";
    says(all_but, &["path: [/static/*]", ON], &["# not translated"]);
    assert!(site(all_but).contains(OFF));
}

#[test]
fn else_of_what_needs_nothing_is_not_lost() {
    let text = "sub vcl_recv {
        if (req.method != \"GET\" && req.method != \"HEAD\") { return (pass); }
        elseif (req.http.Cookie ~ \"session\") { return (pass); }
        if (req.http.Cookie == \"\") { unset req.http.Cookie; } else { return (pass); }
        return (hash);
    }";
    says(
        text,
        &["cookie: [\"*session*\", \"*\"]"],
        &["# not translated"],
    );
    let unread = "sub vcl_recv {
        if (std.healthy(x)) { set req.http.a = \"1\"; } else { return (pass); } return (hash); }";
    assert!(site(unread).contains(OFF));
    let answered = "sub vcl_recv {
        if (req.url ~ \"^/a\") { return (hash); } else { return (synth(403)); } }";
    assert!(site(answered).contains(CLOSED));
}

#[test]
fn methods_are_taken_by_their_meaning() {
    let only_post =
        "sub vcl_recv { if (req.method != \"POST\") { return (pass); } return (hash); }";
    assert!(site(only_post).contains(OFF));
    let others = "sub vcl_recv {
        if (req.method !~ \"^(GET|HEAD|POST)$\") { return (synth(405)); } return (hash); }";
    says(
        others,
        &[
            "method: [GET, HEAD, POST]",
            "name: all-others\n    respond: { status: 405 }",
        ],
        &[CLOSED],
    );
    let upgrade = "sub vcl_recv { if (!req.http.Upgrade) { return (pass); } return (hash); }";
    assert!(site(upgrade).contains(OFF));
}

#[test]
fn alternatives_of_a_url_are_about_the_path_or_the_query() {
    let text = "sub vcl_recv {
        if (req.url ~ \"/(cart|checkout|\\?add-to-cart=)\") { return (pass); }
        if (req.url ~ \"preview=true\") { return (pass); }
        return (hash);
    }";
    says(
        text,
        &[
            "path: [\"*/cart*\", \"*/checkout*\"]",
            "query: { \"*preview\": \"*\", add-to-cart: \"*\" }",
            "patterns for paths don't look at the query",
            "of the query the names of parameters count alone",
        ],
        &["*preview=true*", "# not translated"],
    );
}

#[test]
fn both_cases_are_said_or_nothing_is_cached() {
    let path = "sub vcl_recv { if (req.url ~ \"(?i)^/admin\") { return (pass); } return (hash); }";
    says(
        path,
        &[
            "[/admin*, /ADMIN*]",
            "# not translated: a.vcl:2 return (pass)",
            OFF,
        ],
        &[],
    );
    let cookie =
        "sub vcl_recv { if (req.http.Cookie ~ \"(?i)sid\") { return (pass); } return (hash); }";
    says(
        cookie,
        &["cookie: { any: [\"*sid*\"], case: ignore }"],
        &[OFF, "# not translated"],
    );
    let refused =
        "sub vcl_recv { if (req.url ~ \"(?i)^/admin\") { return (synth(403)); } return (hash); }";
    assert!(site(refused).contains(CLOSED));
    let files =
        "sub vcl_recv { if (req.url ~ \"(?i)\\.css$\") { unset req.http.Cookie; } return (hash); }";
    says(files, &["[\"*.css\", \"*.CSS\"]", "case counts"], &[OFF]);
}

#[test]
fn a_block_for_some_cookies_is_not_for_all_requests() {
    let admin = "sub vcl_recv { if (req.http.Cookie ~ \"admin=1\") { set req.http.X-Admin = \"1\"; } return (hash); }";
    says(
        admin,
        &["request: { remove: [x-admin] }"],
        &["x-admin: \"1\""],
    );
    let kept = "sub vcl_recv { if (req.http.Cookie !~ \"session\") { unset req.http.Cookie; } return (hash); }";
    says(
        kept,
        &["cookie: [\"*session*\"]", "cookies: { keep: [] }"],
        &[],
    );
    let all_but =
        "sub vcl_recv { if (req.url !~ \"^/wp-admin\") { unset req.http.Cookie; } return (hash); }";
    says(
        all_but,
        &["path: [/wp-admin*]", "cookies: { keep: [] }"],
        &[],
    );
    let odd = "sub vcl_recv { if (req.http.X-A) { unset req.http.Cookie; } return (hash); }";
    says(odd, &["bypass: { cookie: [\"*\"] }"], &["keep"]);
}

#[test]
fn built_in_rules_hold_where_the_vcl_does_not_end_before_them() {
    let text = "sub vcl_recv { unset req.http.proxy; }";
    says(
        text,
        &[
            "bypass: { cookie: [\"*\"], header: { authorization: \"*\" } }",
            "differs: a.vcl:2 sub vcl_recv",
        ],
        &[],
    );
    let files = "sub vcl_recv { if (req.url ~ \"^/s/\") { unset req.http.Cookie; } }";
    let draft = draft(files);
    let (before, site) = draft.split_once("- name: site").unwrap();
    assert!(
        before.contains("keep: []") && !before.contains("cookie: [\"*\"]"),
        "{draft}"
    );
    assert!(site.contains("cookie: [\"*\"]"), "{draft}");
}

#[test]
fn lifetimes_override_only_where_nothing_is_kept_out() {
    let guarded = "sub vcl_backend_response {
        if (beresp.http.Cache-Control ~ \"private|no-store\") { set beresp.uncacheable = true; return (deliver); }
        set beresp.ttl = 1h; return (deliver); }";
    says(
        guarded,
        &["policy: { mode: cap, ttl: 1h }"],
        &["policy: { cookies"],
    );
    let built_in = "sub vcl_backend_response { set beresp.ttl = 1h; }";
    says(built_in, &["policy: { mode: cap, ttl: 1h }"], &[]);
    let all = "sub vcl_backend_response { set beresp.ttl = 1h; return (deliver); }";
    says(all, &["mode: override", "as this VCL does"], &[]);
    let paths = "sub vcl_backend_response { if (bereq.url ~ \"^/a\") { set beresp.ttl = 1h; } }";
    says(paths, &["mode: cap"], &["override"]);
}

#[test]
fn contrary_conditions_keep_nothing_out_by_themselves() {
    for condition in [
        "beresp.http.Cache-Control !~ \"no-cache\"",
        "beresp.status == 200",
        "beresp.ttl > 0s",
        "!beresp.http.Set-Cookie",
        "beresp.http.X-Odd",
        "beresp.http.Cache-Control ~ \"private|max-age\"",
    ] {
        let text = format!(
            "sub vcl_backend_response {{ if ({condition}) {{ set beresp.uncacheable = true; }} }}"
        );
        let site = site(&text);
        assert!(site.contains(OFF), "{condition}: {site}");
    }
    let ours = "sub vcl_backend_response {
        if (beresp.ttl <= 0s || beresp.http.Set-Cookie || (!beresp.http.Surrogate-Control && beresp.http.Cache-Control ~ \"no-cache|private\")) {
            set beresp.ttl = 120s; set beresp.uncacheable = true; } }";
    says(ours, &[], &[OFF, "# not translated"]);
}

#[test]
fn urls_that_are_not_cacheable_bypass_the_cache_on_every_route() {
    let text =
        "sub vcl_recv { if (req.url ~ \"\\.css$\") { unset req.http.Cookie; } return (hash); }
        sub vcl_backend_response {
            if (bereq.url ~ \"^/account\") { set beresp.uncacheable = true; return (deliver); }
            if (bereq.url ~ \"^/live\") { set beresp.ttl = 0s; } }";
    let draft = draft(text);
    assert_eq!(
        draft.matches("path: [/account*, /live*]").count(),
        2,
        "{draft}"
    );
    assert!(!draft.contains("# not translated"), "{draft}");
}

#[test]
fn a_cookie_that_keeps_an_answer_out_is_not_stripped() {
    let text = "sub vcl_backend_response {
        if (beresp.http.Set-Cookie) { set beresp.uncacheable = true; return (deliver); }
        unset beresp.http.Set-Cookie; }";
    says(text, &[], &["strip"]);
    let mixed = "sub vcl_backend_response {
        if (beresp.http.Set-Cookie || bereq.url ~ \"^/x\") { set beresp.uncacheable = true; return (deliver); }
        unset beresp.http.Set-Cookie; }";
    says(mixed, &["path: [/x*]"], &["strip", OFF]);
    let errors = "sub vcl_backend_response {
        if (beresp.http.Set-Cookie || beresp.status >= 500) { set beresp.uncacheable = true; } }";
    says(errors, &["errors are stored only if"], &[OFF]);
    says(
        "sub vcl_backend_response { unset beresp.http.Set-Cookie; }",
        &["strip"],
        &[],
    );
}

#[test]
fn the_last_lifetime_of_two_counts() {
    let kinds = "sub vcl_backend_response {
        if (beresp.status == 404) { set beresp.ttl = 15s; }
        if (beresp.http.content-type ~ \"^image/\") { set beresp.ttl = 1d; } }";
    says(
        kinds,
        &["lifetimes: [{ ttl: 1d, types: [image/*] }, { statuses: [404], ttl: 15s }]"],
        &[],
    );
    let overwritten = "sub vcl_backend_response {
        if (beresp.http.content-type ~ \"^image/\") { set beresp.ttl = 1d; }
        set beresp.ttl = 1m; }";
    says(overwritten, &["ttl: 1m"], &["ttl: 1d"]);
    let paths = "sub vcl_backend_response {
        if (bereq.url ~ \"\\.css$\") { set beresp.ttl = 7d; }
        if (bereq.url ~ \"^/live\") { set beresp.ttl = 5s; } }";
    says(
        paths,
        &["lifetimes: [{ paths: [/live*], ttl: 5s }], mode: cap, ttl: 7d"],
        &[],
    );
}

#[test]
fn answers_come_before_hosts_and_hosts_have_all_rules() {
    let text = "backend beta { .host = \"127.0.0.2\"; }
        sub vcl_recv {
            if (req.http.host == \"shop.example\") { set req.backend_hint = beta; }
            if (req.url ~ \"^/admin\") { return (synth(403, \"no\")); }
            if (req.http.Authorization) { return (pass); }
            return (hash); }";
    let draft = draft(text);
    let at = |text: &str| {
        draft
            .find(text)
            .unwrap_or_else(|| panic!("{text}: {draft}"))
    };
    assert!(at("status: 403") < at("host: [shop.example]"), "{draft}");
    assert_eq!(draft.matches("authorization: \"*\"").count(), 2, "{draft}");
    assert!(at("upstream: beta") < at("- name: site"), "{draft}");
    let passed =
        "sub vcl_recv { if (req.http.host == \"a.example\") { return (pass); } return (hash); }";
    let draft = self::draft(passed);
    assert_eq!(draft.matches(OFF).count(), 1, "{draft}");
    assert!(draft.contains("host: [a.example]"), "{draft}");
}

#[test]
fn refusals_that_can_not_be_said_close_the_site() {
    for refusal in [
        "if (client.ip ~ somebody) { return (synth(403)); }",
        "if (req.http.X-Forwarded-Proto != \"https\") { return (synth(403)); }",
        "if (std.ip(req.http.X-Real-IP, \"0.0.0.0\") !~ somebody) { return (synth(403)); }",
        "if (!req.http.X-Key) { error 403 \"no\"; }",
        "if (req.http.X-A) { call elsewhere; }",
        "if (req.http.X-A) { set req.url = \"/public\" + req.url; }",
        "call elsewhere;",
        "C{ int a; }C",
        "include \"not-there.vcl\";",
    ] {
        let text = format!("sub vcl_recv {{ {refusal} return (hash); }}");
        let site = site(&text);
        assert!(site.contains(CLOSED), "{refusal}: {site}");
    }
    let hit = "sub vcl_hit { if (client.ip ~ somebody) { return (synth(403)); } if (std.healthy(x)) { return (deliver); } }";
    assert!(site(hit).contains(CLOSED));
    let restart = "sub vcl_deliver { if (resp.http.X-Login) { return (restart); } }";
    assert!(site(restart).contains(CLOSED));
    let retry =
        "sub vcl_deliver { if (resp.status >= 500 && req.restarts < 2) { return (restart); } }";
    assert!(!site(retry).contains(CLOSED));
}

#[test]
fn networks_that_may_ask_are_access() {
    let acl = "acl inside { \"10.0.0.0\"/8; ! \"10.0.0.7\"; }";
    let all = format!(
        "{acl} sub vcl_recv {{ if (client.ip !~ inside) {{ return (synth(403)); }} return (hash); }}"
    );
    says(
        &all,
        &["access: { allow: [\"10.0.0.0/8\"], deny: [\"10.0.0.7/32\"] }"],
        &[CLOSED, "# not translated"],
    );
    let paths = format!(
        "{acl} sub vcl_recv {{ if (req.url ~ \"\\.css$\") {{ unset req.http.Cookie; }}
         if (req.url ~ \"^/admin\" && client.ip !~ inside) {{ return (synth(403)); }} return (hash); }}"
    );
    let draft = draft(&paths);
    let (guarded, rest) = draft.split_once("path: [\"*.css\"]").unwrap();
    assert!(guarded.contains("path: [/admin*]"), "{draft}");
    assert!(
        guarded.contains("access: ") && !rest.contains("access: "),
        "{draft}"
    );
    let named = "acl out { \"a.example\"; } sub vcl_recv { if (client.ip ~ out) { return (synth(403)); } return (hash); }";
    assert!(site(named).contains(CLOSED));
}

#[test]
fn who_may_purge_is_who_the_list_lets_in() {
    let purges = |acl: &str, block: &str| {
        draft(&format!(
            "acl list {{ {acl} }} sub vcl_recv {{ if (req.method == \"PURGE\") {{ {block} return (purge); }} return (hash); }}"
        ))
    };
    let allowed = "allow: [\"10.0.0.0/8\"]";
    let nobody = "allow: [\"127.0.0.1/32\"]";
    let net = "\"10.0.0.0\"/8;";
    for refusal in [
        "client.ip !~ list",
        "!(client.ip ~ list)",
        "!client.ip ~ list",
    ] {
        let draft = purges(net, &format!("if ({refusal}) {{ return (synth(405)); }}"));
        assert!(draft.contains(allowed), "{refusal}: {draft}");
    }
    for refusal in [
        "if (client.ip ~ list) { return (synth(403)); }",
        "if (client.ip !~ list || !req.http.X-Token) { return (synth(403)); }",
        "if (client.ip !~ list) { return (synth(405)); } if (req.http.X-Token != \"a\") { return (synth(403)); }",
        "",
    ] {
        let draft = purges(net, refusal);
        assert!(draft.contains(nobody), "{refusal}: {draft}");
    }
    let excepted = purges(
        "\"10.0.0.0\"/8; ! \"10.0.0.7\";",
        "if (client.ip !~ list) { return (synth(405)); }",
    );
    assert!(excepted.contains(nobody), "{excepted}");
    let twice = "acl list { \"10.0.0.0\"/8; } sub vcl_recv {
        if (req.method == \"PURGE\" && client.ip !~ list) { return (synth(405)); }
        if (req.method == \"PURGE\") { return (purge); } return (hash); }";
    says(twice, &[allowed], &[]);
    let asks_more = twice.replace(
        "{ return (purge); }",
        "{ if (!req.http.X-Token) { return (synth(403)); } return (purge); }",
    );
    says(&asks_more, &[nobody], &[allowed]);
    let other = "acl list { \"10.0.0.0\"/8; } sub vcl_recv {
        if (req.method == \"PURGE\" || req.url ~ \"^/admin\") { return (synth(403)); } return (hash); }";
    says(
        other,
        &["path: [/admin*]", "method: [PURGE]"],
        &["purge_method"],
    );
}

#[test]
fn what_the_key_lacks_keeps_answers_out_of_the_cache() {
    says(
        "sub vcl_hash { hash_data(req.http.host + req.http.cookie); }",
        &["headers: [cookie]"],
        &["host + req", OFF],
    );
    for what in ["client.ip", "req.http.X-Own", "geo.country(req.http.X-A)"] {
        let text = format!(
            "sub vcl_recv {{ set req.http.X-Own = geo.country(); return (hash); }} sub vcl_hash {{ hash_data({what}); }}"
        );
        assert!(site(&text).contains(OFF), "{what}");
    }
    let part =
        "sub vcl_hash { hash_data(regsub(req.http.Accept-Language, \"^(..).*\", \"\\1\")); }";
    says(part, &["headers: [accept-language]"], &[OFF]);
    let vary = "sub vcl_backend_response { set beresp.http.Vary = \"Cookie\"; }";
    assert!(site(vary).contains(OFF));
}

#[test]
fn parameters_are_cut_whatever_their_value_or_not_at_all() {
    let cut = |value: &str| {
        draft(&format!(
            "sub vcl_recv {{ set req.url = regsuball(req.url, \"(\\?|&)id={value}\", \"\"); return (hash); }}"
        ))
    };
    for value in ["[^&]*", "[-_A-z0-9+()%.]+", ".*"] {
        assert!(cut(value).contains("drop: [id]"), "{value}");
    }
    for value in ["\\d+", "[0-9]+", "1"] {
        let draft = cut(value);
        assert!(
            !draft.contains("drop: [id]")
                && draft.contains("# not translated: a.vcl:2 set req.url"),
            "{draft}"
        );
    }
    let some = "sub vcl_recv { if (req.url ~ \"^/a\") { set req.url = regsuball(req.url, \"id=[^&]*\", \"\"); } return (hash); }";
    let site = site(some);
    assert!(!site.contains("drop: [id]"), "{site}");
}

#[test]
fn what_is_delivered_is_told_apart_from_hits_by_its_condition() {
    let text = "sub vcl_deliver {
        if (obj.hits > 0) { set resp.http.X-Cache = \"HIT\"; } else { set resp.http.X-Cache = \"MISS\"; }
        if (req.http.X-Debug) { set resp.http.X-D = \"1\"; }
        else { set resp.http.Strict-Transport-Security = \"max-age=1\"; unset resp.http.X-Secret; } }";
    says(
        text,
        &[
            "# not translated: a.vcl:5 set resp.http.Strict",
            "response: { remove: [x-secret] }",
        ],
        &["X-Cache"],
    );
}

#[test]
fn esi_is_for_the_paths_that_the_vcl_names() {
    let text =
        "sub vcl_backend_response { if (bereq.url ~ \"^/pages\") { set beresp.do_esi = true; } }";
    let draft = draft(text);
    let (paths, site) = draft.split_once("- name: site").unwrap();
    assert!(
        paths.contains("esi: ") && !site.contains("esi: "),
        "{draft}"
    );
    let zero = "sub vcl_backend_response { if (bereq.url == \"/x\") { set beresp.do_esi = true; set beresp.ttl = 0s; } }";
    says(zero, &["path: [/x]"], &["esi: "]);
}

#[test]
fn nobody_restarts() {
    let text = "sub vcl_recv {
        if (req.restarts == 0) { if (req.http.X-Forwarded-For) { set req.http.X-Forwarded-For = req.http.X-Forwarded-For + \", \" + client.ip; } else { set req.http.X-Forwarded-For = client.ip; } }
        if (req.restarts > 0) { return (pass); }
        return (hash); }";
    says(text, &[], &["# not translated", OFF]);
}

#[test]
fn ports_are_read_however_they_are_spaced() {
    let text =
        "vcl 4.1; backend default { .host=\"127.0.0.1\"; .port=\"9000\"; .max_connections=7; }";
    let draft = migrated(text).unwrap();
    assert!(draft.contains("http://127.0.0.1:9000"), "{draft}");
    assert!(
        draft.contains("max_concurrent: 7") && !draft.contains("# not translated"),
        "{draft}"
    );
}

#[test]
fn files_are_bounded_with_their_line() {
    let nested = format!(
        "sub vcl_recv {{\n{}{}}}",
        "if (a) {".repeat(50_000),
        "}".repeat(50_000)
    );
    let error = migrated(&nested).unwrap_err();
    assert!(
        format!("{error:#}").contains("a.vcl:2: blocks are nested deeper than 64"),
        "{error:#}"
    );
    let many = "import std;\n".repeat(20_001);
    let error = format!("{:#}", migrated(&many).unwrap_err());
    assert!(
        error.contains("a.vcl:20001") && error.contains("20000 statements"),
        "{error}"
    );
    let error = format!(
        "{:#}",
        migrated("vcl 4.1;\ninclude \"a.vcl\";").unwrap_err()
    );
    assert!(
        error.contains("a.vcl:2") && error.contains("includes itself"),
        "{error}"
    );
    let error = format!("{:#}", migrated(&"# a\n".repeat(600_000)).unwrap_err());
    assert!(error.contains("larger than"), "{error}");
    // What is too deep inside of a condition or an expression is not looked at.
    let deep =
        |open: &str, close: &str| format!("{}a{}", open.repeat(50_000), close.repeat(50_000));
    for condition in [
        deep("(", ")"),
        deep("!", ""),
        format!("req.url ~ \"{}\"", deep("(", ")")),
    ] {
        let text =
            format!("sub vcl_recv {{ if ({condition}) {{ return (pass); }} return (hash); }}");
        assert!(site(&text).contains(OFF));
    }
    let calls = "sub a { call b; call b; } sub b { call a; call a; } sub vcl_recv { call a; return (hash); }";
    says(calls, &["name: site"], &[]);
}

#[test]
fn fields_that_the_vcl_sets_are_no_conditions_and_not_the_clients() {
    let text = "sub mark { set req.http.X-Skip = \"1\"; }
        sub vcl_recv { if (req.http.X-Layer) { call mark; } if (req.http.X-Skip) { return (pass); } return (hash); }";
    says(text, &["remove: [x-skip]", OFF], &["x-skip: \"*\""]);
    let fetch =
        "sub vcl_backend_fetch { if (bereq.url ~ \"^/a\") { set bereq.http.X-Role = \"guest\"; } }";
    says(fetch, &["remove: [x-role]"], &[]);
}

#[test]
fn a_block_that_passes_may_have_an_upstream_of_its_own() {
    let text = "backend api { .host = \"127.0.0.2\"; }
        sub vcl_recv { if (req.url ~ \"^/api/\") { set req.backend_hint = api; return (pass); } return (hash); }";
    says(
        text,
        &[
            "match: { path: [/api/*] }",
            "upstream: api",
            "bypass: { path: [/api/*] }",
        ],
        &["# not translated", CLOSED],
    );
}

#[test]
fn what_a_block_for_some_paths_leaves_unsaid_concerns_these_paths() {
    let text = "sub vcl_recv { if (req.url ~ \"^/a/\") {
        if (client.ip ~ somebody) { return (synth(403)); } unset req.http.Cookie; return (hash); } return (hash); }";
    let draft = draft(text);
    assert_eq!(draft.matches(CLOSED).count(), 2, "{draft}");
    let later = "sub vcl_recv { if (req.url ~ \"^/a/\") { return (hash); }
        if (client.ip ~ somebody) { return (synth(403)); } return (hash); }";
    let draft = self::draft(later);
    assert_eq!(draft.matches(CLOSED).count(), 1, "{draft}");
}

#[test]
fn an_upstream_stays_where_the_block_ended() {
    for step in ["pass", "hash"] {
        let text = format!("backend api {{ .host = \"127.0.0.2\"; }}
            sub vcl_recv {{ if (req.url ~ \"^/api/\") {{ set req.backend_hint = api; return ({step}); }}
            if (req.http.host == \"api.example\") {{ set req.backend_hint = api; return ({step}); }}
            set req.backend_hint = default; return (hash); }}");
        let draft = draft(&text);
        assert_eq!(draft.matches("upstream: api").count(), 3, "{draft}");
        assert!(site(&text).contains("upstream: default"), "{draft}");
    }
    let overwritten = "backend api { .host = \"127.0.0.2\"; }
        sub vcl_recv { if (req.url ~ \"^/api/\") { set req.backend_hint = api; } set req.backend_hint = default; return (hash); }";
    says(overwritten, &[], &["upstream: api"]);
}

#[test]
fn what_is_compared_with_a_variable_is_not_said_as_text() {
    for condition in [
        "req.http.X-A == req.http.X-B",
        "req.url ~ \"^/a\" + req.http.X-B",
        "req.http.host == req.http.X-B",
        "!(req.http.X-A != req.http.X-B)",
    ] {
        let text =
            format!("sub vcl_recv {{ if ({condition}) {{ return (pass); }} return (hash); }}");
        assert!(site(&text).contains(OFF), "{condition}");
    }
    says(
        "sub vcl_recv { set req.http.X-A += \"b\"; return (hash); }",
        &["remove: [x-a]"],
        &["x-a: b"],
    );
}

#[test]
fn a_subroutine_that_returns_to_its_caller_ends_nothing_else() {
    let text = "sub first { return; set req.http.X-A = \"1\"; }
        sub vcl_recv { call first; if (req.http.Authorization) { return (pass); } return (hash); }";
    says(
        text,
        &["authorization: \"*\""],
        &["x-a", "# not translated"],
    );
    let answers = "sub first { return; }
        sub vcl_backend_response { call first; if (bereq.url ~ \"^/a\") { set beresp.uncacheable = true; } }";
    says(answers, &["path: [/a*]"], &["# not translated"]);
}

#[test]
fn the_host_that_alone_is_served_is_a_match() {
    let text = "sub vcl_recv { if (req.http.host != \"www.a.example\") { return (synth(750, \"https://www.a.example/\")); } return (hash); }
        sub vcl_synth { if (resp.status == 750) { set resp.http.Location = resp.reason; set resp.status = 301; return (deliver); } }";
    says(
        text,
        &[
            "match: { host: [www.a.example] }",
            "name: all-others\n    redirect: { status: 301, to: https://www.a.example/ }",
        ],
        &[CLOSED, "# not translated"],
    );
}

#[test]
fn fields_of_some_paths_can_not_be_sent_to_others() {
    let text = "sub vcl_recv { if (req.url ~ \"\\.css$\") { unset req.http.Cookie; }
        if (req.url ~ \"^/admin\") { set req.http.X-Area = \"admin\"; } return (hash); }";
    says(
        text,
        &[
            "request: { remove: [x-area] }",
            "request: { set: { x-area: admin } }",
        ],
        &[],
    );
}

#[test]
fn hosts_without_their_port_are_still_the_clients() {
    let text = "sub vcl_recv { set req.http.Host = regsub(req.http.Host, \":[0-9]+\", \"\");
        if (req.http.host == \"a.example\") { return (pass); } return (hash); }
        sub vcl_hash { if (req.http.host) { hash_data(req.http.host); } else { hash_data(server.ip); } }";
    says(
        text,
        &["host: [a.example]"],
        &["return (pass)", "# not translated: a.vcl:4"],
    );
    assert!(!site(text).contains(OFF));
    let any_port = "sub vcl_recv { if (req.http.host ~ \"^(www\\.)?a\\.example(:\\d+)?$\") { return (pass); } return (hash); }";
    says(
        any_port,
        &["host: [a.example, www.a.example]"],
        &["# not translated"],
    );
}

#[test]
fn cookies_that_are_kept_may_be_looked_for_in_a_copy() {
    let text = "sub vcl_recv { if (req.http.Cookie !~ \"^\\s*$\") {
        set req.http.CookieCheck = \";\" + req.http.Cookie;
        set req.http.CookieCheck = regsuball(req.http.CookieCheck, \";(SESS[a-z0-9]+|NO_CACHE)=\", \"; \\1=\");
        if (req.http.CookieCheck == \"\") { unset req.http.CookieCheck; unset req.http.Cookie; }
        else { unset req.http.CookieCheck; return (pass); } } return (hash); }";
    says(
        text,
        &["cookie: [SESS?*, NO_CACHE]", "cookies: { keep: [] }"],
        &[OFF, "# not translated"],
    );
    let dropped = "sub vcl_recv { if (req.http.Cookie !~ \"^\\s*$\") {
        set req.http.Cookie = regsuball(req.http.Cookie, \"_ga=[^;]+(; )?\", \"\"); } return (hash); }";
    says(dropped, &["drop: [_ga]"], &["# not translated"]);
}

#[test]
fn of_two_answers_to_the_same_requests_the_first_one_counts() {
    let text = "sub vcl_recv { if (req.url ~ \"^/a$\") { return (synth(410)); }
        if (req.url ~ \"^/a$\") { return (synth(403)); }
        if (req.url ~ \"^/a$\") { unset req.http.Cookie; } return (hash); }";
    let draft = draft(text);
    assert_eq!(draft.matches("path: [/a]").count(), 1, "{draft}");
    assert!(draft.contains("status: 410"), "{draft}");
}

#[test]
fn a_cookie_is_in_the_key_where_the_vcl_knows_that_it_is_there() {
    let hash = "hash_data(regsub(req.http.Cookie, \"^.*?sid=([^;]+);*.*$\", \"\\1\"));";
    let known = format!("sub vcl_hash {{ if (req.http.Cookie ~ \"sid=\") {{ {hash} }} }}");
    says(&known, &["key: { cookies: [sid] }"], &[]);
    // Elsewhere, requests without it are told apart by all of their cookies.
    says(
        &format!("sub vcl_hash {{ {hash} }}"),
        &["key: { headers: [cookie] }"],
        &["cookies: [sid]"],
    );
    let several = format!("sub vcl_hash {{ if (req.http.Cookie ~ \"sid=|a=\") {{ {hash} }} }}");
    says(&several, &["key: { headers: [cookie] }"], &[]);
}

#[test]
fn cookies_that_are_cut_out_later_stay_where_the_vcl_has_ended() {
    let text = "sub vcl_recv {
        set req.http.Cookie = regsuball(req.http.Cookie, \"_ga=[^;]+(; )?\", \"\");
        if (req.url ~ \"^/api/\") { return (hash); }
        unset req.http.Cookie; return (hash); }";
    let draft = draft(text);
    let (paths, site) = draft.split_once("- name: site").unwrap();
    assert!(paths.contains("cookies: { drop: [_ga] }"), "{draft}");
    assert!(site.contains("cookies: { keep: [] }"), "{draft}");
    let before = "sub vcl_recv { if (req.url ~ \"^/api/\") { return (hash); } unset req.http.Cookie; return (hash); }";
    let draft = self::draft(before);
    let (paths, _) = draft.split_once("- name: site").unwrap();
    assert!(!paths.contains("cookies:"), "{draft}");
}

#[test]
fn an_expression_across_path_and_query_holds_for_its_last_part() {
    let refused = "sub vcl_recv { if (req.url ~ \"index.php.*action=delete\") { return (synth(403)); } return (hash); }";
    says(
        refused,
        &["query: { \"*action\": \"*\" }", "# differs"],
        &["index?php", CLOSED],
    );
    let passed = "sub vcl_recv { if (req.url ~ \"(cart|checkout).*id=\") { return (pass); } return (hash); }";
    says(
        passed,
        &["query: { \"*id\": \"*\" }", "# differs"],
        &["*cart*id"],
    );
    // Without the end of a name it may be found in a value, too.
    let value =
        "sub vcl_recv { if (req.url ~ \"\\?.*nocache\") { return (pass); } return (hash); }";
    assert!(site(value).contains(OFF));
    let path = "sub vcl_recv { if (req.url ~ \"^/shop.*delete\") { return (synth(403)); } return (hash); }";
    says(
        path,
        &[
            "path: [/shop*delete*]",
            "patterns for paths don't look at the query",
        ],
        &[],
    );
    let tracking = "sub vcl_recv { if (req.url ~ \"[?&](utm_[a-z]+|gclid)=\") { return (pass); } return (hash); }";
    says(tracking, &["query: { gclid: \"*\", utm_?*: \"*\" }"], &[]);
}

#[test]
fn a_text_that_runs_through_cookies_is_one_of_the_field() {
    for expression in ["role.admin", "a.*b=", "(a|b)[^;]*=1"] {
        let text = format!(
            "sub vcl_recv {{ if (req.http.Cookie ~ \"{expression}\") {{ return (pass); }} return (hash); }}"
        );
        says(
            &text,
            &["header: { cookie: { any: ["],
            &["bypass: { cookie"],
        );
    }
    let name =
        "sub vcl_recv { if (req.http.Cookie ~ \"session\") { return (pass); } return (hash); }";
    says(name, &["the names of cookies count alone"], &[]);
}

#[test]
fn what_an_origin_says_to_surrogates_is_told() {
    let told = "Varnish does not store what says Surrogate-Control: no-store";
    for text in [
        "",
        "sub vcl_recv { return (hash); }",
        "sub vcl_backend_response { set beresp.grace = 1h; }",
        "sub vcl_backend_response { if (beresp.http.Surrogate-Control ~ \"(?i)no-store\") { set beresp.uncacheable = true; } return (deliver); }",
    ] {
        says(text, &[told], &[CLOSED]);
    }
    let delivers = "sub vcl_backend_response { set beresp.ttl = 1h; return (deliver); }";
    says(delivers, &[], &[told]);
}

#[test]
fn a_mark_of_an_editor_before_a_vcl_is_no_part_of_it() {
    let draft = migrated(&format!("\u{feff}{HEAD}")).unwrap();
    assert!(!draft.contains("# not translated"), "{draft}");
}

/// A draft out of a folder with these files, of which the first is the main one.
fn migrated_folder(files: &[(&str, &str)]) -> anyhow::Result<String> {
    let folder = folder_of(files)?;
    let file = folder.path().join(files[0].0);
    MigrateCommand::Vcl { file }.draft()
}

/// A file is looked for where Varnish does: with `./` beside the one that includes it.
#[test]
fn included_files_are_found_where_varnish_finds_them() {
    let passing = "sub vcl_recv { if (req.url ~ \"^/mine/\") { return (pass); } return (hash); }";
    for (include, between, name) in [
        ("\"x.vcl\"", "", "x.vcl"),
        ("\"my rules.vcl\"", "", "my rules.vcl"),
        ("\"/etc/varnish/sub/x.vcl\"", "", "sub/x.vcl"),
        ("\"sub/between.vcl\"", "include \"./x.vcl\";", "sub/x.vcl"),
        ("+glob \"conf.d/*.vcl\"", "", "conf.d/10-x.vcl"),
        ("+glob \"conf.d/[0-9]?-x.vcl\"", "", "conf.d/10-x.vcl"),
    ] {
        let main = format!("{HEAD}include {include};");
        let files = [
            ("a.vcl", &*main),
            ("sub/between.vcl", between),
            (name, passing),
        ];
        let draft = migrated_folder(&files).unwrap();
        assert!(draft.contains("/mine/"), "{include}: {draft}");
        assert!(!draft.contains(CLOSED), "{include}: {draft}");
    }
    let none = format!("{HEAD}include +glob \"conf.d/*.vcl\";\n");
    let draft = migrated_folder(&[("a.vcl", &none), ("conf.d/note.txt", "")]).unwrap();
    assert!(draft.contains("# not translated: a.vcl:2"), "{draft}");
    assert!(draft.contains(CLOSED), "{draft}");
    let main = format!("{HEAD}include \"sub/x.vcl\";");
    let files = [("a.vcl", &*main), ("sub/x.vcl", "\nsub vcl_recv {")];
    let refused = format!("{:#}", migrated_folder(&files).unwrap_err());
    assert!(
        refused.contains("sub/x.vcl: a block does not end"),
        "{refused}"
    );
}

/// Magento's own VCL takes the scheme of an absolute target away: no request has one there.
#[test]
fn a_scheme_that_is_cut_off_the_url_needs_nothing() {
    let cut = |with: &str| {
        format!(
            "sub vcl_recv {{ set req.url = regsub(req.url, \"^http[s]?://\", \"{with}\"); return (hash); }}"
        )
    };
    says(&cut(""), &[], &[CLOSED, OFF, "# not translated"]);
    assert!(site(&cut("/public/")).contains(CLOSED));
}
