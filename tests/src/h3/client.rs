//! A whole HTTP/3 client on the crate h3: requests with bodies and trailers, many at once.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};
use h3::client::{RequestStream, SendRequest};
use h3::error::{Code, StreamError};
use h3_quinn::{OpenStreams, RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Version};
use tokio::task::JoinHandle;

use crate::check::{self, Context};
use crate::client::Answer;
use crate::h3::certificates::Certificates;
use crate::h3::{Reach, connect_to};
use crate::wait::{SOON, within};

/// One connection. Clones share it.
#[derive(Clone)]
pub struct H3Client {
    pub connection: quinn::Connection,
    pub endpoint: quinn::Endpoint,
    sender: SendRequest<OpenStreams, Bytes>,
    driver: std::sync::Arc<JoinHandle<()>>,
    name: String,
}

/// A request that is being put together.
pub struct H3Ask {
    client: H3Client,
    method: Method,
    target: String,
    headers: HeaderMap,
    pieces: Vec<Bytes>,
    trailers: Option<HeaderMap>,
}

/// Both directions of a request whose head is sent.
pub struct Exchange {
    pub upload: Upload,
    pub download: Download,
}

/// The request's direction.
pub struct Upload(RequestStream<SendStream<Bytes>, Bytes>);

/// The answer's direction.
pub struct Download {
    stream: RequestStream<RecvStream, Bytes>,
    connection: quinn::Connection,
    method: Method,
    target: String,
}

/// Why there is no whole answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum H3Failure {
    /// The stream was reset with this code.
    Reset(u64),
    /// The gateway closed the connection with this code.
    Closed(u64),
    Other(String),
}

impl H3Client {
    /// Begins HTTP/3 on a connection.
    pub async fn over(
        endpoint: quinn::Endpoint,
        connection: quinn::Connection,
        name: &str,
    ) -> Self {
        let opening = h3::client::new(h3_quinn::Connection::new(connection.clone()));
        let (mut driver, sender) = within("the streams of HTTP/3 open", SOON, opening)
            .await
            .expect("HTTP/3 begins");
        let driver = tokio::spawn(async move {
            std::future::poll_fn(|cx| driver.poll_close(cx)).await;
        });
        Self {
            connection,
            endpoint,
            sender,
            driver: std::sync::Arc::new(driver),
            name: name.to_owned(),
        }
    }

    /// A new connection to this address, or None if nobody answers there by HTTP/3 soon.
    ///
    /// # Panics
    /// If no UDP socket can be opened.
    pub async fn at(address: SocketAddr, certificates: &Certificates) -> Option<Self> {
        let reach = Reach::default();
        let loopback: IpAddr = match address.is_ipv4() {
            true => Ipv4Addr::LOCALHOST.into(),
            false => Ipv6Addr::LOCALHOST.into(),
        };
        let mut endpoint =
            quinn::Endpoint::client((loopback, 0).into()).expect("a UDP socket can be opened");
        endpoint.set_default_client_config(certificates.quic(&reach));
        let connection = connect_to(address, &endpoint, &reach).await.ok()?;
        Some(Self::over(endpoint, connection, &reach.name).await)
    }

    pub fn ask(&self, method: Method, target: &str) -> H3Ask {
        H3Ask {
            client: self.clone(),
            method,
            target: target.to_owned(),
            headers: HeaderMap::new(),
            pieces: Vec::new(),
            trailers: None,
        }
    }

    pub fn request(&self, target: &str) -> H3Ask {
        self.ask(Method::GET, target)
    }

    /// GET, to its end.
    pub async fn get(&self, target: &str) -> Answer {
        self.request(target).send().await
    }

    pub async fn head(&self, target: &str) -> Answer {
        self.ask(Method::HEAD, target).send().await
    }

    pub async fn post(&self, target: &str, body: impl Into<Bytes>) -> Answer {
        self.ask(Method::POST, target).body(body).send().await
    }

    /// Waits until the connection has ended; the code with which the gateway closed it.
    pub async fn closed(&self) -> H3Failure {
        let closed = within("the connection ends", SOON * 2, self.connection.closed()).await;
        of_connection(&closed)
    }
}

impl Drop for H3Client {
    fn drop(&mut self) {
        // The driver holds the connection open as long as it runs.
        if std::sync::Arc::strong_count(&self.driver) == 1 {
            self.driver.abort();
        }
    }
}

