//! Behaviour of tokio, hyper and h2 that we rely on although nobody promises it. A test here that
//! fails after an upgrade names the place in our code that must be checked.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex,
};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, coop};
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(30);

/// `fair` charges parts of a budget of 128 steps.
#[tokio::test]
async fn tokio_gives_a_task_128_steps_before_it_has_to_give_way() {
    let steps = tokio::spawn(poll_fn(|cx| {
        let mut steps = 0;
        while let Poll::Ready(step) = coop::poll_proceed(cx) {
            step.made_progress();
            steps += 1;
        }
        Poll::Ready(steps)
    }));
    assert_eq!(steps.await.unwrap(), 128, "see `fair`");
}

/// Counts flushes before which nothing was written since the last one.
struct CountsEmptyFlushes {
    io: DuplexStream,
    wrote: bool,
    empty: Arc<AtomicUsize>,
}

impl AsyncRead for CountsEmptyFlushes {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, into)
    }
}

impl AsyncWrite for CountsEmptyFlushes {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.wrote = true;
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !std::mem::take(&mut self.wrote) {
            self.empty.fetch_add(1, Relaxed);
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// `server::wire` sends interim answers when hyper flushes and has nothing to write.
#[tokio::test]
async fn hyper_flushes_an_http1_connection_that_has_nothing_to_write() {
    let (mut client, server) = duplex(1 << 16);
    let (empty, asked) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let io = CountsEmptyFlushes {
        io: server,
        wrote: false,
        empty: Arc::clone(&empty),
    };
    let told = Arc::clone(&asked);
    let service = service_fn(move |_: Request<Incoming>| {
        told.notify_one();
        std::future::pending::<Result<Response<Empty<Bytes>>, Infallible>>()
    });
    let serving = http1::Builder::new().serve_connection(TokioIo::new(io), service);
    let serving = tokio::spawn(serving);
    client
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    timeout(LIMIT, asked.notified()).await.unwrap();
    // One more poll of the connection after the request was given to the service.
    tokio::task::yield_now().await;
    assert!(
        empty.load(Relaxed) > 0,
        "see `server::wire::ClientTransport::send_early`"
    );
    serving.abort();
}

/// `server::service` delays an error of a body by one poll, since otherwise the head is lost with
/// it.
#[tokio::test]
async fn hyper_drops_a_head_that_it_has_not_written_when_the_body_fails_at_once() {
    let (mut client, server) = duplex(1 << 16);
    let service = service_fn(|_: Request<Incoming>| async {
        let failing = futures_util::stream::iter([Err::<Frame<Bytes>, _>(io::Error::other("x"))]);
        Ok::<_, Infallible>(Response::new(StreamBody::new(failing)))
    });
    let serving = http1::Builder::new().serve_connection(TokioIo::new(server), service);
    let serving = tokio::spawn(serving);
    client
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    timeout(LIMIT, client.read_to_end(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(answer, b"", "see `server::served_body::ServedBody`");
    assert!(serving.await.unwrap().is_err());
}

/// `frames` ends a connection by a header block in more CONTINUATION frames than h2 accepts.
#[tokio::test]
async fn h2_says_enhance_your_calm_to_continuation_frames_without_end() {
    const HEADERS: u8 = 1;
    const SETTINGS: u8 = 4;
    const GOAWAY: u8 = 7;
    const CONTINUATION: u8 = 9;
    const ENHANCE_YOUR_CALM: u8 = 11;
    let frame = |kind: u8, stream: u8| [0, 0, 0, kind, 0, 0, 0, 0, stream];
    let (client, server) = duplex(1 << 20);
    let service = service_fn(|_: Request<Incoming>| async {
        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
    });
    let serving =
        http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(server), service);
    let serving = tokio::spawn(serving);
    let (mut reads, mut writes) = tokio::io::split(client);
    writes
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    writes.write_all(&frame(SETTINGS, 0)).await.unwrap();
    writes.write_all(&frame(HEADERS, 1)).await.unwrap();
    let endless = tokio::spawn(async move {
        while writes.write_all(&frame(CONTINUATION, 1)).await.is_ok() {
            tokio::task::yield_now().await;
        }
    });
    let code = async {
        loop {
            let mut head = [0; 9];
            reads.read_exact(&mut head).await.unwrap();
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let mut content = vec![0; length];
            reads.read_exact(&mut content).await.unwrap();
            if head[3] == GOAWAY {
                return content[7];
            }
        }
    };
    let code = timeout(LIMIT, code).await.unwrap();
    assert_eq!(code, ENHANCE_YOUR_CALM, "see `frames::put_endless_block`");
    endless.abort();
    serving.abort();
}

/// Runs the tasks that it is given, and keeps their handles.
#[derive(Clone, Default)]
struct KeepsHandles(Arc<Mutex<Vec<AbortHandle>>>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for KeepsHandles {
    fn execute(&self, stream: F) {
        self.0
            .lock()
            .unwrap()
            .push(tokio::spawn(stream).abort_handle());
    }
}

/// `server::stream_task` resets one stream by dropping the future that hyper made for it.
#[tokio::test]
async fn dropping_the_future_of_an_http2_stream_resets_that_stream_alone() {
    let (client, server) = duplex(1 << 20);
    let (streams, asked) = (KeepsHandles::default(), Arc::new(Notify::new()));
    let told = Arc::clone(&asked);
    let service = service_fn(move |request: Request<Incoming>| {
        let told = Arc::clone(&told);
        async move {
            if request.uri().path() == "/never" {
                told.notify_one();
                std::future::pending::<()>().await;
            }
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"x"))))
        }
    });
    let serving =
        http2::Builder::new(streams.clone()).serve_connection(TokioIo::new(server), service);
    let serving = tokio::spawn(serving);
    let client = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(client));
    let (mut sender, connection) = client.await.unwrap();
    tokio::spawn(connection);
    let mut get = |path: &str| {
        let request = Request::builder().uri(format!("http://a{path}"));
        sender.send_request(request.body(Empty::<Bytes>::new()).unwrap())
    };
    let never = get("/never");
    let never = tokio::spawn(never);
    timeout(LIMIT, asked.notified()).await.unwrap();
    streams.0.lock().unwrap()[0].abort();
    let reset = timeout(LIMIT, never).await.unwrap().unwrap();
    assert!(reset.is_err(), "see `server::stream_task`");
    let other = timeout(LIMIT, get("/other")).await.unwrap();
    assert_eq!(other.unwrap().status(), 200, "see `server::stream_task`");
    serving.abort();
}
