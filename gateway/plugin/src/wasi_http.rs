//! Components that export `wasi:http/incoming-handler` (0.2) serve as loaders without changes.
//!
//! Each request gets an instance of its own. The requests that the instance makes follow the same
//! allow-list, limits and deadline as the import `fetch`: the host of a URL must be the name of a
//! granted upstream, or the host and port of one of its targets.

use std::any::Any;
use std::mem;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{CONTENT_LENGTH, HOST};
use http::uri::Authority;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use tokio::sync::oneshot;
use wasmtime::Store;
use wasmtime::component::InstancePre;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::p2::body::{HostOutgoingBody, HyperOutgoingBody, StreamContext};
use wasmtime_wasi_http::{
    Error as HttpError, RequestOptions, WasiBody, WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
};

use super::check;
use super::error::CallError;
use super::fetch::{FetchAllowance, FetchCall, FetchError, FetchLimit, fetch_deadline};
use super::guest::GuestState;
use super::load_request::LoadRequest;
use super::seen::{HandedOnFields, RequestReads};
use super::{LoadDecision, LoadedResponse};

/// What a guest may request during a call.
#[derive(Default)]
pub(super) struct OutgoingAccess(Option<OutgoingGrant>);

struct OutgoingGrant {
    fetches: FetchAllowance,
    deadline: Instant,
    handed: HandedOnFields,
}

type WasiSendResult = Result<(Response<WasiBody>, WasiSendFuture), HttpError>;
type WasiSendFuture = Box<dyn Future<Output = Result<(), HttpError>> + Send>;

/// Checks that the component has the handler's types.
pub(super) fn handler(
    component: &InstancePre<GuestState>,
) -> wasmtime::Result<ProxyPre<GuestState>> {
    ProxyPre::new(component.clone())
}

/// Has the component answer a request.
pub(super) async fn answer(
    store: &mut Store<GuestState>,
    handler: &ProxyPre<GuestState>,
    request: &Arc<LoadRequest>,
    (fetches, deadline): (FetchAllowance, Instant),
) -> Result<(LoadDecision, RequestReads), CallError> {
    let max_body = fetches.max_body;
    let granted = OutgoingGrant {
        fetches,
        deadline,
        handed: HandedOnFields::of(Arc::clone(request)),
    };
    store.data_mut().wasi().outgoing = OutgoingAccess(Some(granted));
    let (sender, receiver) = oneshot::channel();
    let guest = async {
        let proxy = handler.instantiate_async(&mut *store).await?;
        let mut http = store.data_mut().http();
        let scheme = match request.scheme == http::uri::Scheme::HTTPS {
            true => Scheme::Https,
            false => Scheme::Http,
        };
        let request = http.new_incoming_request(scheme, for_guest(request)?)?;
        let out = http.new_response_outparam(sender)?;
        let handler = proxy.wasi_http_incoming_handler();
        handler.call_handle(&mut *store, request, out).await
    };
    let mut response = pin!(received(receiver, max_body));
    // The body is read while the guest still runs. If it fails, the guest is not awaited any
    // longer.
    let ran = {
        let mut guest = pin!(guest);
        tokio::select! {
            ran = &mut guest => ran.map(|()| None),
            response = &mut response => match response {
                Ok(response) => guest.await.map(|()| Some(response)),
                Err(error) => return Err(error),
            },
        }
    };
    let response = match ran.map_err(|error| store.data().explain(&error))? {
        Some(response) => response,
        None => {
            // A body that the guest has not finished will never be finished, since it does not run
            // any more.
            let mut held = mem::take(&mut store.data_mut().wasi().table);
            held.iter_mut().for_each(abort);
            drop(held);
            response.await?
        }
    };
    let granted = mem::take(&mut store.data_mut().wasi().outgoing).0;
    let seen = granted.map_or_else(RequestReads::default, |granted| granted.handed.seen());
    Ok((LoadDecision::Response(response), seen))
}

/// Marks a body that was begun and not finished as cut off, so that it does not look complete.
fn abort(held: &mut (dyn Any + Send)) {
    if let Some(body) = held.downcast_mut::<HostOutgoingBody>() {
        let (none, _) = HostOutgoingBody::new(StreamContext::Response, None, 1, 1);
        mem::replace(body, none).abort();
    }
}

fn for_guest(request: &LoadRequest) -> wasmtime::Result<Request<WasiBody>> {
    let body = Full::new(request.body.clone()).map_err(|never| match never {});
    let mut given = Request::new(body.boxed_unsync());
    *given.method_mut() = request.method.clone();
    *given.headers_mut() = request.headers.clone();
    given.headers_mut().remove(HOST);
    // An HTTP/1.0 client need not name a host, but guests expect one.
    let host = request.host.parse();
    let host = host.unwrap_or(Authority::from_static("localhost"));
    let uri = http::Uri::builder()
        .scheme(request.scheme.clone())
        .authority(host)
        .path_and_query(request.path_and_query.clone());
    *given.uri_mut() = uri.build()?;
    Ok(given)
}

