//! The answer of a request over HTTP/3, written to its stream.
//!
//! A client that takes too little of it is given up: the same limits hold as for a stream of
//! HTTP/2. Waiting counts, however the client makes us wait: its own window, that of the
//! connection, or acknowledgements that do not come.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, DATE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::Body as _;
use quinn::{SendStream, VarInt, WriteError};
use tokio::select;
use tokio::time::{Instant, timeout, timeout_at};

use super::Http3Connection;
use super::order::{AnswerTurn, OutrankedWatch};
use crate::body::TakenAhead;
use crate::http3::frame::kind;
use crate::http3::{qpack, varint};
use crate::server::quic::metrics::{Http3Guard, QuicMetrics};
use crate::server::sending::AnswerProgress;
use crate::server::served_body::{ServedBody, WantedAnswer};

/// Why the client did not get all of an answer.
pub(super) enum NotDelivered {
    /// It stopped the answer, took too little of it, or is gone.
    ToThisClient,
    /// The answer broke off, whoever had asked for it.
    ToAnybody,
}

/// The most bytes that are handed to the connection at a time.
const PIECE: usize = 64 << 10;

/// How long it may take until a client has acknowledged the end of an answer.
const LAST_ACKNOWLEDGED: Duration = Duration::from_secs(30);

/// How long an answer may wait while others go first. Such waiting is not the client's slowness.
const MOST_OUTRANKED: Duration = Duration::from_secs(600);

/// How long what came of an answer that broke off has to reach the client: twice the time of a round
/// trip, within these bounds.
const LEAST_TO_ARRIVE: Duration = Duration::from_millis(5);
const MOST_TO_ARRIVE: Duration = Duration::from_secs(1);

/// `H3_INTERNAL_ERROR`: the answer broke off.
const BROKE_OFF: VarInt = VarInt::from_u32(0x102);

/// Sends an answer, `before` it the sections of interim ones.
pub(super) async fn send(
    stream: &mut SendStream,
    turn: &mut AnswerTurn,
    before: Vec<Bytes>,
    response: Response<ServedBody>,
    wanted: WantedAnswer,
    shared: &Http3Connection,
) -> Result<(), NotDelivered> {
    let (mut parts, body) = response.into_parts();
    let bare = wanted == WantedAnswer::HeadAlone
        || matches!(
            parts.status,
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        );
    if let (Some(length), false) = (body.size_hint().exact(), bare) {
        let headers = &mut parts.headers;
        headers
            .entry(CONTENT_LENGTH)
            .or_insert_with(|| length.into());
    }
    parts.headers.entry(DATE).or_insert_with(date);
    let section = qpack::encode_response(parts.status, &parts.headers);
    let mut writer = AnswerWriter {
        stream,
        turn,
        pace: TakenAhead::of_client(&shared.limits),
        pause: shared.limits.body_timeout.0,
        progress: body.progress(),
        waiting: before
            .iter()
            .map(|section| &section[..])
            .chain([&section[..]])
            .map(|section| frame(kind::HEADERS, section))
            .collect(),
        shared,
    };
    let sent = match bare || body.is_end_stream() {
        true => writer.flush().await,
        false => writer.body(body).await,
    };
    if let Err(why) = sent {
        if matches!(why, NotDelivered::ToAnybody) {
            writer.let_it_arrive().await;
        }
        // Fails only if it has ended.
        let _ = writer.stream.reset(BROKE_OFF);
        return Err(why);
    }
    // Fails only if the client has stopped it.
    let _ = writer.stream.finish();
    let progress = writer.progress;
    // A connection that is closed now would take what is not acknowledged with it.
    let acknowledged = select! {
        biased;
        acknowledged = acknowledged(stream, turn) => Some(acknowledged),
        () = cut(progress.as_deref()) => None,
    };
    if acknowledged.is_none() {
        // What is not acknowledged still holds the stored body.
        let _ = stream.reset(BROKE_OFF);
    }
    acknowledged.unwrap_or(Err(NotDelivered::ToAnybody))
}

