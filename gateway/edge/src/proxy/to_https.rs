//! Sends the clients of a clear-text listener to HTTPS, where the listener says so.
//!
//! Only hosts that a route names or that a listener has a certificate for: a redirect to whatever
//! host a request claims would be one that anybody can aim (CWE-601). Challenges of ACME are asked
//! for in clear text (RFC 8555 §8.3), and are served as usual.

use http::header::LOCATION;
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};

use super::challenge::CHALLENGES;
use super::counted::CountedResponse;
use super::metrics::RequestOutcome;
use super::respond;
use super::route::Routes;
use crate::http::body::Body;
use crate::http::reference::without_port;
use crate::http::tls::config::RedirectTarget;
use crate::http::tls::listeners::TlsListeners;

/// The answer that sends a client to HTTPS. None if the request is served here.
pub fn answer(
    target: RedirectTarget,
    parts: &Parts,
    host: &str,
    routes: &Routes,
    listeners: &TlsListeners,
) -> Option<CountedResponse> {
    if parts.uri.path().starts_with(CHALLENGES) {
        return None;
    }
    let name = without_port(host);
    if name.is_empty() || !(routes.name_host(name) || listeners.have_certificate_for(name)) {
        let text = "404 no route and no certificate for this host\n";
        let refusal = respond::plain(StatusCode::NOT_FOUND, text);
        return Some(CountedResponse::new(refusal, RequestOutcome::Error));
    }
    let response = redirect(target, parts, name).unwrap_or_else(|| {
        respond::plain(
            StatusCode::BAD_REQUEST,
            "400 the target can't be redirected\n",
        )
    });
    Some(CountedResponse::new(response, RequestOutcome::Pass))
}

fn redirect(target: RedirectTarget, parts: &Parts, name: &str) -> Option<Response<Body>> {
    let port = match target.port {
        443 => String::new(),
        port => format!(":{port}"),
    };
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    // `*` asks the server itself (RFC 9110 §7.1): no URL says so.
    if path.starts_with('*') {
        return None;
    }
    let location = HeaderValue::from_str(&format!("https://{name}{port}{path}")).ok()?;
    // Clients may make a GET of other methods at a 301 (RFC 9110 §15.4.2).
    let may_lose_its_method = !matches!(parts.method, Method::GET | Method::HEAD);
    let status = match target.status {
        301 if !may_lose_its_method => StatusCode::MOVED_PERMANENTLY,
        _ => StatusCode::PERMANENT_REDIRECT,
    };
    let mut response = respond::plain(status, format!("{} use HTTPS\n", status.as_u16()));
    response.headers_mut().insert(LOCATION, location);
    Some(response)
}
