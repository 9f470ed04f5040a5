//! TLS to one target of an upstream: what is verified, and what is shown.
//!
//! The certificate of the origin is verified against the system's authorities, or those of
//! `ca_file`, for one name: `server_name`, or else the host of the target. That name is also what
//! the origin is asked for (SNI). The client's `Host` has no part in it: a client must not choose
//! whom the gateway trusts.
//!
//! Each target has settings of its own, so that sessions are resumed for the same target, name and
//! rules only. The files are looked at again when a connection is opened.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::config::{OriginProtocol, OriginTlsConfig, OriginVerification};
use super::tls_report::{ShownCertificate, UpstreamTlsReport};
use super::verify::{OriginVerifier, PublicKeyPin, UnverifiedOrigin};
use crate::http::tls::certificate::{CertificatePair, certified_key};
use crate::http::tls::config::TlsVersion;
use crate::http::tls::files::{FileStamp, stamp};
use crate::telemetry::limit::LineLimiter;
use lamina_base::tls::{self, TrustedAuthoritiesError};

/// TLS to one target.
pub(super) struct OriginTls {
    settings: OriginTlsConfig,
    name: ServerName<'static>,
    protocol: OriginProtocol,
    current: Mutex<CurrentSettings>,
    /// What the target has agreed to speak, where that is not fixed.
    agreed: AgreedProtocol,
    reports: LineLimiter,
    watch: Arc<UpstreamTlsReport>,
    shown: Arc<ShownCertificate>,
    /// The last alert, and when it came.
    alert: Mutex<Option<(Instant, AlertDescription)>>,
}

/// The settings of connections, made from files that had these stamps.
struct CurrentSettings {
    config: Arc<ClientConfig>,
    stamps: Vec<Option<FileStamp>>,
    looked: Instant,
}

/// How often files are looked at again, at most.
const LOOK: Duration = Duration::from_secs(2);

/// How long it is believed that a target speaks HTTP/1.1 alone.
const HTTP1_FOR: Duration = Duration::from_secs(300);

/// Why TLS to a target can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum OriginTlsSetupError {
    #[error("tls.ca_file: {0}")]
    Authorities(#[from] TrustedAuthoritiesError),
    #[error("tls.client: {0}")]
    Client(String),
    #[error(
        "tls.pins: {0:?} is no pin; expected the SHA-256 of a public key (SPKI) in base64, 44 characters"
    )]
    Pin(String),
    #[error("tls.server_name: {0:?} is no name of a server and no address")]
    Name(String),
    #[error("{0}")]
    Unusable(String),
}

/// Why there is no TLS connection to an origin.
#[derive(Debug, thiserror::Error)]
pub enum OriginTlsError {
    #[error("TLS: {0}")]
    Handshake(rustls::Error),
    #[error("TLS: the connection failed")]
    Connection(#[source] std::io::Error),
    #[error("TLS: the origin does not speak HTTP/2 (ALPN)")]
    NoHttp2,
}

/// What the connection to a target speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SpokenProtocol {
    Http1,
    Http2,
    /// The next handshake tells.
    Unknown,
}

#[derive(Default)]
struct AgreedProtocol {
    code: AtomicU8,
    since: Mutex<Option<Instant>>,
}

impl AgreedProtocol {
    fn get(&self) -> SpokenProtocol {
        match self.code.load(Relaxed) {
            1 if self.is_recent() => SpokenProtocol::Http1,
            2 => SpokenProtocol::Http2,
            _ => SpokenProtocol::Unknown,
        }
    }

    fn set(&self, spoken: SpokenProtocol) {
        let code = match spoken {
            SpokenProtocol::Unknown => 0,
            SpokenProtocol::Http1 => 1,
            SpokenProtocol::Http2 => 2,
        };
        *self.since.lock() = Some(Instant::now());
        self.code.store(code, Relaxed);
    }

    fn is_recent(&self) -> bool {
        let since = *self.since.lock();
        since.is_some_and(|since| since.elapsed() < HTTP1_FOR)
    }
}

