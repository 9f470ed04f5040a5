//! Responses to the client: from an entry, from a body that is arriving, or our own.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::header::{
    AGE, ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, DATE, ETAG,
    LAST_MODIFIED, RETRY_AFTER,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version};
use http_body::Body as _;

use crate::cache::coalesce::LoadFailure;
use crate::cache::entry::Entry;
use crate::cache::fill::Fill;
use crate::cache::tags::TagFields;
use crate::http::age;
use crate::http::body::Body;
use crate::http::cache_status::{CACHE_STATUS, CacheStatus};
use crate::http::conditional::{self, PreconditionOutcome};
use crate::http::date;
use crate::http::forward::PSEUDONYM;
use crate::http::memory::stored::{
    AnswersAtOnce, ReadsStored, SMALL_BODY, StoredBody, StoredReaders,
};
use crate::http::range::{self, Multipart, RangeAnswer};
use crate::proxy::rules::compress::{ClientCodings, StoredForm};

/// Who gets an answer.
#[derive(Clone, Copy)]
pub struct EntryReader<'a> {
    pub parts: &'a Parts,
    /// What its client said of codings. None: its route does not compress.
    pub codings: Option<&'a ClientCodings>,
}

impl<'a> From<&'a Parts> for EntryReader<'a> {
    fn from(parts: &'a Parts) -> Self {
        Self {
            parts,
            codings: ClientCodings::of(parts).map(|codings| &**codings),
        }
    }
}

/// Answers from an entry of this age: with 304, 206, 416 or the whole.
pub fn from_entry<'a>(
    reader: impl Into<EntryReader<'a>>,
    entry: &Entry,
    age: Duration,
    status: &CacheStatus<'_>,
) -> Response<Body> {
    let reader = reader.into();
    let request = reader.parts;
    let form = reader.codings.and_then(|client| client.form(entry));
    let mut response = match special(
        reader,
        entry.status,
        &entry.headers,
        Some(entry.body.len() as u64),
    ) {
        ConditionalOutcome::NotModified => not_changed(reader, &entry.headers, form.as_ref()),
        ConditionalOutcome::Unsatisfiable(length) => unsatisfiable(length),
        ConditionalOutcome::Part(first, last) => part(entry, first, last),
        ConditionalOutcome::Parts(parts) => multipart(entry, parts),
        ConditionalOutcome::Whole if request.method == Method::HEAD => {
            head_only(entry, form.as_ref())
        }
        ConditionalOutcome::Whole => {
            let (headers, body) = shown(entry, form.as_ref());
            whole(entry.status, headers, Body::full(body.bytes()))
        }
    };
    let answers = match request.version >= Version::HTTP_2 {
        true => AnswersAtOnce::Many,
        false => AnswersAtOnce::One,
    };
    let body = form.as_ref().map_or(&entry.body, |form| form.body);
    if let Some(readers) = body.readers(answers) {
        reads(&mut response, readers);
    }
    finish(&mut response, age, status);
    response
}

/// Answers from a body that is arriving. None if its beginning is no longer in memory.
pub fn from_fill(
    request: &Parts,
    fill: &Arc<Fill>,
    now: Instant,
    status: &CacheStatus<'_>,
) -> Option<Response<Body>> {
    let mut response = match special(
        request,
        fill.head.status,
        &fill.head.headers,
        fill.head.length,
    ) {
        ConditionalOutcome::NotModified => not_changed(request.into(), &fill.head.headers, None),
        ConditionalOutcome::Unsatisfiable(length) => unsatisfiable(length),
        ConditionalOutcome::Part(first, last) => {
            let body = Body::boxed(fill.reader()?.window(first, last));
            let mut response = whole(StatusCode::PARTIAL_CONTENT, fill.head.headers.clone(), body);
            let length = fill.head.length.unwrap_or(last + 1);
            response
                .headers_mut()
                .insert(CONTENT_RANGE, range::content_range(first, last, length));
            response
        }
        // Several parts of a body that has not fully arrived: the whole is a correct answer, too
        // (RFC 9110 §14.2).
        ConditionalOutcome::Whole | ConditionalOutcome::Parts(_) => {
            whole(fill.head.status, fill.head.headers.clone(), body_of(fill)?)
        }
    };
    reads(&mut response, &fill.readers);
    finish(&mut response, fill.head.freshness.age(now), status);
    Some(response)
}

/// The body of a response that others follow, too. A small one has mostly arrived with its head, and
/// then costs no more than that of a hit.
fn body_of(fill: &Arc<Fill>) -> Option<Body> {
    let is_small = |body: &Bytes| fill.head.length.is_some() && body.len() <= SMALL_BODY;
    match fill.whole().filter(is_small) {
        Some(body) => Some(Body::full(body)),
        None => fill.reader().map(Body::boxed),
    }
}

