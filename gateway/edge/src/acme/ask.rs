//! Asks the operator's application whether a certificate for a name may be obtained
//! (`acme.on_demand.ask`).

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, USER_AGENT};
use http::{Request, StatusCode, Uri};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use lamina_base::tls::{self, TrustedAuthoritiesError};
use rustls::ClientConfig;
use rustls::pki_types::{InvalidDnsNameError, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

/// How long the application may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The application that is asked.
pub struct AskedApplication {
    url: Uri,
    /// None for a URL in clear text.
    secured: Option<(TlsConnector, ServerName<'static>)>,
}

/// What the application says of a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AskAnswer {
    Allowed,
    Refused(StatusCode),
}

/// Why the application can't be asked at all.
#[derive(Debug, thiserror::Error)]
pub enum AskSetupError {
    #[error("not a URL: {0}")]
    Url(#[from] http::uri::InvalidUri),
    #[error("its host is no name: {0}")]
    Host(#[from] InvalidDnsNameError),
    #[error(transparent)]
    Authorities(#[from] TrustedAuthoritiesError),
    #[error("TLS can't be set up: {0}")]
    Tls(#[from] rustls::Error),
}

impl AskedApplication {
    /// # Errors
    /// If the URL is none, or the authorities of the system can't be read for `https`.
    pub fn new(url: &str) -> Result<Self, AskSetupError> {
        let url: Uri = url.parse()?;
        let secured = match url.scheme_str() {
            Some("https") => Some((connector()?, ServerName::try_from(bare_host(&url))?)),
            _ => None,
        };
        Ok(Self { url, secured })
    }

    /// Asks about a name, which has letters, digits, hyphens and dots alone.
    ///
    /// # Errors
    /// If there is no answer in time.
    pub async fn ask(&self, name: &str) -> Result<AskAnswer, Box<dyn Error + Send + Sync>> {
        let status = timeout(PATIENCE, self.exchange(name)).await??;
        Ok(match status.is_success() {
            true => AskAnswer::Allowed,
            false => AskAnswer::Refused(status),
        })
    }

    async fn exchange(&self, name: &str) -> Result<StatusCode, Box<dyn Error + Send + Sync>> {
        let default = if self.secured.is_some() { 443 } else { 80 };
        let port = self.url.port_u16().unwrap_or(default);
        let host = bare_host(&self.url);
        let stream = TcpStream::connect((&*host, port)).await?;
        match &self.secured {
            Some((connector, server)) => {
                let secured = connector.connect(server.clone(), stream).await?;
                self.send(name, secured).await
            }
            None => self.send(name, stream).await,
        }
    }

    async fn send<S>(
        &self,
        name: &str,
        stream: S,
    ) -> Result<StatusCode, Box<dyn Error + Send + Sync>>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let _driver = AbortOnDropHandle::new(tokio::spawn(async move {
            // What breaks is told to whoever waits for the answer.
            let _ = connection.await;
        }));
        let authority = self
            .url
            .authority()
            .map_or("", |authority| authority.as_str());
        let request = Request::get(format!("{}?domain={name}", self.url.path()))
            .header(HOST, authority)
            .header(USER_AGENT, "lamina")
            .body(Empty::<Bytes>::new())?;
        Ok(sender.send_request(request).await?.status())
    }
}

fn bare_host(url: &Uri) -> String {
    let host = url.host().unwrap_or_default();
    host.trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned()
}

fn connector() -> Result<TlsConnector, AskSetupError> {
    let config = ClientConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(tls::authorities_of_the_system()?)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
