//! Compares `Authorization: Bearer …` (RFC 6750 §2.1) with a token of ours.

use http::HeaderMap;
use http::header::AUTHORIZATION;
use subtle::ConstantTimeEq;

/// Whether the request has `token`. Compared in constant time, so that the time of the answer
/// says nothing about the token.
pub fn brings(request: &HeaderMap, token: &str) -> bool {
    presented(request).is_some_and(|presented| is_same(presented, token))
}

/// Whether what a request presents is `token`, compared in constant time.
pub fn is_same(presented: &[u8], token: &str) -> bool {
    presented.ct_eq(token.as_bytes()).into()
}

/// The token of the request, if it has one.
pub fn presented(request: &HeaderMap) -> Option<&[u8]> {
    let value = request.get(AUTHORIZATION)?.as_bytes();
    let (scheme, given) = value.split_at_checked(SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then_some(given)
}

const SCHEME: &[u8] = b"Bearer ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_itself_will_do() {
        for (line, good) in [
            ("Bearer secret", true),
            ("bearer secret", true),
            ("Bearer secret ", false),
            ("Bearer secre", false),
            ("Basic secret", false),
            ("secret", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, line.parse().unwrap())]);
            assert_eq!(brings(&headers, "secret"), good, "{line:?}");
        }
        assert!(!brings(&HeaderMap::new(), "secret"));
    }
}
