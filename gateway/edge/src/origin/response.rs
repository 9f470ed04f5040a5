//! Checks the head of an origin's response where hyper accepts too much.
//!
//! `client` counts 1xx heads with [`OriginInterimCounter`] while it waits for the response, and
//! checks each HTTP/1 response with [`check`]. HTTP/2 has no such ambiguities: h2 refuses them, and
//! `http::frames` counts its heads.
//!
//! Decision: a response that gives its length in two ways is refused, not repaired (RFC 9112 §6.3
//! lets Transfer-Encoding win): it may be an attempt at response splitting.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Version};
use tokio::sync::Notify;

use super::error::SendError;

/// The most 1xx heads before the response; origins usually send a 100 and a few 102 or 103.
const MAX_INTERIM: u32 = 16;

/// The callback for 1xx responses. It is attached to the request as an extension.
#[derive(Clone)]
pub struct OnInterim(Arc<InterimCallback>);

type InterimCallback = dyn Fn(StatusCode, Version, &HeaderMap) + Send + Sync;

/// Counts the 1xx heads of one exchange.
#[derive(Default)]
pub(super) struct OriginInterimCounter {
    heads: AtomicU32,
    too_many: Notify,
}

impl OnInterim {
    pub fn new(told: impl Fn(StatusCode, Version, &HeaderMap) + Send + Sync + 'static) -> Self {
        Self(Arc::new(told))
    }
}

impl OriginInterimCounter {
    /// Counts the 1xx heads that arrive by HTTP/1 before the response to `request`, and passes them
    /// on.
    pub(super) fn count<B>(request: &mut Request<B>) -> Arc<Self> {
        let told = request.extensions_mut().remove::<OnInterim>();
        let interim = Arc::new(Self::default());
        let counting = Arc::clone(&interim);
        hyper::ext::on_informational(request, move |head| {
            if counting.heads.fetch_add(1, Relaxed) >= MAX_INTERIM {
                counting.too_many.notify_one();
            } else if let Some(OnInterim(told)) = &told {
                told(head.status(), head.version(), head.headers());
            }
        });
        interim
    }

    /// Waits until too many have arrived.
    pub(super) async fn too_many(&self) -> SendError {
        self.too_many.notified().await;
        SendError::Response("too many interim responses (1xx)")
    }
}

/// Refuses ambiguous heads. Makes `Content-Length` one line, or removes it where it must not be.
/// `upgrading` tells whether the request asked for another protocol.
pub fn check<B>(response: &mut Response<B>, upgrading: bool) -> Result<(), SendError> {
    let status = response.status();
    if status == StatusCode::SWITCHING_PROTOCOLS && !upgrading {
        return Err(SendError::Response("101 without a request for an upgrade"));
    }
    let headers = response.headers_mut();
    if headers.contains_key(TRANSFER_ENCODING) {
        return coding(headers);
    }
    match length(headers)? {
        // RFC 9110 §8.6.
        Some(_) if status == StatusCode::NO_CONTENT || status.is_informational() => {
            headers.remove(CONTENT_LENGTH);
        }
        Some(one) => {
            headers.insert(CONTENT_LENGTH, one);
        }
        None => {}
    }
    Ok(())
}

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// How long the origin says that it keeps the connection: `timeout` of `Keep-Alive`, which no RFC
/// defines any more and most servers send.
pub(super) fn keep_alive_timeout(headers: &HeaderMap) -> Option<Duration> {
    let field = headers.get(KEEP_ALIVE)?.to_str().ok()?;
    let mut parameters = field.split(',').map(str::trim);
    let seconds = parameters.find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let named = name.trim().eq_ignore_ascii_case("timeout");
        named.then(|| value.trim().parse::<u32>().ok())?
    })?;
    Some(Duration::from_secs(seconds.into()))
}

