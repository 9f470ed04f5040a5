//! The table of pages, and how a request finds its page.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::SystemTime;

use http::{Method, Request, Response, StatusCode};
use parking_lot::Mutex;

use super::reply::{DemoRequest, text};
use super::{pages, reply};
use lamina_http::body::{Body, collect};

/// The most bytes of a request body, which are read and discarded.
const BODY_LIMIT: usize = 1 << 20;

/// One line of the table.
struct DemoPage {
    method: Method,
    /// `NAME` and `ID` stand for one segment.
    path: &'static str,
    shows: &'static str,
    kind: DemoPageKind,
}

/// Identifies the page.
#[derive(Clone, Copy)]
enum DemoPageKind {
    Index,
    Cached,
    Bump,
    Slow,
    Stream,
    Fail,
    Flaky,
    Vary,
    Private,
    NoStore,
    Cookie,
    Missing,
    User,
    Orders,
    Search,
    Echo,
}

const fn page(
    method: Method,
    path: &'static str,
    kind: DemoPageKind,
    shows: &'static str,
) -> DemoPage {
    DemoPage {
        method,
        path,
        shows,
        kind,
    }
}

const PAGES: &[DemoPage] = &[
    page(Method::GET, "/", DemoPageKind::Index, "this list"),
    page(
        Method::GET,
        "/pages/NAME",
        DemoPageKind::Cached,
        "cacheable for 30 s, with ETag and tags",
    ),
    page(
        Method::POST,
        "/pages/NAME",
        DemoPageKind::Bump,
        "changes the page: a new version, 204",
    ),
    page(
        Method::GET,
        "/slow",
        DemoPageKind::Slow,
        "cacheable, takes ?ms=800",
    ),
    page(
        Method::GET,
        "/stream",
        DemoPageKind::Stream,
        "cacheable, ?bytes=1048576 over ?seconds=2",
    ),
    page(Method::GET, "/fail", DemoPageKind::Fail, "always 503"),
    page(
        Method::GET,
        "/flaky",
        DemoPageKind::Flaky,
        "cacheable for 1 s, every ?every=2 fails",
    ),
    page(
        Method::GET,
        "/vary",
        DemoPageKind::Vary,
        "cacheable, one variant an Accept-Language",
    ),
    page(
        Method::GET,
        "/private",
        DemoPageKind::Private,
        "for one client only: never shared",
    ),
    page(
        Method::GET,
        "/nostore",
        DemoPageKind::NoStore,
        "never stored",
    ),
    page(
        Method::GET,
        "/cookie",
        DemoPageKind::Cookie,
        "cacheable, but sets a cookie: not stored",
    ),
    page(
        Method::GET,
        "/missing",
        DemoPageKind::Missing,
        "404, cacheable for 10 s",
    ),
    page(
        Method::GET,
        "/api/user/ID",
        DemoPageKind::User,
        "JSON, takes 150 ms",
    ),
    page(
        Method::GET,
        "/api/orders/ID",
        DemoPageKind::Orders,
        "JSON, takes 150 ms",
    ),
    page(
        Method::GET,
        "/search",
        DemoPageKind::Search,
        "the query as the origin saw it",
    ),
    page(
        Method::GET,
        "/echo",
        DemoPageKind::Echo,
        "the headers as the origin saw them",
    ),
];

/// The state of the site, which makes caching visible.
pub(super) struct DemoSite {
    requests: AtomicU64,
    flaky: AtomicU64,
    /// The version and the time of the last change of each page that was changed.
    versions: Mutex<BTreeMap<String, (u64, SystemTime)>>,
    started: SystemTime,
}

/// The most pages that keep their changes; further pages stay at their first version.
const MAX_VERSIONS: usize = 1_000;

impl Default for DemoSite {
    fn default() -> Self {
        Self {
            requests: AtomicU64::new(0),
            flaky: AtomicU64::new(0),
            versions: Mutex::default(),
            started: SystemTime::now(),
        }
    }
}

