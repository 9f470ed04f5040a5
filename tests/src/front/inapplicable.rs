//! What the suites say in clear text and cannot say over another front: the one list, with reasons.
//!
//! Everything else must come out the same. A case of the RFC tables that is listed and holds all the
//! same is a fault, so that the list stays true.

use super::Front;

/// A case, or a table of cases, that does not apply.
pub struct Inapplicable {
    /// As reports call it.
    pub what: &'static str,
    pub over: &'static [Front],
    pub why: &'static str,
}

const MULTIPLEXED: &[Front] = &[Front::TlsHttp2, Front::Http3];

/// Of a field that names a connection, or is of one.
const MALFORMED: &str = "such a field makes a request malformed (RFC 9113 §8.2.2, RFC 9114 §4.2): \
    `attack_http2` and `h3_frames` look at that";

macro_rules! inapplicable {
    ($($what:literal, $over:expr, $why:expr;)+) => {
        &[$(Inapplicable { what: $what, over: $over, why: $why },)+]
    };
}

/// All of them.
pub const ALL: &[Inapplicable] = inapplicable! {
    "rfc8586 §2: Connection cannot remove it", MULTIPLEXED, MALFORMED;
    "rfc9110 §7.6.1: a field that Connection names ends here", MULTIPLEXED, MALFORMED;
    "rfc9110 §7.6.1: known fields of one connection end here unnamed", MULTIPLEXED, MALFORMED;
    "rfc9110 §7.6.1: Connection cannot name a field that is for everybody", MULTIPLEXED, MALFORMED;
    "rfc9110 §7.8: Upgrade that Connection does not name is not forwarded", MULTIPLEXED, MALFORMED;
    "rfc9110 §7.6.3: the version is the one in which the message came", MULTIPLEXED,
        "it is about HTTP/1.0";
    "rfc9110 §7.7: an empty path before a query goes on as a slash", MULTIPLEXED,
        "a client writes the slash itself (RFC 9113 §8.3.1, RFC 9114 §4.3.1)";
    "rfc9110 §15.2: an interim response that nobody asked us for reaches the client", &[Front::TlsHttp2],
        "only 100 is sent there: hyper does not tell which stream a request has, and clients lose nothing";
    "attack::http1, attack::http1_bodies", MULTIPLEXED,
        "bytes of HTTP/1; `attack_http2` and `h3_frames` have the like";
    "attack::http2, attack::http2_floods", &[Front::TlsHttp1, Front::Http3],
        "frames of HTTP/2; `h3_frames` and `h3_limits` have the like";
};

/// Why this does not apply over the front; none if it does.
pub fn why(what: &str, front: Front) -> Option<&'static str> {
    let listed = |one: &&Inapplicable| one.what == what && one.over.contains(&front);
    ALL.iter().find(listed).map(|one| one.why)
}