/// Notes on a response that it holds a stored body, unless its body is so small that it has a copy
/// of its own.
fn reads(response: &mut Response<Body>, readers: &Arc<StoredReaders>) {
    let holds = match response.body() {
        Body::Empty => false,
        Body::Full(content) => content.as_ref().is_some_and(|all| all.len() > SMALL_BODY),
        Body::Boxed(_) => true,
    };
    if holds {
        let reads = ReadsStored::One(Arc::clone(readers));
        response.extensions_mut().insert(reads);
    }
}

/// A response that is passed straight on to its client.
pub fn passed(
    tag_fields: &TagFields,
    mut response: Response<Body>,
    status: &CacheStatus<'_>,
) -> Response<Body> {
    tag_fields.strip(response.headers_mut());
    append_status(response.headers_mut(), status);
    response
}

/// An error response of ours, with its cause in the terms of RFC 9209.
pub fn failed(failure: &LoadFailure, status: &CacheStatus<'_>) -> Response<Body> {
    let mut response = plain(failure.status, text(failure.status));
    let alert = failure
        .alert
        .map_or_else(String::new, |id| format!("; alert-id={id}"));
    let value = format!("{}; error={}{alert}", PSEUDONYM, failure.error);
    if let Ok(value) = HeaderValue::from_str(&value) {
        response.headers_mut().insert("proxy-status", value);
    }
    if let Some(seconds) = failure.retry_after {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    if let Some(fields) = &failure.fields {
        response.headers_mut().extend((**fields).clone());
    }
    if failure.status == StatusCode::TOO_MANY_REQUESTS {
        let value = HeaderValue::from_static("no-store");
        response.headers_mut().insert(CACHE_CONTROL, value);
    }
    append_status(response.headers_mut(), status);
    response
}

/// An error response of ours in place of an answer with this head, whose content can't be used; the
/// cause is one of RFC 9209.
pub fn unusable(said: &HeaderMap, error: &str, text: &'static str) -> Response<Body> {
    let mut response = plain(StatusCode::BAD_GATEWAY, text);
    let headers = response.headers_mut();
    let value = format!("{PSEUDONYM}; error={error}");
    if let Ok(value) = HeaderValue::from_str(&value) {
        headers.insert("proxy-status", value);
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // What the cache did stays true of the request.
    headers.extend(said.get(AGE).map(|age| (AGE, age.clone())));
    for line in said.get_all(&CACHE_STATUS) {
        headers.append(CACHE_STATUS, line.clone());
    }
    response
}

/// The response to clients if a loader says that the resource is absent.
pub fn absent() -> Response<Body> {
    plain(StatusCode::NOT_FOUND, "404 not found\n")
}

/// The response to HEAD that corresponds to this response to GET.
pub fn head_of(mut response: Response<Body>) -> Response<Body> {
    if let Some(length) = response.body().size_hint().exact() {
        set_length(&mut response, length);
    }
    response.map(|_| Body::empty())
}

/// Sets the length that the response to a GET would have; a 204 has none (RFC 9110 §8.6).
fn set_length(response: &mut Response<Body>, length: u64) {
    if response.status() != StatusCode::NO_CONTENT {
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
}

/// A short response of ours.
pub fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::full(text));
    *response.status_mut() = status;
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

/// The response to a method that is switched off here (RFC 9110 §15.5.6 requires `Allow`).
pub fn method_not_allowed(text: &'static str) -> Response<Body> {
    const ALLOWED: HeaderValue =
        HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
    let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, text);
    response.headers_mut().insert(ALLOW, ALLOWED);
    response
}

/// The response to other methods on a route without an upstream: its loader answers only GET and
/// HEAD.
pub fn loads_alone(text: &'static str) -> Response<Body> {
    let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, text);
    let allowed = HeaderValue::from_static("GET, HEAD");
    response.headers_mut().insert(ALLOW, allowed);
    response
}

pub fn append_status(headers: &mut HeaderMap, status: &CacheStatus<'_>) {
    let value = status.to_value();
    match headers.get_mut(CACHE_STATUS) {
        // The place that a stored response reserves for this field.
        Some(place) if place.is_empty() => *place = value,
        _ => drop(headers.append(CACHE_STATUS, value)),
    }
}

/// What the preconditions and ranges of a request make of a response.
pub(super) enum ConditionalOutcome {
    Whole,
    NotModified,
    Part(u64, u64),
    Parts(Vec<(u64, u64)>),
    Unsatisfiable(u64),
}

