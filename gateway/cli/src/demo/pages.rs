//! The answer of each page.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::stream;
use http::header::{ACCEPT_LANGUAGE, CACHE_CONTROL, CONTENT_LENGTH, SET_COOKIE, VARY};
use http::{HeaderName, Response, StatusCode};
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::time::{Instant, sleep, sleep_until};

use super::reply::{DemoRequest, Validators, cacheable, html, json, set, text};
use lamina_http::body::Body;

const SURROGATE_KEY: HeaderName = HeaderName::from_static("surrogate-key");
/// How long each half of the composed page takes.
const API_DELAY: Duration = Duration::from_millis(150);
/// The longest delay and the largest stream that a request may ask for.
const MAX_DELAY_MS: u64 = 60_000;
const MAX_STREAM_BYTES: u64 = 1 << 30;
/// A stream is sent at an even pace, in this many pieces or more, none of which is large.
const PIECES: u64 = 100;
const MAX_PIECE: u64 = 64 << 10;
static PIECE: [u8; MAX_PIECE as usize] = [b'.'; MAX_PIECE as usize];

/// A page whose text says when it was made, and by which request.
pub(super) fn cached(
    asked: &DemoRequest,
    name: &str,
    (version, modified): (u64, SystemTime),
) -> Response<Body> {
    let made = httpdate::fmt_http_date(asked.now);
    let number = asked.number;
    let page = html(format!(
        "<!doctype html>\n<title>{name}</title>\n<h1>{name}</h1>\n\
         <p>version {version}</p>\n<p>rendered {made}, request number {number}</p>\n",
        name = escaped(name),
    ));
    let validators = Validators {
        etag: format!("\"{}-{version}\"", token(name)),
        modified,
    };
    let mut page = cacheable(page, asked, "max-age=30", &validators);
    set(
        &mut page,
        SURROGATE_KEY,
        &format!("pages page-{}", token(name)),
    );
    page
}

pub(super) async fn slow(asked: &DemoRequest) -> Response<Body> {
    let delay = asked.number_in_query("ms").unwrap_or(800).min(MAX_DELAY_MS);
    sleep(Duration::from_millis(delay)).await;
    let page = text(
        StatusCode::OK,
        format!("took {delay} ms, request number {}\n", asked.number),
    );
    cacheable(page, asked, "max-age=30", &fixed("slow"))
}

/// The length is announced, so that a stream that is cut off can be noticed.
pub(super) fn stream(asked: &DemoRequest) -> Response<Body> {
    let bytes = asked
        .number_in_query("bytes")
        .unwrap_or(1 << 20)
        .min(MAX_STREAM_BYTES);
    let seconds = asked
        .number_in_query("seconds")
        .unwrap_or(2)
        .min(MAX_DELAY_MS / 1_000);
    let mut page = text(StatusCode::OK, "");
    set(&mut page, CONTENT_LENGTH, &bytes.to_string());
    *page.body_mut() = paced(bytes, Duration::from_secs(seconds));
    let validators = fixed(&format!("stream-{bytes}"));
    let mut page = cacheable(page, asked, "max-age=30", &validators);
    if page.status() == StatusCode::NOT_MODIFIED {
        page.headers_mut().remove(CONTENT_LENGTH);
    }
    page
}

/// Sends `bytes` evenly over `length`: after each piece, it waits until the next is due.
fn paced(bytes: u64, length: Duration) -> Body {
    let begun = Instant::now();
    let piece = (bytes / PIECES).clamp(1, MAX_PIECE);
    let pieces = stream::unfold(0_u64, move |sent| async move {
        if sent >= bytes {
            return None;
        }
        sleep_until(begun + length.mul_f64(sent as f64 / bytes as f64)).await;
        let count = piece.min(bytes - sent);
        let data = Bytes::from_static(&PIECE).slice(..count as usize);
        Some((Ok(Frame::data(data)), sent + count))
    });
    Body::boxed(StreamBody::new(pieces))
}

pub(super) fn flaky(asked: &DemoRequest, attempt: u64) -> Response<Body> {
    let every = asked.number_in_query("every").unwrap_or(2).max(1);
    if attempt.is_multiple_of(every) {
        return text(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("attempt {attempt} fails\n"),
        );
    }
    let mut page = text(StatusCode::OK, format!("attempt {attempt} works\n"));
    set(&mut page, CACHE_CONTROL, "max-age=1, stale-if-error=60");
    page
}

pub(super) fn vary(asked: &DemoRequest) -> Response<Body> {
    let language = asked.header(ACCEPT_LANGUAGE).unwrap_or("none");
    let greeting = match language.get(..2) {
        Some("de") => "Guten Tag",
        Some("fr") => "Bonjour",
        Some("es") => "Buenos días",
        _ => "Hello",
    };
    let page = text(
        StatusCode::OK,
        format!("{greeting}, request number {}\n", asked.number),
    );
    let mut page = cacheable(page, asked, "max-age=30", &fixed(&token(language)));
    set(&mut page, VARY, "Accept-Language");
    page
}

/// A page with a `Cache-Control` field, which shows what a shared cache does with it.
pub(super) fn policy(asked: &DemoRequest, policy: &str) -> Response<Body> {
    let mut page = text(
        StatusCode::OK,
        format!("{policy}, request number {}\n", asked.number),
    );
    set(&mut page, CACHE_CONTROL, policy);
    page
}

pub(super) fn cookie(asked: &DemoRequest) -> Response<Body> {
    let mut page = policy(asked, "max-age=30");
    set(
        &mut page,
        SET_COOKIE,
        &format!("visit={}; Path=/", asked.number),
    );
    page
}

pub(super) fn missing() -> Response<Body> {
    let mut page = text(StatusCode::NOT_FOUND, "this page was never here\n");
    set(&mut page, CACHE_CONTROL, "max-age=10");
    page
}

pub(super) async fn user(id: &str) -> Response<Body> {
    sleep(API_DELAY).await;
    api(serde_json::json!({ "id": id, "name": format!("User {id}"), "level": 7 }))
}

pub(super) async fn orders(id: &str) -> Response<Body> {
    sleep(API_DELAY).await;
    api(serde_json::json!({
        "user": id,
        "orders": [{ "number": 1001, "total": "19.90" }, { "number": 1002, "total": "5.00" }],
    }))
}

fn api(value: serde_json::Value) -> Response<Body> {
    let mut page = json(format!("{value}\n"));
    set(&mut page, CACHE_CONTROL, "max-age=30");
    page
}

pub(super) fn search(asked: &DemoRequest) -> Response<Body> {
    let query = asked.head.uri.query().unwrap_or("");
    let number = asked.number;
    let mut page = text(
        StatusCode::OK,
        format!("query {query}\nrequest number {number}\n"),
    );
    set(&mut page, CACHE_CONTROL, "max-age=30");
    page
}

pub(super) fn echo(asked: &DemoRequest) -> Response<Body> {
    let mut lines = format!(
        "{} {} {:?}\n",
        asked.head.method, asked.head.uri, asked.head.version
    );
    for (name, value) in &asked.head.headers {
        lines += &format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes()));
    }
    let mut page = text(StatusCode::OK, lines);
    set(&mut page, CACHE_CONTROL, "no-store");
    page
}

/// The validators of a page whose content depends only on its name.
fn fixed(name: &str) -> Validators {
    Validators {
        etag: format!("\"{name}\""),
        modified: UNIX_EPOCH,
    }
}

/// A name that may stand in a header: every other character becomes a dash.
fn token(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect()
}

fn escaped(name: &str) -> String {
    name.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
