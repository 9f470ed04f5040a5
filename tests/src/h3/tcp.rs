//! The same listener over TLS and TCP: one request by HTTP/1 or HTTP/2 on a connection of its own.

use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::SecuredGateway;
use crate::client::Answer;
use crate::wait::{SOON, within};

/// A request over TCP.
pub struct TcpAsk<'a> {
    pub version: Version,
    /// What TLS asks for.
    pub name: &'a str,
    /// What the request asks for.
    pub host: &'a str,
    pub target: &'a str,
}

impl SecuredGateway {
    /// Asks over TLS and reads the whole answer; panics when there is none.
    pub async fn ask_over_tcp(&self, ask: TcpAsk<'_>) -> Answer {
        let what = format!("{} by {:?}", ask.target, ask.version);
        within(&what, SOON, self.answer_over_tcp(ask)).await
    }

    async fn answer_over_tcp(&self, ask: TcpAsk<'_>) -> Answer {
        let is_http2 = ask.version == Version::HTTP_2;
        let protocol = if is_http2 { "h2" } else { "http/1.1" };
        let connector = TlsConnector::from(std::sync::Arc::new(self.certificates.tls(protocol)));
        let stream = TcpStream::connect(self.gateway.address).await.unwrap();
        let name = ask.name.to_owned().try_into().expect("the name is one");
        let stream = connector.connect(name, stream).await;
        let stream = TokioIo::new(stream.expect("the handshake succeeds"));
        let request = Request::builder().method(Method::GET).version(ask.version);
        let response: Response<Incoming> = match is_http2 {
            true => {
                let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream)
                    .await
                    .unwrap();
                tokio::spawn(connection);
                let request = request.uri(format!("https://{}{}", ask.host, ask.target));
                let request = request.body(Full::<Bytes>::default()).unwrap();
                sender.send_request(request).await.expect("an answer")
            }
            false => {
                let (mut sender, connection) = http1::handshake(stream).await.unwrap();
                tokio::spawn(connection);
                let request = request.uri(ask.target).header("host", ask.host);
                let request = request.body(Full::<Bytes>::default()).unwrap();
                sender.send_request(request).await.expect("an answer")
            }
        };
        let (head, body) = response.into_parts();
        let body = body.collect().await.expect("a whole body");
        let trailers: Option<HeaderMap> = body.trailers().cloned();
        Answer {
            status: head.status,
            version: head.version,
            headers: head.headers,
            body: body.to_bytes(),
            trailers,
            at: Instant::now(),
        }
    }
}