pub(super) fn special<'a>(
    reader: impl Into<EntryReader<'a>>,
    status: StatusCode,
    headers: &HeaderMap,
    length: Option<u64>,
) -> ConditionalOutcome {
    let EntryReader {
        parts: request,
        codings,
    } = reader.into();
    if status != StatusCode::OK || !conditional::asks_for_less(&request.headers) {
        return ConditionalOutcome::Whole;
    }
    let wall = SystemTime::now();
    let etag = headers.get(ETAG);
    // RFC 9111 §4.3.2: without Last-Modified, the stored Date is used instead.
    let modified = date::field(headers, &LAST_MODIFIED, wall)
        .at()
        .or_else(|| date::field(headers, &DATE, wall).at());
    if conditional::evaluate(&request.method, &request.headers, etag, modified, wall)
        == PreconditionOutcome::NotModified
    {
        return ConditionalOutcome::NotModified;
    }
    let Some(length) = length else {
        return ConditionalOutcome::Whole;
    };
    // Ranges are octets of what is stored. A client that does not take its coding gets the whole,
    // decoded.
    if codings.is_some_and(|client| !client.takes(headers)) {
        return ConditionalOutcome::Whole;
    }
    let strong = conditional::strong_last_modified(headers, wall);
    match range::evaluate(
        &request.headers,
        &request.method,
        etag,
        strong,
        length,
        wall,
    ) {
        RangeAnswer::Whole => ConditionalOutcome::Whole,
        RangeAnswer::Part { first, last } => ConditionalOutcome::Part(first, last),
        RangeAnswer::Parts(parts) => ConditionalOutcome::Parts(parts),
        RangeAnswer::Unsatisfiable => ConditionalOutcome::Unsatisfiable(length),
    }
}

pub(super) fn whole(status: StatusCode, headers: HeaderMap, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

fn head_only(entry: &Entry, form: Option<&StoredForm<'_>>) -> Response<Body> {
    let (headers, body) = shown(entry, form);
    let mut response = whole(entry.status, headers, Body::empty());
    set_length(&mut response, body.len() as u64);
    response
}

/// The fields and the content of an entry, in the form that the client gets.
fn shown<'a>(entry: &'a Entry, form: Option<&StoredForm<'a>>) -> (HeaderMap, &'a StoredBody) {
    let mut headers = entry.headers.clone();
    match form {
        None => (headers, &entry.body),
        Some(form) => {
            form.describe(&mut headers);
            (headers, form.body)
        }
    }
}

/// A 304 that has the fields which the answer with content would have (RFC 9110 §15.4.5).
fn not_changed(
    reader: EntryReader<'_>,
    stored: &HeaderMap,
    form: Option<&StoredForm<'_>>,
) -> Response<Body> {
    let mut response = not_modified(stored);
    if let Some(client) = reader.codings {
        client.describe_unchanged(stored, form, response.headers_mut());
    }
    response
}

pub(super) fn not_modified(stored: &HeaderMap) -> Response<Body> {
    whole(
        StatusCode::NOT_MODIFIED,
        conditional::not_modified_headers(stored),
        Body::empty(),
    )
}

pub(super) fn unsatisfiable(length: u64) -> Response<Body> {
    let mut response = plain(
        StatusCode::RANGE_NOT_SATISFIABLE,
        "416 range not satisfiable\n",
    );
    response
        .headers_mut()
        .insert(CONTENT_RANGE, range::unsatisfied_range(length));
    response
}

fn part(entry: &Entry, first: u64, last: u64) -> Response<Body> {
    let body = entry.body.octets(first as usize..last as usize + 1);
    let mut response = whole(
        StatusCode::PARTIAL_CONTENT,
        entry.headers.clone(),
        Body::full(body),
    );
    response.headers_mut().insert(
        CONTENT_RANGE,
        range::content_range(first, last, entry.body.len() as u64),
    );
    response
}

fn multipart(entry: &Entry, parts: Vec<(u64, u64)>) -> Response<Body> {
    // The boundary must be unique within the body, but need not be unguessable. The hash of the key
    // and the length make it unique in practice.
    let boundary = format!("lamina-{:016x}{:x}", entry.marks.id, entry.body.len());
    let kind = entry.headers.get(CONTENT_TYPE).cloned();
    let multipart = Multipart::new(parts, entry.body.bytes(), kind, boundary);
    let content_type = multipart.content_type();
    let mut response = whole(
        StatusCode::PARTIAL_CONTENT,
        entry.headers.clone(),
        Body::boxed(multipart),
    );
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// Sets `Age` (RFC 9111 §5.1) and `Cache-Status` (RFC 9211).
pub(super) fn finish(response: &mut Response<Body>, age: Duration, status: &CacheStatus<'_>) {
    let age = age::to_value(age.as_secs());
    let headers = response.headers_mut();
    match headers.get_mut(AGE) {
        // The place that a stored response reserves for this field, in one line.
        Some(place) => *place = age,
        None => drop(headers.insert(AGE, age)),
    }
    append_status(headers, status);
}

/// The text of an error response: its status, by number and by name.
pub(super) fn text(status: StatusCode) -> String {
    let name = match status {
        StatusCode::INTERNAL_SERVER_ERROR => "internal error".to_owned(),
        _ => status.canonical_reason().unwrap_or("error").to_lowercase(),
    };
    format!("{} {name}\n", status.as_u16())
}
