//! What is risky about the certificates of the listeners, beside the names that routes serve.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use rustls::RootCertStore;

use crate::config::GatewayConfig;
use crate::http::tls::certificate::{CertificateError, ServerCertificate};
use crate::http::tls::config::{CertificateSource, ListenerTlsConfig};
use crate::http::tls::names::ServerNamePattern;
use crate::http::tls::obtained::names_of;
use crate::http::tls::remarks::{self, CertificateRemark, WrittenDate};
use crate::pattern::Pattern;
use crate::proxy::config::{OneOrMany, RouteConfig};

/// The certificates of one listener with TLS.
pub struct ListenerCertificates {
    /// The place of the listener in the configuration.
    pub listener: usize,
    pub address: SocketAddr,
    pub certificates: Vec<Arc<ServerCertificate>>,
    /// What is wrong with pairs of a folder, which does not keep the others from use.
    pub unusable: Vec<CertificateError>,
}

/// Something that is risky, and the key of the configuration that it is about, as in
/// `listeners[0].tls.certificates[1]`.
pub struct CertificateFinding {
    pub key: String,
    pub message: String,
}

/// What is risky about a certificate, without its place.
pub fn of_certificate(certificate: &ServerCertificate) -> Vec<CertificateRemark> {
    static ROOTS: LazyLock<RootCertStore> = LazyLock::new(|| {
        let roots = lamina_base::tls::authorities_of_the_system();
        roots.unwrap_or_else(|_| RootCertStore::empty())
    });
    remarks::of(certificate, &ROOTS, SystemTime::now())
}

/// All that is risky, in the order of the configuration.
pub fn of_listeners(
    config: &GatewayConfig,
    listeners: &[ListenerCertificates],
) -> Vec<CertificateFinding> {
    let mut found = Vec::new();
    for listener in listeners {
        let certificates = format!("listeners[{}].tls.certificates", listener.listener);
        found.extend(listener.unusable.iter().map(|error| CertificateFinding {
            key: certificates.clone(),
            message: format!("{error}; it is not used"),
        }));
        for certificate in &listener.certificates {
            let key = key_of(config, listener.listener, certificate);
            let remarks = of_certificate(certificate).into_iter();
            found.extend(remarks.map(|remark| CertificateFinding {
                key: key.clone(),
                message: format!("{}: {remark}", certificate.file.display()),
            }));
        }
    }
    found.extend(of_revocations(config));
    found.extend(of_names(config, listeners));
    found
}

/// Lists of revoked certificates that should have been replaced by now.
pub fn of_revocations(config: &GatewayConfig) -> Vec<CertificateFinding> {
    let mut found = Vec::new();
    for (n, listener) in config.listeners.iter().enumerate() {
        let policies = listener.tls.iter().flat_map(|tls| &tls.policies);
        for (m, policy) in policies.enumerate() {
            let file = policy
                .client_auth
                .as_ref()
                .and_then(|auth| auth.crl.as_ref());
            let Some(file) = file else {
                continue;
            };
            if let Some(since) = remarks::overdue_revocations(file, SystemTime::now()) {
                found.push(CertificateFinding {
                    key: format!("listeners[{n}].tls.policies[{m}].client_auth.crl"),
                    message: format!(
                        "{}: its authority announced another list for {}; until then certificates \
                         that were revoked since this one are accepted",
                        file.display(),
                        WrittenDate(since)
                    ),
                });
            }
        }
    }
    found
}

/// Certificates whose names no route serves, and hosts of routes without certificate.
pub fn of_names(
    config: &GatewayConfig,
    listeners: &[ListenerCertificates],
) -> Vec<CertificateFinding> {
    let mut found = Vec::new();
    for listener in listeners {
        let idle = listener.certificates.iter().filter_map(|certificate| {
            let key = key_of(config, listener.listener, certificate);
            let message = for_no_route(config, certificate)?;
            Some(CertificateFinding { key, message })
        });
        found.extend(idle);
    }
    found.extend(hosts_without_certificate(config, listeners));
    found
}

