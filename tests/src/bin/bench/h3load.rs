//! `bench h3load ADDRESS CA TARGET OCTETS SECONDS CONNECTIONS STREAMS`: load over HTTP/3, as a
//! program of its own, so that it can be kept to a core as wrk and h2load are.
//!
//! Each stream of each connection asks for the page again as soon as it is whole, and checks its
//! length. With `new` for STREAMS each request has a connection of its own, without resumption.
//! Prints how many were answered and how long that took. Nothing packaged does this: Debian's
//! h2load has no HTTP/3.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::{Buf, Bytes};
use futures_util::future::{poll_fn, try_join_all};
use h3::client::SendRequest;
use h3_quinn::OpenStreams;
use http::Request;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::crypto::{self, Session};
use quinn::{ConnectError, Side, TransportConfig};
use quinn_proto::transport_parameters::TransportParameters;
use rustls::RootCertStore;
use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// The octets that a stream and a connection may have on their way.
const WINDOW: u32 = 16 << 20;

/// The name that the certificate is for.
const NAME: &str = "localhost";

/// The load, as the command line has it.
struct Http3Load {
    address: SocketAddr,
    target: String,
    octets: usize,
    length: Duration,
    connections: usize,
    /// None: each request has a connection of its own.
    streams: Option<usize>,
}

/// Runs it with the arguments behind `h3load`.
pub fn run(arguments: &[String]) -> anyhow::Result<()> {
    let [address, ca, target, octets, seconds, connections, streams] = arguments else {
        bail!("h3load takes ADDRESS CA TARGET OCTETS SECONDS CONNECTIONS STREAMS");
    };
    let load = Http3Load {
        address: address.parse().context("ADDRESS")?,
        target: target.clone(),
        octets: octets.parse().context("OCTETS")?,
        length: Duration::from_secs(seconds.parse().context("SECONDS")?),
        connections: connections.parse().context("CONNECTIONS")?,
        streams: match &**streams {
            "new" => None,
            number => Some(number.parse().context("STREAMS")?),
        },
    };
    let config = client_config(ca)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let began = Instant::now();
    let answered = runtime.block_on(load.play(config))?;
    let took = began.elapsed().as_secs_f64();
    println!("{answered} requests in {took} s");
    Ok(())
}

fn client_config(ca: &str) -> anyhow::Result<quinn::ClientConfig> {
    // An error means that one is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let pem = fs::read(ca).with_context(|| format!("reading {ca}"))?;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&pem).context("the authority's certificate")?)?;
    let mut tls = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    tls.resumption = Resumption::disabled();
    let tls = WithoutReserved(Arc::new(QuicClientConfig::try_from(tls)?));
    let mut config = quinn::ClientConfig::new(Arc::new(tls));
    let mut transport = TransportConfig::default();
    transport.stream_receive_window(WINDOW.into());
    transport.receive_window(WINDOW.into());
    config.transport_config(Arc::new(transport));
    Ok(config)
}

/// Sends no reserved transport parameter (RFC 9000 §18.1), of which quinn sends one with a number by
/// chance. nginx keeps 16 bits of that number: one connection in four thousand brings one that reads
/// as a parameter that it knows, with a value that is none, and is refused.
struct WithoutReserved(Arc<QuicClientConfig>);

impl crypto::ClientConfig for WithoutReserved {
    fn start_session(
        self: Arc<Self>,
        version: u32,
        server_name: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn Session>, ConnectError> {
        let mut written = Vec::new();
        params.write(&mut written);
        // Whoever reads them leaves out what nobody knows.
        let read = TransportParameters::read(Side::Server, &mut &written[..]);
        let known = read.as_ref().unwrap_or(params);
        Arc::clone(&self.0).start_session(version, server_name, known)
    }
}

impl Http3Load {
    async fn play(&self, config: quinn::ClientConfig) -> anyhow::Result<u64> {
        let mut endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into())?;
        endpoint.set_default_client_config(config);
        let end = Instant::now() + self.length;
        let connections = (0..self.connections).map(|_| self.connections(&endpoint, end));
        Ok(try_join_all(connections).await?.iter().sum())
    }

    /// One connection, or one after the other.
    async fn connections(&self, endpoint: &quinn::Endpoint, end: Instant) -> anyhow::Result<u64> {
        if let Some(streams) = self.streams {
            return self.connection(endpoint, (streams, end)).await;
        }
        let mut answered = 0;
        while Instant::now() < end {
            // A stream asks once in any case.
            answered += self.connection(endpoint, (1, Instant::now())).await?;
        }
        Ok(answered)
    }

    async fn connection(
        &self,
        endpoint: &quinn::Endpoint,
        (streams, end): (usize, Instant),
    ) -> anyhow::Result<u64> {
        let connection = endpoint.connect(self.address, NAME)?.await?;
        let opened = h3::client::new(h3_quinn::Connection::new(connection.clone())).await?;
        let (mut driver, sender) = opened;
        let driver = tokio::spawn(async move { poll_fn(|cx| driver.poll_close(cx)).await });
        let streams = (0..streams).map(|_| self.stream(sender.clone(), end));
        let answered = try_join_all(streams).await?.iter().sum();
        driver.abort();
        // H3_NO_ERROR.
        connection.close(0x100_u32.into(), b"");
        Ok(answered)
    }

    async fn stream(
        &self,
        mut sender: SendRequest<OpenStreams, Bytes>,
        end: Instant,
    ) -> anyhow::Result<u64> {
        let url = format!("https://{NAME}:{}{}", self.address.port(), self.target);
        let mut answered = 0;
        loop {
            let request = Request::get(&url).body(())?;
            let mut stream = sender.send_request(request).await?;
            stream.finish().await?;
            let head = stream.recv_response().await?;
            let mut length = 0;
            while let Some(piece) = stream.recv_data().await? {
                length += piece.remaining();
            }
            if head.status() != 200 || length != self.octets {
                bail!("answered {} with {length} octets", head.status());
            }
            answered += 1;
            if Instant::now() >= end {
                return Ok(answered);
            }
        }
    }
}
