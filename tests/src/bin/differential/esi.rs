//! Pages of fragments: ours beside Varnish, byte by byte.
//!
//! Seeded pages of text and of the marks that both say they understand are asked of both, each
//! before an origin of its own with the same pages. Compared are the page as it comes out and which
//! fragments were asked for. Asked twice, so that the second page is made of stored parts.
//!
//! Not in the stream, since Varnish 7.1 of Debian does otherwise and says so: `alt`, which it does
//! not know; `onerror`, since a fragment that fails is left out always, or its error page put in;
//! an include without `/>`, which it leaves as it is; a page whose first octet is no `<`, which it takes for no page; and a place with
//! `..`, for which it asks as it stands there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use anyhow::bail;
use e2e::client::Client;
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::peers;
use e2e::process::Server;
use e2e::random::Random;
use e2e::reply::Reply;
use e2e::setup::Setup;

/// Pages that clients ask for.
const PAGES: usize = 400;
/// How deep fragments lie in them, at most.
const DEPTH: usize = 3;
/// Pages that are shown where they differ.
const SHOWN: usize = 5;

/// What Varnish is told to do.
const VCL: &str = "vcl 4.1;\nbackend default { .host = \"HOST\"; .port = \"PORT\"; }\n\
    sub vcl_backend_response {\n  set beresp.ttl = 1h;\n\
    \x20 if (beresp.http.Surrogate-Control ~ \"ESI/1.0\") { set beresp.do_esi = true; }\n}\n";

/// The content at each path.
type PageContents = BTreeMap<String, String>;

/// Compares the two. The differences are printed.
///
/// # Errors
/// If there is one, or a server does not start.
pub async fn compare(seed: u64) -> anyhow::Result<()> {
    let pages = Arc::new(pages(seed));
    let dir = tempfile::tempdir()?;
    let (ours, theirs) = (origin(&pages).await, origin(&pages).await);
    let gateway = gateway(&ours).await;
    let varnish = varnish(&theirs, dir.path())?;
    let us = gateway.client().unchecked();
    let them = Client::http1(varnish.address).unchecked();
    let mut differing = 0;
    for round in ["loaded", "stored"] {
        for number in 0..PAGES {
            let path = page_path(number);
            let (a, b) = (text(&us, &path).await, text(&them, &path).await);
            if a != b {
                differing += 1;
                if differing <= SHOWN {
                    let page = &pages[&path];
                    println!("{path}, {round}:\n{page}\nours:\n{a}\nVarnish's:\n{b}\n");
                }
            }
        }
    }
    let (a, b) = (asked(&ours), asked(&theirs));
    for path in a.symmetric_difference(&b) {
        differing += 1;
        println!("only one of the two asked for {path}");
    }
    println!(
        "Pages of fragments: {PAGES} pages, {} paths, each page twice; {differing} differences to Varnish",
        a.len()
    );
    match differing {
        0 => Ok(()),
        n => bail!("{n} pages of fragments differ (seed {seed})"),
    }
}

async fn text(client: &Client, path: &str) -> String {
    let ask = client.request(path).header("host", "site.example");
    match ask.try_send().await {
        Ok(answer) => format!("{} {}", answer.status, answer.text()),
        Err(failure) => format!("{failure:?}"),
    }
}

fn asked(origin: &Origin) -> BTreeSet<String> {
    let seen = origin.seen();
    seen.iter().map(|seen| seen.path.clone()).collect()
}

async fn origin(pages: &Arc<PageContents>) -> Origin {
    let pages = Arc::clone(pages);
    Origin::pages(move |seen| match pages.get(&seen.path) {
        None => Reply::status_only(404),
        Some(page) => Reply::fresh(page.clone())
            .header("content-type", "text/html")
            .header("surrogate-control", "content=\"ESI/1.0\""),
    })
    .await
}

async fn gateway(origin: &Origin) -> Gateway {
    Setup::new(origin)
        .route("{name: site, upstream: origin, esi: {}}")
        .start()
        .await
}

fn varnish(origin: &Origin, dir: &Path) -> anyhow::Result<Server> {
    let address = origin.address();
    let vcl = VCL.replace("HOST", &address.ip().to_string());
    let vcl = vcl.replace("PORT", &address.port().to_string());
    let file = dir.join("esi.vcl");
    std::fs::write(&file, vcl)?;
    peers::varnish_by(None, &file, &dir.join("varnish"), &[])
}

fn page_path(number: usize) -> String {
    format!("/pages/{number}")
}

/// All pages and fragments. A fragment has only fragments of a lower level, so that there are no
/// circles, and few enough of them that no bound is met.
fn pages(seed: u64) -> PageContents {
    let mut random = Random::new(seed);
    let mut all = PageContents::new();
    let mut below: Vec<String> = Vec::new();
    for level in 0..DEPTH {
        let paths: Vec<String> = (0..40)
            .map(|n| format!("/parts/{level}/{n}?a=1&b={n}"))
            .collect();
        for path in &paths {
            all.insert(path.clone(), page(&mut random, &below));
        }
        below = paths;
    }
    for number in 0..PAGES {
        all.insert(page_path(number), page(&mut random, &below));
    }
    all
}

/// A page with a few fragments of these.
fn page(random: &mut Random, fragments: &[String]) -> String {
    let mut text = format!("<p>{}</p>", random.below(1_000));
    let mut includes = 3;
    for _ in 0..1 + random.below(7) {
        let piece = match random.below(11) {
            0 | 1 if includes > 0 && !fragments.is_empty() => {
                includes -= 1;
                include(random, fragments)
            }
            2 => format!("<esi:remove>{}</esi:remove>", odd(random)),
            3 => "<esi:comment text=\"nobody reads this\"/>".to_owned(),
            4 if includes > 0 && !fragments.is_empty() => {
                includes -= 1;
                format!("<!--esi <b>{}</b>-->", include(random, fragments))
            }
            5 => "<!--esi shown -->".to_owned(),
            6 if !fragments.is_empty() => format!("<!-- {} -->", include(random, fragments)),
            7 if !fragments.is_empty() => {
                format!("<![CDATA[ {} ]]>", include(random, fragments))
            }
            _ => odd(random),
        };
        text.push_str(&piece);
    }
    text
}

fn include(random: &mut Random, fragments: &[String]) -> String {
    let path = &fragments[random.below(fragments.len() as u64) as usize];
    let path = path.replace('&', "&amp;");
    let place = match random.below(4) {
        0 => format!("http://site.example{path}"),
        _ => path,
    };
    let space = ["", " ", "\n  "][random.below(3) as usize];
    format!("<esi:include src=\"{place}\"{space}/>")
}

/// Text, and what only looks like a mark.
fn odd(random: &mut Random) -> String {
    const TEXTS: [&str; 12] = [
        "plain text ",
        "<i>é ü 漢</i>",
        "a < b && c > d",
        "<!-- a comment -->",
        "<esib>",
        "-->",
        "--",
        "]]>",
        "\r\n\t",
        "<br/>",
        "&lt;esi:include src=\"/no\"/&gt;",
        "<script>if (a<b) { f(\"</p>\") }</script>",
    ];
    TEXTS[random.below(TEXTS.len() as u64) as usize].to_owned()
}
