//! A plain `wasi:http` handler, as one writes it for `wasmtime serve`: nothing here knows
//! Lamina. `GET /hello/7` asks `http://demo/api/user/7` and greets with what came. See
//! README.md.

use std::io::{Read, Write};

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    Fields, IncomingBody, IncomingRequest, OutgoingBody, OutgoingRequest, OutgoingResponse,
    ResponseOutparam, Scheme,
};

struct Hello;

wasip2::http::proxy::export!(Hello);

impl Guest for Hello {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        let (status, text) = match user_of(&path) {
            Some(id) => match ask(&format!("/api/user/{id}")) {
                Ok(user) => (200, greeting(&user)),
                Err(error) => (502, format!("{error}\n")),
            },
            None => (404, "say /hello/NUMBER\n".to_owned()),
        };
        send(out, status, text.as_bytes());
    }
}

/// The number in `/hello/NUMBER`.
fn user_of(path: &str) -> Option<&str> {
    let path = path.split('?').next()?;
    let id = path.strip_prefix("/hello/")?;
    (!id.is_empty() && id.bytes().all(|b| b.is_ascii_digit())).then_some(id)
}

fn greeting(user: &str) -> String {
    format!("Hello. You are {}\n", user.trim())
}

/// The body of `http://demo` + `path`.
fn ask(path: &str) -> Result<String, String> {
    let request = OutgoingRequest::new(Fields::new());
    let _ = request.set_scheme(Some(&Scheme::Http));
    let _ = request.set_authority(Some("demo"));
    let _ = request.set_path_with_query(Some(path));
    let pending = outgoing_handler::handle(request, None).map_err(|e| e.to_string())?;
    pending.subscribe().block();
    let response = match pending.get() {
        Some(Ok(Ok(response))) => response,
        Some(Ok(Err(error))) => return Err(error.to_string()),
        _ => return Err("no answer".into()),
    };
    if response.status() != 200 {
        return Err(format!("status {}", response.status()));
    }
    let body = response.consume().map_err(|()| "no body")?;
    let text = read(&body)?;
    IncomingBody::finish(body);
    Ok(text)
}

fn read(body: &IncomingBody) -> Result<String, String> {
    let mut text = String::new();
    let mut stream = body.stream().map_err(|()| "no stream")?;
    stream
        .read_to_string(&mut text)
        .map_err(|e| e.to_string())?;
    Ok(text)
}

fn send(out: ResponseOutparam, status: u16, text: &[u8]) {
    let headers = Fields::new();
    let _ = headers.set("content-type", &[b"text/plain; charset=utf-8".to_vec()]);
    let lifetime: &[u8] = if status == 200 {
        b"max-age=10"
    } else {
        b"no-store"
    };
    let _ = headers.set("cache-control", &[lifetime.to_vec()]);
    let response = OutgoingResponse::new(headers);
    let _ = response.set_status_code(status);
    let body = response.body();
    ResponseOutparam::set(out, Ok(response));
    let Ok(body) = body else { return };
    if let Ok(mut stream) = body.write() {
        // Whoever reads is gone: nobody is left to be told.
        let _ = stream
            .write_all(text)
            .and_then(|()| Write::flush(&mut stream));
    }
    let _ = OutgoingBody::finish(body, None);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_a_number_and_nothing_else() {
        assert_eq!(user_of("/hello/7?x=1"), Some("7"));
        for path in ["/", "/hello/", "/hello/..", "/hello/7/8", "/hello/%37"] {
            assert_eq!(user_of(path), None, "{path}");
        }
    }

    #[test]
    fn the_greeting_holds_the_answer() {
        assert_eq!(greeting("{\"id\":7}\n"), "Hello. You are {\"id\":7}\n");
    }
}
