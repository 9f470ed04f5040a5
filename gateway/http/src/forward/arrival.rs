//! Normalises the head of a request on its arrival: route, key, `Vary`, plugins, log and origin
//! all use the head that is left here.
//!
//! It removes the fields of the connection and those that `Connection` names (RFC 9110 §7.6.1),
//! `Expect`, which the listener itself answers (§10.1.1), and every field by which a request poses as another, unless the listener trusts that field and
//! a trusted proxy sent it. One pass over the names finds them; a head without any is not changed.
//! `Cookie` becomes one line, in however many it came (RFC 9113 §8.2.3).

use http::header::COOKIE;
use http::{HeaderMap, HeaderName, HeaderValue, Version};
use smallvec::SmallVec;

use super::caller::RequestSender;
use super::hop::{self, HopFieldNames, HopWishes};
use super::names::{self, FieldRemovalReason};
use super::trust::TrustedProxies;

/// What a request said about its way here; its head no longer says it.
#[derive(Clone, Debug)]
pub struct ForwardingContext {
    pub caller: RequestSender,
    pub wishes: HopWishes,
    /// The host that a request named in `X-Host`, which is removed, since others would take it for
    /// the requested one. Requests to purge name in it whose pages they mean.
    pub named_host: Option<Box<HeaderValue>>,
}

/// The field in which requests to purge name a host.
pub const NAMED_HOST: HeaderName = HeaderName::from_static("x-host");

/// How far the peer of a connection is trusted.
#[derive(Clone, Copy, Debug)]
pub enum PeerTrust<'a> {
    /// A stranger: nothing that it says about others is trusted.
    Nothing,
    /// A proxy of ours.
    Proxy(&'a TrustedProxies),
}

/// Normalises the head of a request. Returns who sent it and what it asked of the connection, and
/// the fields that `Connection` named, which are needed for its trailers.
pub fn receive(
    headers: &mut HeaderMap,
    version: Version,
    direct: RequestSender,
    belief: PeerTrust<'_>,
) -> (ForwardingContext, HopFieldNames) {
    join_cookies(headers);
    if !headers.keys().any(|name| ends(name, belief)) {
        let wishes = HopWishes::default();
        let received = ForwardingContext {
            caller: direct,
            wishes,
            named_host: None,
        };
        return (received, HopFieldNames::new());
    }
    let all_names = headers.keys().filter(|name| ends(name, belief));
    let ending = all_names.cloned().collect::<Vec<_>>();
    let (wishes, named) = (HopWishes::of(headers, version), hop::named(headers));
    let caller = match belief {
        PeerTrust::Nothing => direct,
        PeerTrust::Proxy(trust) => direct.behind_proxy(headers, trust),
    };
    let named_host = ending.contains(&NAMED_HOST).then(|| named_host(headers));
    for name in ending.iter().chain(&named) {
        headers.remove(name);
    }
    let received = ForwardingContext {
        caller,
        wishes,
        named_host: named_host.flatten(),
    };
    (received, named)
}

/// What `X-Host` says; of several lines, all of them.
fn named_host(headers: &HeaderMap) -> Option<Box<HeaderValue>> {
    let lines = headers.get_all(NAMED_HOST).iter();
    let lines = lines.map(HeaderValue::as_bytes).collect::<Vec<_>>();
    HeaderValue::from_bytes(&lines.join(&b","[..]))
        .ok()
        .map(Box::new)
}

/// Joins the lines of `Cookie`, since HTTP/2 may send each cookie as a line of its own. A head
/// with several lines could be read in more than one way, whatever its protocol.
fn join_cookies(headers: &mut HeaderMap) {
    // Few heads have a field more than once.
    if headers.len() == headers.keys_len() {
        return;
    }
    let lines = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
    let lines = lines.collect::<SmallVec<[&[u8]; 8]>>();
    if lines.len() < 2 {
        return;
    }
    let one = lines.join(&b"; "[..]);
    drop(lines);
    // Values that are legal one by one are legal when joined.
    if let Ok(mut one) = HeaderValue::from_bytes(&one) {
        one.set_sensitive(true);
        headers.insert(COOKIE, one);
    }
}

