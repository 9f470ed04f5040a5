//! MediaWiki from Debian, as it is, behind two nodes over a bus: what it purges on one node is new on
//! both, and whoever is logged in has pages of their own.

use std::time::{SystemTime, UNIX_EPOCH};

use e2e::client::{Answer, Ask};
use e2e::mediawiki::{self, ADMIN, HOST, MediaWiki, PASSWORD};
use e2e::setup::Setup;
use e2e::two_nodes::{CookieJar, TwoNodes};
use e2e::wait::{SOON, wait_for};
use http::Method;

/// The route of docs/cms/mediawiki.md.
const ROUTE: &str = "{name: wiki, upstream: origin, bypass: {cookie: [\"*UserID\", \"*UserName\", \
     \"*Token\", \"*_session\"]}, cookies: {keep: []}, compress: {}}";

/// A wiki that purges its CDN at node `a`, and both nodes.
async fn behind_two_nodes() -> (MediaWiki, TwoNodes) {
    let wiki = MediaWiki::install();
    let target = format!("{{targets: [\"http://{}\"]}}", wiki.server.address);
    let site = TwoNodes::start(HOST, |bus| {
        Setup::default()
            .upstream("origin", &target)
            .route(ROUTE)
            .top("bus", bus)
            .top(
                "purge_method",
                "{enabled: true, allow: [127.0.0.1], dialects: [url]}",
            )
            .write()
    })
    .await;
    wiki.configure(&format!(
        "$wgUseCdn = true;\n$wgCdnServers = ['{}'];\n$wgCdnServersNoPurge = ['127.0.0.0/8'];\n\
         $wgUsePrivateIPs = true;\n",
        site.nodes[0].address
    ));
    (wiki, site)
}

fn post(site: &TwoNodes, node: usize, form: &str) -> Ask {
    let ask = site.nodes[node].client().ask(Method::POST, "/api.php");
    ask.host(HOST)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form.to_owned())
}

/// A token of the API, in a form.
async fn token(site: &TwoNodes, jar: &mut CookieJar, kind: &str) -> String {
    let target = format!("/api.php?action=query&meta=tokens&type={kind}&format=json");
    let answer = jar.send(site.ask(0, &target)).await;
    let token = answer.json()["query"]["tokens"][format!("{kind}token")].clone();
    token
        .as_str()
        .unwrap()
        .replace('+', "%2B")
        .replace('\\', "%5C")
}

/// The cookies of its administrator, who came by node `a`.
async fn logged_in(site: &TwoNodes) -> CookieJar {
    let mut jar = CookieJar::default();
    let token = token(site, &mut jar, "login").await;
    let form = format!(
        "action=login&format=json&lgname={ADMIN}&lgpassword={}&lgtoken={token}",
        PASSWORD.replace(' ', "+")
    );
    let answer = jar.send(post(site, 0, &form)).await;
    assert_eq!(
        answer.json()["login"]["result"],
        "Success",
        "{}",
        answer.text()
    );
    jar
}

fn is_of_admin(answer: &Answer) -> bool {
    answer
        .text()
        .contains(&format!("\"wgUserName\":\"{ADMIN}\""))
}

fn seconds_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_that_are_edited_in_mediawiki_are_new_on_both_nodes() {
    if !mediawiki::is_here() {
        return;
    }
    let (wiki, site) = behind_two_nodes().await;
    wiki.edit("Template:Greeting", "Hello from the first template");
    wiki.edit("Tea", "Tea is green. {{Greeting}}");
    wiki.edit("Coffee", "Coffee is black.");
    wiki.run_jobs();
    let history = "/index.php?title=Tea&action=history";
    site.stored("/wiki/Tea", "Tea is green.").await;
    site.stored("/wiki/Coffee", "Coffee is black.").await;
    site.stored(history, "Tea").await;
    for node in [0, 1, 0, 1] {
        let missing = site.ask(node, "/wiki/Milk").send().await;
        assert_eq!(missing.status, 404, "{}", missing.text());
    }

    wiki.edit("Tea", "Tea is white. {{Greeting}}");
    wiki.run_jobs();
    site.shows("/wiki/Tea", "Tea is white.").await;
    for node in 0..2 {
        let revisions = site.ask(node, history).send().await;
        let count = revisions.text().matches("mw-changeslist-date").count();
        assert_eq!(count, 2, "the history on node {node} has both revisions");
        let other = site.ask(node, "/wiki/Coffee").send().await;
        assert!(other.is_hit(), "the other page was left on node {node}");
    }

    // Its times are whole seconds, and what was changed in the same second is not purged again.
    let second = seconds_now();
    wait_for("the second is over", SOON, || async {
        (seconds_now() > second).then_some(())
    })
    .await;
    wiki.edit("Template:Greeting", "Hello from the second template");
    wiki.run_jobs();
    site.shows("/wiki/Tea", "Hello from the second template")
        .await;
    let other = site.ask(1, "/wiki/Coffee").send().await;
    assert!(other.is_hit(), "a page without the template was left");

    wiki.edit("Milk", "Milk was missing.");
    wiki.run_jobs();
    site.shows("/wiki/Milk", "Milk was missing.").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_of_mediawiki_have_pages_of_their_own_and_their_edits_reach_all() {
    if !mediawiki::is_here() {
        return;
    }
    let (wiki, site) = behind_two_nodes().await;
    wiki.edit("Tea", "Tea is green.");
    wiki.run_jobs();
    let mut admin = logged_in(&site).await;
    for node in [0, 1] {
        let own = admin.send(site.ask(node, "/wiki/Tea")).await;
        assert!(is_of_admin(&own) && !own.is_hit(), "before anybody else");
        let anonymous = site.ask(node, "/wiki/Tea").send().await;
        assert!(!is_of_admin(&anonymous), "nothing of the user is shared");
    }
    site.stored("/wiki/Tea", "Tea is green.").await;
    for node in [0, 1] {
        let own = admin.send(site.ask(node, "/wiki/Tea")).await;
        assert!(is_of_admin(&own) && !own.is_hit(), "after others");
        assert!(
            !site
                .ask(node, "/wiki/Tea")
                .send()
                .await
                .text()
                .contains(ADMIN)
        );
    }

    let token = token(&site, &mut admin, "csrf").await;
    let form = format!("action=edit&format=json&title=Tea&text=Tea+is+red.&token={token}");
    let edited = admin.send(post(&site, 1, &form)).await;
    assert_eq!(
        edited.json()["edit"]["result"],
        "Success",
        "{}",
        edited.text()
    );
    site.shows("/wiki/Tea", "Tea is red.").await;
}