/// Waits until the client has acknowledged all of an answer. Its stream follows the rank of the
/// answer, since much of it may not be sent yet.
async fn acknowledged(stream: &SendStream, turn: &mut AnswerTurn) -> Result<(), NotDelivered> {
    let outranked = turn.watch_outranked();
    let mut stopped = pin!(stream.stopped());
    let mut ended = pin!(poll_fn(|cx| {
        turn.follow(cx, stream);
        stopped.as_mut().poll(cx)
    }));
    let began = Instant::now();
    loop {
        match timeout(LAST_ACKNOWLEDGED, ended.as_mut()).await {
            Ok(Ok(None)) => return Ok(()),
            Err(_) if outranked.was_there() && began.elapsed() < MOST_OUTRANKED => {}
            Ok(_) | Err(_) => return Err(NotDelivered::ToThisClient),
        }
    }
}

/// Waits until the answer must end because of the memory that it holds.
async fn cut(progress: Option<&AnswerProgress>) {
    poll_fn(|cx| match progress {
        Some(progress) => {
            progress.register(cx.waker());
            match progress.is_cut() {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        }
        None => Poll::Pending,
    })
    .await;
}

/// Tells a client to send its content (100). False if it takes nothing any more.
pub(super) async fn go_on(stream: &mut SendStream, pause: Duration) -> bool {
    let section = qpack::encode_response(StatusCode::CONTINUE, &HeaderMap::new());
    interim(stream, &section, pause).await
}

/// Sends an interim answer. False if the client takes nothing any more, or not within `pause`.
pub(super) async fn interim(stream: &mut SendStream, section: &[u8], pause: Duration) -> bool {
    let mut interim = [frame(kind::HEADERS, section)];
    let sent = timeout(pause, stream.write_all_chunks(&mut interim)).await;
    matches!(sent, Ok(Ok(())))
}

/// Writes one answer.
struct AnswerWriter<'a> {
    stream: &'a mut SendStream,
    turn: &'a mut AnswerTurn,
    pace: Option<TakenAhead>,
    pause: Duration,
    /// The answer, if it is watched.
    progress: Option<Arc<AnswerProgress>>,
    /// Frames that are written together with what comes next.
    waiting: Vec<Bytes>,
    shared: &'a Http3Connection,
}

impl AnswerWriter<'_> {
    async fn body(&mut self, body: ServedBody) -> Result<(), NotDelivered> {
        let mut body = pin!(body);
        let mut stopped = pin!(self.stream.stopped());
        loop {
            let frame = poll_fn(|cx| match body.as_mut().poll_frame(cx) {
                // What waits must not wait for content that takes its time.
                Poll::Pending if !self.waiting.is_empty() => Poll::Ready(Ok(None)),
                // No write shows that the client has stopped an answer that is silent.
                Poll::Pending => {
                    let stopped = stopped.as_mut().poll(cx);
                    stopped.map(|_| Err(NotDelivered::ToThisClient))
                }
                Poll::Ready(frame) => Poll::Ready(Ok(Some(frame))),
            });
            let Some(frame) = frame.await? else {
                self.flush().await?;
                continue;
            };
            match frame {
                None => return self.flush().await,
                Some(Err(_)) => {
                    // The client sees what there was, and then that it broke off.
                    self.flush().await?;
                    return Err(NotDelivered::ToAnybody);
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(mut piece) => {
                        while piece.has_remaining() {
                            let bytes = piece.bytes(PIECE);
                            let count = bytes.len();
                            self.waiting.push(data_head(count));
                            self.waiting.push(bytes);
                            self.flush().await?;
                            piece.advance(count);
                        }
                    }
                    Err(frame) => {
                        if let Ok(trailers) = frame.into_trailers() {
                            let section = qpack::encode_trailers(&trailers);
                            self.waiting.push(self::frame(kind::HEADERS, &section));
                        }
                    }
                },
            }
        }
    }

    /// Gives what was written time to reach the client before its stream is reset: that drops what was
    /// not sent yet, and nobody is told what of an unfinished stream has arrived. The content that
    /// broke off is gone by then, with what it held of its origin.
    async fn let_it_arrive(&self) {
        let rtt = self.shared.connection.rtt();
        let pause = (rtt * 2).clamp(LEAST_TO_ARRIVE, MOST_TO_ARRIVE);
        let progress = self.progress.as_deref();
        select! {
            () = cut(progress) => {}
            // It ends before if the client wants no more.
            _ = timeout(pause, self.stream.stopped()) => {}
        }
    }

    /// Writes what waits.
    async fn flush(&mut self) -> Result<(), NotDelivered> {
        let mut waiting = std::mem::take(&mut self.waiting);
        let mut left = &mut waiting[..];
        while let Some(first) = left.first() {
            if first.is_empty() {
                left = &mut left[1..];
                continue;
            }
            self.write(left).await?;
        }
        Ok(())
    }

    /// Writes some of the pieces.
    async fn write(&mut self, pieces: &mut [Bytes]) -> Result<(), NotDelivered> {
        let progress = self.progress.clone();
        let outranked = self.turn.watch_outranked();
        let (stream, turn) = (&mut *self.stream, &mut *self.turn);
        let mut step = pin!(poll_fn(|cx| {
            if let Some(progress) = &progress {
                progress.register(cx.waker());
                if progress.is_cut() {
                    return Poll::Ready(Err(NotDelivered::ToAnybody));
                }
            }
            turn.apply(stream);
            ready!(turn.poll_turn(cx));
            let waker = turn.waker(cx);
            let mut by_turn = Context::from_waker(&waker);
            // It keeps nothing between two polls.
            let written = pin!(stream.write_chunks(pieces)).poll(&mut by_turn);
            turn.tried(written.is_pending());
            written.map_err(|_: WriteError| NotDelivered::ToThisClient)
        }));
        let written = match now(step.as_mut()).await {
            Some(written) => written,
            None => {
                let waiting = PatientWrite {
                    metrics: &self.shared.metrics,
                    pace: &mut self.pace,
                    pause: self.pause,
                    outranked,
                };
                waiting.finish(step).await
            }
        };
        self.turn.leaves();
        let written = written?;
        if let Some(pace) = &mut self.pace {
            pace.moved(written.bytes as u64);
        }
        let _ = self
            .shared
            .activity
            .wrote(Poll::Ready(Ok(written.bytes)), None);
        Ok(())
    }
}

