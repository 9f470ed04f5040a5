//! A gateway that speaks HTTPS as [`NAME`], before an origin.

use super::TlsClient;
use super::authority::{Authority, Certificate};
use crate::gateway::Gateway;
use crate::origin::{Origin, Seen};
use crate::reply::Reply;
use crate::setup::Setup;

/// The host of the site.
pub const NAME: &str = "a.example";

/// Everything that a test of HTTPS needs.
pub struct HttpsSite {
    pub authority: Authority,
    pub certificate: Certificate,
    pub origin: Origin,
    pub gateway: Gateway,
}

/// A listener of HTTPS for `a.crt` with `a.key`; `more` are further keys of its TLS.
pub fn tls(more: &str) -> String {
    format!("{{certificates: [{{cert: a.crt, key: a.key}}], {more}}}")
}

impl HttpsSite {
    /// With further keys of TLS.
    pub async fn start(more: &str) -> Self {
        Self::with(more, |setup| setup, |_| Reply::fresh("page")).await
    }

    /// With further keys of TLS, of the configuration, and pages of an origin.
    pub async fn with(
        more: &str,
        further: impl FnOnce(Setup) -> Setup,
        page: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::before(Origin::pages(page).await, more, further).await
    }

    /// Before this origin.
    pub async fn before(origin: Origin, more: &str, further: impl FnOnce(Setup) -> Setup) -> Self {
        let authority = Authority::new("authority");
        let certificate = authority.server(&[NAME]);
        let setup = Setup::new(&origin)
            .pair("a", &certificate)
            .listener("tls", &tls(more));
        let gateway = further(setup).start().await;
        Self {
            authority,
            certificate,
            origin,
            gateway,
        }
    }

    /// A client that asks for the site's name.
    pub fn client(&self) -> TlsClient {
        TlsClient::new(self.gateway.address, NAME)
    }
}
