//! HTTPS to certificate authorities: what the client library sends its requests by.
//!
//! The library keeps neither `Retry-After` of a refusal nor the other chains that an issuer offers,
//! so both are noted here as answers go by.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{HOST, LINK, RETRY_AFTER};
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Uri};
use http_body_util::{BodyExt, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, HttpClient};
use lamina_base::tls::{self, TrustedAuthoritiesError};
use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use super::config::AcmeIssuerConfig;

/// The most octets of an answer.
const MOST_OCTETS: usize = 1 << 20;

/// The most other chains of a certificate that are looked at.
const MOST_CHAINS: usize = 8;

/// How requests to one issuer are sent.
#[derive(Clone)]
pub struct AcmeTransport(Arc<TransportState>);

struct TransportState {
    connector: TlsConnector,
    timeout: Duration,
    /// The connection that the last request has left.
    idle: Mutex<Option<IdleConnection>>,
    notes: Mutex<TransportNotes>,
}

/// What was seen in answers.
#[derive(Default)]
struct TransportNotes {
    retry_after: Option<SystemTime>,
    chains: Vec<String>,
    last_chain: Option<String>,
}

struct IdleConnection {
    authority: String,
    sender: SendRequest<BodyWrapper<Bytes>>,
    _driver: AbortOnDropHandle<()>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AcmeTransportError {
    #[error("{0} is no URL of HTTPS")]
    NoUrl(Uri),
    #[error("{host} can't be reached: {source}")]
    Connect {
        host: String,
        source: std::io::Error,
    },
    #[error("the exchange with {host} broke off: {reason}")]
    Broken { host: String, reason: String },
    #[error("{host} gave no answer within {limit:?}")]
    Timeout { host: String, limit: Duration },
}

impl AcmeTransport {
    /// Reads the authorities that the issuer's server is verified against.
    ///
    /// # Errors
    /// If they can't be used.
    pub fn new(
        issuer: &AcmeIssuerConfig,
        timeout: Duration,
    ) -> Result<Self, TrustedAuthoritiesError> {
        let roots = match &issuer.ca_file {
            Some(file) => tls::authorities_of(file)?,
            None => tls::authorities_of_the_system()?,
        };
        let config = ClientConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| TrustedAuthoritiesError::System(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(Arc::new(TransportState {
            connector: TlsConnector::from(Arc::new(config)),
            timeout,
            idle: Mutex::default(),
            notes: Mutex::default(),
        })))
    }

    /// When the issuer wants to be asked again, if its last refusal said so.
    pub fn take_retry_after(&self) -> Option<SystemTime> {
        self.0.notes.lock().retry_after.take()
    }

    /// The URLs of the other chains that the last certificate was offered with.
    pub fn take_chains(&self) -> Vec<String> {
        std::mem::take(&mut self.0.notes.lock().chains)
    }

    /// The last chain that was read.
    pub fn take_last_chain(&self) -> Option<String> {
        self.0.notes.lock().last_chain.take()
    }
}

impl HttpClient for AcmeTransport {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, instant_acme::Error>> + Send>> {
        let state = Arc::clone(&self.0);
        Box::pin(async move {
            let host = request.uri().host().unwrap_or_default().to_owned();
            let limit = state.timeout;
            let exchanged = timeout(limit, state.exchange(request)).await;
            let exchanged = exchanged.unwrap_or(Err(AcmeTransportError::Timeout { host, limit }));
            exchanged.map_err(|error| instant_acme::Error::Other(Box::new(error)))
        })
    }
}

impl TransportState {
    async fn exchange(
        &self,
        mut request: Request<BodyWrapper<Bytes>>,
    ) -> Result<BytesResponse, AcmeTransportError> {
        let uri = request.uri().clone();
        let Some((host, authority)) = uri.host().zip(uri.authority()) else {
            return Err(AcmeTransportError::NoUrl(uri));
        };
        let broken = |reason: &dyn Error| AcmeTransportError::Broken {
            host: host.to_owned(),
            reason: reason.to_string(),
        };
        let name = HeaderValue::from_str(authority.as_str()).map_err(|error| broken(&error))?;
        request.headers_mut().insert(HOST, name);
        let path = uri.path_and_query().cloned();
        *request.uri_mut() = Uri::from(path.unwrap_or(PathAndQuery::from_static("/")));
        let mut connection = self.connection(&uri).await?;
        let response = connection.sender.send_request(request).await;
        let (parts, body) = response.map_err(|error| broken(&error))?.into_parts();
        let body = Limited::new(body, MOST_OCTETS).collect().await;
        let body = body.map_err(|error| broken(&*error))?.to_bytes();
        *self.idle.lock() = Some(connection);
        self.note(&uri, &parts, &body);
        Ok(BytesResponse {
            parts,
            body: Box::new(body),
        })
    }

