//! A client of HTTPS that can choose everything about TLS, and says which alert it got.
//!
//! It accepts every certificate, whatever its name, as long as the server has the key to it;
//! tests look at the one that came. [`authority`] makes certificates, [`hello`] is for what no
//! proper client would send.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderValue, Request, Version};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientSessionMemoryCache, ResolvesClientCert, Resumption};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{
    CipherSuite, ClientConfig, DigitallySignedStruct, HandshakeKind, ProtocolVersion,
    SignatureScheme, SupportedProtocolVersion,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use self::authority::{Authority, Certificate};
use crate::check;
use crate::client::Answer;
use crate::h2raw::H2;
use crate::raw::{RawConnection, narrow};
use crate::wait::{SOON, within};

pub mod authority;
pub mod hello;
pub mod site;

/// Alerts (RFC 8446 §6).
pub mod alert {
    pub const HANDSHAKE_FAILURE: u8 = 40;
    pub const CERTIFICATE_REVOKED: u8 = 44;
    pub const CERTIFICATE_EXPIRED: u8 = 45;
    pub const UNKNOWN_CA: u8 = 48;
    pub const DECODE_ERROR: u8 = 50;
    pub const PROTOCOL_VERSION: u8 = 70;
    pub const UNRECOGNIZED_NAME: u8 = 112;
    pub const CERTIFICATE_REQUIRED: u8 = 116;
    pub const NO_APPLICATION_PROTOCOL: u8 = 120;
}

/// What connections are made by. Clones share their sessions.
#[derive(Clone)]
pub struct TlsClient {
    address: SocketAddr,
    name: Option<String>,
    protocols: Vec<Vec<u8>>,
    versions: Vec<&'static SupportedProtocolVersion>,
    provider: CryptoProvider,
    verifier: Arc<AnyCertificate>,
    shown: Arc<ShownCertificate>,
    sessions: Arc<ClientSessionMemoryCache>,
}

/// A connection with TLS.
pub struct TlsConnection<S = TcpStream> {
    pub stream: TlsStream<S>,
}

/// HTTP on a connection with TLS, through hyper.
pub struct HttpsConnection {
    sender: Sender,
    /// The protocol that was agreed on.
    pub version: Version,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// Why there is no connection, or no more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TlsFailure {
    /// The server said why.
    Alert(u8),
    /// It closed without a word.
    Closed,
    Other(String),
}

impl TlsClient {
    /// Speaks HTTP/1.1 over TLS 1.2 or 1.3, and asks for this name.
    pub fn new(address: SocketAddr, name: &str) -> Self {
        let provider = aws_lc_rs::default_provider();
        Self {
            address,
            name: Some(name.to_owned()),
            protocols: vec![b"http/1.1".to_vec()],
            versions: vec![&TLS13, &TLS12],
            verifier: Arc::new(AnyCertificate {
                schemes: provider
                    .signature_verification_algorithms
                    .supported_schemes(),
                provider: provider.clone(),
            }),
            provider,
            shown: Arc::new(ShownCertificate(None)),
            sessions: Arc::new(ClientSessionMemoryCache::new(64)),
        }
    }

    /// The same at another listener.
    pub fn at(&self, address: SocketAddr) -> Self {
        Self {
            address,
            ..self.clone()
        }
    }

