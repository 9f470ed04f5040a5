//! A client that asks for a page at a steady rate, on one connection, and notes how long each answer
//! took. A request that is late because the one before it was counts from when it should have been
//! sent. It has a thread of its own.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use e2e::tls::TlsClient;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::NAME;

/// Requests a second.
const RATE: u32 = 200;
/// Requests that are not counted, so that what follows finds everything warm.
const WARM_UP: u32 = 50;

/// How it reaches the gateway.
#[derive(Clone, Copy)]
pub enum ProbeWay {
    Clear(SocketAddr),
    Tls(SocketAddr),
}

/// How long the answers took, the quickest first.
pub struct ProbeLatencies(Vec<Duration>);

impl ProbeLatencies {
    /// The time within which this share of the answers came.
    pub fn within(&self, share: f64) -> Duration {
        let last = self.0.len().saturating_sub(1);
        let nth = (self.0.len() as f64 * share).ceil() as usize;
        self.0[nth.saturating_sub(1).min(last)]
    }

    pub fn slowest(&self) -> Duration {
        self.within(1.0)
    }
}

/// Asks for this long.
pub async fn probe(way: ProbeWay, path: &'static str, span: Duration) -> ProbeLatencies {
    let asked = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            match way {
                ProbeWay::Clear(address) => {
                    let stream = TcpStream::connect(address).await.unwrap();
                    stream.set_nodelay(true).unwrap();
                    ask(stream, path, span).await
                }
                ProbeWay::Tls(address) => {
                    let connected = TlsClient::new(address, NAME).connect().await.unwrap();
                    ask(connected.stream, path, span).await
                }
            }
        })
    });
    asked.await.unwrap()
}

async fn ask<S>(stream: S, path: &str, span: Duration) -> ProbeLatencies
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let made = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = made.unwrap();
    tokio::spawn(connection);
    let step = Duration::from_secs(1) / RATE;
    let count = (span.as_secs_f64() * f64::from(RATE)) as u32;
    let (mut took, begin) = (Vec::new(), Instant::now());
    for nth in 0..WARM_UP + count {
        let due = begin + step * nth;
        tokio::time::sleep_until(due.into()).await;
        // Timers are a millisecond coarse: what they are late is not the gateway's.
        let sent = due.max(Instant::now().min(due + Duration::from_millis(2)));
        let request = Request::get(path).header("host", NAME);
        let answer = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap());
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.into_body().collect().await.unwrap();
        if nth >= WARM_UP {
            took.push(sent.elapsed());
        }
    }
    took.sort_unstable();
    ProbeLatencies(took)
}
