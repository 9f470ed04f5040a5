//! Error pages: the form in which a client of a route reads that its request failed.
//!
//! The status is never changed, so that metrics, logs and monitors see what happened. What is said
//! depends on what the client asks for (`Accept`), and needs no origin.

pub mod config;

use bytes::Bytes;
use http::header::{
    ACCEPT, ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH,
    CONTENT_LOCATION, CONTENT_RANGE, CONTENT_TYPE, ETAG, LAST_MODIFIED, RETRY_AFTER, TRAILER,
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use serde::Serialize;

use super::config::AnswerFile;
use super::direct::content_type;
use crate::http::body::Body;
use crate::http::cache_control;
use crate::http::digest::DIGEST_FIELDS;
use crate::proxy::counted::{AnsweringRule, CountedResponse};
use crate::proxy::metrics::RequestOutcome;
use crate::proxy::respond;
use config::{ErrorMaker, ErrorPageConfig};

/// The error pages of a route; the first one that is for an error counts.
pub struct ErrorPages(Box<[ErrorPage]>);

struct ErrorPage {
    statuses: Box<[u16]>,
    of: ErrorMaker,
    file: Option<PageFile>,
}

/// A page, with the places that are filled in.
pub struct PageFile {
    form: PageForm,
    kind: HeaderValue,
    text: Bytes,
}

/// In which form a client reads an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageForm {
    Json,
    Html,
    Plain,
}

/// What of a request its error page depends on.
#[derive(Clone, Default)]
pub struct PageReader {
    pub accept: Option<HeaderValue>,
    pub request_id: Option<HeaderValue>,
}

/// Fields about content that an error page takes the place of, beside digests.
static OF_THE_CONTENT: [HeaderName; 11] = [
    CONTENT_TYPE,
    CONTENT_LENGTH,
    CONTENT_ENCODING,
    CONTENT_LANGUAGE,
    CONTENT_LOCATION,
    CONTENT_DISPOSITION,
    CONTENT_RANGE,
    ACCEPT_RANGES,
    ETAG,
    LAST_MODIFIED,
    TRAILER,
];

/// How long clients of an error 503 are told to wait, if nobody knows better, in seconds.
const SOON: u32 = 5;

impl ErrorPages {
    /// None: errors are told as everywhere.
    pub fn new(configs: &[ErrorPageConfig]) -> Option<Self> {
        let page = |config: &ErrorPageConfig| ErrorPage {
            statuses: config.statuses.clone().into(),
            of: config.of,
            file: config.file.as_ref().map(PageFile::new),
        };
        (!configs.is_empty()).then(|| Self(configs.iter().map(page).collect()))
    }

    /// Puts the page for an error in place of what it says.
    pub fn apply(&self, served: CountedResponse, reader: &PageReader) -> CountedResponse {
        let status = served.response.status();
        let is_ours = served.outcome == RequestOutcome::Error;
        let is_for = |page: &&ErrorPage| {
            (is_ours || page.of == ErrorMaker::Any)
                && (page.statuses.is_empty() || page.statuses.contains(&status.as_u16()))
        };
        if !(status.is_client_error() || status.is_server_error()) {
            return served;
        }
        let Some(page) = self.0.iter().find(is_for) else {
            return served;
        };
        let (parts, _) = served.response.into_parts();
        let response = told(status, parts.headers, page.file.as_ref(), reader);
        let rule = served.rule.unwrap_or(AnsweringRule::Errors);
        CountedResponse::new(response, served.outcome).by(rule)
    }

    /// The pages in words.
    pub fn describe(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|page| {
            let statuses: Vec<_> = page.statuses.iter().map(u16::to_string).collect();
            let statuses = match statuses.is_empty() {
                true => "all errors".to_owned(),
                false => statuses.join(", "),
            };
            let of = match page.of {
                ErrorMaker::Gateway => "of the gateway",
                ErrorMaker::Any => "of anybody",
            };
            let file = page.file.is_some();
            let page = if file {
                "a page of its own"
            } else {
                "text or JSON"
            };
            format!("errors: {page} for {statuses} {of}")
        })
    }
}

/// An error as its client reads it, with these fields beside those of its content.
pub fn told(
    status: StatusCode,
    mut headers: HeaderMap,
    file: Option<&PageFile>,
    reader: &PageReader,
) -> Response<Body> {
    let form = PageForm::of(reader.accept.as_ref());
    let page = file.filter(|file| file.form == form);
    let (kind, text) = match (page, form) {
        (Some(file), _) => (file.kind.clone(), file.filled(status, reader)),
        (None, PageForm::Json) => (
            HeaderValue::from_static("application/problem+json"),
            problem(status, reader),
        ),
        (None, PageForm::Html | PageForm::Plain) => (
            HeaderValue::from_static("text/plain; charset=utf-8"),
            respond::text(status).into(),
        ),
    };
    for name in OF_THE_CONTENT.iter().chain(&DIGEST_FIELDS) {
        headers.remove(name);
    }
    headers.insert(CONTENT_TYPE, kind);
    cache_control::forbid_storing(&mut headers);
    if status == StatusCode::SERVICE_UNAVAILABLE && !headers.contains_key(RETRY_AFTER) {
        headers.insert(RETRY_AFTER, SOON.into());
    }
    respond::whole(status, headers, Body::full(text))
}