async fn received(
    response: oneshot::Receiver<Result<Response<HyperOutgoingBody>, ErrorCode>>,
    max_body: usize,
) -> Result<LoadedResponse, CallError> {
    let response = response
        .await
        .map_err(|_| CallError::invalid("it gave no response"))?
        .map_err(|code| CallError::invalid(format!("it answered with the error {code:?}")))?;
    let (mut head, body) = response.into_parts();
    let body = Limited::new(body, max_body).collect().await;
    let body = body.map_err(|error| CallError::invalid(format!("its body: {error}")))?;
    let body = body.to_bytes();
    if head.status.is_informational() {
        return Err(CallError::invalid(format!("the status {}", head.status)));
    }
    let names: Vec<_> = head.headers.keys().cloned().collect();
    for name in names
        .iter()
        .filter(|name| check::is_of_the_connection(name))
    {
        head.headers.remove(name);
    }
    if !matches!(
        head.status,
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
    ) {
        head.headers.insert(CONTENT_LENGTH, body.len().into());
    }
    Ok(LoadedResponse {
        status: head.status,
        headers: head.headers,
        body,
        ttl: None,
        tags: Vec::new(),
    })
}

impl WasiHttpView for GuestState {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        let wasi = self.wasi();
        WasiHttpCtxView {
            hooks: &mut wasi.outgoing,
            table: &mut wasi.table,
            ctx: &mut wasi.http,
        }
    }
}

impl WasiHttpHooks for OutgoingAccess {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _: WasiSendFuture,
    ) -> Box<dyn Future<Output = WasiSendResult> + Send> {
        let admitted = self.admit(&request, options);
        Box::new(async move {
            let (fetches, upstream, deadline) = admitted?;
            let response = sent(&fetches, upstream, request, deadline).await?;
            let ended: WasiSendFuture = Box::new(async { Ok(()) });
            Ok((response, ended))
        })
    }
}

impl OutgoingAccess {
    /// The upstream of a request; subtracts the request from the fetches that are left.
    fn admit(
        &mut self,
        request: &Request<WasiBody>,
        options: Option<RequestOptions>,
    ) -> Result<(FetchAllowance, Arc<str>, Instant), HttpError> {
        let granted = self.0.as_mut().ok_or(HttpError::HttpRequestDenied)?;
        let fetches = &mut granted.fetches;
        let uri = request.uri();
        let upstream = uri
            .authority()
            .and_then(|host| fetches.upstream_at(uri.scheme_str(), host));
        let Some(upstream) = upstream else {
            fetches.denied(uri.authority().map_or("", Authority::as_str));
            return Err(HttpError::HttpRequestDenied);
        };
        fetches
            .take_one()
            .ok_or(HttpError::ConnectionLimitReached)?;
        granted.handed.note(request.headers(), uri.query());
        let timeout = options.and_then(|options| options.first_byte_timeout);
        let timeout = timeout.and_then(|timeout| u32::try_from(timeout.as_millis()).ok());
        let deadline = fetch_deadline(Instant::now(), granted.deadline, timeout);
        Ok((fetches.clone(), upstream, deadline))
    }
}

async fn sent(
    fetches: &FetchAllowance,
    upstream: Arc<str>,
    request: Request<WasiBody>,
    deadline: Instant,
) -> Result<Response<WasiBody>, HttpError> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, fetches.max_body).collect();
    let body = body.map(|read| match read {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(error) => {
            if error.is::<LengthLimitError>() {
                fetches.met(FetchLimit::Body);
            }
            Err(HttpError::HttpRequestBodySize(None))
        }
    });
    let body: Bytes = tokio::time::timeout_at(deadline.into(), body)
        .await
        .map_err(|_| HttpError::ConnectionWriteTimeout)??;
    let mut request = Request::new(body);
    *request.method_mut() = head.method;
    let path = head.uri.path_and_query().cloned();
    *request.uri_mut() = path.map_or_else(http::Uri::default, http::Uri::from);
    for (name, value) in &head.headers {
        if *name != HOST && !check::is_of_the_connection(name) {
            request.headers_mut().append(name, value.clone());
        }
    }
    let call = FetchCall {
        upstream,
        request,
        max_body: fetches.max_body,
        deadline,
    };
    let answer = tokio::time::timeout_at(deadline.into(), (fetches.send)(call)).await;
    let answer = answer.unwrap_or(Err(FetchError::Timeout));
    let mut answer = answer.map_err(|error| match error {
        FetchError::Timeout => HttpError::ConnectionReadTimeout,
        FetchError::TooLarge => {
            fetches.met(FetchLimit::Body);
            HttpError::HttpResponseIncomplete
        }
        FetchError::Unavailable(_) => HttpError::DestinationUnavailable,
    })?;
    let names: Vec<_> = answer.headers().keys().cloned().collect();
    for name in names
        .iter()
        .filter(|name| check::is_of_the_connection(name))
    {
        answer.headers_mut().remove(name);
    }
    Ok(answer.map(|body| {
        Full::new(body)
            .map_err(|never| match never {})
            .boxed_unsync()
    }))
}
