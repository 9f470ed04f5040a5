//! `lamina migrate`: drafts out of configurations of nginx and Varnish are valid, say what can be
//! said, and name all else with its line.

use std::path::PathBuf;

use e2e::cli::{repository, run};

fn file(name: &str) -> PathBuf {
    repository().join("tests/data/migrate").join(name)
}

/// The draft out of one of the files, and whether it is valid.
#[track_caller]
fn draft(kind: &str, name: &str) -> String {
    let ran = run(&["migrate", kind, file(name).to_str().unwrap()]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{name}");
    let dir = tempfile::tempdir().unwrap();
    let config = e2e::setup::write_config(dir.path(), &ran.stdout);
    let valid = run(&["validate", "-c", config.to_str().unwrap()]);
    assert_eq!(
        valid.code,
        Some(0),
        "{name}: {}\n{}",
        valid.output(),
        ran.stdout
    );
    ran.stdout
}

#[track_caller]
fn has_all(draft: &str, wanted: &[&str]) {
    for text in wanted {
        assert!(draft.contains(text), "{text} is not in\n{draft}");
    }
}

/// Statements of a text: what ends with a semicolon or opens a block, outside of comments and quotation
/// marks. The files of the tests have one statement that this can't see: inline C.
fn statements(text: &str) -> usize {
    let mut count = 0;
    let mut rest = text.chars().peekable();
    let mut quote = None;
    let mut before = ' ';
    while let Some(c) = rest.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '#') => while rest.next_if(|c| *c != '\n').is_some() {},
            (None, '/') if rest.peek() == Some(&'/') => {
                while rest.next_if(|c| *c != '\n').is_some() {}
            }
            (None, '/') if rest.peek() == Some(&'*') => {
                let mut last = ' ';
                for c in rest.by_ref() {
                    if last == '*' && c == '/' {
                        break;
                    }
                    last = c;
                }
            }
            (None, '"') => quote = Some('"'),
            (None, '{') if before != '$' && rest.peek() != Some(&'"') => count += 1,
            (None, ';') => count += 1,
            _ => {}
        }
        before = c;
    }
    count
}

/// What the last line of a draft says: all, translated, needing nothing, not translated.
fn tally(draft: &str) -> Vec<usize> {
    let last = draft.lines().last().unwrap();
    let words = last.split(|c: char| !c.is_ascii_digit());
    words.filter_map(|word| word.parse().ok()).collect()
}

/// Every statement is said, needs nothing, or stands as a comment.
#[track_caller]
fn nothing_is_dropped(draft: &str, in_the_files: usize) {
    let told = tally(draft);
    let [all, translated, needs_nothing, not_translated] = told[..] else {
        panic!("{told:?}");
    };
    let comments = draft
        .lines()
        .filter(|line| line.trim_start().starts_with("# not translated: "));
    assert_eq!(comments.count(), not_translated, "{draft}");
    assert_eq!(translated + needs_nothing + not_translated, all);
    assert_eq!(all, in_the_files, "{draft}");
}

#[test]
fn a_vcl_of_a_blog_becomes_routes_with_cookies_bypass_and_lifetimes() {
    let draft = draft("vcl", "blog.vcl");
    has_all(
        &draft,
        &[
            "targets: [http://127.0.0.1:8081, http://127.0.0.1:8082]",
            "fall: 3, interval: 4s, path: /ping.txt, rise: 4",
            "connect: 3s, first_byte: 120s, idle: 20s",
            "drop: [_ga, __utm?]",
            "drop: [utm_medium, fbclid, trk_?*], sort: true",
            "path: [\"*.css\", \"*.js\", \"*.png\", \"*.woff\", \"*.woff2\"]",
            "respond: { body: \"Gone for good\", status: 410 }",
            "\"*/wp-admin*\", \"*/wp-login*\", /preview*",
            "\"*wordpress_logged_in_*\", \"*comment_author_*\"",
            "authorization: \"*\"",
            "stale_if_error: 2h",
            "x-frame-options: SAMEORIGIN",
            "\"127.0.0.1/32\", \"::1/128\", \"10.1.0.0/16\"",
            "blog.vcl:26 \"deploy.internal\" (networks are addresses)",
            "blog.vcl:76 if (std.time",
        ],
    );
    nothing_is_dropped(
        &draft,
        statements(&std::fs::read_to_string(file("blog.vcl")).unwrap()),
    );
}

#[test]
fn a_vcl_of_a_shop_keeps_its_key_and_says_what_it_can_not() {
    let draft = draft("vcl", "shop.vcl");
    has_all(
        &draft,
        &[
            "cookies: [X-Magento-Vary]",
            "drop: [gclid, mk???, mtm_?*, matomo_?*]",
            "esi: { pages: all }",
            "stale_if_error: 3d, stale_while_revalidate: 300s",
            "# not translated: shop.vcl:24 ban(\"obj.http.X-Pool",
            "# differs: shop.vcl:40 if (req.url ~ \"/graphql\"",
            "only one of its conditions is said, so that more bypasses the cache",
            "the original names nobody; put your networks",
            "# not translated: shop.vcl:14 if (client.ip !~ shop_servers)",
        ],
    );
    nothing_is_dropped(
        &draft,
        statements(&std::fs::read_to_string(file("shop.vcl")).unwrap()),
    );
}