    pub fn named(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// Asks for no name.
    pub fn nameless(mut self) -> Self {
        self.name = None;
        self
    }

    /// Offers these protocols.
    pub fn speaking(mut self, protocols: &[&str]) -> Self {
        self.protocols = protocols.iter().map(|name| (*name).into()).collect();
        self
    }

    pub fn http2(self) -> Self {
        self.speaking(&["h2"])
    }

    pub fn only_tls12(mut self) -> Self {
        self.versions = vec![&TLS12];
        self
    }

    pub fn only_tls13(mut self) -> Self {
        self.versions = vec![&TLS13];
        self
    }

    /// Offers these cipher suites, in this order.
    pub fn suites(mut self, suites: &[CipherSuite]) -> Self {
        let kept = |suite: &rustls::SupportedCipherSuite| suites.contains(&suite.suite());
        self.provider.cipher_suites.retain(kept);
        let place = |suite: &rustls::SupportedCipherSuite| {
            suites.iter().position(|wanted| *wanted == suite.suite())
        };
        self.provider.cipher_suites.sort_by_key(place);
        self
    }

    /// Accepts these signatures of a server.
    pub fn signatures(mut self, schemes: &[SignatureScheme]) -> Self {
        self.verifier = Arc::new(AnyCertificate {
            schemes: schemes.to_vec(),
            provider: self.provider.clone(),
        });
        self
    }

    /// Shows this certificate if it is asked for one.
    pub fn showing(self, certificate: &Certificate) -> Self {
        self.showing_chain(certificate, &[])
    }

    /// Shows this certificate, and those of authorities behind it.
    pub fn showing_chain(mut self, certificate: &Certificate, others: &[&Authority]) -> Self {
        let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes()).unwrap();
        let key = self.provider.key_provider.load_private_key(key).unwrap();
        let mut chain = vec![CertificateDer::from(certificate.der.clone())];
        let others = others.iter().map(|one| one.pem.as_bytes());
        chain.extend(others.map(|pem| CertificateDer::from_pem_slice(pem).unwrap()));
        self.shown = Arc::new(ShownCertificate(Some(Arc::new(CertifiedKey::new(
            chain, key,
        )))));
        self
    }

    /// Forgets all sessions, and shares no further ones.
    pub fn anew(mut self) -> Self {
        self.sessions = Arc::new(ClientSessionMemoryCache::new(64));
        self
    }

    pub async fn connect(&self) -> Result<TlsConnection, TlsFailure> {
        let stream = within("connecting", SOON, TcpStream::connect(self.address)).await;
        let stream = stream.map_err(|error| TlsFailure::of(&error))?;
        stream.set_nodelay(true).unwrap();
        self.over(stream).await
    }

    /// The same with the smallest receive buffer.
    pub async fn connect_narrow(&self) -> TlsConnection {
        let stream = narrow(self.address).await;
        self.over(stream).await.unwrap()
    }

