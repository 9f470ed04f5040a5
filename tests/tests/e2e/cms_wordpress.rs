//! WordPress from Debian with plugins that purge, as they are, behind two nodes over a bus with the
//! configurations of `config/migrate`: what changes is new on both, and what is somebody's own is not
//! shared.
//!
//! No package registry has the plugins, so these tests run where `LAMINA_WORDPRESS_PLUGINS` names a
//! folder with them, by `make test-cms`.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use e2e::cli::repository;
use e2e::client::Answer;
use e2e::setup::write_config;
use e2e::two_nodes::{CookieJar, TwoNodes};
use e2e::wordpress::{self, ADMIN, HOST, PASSWORD, WordPress};
use http::Method;
use serde_json::{Value, json};

const VARNISH: &str = "varnish-http-purge";
const NGINX: &str = "nginx-helper";
const W3: &str = "w3-total-cache";

/// Whether a configuration stores feeds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Feeds {
    Stored,
    Passed,
}

/// A blog behind two nodes with this file of `config/migrate`. They listen at Varnish's port, since W3 Total
/// Cache purges on this machine at no other; `network` is the third octet of their addresses.
async fn behind_two_nodes(file: &str, network: u8) -> (WordPress, TwoNodes) {
    let blog = WordPress::start().await;
    let origin = format!("http://{}", blog.server.address);
    let path = repository().join("config/migrate").join(file);
    let text = fs::read_to_string(path).unwrap();
    let text = text.replace("http://127.0.0.1:8081", &origin);
    let node = AtomicUsize::new(1);
    let site = TwoNodes::start(HOST, |bus| {
        let dir = tempfile::tempdir().unwrap();
        let address = format!(
            "127.0.{network}.{}:6081",
            node.fetch_add(1, Ordering::SeqCst)
        );
        let text = text.replace("0.0.0.0:8080", &address);
        let yaml = format!(
            "{text}server: {{threads: 2}}\nadmin: {{address: \"127.0.0.1:0\"}}\ntelemetry: \
             {{log_format: json}}\nbus: {bus}\n"
        );
        let config = write_config(dir.path(), &yaml);
        (dir, config)
    })
    .await;
    (blog, site)
}

async fn posted(site: &TwoNodes, jar: &mut CookieJar, target: &str, form: &str) -> Answer {
    let ask = site.nodes[1].client().ask(Method::POST, target).host(HOST);
    let ask = ask.header("content-type", "application/x-www-form-urlencoded");
    jar.send(ask.body(form.to_owned())).await
}

/// The cookies of its administrator, who came by node `b`.
async fn logged_in(site: &TwoNodes) -> CookieJar {
    let mut jar = CookieJar::default();
    jar.send(site.ask(1, "/wp-login.php")).await;
    let password = PASSWORD.replace(' ', "+");
    let form = format!("log={ADMIN}&pwd={password}&testcookie=1");
    let answer = posted(site, &mut jar, "/wp-login.php", &form).await;
    assert_eq!(answer.status, 302, "{}", answer.text());
    jar
}

/// Has the administrator ask the blog's API, by node `b`.
async fn asked(site: &TwoNodes, jar: &mut CookieJar, target: &str, body: Option<Value>) -> Value {
    let nonce = "/wp-admin/admin-ajax.php?action=rest-nonce";
    let nonce = jar.send(site.ask(1, nonce)).await;
    let ask = match &body {
        None => site.ask(1, target),
        Some(body) => site.nodes[1]
            .client()
            .ask(Method::POST, target)
            .host(HOST)
            .header("content-type", "application/json")
            .body(body.to_string()),
    };
    let answer = jar.send(ask.header("x-wp-nonce", nonce.text())).await;
    assert!(answer.status.is_success(), "{target}: {}", answer.text());
    answer.json()
}

/// Where a post is.
fn path_of(post: &Value) -> String {
    let link = post["link"].as_str().unwrap();
    link.strip_prefix(&format!("http://{HOST}"))
        .unwrap()
        .to_owned()
}

async fn what_is_edited_is_new(site: &TwoNodes, feeds: Feeds) {
    let mut admin = logged_in(site).await;
    let post = asked(site, &mut admin, "/wp-json/wp/v2/posts/1", None).await;
    let post = path_of(&post);
    let mut pages = vec!["/".to_owned(), post.clone()];
    if feeds == Feeds::Stored {
        pages.push("/feed/".to_owned());
    }
    for page in &pages {
        site.stored(page, "Hello world!").await;
    }
    let change = json!({"title": "Tea is green", "content": "All about tea."});
    asked(site, &mut admin, "/wp-json/wp/v2/posts/1", Some(change)).await;
    for page in &pages {
        site.shows(page, "Tea is green").await;
    }
    let new = json!({"title": "Coffee is black", "content": "Beans.", "status": "publish"});
    let new = asked(site, &mut admin, "/wp-json/wp/v2/posts", Some(new)).await;
    site.shows("/", "Coffee is black").await;
    if feeds == Feeds::Stored {
        site.shows("/feed/", "Coffee is black").await;
    }
    site.stored(&path_of(&new), "Coffee is black").await;
    a_comment_is_seen_once_it_is_approved(site, &mut admin, &post).await;
    what_is_somebodys_own_is_not_shared(site, &mut admin, &post).await;
}

