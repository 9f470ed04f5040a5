//! Drafts of `lamina migrate nginx`, started: who gets nothing with nginx gets nothing here, and what
//! nginx would not store is not stored.

use e2e::cli::run;
use e2e::client::Ask;
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::reply::Reply;

/// A gateway with the draft out of a server with this in it. Its address and its origin are those of the
/// test.
async fn drafted(inside: &str, origin: &Origin) -> Gateway {
    let dir = tempfile::tempdir().unwrap();
    let original = dir.path().join("nginx.conf");
    let text = format!("server {{ listen 127.0.0.1:8081 default_server; {inside} }}");
    std::fs::write(&original, text).unwrap();
    let ran = run(&["migrate", "nginx", original.to_str().unwrap()]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let mut draft = ran
        .stdout
        .replace("127.0.0.1:8081", "127.0.0.1:0")
        .replace("http://127.0.0.1:9000", &origin.url());
    draft.push_str("admin: {address: \"127.0.0.1:0\"}\ntelemetry: {log_format: json}\n");
    let config = e2e::setup::write_config(dir.path(), &draft);
    Gateway::start(dir, &config, &[]).await
}

fn with(gateway: &Gateway, target: &str, fields: &[(&str, &str)]) -> Ask {
    let ask = gateway.client().request(target);
    fields
        .iter()
        .fold(ask, |ask, (name, value)| ask.header(name, value))
}

#[tokio::test]
async fn who_is_refused_by_nginx_is_refused_by_the_draft() {
    let origin = Origin::pages(|_| Reply::ok("secret")).await;
    let gateway = drafted(
        r#"
        allow 127.0.0.0/8;
        if ($http_user_agent ~* "evil") { set $x 1; return 403; }
        location /admin { deny all; proxy_pass http://127.0.0.1:9000; }
        location ^~ /files { proxy_pass http://127.0.0.1:9000; }
        location /files/private { deny all; proxy_pass http://127.0.0.1:9000; }
        location ~* \.sql$ { deny all; }
        location ^~ /key { if ($http_x_key != "s3cret") { return 403; } proxy_pass http://127.0.0.1:9000; }
        location ^~ /read { limit_except GET { deny all; } proxy_pass http://127.0.0.1:9000; }
        location /paid { auth_request /verify; proxy_pass http://127.0.0.1:9000; }
        location /users { auth_basic x; auth_basic_user_file /nowhere; proxy_pass http://127.0.0.1:9000; }
        location /inner { internal; proxy_pass http://127.0.0.1:9000; }
        location ^~ /outer { proxy_pass http://127.0.0.1:9000; location /outer/in { deny all; } }
        location ~ ^/(?!open|files|key|read|outer) { deny all; }
        location / { proxy_pass http://127.0.0.1:9000; }
        "#,
        &origin,
    )
    .await;
    for (target, fields, status) in [
        ("/files/a", [("x-key", "")], 200),
        ("/files/a", [("user-agent", "very EVIL")], 403),
        ("/files/private/a", [("x-key", "")], 403),
        ("/admin/a", [("x-key", "")], 403),
        ("/dump.Sql", [("x-key", "")], 403),
        ("/key", [("x-key", "s3cret")], 200),
        ("/key", [("x-key", "other")], 403),
        ("/key", [("x-other", "")], 403),
        ("/read", [("x-key", "")], 200),
        ("/paid", [("x-key", "")], 403),
        ("/users", [("authorization", "Basic YTpi")], 403),
        ("/inner/a", [("x-key", "")], 404),
        ("/outer/a", [("x-key", "")], 200),
        ("/outer/in/a", [("x-key", "")], 403),
        // No pattern says for which paths this location is, so all that it may be for is closed.
        ("/nobody-said", [("x-key", "")], 403),
    ] {
        let before = origin.seen().len();
        let answer = with(&gateway, target, &fields).send().await;
        assert_eq!(answer.status, status, "{target} {fields:?}");
        let asked = origin.seen().len() - before;
        assert_eq!(asked, usize::from(status == 200), "{target} {fields:?}");
    }
    let posted = gateway.client().post("/read", "x").await;
    assert_eq!(posted.status, 403);
}

#[tokio::test]
async fn what_nginx_does_not_store_is_not_stored_by_the_draft() {
    let origin =
        Origin::pages(|seen| Reply::ok(seen.path.clone()).header("set-cookie", "a=1")).await;
    let gateway = drafted(
        r#"
        set $skip 0;
        set $always 1;
        if ($uri ~ ^/public/) { set $always ""; }
        if ($http_cookie ~* "phpsessid") { set $skip 1; }
        if ($request_uri ~ "preview=true|/draft/") { set $skip 1; }
        proxy_cache z;
        proxy_cache_valid 200 1h;
        proxy_ignore_headers Set-Cookie;
        proxy_hide_header Set-Cookie;
        location /always { proxy_no_cache $always; proxy_pass http://127.0.0.1:9000; }
        location /user { proxy_cache_key "$request_uri$remote_user"; proxy_pass http://127.0.0.1:9000; }
        location /late { proxy_no_cache $upstream_http_x; proxy_pass http://127.0.0.1:9000; }
        location ~* ^/account-of-everybody { proxy_cache off; proxy_pass http://127.0.0.1:9000; }
        location = /Account-Of-Everybody { proxy_no_cache 1; proxy_pass http://127.0.0.1:9000; }
        location /keyed {
            proxy_cache_key "${scheme}${host}${request_uri}|$cookie_cur|v2";
            proxy_no_cache $skip $cookie_nocache$arg_nocache;
            proxy_cache_bypass $skip $cookie_nocache$arg_nocache;
            proxy_pass http://127.0.0.1:9000;
        }
        "#,
        &origin,
    )
    .await;
    for (target, cookie, is_stored) in [
        ("/keyed/a", "cur=eur", true),
        ("/keyed/a", "cur=usd", true),
        ("/keyed/a?preview=true", "cur=eur", false),
        ("/keyed/a?x=1", "cur=eur", true),
        ("/keyed/draft/a", "cur=eur", false),
        ("/keyed/b", "PhpSessID=1", false),
        ("/keyed/b", "nocache=1", false),
        ("/keyed/b", "NoCache=1", false),
        ("/keyed/b?nocache=1", "cur=eur", false),
        ("/always/a", "cur=eur", false),
        ("/user/a", "cur=eur", false),
        ("/late/a", "cur=eur", false),
        ("/account-of-everybody", "cur=eur", false),
        ("/Account-Of-Everybody", "cur=eur", false),
    ] {
        let first = with(&gateway, target, &[("cookie", cookie)]).send().await;
        assert!(!first.is_hit(), "{target} {cookie}");
        assert!(!first.has("set-cookie"), "{target} {cookie}");
        let again = with(&gateway, target, &[("cookie", cookie)]).send().await;
        assert_eq!(again.is_hit(), is_stored, "{target} {cookie}");
    }
}