/// What is said of an error in JSON (RFC 9457 §3.1): the status says all that is known.
#[derive(Serialize)]
struct ProblemDetails<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
}

fn problem(status: StatusCode, reader: &PageReader) -> Bytes {
    let problem = ProblemDetails {
        r#type: "about:blank",
        title: status.canonical_reason().unwrap_or("Error"),
        status: status.as_u16(),
        request_id: reader.id(),
    };
    serde_json::to_vec(&problem).unwrap_or_default().into()
}

impl PageReader {
    /// What the page of a request with these fields depends on.
    pub fn of(headers: &HeaderMap, request_id: Option<HeaderValue>) -> Self {
        let lines = headers.get_all(ACCEPT);
        let mut lines = lines.iter();
        let first = lines.next().cloned();
        let accept = match lines.next() {
            None => first,
            Some(_) => {
                let all = headers.get_all(ACCEPT).iter().map(HeaderValue::as_bytes);
                let all = all.collect::<Vec<_>>().join(&b","[..]);
                HeaderValue::from_bytes(&all).ok()
            }
        };
        Self { accept, request_id }
    }

    fn id(&self) -> Option<&str> {
        self.request_id.as_ref()?.to_str().ok()
    }
}

impl PageFile {
    /// The page in this file.
    pub fn new(file: &AnswerFile) -> Self {
        let kind = content_type(Some(&file.path));
        let form = match kind.as_bytes() {
            [b't', b'e', b'x', b't', b'/', b'h', ..] => PageForm::Html,
            b"application/json" => PageForm::Json,
            _ => PageForm::Plain,
        };
        Self {
            form,
            kind,
            text: file.content.clone().into(),
        }
    }

    /// The page about this status. Braces around other words stay: style sheets are full of them.
    fn filled(&self, status: StatusCode, reader: &PageReader) -> Bytes {
        let Ok(text) = std::str::from_utf8(&self.text) else {
            return self.text.clone();
        };
        if !text.contains('{') {
            return self.text.clone();
        }
        let text = text.replace("{status}", status.as_str());
        let text = text.replace("{reason}", status.canonical_reason().unwrap_or("Error"));
        // Whatever a trusted proxy says is the id, it is no markup.
        let id = reader.id().unwrap_or_default();
        text.replace("{request_id}", id).into()
    }
}

impl PageForm {
    /// The form that is asked for by name. Of JSON and HTML it is the one with the higher weight,
    /// and JSON of two alike (RFC 9110 §12.5.1); a wildcard asks for neither.
    pub fn of(accept: Option<&HeaderValue>) -> Self {
        let accept = accept.and_then(|accept| accept.to_str().ok());
        let (mut json, mut html) = (0, 0);
        for range in accept.unwrap_or_default().split(',') {
            let mut parameters = range.split(';').map(str::trim);
            let kind = parameters.next().unwrap_or_default().to_ascii_lowercase();
            let weight = parameters.find_map(|parameter| {
                let (name, value) = parameter.split_once('=')?;
                name.eq_ignore_ascii_case("q").then(|| thousandths(value))
            });
            let weight = weight.unwrap_or(1_000);
            match &*kind {
                "application/json" | "application/problem+json" => json = weight.max(json),
                "text/html" | "application/xhtml+xml" => html = weight.max(html),
                _ => {}
            }
        }
        match (json, html) {
            (0, 0) => Self::Plain,
            (json, html) if json >= html => Self::Json,
            _ => Self::Html,
        }
    }
}

/// A weight in thousandths (RFC 9110 §12.4.2); 0 for what is none.
fn thousandths(value: &str) -> u32 {
    let weight: f32 = value.parse().unwrap_or(0.0);
    match (0.0..=1.0).contains(&weight) {
        true => (weight * 1_000.0) as u32,
        false => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_the_form_that_they_ask_for() {
        let of = |accept: &'static str| PageForm::of(Some(&HeaderValue::from_static(accept)));
        for (accept, form) in [
            ("*/*", PageForm::Plain),
            ("", PageForm::Plain),
            ("text/*", PageForm::Plain),
            ("image/png", PageForm::Plain),
            ("application/json", PageForm::Json),
            ("Application/Problem+JSON;q=0.5", PageForm::Json),
            ("application/json;q=0", PageForm::Plain),
            ("application/json;q=x, text/html;q=0.1", PageForm::Html),
            ("application/json, text/plain, */*", PageForm::Json),
            (
                "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
                PageForm::Html,
            ),
            ("text/html;q=0.8, application/json;q=0.9", PageForm::Json),
            ("text/html, application/json", PageForm::Json),
        ] {
            assert_eq!(of(accept), form, "{accept:?}");
        }
        assert_eq!(PageForm::of(None), PageForm::Plain);
    }
}
