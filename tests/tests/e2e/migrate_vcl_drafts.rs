//! `lamina migrate vcl`: what a gateway with the draft as it is stores and refuses.

use std::fs;

use e2e::cli::run;
use e2e::client::Ask;
use e2e::gateway::Gateway;
use e2e::origin::{Origin, Seen};
use e2e::reply::Reply;

/// A gateway with the draft out of a VCL, whose backend is the origin.
async fn drafted(vcl: &str, origin: &Origin) -> Gateway {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("site.vcl");
    let port = origin.address().port();
    let backend = format!("backend default {{ .host = \"127.0.0.1\"; .port = \"{port}\"; }}");
    fs::write(&file, format!("vcl 4.1;\n{backend}\n{vcl}")).unwrap();
    let ran = run(&["migrate", "vcl", file.to_str().unwrap()]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    let mut text = ran.stdout.replace("0.0.0.0:8080", "127.0.0.1:0");
    text.push_str(
        "server: {threads: 2}\nadmin: {address: \"127.0.0.1:0\"}\ntelemetry: {log_format: json}\n",
    );
    let config = e2e::setup::write_config(dir.path(), &text);
    Gateway::start(dir, &config, &[]).await
}

/// A page that any cache may share for a day.
fn page(seen: &Seen) -> Reply {
    Reply::ok(format!("page {}", seen.path)).header("cache-control", "public, max-age=86400")
}

fn with(gateway: &Gateway, target: &str, fields: &[(&str, &str)]) -> Ask {
    let ask = gateway.client().request(target);
    fields
        .iter()
        .fold(ask, |ask, (name, value)| ask.header(name, value))
}

/// Whether the second of two such requests comes from the cache.
async fn is_stored(gateway: &Gateway, target: &str, fields: &[(&str, &str)]) -> bool {
    for _ in 0..2 {
        let answer = with(gateway, target, fields).send().await;
        assert_eq!(answer.status, 200, "{target}");
    }
    with(gateway, target, fields).send().await.is_hit()
}

#[tokio::test]
async fn what_passes_in_the_vcl_is_not_stored() {
    let origin = Origin::pages(page).await;
    let vcl = r#"
        sub vcl_recv {
            if (req.method != "GET" && req.method != "HEAD") { return (pass); }
            elseif (req.http.Cookie ~ "(?i)session") { return (pass); }
            if (req.url ~ "/(cart|\?add-to-cart=)") { return (pass); }
            if (req.url ~ "^/static/") { unset req.http.Cookie; return (hash); }
            if (req.url !~ "^/pages/") { return (pass); }
            return (hash);
        }
        sub vcl_backend_response {
            if (bereq.url ~ "^/pages/account") { set beresp.uncacheable = true; return (deliver); }
            if (beresp.http.Set-Cookie) { set beresp.uncacheable = true; return (deliver); }
            set beresp.ttl = 1h;
        }
    "#;
    let gateway = drafted(vcl, &origin).await;
    assert!(is_stored(&gateway, "/static/a.css", &[]).await);
    assert!(is_stored(&gateway, "/pages/a", &[]).await);
    assert!(!is_stored(&gateway, "/pages/a", &[("cookie", "PHPSESSION=1")]).await);
    for target in [
        "/",
        "/other",
        "/pages/account/1",
        "/pages/cart",
        "/pages/?add-to-cart=3",
    ] {
        assert!(!is_stored(&gateway, target, &[]).await, "{target}");
    }
}

#[tokio::test]
async fn built_in_rules_and_unsaid_ones_keep_answers_out_of_the_cache() {
    let origin = Origin::pages(page).await;
    let gateway = drafted("sub vcl_recv { unset req.http.proxy; }", &origin).await;
    assert!(is_stored(&gateway, "/a", &[]).await);
    for field in [("cookie", "a=1"), ("authorization", "Basic YTpi")] {
        assert!(!is_stored(&gateway, "/a", &[field]).await, "{field:?}");
    }
    for vcl in [
        "sub vcl_recv { if (req.url ~ \"(?i)^/a\") { return (pass); } return (hash); }",
        "sub vcl_hash { hash_data(client.ip); }",
        "sub vcl_backend_response { if (beresp.http.X-Odd) { set beresp.uncacheable = true; } }",
        "sub vcl_backend_response { set beresp.http.Vary = \"X-Group\"; }",
    ] {
        let gateway = drafted(vcl, &origin).await;
        assert!(!is_stored(&gateway, "/A", &[]).await, "{vcl}");
    }
}

#[tokio::test]
async fn a_refusal_is_one_in_the_draft_or_nobody_gets_an_answer() {
    let origin = Origin::pages(page).await;
    let vcl = r#"
        acl nobody { "192.0.2.0"/24; }
        sub vcl_recv {
            if (req.url ~ "\.css$") { unset req.http.Cookie; }
            if (req.url ~ "^/admin" && client.ip !~ nobody) { return (synth(403)); }
            if (req.http.host == "shop.example") { return (pass); }
            if (req.url ~ "^/secret") { return (synth(403, "no")); }
            return (hash);
        }
    "#;
    let gateway = drafted(vcl, &origin).await;
    for target in ["/admin", "/admin/a.css", "/secret", "/secret/a.css"] {
        assert_eq!(gateway.client().get(target).await.status, 403, "{target}");
    }
    let secret = gateway.client().request("/secret").host("shop.example");
    assert_eq!(secret.send().await.status, 403);
    assert_eq!(origin.count(), 0);
    assert!(is_stored(&gateway, "/a.css", &[]).await);

    let unsaid = "sub vcl_recv {
        if (req.url ~ \"^/open/\") { return (hash); }
        if (req.http.X-Key != \"secret\") { return (synth(403)); }
        return (hash);
    }";
    let gateway = drafted(unsaid, &origin).await;
    origin.forget();
    for key in ["", "secret"] {
        let answer = with(&gateway, "/a", &[("x-key", key)]).send().await;
        assert_eq!(answer.status, 503, "a person has to open it");
    }
    assert_eq!(origin.count(), 0);
    assert_eq!(gateway.client().get("/open/a").await.status, 200);
}

#[tokio::test]
async fn what_the_vcl_alone_tells_the_origin_clients_can_not() {
    let origin = Origin::pages(page).await;
    let vcl = "acl inside { \"192.0.2.0\"/24; }
        sub vcl_recv {
            if (client.ip ~ inside) { set req.http.X-Inside = \"yes\"; }
            else { unset req.http.X-Inside; }
            return (hash);
        }";
    let gateway = drafted(vcl, &origin).await;
    let answer = with(&gateway, "/a", &[("x-inside", "yes")]).send().await;
    assert_eq!(answer.status, 200);
    assert_eq!(origin.last().header("x-inside"), "");
}
