//! Tests the site as docs/getting-started.md shows it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use http::{Request, Response};
use tokio::time::Instant;

use super::start;
use lamina_edge::origin::{Origins, SharedOriginState};
use lamina_http::body::{Body, collect};
use lamina_http::server::RunningListeners;

struct Demo {
    origins: Origins,
    _running: RunningListeners,
}

impl Demo {
    fn start() -> Self {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let (_running, addresses) = start(&[any]).unwrap();
        let url = serde_json::json!(format!("http://{}", addresses[0]));
        let upstream = serde_json::from_value(url).unwrap();
        let upstreams = BTreeMap::from([("demo".to_owned(), upstream)]);
        let origins = Origins::new(&upstreams, &SharedOriginState::default(), None).unwrap();
        Self { origins, _running }
    }

    async fn ask(&self, method: &str, path: &str, header: Option<(&str, &str)>) -> Response<Body> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "demo");
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let origin = self.origins.get("demo").unwrap();
        origin
            .send(request.body(Body::empty()).unwrap())
            .await
            .unwrap()
    }

    async fn text(&self, path: &str) -> String {
        let response = self.ask("GET", path, None).await;
        let body = collect(response.into_body(), 1 << 21).await.unwrap();
        String::from_utf8(body.to_vec()).unwrap()
    }
}

fn header<'a>(response: &'a Response<Body>, name: &str) -> &'a str {
    response.headers().get(name).unwrap().to_str().unwrap()
}

#[tokio::test]
async fn the_index_lists_pages_that_all_answer() {
    let demo = Demo::start();
    let index = demo.text("/").await;
    assert!(index.lines().count() <= 40);
    let pages: Vec<_> = index
        .lines()
        .filter(|line| line.starts_with("GET"))
        .collect();
    assert_eq!(pages.len(), 15);
    for page in pages {
        let path = page.split_whitespace().nth(1).unwrap();
        let path = path.replace("NAME", "news").replace("ID", "7") + "?ms=1&seconds=0";
        let status = demo.ask("GET", &path, None).await.status().as_u16();
        let expected = match path.split('?').next().unwrap() {
            "/fail" => 503,
            "/missing" => 404,
            _ => 200,
        };
        assert_eq!(status, expected, "{path}");
    }
    assert_eq!(demo.ask("GET", "/pages/a/b", None).await.status(), 404);
    assert_eq!(demo.ask("PUT", "/pages/a", None).await.status(), 405);
}

#[tokio::test]
async fn a_page_is_revalidated_until_it_is_changed() {
    let demo = Demo::start();
    let page = demo.ask("GET", "/pages/news", None).await;
    assert_eq!(header(&page, "cache-control"), "max-age=30");
    assert_eq!(header(&page, "surrogate-key"), "pages page-news");
    let (etag, date) = (
        header(&page, "etag").to_owned(),
        header(&page, "last-modified").to_owned(),
    );
    for known in [("if-none-match", &*etag), ("if-modified-since", &*date)] {
        assert_eq!(
            demo.ask("GET", "/pages/news", Some(known)).await.status(),
            304
        );
    }
    assert_eq!(demo.ask("POST", "/pages/news", None).await.status(), 204);
    let changed = demo
        .ask("GET", "/pages/news", Some(("if-none-match", &etag)))
        .await;
    assert_eq!(changed.status(), 200);
    assert!(demo.text("/pages/news").await.contains("version 2"));
}

#[tokio::test]
async fn a_stream_has_the_length_and_the_time_that_were_asked_for() {
    let demo = Demo::start();
    let begun = Instant::now();
    assert_eq!(
        demo.text("/stream?seconds=1&bytes=100000").await.len(),
        100_000
    );
    assert!(begun.elapsed().as_millis() >= 900);
    assert_eq!(demo.text("/stream?bytes=0").await, "");
}

#[tokio::test]
async fn flaky_fails_every_nth_time_and_search_shows_its_query() {
    let demo = Demo::start();
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(
            demo.ask("GET", "/flaky?every=2", None)
                .await
                .status()
                .as_u16(),
        );
    }
    assert_eq!(statuses, [200, 503, 200, 503]);
    assert!(
        demo.text("/search?b=2&a=1")
            .await
            .starts_with("query b=2&a=1\n")
    );
    let french = demo
        .ask("GET", "/vary", Some(("accept-language", "fr-CH")))
        .await;
    assert_eq!(header(&french, "vary"), "Accept-Language");
}