impl DemoSite {
    /// Answers one request.
    pub(super) async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let (head, body) = request.into_parts();
        if collect(body, BODY_LIMIT).await.is_err() {
            return text(
                StatusCode::BAD_REQUEST,
                "the request body is too large or incomplete\n",
            );
        }
        let asked = DemoRequest {
            number: self.requests.fetch_add(1, Relaxed) + 1,
            now: SystemTime::now(),
            head,
        };
        match find(&asked.head.method, asked.head.uri.path()) {
            FoundPage::Page(kind, name) => self.render(kind, name, &asked).await,
            FoundPage::OtherMethod => {
                text(StatusCode::METHOD_NOT_ALLOWED, "not with this method\n")
            }
            FoundPage::Nothing => text(StatusCode::NOT_FOUND, "no such page; / lists them\n"),
        }
    }

    async fn render(&self, kind: DemoPageKind, name: &str, asked: &DemoRequest) -> Response<Body> {
        match kind {
            DemoPageKind::Index => reply::text(StatusCode::OK, index()),
            DemoPageKind::Cached => pages::cached(asked, name, self.version(name)),
            DemoPageKind::Bump => self.bump(name, asked.now),
            DemoPageKind::Slow => pages::slow(asked).await,
            DemoPageKind::Stream => pages::stream(asked),
            DemoPageKind::Fail => text(StatusCode::SERVICE_UNAVAILABLE, "this page always fails\n"),
            DemoPageKind::Flaky => pages::flaky(asked, self.flaky.fetch_add(1, Relaxed) + 1),
            DemoPageKind::Vary => pages::vary(asked),
            DemoPageKind::Private => pages::policy(asked, "private, max-age=60"),
            DemoPageKind::NoStore => pages::policy(asked, "no-store"),
            DemoPageKind::Cookie => pages::cookie(asked),
            DemoPageKind::Missing => pages::missing(),
            DemoPageKind::User => pages::user(name).await,
            DemoPageKind::Orders => pages::orders(name).await,
            DemoPageKind::Search => pages::search(asked),
            DemoPageKind::Echo => pages::echo(asked),
        }
    }

    /// The version of a page, and the time of its last change.
    fn version(&self, name: &str) -> (u64, SystemTime) {
        self.versions
            .lock()
            .get(name)
            .copied()
            .unwrap_or((1, self.started))
    }

    fn bump(&self, name: &str, now: SystemTime) -> Response<Body> {
        let mut versions = self.versions.lock();
        if versions.len() < MAX_VERSIONS || versions.contains_key(name) {
            let version = versions.entry(name.to_owned()).or_insert((1, now));
            *version = (version.0 + 1, now);
        }
        reply::empty(StatusCode::NO_CONTENT)
    }
}

enum FoundPage<'a> {
    Page(DemoPageKind, &'a str),
    OtherMethod,
    Nothing,
}

fn find<'a>(method: &Method, path: &'a str) -> FoundPage<'a> {
    // The listener leaves out the body of a response to HEAD.
    let method = if method == Method::HEAD {
        &Method::GET
    } else {
        method
    };
    let mut found = FoundPage::Nothing;
    for page in PAGES {
        match matches(page.path, path) {
            Some(name) if page.method == *method => return FoundPage::Page(page.kind, name),
            Some(_) => found = FoundPage::OtherMethod,
            None => {}
        }
    }
    found
}

/// The segment in the place of the pattern's capital word, which is empty if the pattern has none.
/// None if the path does not match.
fn matches<'a>(pattern: &str, path: &'a str) -> Option<&'a str> {
    let fixed = pattern.trim_end_matches(|c: char| c.is_ascii_uppercase());
    let name = path.strip_prefix(fixed)?;
    let whole = if fixed.len() == pattern.len() {
        name.is_empty()
    } else {
        !name.is_empty() && !name.contains('/')
    };
    whole.then_some(name)
}

fn index() -> String {
    let mut lines = String::from("The demo origin. Pages:\n\n");
    for page in PAGES {
        let method = page.method.as_str();
        lines += &format!("{method:5} {:15} {}\n", page.path, page.shows);
    }
    lines += "\nReload a page: its request number stays the same while it comes from a cache.\n";
    lines
}
