//! The step from hyper to the handler and back: guard, body limits, panics.

use std::convert::Infallible;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{Either, ready};
use http::header::{ALT_SVC, CONNECTION, CONTENT_TYPE, HOST, STRICT_TRANSPORT_SECURITY};
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode, Version};

use super::activity::InFlight;
use super::early::InterimChannel;
use super::handler::{HandlerAnswer, Peer, RequestArrival, RequestHandler};
use super::port::Port;
use super::served_body::{ServedBody, WantedAnswer};
use super::signal::DrainStage;
use crate::body::{
    Body, BodyError, BoundedBody, ListenerUploadLimits, MinimumRate, TimeLift, UploadTerms,
};
use crate::config::ListenerLimits;
use crate::forward::{
    self, CLIENT_CERT, CLIENT_CERT_CHAIN, CLIENT_JA4, ForwardingContext, HopFieldNames, PeerTrust,
    RequestSender, TrustedProxies,
};
use crate::frames::FragmentPaths;
use crate::grpc::AnswerDialect;
use crate::guard::framing::FramingFault;
use crate::guard::{self, RequestRefusal};
use crate::memory::stored::ReadsStored;
use crate::telemetry::limit::LineLimiter;
use crate::tls::{ClientCertificatePresented, TlsSession};

/// Answers the requests of one connection.
pub(super) struct ConnectionService<H> {
    pub(super) handler: H,
    pub(super) peer: Peer,
    pub(super) limits: Arc<ListenerLimits>,
    pub(super) port: Arc<Port>,
    pub(super) trust: Arc<TrustedProxies>,
    pub(super) early: InterimChannel,
    /// What is known of TLS, if the connection has it.
    pub(super) tls: Option<Arc<TlsSession>>,
    /// Paths that came with a fragment over HTTP/2.
    pub(super) fragments: Arc<FragmentPaths>,
}

impl<H> ConnectionService<H>
where
    H: RequestHandler,
{
    pub(super) fn answer<B>(
        &self,
        mut request: Request<B>,
        early: &InterimChannel,
    ) -> impl Future<Output = Result<Response<ServedBody>, Infallible>> + Send + use<H, B>
    where
        B: http_body::Body<Data = Bytes, Error: Into<BodyError>> + Send + 'static,
    {
        let in_flight = InFlight::begin(&self.early.activity);
        let mut upload = None;
        let peer = self.peer;
        let version = request.version();
        let wanted = WantedAnswer::by(request.method());
        let dialect = AnswerDialect::of(version, request.method(), request.headers());
        let admitted = match self.early.activity.fault() {
            None if self.fragments.take(request.uri()) => {
                Err(guard::broken(FramingFault::Fragment))
            }
            None => self.admit(&mut request),
            Some(fault) => Err(guard::broken(fault)),
        };
        let added = self.added_fields(version);
        let called = match admitted {
            // The call itself may panic, and so may its future.
            Ok((received, named)) => catch_unwind(AssertUnwindSafe(|| {
                let (mut head, incoming) = request.into_parts();
                let body = self.bounded(&mut head, incoming, named, &mut upload);
                let tls = self.tls.clone();
                let arrival = RequestArrival {
                    peer,
                    received,
                    tls,
                };
                (self.handler)(head, body, arrival, early)
            }))
            .map_err(|_| dialect.error(panicked(peer))),
            Err(refusal) => Err(dialect.error(refused(refusal, version))),
        };
        match called {
            Ok(HandlerAnswer::Now(response)) | Err(response) => Either::Left(ready(Ok(delivered(
                response, in_flight, upload, added, wanted,
            )))),
            Ok(HandlerAnswer::Later(answer)) => Either::Right(async move {
                let response = AssertUnwindSafe(answer).catch_unwind().await;
                let response = response.unwrap_or_else(|_| dialect.error(panicked(peer)));
                Ok(delivered(response, in_flight, upload, added, wanted))
            }),
        }
    }

    fn added_fields(&self, version: Version) -> AddedFields {
        let retires = version <= Version::HTTP_11 && self.port.signal.is(DrainStage::Retire);
        let connection = retires.then(|| HeaderValue::from_static("close"));
        let Some(tls) = &self.tls else {
            return AddedFields {
                connection,
                ..AddedFields::default()
            };
        };
        AddedFields {
            connection,
            hsts: tls.listener.hsts.clone(),
            alt_svc: Some((Arc::clone(&self.port), version)),
        }
    }

    /// The answer to a request that is refused before it is one for the handler.
    pub(super) fn refusal(
        &self,
        refusal: RequestRefusal,
        version: Version,
    ) -> Response<ServedBody> {
        let in_flight = InFlight::begin(&self.early.activity);
        let added = self.added_fields(version);
        let response = refused(refusal, version);
        delivered(response, in_flight, None, added, WantedAnswer::Whole)
    }

    /// Checks a request and normalises its head, or refuses it. Also returns the fields that
    /// `Connection` named.
    fn admit<B>(
        &self,
        request: &mut Request<B>,
    ) -> Result<(ForwardingContext, HopFieldNames), RequestRefusal> {
        guard::check(request, &self.limits)?;
        let version = request.version();
        let belief = match self.peer.trusted {
            true => PeerTrust::Proxy(&self.trust),
            false => PeerTrust::Nothing,
        };
        let scheme = match &self.tls {
            Some(tls) if !tls.may_serve(requested_host(request)) => return Err(MISDIRECTED),
            Some(_) => "https",
            None => "http",
        };
        let direct = RequestSender::direct(self.peer.address, scheme);
        let headers = request.headers_mut();
        let received = forward::receive(headers, version, direct, belief);
        let shown = self
            .tls
            .as_ref()
            .and_then(|tls| tls.client_certificate.as_ref());
        if let Some(tls) = &self.tls {
            let told = [
                (CLIENT_CERT_CHAIN, &tls.client_chain),
                (CLIENT_JA4, &tls.ja4_field),
            ];
            for (name, value) in told {
                headers.extend(value.clone().map(|value| (name, value)));
            }
        }
        if let Some(certificate) = shown {
            headers.insert(CLIENT_CERT, certificate.clone());
            request.extensions_mut().insert(ClientCertificatePresented);
        }
        Ok(received)
    }

    /// The body of a request under its limits. A request with a body gets an `upload`; when that is
    /// lifted, the limits of time end: an answer that is under way may need as much time of both
    /// sides as it likes.
    fn bounded<B>(
        &self,
        head: &mut Parts,
        incoming: B,
        named: HopFieldNames,
        upload: &mut Option<TimeLift>,
    ) -> Body
    where
        B: http_body::Body<Data = Bytes, Error: Into<BodyError>> + Send + 'static,
    {
        if incoming.is_end_stream() {
            return Body::empty();
        }
        let limits = &self.limits;
        let (size, pause) = (limits.max_body_bytes.0, limits.body_timeout.0);
        let terms = UploadTerms::new(ListenerUploadLimits {
            bytes: size,
            rate: limits.min_rate.0,
            grace: limits.min_rate_grace.0,
        });
        let body = BoundedBody::new(incoming, size, pause)
            .with_marked_end(head.version == Version::HTTP_2)
            .without_trailers(named)
            .at_pace(MinimumRate::of_client(limits))
            .within(limits.upload_timeout.0)
            .until_lifted(upload.insert(TimeLift::default()).clone())
            .by_terms(terms.clone());
        head.extensions.insert(terms);
        Body::boxed(body)
    }
}

