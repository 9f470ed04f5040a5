//! Copies of requests for a second upstream, whose answers nobody sees: to try a new version with
//! real traffic.
//!
//! What goes to the origin is copied, so hits are not. Where all requests are to be copied, those
//! without a body are copied when they arrive, hits among them; a request with a body is copied on
//! its way to the origin in either case, while the origin reads it, and the copy is sent when all of
//! the body is there. Nobody waits for a copy. A bounded number of copies is under way, those whose
//! body is still arriving among them, so their memory is bounded, too; what is above that is dropped
//! and counted, as is a copy whose body takes too long to arrive.

pub mod config;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::UPGRADE;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use http_body::{Body as _, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

use config::{MirrorConfig, MirroredRequests};

use super::metrics::MirrorCounts;
use crate::http::body::{Body, BodyError};
use crate::origin::Origin;
use crate::random;

/// Tells an origin that a request is a copy.
const MIRRORED: HeaderName = HeaderName::from_static("x-lamina-mirror");

/// The most bytes of an answer to a copy that are read, so that its connection can be used again.
const MOST_READ: usize = 1 << 20;

/// How long the body of a copy may take to arrive: a stream without an end would keep its place for
/// as long as it lasts.
const MOST_WAITING: Duration = Duration::from_secs(10);

/// Where copies of a route's requests go.
pub struct RequestMirror {
    to: Arc<Origin>,
    of: MirroredRequests,
    percent: u8,
    most_body: usize,
    places: Arc<Semaphore>,
    counts: MirrorCounts,
}

/// A body that is copied while it is read.
struct CopiedBody {
    body: Body,
    /// None: the copy was sent or given up.
    waiting: Arc<Mutex<Option<WaitingCopy>>>,
    /// Gives the copy up when it has waited for too long.
    patience: JoinHandle<()>,
}

/// A copy that waits for the rest of its body.
struct WaitingCopy {
    mirror: Arc<RequestMirror>,
    request: Request<()>,
    /// What has arrived of the body.
    body: BytesMut,
    place: OwnedSemaphorePermit,
}

impl RequestMirror {
    /// Creates it for copies to this upstream.
    pub fn new(config: &MirrorConfig, to: Arc<Origin>, counts: MirrorCounts) -> Arc<Self> {
        Arc::new(Self {
            to,
            of: config.of,
            percent: config.percent,
            most_body: usize::try_from(config.body.0).unwrap_or(usize::MAX),
            places: Arc::new(Semaphore::new(config.max_in_flight as usize)),
            counts,
        })
    }

    /// Whether a copy of a request is made when it arrives, before it is known who answers it.
    pub fn copies_arrived(&self, parts: &Parts, body: &Body) -> bool {
        self.of == MirroredRequests::All
            && body.is_empty()
            && self.is_meant(&parts.method, &parts.headers, body)
            && self.is_chosen()
    }

    /// Sends a copy of an arrived request as the origin would get it.
    pub fn copy_arrived(self: &Arc<Self>, request: &Request<Body>) {
        if let Some(place) = self.place() {
            self.send(copied(request).map(|()| Body::empty()), place);
        }
    }

    /// Sends a copy of this request, which goes to the origin, if it is one of those that are
    /// copied. Returns the request.
    pub fn copy(self: &Arc<Self>, request: Request<Body>) -> Request<Body> {
        let has_body = !request.body().is_empty();
        let was_copied = self.of == MirroredRequests::All && !has_body;
        let is_meant = self.is_meant(request.method(), request.headers(), request.body());
        if was_copied || !is_meant || !self.is_chosen() {
            return request;
        }
        if request.body().size_hint().lower() > self.most_body as u64 {
            self.counts.dropped();
            return request;
        }
        let Some(place) = self.place() else {
            return request;
        };
        let copy = copied(&request);
        if !has_body {
            self.send(copy.map(|()| Body::empty()), place);
            return request;
        }
        let waiting = WaitingCopy {
            mirror: Arc::clone(self),
            request: copy,
            body: BytesMut::new(),
            place,
        };
        request.map(|body| Body::boxed(CopiedBody::new(body, waiting)))
    }

