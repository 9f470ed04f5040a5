//! The same rules in ours and in nginx: header fields, a rewrite, compression with gzip.
//!
//! What a client reads must be the same octets after decoding, whoever compressed them, for each
//! kind of page and each word about codings. How often and how well is compressed is each one's own
//! matter, but nobody gets a coding that it did not ask for.

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use e2e::client::{Answer, Client};
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::peers;
use e2e::random::Random;
use e2e::reply::Reply;
use e2e::setup::Setup;
use http::Method;
use lamina_http::coding::ContentCoding;
use lamina_http::coding::decode::decode;

/// The rules in nginx's words.
const NGINX: &str = "proxy_cache_valid 200 1h; gzip on; gzip_proxied any; gzip_vary on; gzip_min_length 1024; \
    gzip_types text/css text/plain application/json application/javascript image/svg+xml; \
    proxy_hide_header X-Powered-By; add_header X-Served edge always; \
    rewrite ^/api/(.*)$ /v2/$1 break;";
/// The same in ours.
const OURS: &str = "upstream: origin, headers: {response: {remove: [x-powered-by], set: {x-served: edge}}}, \
    compress: {encodings: [gzip], min_bytes: 1KiB, origin: identity, \
    types: [text/html, text/css, text/plain, application/json, application/javascript, image/svg+xml]}";

const KINDS: [&str; 7] = [
    "text/html",
    "text/css; charset=utf-8",
    "application/json",
    "application/javascript",
    "image/svg+xml",
    "image/png",
    "application/octet-stream",
];
const LENGTHS: [usize; 6] = [0, 1, 900, 1_500, 40_000, 700_000];
const TAKES: [&str; 7] = [
    "",
    "gzip",
    "gzip, deflate, br, zstd",
    "identity",
    "gzip;q=0",
    "br",
    "gzip;q=0.5, *;q=0",
];
/// How long the encodings are given that ours makes behind its answers, at most.
const BEHIND: Duration = Duration::from_secs(10);

/// Compares the two. The differences are printed.
///
/// # Errors
/// If there is one, or a server does not start.
pub async fn compare(seed: u64) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let origin = origin(seed).await;
    let ours = gateway(&origin).await;
    let nginx = peers::nginx(None, origin.address(), dir.path(), NGINX)?;
    let us = ours.client().unchecked();
    let them = Client::http1(nginx.address).unchecked();
    wait_for_forms(&us).await;
    let mut answers = 0;
    let mut faults = Vec::new();
    for path in paths() {
        for takes in TAKES {
            for method in [Method::GET, Method::HEAD] {
                let a = ask(&us, &method, &path, takes).await;
                let b = ask(&them, &method, &path, takes).await;
                answers += 1;
                let found = differences(&a, &b, takes).into_iter();
                faults.extend(found.map(|what| format!("{method} {path} for {takes:?}: {what}")));
            }
        }
    }
    faults.iter().take(20).for_each(|fault| println!("{fault}"));
    let found = faults.len();
    println!("The same rules: {answers} answers of each; {found} differences to nginx");
    match found {
        0 => Ok(()),
        n => bail!("{n} differences between the same rules (seed {seed})"),
    }
}

fn paths() -> impl Iterator<Item = String> {
    (0..KINDS.len() * LENGTHS.len())
        .flat_map(|number| ["/", "/api/"].map(|prefix| format!("{prefix}{number}?q={number}")))
}

async fn ask(client: &Client, method: &Method, path: &str, takes: &str) -> Answer {
    let ask = client
        .ask(method.clone(), path)
        .header("host", "site.example");
    match takes {
        "" => ask.send().await,
        takes => ask.header("accept-encoding", takes).send().await,
    }
}

/// Until ours has had time to make what it makes.
async fn wait_for_forms(client: &Client) {
    let last = format!("/{}?q=x", LENGTHS.len() - 1);
    for path in paths().chain([last.clone()]) {
        ask(client, &Method::GET, &path, "gzip").await;
    }
    let until = tokio::time::Instant::now() + BEHIND;
    while tokio::time::Instant::now() < until {
        let answer = ask(client, &Method::GET, &last, "gzip").await;
        if answer.header("content-encoding") == "gzip" {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn differences(ours: &Answer, theirs: &Answer, takes: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut same = |what: &str, ours: String, theirs: String| {
        if ours != theirs {
            found.push(format!(
                "{what} is {ours:?} of ours, and {theirs:?} of nginx"
            ));
        }
    };
    same(
        "the status",
        ours.status.to_string(),
        theirs.status.to_string(),
    );
    for name in ["content-type", "x-served", "x-powered-by", "x-path"] {
        let line = |answer: &Answer| answer.header(name).to_owned();
        same(name, line(ours), line(theirs));
    }
    let (a, b) = (plain(ours), plain(theirs));
    if a != b {
        found.push(match (a, b) {
            (Ok(a), Ok(b)) => format!("{} octets of ours are {} of nginx", a.len(), b.len()),
            (a, b) => format!("ours: {:?}, nginx: {:?}", a.err(), b.err()),
        });
    }
    let coding = ours.header("content-encoding");
    let takes_gzip = takes.starts_with("gzip") && takes != "gzip;q=0";
    let is_asked_for = coding.is_empty() || (coding == "gzip" && takes_gzip);
    if !is_asked_for {
        found.push(format!("the coding {coding:?} of ours was not asked for"));
    }
    found
}

/// The content without its coding.
fn plain(answer: &Answer) -> Result<Vec<u8>, String> {
    let coding = answer.header("content-encoding");
    if coding.is_empty() || answer.body.is_empty() {
        return Ok(answer.body.to_vec());
    }
    let coding = ContentCoding::named(coding.as_bytes()).ok_or("an unknown coding")?;
    decode(coding, &answer.body, 1 << 20).map_err(|error| format!("{error:?}"))
}

/// A page for each number, whatever leads there.
async fn origin(seed: u64) -> Origin {
    let texts: Arc<Vec<Vec<u8>>> = Arc::new(LENGTHS.map(|length| text(seed, length)).into());
    Origin::pages(move |seen| {
        let path = seen.path_only().to_owned();
        let number: usize = path
            .rsplit('/')
            .next()
            .and_then(|n| n.parse().ok())
            .unwrap_or(0);
        Reply::fresh(texts[number % LENGTHS.len()].clone())
            .header("content-type", KINDS[number / LENGTHS.len() % KINDS.len()])
            .header("etag", &format!("\"{number}\""))
            .header("x-powered-by", "PHP")
            .header("x-path", &seen.path)
    })
    .await
}

/// Words in an order that the seed gives.
fn text(seed: u64, length: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut text = Vec::with_capacity(length + 16);
    while text.len() < length {
        text.extend_from_slice(format!("word{} ", random.below(500)).as_bytes());
    }
    text.truncate(length);
    text
}

async fn gateway(origin: &Origin) -> Gateway {
    let rewrite = "rewrite: {strip_prefix: /api, add_prefix: /v2}";
    Setup::new(origin)
        .route(&format!(
            "{{name: api, match: {{path: /api/*}}, {rewrite}, {OURS}}}"
        ))
        .route(&format!("{{name: site, {OURS}}}"))
        .start()
        .await
}