#[test]
fn a_vcl_of_a_cms_keeps_its_session_cookies_and_its_templates() {
    let draft = draft("vcl", "cms.vcl");
    has_all(
        &draft,
        &[
            "targets: [http://127.0.0.1:8081]",
            "bypass: { cookie: [SESS?*, NO_CACHE], header: { authorization: \"*\" }, path: [/admin/*, /admin, /cron.php] }",
            "cookies: { keep: [] }",
            "compress: {}",
            "host: [www.old.example]",
            "to: https://new.example/",
            "types: [image/*]",
            "# not translated: cms.vcl:11 set req.hash_always_miss",
            // A field that the VCL sets itself is no condition for clients.
            "# not translated: cms.vcl:23 if (req.http.X-Skip == \"yes\")",
            "# not translated: cms.vcl:23 return (pass) (so cache: off stands",
            "cache: \"off\"",
            "# not translated: cms.vcl:51 C{ … }C",
        ],
    );
    let text = std::fs::read_to_string(file("cms.vcl")).unwrap();
    let (text, _) = text.split_once("C{").unwrap();
    nothing_is_dropped(&draft, statements(text) + 1);
}

#[test]
fn servers_and_locations_of_nginx_become_routes_in_the_order_of_nginx() {
    let draft = draft("nginx", "wordpress.conf");
    has_all(
        &draft,
        &[
            "address: \"0.0.0.0:8080\"",
            "redirect_to_https: { status: 301 }",
            "url: http://10.0.0.11:8080, weight: 3",
            "priority: 1, url: http://10.0.0.12:8080",
            "balance: { by: least_request }",
            "pool: { max_idle: 16 }",
            "l2: { disk: { max_bytes: 2GiB, path: lamina.l2 } }",
            "compress: { min_bytes: 512B, types: [text/html, text/css, application/javascript] }",
            "login: { burst: 3, key: client, rate: \"5/s\" }",
            "redirect: { status: 301, to: \"https://blog.example{path}\" }",
            "redirect: { status: 301, to: /about }",
            "respond: { body: \"User-agent: *\", status: 200 }",
            "respond: { status: 403 }",
            "rewrite: { add_prefix: /v2, strip_prefix: /api }",
            "x-real-ip: \"{client}\"",
            "cookies: [currency]",
            "mode: override",
            "negative_cache: { statuses: [404], ttl: 1m }",
            "query: { \"*\": \"*\" }",
            "\"*wordpress_logged_in*\"",
            "\"*wp-postpass_*\"",
            "\"*sitemap?xml*\", \"*sitemap_index?xml*\"",
            "allow: [\"127.0.0.1/32\"]",
            "# not translated: sites/blog.conf:38 sub_filter a b",
            "# not translated: sites/blog.conf:40 location ~ ^/(?!old)(de|en)/shop (no pattern",
            "# not translated: sites/blog.conf:49 proxy_cache_valid any 10s",
            "($upstream_http_x_nope can't be said)",
            "# not cached: sites/blog.conf:51 proxy_no_cache",
            "(Vary can't be ignored)",
            "# not translated: wordpress.conf:33 stream",
            "# not translated: wordpress.conf:34 listen 3306",
        ],
    );
    let order: Vec<&str> = draft
        .lines()
        .filter_map(|line| line.strip_prefix("  - name: "))
        .collect();
    let at = |name: &str| order.iter().position(|one| one.contains(name)).unwrap();
    assert!(
        at("robots") < at("css-js") && at("css-js") < at("api"),
        "{order:?}"
    );
    assert_eq!(
        at("api") + 1,
        order.len() - 1,
        "the last one is for all: {order:?}"
    );
    let texts = ["wordpress.conf", "sites/blog.conf"].map(|name| {
        let text = std::fs::read_to_string(file(name)).unwrap();
        // These begin comments in a VCL alone.
        statements(&text.replace("//", "").replace("/*", ""))
    });
    nothing_is_dropped(&draft, texts.iter().sum());
}

#[test]
fn what_can_not_be_read_is_told() {
    let ran = run(&["migrate", "nginx", "/nowhere/nginx.conf"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("/nowhere/nginx.conf"), "{}", ran.stderr);
    let dir = tempfile::tempdir().unwrap();
    for (kind, text, said) in [
        (
            "nginx",
            "http { server { listen 80; }",
            "a block does not end",
        ),
        ("nginx", "}", "no block ends here"),
        (
            "vcl",
            "sub vcl_recv { set req.url = 1;",
            "a block does not end",
        ),
        ("vcl", "# nothing\n", "there is no statement"),
    ] {
        let path = dir.path().join("broken");
        std::fs::write(&path, text).unwrap();
        let ran = run(&["migrate", kind, path.to_str().unwrap()]);
        assert_eq!(ran.code, Some(1), "{text}");
        assert!(ran.stderr.contains(said), "{text}: {}", ran.stderr);
    }
}