    /// Does the handshake over a connection that is there.
    pub async fn over<S>(&self, stream: S) -> Result<TlsConnection<S>, TlsFailure>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = match &self.name {
            Some(name) => ServerName::try_from(name.clone()).unwrap(),
            None => ServerName::try_from("127.0.0.1").unwrap(),
        };
        let connector = TlsConnector::from(Arc::new(self.config()));
        let connected = within("a handshake", SOON, connector.connect(name, stream)).await;
        let stream = connected.map_err(|error| TlsFailure::of(&error))?;
        Ok(TlsConnection { stream })
    }

    /// The first bytes that it sends.
    pub fn hello(&self) -> Vec<u8> {
        let name = ServerName::try_from(self.name.clone().unwrap_or_default()).unwrap();
        let mut connection = rustls::ClientConnection::new(Arc::new(self.config()), name).unwrap();
        let mut bytes = Vec::new();
        connection.write_tls(&mut bytes).unwrap();
        bytes
    }

    /// A connection on which the server has sent all of its handshake, and waits for the client's
    /// last message, which never comes.
    pub async fn stuck(&self) -> RawConnection {
        self.stopped_after(0).await
    }

    /// How many bytes a client sends after it has got all of the server's handshake.
    pub async fn last_messages(&self) -> usize {
        self.half_a_handshake().await.1.len()
    }

    /// A connection on which the client has sent so many bytes of its last messages.
    pub async fn stopped_after(&self, length: usize) -> RawConnection {
        let (mut stream, last) = self.half_a_handshake().await;
        // The server may have ended it meanwhile.
        let _ = within("writing", SOON, stream.write_all(&last[..length])).await;
        RawConnection::over(stream)
    }

    /// A connection on which the server has sent all of its handshake, and the client's last
    /// messages, which are not sent.
    async fn half_a_handshake(&self) -> (TcpStream, Vec<u8>) {
        let name = ServerName::try_from(self.name.clone().unwrap_or_default()).unwrap();
        let mut client = rustls::ClientConnection::new(Arc::new(self.config()), name).unwrap();
        let stream = within("connecting", SOON, TcpStream::connect(self.address)).await;
        let mut stream = stream.expect("the listener accepts");
        let mut hello = Vec::new();
        client.write_tls(&mut hello).unwrap();
        stream.write_all(&hello).await.unwrap();
        while client.is_handshaking() {
            let mut read = Vec::new();
            let count = within("a handshake", SOON, stream.read_buf(&mut read)).await;
            assert!(count.unwrap() > 0, "the server closed");
            let mut rest = &read[..];
            while !rest.is_empty() {
                client.read_tls(&mut rest).unwrap();
                client.process_new_packets().unwrap();
            }
        }
        let mut last = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut last).unwrap();
        }
        (stream, last)
    }

    /// The status of a GET for `/` on this host, over a connection of its own.
    pub async fn status(&self, host: &str) -> Result<u16, TlsFailure> {
        self.connect().await?.status(host).await
    }

    /// HTTP over a new connection, by the protocol that is agreed on.
    pub async fn http(&self) -> HttpsConnection {
        self.connect().await.unwrap().http().await
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::builder_with_provider(Arc::new(self.provider.clone()))
            .with_protocol_versions(&self.versions)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(self.verifier.clone())
            .with_client_cert_resolver(self.shown.clone());
        config.alpn_protocols = self.protocols.clone();
        config.enable_sni = self.name.is_some();
        config.resumption = Resumption::store(self.sessions.clone());
        config
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsConnection<S> {
    /// The protocol that was agreed on; empty for none.
    pub fn protocol(&self) -> String {
        let agreed = self.stream.get_ref().1.alpn_protocol();
        String::from_utf8_lossy(agreed.unwrap_or_default()).into_owned()
    }

    pub fn version(&self) -> Option<ProtocolVersion> {
        self.stream.get_ref().1.protocol_version()
    }

    pub fn suite(&self) -> Option<CipherSuite> {
        let suite = self.stream.get_ref().1.negotiated_cipher_suite();
        suite.map(|suite| suite.suite())
    }

    pub fn is_resumed(&self) -> bool {
        self.stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The server's certificate.
    pub fn certificate(&self) -> Vec<u8> {
        let shown = self.stream.get_ref().1.peer_certificates();
        shown.map_or_else(Vec::new, |chain| chain[0].to_vec())
    }

    /// To write and read bytes in TLS.
    pub fn raw(self) -> RawConnection<TlsStream<S>> {
        RawConnection::over(self.stream)
    }

    /// To write and read frames in TLS. The preface has been sent.
    pub async fn h2(self) -> H2<TlsStream<S>> {
        let mut h2 = H2::on(self.stream);
        h2.write(crate::h2raw::PREFACE).await;
        h2
    }

    /// The status of a GET for `/` on this host. With TLS 1.3 a server refuses a client's
    /// certificate only now.
    pub async fn status(self, host: &str) -> Result<u16, TlsFailure> {
        self.answer(host).await.map(|(status, _)| status)
    }

    /// The status of a GET for `/` on this host, and whether the session was resumed. Reads to the
    /// end, so that tickets arrive.
    pub async fn answer(mut self, host: &str) -> Result<(u16, bool), TlsFailure> {
        let resumed = self.is_resumed();
        let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        let mut read = Vec::new();
        let exchange = async {
            self.stream.write_all(request.as_bytes()).await?;
            self.stream.flush().await?;
            self.stream.read_to_end(&mut read).await
        };
        let exchange = within("a GET", SOON, exchange).await;
        exchange.map_err(|error| TlsFailure::of(&error))?;
        let text = String::from_utf8_lossy(&read);
        let status = text
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        let status = status.ok_or(TlsFailure::Closed)?;
        Ok((status, resumed))
    }
}

impl TlsConnection {
    pub async fn http(self) -> HttpsConnection {
        let is_http2 = self.protocol() == "h2";
        let stream = TokioIo::new(self.stream);
        let (sender, version) = if is_http2 {
            let made = http2::handshake(TokioExecutor::new(), stream).await;
            let (sender, connection) = made.unwrap();
            tokio::spawn(connection);
            (Sender::Http2(sender), Version::HTTP_2)
        } else {
            let (sender, connection) = http1::handshake(stream).await.unwrap();
            tokio::spawn(connection);
            (Sender::Http1(sender), Version::HTTP_11)
        };
        HttpsConnection { sender, version }
    }
}

impl HttpsConnection {
    /// GET, to its end.
    pub async fn get(&mut self, host: &str, path: &str) -> Answer {
        self.send(host, Request::get(path)).await
    }

    /// Sends a request without body for this host, and reads the whole answer.
    pub async fn send(&mut self, host: &str, request: http::request::Builder) -> Answer {
        self.send_with(host, request, "").await
    }

    /// The same with a body.
    pub async fn send_with(
        &mut self,
        host: &str,
        request: http::request::Builder,
        body: impl Into<Bytes>,
    ) -> Answer {
        let what = format!("{:?} for {host}", request.uri_ref());
        within(&what, SOON, self.exchange(host, request, body.into())).await
    }

    /// Whether a further request can be sent.
    pub fn is_open(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => !sender.is_closed(),
            Sender::Http2(sender) => !sender.is_closed(),
        }
    }

    async fn exchange(
        &mut self,
        host: &str,
        request: http::request::Builder,
        body: Bytes,
    ) -> Answer {
        let mut request = request.body(Full::new(body)).unwrap();
        let (method, path) = (request.method().clone(), request.uri().to_string());
        let answer = match &mut self.sender {
            Sender::Http1(sender) => {
                let value = HeaderValue::from_str(host).unwrap();
                request.headers_mut().insert("host", value);
                sender.ready().await.unwrap();
                sender.send_request(request).await
            }
            Sender::Http2(sender) => {
                *request.uri_mut() = format!("https://{host}{path}").parse().unwrap();
                sender.ready().await.unwrap();
                sender.send_request(request).await
            }
        };
        let (head, body) = answer.unwrap().into_parts();
        check::response(&check::Context {
            method: &method,
            target: &path,
            status: head.status,
            headers: &head.headers,
            cache_status_due: false,
            tags_allowed: false,
            duplicates_allowed: false,
        });
        let collected = body.collect().await.unwrap();
        Answer {
            status: head.status,
            version: head.version,
            headers: head.headers,
            trailers: collected.trailers().cloned(),
            body: collected.to_bytes(),
            at: std::time::Instant::now(),
        }
    }
}

impl TlsFailure {
    pub fn of(error: &std::io::Error) -> Self {
        let inner = error.get_ref();
        let inner = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
        let closed = [
            std::io::ErrorKind::UnexpectedEof,
            std::io::ErrorKind::ConnectionReset,
            std::io::ErrorKind::BrokenPipe,
        ];
        match inner {
            Some(rustls::Error::AlertReceived(alert)) => Self::Alert(u8::from(*alert)),
            _ if closed.contains(&error.kind()) => Self::Closed,
            _ => Self::Other(error.to_string()),
        }
    }
}

/// Accepts every certificate to which the server has the key.
#[derive(Debug)]
struct AnyCertificate {
    schemes: Vec<SignatureScheme>,
    provider: CryptoProvider,
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}

/// The certificate of a client, which it shows whatever authorities it is asked for.
#[derive(Debug)]
struct ShownCertificate(Option<Arc<CertifiedKey>>);

impl ResolvesClientCert for ShownCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }

    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}

/// A connection whose first message leaves in records of one byte each.
pub struct OneByteRecords<S> {
    stream: S,
    waiting: Vec<u8>,
    begun: bool,
}

impl<S> OneByteRecords<S> {
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            waiting: Vec::new(),
            begun: false,
        }
    }
}

impl<S: AsyncWrite + Unpin> OneByteRecords<S> {
    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        while !self.waiting.is_empty() {
            let written = Pin::new(&mut self.stream).poll_write(cx, &self.waiting);
            let count = ready!(written)?;
            self.waiting.drain(..count);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for OneByteRecords<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for OneByteRecords<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_waiting(cx))?;
        if this.begun {
            return Pin::new(&mut this.stream).poll_write(cx, bytes);
        }
        this.begun = true;
        this.waiting = hello::records(&bytes[5..], 1);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_waiting(cx))?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_waiting(cx))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}