/// The limits of a write that does not end at once.
struct PatientWrite<'a> {
    metrics: &'a QuicMetrics,
    pace: &'a mut Option<TakenAhead>,
    pause: Duration,
    outranked: OutrankedWatch,
}

impl PatientWrite<'_> {
    async fn finish<T>(
        self,
        mut write: Pin<&mut impl Future<Output = Result<T, NotDelivered>>>,
    ) -> Result<T, NotDelivered> {
        let began = Instant::now();
        let mut counted = began;
        // Since when it is the client that is waited for.
        let mut paused = began;
        // What was before is of no interest.
        self.outranked.was_there();
        loop {
            let window = self.pace.as_ref().map(TakenAhead::left);
            let by_pace = window.and_then(|left| counted.checked_add(left));
            let by_pause = paused.checked_add(self.pause);
            let due = [by_pace, by_pause].into_iter().flatten().min();
            let due = due.unwrap_or_else(|| paused + LAST_ACKNOWLEDGED);
            let written = timeout_at(due, write.as_mut()).await;
            let now = Instant::now();
            let slow = match &mut *self.pace {
                Some(pace) => pace.waited(now - counted),
                None => false,
            };
            counted = now;
            if let Ok(written) = written {
                return written;
            }
            if self.outranked.was_there() && now - began < MOST_OUTRANKED {
                paused = now;
            } else if slow || now - paused >= self.pause {
                tracing::debug!("a stream is cut: its client took too little of it");
                self.metrics.guarded(Http3Guard::SlowReader);
                return Err(NotDelivered::ToThisClient);
            }
        }
    }
}

/// The output of a future that is ready at once.
pub(super) async fn now<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
    poll_fn(|cx| {
        Poll::Ready(match future.as_mut().poll(cx) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        })
    })
    .await
}

fn frame(kind: u64, body: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(16 + body.len());
    varint::write(&mut frame, kind);
    varint::write(&mut frame, body.len() as u64);
    frame.put_slice(body);
    frame.freeze()
}

fn data_head(length: usize) -> Bytes {
    let mut head = BytesMut::with_capacity(16);
    varint::write(&mut head, kind::DATA);
    varint::write(&mut head, length as u64);
    head.freeze()
}

/// The present time as a field. hyper sets it for the other protocols.
fn date() -> HeaderValue {
    let text = httpdate::fmt_http_date(SystemTime::now());
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
}
