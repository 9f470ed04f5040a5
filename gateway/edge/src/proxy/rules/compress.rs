//! Compression: the origin is asked with one fixed `Accept-Encoding`, and each client gets the
//! stored octets, a coded form of them, or what is left when their coding is undone.
//!
//! Three moments of a request. When it arrives, the client's own `Accept-Encoding` is put aside
//! ([`ClientCodings`]) and replaced, so that nothing that comes later tells clients apart by it.
//! When a stored entry answers, [`stored`] chooses the form, since that choice goes before
//! conditions and ranges. When an answer is delivered, [`delivered`] undoes a coding that the client
//! does not take, whoever made the answer, and says what it varies by. What the origin said of an
//! answer decides, whether it was stored or not: rules for fields are applied later.
//!
//! Invariant: no client gets a coding that it did not ask for. Invariant: no request waits for a
//! form to be made.

pub mod config;
mod delivered;
mod stored;

pub use delivered::{CodingPlan, CodingUndoing, CodingVariance};
pub use stored::StoredForm;

use std::sync::Arc;

use http::header::{ACCEPT_ENCODING, CONTENT_TYPE, RANGE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::cache::encoder::BodyEncoder;
use crate::http::coding::accept::AcceptedCodings;
use crate::http::coding::encode::CodingLevels;
use crate::http::coding::weaken_tag;
use crate::http::coding::{AppliedCoding, ContentCoding};
use crate::http::{cache_control, media};
use crate::pattern::Pattern;
use config::{CompressConfig, CompressEncoding, HotLevels, OriginEncoding};

/// What compression needs beside the configuration of a route.
pub struct CompressDependencies<'a> {
    /// That of the routes that have none of their own.
    pub defaults: Option<&'a CompressConfig>,
    pub encoder: &'a Arc<BodyEncoder>,
    /// The most octets of content that are decoded in memory.
    pub most: usize,
}

/// The compression of a route.
pub struct CompressRules {
    offered: Box<[ContentCoding]>,
    min_bytes: usize,
    types: Box<[Pattern]>,
    /// None: the client's own word.
    asks: Option<HeaderValue>,
    levels: CodingLevels,
    passes: PassedAnswers,
    /// The least length of an answer that is encoded while it is loaded. None: none is.
    stream_min: Option<u64>,
    hot: Option<HotLevels>,
    encoder: Arc<BodyEncoder>,
    most: usize,
}

/// What becomes of answers that are not stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum PassedAnswers {
    AsTheyAre,
    Encoded,
}

/// What a client said of codings, on a route that compresses. Requests that go further than the first
/// tier have it as an extension, in an `Arc`.
#[derive(Clone)]
pub struct ClientCodings {
    rules: Arc<CompressRules>,
    accepted: AcceptedCodings,
    /// The lines of its `Accept-Encoding`: the first one, and the others, which hardly anybody sends.
    own: (Option<HeaderValue>, Vec<HeaderValue>),
    transforming: ClientWish,
    method: Method,
    asks_for_range: bool,
}

/// Whether a client lets content be changed on its way (`no-transform`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ClientWish {
    Allowed,
    Forbidden,
}

/// The field by which answers of such a route vary.
const VARIES_BY: &str = "Accept-Encoding";
/// What ranges are asked for with: they are octets of the content without a coding.
const PLAIN: HeaderValue = HeaderValue::from_static("identity");

impl CompressRules {
    /// The compression of a route. None: it is off.
    pub fn new(own: Option<&CompressConfig>, with: &CompressDependencies<'_>) -> Option<Arc<Self>> {
        let config = own.or(with.defaults)?;
        if config.encodings.is_empty() {
            return None;
        }
        let lower = |text: &String| Pattern::new(&text.to_ascii_lowercase());
        Some(Arc::new(Self {
            offered: config.encodings.iter().map(|one| coding(*one)).collect(),
            min_bytes: config.min_bytes.as_usize(),
            types: config.types.iter().map(lower).collect(),
            asks: match config.origin {
                OriginEncoding::Gzip => Some(HeaderValue::from_static("gzip")),
                OriginEncoding::Identity => Some(PLAIN),
                OriginEncoding::Keep => None,
            },
            levels: CodingLevels {
                gzip: config.levels.gzip,
                brotli: config.levels.br,
                zstd: config.levels.zstd,
            },
            passes: match config.passes {
                true => PassedAnswers::Encoded,
                false => PassedAnswers::AsTheyAre,
            },
            stream_min: config.stream_min.map(|least| least.0),
            hot: config.hot,
            encoder: Arc::clone(with.encoder),
            most: with.most,
        }))
    }

    /// What the client of this request says, before its head is changed.
    pub fn client(self: &Arc<Self>, parts: &Parts) -> ClientCodings {
        let headers = &parts.headers;
        let lines = headers.get_all(ACCEPT_ENCODING);
        let accepted = AcceptedCodings::of_lines(lines.iter());
        let mut own = lines.iter().cloned();
        // Without a coding that it takes, these make no difference.
        let may_encode = accepted.takes_any();
        let is_forbidden = may_encode && cache_control::forbids_transforming(headers);
        ClientCodings {
            rules: Arc::clone(self),
            accepted,
            own: (own.next(), own.collect()),
            transforming: match is_forbidden {
                true => ClientWish::Forbidden,
                false => ClientWish::Allowed,
            },
            method: parts.method.clone(),
            asks_for_range: may_encode && headers.contains_key(RANGE),
        }
    }

