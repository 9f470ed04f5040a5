//! The cookie by which a client stays with its target: taken out of requests, and set on answers
//! that are for one client alone.
//!
//! Invariant: no answer that is stored or shared has the cookie, and none is kept out of a cache
//! because of it. So on a route that caches the cookie is only read. Elsewhere an answer that says
//! that shared caches may keep it does not get the cookie; any other that gets it also says
//! `private`, so that no cache on the way stores it.

use std::time::SystemTime;

use http::header::{CACHE_CONTROL, EXPIRES, SET_COOKIE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::context::RequestContext;
use super::route::Route;
use crate::http::body::Body;
use crate::http::cache_control::{FieldForm, ResponseDirectives};
use crate::http::date;
use crate::origin::{StickyCookie, StickyPin};

/// The cookie of the route's upstream, if it has one.
pub fn of(route: &Route) -> Option<&StickyCookie> {
    route.origin.as_ref()?.sticky()
}

/// Takes the cookie out of a request, and keeps what it says.
pub fn take(cookie: &StickyCookie, parts: &mut Parts) {
    if let Some(pin) = cookie.take(&mut parts.headers) {
        parts.extensions.insert(pin);
    }
}

/// Takes out of an answer which target its client is to stay with. None: there is no such target,
/// or the client knows it.
pub fn taken_from(response: &mut Response<Body>) -> Option<StickyPin> {
    response.extensions_mut().remove::<StickyPin>()
}

/// Makes the one client of this answer stay with a target.
pub fn set(ask: &RequestContext, pin: Option<StickyPin>, response: &mut Response<Body>) {
    let (Some(cookie), Some(pin)) = (of(&ask.route), pin) else {
        return;
    };
    let is_update = response.status() == StatusCode::NOT_MODIFIED;
    let headers = response.headers_mut();
    if ask.route.cached || is_update || is_for_all(headers) {
        return;
    }
    let Some(field) = cookie.set(pin, ask.scheme) else {
        return;
    };
    headers.append(SET_COOKIE, field);
    let said = ResponseDirectives::parse(headers);
    if !said.no_store && said.private != FieldForm::Whole {
        headers.append(CACHE_CONTROL, HeaderValue::from_static("private"));
    }
}

/// Whether an answer says that shared caches may keep it.
fn is_for_all(headers: &HeaderMap) -> bool {
    let said = ResponseDirectives::parse(headers);
    let lasts = |seconds: Option<u32>| seconds.is_some_and(|seconds| seconds > 0);
    let now = SystemTime::now();
    let expires = date::field(headers, &EXPIRES, now).at();
    let is_fresh =
        lasts(said.s_maxage) || lasts(said.max_age) || expires.is_some_and(|expires| expires > now);
    !said.no_store && said.private != FieldForm::Whole && (said.public || is_fresh)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_for_all_are_told_from_those_for_one() {
        let says = |name: &'static str, value: &str| {
            is_for_all(&HeaderMap::from_iter([(
                http::HeaderName::from_static(name),
                value.parse().unwrap(),
            )]))
        };
        for shared in ["max-age=60", "public", "s-maxage=1, max-age=0"] {
            assert!(says("cache-control", shared), "{shared}");
        }
        for own in [
            "private, max-age=60",
            "no-store, public",
            "max-age=0",
            "no-cache",
        ] {
            assert!(!says("cache-control", own), "{own}");
        }
        assert!(says("expires", "Fri, 01 Jan 2100 00:00:00 GMT"));
        assert!(!says("expires", "Thu, 01 Jan 1970 00:00:00 GMT"));
        assert!(!is_for_all(&HeaderMap::new()));
    }
}