/// The key of the source that a certificate comes from.
fn key_of(config: &GatewayConfig, listener: usize, certificate: &ServerCertificate) -> String {
    let tls = config
        .listeners
        .get(listener)
        .and_then(|one| one.tls.as_ref());
    let mut sources = tls.iter().flat_map(|tls| &tls.certificates);
    let at = sources.position(|source| is_source_of(source, &certificate.file));
    let all = format!("listeners[{listener}].tls.certificates");
    at.map_or(all.clone(), |at| format!("{all}[{at}]"))
}

fn is_source_of(source: &CertificateSource, file: &Path) -> bool {
    let of_local = source
        .local
        .as_ref()
        .is_some_and(|local| local.files().0 == file);
    let of_folder = source.dir.as_ref().is_some_and(|dir| file.starts_with(dir));
    of_local || of_folder || source.cert.as_deref() == Some(file)
}

/// Says that no route serves any name of a certificate.
fn for_no_route(config: &GatewayConfig, certificate: &ServerCertificate) -> Option<String> {
    let serves = |route: &RouteConfig| {
        let hosts = hosts_of(route);
        hosts.is_empty() || hosts.iter().any(|host| meets(host, certificate))
    };
    let is_idle = !certificate.names.is_empty() && !config.routes.iter().any(serves);
    is_idle.then(|| {
        let names = certificate.names.iter().map(ToString::to_string);
        format!(
            "{}: no route serves one of its names ({}); expected one of them in the `match.host` \
             of a route",
            certificate.file.display(),
            names.collect::<Vec<_>>().join(", ")
        )
    })
}

fn hosts_of(route: &RouteConfig) -> &[String] {
    route.matches.host.as_ref().map_or(&[], OneOrMany::as_slice)
}

/// Whether a host of a route, which is a pattern, and a certificate have a name in common.
fn meets(host: &str, certificate: &ServerCertificate) -> bool {
    let pattern = Pattern::new(&host.to_ascii_lowercase());
    certificate
        .names
        .iter()
        .any(|name| has_common(&pattern, name))
        || certificate.covers(host)
        || certificate
            .addresses
            .iter()
            .any(|address| pattern.matches(&address.to_string()))
}

fn has_common(host: &Pattern, name: &ServerNamePattern) -> bool {
    if host.matches(&name.to_string()) {
        return true;
    }
    let host = host.literal().and_then(ServerNamePattern::parse);
    host.is_some_and(|host| host.meets(name))
}

/// Hosts of routes that no listener with TLS has a certificate for.
fn hosts_without_certificate(
    config: &GatewayConfig,
    listeners: &[ListenerCertificates],
) -> Vec<CertificateFinding> {
    let mut found = Vec::new();
    if listeners.is_empty() {
        return found;
    }
    let covered = |host: &str| {
        let mut certificates = listeners.iter().flat_map(|one| &one.certificates);
        certificates.any(|certificate| meets(host, certificate)) || comes_later(config, host)
    };
    for (n, route) in config.routes.iter().enumerate() {
        for (m, host) in hosts_of(route).iter().enumerate() {
            if host == "*" || covered(host) {
                continue;
            }
            let list = match &route.matches.host {
                Some(OneOrMany::Many(_)) => format!("[{m}]"),
                Some(OneOrMany::One(_)) | None => String::new(),
            };
            found.push(CertificateFinding {
                key: format!("routes[{n}].match.host{list}"),
                message: format!(
                    "no listener with TLS has a certificate for {host}: it is reached in clear \
                     text alone"
                ),
            });
        }
    }
    found
}

/// Whether a certificate for this host is still to be issued or obtained.
fn comes_later(config: &GatewayConfig, host: &str) -> bool {
    let tls = config.listeners.iter().filter_map(|one| one.tls.as_ref());
    let mut sources = tls.clone().flat_map(|tls| &tls.certificates);
    if sources.any(CertificateSource::is_on_demand) {
        return true;
    }
    let mut names = tls.flat_map(names_to_come);
    let host = Pattern::new(&host.to_ascii_lowercase());
    names.any(|name| {
        let pattern = ServerNamePattern::parse(&name);
        host.matches(&name) || pattern.is_some_and(|pattern| has_common(&host, &pattern))
    })
}

fn names_to_come(tls: &ListenerTlsConfig) -> impl Iterator<Item = String> {
    tls.certificates
        .iter()
        .flat_map(|source| match &source.local {
            Some(local) => local.names.clone(),
            None if source.acme.is_some() => names_of(source),
            None => Vec::new(),
        })
}