/// Whether a field is removed here, whatever `Connection` names.
fn ends(name: &HeaderName, belief: PeerTrust<'_>) -> bool {
    match names::ending(name) {
        Some(FieldRemovalReason::HopByHop | FieldRemovalReason::Granted) => true,
        Some(FieldRemovalReason::Posing) => {
            !matches!(belief, PeerTrust::Proxy(trust) if trust.lists(name))
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;
    use crate::forward::tests::map;

    fn received(
        fields: &[(&'static str, &'static str)],
        belief: PeerTrust<'_>,
    ) -> (HeaderMap, ForwardingContext, HopFieldNames) {
        let mut headers = map(fields);
        let caller = RequestSender::direct("10.0.0.1:4711".parse().unwrap(), "http");
        let (received, named) = receive(&mut headers, Version::HTTP_11, caller, belief);
        (headers, received, named)
    }

    fn left(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        received(fields, PeerTrust::Nothing).0
    }

    #[test]
    fn connection_and_what_it_names_are_removed() {
        let fields = [
            ("connection", "close, X-One"),
            ("connection", "x-two,, Accept-Language"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("x-three", "3"),
            ("accept-language", "de"),
        ];
        let (headers, _, named) = received(&fields, PeerTrust::Nothing);
        assert_eq!(headers, map(&[("x-three", "3")]), "RFC 9110 §7.6.1");
        assert_eq!(named.len(), 3, "{named:?}");
    }

    #[test]
    fn known_hop_by_hop_fields_go_unnamed() {
        let headers = left(&[
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "close"),
            ("te", "gzip"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("http2-settings", "AAMAAABk"),
            ("proxy-authenticate", "Basic"),
            ("proxy-authorization", "Basic x"),
            ("trailer", "x-sum"),
        ]);
        assert_eq!(headers, map(&[("trailer", "x-sum")]), "RFC 9110 §7.6.1");
    }

    #[test]
    fn an_expectation_ends_where_it_is_answered() {
        let headers = left(&[("expect", "100-continue"), ("content-length", "5")]);
        let granted = map(&[("content-length", "5")]);
        assert_eq!(headers, granted, "RFC 9110 §10.1.1");
    }

    #[test]
    fn connection_cannot_remove_what_is_for_everybody() {
        let fields = [
            ("authorization", "Basic x"),
            ("host", "a"),
            ("cookie", "a=1"),
            ("cache-control", "no-store"),
            ("content-length", "5"),
            ("if-none-match", "*"),
            ("range", "bytes=0-"),
            ("via", "1.1 a"),
            ("cdn-loop", "a"),
        ];
        let names = fields.map(|(name, _)| name).join(",");
        let mut headers = map(&fields);
        headers.insert("connection", HeaderValue::from_str(&names).unwrap());
        let caller = RequestSender::direct("10.0.0.1:4711".parse().unwrap(), "http");
        receive(&mut headers, Version::HTTP_11, caller, PeerTrust::Nothing);
        assert_eq!(headers, map(&fields));
    }

    #[test]
    fn the_host_that_a_purge_names_is_told_beside_the_head() {
        let fields = [("x-host", "shop.example"), ("x-url", "^/a")];
        let (headers, received, _) = received(&fields, PeerTrust::Nothing);
        assert!(!headers.contains_key("x-host") && headers.contains_key("x-url"));
        assert_eq!(received.named_host.as_deref().unwrap(), "shop.example");
    }

    #[test]
    fn what_poses_is_removed_from_everybody_unless_it_is_listed_and_a_proxy_says_it() {
        let fields = [
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-prefix", "/a"),
            ("x_forwarded_prefix", "/b"),
            ("x-original-url", "/admin"),
            ("x-real-ip", "1.1.1.1"),
            ("accept", "*/*"),
            ("connection", "x-forwarded-prefix"),
        ];
        let listed = ["X-Forwarded-Prefix".to_owned()];
        let trust = TrustedProxies::new(&["10.0.0.0/8".to_owned()], &listed).unwrap();
        let nothing_listed = TrustedProxies::new(&["10.0.0.0/8".to_owned()], &[]).unwrap();
        let plain = map(&[("accept", "*/*")]);
        assert_eq!(left(&fields), plain);
        let (headers, ..) = received(&fields, PeerTrust::Proxy(&nothing_listed));
        assert_eq!(headers, plain);
        let (headers, from, _) = received(&fields, PeerTrust::Proxy(&trust));
        let believed = map(&[("accept", "*/*"), ("x-forwarded-prefix", "/a")]);
        assert_eq!(
            headers, believed,
            "a client cannot take away what a proxy set"
        );
        assert_eq!(from.caller.client(), "1.1.1.1".parse().ok());
    }

    #[test]
    fn cookies_are_one_line_in_their_order() {
        let fields = [
            ("cookie", "a=1"),
            ("accept", "*/*"),
            ("cookie", "b=2; c=3"),
            ("x", "1"),
            ("x", "2"),
        ];
        let headers = left(&fields);
        let one = [
            ("accept", "*/*"),
            ("cookie", "a=1; b=2; c=3"),
            ("x", "1"),
            ("x", "2"),
        ];
        assert_eq!(headers, map(&one), "RFC 9113 §8.2.3");
    }

    #[test]
    fn a_head_that_is_one_already_stays_as_it_is() {
        let fields = [("host", "a"), ("accept", "*/*"), ("user-agent", "x")];
        let (headers, received, named) = received(&fields, PeerTrust::Nothing);
        assert_eq!(headers, map(&fields));
        assert_eq!(received.wishes, HopWishes::default());
        assert!(named.is_empty());
    }

    proptest! {
        /// Guards against a second pass over `Connection` that would find something new.
        #[test]
        fn what_is_received_once_is_received(value in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let mut headers = map(&[("host", "a"), ("authorization", "b"), ("x", "c")]);
                headers.insert("connection", value.clone());
                headers.insert("upgrade", value.clone());
                headers.insert("te", value);
                let caller = RequestSender::direct("10.0.0.1:4711".parse().unwrap(), "http");
                receive(&mut headers, Version::HTTP_11, caller.clone(), PeerTrust::Nothing);
                let once = headers.clone();
                receive(&mut headers, Version::HTTP_11, caller, PeerTrust::Nothing);
                prop_assert_eq!(&headers, &once);
                prop_assert!(headers.contains_key("host") && headers.contains_key("authorization"));
            }
        }
    }
}