/// The refusal of a request for a host that the connection is not for (RFC 9110 §15.5.20).
const MISDIRECTED: RequestRefusal = RequestRefusal {
    status: StatusCode::MISDIRECTED_REQUEST,
    reason: "this connection is not for the host of the request",
};

/// The host that a request is for; empty in HTTP/1.0 without one.
fn requested_host<B>(request: &Request<B>) -> &str {
    let host = || request.headers().get(HOST)?.to_str().ok();
    let authority = request
        .uri()
        .authority()
        .map(|authority| authority.as_str());
    authority.or_else(host).unwrap_or_default()
}

/// Fields that the listener adds to every response.
#[derive(Default)]
struct AddedFields {
    /// That the connection ends with this answer, if it does because its port retires.
    connection: Option<HeaderValue>,
    hsts: Option<HeaderValue>,
    /// The port that tells of HTTP/3, or when it drains, that there is none any more, and the
    /// protocol of the client: what counts is the moment of the answer. None on a listener without
    /// TLS, which leaves `Alt-Svc` alone.
    alt_svc: Option<(Arc<Port>, Version)>,
}

/// The final answer of a request, as hyper gets it.
fn delivered(
    mut response: Response<Body>,
    in_flight: InFlight,
    upload: Option<TimeLift>,
    added: AddedFields,
    wanted: WantedAnswer,
) -> Response<ServedBody> {
    in_flight.answered();
    if let Some(last) = added.connection
        && response.status() != StatusCode::SWITCHING_PROTOCOLS
    {
        response.headers_mut().insert(CONNECTION, last);
    }
    if let Some(hsts) = added.hsts {
        // That of an origin counts: there must never be two (RFC 6797 §8.1).
        response
            .headers_mut()
            .entry(STRICT_TRANSPORT_SECURITY)
            .or_insert(hsts);
    }
    if let Some((port, version)) = added.alt_svc {
        let told = match response.status() {
            StatusCode::MISDIRECTED_REQUEST => None,
            _ => port.alt_svc(version),
        };
        // That of an origin would lead clients past this listener.
        match told {
            Some(told) => drop(response.headers_mut().insert(ALT_SVC, told)),
            None => drop(response.headers_mut().remove(ALT_SVC)),
        }
    }
    if let Some(upload) = upload {
        upload.lift();
    }
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        in_flight.tunnel();
    }
    let extensions = response.extensions_mut();
    let reads = match extensions.is_empty() {
        true => None,
        false => extensions.remove::<ReadsStored>(),
    };
    let wanted = wanted.of(response.status());
    response.map(|body| ServedBody::new(body, in_flight, reads.as_ref(), wanted))
}

fn refused(refusal: RequestRefusal, version: Version) -> Response<Body> {
    tracing::debug!(
        status = refusal.status.as_u16(),
        reason = refusal.reason,
        "request refused"
    );
    let mut response = plain(refusal.status, refusal.reason);
    // It is unclear where the next request begins. A stream of HTTP/2 has an end of its own, and a
    // request for another host may be followed by one for the right host.
    let misdirected = refusal.status == StatusCode::MISDIRECTED_REQUEST;
    if version < Version::HTTP_2 && !misdirected {
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Limits the log lines about handlers that panicked.
static PANICS: LazyLock<LineLimiter> = LazyLock::new(|| LineLimiter::new(Instant::now()));

fn panicked(peer: Peer) -> Response<Body> {
    if let Some(unsaid) = PANICS.admit(Instant::now()) {
        tracing::error!(client = %peer.address, unsaid, "the handler of a request panicked");
    }
    plain(StatusCode::INTERNAL_SERVER_ERROR, "internal error")
}

fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::full(format!("{} {text}\n", status.as_u16())));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
