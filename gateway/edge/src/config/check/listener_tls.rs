//! Checks what a listener says of TLS, as far as that is possible without its files.

use std::net::IpAddr;

use super::{ConfigFinding, ConfigPath, FindingCollector};
use crate::http::config::tls::ServerNamePattern;
use crate::http::config::tls::{
    CertificateSource, EarlyDataMode, ListenerTlsConfig, LocalCertificateConfig,
};
use crate::http::config::{ListenerConfig, Protocol};

/// Checks TLS of a listener, and what goes with it.
pub fn check(listener: &ListenerConfig, at: &ConfigPath, report: &mut FindingCollector) {
    let redirect = listener.redirect_to_https.target();
    match &listener.tls {
        Some(tls) => {
            check_tls(tls, &at.key("tls"), report);
            check_early_data(listener, tls, &at.key("tls"), report);
            if redirect.is_some() {
                report.add(
                    at.key("redirect_to_https"),
                    "given beside `tls`; expected it on a listener that speaks clear text",
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
    if listener.protocols.contains(&Protocol::Http3) {
        let at = at.key("protocols");
        if listener.tls.is_none() {
            report.add(
                at.clone(),
                "http3 is spoken over TLS alone; expected `tls` beside it",
            );
        }
        if listener.proxy_protocol {
            report.add(
                at.clone(),
                "http3 knows no PROXY protocol; expected one of both",
            );
        }
        if listener.protocols == [Protocol::Http3] {
            let message = "http3 alone reaches no client that was not told of it; expected `http2` or `http1` beside it";
            report.add(at, message);
        }
    }
    let twice = |protocol| {
        listener
            .protocols
            .iter()
            .filter(|one| **one == protocol)
            .count()
            > 1
    };
    let all = [Protocol::Http1, Protocol::Http2, Protocol::Http3];
    if all.into_iter().any(twice) {
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

fn check_early_data(
    listener: &ListenerConfig,
    tls: &ListenerTlsConfig,
    at: &ConfigPath,
    report: &mut FindingCollector,
) {
    if tls.early_data == EarlyDataMode::Off {
        return;
    }
    if !listener.protocols.contains(&Protocol::Http3) {
        report.add(
            at.key("early_data"),
            "taken over HTTP/3 alone; expected `http3` among the `protocols`",
        );
    }
    if !tls.tickets.enabled {
        report.add(
            at.key("early_data"),
            "only a session that is resumed has early data, and `tickets.enabled: false` lets none be resumed; expected one of both",
        );
    }
}

fn check_source(source: &CertificateSource, at: &ConfigPath, report: &mut FindingCollector) {
    report.each(&at.key("names"), &source.names, server_name);
    if source.acme.is_some() {
        return check_obtained(source, at, report);
    }
    if let Some(local) = &source.local {
        check_local(source, local, at, report);
        return;
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
            "expected `cert` and `key`, `dir`, `local`, or `acme` and `names`",
        ),
    }
}

/// What is beside `acme`; whether its issuers are there, and its names, is checked with them.
fn check_obtained(source: &CertificateSource, at: &ConfigPath, report: &mut FindingCollector) {
    let others = [
        ("cert", source.cert.is_some()),
        ("key", source.key.is_some()),
        ("dir", source.dir.is_some()),
        ("local", source.local.is_some()),
    ];
    for (key, _) in others.into_iter().filter(|(_, given)| *given) {
        let message = "given beside `acme`; expected one of the two";
        report.push(ConfigFinding::key(at.key(key), message));
    }
}

fn check_local(
    source: &CertificateSource,
    local: &LocalCertificateConfig,
    at: &ConfigPath,
    report: &mut FindingCollector,
) {
    if source.cert.is_some() || source.key.is_some() || source.dir.is_some() {
        report.add(
            at.clone(),
            "`local` makes its own files; expected nothing beside it",
        );
    }
    let names = at.key("local").key("names");
    if local.names.is_empty() {
        report.add(
            names.clone(),
            "no names; expected at least one, as in [localhost, 127.0.0.1]",
        );
    }
    report.each(&names, &local.names, |name| match name.parse::<IpAddr>() {
        Ok(_) => Ok(()),
        Err(_) => server_name(name),
    });
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
