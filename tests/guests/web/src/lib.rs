//! A component of `wasi:http`, as authors write it who know nothing of Lamina. The path
//! says what it does; the query of `/fetch` and `/follow` is a URL.

use std::mem::forget;
use std::sync::atomic::{AtomicU64, Ordering};

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    Fields, IncomingRequest, IncomingResponse, Method, OutgoingBody, OutgoingRequest,
    OutgoingResponse, ResponseOutparam, Scheme,
};

struct Web;

static CALLS: AtomicU64 = AtomicU64::new(0);

impl Guest for Web {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let calls = CALLS.fetch_add(1, Ordering::Relaxed) + 1;
        match path {
            "/fetch" => answer(out, 200, &told(fetch(query))),
            "/follow" => answer(out, 200, &told(fetch(query).and_then(follow))),
            "/calls" => answer(out, 200, calls.to_string().as_bytes()),
            "/seen" => answer(out, 200, seen(&request).as_bytes()),
            "/big" => answer(out, 200, &vec![b'x'; query.parse().unwrap_or(0)]),
            "/print" => {
                println!("printed by the handler");
                answer(out, 200, b"printed");
            }
            "/nothing" => drop(out),
            "/forgotten" => forget(out),
            "/trap" => panic!("the path says so"),
            "/trap-after" => {
                forget(begun(out, None));
                panic!("the path says so");
            }
            "/half" => drop(begun(out, None)),
            "/unfinished" => forget(begun(out, None)),
            "/lying" => _ = OutgoingBody::finish(begun(out, Some("1000")), None),
            "/informational" => answer(out, 103, b""),
            "/loop" => loop {},
            "/hoard" => {
                let mut all = Vec::new();
                loop {
                    all.push(Fields::from_list(&[("x".to_owned(), vec![b'x'; 60_000])]).unwrap());
                }
            }
            _ => answer(out, 200, b"hello"),
        }
    }
}

/// Begins a response and writes a little of its body.
fn begun(out: ResponseOutparam, length: Option<&str>) -> OutgoingBody {
    let fields = Fields::new();
    if let Some(length) = length {
        fields.set("content-length", &[length.into()]).unwrap();
    }
    let response = OutgoingResponse::new(fields);
    let body = response.body().unwrap();
    ResponseOutparam::set(out, Ok(response));
    let stream = body.write().unwrap();
    stream.blocking_write_and_flush(b"some").unwrap();
    drop(stream);
    body
}

fn answer(out: ResponseOutparam, status: u16, bytes: &[u8]) {
    let fields = Fields::new();
    fields.set("cache-control", &["max-age=60".into()]).unwrap();
    let response = OutgoingResponse::new(fields);
    response.set_status_code(status).unwrap();
    let body = response.body().unwrap();
    ResponseOutparam::set(out, Ok(response));
    let stream = body.write().unwrap();
    for chunk in bytes.chunks(4_096) {
        stream.blocking_write_and_flush(chunk).unwrap();
    }
    drop(stream);
    OutgoingBody::finish(body, None).unwrap();
}

fn seen(request: &IncomingRequest) -> String {
    let lines = request.headers().entries();
    let lines = lines
        .iter()
        .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value)));
    format!(
        "{:?} {:?} {}",
        request.method(),
        request.authority(),
        lines.collect::<Vec<_>>().join(", ")
    )
}

fn fetch(url: &str) -> Result<IncomingResponse, String> {
    let (scheme, rest) = url.split_once("://").ok_or("not a URL")?;
    let at = rest.find('/').unwrap_or(rest.len());
    let request = OutgoingRequest::new(Fields::new());
    request.set_method(&Method::Get).unwrap();
    let scheme = if scheme == "https" {
        Scheme::Https
    } else {
        Scheme::Http
    };
    request.set_scheme(Some(&scheme)).unwrap();
    request
        .set_authority(Some(&rest[..at]))
        .map_err(|()| "not an authority")?;
    request
        .set_path_with_query(Some(
            rest.get(at..).filter(|p| !p.is_empty()).unwrap_or("/"),
        ))
        .unwrap();
    let future = outgoing_handler::handle(request, None).map_err(|e| format!("{e:?}"))?;
    future.subscribe().block();
    let answer = future.get().ok_or("no answer")?.map_err(|()| "taken")?;
    answer.map_err(|e| format!("{e:?}"))
}

/// What naive clients do with a redirect.
fn follow(response: IncomingResponse) -> Result<IncomingResponse, String> {
    let to = response.headers().get("location");
    match to.first() {
        Some(to) => fetch(&String::from_utf8_lossy(to)),
        None => Ok(response),
    }
}

fn told(answer: Result<IncomingResponse, String>) -> Vec<u8> {
    let response = match answer {
        Ok(response) => response,
        Err(error) => return format!("failed: {error}").into_bytes(),
    };
    let mut all = format!("{} ", response.status()).into_bytes();
    let body = response.consume().unwrap();
    let stream = body.stream().unwrap();
    while let Ok(bytes) = stream.blocking_read(64 << 10) {
        all.extend(bytes);
    }
    all
}

wasip2::http::proxy::export!(Web);
