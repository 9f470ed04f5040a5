//! Checks the listeners for clients.

use super::collector::FindingCollector;
use super::{form, listener_tls};
use crate::config::GatewayConfig;
use crate::config::problem::{ConfigPath, path};
use crate::http::config::{ClientField, ListenerConfig, ListenerLimits};

pub(super) fn check(config: &GatewayConfig, report: &mut FindingCollector) {
    let all = path(&["listeners"]);
    if config.listeners.is_empty() {
        report.add(
            all.clone(),
            "no listeners; expected at least one, as in `- address: 127.0.0.1:8080`",
        );
    }
    for (i, listener) in config.listeners.iter().enumerate() {
        let at = all.index(i);
        let (address, earlier) = (listener.address, &config.listeners[..i]);
        if address.port() != 0 && earlier.iter().any(|l| l.address == address) {
            report.add(
                at.key("address"),
                format!("{address} is another listener's address; expected one of its own"),
            );
        }
        if address.port() != 0 && Some(address) == config.admin.address.tcp() {
            report.add(
                at.key("address"),
                format!("{address} is the admin listener's address; expected one of its own"),
            );
        }
        if listener.protocols.is_empty() {
            report.add(
                at.key("protocols"),
                "no protocols; expected `http1`, `http2` or both",
            );
        }
        report.each(
            &at.key("trusted_proxies"),
            &listener.trusted_proxies,
            form::cidr,
        );
        report.each(
            &at.key("trusted_headers"),
            &listener.trusted_headers,
            ListenerConfig::may_believe,
        );
        if !listener.trusted_headers.is_empty() && listener.trusted_proxies.is_empty() {
            report.add(
                at.key("trusted_headers"),
                "no trusted_proxies, so that these fields are accepted from nobody; expected the \
                 addresses of the proxies that set these fields",
            );
        }
        if listener.client_from != ClientField::Both && listener.trusted_proxies.is_empty() {
            report.add(
                at.key("client_from"),
                "no trusted_proxies, so that nobody is believed who the client is; expected the \
                 addresses of the proxies that set this field",
            );
        }
        if listener.proxy_protocol && listener.trusted_proxies.is_empty() {
            report.add(
                at.key("proxy_protocol"),
                "no trusted_proxies, so that every connection would be refused; \
                 expected the addresses of the proxies that speak it",
            );
        }
        listener_tls::check(listener, &at, report);
        limits(&listener.limits, &at.key("limits"), report);
    }
}

fn limits(limits: &ListenerLimits, at: &ConfigPath, report: &mut FindingCollector) {
    let all = [
        ("max_connections", limits.max_connections as u64),
        ("max_header_bytes", limits.max_header_bytes.0),
        ("max_headers", limits.max_headers as u64),
        ("max_uri_bytes", limits.max_uri_bytes.0),
        ("header_timeout", limits.header_timeout.0.as_millis() as u64),
        ("body_timeout", limits.body_timeout.0.as_millis() as u64),
        ("idle_timeout", limits.idle_timeout.0.as_millis() as u64),
        ("upload_timeout", limits.upload_timeout.0.as_millis() as u64),
        ("min_rate_grace", limits.min_rate_grace.0.as_millis() as u64),
        ("max_streams", u64::from(limits.max_streams)),
        ("max_held_bytes", limits.max_held_bytes.0),
    ];
    for (key, n) in all {
        report.positive(at.key(key), n);
    }
}
