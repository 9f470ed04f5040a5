//! The side of a translator that speaks HTTP/2, by h2 itself: hyper tells nobody of interim answers.

use std::future::poll_fn;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::Request;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::client::TlsStream;

use super::translator::AnswerPart;

/// A connection to the gateway.
pub struct Http2 {
    sender: SendRequest<Bytes>,
    driver: JoinHandle<()>,
}

/// One request under way.
pub struct Http2Exchange {
    upload: SendStream<Bytes>,
    answer: Answer,
}

enum Answer {
    Awaited(ResponseFuture),
    Begun(RecvStream),
}

impl Http2 {
    pub async fn over(stream: TlsStream<TcpStream>) -> Option<Self> {
        let (sender, connection) = h2::client::handshake(stream).await.ok()?;
        let driver = tokio::spawn(async move {
            let _ = connection.await;
        });
        Some(Self { sender, driver })
    }

    pub fn is_closed(&self) -> bool {
        self.driver.is_finished()
    }

    pub async fn begin(
        &mut self,
        request: Request<()>,
        has_content: bool,
    ) -> Option<Http2Exchange> {
        let mut sender = self.sender.clone().ready().await.ok()?;
        let (awaited, upload) = sender.send_request(request, !has_content).ok()?;
        Some(Http2Exchange {
            upload,
            answer: Answer::Awaited(awaited),
        })
    }
}

impl Drop for Http2 {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Http2Exchange {
    pub fn send(&mut self, content: Bytes) {
        // Refused content is no fault: the answer says what became of the request.
        let _ = self.upload.send_data(content, true);
    }

    pub async fn next(&mut self) -> Option<AnswerPart> {
        match &mut self.answer {
            Answer::Awaited(awaited) => {
                if let Some(interim) = poll_fn(|cx| awaited.poll_informational(cx)).await {
                    return Some(AnswerPart::Interim(interim.ok()?));
                }
                let (head, body) = awaited.await.ok()?.into_parts();
                self.answer = Answer::Begun(body);
                Some(AnswerPart::Head(http::Response::from_parts(head, ())))
            }
            Answer::Begun(body) => match body.data().await {
                Some(piece) => {
                    let piece = piece.ok()?;
                    body.flow_control().release_capacity(piece.len()).ok()?;
                    Some(AnswerPart::Piece(piece))
                }
                None => body.trailers().await.ok().map(AnswerPart::End),
            },
        }
    }
}