    /// A place for one copy, until its answer is read. None: there is none, which is counted.
    fn place(&self) -> Option<OwnedSemaphorePermit> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok();
        if place.is_none() {
            self.counts.dropped();
        }
        place
    }

    fn is_meant(&self, method: &Method, headers: &HeaderMap, body: &Body) -> bool {
        let is_read = matches!(*method, Method::GET | Method::HEAD);
        let takes = self.most_body > 0 || (is_read && body.is_empty());
        takes && !headers.contains_key(UPGRADE)
    }

    fn is_chosen(&self) -> bool {
        random::number() % 100 < self.percent.into()
    }

    /// Sends a copy and reads its answer, which is for nobody.
    fn send(self: &Arc<Self>, request: Request<Body>, place: OwnedSemaphorePermit) {
        let mirror = Arc::clone(self);
        tokio::spawn(async move {
            let _place = place;
            match mirror.to.send(request).await {
                Ok(response) => {
                    mirror.counts.sent();
                    discard(response.into_body()).await;
                }
                Err(error) => {
                    mirror.counts.failed();
                    tracing::debug!(%error, "a copy of a request failed");
                }
            }
        });
    }

    /// Which requests are copied.
    pub fn of(&self) -> MirroredRequests {
        self.of
    }

    /// The mirror in words.
    pub fn describe(&self) -> String {
        format!(
            "mirror: {} percent of {}, to {}",
            self.percent,
            match self.of {
                MirroredRequests::Origin => "what goes to the origin",
                MirroredRequests::All => "all requests",
            },
            self.to.name()
        )
    }
}

/// The head of a copy.
fn copied(request: &Request<Body>) -> Request<()> {
    let mut copy = Request::new(());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy.headers_mut()
        .insert(MIRRORED, HeaderValue::from_static("1"));
    copy
}

/// Reads a body to its end, but not for longer than its beginning is worth.
async fn discard(mut body: Body) {
    let mut read = 0;
    while let Some(Ok(frame)) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await
    {
        read += frame.data_ref().map_or(0, Bytes::len);
        if read > MOST_READ {
            return;
        }
    }
}

impl CopiedBody {
    fn new(body: Body, waiting: WaitingCopy) -> Self {
        let waiting = Arc::new(Mutex::new(Some(waiting)));
        let late = Arc::clone(&waiting);
        let patience = tokio::spawn(async move {
            tokio::time::sleep(MOST_WAITING).await;
            give_up(&late);
        });
        Self {
            body,
            waiting,
            patience,
        }
    }

    fn keep(&self, data: &Bytes) {
        let mut waiting = self.waiting.lock();
        let Some(copy) = &mut *waiting else {
            return;
        };
        if copy.body.len() + data.len() > copy.mirror.most_body {
            drop(waiting);
            return give_up(&self.waiting);
        }
        copy.body.extend_from_slice(data);
    }

    fn ended(&self) {
        if let Some(copy) = self.waiting.lock().take() {
            let request = copy.request.map(|()| Body::full(copy.body.freeze()));
            copy.mirror.send(request, copy.place);
        }
    }
}

/// Drops a copy that still waits, and counts that.
fn give_up(waiting: &Mutex<Option<WaitingCopy>>) {
    if let Some(copy) = waiting.lock().take() {
        copy.mirror.counts.dropped();
    }
}

impl Drop for CopiedBody {
    fn drop(&mut self) {
        self.patience.abort();
        give_up(&self.waiting);
    }
}

impl http_body::Body for CopiedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    this.keep(data);
                }
                // A body of known length may never be polled past its last byte.
                if this.body.is_end_stream() {
                    this.ended();
                }
            }
            Poll::Ready(None) => this.ended(),
            Poll::Ready(Some(Err(_))) => give_up(&this.waiting),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