impl OriginTls {
    /// Reads the files. `host` is that of the target.
    pub(super) fn new(
        settings: &OriginTlsConfig,
        protocol: OriginProtocol,
        host: &str,
        watch: &Arc<UpstreamTlsReport>,
    ) -> Result<Self, OriginTlsSetupError> {
        let name = settings.server_name.as_deref().unwrap_or(host);
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(bare.to_owned())
            .map_err(|_| OriginTlsSetupError::Name(name.to_owned()))?;
        let shown = watch.target();
        let config = Arc::new(client_config(settings, &shown)?);
        Ok(Self {
            name,
            protocol,
            current: Mutex::new(CurrentSettings {
                config,
                stamps: stamps(settings),
                looked: Instant::now(),
            }),
            settings: settings.clone(),
            agreed: AgreedProtocol::default(),
            reports: LineLimiter::new(Instant::now()),
            watch: Arc::clone(watch),
            shown,
            alert: Mutex::new(None),
        })
    }

    /// What a connection to the target speaks.
    pub(super) fn spoken(&self) -> SpokenProtocol {
        match self.protocol {
            OriginProtocol::Http1 => SpokenProtocol::Http1,
            OriginProtocol::Http2 => SpokenProtocol::Http2,
            OriginProtocol::Auto => self.agreed.get(),
        }
    }

    /// Whether a connection that is opened for HTTP/1.1 alone is within the configuration.
    pub(super) fn may_speak_http1(&self) -> bool {
        self.protocol != OriginProtocol::Http2
    }

    /// Opens TLS for HTTP/2, or for HTTP/1.1 as well where the protocol is not fixed. Returns what
    /// was agreed on.
    pub(super) async fn connect_any(
        &self,
        stream: TcpStream,
    ) -> Result<(TlsStream<TcpStream>, SpokenProtocol), OriginTlsError> {
        let offered: &[&[u8]] = match self.protocol {
            OriginProtocol::Auto => &[b"h2", b"http/1.1"],
            OriginProtocol::Http1 | OriginProtocol::Http2 => &[b"h2"],
        };
        let stream = self.connect(stream, offered).await?;
        let spoken = match (stream.get_ref().1.alpn_protocol(), self.protocol) {
            (Some(b"h2"), _) => SpokenProtocol::Http2,
            (_, OriginProtocol::Auto) => SpokenProtocol::Http1,
            _ => return Err(OriginTlsError::NoHttp2),
        };
        self.agreed.set(spoken);
        Ok((stream, spoken))
    }

