//! One request over HTTP/3, from its head to the end of its answer: [`serve`].

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode, Version};
use quinn::{RecvStream, SendStream, VarInt};
use tokio::select;

use super::content::RequestContent;
use super::order::AnswerTurn;
use super::reader::{HeadEnd, RequestReader, waits_for_100};
use super::respond::{self, NotDelivered};
use super::{Http3Connection, OpenRequest};
use crate::guard;
use crate::guard::framing::FramingFault;
use crate::http3::message::RequestHead;
use crate::http3::{Http3Code, Http3Fault};
use crate::priority::PriorityParameters;
use crate::server::handler::RequestHandler;
use crate::server::quic::metrics::Http3Guard;
use crate::server::served_body::{ServedBody, WantedAnswer};
use crate::server::service::ConnectionService;

/// The two directions of a request's stream.
pub(super) struct RequestStream {
    send: SendStream,
    receive: RequestReader,
    turn: AnswerTurn,
}

impl RequestStream {
    pub(super) fn new(
        send: SendStream,
        receive: RecvStream,
        shared: &Arc<Http3Connection>,
    ) -> Self {
        Self {
            turn: AnswerTurn::begin(&shared.order, &send),
            send,
            receive: RequestReader::new(receive, shared),
        }
    }
}

/// Answers one request.
pub(super) async fn serve<H>(
    stream: RequestStream,
    service: Arc<ConnectionService<H>>,
    open: OpenRequest,
) where
    H: RequestHandler,
{
    let RequestStream {
        mut send,
        mut receive,
        mut turn,
    } = stream;
    let shared = Arc::clone(&receive.shared);
    let given_up = Arc::clone(&receive.given_up);
    let refused = |receive: &mut RequestReader, refusal| {
        receive.stop(Http3Code::NoError);
        AnsweredStream {
            before: Vec::new(),
            response: service.refusal(refusal, Version::HTTP_3),
            wanted: WantedAnswer::Whole,
        }
    };
    let answered = match receive.request_in_time().await {
        Ok(head) if head.had_fragment => {
            refused(&mut receive, guard::broken(FramingFault::Fragment))
        }
        Ok(head) => match answer(head, &mut send, receive, &mut turn, &service).await {
            Some(answered) => answered,
            None => return shared.given_up(&given_up),
        },
        Err(HeadEnd::Refused(refusal)) => {
            shared.metrics.guarded(match refusal.status {
                StatusCode::REQUEST_TIMEOUT => Http3Guard::SlowHead,
                _ => Http3Guard::HeadTooLarge,
            });
            refused(&mut receive, refusal)
        }
        Err(HeadEnd::Fault(fault)) => return end(fault, &shared, &mut send, &mut receive),
    };
    let AnsweredStream {
        before,
        response,
        wanted,
    } = answered;
    turn.answered(PriorityParameters::of(response.headers()), &send);
    if let Err(NotDelivered::ToThisClient) =
        respond::send(&mut send, &mut turn, before, response, wanted, &shared).await
    {
        shared.given_up(&given_up);
    }
    drop(open);
}

/// An answer that is about to be sent.
struct AnsweredStream {
    /// Interim responses that go before it.
    before: Vec<Bytes>,
    response: Response<ServedBody>,
    wanted: WantedAnswer,
}

/// Has a request answered, and sends its interim responses meanwhile. None: the client wants no
/// answer any more.
async fn answer<H>(
    head: RequestHead,
    send: &mut SendStream,
    receive: RequestReader,
    turn: &mut AnswerTurn,
    service: &ConnectionService<H>,
) -> Option<AnsweredStream>
where
    H: RequestHandler,
{
    let shared = Arc::clone(&receive.shared);
    let pause = shared.limits.body_timeout.0;
    let RequestHead {
        request,
        content_length,
        ..
    } = head;
    let wanted = WantedAnswer::by(request.method());
    turn.asked(PriorityParameters::of(request.headers()), send);
    if !receive.ended && waits_for_100(&request) && !respond::go_on(send, pause).await {
        return None;
    }
    let early = receive.stream.is_0rtt().then(|| shared.early.clone());
    let body = RequestContent::new(receive, content_length);
    let mut request = request.map(|()| body);
    if let Some(early) = early.flatten() {
        request.extensions_mut().insert(early);
    }
    let (channel, mut interims) = service.early.of_stream();
    let mut stopped = pin!(send.stopped());
    let mut answer = pin!(service.answer(request, &channel));
    drop(channel);
    let answered = loop {
        let section = select! {
            biased;
            answered = answer.as_mut() => break answered,
            // The client wants no answer any more: the handler's future is dropped.
            _ = stopped.as_mut() => return None,
            Some(section) = interims.recv() => section,
        };
        if !respond::interim(send, &section, pause).await {
            return None;
        }
    };
    // None may come behind the answer.
    let mut before = Vec::new();
    while let Ok(section) = interims.try_recv() {
        before.push(section);
    }
    match answered {
        Ok(response) => Some(AnsweredStream {
            before,
            response,
            wanted,
        }),
        Err(never) => match never {},
    }
}

/// Ends what a fault ends.
fn end(
    fault: Http3Fault,
    shared: &Http3Connection,
    send: &mut SendStream,
    receive: &mut RequestReader,
) {
    match fault {
        Http3Fault::Connection(code) => shared.close(code),
        Http3Fault::Stream(code) => {
            shared.metrics.guarded(Http3Guard::Code(code));
            receive.stop(code);
            // Fails only if it has ended.
            let _ = send.reset(VarInt::from_u32(code.number()));
        }
        Http3Fault::Left => {
            shared.given_up(&receive.given_up);
            // There will be no answer: its direction must not look as if one ended there.
            let _ = send.reset(VarInt::from_u32(Http3Code::RequestCancelled.number()));
        }
    }
}
