//! Whether a response concerns the requester alone, as far as its status tells.

use http::StatusCode;

/// Whether a response with this status is about the request that was made, and not about the
/// resource: the next client may get another answer for the same URL.
///
/// That is every status of the class 4xx except 404 and 410, which say that the resource is not
/// there. An unregistered status is read as 400 (RFC 9110 §15). Of the class 5xx, 510 and 511 ask
/// the client for something, as 401 does. RFC 6585 forbids caches to store 428, 429, 431 and 511;
/// for the others RFC 9111 §3 lets a cache store less.
pub fn concerns_requester_alone(status: StatusCode) -> bool {
    match status.as_u16() {
        404 | 410 => false,
        510 | 511 => true,
        _ => status.is_client_error(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_request_says_nothing_about_the_resource() {
        let alone = |code| concerns_requester_alone(StatusCode::from_u16(code).unwrap());
        for code in [
            400, 401, 402, 403, 405, 406, 407, 408, 409, 411, 412, 413, 414, 415, 416, 417, 418,
            421, 422, 425, 426, 428, 429, 431, 444, 451, 499, 511,
        ] {
            assert!(alone(code), "{code}");
        }
        for code in [
            200, 204, 302, 304, 404, 410, 500, 501, 502, 503, 504, 599, 999,
        ] {
            assert!(!alone(code), "{code}");
        }
    }
}
