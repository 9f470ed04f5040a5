//! Checks what a listener says of TLS, as far as that is possible without its files.

use super::{ConfigFinding, ConfigPath, FindingCollector};
use crate::http::config::{ListenerConfig, Protocol};
use crate::http::tls::config::{CertificateSource, ListenerTlsConfig};
use crate::http::tls::names::ServerNamePattern;

/// Checks TLS of a listener, and what goes with it.
pub fn check(listener: &ListenerConfig, at: &ConfigPath, report: &mut FindingCollector) {
    let redirect = listener.redirect_to_https.target();
    match &listener.tls {
        Some(tls) => {
            check_tls(tls, &at.key("tls"), report);
            if redirect.is_some() {
                report.add(
                    at.key("redirect_to_https"),
                    "the listener speaks HTTPS itself; expected `redirect_to_https` on one without `tls`",
                );
            }
        }
        None if listener.hsts.is_some() => report.add(
            at.key("hsts"),
            "the listener speaks clear text, where browsers ignore it; expected `hsts` on one with `tls`",
        ),
        None => {}
    }
    if let Some(target) = redirect {
        let at = at.key("redirect_to_https");
        if ![301, 308].contains(&target.status) {
            let message = format!(
                "{} does not redirect for good; expected 308 or 301",
                target.status
            );
            report.add(at.key("status"), message);
        }
        report.positive(at.key("port"), target.port.into());
    }
    let twice = |protocol| {
        listener
            .protocols
            .iter()
            .filter(|one| **one == protocol)
            .count()
            > 1
    };
    if [Protocol::Http1, Protocol::Http2].into_iter().any(twice) {
        report.add(
            at.key("protocols"),
            "a protocol stands there twice; expected each once",
        );
    }
}

fn check_tls(tls: &ListenerTlsConfig, at: &ConfigPath, report: &mut FindingCollector) {
    if tls.certificates.is_empty() {
        report.add(
            at.key("certificates"),
            "no certificates; expected at least one, as in `- { cert: tls.crt, key: tls.key }`",
        );
    }
    for (i, source) in tls.certificates.iter().enumerate() {
        check_source(source, &at.key("certificates").index(i), report);
    }
    for (i, policy) in tls.policies.iter().enumerate() {
        let at = at.key("policies").index(i);
        if policy.names.is_empty() {
            let message = "no names, so that it is for nobody; expected at least one, as in `api.example.com`";
            report.add(at.key("names"), message);
        }
        report.each(&at.key("names"), &policy.names, server_name);
        let earlier = tls.policies[..i].iter().flat_map(|earlier| &earlier.names);
        let earlier: Vec<_> = earlier
            .filter_map(|name| ServerNamePattern::parse(name))
            .collect();
        report.each(&at.key("names"), &policy.names, |name| {
            let known = ServerNamePattern::parse(name).is_some_and(|name| earlier.contains(&name));
            match known {
                true => Err(format!(
                    "{name} has another policy above; expected each name once"
                )),
                false => Ok(()),
            }
        });
    }
    let millis = |time: crate::units::ConfigDuration| time.0.as_millis() as u64;
    report.positive(at.key("handshake_timeout"), millis(tls.handshake_timeout));
    report.positive(at.key("max_handshakes"), tls.max_handshakes as u64);
    if tls.tickets.rotate.0.as_secs() == 0 {
        let message = "shorter than a second; expected some hours, as in 12h";
        report.add(at.key("tickets").key("rotate"), message);
    }
    if tls.strict_sni && tls.default.is_some() {
        report.add(
            at.key("default"),
            "never used, since `strict_sni` refuses those whom it is for; expected one of both",
        );
    }
}

fn check_source(source: &CertificateSource, at: &ConfigPath, report: &mut FindingCollector) {
    report.each(&at.key("names"), &source.names, server_name);
    if source.acme.is_some() {
        return check_obtained(source, at, report);
    }
    match (&source.cert, &source.key, &source.dir) {
        (Some(_), Some(_), None) => {}
        (None, None, Some(_)) if source.names.is_empty() => {}
        (None, None, Some(_)) => report.add(
            at.key("names"),
            "a folder has certificates for many names; expected `names` beside `cert` and `key`",
        ),
        (Some(_), None, None) => {
            report.add(at.clone(), "no `key`; expected the file of the private key")
        }
        (None, Some(_), None) => report.add(
            at.clone(),
            "no `cert`; expected the file of the certificate",
        ),
        _ => report.add(
            at.clone(),
            "expected `cert` and `key`, or `dir`, or `acme` and `names`",
        ),
    }
}

/// What is beside `acme`; whether its issuers are there is checked with them.
fn check_obtained(source: &CertificateSource, at: &ConfigPath, report: &mut FindingCollector) {
    let files = [
        ("cert", &source.cert),
        ("key", &source.key),
        ("dir", &source.dir),
    ];
    for (key, _) in files.into_iter().filter(|(_, file)| file.is_some()) {
        let message = "given beside `acme`; expected one of the two";
        report.push(ConfigFinding::key(at.key(key), message));
    }
    if source.names.is_empty() {
        let message =
            "no names; expected those that the certificate is for, as in `[shop.example.com]`";
        report.add(at.key("names"), message);
    }
}

fn server_name(name: &str) -> Result<(), String> {
    match ServerNamePattern::parse(name) {
        Some(_) => Ok(()),
        None => Err(format!(
            "{name:?} is not the name of a server; expected one as in shop.example.com, or \
             *.example.com for exactly one label in front (other scripts as xn--…)"
        )),
    }
}