impl H3Ask {
    /// Adds a field line.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        self.headers
            .append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        self
    }

    /// Asks for this host: it becomes `:authority`.
    pub fn host(mut self, host: &str) -> Self {
        self.client.name = host.to_owned();
        self
    }

    /// One more piece of the body.
    pub fn body(mut self, piece: impl Into<Bytes>) -> Self {
        self.pieces.push(piece.into());
        self
    }

    pub fn trailer(mut self, name: &'static str, value: &'static str) -> Self {
        let trailers = self.trailers.get_or_insert_default();
        trailers.append(name, HeaderValue::from_static(value));
        self
    }

    /// Sends it and reads the whole answer; panics when there is none.
    pub async fn send(self) -> Answer {
        let what = format!("{} {}", self.method, self.target);
        match self.try_send().await {
            Ok(answer) => answer,
            Err(failure) => panic!("{what}: {failure:?}"),
        }
    }

    /// Sends it and reads the whole answer.
    ///
    /// # Errors
    /// If there is no whole answer.
    pub async fn try_send(mut self) -> Result<Answer, H3Failure> {
        let what = format!("{} {}", self.method, self.target);
        let (pieces, trailers) = (std::mem::take(&mut self.pieces), self.trailers.take());
        let work = async {
            let Exchange {
                mut upload,
                download,
            } = self.open().await?;
            let uploading = async {
                for piece in pieces {
                    if !upload.send(piece).await {
                        // The gateway wants no more of it, and may have answered.
                        return;
                    }
                }
                if let Some(trailers) = trailers {
                    upload.trailers(trailers).await;
                }
                upload.finish().await;
            };
            let ((), answer) = futures_util::future::join(uploading, download.answer()).await;
            answer
        };
        within(&what, SOON * 4, work).await
    }

    /// Sends the head alone.
    ///
    /// # Errors
    /// If the connection has ended.
    pub async fn open(self) -> Result<Exchange, H3Failure> {
        let Self {
            mut client,
            method,
            target,
            headers,
            ..
        } = self;
        let mut request = Request::builder()
            .method(method.clone())
            .uri(format!("https://{}{target}", client.name))
            .body(())
            .unwrap();
        *request.headers_mut() = headers;
        let connection = client.connection.clone();
        let stream = client
            .sender
            .send_request(request)
            .await
            .map_err(|error| failure(&error, &connection))?;
        let (send, receive) = stream.split();
        Ok(Exchange {
            upload: Upload(send),
            download: Download {
                stream: receive,
                connection,
                method,
                target,
            },
        })
    }
}

impl Upload {
    /// Sends a piece of the body. False when the gateway takes no more.
    pub async fn send(&mut self, piece: impl Into<Bytes>) -> bool {
        self.0.send_data(piece.into()).await.is_ok()
    }

    pub async fn trailers(&mut self, trailers: HeaderMap) -> bool {
        self.0.send_trailers(trailers).await.is_ok()
    }

    /// The proper end of the body.
    pub async fn finish(&mut self) -> bool {
        self.0.finish().await.is_ok()
    }

    /// Breaks the body off.
    pub fn reset(&mut self) {
        self.0.stop_stream(Code::H3_REQUEST_CANCELLED);
    }
}

impl Download {
    /// Waits for the head.
    ///
    /// # Errors
    /// If none comes.
    pub async fn head(&mut self) -> Result<(StatusCode, HeaderMap), H3Failure> {
        let response = self
            .stream
            .recv_response()
            .await
            .map_err(|error| failure(&error, &self.connection))?;
        check::response(&Context {
            method: &self.method,
            target: &self.target,
            status: response.status(),
            headers: response.headers(),
            cache_status_due: false,
            tags_allowed: false,
            duplicates_allowed: false,
        });
        let (head, ()) = response.into_parts();
        Ok((head.status, head.headers))
    }

    /// The next piece of the body; None at its end.
    ///
    /// # Errors
    /// If it broke off.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, H3Failure> {
        match self.stream.recv_data().await {
            Ok(None) => Ok(None),
            Ok(Some(mut piece)) => Ok(Some(piece.copy_to_bytes(piece.remaining()))),
            Err(error) => Err(failure(&error, &self.connection)),
        }
    }

    /// Reads all of it.
    ///
    /// # Errors
    /// If it is not whole.
    pub async fn answer(mut self) -> Result<Answer, H3Failure> {
        let (status, headers) = self.head().await?;
        let at = Instant::now();
        let mut body = BytesMut::new();
        while let Some(piece) = self.piece().await? {
            body.extend_from_slice(&piece);
        }
        let trailers = self.trailers().await?;
        Ok(Answer {
            status,
            version: Version::HTTP_3,
            headers,
            body: body.freeze(),
            trailers,
            at,
        })
    }

    /// The trailers, when all content is read.
    ///
    /// # Errors
    /// If the answer broke off.
    pub async fn trailers(&mut self) -> Result<Option<HeaderMap>, H3Failure> {
        let trailers = self.stream.recv_trailers().await;
        trailers.map_err(|error| failure(&error, &self.connection))
    }

    /// Wants no more of it. h3 can't stop a stream that it waits for, but quinn does when it goes.
    pub fn stop(self) {}
}

fn failure(error: &StreamError, connection: &quinn::Connection) -> H3Failure {
    match (error, connection.close_reason()) {
        (StreamError::RemoteTerminate { code, .. }, _) => H3Failure::Reset(code.value()),
        (_, Some(closed)) => of_connection(&closed),
        (error, None) => H3Failure::Other(error.to_string()),
    }
}

fn of_connection(closed: &quinn::ConnectionError) -> H3Failure {
    match closed {
        quinn::ConnectionError::ApplicationClosed(close) => {
            H3Failure::Closed(close.error_code.into_inner())
        }
        other => H3Failure::Other(other.to_string()),
    }
}