async fn a_comment_is_seen_once_it_is_approved(site: &TwoNodes, admin: &mut CookieJar, post: &str) {
    let mut visitor = CookieJar::default();
    let form = "comment=Milk+first&author=Alice&email=alice%40blog.test&comment_post_ID=1&\
         wp-comment-cookies-consent=yes";
    let answer = posted(site, &mut visitor, "/wp-comments-post.php", form).await;
    assert_eq!(answer.status, 302, "{}", answer.text());
    assert!(visitor.line().contains("comment_author_"), "{visitor:?}");
    site.stored(post, "Tea is green").await;
    for node in [0, 1] {
        let own = visitor.send(site.ask(node, post)).await;
        assert!(own.text().contains("Milk first"), "she sees what she wrote");
        assert!(!own.is_hit());
        let stranger = site.ask(node, post).send().await;
        assert!(!stranger.text().contains("Milk first"), "nobody else does");
    }
    let held = "/wp-json/wp/v2/comments?status=hold";
    let held = asked(site, admin, held, None).await;
    let target = format!("/wp-json/wp/v2/comments/{}", held[0]["id"]);
    asked(site, admin, &target, Some(json!({"status": "approved"}))).await;
    site.shows(post, "Milk first").await;
}

async fn what_is_somebodys_own_is_not_shared(site: &TwoNodes, admin: &mut CookieJar, post: &str) {
    for node in [0, 1] {
        let own = admin.send(site.ask(node, post)).await;
        assert!(own.text().contains("wp-admin-bar"), "the user's own page");
        assert!(!own.is_hit());
        let shared = site.ask(node, post).send().await;
        assert!(shared.is_hit() && !shared.text().contains("wp-admin-bar"));
        for target in ["/wp-admin/index.php", "/wp-login.php"] {
            for _ in 0..2 {
                let answer = admin.send(site.ask(node, target)).await;
                let status = answer.header("cache-status");
                assert!(status.contains("fwd=bypass"), "{target}: {status}");
            }
        }
    }
}

/// All pages are purged at once.
async fn another_theme_is_seen_on_all_pages(blog: &WordPress, site: &TwoNodes) {
    site.stored("/", "Coffee is black").await;
    blog.drive(&["theme", "twentytwentyone"]);
    site.shows("/", "themes/twentytwentyone/style.css").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make test-cms"]
async fn proxy_cache_purge_makes_what_changes_new_on_both_nodes() {
    let Some(plugin) = wordpress::plugin(VARNISH) else {
        return;
    };
    let (blog, site) = behind_two_nodes("wordpress-varnish.yaml", 1).await;
    let edge = site.nodes[0].address.to_string();
    blog.install(
        &edge,
        &plugin,
        &format!("define( 'VHP_VARNISH_IP', '{edge}' );"),
    );
    what_is_edited_is_new(&site, Feeds::Stored).await;
    another_theme_is_seen_on_all_pages(&blog, &site).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make test-cms"]
async fn w3_total_cache_makes_what_changes_new_on_both_nodes() {
    let Some(plugin) = wordpress::plugin(W3) else {
        return;
    };
    let (blog, site) = behind_two_nodes("wordpress-varnish.yaml", 3).await;
    let edge = site.nodes[0].address.to_string();
    blog.install(&edge, &plugin, "");
    blog.drive(&["w3tc", &edge]);
    what_is_edited_is_new(&site, Feeds::Stored).await;
    another_theme_is_seen_on_all_pages(&blog, &site).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make test-cms"]
async fn nginx_helper_makes_what_changes_new_on_both_nodes() {
    let Some(plugin) = wordpress::plugin(NGINX) else {
        return;
    };
    let (blog, site) = behind_two_nodes("wordpress-nginx.yaml", 2).await;
    let edge = site.nodes[0].address.to_string();
    blog.install(&edge, &plugin, "");
    // What its page of settings writes when purging is switched on there.
    let settings = json!({
        "enable_purge": "1", "cache_method": "enable_fastcgi", "purge_method": "get_request",
        "purge_homepage_on_edit": "1", "purge_homepage_on_del": "1", "purge_archive_on_edit": "1",
        "purge_archive_on_del": "1", "purge_archive_on_new_comment": "0",
        "purge_archive_on_deleted_comment": "0", "purge_page_on_mod": "1",
        "purge_page_on_new_comment": "1", "purge_page_on_deleted_comment": "1", "purge_feeds": "1",
    });
    blog.drive(&[
        "option",
        "rt_wp_nginx_helper_options",
        &settings.to_string(),
    ]);
    what_is_edited_is_new(&site, Feeds::Passed).await;
}
