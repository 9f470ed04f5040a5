//! A record whose request is under way. Its readers get it however the request ends.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::CONTENT_ENCODING;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response};
use http_body::{Body as _, Frame, SizeHint};

use super::recorded_head::RecordedHead;
use super::trail::RequestTrail;
use super::{
    AnswerHead, HitRecord, MOST_AGENT, MOST_HOST, MOST_PATH, RequestRecord, RequestRecorder, cut,
};
use crate::http::body::{Body, BodyError};
use crate::http::cache_status::CACHE_STATUS;
use crate::http::grpc;
use crate::proxy::counted::CountedResponse;

/// A record that its readers get when this is dropped.
pub struct PendingRecord {
    /// Some until it is dropped.
    record: Option<Box<RequestRecord>>,
    recorder: RequestRecorder,
    of_a_hit: HitRecord,
}

impl PendingRecord {
    pub(super) fn new(
        record: RequestRecord,
        recorder: RequestRecorder,
        of_a_hit: HitRecord,
    ) -> Self {
        Self {
            record: Some(Box::new(record)),
            recorder,
            of_a_hit,
        }
    }

    /// Whether it is kept also if the request turns out to be a hit.
    pub fn is_of_a_sample(&self) -> bool {
        self.of_a_hit == HitRecord::Kept
    }

    /// Keeps the head as the key plugin of this name saw it, if the request is kept among the last
    /// ones.
    pub fn keep_head(&mut self, plugin: &str, parts: &Parts, host: &str) {
        if self.recorder.recent.keeps_any() {
            let head = RecordedHead::of(plugin, parts, host).map(Box::new);
            self.change(|record| record.head = head);
        }
    }

    /// Notes why the request is refused.
    pub fn because(mut self, refused: &impl ToString) -> Self {
        self.change(|record| record.refused = Some(cut(&refused.to_string(), MOST_PATH)));
        self
    }

    /// Notes who has sent the request; at most 255 octets of the name.
    pub(in crate::proxy) fn sent_by(mut self, user: Option<Arc<str>>) -> Self {
        if let Some(user) = user {
            self.change(|record| record.user = Some(cut(&user, MOST_HOST)));
        }
        self
    }

    /// The trail on which all events from now on are noted.
    pub fn trail(&mut self) -> Option<Arc<RequestTrail>> {
        let record = self.record.as_deref_mut()?;
        let started = record.started;
        let trail = record
            .trail
            .get_or_insert_with(|| Arc::new(RequestTrail::new(record.id, started)));
        Some(Arc::clone(trail))
    }

    /// Notes the answer. The record ends with the body of the answer; if the body is already
    /// complete, it ends now.
    pub(in crate::proxy) fn answered(mut self, served: CountedResponse) -> Response<Body> {
        let CountedResponse {
            response,
            outcome,
            rule,
        } = served;
        let whole = matches!(response.body(), Body::Empty | Body::Full(_));
        let length = response.body().size_hint().exact();
        self.change(|record| {
            let headers = response.headers();
            record.answer = Some(AnswerHead {
                status: response.status().as_u16(),
                outcome,
                rule,
                after: record.started.elapsed(),
                // Ours is the last one; those before it are of caches nearer to the origin.
                cache_status: headers.get_all(CACHE_STATUS).iter().next_back().map(text),
                encoding: headers.get(CONTENT_ENCODING).map(text),
            });
            record.grpc_status = grpc_status(headers);
            if whole {
                record.bytes = length.unwrap_or(0);
                record.complete = true;
            }
        });
        match whole {
            true => response,
            false => response.map(|body| {
                Body::boxed(RecordedBody {
                    body,
                    pending: self,
                })
            }),
        }
    }

    fn change(&mut self, change: impl FnOnce(&mut RequestRecord)) {
        if let Some(record) = self.record.as_deref_mut() {
            change(record);
        }
    }
}

impl Drop for PendingRecord {
    fn drop(&mut self) {
        if let Some(mut record) = self.record.take() {
            record.total = record.started.elapsed();
            self.recorder.ended(record, self.of_a_hit);
        }
    }
}

/// The status of a gRPC call: in the trailers, or in the head if nothing follows it.
fn grpc_status(fields: &HeaderMap) -> Option<String> {
    let status = grpc::status(fields)?;
    Some(text(status).into())
}

/// A copy of a value, since the value itself may be a slice of a large read buffer; at most 512
/// octets of it.
fn text(value: &HeaderValue) -> Box<str> {
    match str::from_utf8(value.as_bytes()) {
        Ok(text) => cut(text, MOST_AGENT),
        Err(_) => cut(&String::from_utf8_lossy(value.as_bytes()), MOST_AGENT),
    }
}

/// A streaming body that carries the record of its request.
struct RecordedBody {
    body: Body,
    pending: PendingRecord,
}

impl http_body::Body for RecordedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Self { body, pending } = self.get_mut();
        let polled = Pin::new(&mut *body).poll_frame(cx);
        // A body of known length may never be polled past its last byte.
        let is_through = body.size_hint().exact() == Some(0);
        pending.change(|record| {
            record.complete |= is_through;
            match &polled {
                Poll::Ready(Some(Ok(frame))) => {
                    record.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                    if let Some(trailers) = frame.trailers_ref() {
                        // Nothing follows the trailers, and not every reader polls again.
                        record.complete = true;
                        let ended = grpc_status(trailers);
                        record.grpc_status = ended.or(record.grpc_status.take());
                    }
                }
                Poll::Ready(None) => record.complete = true,
                Poll::Ready(Some(Err(_))) | Poll::Pending => {}
            }
        });
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
