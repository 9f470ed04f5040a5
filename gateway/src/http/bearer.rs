//! `Authorization: Bearer …` (RFC 6750 §2.1) against a token of ours.

use http::HeaderMap;
use http::header::AUTHORIZATION;
use subtle::ConstantTimeEq;

/// Whether the request brings `token`. Compared in constant time: how long the answer
/// takes says nothing about the token.
pub fn brings(request: &HeaderMap, token: &str) -> bool {
    let given = request
        .get(AUTHORIZATION)
        .map_or(&b""[..], |value| value.as_bytes());
    match given.split_at_checked(SCHEME.len()) {
        Some((scheme, given)) if scheme.eq_ignore_ascii_case(SCHEME) => {
            given.ct_eq(token.as_bytes()).into()
        }
        _ => false,
    }
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