    /// The connection of the request before, or a new one.
    async fn connection(&self, uri: &Uri) -> Result<IdleConnection, AcmeTransportError> {
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let idle = self.idle.lock().take();
        if let Some(mut idle) = idle.filter(|idle| idle.authority == authority)
            && idle.sender.ready().await.is_ok()
        {
            return Ok(idle);
        }
        let no_url = || AcmeTransportError::NoUrl(uri.clone());
        let host = uri.host().ok_or_else(no_url)?;
        if uri.scheme_str() != Some("https") {
            return Err(no_url());
        }
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(bare.to_owned()).map_err(|_| no_url())?;
        let port = uri.port_u16().unwrap_or(443);
        let failed = |source| AcmeTransportError::Connect {
            host: format!("{host}:{port}"),
            source,
        };
        let stream = TcpStream::connect((bare, port)).await.map_err(failed)?;
        let stream = self.connector.connect(name, stream).await.map_err(failed)?;
        let made = http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = made.map_err(|error| AcmeTransportError::Broken {
            host: host.to_owned(),
            reason: error.to_string(),
        })?;
        let driver = tokio::spawn(async move {
            // What breaks is told to whoever waits for an answer.
            let _ = connection.await;
        });
        Ok(IdleConnection {
            authority: authority.to_owned(),
            sender,
            _driver: AbortOnDropHandle::new(driver),
        })
    }

    fn note(&self, uri: &Uri, parts: &http::response::Parts, body: &Bytes) {
        let refuses = parts.status.is_client_error() || parts.status.is_server_error();
        let mut notes = self.notes.lock();
        if refuses {
            notes.retry_after = parts.headers.get(RETRY_AFTER).and_then(retry_after);
        }
        if body.starts_with(b"-----BEGIN CERTIFICATE") {
            let links = parts.headers.get_all(LINK).iter();
            let links = links.filter_map(|link| alternate(uri, link.to_str().ok()?));
            notes.chains = links.take(MOST_CHAINS).collect();
            notes.last_chain = String::from_utf8(body.to_vec()).ok();
        }
    }
}

/// The time that `Retry-After` (RFC 9110 §10.2.3) stands for.
fn retry_after(value: &HeaderValue) -> Option<SystemTime> {
    let text = value.to_str().ok()?.trim();
    match text.parse() {
        Ok(seconds) => SystemTime::now().checked_add(Duration::from_secs(seconds)),
        Err(_) => crate::http::date::parse(text, SystemTime::now()),
    }
}

/// The URL of a link to another chain (RFC 8555 §7.4.2).
fn alternate(base: &Uri, link: &str) -> Option<String> {
    let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    let is_alternate = parameters.split(';').any(|parameter| {
        let parameter = parameter.trim().replace('"', "");
        parameter.eq_ignore_ascii_case("rel=alternate")
    });
    let absolute = match target.starts_with('/') {
        true => format!("https://{}{target}", base.authority()?),
        false => target.to_owned(),
    };
    is_alternate.then_some(absolute)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_chains_are_found() {
        let base = Uri::from_static("https://ca.example:14000/cert/1");
        let found = |link| alternate(&base, link);
        let url = Some("https://ca.example:14000/cert/1/alternate/1".to_owned());
        let link = "<https://ca.example:14000/cert/1/alternate/1>;rel=\"alternate\"";
        assert_eq!(found(link), url);
        assert_eq!(found("</cert/1/alternate/1>; rel=alternate"), url);
        assert_eq!(found("<https://ca.example/dir>;rel=\"index\""), None);
    }
}
