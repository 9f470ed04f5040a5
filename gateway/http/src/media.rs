//! Kinds of content without an end: what is sent in them is for the clients that are listening at
//! that time, and of no use to a client that receives it later from the beginning.

use http::HeaderMap;
use http::header::CONTENT_TYPE;

/// Types of content, without parameters; `*` at the end of one stands for any continuation.
const ENDLESS: [&str; 4] = [
    "text/event-stream",
    "multipart/x-mixed-replace",
    GRPC[0],
    GRPC[1],
];
const GRPC: [&str; 2] = ["application/grpc", "application/grpc+*"];

/// Whether a response with these fields may go on for as long as somebody listens.
pub fn is_endless(headers: &HeaderMap) -> bool {
    is_one_of(&ENDLESS, headers)
}

/// Whether this type, without parameters, is one of content without an end.
pub fn names_endless(kind: &[u8]) -> bool {
    names_one_of(&ENDLESS, kind)
}

/// Whether these are the fields of a gRPC call or of its answer.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    is_one_of(&GRPC, headers)
}

fn is_one_of(kinds: &[&str], headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(CONTENT_TYPE) else {
        return false;
    };
    let kind = kind.as_bytes().split(|&b| b == b';').next();
    names_one_of(kinds, kind.unwrap_or_default().trim_ascii())
}

fn names_one_of(kinds: &[&str], kind: &[u8]) -> bool {
    kinds.iter().any(|known| match known.strip_suffix('*') {
        Some(beginning) => kind
            .get(..beginning.len())
            .is_some_and(|begins| begins.eq_ignore_ascii_case(beginning.as_bytes())),
        None => kind.eq_ignore_ascii_case(known.as_bytes()),
    })
}

#[cfg(test)]
mod tests {
    use super::{CONTENT_TYPE, HeaderMap, is_endless};

    #[test]
    fn streams_are_known_by_their_type() {
        let of = |kind: &str| {
            is_endless(&HeaderMap::from_iter([(
                CONTENT_TYPE,
                kind.parse().unwrap(),
            )]))
        };
        for kind in [
            "text/event-stream",
            "Text/Event-Stream; charset=utf-8",
            "multipart/x-mixed-replace;boundary=a",
            "application/grpc",
            "application/grpc+proto",
        ] {
            assert!(of(kind), "{kind}");
        }
        for kind in [
            "text/event-streams",
            "text/html",
            "",
            "application/grpc-web",
        ] {
            assert!(!of(kind), "{kind}");
        }
        assert!(!is_endless(&HeaderMap::new()));
    }
}