    /// Opens TLS for HTTP/1.1.
    pub(super) async fn connect_http1(
        &self,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, OriginTlsError> {
        let opened = self.connect(stream, &[b"http/1.1"]).await;
        if opened.is_err() {
            self.agreed.set(SpokenProtocol::Unknown);
        }
        opened
    }

    /// Notes the alert that an error of a connection stands for, if it does. With TLS 1.3 the alert
    /// about the certificate of a client comes after the handshake.
    pub(super) fn note_alert(&self, error: &std::io::Error) {
        let found = error.get_ref().and_then(|inner| inner.downcast_ref());
        if let Some(rustls::Error::AlertReceived(alert)) = found {
            *self.alert.lock() = Some((Instant::now(), *alert));
        }
    }

    /// An alert that the target has sent since then.
    pub(super) fn alert_since(&self, then: Instant) -> Option<OriginTlsError> {
        let (_, alert) = (*self.alert.lock()).filter(|(at, _)| *at >= then)?;
        Some(OriginTlsError::Handshake(rustls::Error::AlertReceived(
            alert,
        )))
    }

    /// The certificate that the target has shown last.
    pub(super) fn shown(&self) -> &ShownCertificate {
        &self.shown
    }

    async fn connect(
        &self,
        stream: TcpStream,
        offered: &[&[u8]],
    ) -> Result<TlsStream<TcpStream>, OriginTlsError> {
        self.watch.opening(Instant::now());
        let mut config = (*self.config()).clone();
        config.alpn_protocols = offered.iter().map(|name| name.to_vec()).collect();
        let connector = TlsConnector::from(Arc::new(config));
        connector
            .connect(self.name.clone(), stream)
            .await
            .map_err(of_rustls)
    }

    /// The settings by the files as they are now. What can't be used is reported, and changes
    /// nothing.
    fn config(&self) -> Arc<ClientConfig> {
        let mut current = self.current.lock();
        if current.looked.elapsed() < LOOK {
            return Arc::clone(&current.config);
        }
        current.looked = Instant::now();
        let now = stamps(&self.settings);
        if now != current.stamps {
            match client_config(&self.settings, &self.shown) {
                Ok(config) => {
                    current.config = Arc::new(config);
                    current.stamps = now;
                }
                Err(error) => {
                    if let Some(dropped) = self.reports.admit(Instant::now()) {
                        tracing::error!(%error, dropped, "TLS files for an origin not taken; those before stay in use");
                    }
                }
            }
        }
        Arc::clone(&current.config)
    }
}

/// The error of a handshake, without the wrapping of the library.
fn of_rustls(error: std::io::Error) -> OriginTlsError {
    let found = error.get_ref().and_then(|inner| inner.downcast_ref());
    match found {
        Some(error) => OriginTlsError::Handshake(rustls::Error::clone(error)),
        None => OriginTlsError::Connection(error),
    }
}

/// The stamps of the files that the settings name; none for a file that is not there.
fn stamps(settings: &OriginTlsConfig) -> Vec<Option<FileStamp>> {
    let client = settings.client.iter();
    let files = client.flat_map(|client| [&client.cert, &client.key]);
    let files = files.chain(&settings.ca_file);
    files.map(|file: &PathBuf| stamp(file).ok()).collect()
}

fn client_config(
    settings: &OriginTlsConfig,
    shown: &Arc<ShownCertificate>,
) -> Result<ClientConfig, OriginTlsSetupError> {
    let provider = tls::provider();
    let versions: &[&rustls::SupportedProtocolVersion] = match settings.min_version {
        TlsVersion::Tls12 => &[&TLS13, &TLS12],
        TlsVersion::Tls13 => &[&TLS13],
    };
    let unusable = |error: String| OriginTlsSetupError::Unusable(error);
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .map_err(|error| unusable(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier(settings, shown)?);
    let Some(client) = &settings.client else {
        return Ok(builder.with_no_client_auth());
    };
    let of_client = |error: String| OriginTlsSetupError::Client(error);
    let pair = CertificatePair::read(&client.cert, &client.key);
    let pair = pair.map_err(|error| of_client(error.to_string()))?;
    let certified = certified_key((&client.cert, &client.key), &pair);
    let certified = certified.map_err(|error| of_client(error.to_string()))?;
    let shown = rustls::sign::SingleCertAndKey::from(certified);
    Ok(builder.with_client_cert_resolver(Arc::new(shown)))
}

fn verifier(
    settings: &OriginTlsConfig,
    shown: &Arc<ShownCertificate>,
) -> Result<Arc<dyn ServerCertVerifier>, OriginTlsSetupError> {
    let provider = tls::provider();
    let verified: Arc<dyn ServerCertVerifier> = match settings.verify {
        OriginVerification::On => {
            let roots = match &settings.ca_file {
                Some(file) => Arc::new(tls::authorities_of(file)?),
                None => of_the_system()?,
            };
            WebPkiServerVerifier::builder_with_provider(roots, provider)
                .build()
                .map_err(|error| OriginTlsSetupError::Unusable(error.to_string()))?
        }
        OriginVerification::Off => Arc::new(UnverifiedOrigin::new(provider)),
    };
    let pin = |text: &String| {
        PublicKeyPin::parse(text).ok_or_else(|| OriginTlsSetupError::Pin(text.clone()))
    };
    let pins = settings.pins.iter().map(pin).collect::<Result<_, _>>()?;
    let shown = Arc::clone(shown);
    Ok(Arc::new(OriginVerifier::new(verified, pins, shown)))
}

/// The system's authorities, which are read once.
fn of_the_system() -> Result<Arc<RootCertStore>, OriginTlsSetupError> {
    static READ: LazyLock<Result<Arc<RootCertStore>, String>> = LazyLock::new(|| {
        let found = tls::authorities_of_the_system();
        found.map(Arc::new).map_err(|error| error.to_string())
    });
    READ.clone().map_err(OriginTlsSetupError::Unusable)
}