/// RFC 9112 §6.1: only `chunked` is accepted, without a length beside it. A word that names no
/// transfer coding is ignored, as hyper does: such a body ends when the connection closes (§6.3).
fn coding(headers: &HeaderMap) -> Result<(), SendError> {
    if headers.contains_key(CONTENT_LENGTH) {
        return Err(SendError::Response(
            "Content-Length beside Transfer-Encoding",
        ));
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let one = (codings.next(), codings.next());
    match one {
        (Some(one), None) if one.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        (Some(one), None) if !encodes(one.as_bytes()) => Ok(()),
        _ => Err(SendError::Response("a transfer coding that is not chunked")),
    }
}

/// Whether a body with this coding may be something other than its bytes: that holds for the
/// registered codings (RFC 9112 §7), and for everything that a reader may take for `chunked`.
fn encodes(coding: &[u8]) -> bool {
    let text = String::from_utf8_lossy(coding).to_ascii_lowercase();
    let word = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    !word
        || ["chunk", "zip", "deflate", "compress"]
            .iter()
            .any(|known| text.contains(known))
}

/// The one length that all lines give, if there is one; the lines are replaced by it. hyper does
/// not check the lines of a response without a body (HEAD, 204, 304), but the client would.
fn length(headers: &HeaderMap) -> Result<Option<HeaderValue>, SendError> {
    let mut lines = headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = lines.next() else {
        return Ok(None);
    };
    let number = |text: &[u8]| -> Option<u64> {
        let digits = text.trim_ascii();
        let all = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
        all.then(|| std::str::from_utf8(digits).ok()?.parse().ok())?
    };
    let mut numbers = std::iter::once(first)
        .chain(lines)
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .map(number);
    let length = numbers.next().flatten();
    match length {
        Some(length) if numbers.all(|other| other == Some(length)) => {
            Ok(Some(HeaderValue::from(length)))
        }
        _ => Err(SendError::Response("more than one Content-Length, or none")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The length that remains, or the error.
    fn checked(
        status: u16,
        fields: &[(&'static str, &str)],
    ) -> Result<Option<String>, &'static str> {
        let mut response = Response::builder().status(status);
        for (name, value) in fields {
            response = response.header(*name, *value);
        }
        let mut response = response.body(()).unwrap();
        match check(&mut response, false) {
            Ok(()) => Ok(response
                .headers()
                .get(CONTENT_LENGTH)
                .map(|length| length.to_str().unwrap().to_owned())),
            Err(SendError::Response(why)) => Err(why),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_length_said_twice_is_said_once() {
        for lines in [&["5"][..], &["5", "5"], &["5, 5"], &["5 ,5", "005"]] {
            let fields: Vec<_> = lines.iter().map(|line| ("content-length", *line)).collect();
            assert_eq!(checked(200, &fields), Ok(Some("5".to_owned())), "{lines:?}");
        }
        assert_eq!(
            checked(304, &[("content-length", "9")]),
            Ok(Some("9".to_owned()))
        );
        assert_eq!(
            checked(204, &[("content-length", "9")]),
            Ok(None),
            "RFC 9110 §8.6"
        );
        assert_eq!(checked(200, &[]), Ok(None));
    }

    #[test]
    fn lengths_that_differ_or_are_none_are_refused() {
        for lines in [
            &["5", "6"][..],
            &["5, 6"],
            &["5,"],
            &[""],
            &["+5"],
            &["0x5"],
            &["-1"],
        ] {
            let fields: Vec<_> = lines.iter().map(|line| ("content-length", *line)).collect();
            assert!(checked(200, &fields).is_err(), "{lines:?}");
        }
        assert!(checked(200, &[("content-length", "18446744073709551616")]).is_err());
    }

    #[test]
    fn codings_but_chunked_and_a_length_beside_it_are_refused() {
        let chunked = ("transfer-encoding", "Chunked");
        assert_eq!(checked(200, &[chunked]), Ok(None));
        assert!(checked(200, &[chunked, ("content-length", "5")]).is_err());
        assert!(checked(200, &[chunked, chunked]).is_err());
        for coding in [
            "gzip, chunked",
            "gzip",
            "x-compress",
            "identity, chunked",
            "xchunked",
            "",
            "\"a\"",
            "chunked, chunked",
        ] {
            assert!(
                checked(200, &[("transfer-encoding", coding)]).is_err(),
                "{coding}"
            );
        }
        for word in ["identity", "sparkle"] {
            assert_eq!(checked(200, &[("transfer-encoding", word)]), Ok(None));
        }
    }

    #[test]
    fn switching_protocols_unasked_is_refused() {
        assert!(checked(101, &[]).is_err());
        let mut asked = Response::builder().status(101).body(()).unwrap();
        assert!(check(&mut asked, true).is_ok());
    }
}