    /// Replaces `Accept-Encoding` in the head of a request whose answer may come from the cache.
    pub fn clean(&self, parts: &mut Parts) {
        if let Some(asks) = &self.asks
            && matches!(parts.method, Method::GET | Method::HEAD)
        {
            parts.headers.insert(ACCEPT_ENCODING, asks.clone());
        }
    }

    /// Compression in words.
    pub fn describe(&self) -> String {
        let offered: Vec<_> = self.offered.iter().map(|coding| coding.as_str()).collect();
        let asks = match &self.asks {
            Some(asks) => format!(
                "the origin is asked for {}",
                String::from_utf8_lossy(asks.as_bytes())
            ),
            None => "the origin gets the client's Accept-Encoding".to_owned(),
        };
        let passes = match self.passes {
            PassedAnswers::Encoded => "; also what is not stored",
            PassedAnswers::AsTheyAre => "",
        };
        let streams = match self.stream_min {
            Some(_) => "; large answers while they are loaded",
            None => "",
        };
        let hot = match self.hot {
            Some(_) => "; once more, better, for what is asked for a lot",
            None => "",
        };
        let offered = offered.join(", ");
        format!("compress: {offered}; {asks}{passes}{streams}{hot}")
    }

    /// Whether content of this type is compressed.
    fn lists_type(&self, headers: &HeaderMap) -> bool {
        let Some(kind) = headers
            .get(CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok())
        else {
            return false;
        };
        let end = kind.bytes().position(|octet| octet == b';');
        let essence = kind[..end.unwrap_or(kind.len())].trim_ascii();
        let listed = |essence: &str| self.types.iter().any(|listed| listed.matches(essence));
        let listed = match essence.bytes().any(|octet| octet.is_ascii_uppercase()) {
            true => listed(&essence.to_ascii_lowercase()),
            false => listed(essence),
        };
        listed && !media::names_endless(essence.as_bytes())
    }

    /// Whether an answer with these fields varies by `Accept-Encoding`: others get it with another
    /// coding, or without one.
    fn varies(&self, headers: &HeaderMap, applied: AppliedCoding) -> bool {
        matches!(applied, AppliedCoding::One(_)) || self.lists_type(headers)
    }
}

impl ClientCodings {
    /// What the client of a request said. None: its route does not compress.
    pub fn of(request: &Parts) -> Option<&Arc<Self>> {
        request.extensions.get::<Arc<Self>>()
    }

    /// Gives a request whose answer is for all clients the word that the origin is asked with.
    pub fn ask_for_all(&self, headers: &mut HeaderMap) {
        if let Some(asks) = &self.rules.asks {
            headers.insert(ACCEPT_ENCODING, asks.clone());
        }
    }

    /// Whether the client takes content with these fields as it is.
    pub fn takes(&self, headers: &HeaderMap) -> bool {
        match AppliedCoding::of(headers) {
            AppliedCoding::One(coding) => self.accepted.takes(coding),
            // What we can't undo goes as it is.
            AppliedCoding::Identity | AppliedCoding::Other => true,
        }
    }
}

/// Gives a request whose answer is for its own client alone the client's own `Accept-Encoding`, and
/// none to a request for a range: it is about octets without a coding. A HEAD stays as the GET that
/// would be stored, since its answer may update the stored one.
pub fn ask_for_one(request: &Parts, headers: &mut HeaderMap) {
    let Some(client) = ClientCodings::of(request) else {
        return;
    };
    if client.rules.asks.is_none() || request.method == Method::HEAD {
        return;
    }
    headers.remove(ACCEPT_ENCODING);
    if headers.contains_key(RANGE) {
        headers.insert(ACCEPT_ENCODING, PLAIN);
        return;
    }
    let (first, others) = &client.own;
    for line in first.iter().chain(others) {
        headers.append(ACCEPT_ENCODING, line.clone());
    }
}

/// Whether the fields say that content must not be compressed on its way.
fn is_left_alone(headers: &HeaderMap) -> bool {
    static DIGESTS: [HeaderName; 3] = [
        HeaderName::from_static("content-digest"),
        HeaderName::from_static("repr-digest"),
        HeaderName::from_static("digest"),
    ];
    static BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
    cache_control::forbids_transforming(headers)
        || DIGESTS.iter().any(|name| headers.contains_key(name))
        || headers
            .get(&BUFFERING)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"no"))
}

/// Removes what describes other octets than those that are sent.
fn forget_octets(headers: &mut HeaderMap) {
    use http::header::{ACCEPT_RANGES, CONTENT_LENGTH};
    static OF_OCTETS: [HeaderName; 3] = [
        HeaderName::from_static("content-md5"),
        HeaderName::from_static("content-digest"),
        HeaderName::from_static("digest"),
    ];
    headers.remove(CONTENT_LENGTH);
    headers.remove(ACCEPT_RANGES);
    for name in &OF_OCTETS {
        headers.remove(name);
    }
    weaken_tag(headers);
}

fn coding(one: CompressEncoding) -> ContentCoding {
    match one {
        CompressEncoding::Br => ContentCoding::Brotli,
        CompressEncoding::Zstd => ContentCoding::Zstd,
        CompressEncoding::Gzip => ContentCoding::Gzip,
    }
}

#[cfg(test)]
mod tests;
