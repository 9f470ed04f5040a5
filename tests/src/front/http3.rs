//! The side of a translator that speaks HTTP/3.

use std::future::poll_fn;
use std::net::SocketAddr;

use bytes::{Buf, Bytes};
use h3::client::{RequestStream, SendRequest};
use h3_quinn::{BidiStream, OpenStreams};
use http::Request;
use tokio::task::JoinHandle;

use super::translator::AnswerPart;
use crate::h3::NAME;
use crate::wait::{SOON, within};

/// Connects to a gateway by QUIC.
pub struct Quic {
    gateway: SocketAddr,
    endpoint: quinn::Endpoint,
}

/// A connection to the gateway.
pub struct Http3 {
    connection: quinn::Connection,
    sender: SendRequest<OpenStreams, Bytes>,
    driver: JoinHandle<()>,
}

/// One request under way.
pub struct Http3Exchange {
    stream: RequestStream<BidiStream<Bytes>, Bytes>,
    has_begun: bool,
}

impl Quic {
    pub fn new(gateway: SocketAddr, config: quinn::ClientConfig) -> Self {
        let endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into());
        let mut endpoint = endpoint.expect("a UDP socket can be opened");
        endpoint.set_default_client_config(config);
        Self { gateway, endpoint }
    }

    /// A new connection; none when there is no handshake.
    pub async fn connect(&self) -> Option<Http3> {
        let connecting = self.endpoint.connect(self.gateway, NAME).ok()?;
        let connection = within("a QUIC handshake", SOON, connecting).await.ok()?;
        let opening = h3::client::new(h3_quinn::Connection::new(connection.clone()));
        let (mut driver, sender) = opening.await.ok()?;
        let driver = tokio::spawn(async move {
            poll_fn(|cx| driver.poll_close(cx)).await;
        });
        Some(Http3 {
            connection,
            sender,
            driver,
        })
    }
}

impl Http3 {
    pub fn is_closed(&self) -> bool {
        self.connection.close_reason().is_some()
    }

    pub async fn begin(
        &mut self,
        request: Request<()>,
        has_content: bool,
    ) -> Option<Http3Exchange> {
        let mut stream = self.sender.send_request(request).await.ok()?;
        if !has_content {
            stream.finish().await.ok()?;
        }
        Some(Http3Exchange {
            stream,
            has_begun: false,
        })
    }
}

impl Drop for Http3 {
    fn drop(&mut self) {
        self.driver.abort();
        // H3_NO_ERROR.
        self.connection.close(0x100_u32.into(), b"");
    }
}

impl Http3Exchange {
    pub async fn send(&mut self, content: Bytes) {
        // Refused content is no fault: the answer says what became of the request.
        let _ = self.stream.send_data(content).await;
        let _ = self.stream.finish().await;
    }

    pub async fn next(&mut self) -> Option<AnswerPart> {
        if !self.has_begun {
            let head = self.stream.recv_response().await.ok()?;
            if head.status().is_informational() {
                return Some(AnswerPart::Interim(head));
            }
            self.has_begun = true;
            return Some(AnswerPart::Head(head));
        }
        match self.stream.recv_data().await.ok()? {
            Some(mut piece) => Some(AnswerPart::Piece(piece.copy_to_bytes(piece.remaining()))),
            None => self.stream.recv_trailers().await.ok().map(AnswerPart::End),
        }
    }
}
