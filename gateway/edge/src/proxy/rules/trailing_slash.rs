//! One spelling of two: paths of a route end with a slash, or do not, and a client that asks for the
//! other one is redirected. So relative links lead to one place, and nothing is stored twice.

pub mod config;

use http::header::LOCATION;
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};

use crate::http::body::Body;
use crate::http::forward::HopWishes;
use crate::proxy::respond;
use config::TrailingSlash;

impl TrailingSlash {
    /// The redirect for a request with the other spelling. Only what reads is redirected: a change
    /// is the origin's to understand, and browsers follow no redirect when they open a WebSocket.
    pub fn answer(self, parts: &Parts, wishes: &HopWishes) -> Option<Response<Body>> {
        if !matches!(parts.method, Method::GET | Method::HEAD) || wishes.upgrade.is_some() {
            return None;
        }
        let path = self.other(parts.uri.path())?;
        let target = match parts.uri.query() {
            Some(query) => format!("{path}?{query}"),
            None => path,
        };
        let location = HeaderValue::try_from(target).ok()?;
        let status = StatusCode::PERMANENT_REDIRECT;
        let mut response = respond::plain(status, respond::text(status));
        response.headers_mut().insert(LOCATION, location);
        Some(response)
    }

    /// The path that a client with this one is sent to. Slashes at the beginning become one: a
    /// browser takes two of them, or a backslash, for a host.
    fn other(self, path: &str) -> Option<String> {
        let inner = path.trim_start_matches(['/', '\\']);
        match self {
            Self::Keep => None,
            Self::Add => {
                let last = path.rsplit('/').next().unwrap_or_default();
                let is_file = last.is_empty() || last.contains('.');
                (!is_file && !inner.is_empty()).then(|| format!("/{inner}/"))
            }
            Self::Remove => {
                let kept = inner.trim_end_matches('/');
                (path.len() > 1 && path.ends_with('/')).then(|| format!("/{kept}"))
            }
        }
    }

    /// The rule in words.
    pub fn describe(self) -> Option<String> {
        let done = match self {
            Self::Keep => return None,
            Self::Add => "added to paths that do not end with the name of a file",
            Self::Remove => "removed",
        };
        Some(format!("trailing slash: {done}, by a redirect with 308"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_path_has_one_spelling() {
        for (path, added, removed) in [
            ("/", None, None),
            ("/a", Some("/a/"), None),
            ("/a/", None, Some("/a")),
            ("/a/b//", None, Some("/a/b")),
            ("/a.b/c", Some("/a.b/c/"), None),
            ("/a/style.css", None, None),
            ("//evil.example/", None, Some("/evil.example")),
            ("//evil/x", Some("/evil/x/"), None),
            ("/\\evil/", None, Some("/evil")),
            ("//", None, Some("/")),
        ] {
            let other = |rule: TrailingSlash| rule.other(path);
            assert_eq!(other(TrailingSlash::Keep), None);
            assert_eq!(other(TrailingSlash::Add).as_deref(), added, "{path}");
            assert_eq!(other(TrailingSlash::Remove).as_deref(), removed, "{path}");
        }
    }

    #[test]
    fn what_reads_is_redirected_and_an_upgrade_goes_on() {
        let mut wishes = HopWishes::default();
        let asked = |method: Method| {
            let request = http::Request::builder().method(method).uri("/a?b");
            request.body(()).unwrap().into_parts().0
        };
        let add = TrailingSlash::Add;
        let redirect = add.answer(&asked(Method::GET), &wishes).unwrap();
        assert_eq!(redirect.headers()[LOCATION], "/a/?b");
        assert!(add.answer(&asked(Method::POST), &wishes).is_none());
        wishes.upgrade = Some(HeaderValue::from_static("websocket"));
        assert!(add.answer(&asked(Method::GET), &wishes).is_none());
    }

    proptest! {
        /// Nobody is sent in circles, or to another host.
        #[test]
        fn one_redirect_is_enough(path in "/[a-z./\\\\]{0,12}") {
            for rule in [TrailingSlash::Add, TrailingSlash::Remove] {
                if let Some(target) = rule.other(&path) {
                    prop_assert!(target.starts_with('/') && !target[1..].starts_with(['/', '\\']));
                    prop_assert_eq!(rule.other(&target), None, "{}", target);
                }
            }
        }
    }
}
