//! HTTP/3: a gateway that speaks it, and clients of two kinds.
//!
//! [`client`] is a whole client on the crate h3, which shares nothing with the gateway but the
//! packets below it; [`raw`] writes any bytes on any stream of a connection and tells with which
//! code the gateway ended it; [`packets`] writes any frames of QUIC below them; [`tcp`] asks the same listener over TLS by HTTP/1 and HTTP/2.
//! [`relay`] is a bad network between them. [`certificates`] makes what all of them trust.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use crate::gateway::Gateway;
use crate::h3::certificates::Certificates;
use crate::h3::client::H3Client;
use crate::h3::raw::RawH3;
use crate::setup::Setup;
use crate::tls::authority::Certificate;
use crate::wait::{SOON, within};

pub mod certificates;
pub mod client;
pub mod packets;
pub mod raw;
pub mod relay;
pub mod tcp;

/// The name that the clients ask for unless they are told another.
pub const NAME: &str = "shop.test";
/// A second name of the certificate.
pub const OTHER_NAME: &str = "other.test";
/// A third one, for a policy of its own.
pub const STRICT_NAME: &str = "strict.test";

/// A gateway with one listener for HTTP/1, HTTP/2 and HTTP/3.
pub struct SecuredGateway {
    pub gateway: Gateway,
    pub certificates: Certificates,
}

/// How a client connects.
#[derive(Clone)]
pub struct Reach {
    pub name: String,
    pub transport: Arc<quinn::TransportConfig>,
    /// Sessions that may be resumed; clones share them.
    pub sessions: Resumption,
    /// What is shown to who asks for a certificate. A session is resumed with the same one alone.
    pub shows: Arc<dyn ResolvesClientCert>,
}

impl Default for Reach {
    fn default() -> Self {
        Self {
            name: NAME.to_owned(),
            transport: Arc::default(),
            sessions: Resumption::default(),
            shows: Arc::new(NoCertificate),
        }
    }
}

/// Shows no certificate.
#[derive(Debug)]
struct NoCertificate;

impl ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

impl Reach {
    /// Another name, for SNI and for `:authority`.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..Self::default()
        }
    }

    /// Shows this certificate.
    pub fn showing(mut self, certificate: &Certificate) -> Self {
        let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes()).expect("it is a key");
        let key = any_supported_type(&key).expect("the key is of a known kind");
        let chain = vec![CertificateDer::from(certificate.der.clone())];
        self.shows = Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key)));
        self
    }

    /// Another behaviour of the client's side of QUIC.
    pub fn with(change: impl FnOnce(&mut quinn::TransportConfig)) -> Self {
        let mut transport = quinn::TransportConfig::default();
        change(&mut transport);
        Self {
            transport: Arc::new(transport),
            ..Self::default()
        }
    }
}

impl SecuredGateway {
    /// Starts a gateway with this setup, whose listener gets TLS and all protocols.
    pub async fn start(setup: Setup) -> Self {
        Self::start_with(setup, "").await
    }

    /// The same with further keys of `tls`, each with a comma before it.
    pub async fn start_with(setup: Setup, tls: &str) -> Self {
        let certificates = Certificates::new(&[NAME, OTHER_NAME, STRICT_NAME]);
        let gateway = certificates.secure(setup, tls).start().await;
        Self {
            gateway,
            certificates,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.gateway.address
    }

    /// A new connection of the whole client.
    pub async fn client(&self) -> H3Client {
        self.client_by(&Reach::default()).await
    }

    pub async fn client_by(&self, reach: &Reach) -> H3Client {
        let endpoint = self.endpoint(reach);
        let connection = self.connect(&endpoint, reach).await;
        H3Client::over(endpoint, connection, &reach.name).await
    }

    /// A new connection of the raw client, with a control stream and no settings in it.
    pub async fn raw(&self) -> RawH3 {
        self.raw_by(&Reach::default()).await
    }

    pub async fn raw_by(&self, reach: &Reach) -> RawH3 {
        let mut raw = self.bare_by(reach).await;
        raw.open_control().await;
        raw
    }

    /// A new connection on which nothing is sent yet.
    pub async fn bare(&self) -> RawH3 {
        self.bare_by(&Reach::default()).await
    }

    pub async fn bare_by(&self, reach: &Reach) -> RawH3 {
        let endpoint = self.endpoint(reach);
        let connection = self.connect(&endpoint, reach).await;
        RawH3::over(endpoint, connection, &reach.name)
    }

    /// The raw client on a connection that is there, with a control stream.
    pub async fn raw_over(
        &self,
        endpoint: quinn::Endpoint,
        connection: quinn::Connection,
        reach: &Reach,
    ) -> RawH3 {
        let mut raw = RawH3::over(endpoint, connection, &reach.name);
        raw.open_control().await;
        raw
    }

    /// An endpoint on a port of its own.
    pub fn endpoint(&self, reach: &Reach) -> quinn::Endpoint {
        let mut endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into())
            .expect("a UDP socket can be opened");
        endpoint.set_default_client_config(self.certificates.quic(reach));
        endpoint
    }

    async fn connect(&self, endpoint: &quinn::Endpoint, reach: &Reach) -> quinn::Connection {
        let connecting = connect_to(self.gateway.address, endpoint, reach);
        let connection = within("a QUIC handshake", SOON, connecting).await;
        connection.expect("the gateway accepts a QUIC connection")
    }

    /// Connects; the error if it is refused.
    ///
    /// # Errors
    /// If there is no connection.
    pub async fn try_connect(
        &self,
        endpoint: &quinn::Endpoint,
        reach: &Reach,
    ) -> Result<quinn::Connection, quinn::ConnectionError> {
        connect_to(self.gateway.address, endpoint, reach).await
    }
}

/// Connects to this address, where a [`relay`] may stand; the error if it is refused.
///
/// # Errors
/// If there is no connection.
pub async fn connect_to(
    address: SocketAddr,
    endpoint: &quinn::Endpoint,
    reach: &Reach,
) -> Result<quinn::Connection, quinn::ConnectionError> {
    let connecting = endpoint
        .connect(address, &reach.name)
        .expect("the name is one that can be asked for");
    connecting.await
}

/// Bytes in which no part looks like another, so that a swapped or lost piece shows.
pub fn pattern(length: usize) -> bytes::Bytes {
    let mut random = crate::random::Random::new(length as u64);
    let words = (0..length.div_ceil(8)).flat_map(|_| random.number().to_le_bytes());
    words.take(length).collect::<Vec<_>>().into()
}
