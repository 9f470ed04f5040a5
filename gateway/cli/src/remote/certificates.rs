//! `lamina acme`: the automatic certificates of a running gateway.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::Method;
use lamina_base::units::ConfigDuration;
use serde_json::Value;

use super::{RemoteError, RemoteGateway};

/// How long an issuer may take to revoke certificates.
const REVOKING: Duration = Duration::from_secs(60);

/// The list of automatic certificates.
pub struct RemoteCertificateList(Value);

/// What became of a request to renew or revoke.
pub struct RemoteCertificateChange(Value);

impl RemoteGateway {
    /// Lists the automatic certificates.
    ///
    /// # Errors
    /// See [`RemoteError`].
    pub async fn certificates(&self) -> Result<RemoteCertificateList, RemoteError> {
        let path = "/v1/certificates";
        let answer = self.ask(Method::GET, path, String::new(), Duration::ZERO);
        answer.await.map(RemoteCertificateList)
    }

    /// Has the certificates for a name renewed.
    ///
    /// # Errors
    /// See [`RemoteError`].
    pub async fn renew_certificate(
        &self,
        name: &str,
    ) -> Result<RemoteCertificateChange, RemoteError> {
        let path = format!("/v1/certificates/{name}/renew");
        let answer = self.ask(Method::POST, &path, String::new(), Duration::ZERO);
        answer.await.map(RemoteCertificateChange)
    }

    /// Has the certificates for a name revoked.
    ///
    /// # Errors
    /// See [`RemoteError`].
    pub async fn revoke_certificate(
        &self,
        name: &str,
    ) -> Result<RemoteCertificateChange, RemoteError> {
        let path = format!("/v1/certificates/{name}/revoke");
        let answer = self.ask(Method::POST, &path, String::new(), REVOKING);
        answer.await.map(RemoteCertificateChange)
    }
}

impl fmt::Display for RemoteCertificateList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for one in self.0["certificates"].as_array().into_iter().flatten() {
            let names = one["names"].as_array().into_iter().flatten();
            let names: Vec<_> = names.filter_map(Value::as_str).collect();
            write!(f, "{}: ", names.join(" "))?;
            match (one["issuer"].as_str(), one["not_after"].as_u64()) {
                (Some(issuer), Some(end)) => {
                    write!(f, "from {issuer}, {}", span("ends", end))?;
                }
                _ => f.write_str("there is none yet")?,
            }
            let next = one["next"].as_u64().unwrap_or_default();
            write!(f, ", {}", span("next attempt", next))?;
            if let Some(failures) = one["failures"].as_u64().filter(|count| *count > 0) {
                let noun = if failures == 1 { "failure" } else { "failures" };
                write!(f, ", {failures} {noun}")?;
            }
            match one["last_error"].as_str() {
                Some(error) => writeln!(f, ": {error}")?,
                None => writeln!(f)?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for RemoteCertificateChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |key: &str| self.0[key].as_u64();
        if let Some(count) = count("renewing") {
            writeln!(f, "{count} certificates are being renewed")?;
        }
        if let Some(count) = count("revoked") {
            writeln!(
                f,
                "{count} certificates are revoked, and others are being obtained"
            )?;
        }
        Ok(())
    }
}

/// Seconds of a day, an hour and a minute.
const UNITS: [u64; 3] = [86_400, 3_600, 60];

/// A time as the span from now, in the largest unit of which there are two.
fn span(what: &str, time: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |now| now.as_secs());
    match time.checked_sub(now) {
        None | Some(0) => format!("{what} now"),
        Some(seconds) => {
            let unit = UNITS.into_iter().find(|unit| seconds >= 2 * unit);
            let rounded = seconds - seconds % unit.unwrap_or(1);
            format!("{what} in {}", ConfigDuration::secs(rounded))
        }
    }
}
