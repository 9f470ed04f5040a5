//! Requests for pages at a steady rate, on connections that are kept.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::flood::{FloodRate, at_rate};

type PageSender = SendRequest<Empty<Bytes>>;

/// Sends what `request` makes. How many were answered by 200; another status ends the bench.
pub async fn ask_at_rate(
    address: SocketAddr,
    rate: FloodRate,
    request: impl Fn() -> Request<Empty<Bytes>>,
) -> u64 {
    let free = Arc::<Mutex<Vec<PageSender>>>::default();
    at_rate(rate, || {
        let (request, free) = (request(), Arc::clone(&free));
        async move {
            let kept = free.lock().unwrap().pop();
            let mut sender = match kept {
                Some(sender) => sender,
                None => connect(address).await,
            };
            let answer = sender.send_request(request).await.unwrap();
            assert_eq!(answer.status(), 200);
            answer.into_body().collect().await.unwrap();
            sender.ready().await.unwrap();
            free.lock().unwrap().push(sender);
        }
    })
    .await
}

async fn connect(address: SocketAddr) -> PageSender {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}
