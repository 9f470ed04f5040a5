//! Checks what is said of automatic certificates, and whether listeners name what is there.

use hyper::Uri;

use super::{FindingCollector, form, seal_key};
use crate::acme::config::{
    AcmeChallengeConfig, AcmeConfig, AcmeDnsChallenge, AcmeIssuerConfig, AcmeOnDemandConfig,
    AcmeStorageConfig,
};
use crate::config::GatewayConfig;
use crate::config::problem::{ConfigPath, path};
use crate::http::config::ListenerConfig;
use crate::http::config::tls::{CertificateSource, IssuerNames, TicketConfig};

/// The most names of one certificate: that is Let's Encrypt's limit.
const MOST_NAMES: usize = 100;

/// Checks `acme`, and every certificate that is to be obtained.
pub fn check(config: &GatewayConfig, report: &mut FindingCollector) {
    if let Some(acme) = &config.acme {
        check_acme(config, acme, &path(&["acme"]), report);
    }
    for (i, listener) in config.listeners.iter().enumerate() {
        if let Some(tls) = &listener.tls {
            let at = path(&["listeners"]).index(i).key("tls").key("tickets");
            check_tickets(config, &tls.tickets, &at.key("shared"), report);
        }
        let at = path(&["listeners"]).index(i).key("tls").key("certificates");
        let sources = listener.tls.iter().flat_map(|tls| &tls.certificates);
        for (n, source) in sources.enumerate() {
            if let Some(issuers) = &source.acme {
                let wanted = ObtainedSource { source, issuers };
                wanted.check(config, &at.index(n), report);
            }
        }
    }
}

/// Checks what nodes need that share their session tickets.
fn check_tickets(
    config: &GatewayConfig,
    tickets: &TicketConfig,
    at: &ConfigPath,
    report: &mut FindingCollector,
) {
    if !tickets.shared {
        return;
    }
    if !tickets.keys.is_empty() {
        let message = "given beside `keys`, which nodes share already; expected one of both";
        report.add(at.clone(), message);
    }
    if !config.cache.l2.has_shared_redis() {
        let message =
            "`cache.l2` has no Redis that nodes share; expected one there, or `keys` from files";
        report.add(at.clone(), message);
    }
    if config.ticket_seal_key().is_none() {
        let message = "whoever reads in Redis could decrypt sessions; expected \
                       `cache.l2.seal_key_file`, with a secret that all nodes share";
        report.add(at.clone(), message);
    }
}

fn check_acme(
    config: &GatewayConfig,
    acme: &AcmeConfig,
    at: &ConfigPath,
    report: &mut FindingCollector,
) {
    seal_key(&acme.seal_key, &at.key("seal_key"), report);
    if acme.storage == AcmeStorageConfig::Redis {
        if !config.cache.l2.has_shared_redis() {
            let message = "`cache.l2` has no Redis that nodes share; expected one there, or the path of a folder";
            report.add(at.key("storage"), message);
        }
        if acme.seal_key.is_none() {
            let message = "private keys would lie in Redis for everybody who can read there; \
                           expected `acme.seal_key_file` beside it, with a secret that all nodes share";
            report.add(at.key("storage"), message);
        }
    }
    if acme.issuers.is_empty() {
        let message = "no issuers; expected at least one, as in `letsencrypt`";
        report.add(at.key("issuers"), message);
    }
    for (name, issuer) in &acme.issuers {
        let at = at.key("issuers").key(name);
        report.form_of_key(&at, form::name(name));
        check_issuer(issuer, &at, report);
    }
    for (key, number) in [
        ("max_orders", acme.max_orders as u64),
        ("order_timeout", acme.order_timeout.0.as_millis() as u64),
        ("request_timeout", acme.request_timeout.0.as_millis() as u64),
        ("lease", acme.lease.0.as_millis() as u64),
        ("poll_interval", acme.poll_interval.0.as_millis() as u64),
    ] {
        report.positive(at.key(key), number);
    }
    if let Some(on_demand) = &acme.on_demand {
        check_on_demand(config, on_demand, &at.key("on_demand"), report);
    }
    let retry = at.key("retry");
    report.positive(retry.key("min"), acme.retry.min.0.as_millis() as u64);
    if acme.retry.min > acme.retry.max {
        let message = format!(
            "min ({}) is longer than max ({}); expected at most that",
            acme.retry.min, acme.retry.max
        );
        report.add(retry.key("min"), message);
    }
}

fn check_on_demand(
    config: &GatewayConfig,
    on_demand: &AcmeOnDemandConfig,
    at: &ConfigPath,
    report: &mut FindingCollector,
) {
    if on_demand.ask.is_empty() {
        let message = "whoever connects could have certificates ordered for any name; expected \
                       `ask`, a URL that says which names are yours";
        report.add(at.key("ask"), message);
    } else {
        report.form(&at.key("ask"), ask_url(&on_demand.ask));
    }
    for (key, number) in [
        ("per_minute", on_demand.per_minute as u64),
        ("max_pending", on_demand.max_pending as u64),
        ("wait", on_demand.wait.0.as_millis() as u64),
    ] {
        report.positive(at.key(key), number);
    }
    let tls = config.listeners.iter().filter_map(|one| one.tls.as_ref());
    let mut using = tls.filter(|tls| tls.certificates.iter().any(|one| one.is_on_demand()));
    if using.any(|tls| tls.handshake_timeout <= on_demand.wait) {
        let message = "as long as `handshake_timeout` of a listener or longer, so that handshakes \
                       are cut before; expected less";
        report.add(at.key("wait"), message);
    }
}

fn ask_url(url: &str) -> Result<(), String> {
    let is_url = |url: &Uri| {
        let scheme = url.scheme_str();
        let host = url.host().is_some_and(|host| !host.is_empty());
        host && [Some("http"), Some("https")].contains(&scheme) && url.query().is_none()
    };
    match url.parse::<Uri>() {
        Ok(parsed) if is_url(&parsed) => Ok(()),
        _ => Err(format!(
            "{url:?} can't be asked; expected a URL without query, as in http://127.0.0.1:9000/tls-allowed"
        )),
    }
}

fn check_issuer(issuer: &AcmeIssuerConfig, at: &ConfigPath, report: &mut FindingCollector) {
    report.form(&at.key("directory"), directory(&issuer.directory));
    if let Some(staging) = &issuer.staging {
        report.form(&at.key("staging"), directory(staging));
    }
    if !issuer.agree_to_terms {
        let message = "the issuer gives out nothing to who has not agreed to its terms of \
                       service; expected `agree_to_terms: true`, once you have read them";
        report.add(at.key("agree_to_terms"), message);
    }
    report.each(&at.key("contact"), &issuer.contact, contact);
    if let Some(eab) = &issuer.eab
        && eab.hmac.is_none()
        && eab.hmac_file.is_none()
    {
        let message = "no key; expected `hmac_file`, with the key that the issuer has given out";
        report.add(at.key("eab"), message);
    }
    if let AcmeChallengeConfig::Dns01(dns) = &issuer.challenge {
        check_dns(dns, &at.key("challenge").key("dns-01"), report);
    }
}

fn check_dns(dns: &AcmeDnsChallenge, at: &ConfigPath, report: &mut FindingCollector) {
    if dns.exec.first().is_none_or(String::is_empty) {
        let message = "no program; expected one and its arguments, as in `[./dns-hook]`";
        report.add(at.key("exec"), message);
    }
    let millis = |time: crate::units::ConfigDuration| time.0.as_millis() as u64;
    report.positive(at.key("timeout"), millis(dns.timeout));
    report.positive(at.key("propagation"), millis(dns.propagation));
}

/// A source of certificates that are to be obtained.
struct ObtainedSource<'a> {
    source: &'a CertificateSource,
    issuers: &'a IssuerNames,
}

impl ObtainedSource<'_> {
    fn check(&self, config: &GatewayConfig, at: &ConfigPath, report: &mut FindingCollector) {
        let Some(acme) = &config.acme else {
            let message = "there is no `acme`; expected it at the top of the file, with `issuers`";
            return report.add(at.key("acme"), message);
        };
        if self.source.is_on_demand() && acme.on_demand.is_none() {
            let message = "no names; expected those that the certificate is for, as in \
                           `[shop.example.com]`, or `acme.on_demand`";
            report.add(at.key("names"), message);
        }
        let names = self.issuers.as_slice();
        if names.is_empty() {
            report.add(at.key("acme"), "no issuer; expected at least one");
        }
        for (n, name) in names.iter().enumerate() {
            let at = match self.issuers {
                IssuerNames::One(_) => at.key("acme"),
                IssuerNames::Many(_) => at.key("acme").index(n),
            };
            report.known(at, "issuer", name, &acme.issuers);
        }
        let issuers = names.iter().filter_map(|name| acme.issuers.get(name));
        for issuer in issuers {
            self.wildcards(issuer, at, report);
            if issuer.challenge == AcmeChallengeConfig::Http01 {
                self.clear_text(&config.listeners, at, report);
            }
        }
        if self.source.names.len() > MOST_NAMES {
            let message = format!(
                "{} names; expected at most {MOST_NAMES} for one certificate",
                self.source.names.len()
            );
            report.add(at.key("names"), message);
        }
    }

    /// No other challenge shows that all names below a name are ours.
    fn wildcards(&self, issuer: &AcmeIssuerConfig, at: &ConfigPath, report: &mut FindingCollector) {
        if issuer.can_do_wildcards() {
            return;
        }
        let names = self.source.names.iter().enumerate();
        for (n, name) in names.filter(|(_, name)| name.starts_with("*.")) {
            let message = format!(
                "{name} is a wildcard, which issuers give out for the challenge `dns-01` alone; \
                 expected `challenge: {{ dns-01: {{ exec: [...] }} }}` of the issuer, or single names"
            );
            report.add(at.key("names").index(n), message);
        }
    }

    /// HTTP-01 is asked for in clear text.
    fn clear_text(
        &self,
        listeners: &[ListenerConfig],
        at: &ConfigPath,
        report: &mut FindingCollector,
    ) {
        if listeners.iter().any(|listener| listener.tls.is_none()) {
            return;
        }
        let message = "its issuer has `challenge: http-01`, which is asked for in clear text at \
                       port 80; expected a listener without `tls`, or `challenge: tls-alpn-01`";
        report.add(at.key("acme"), message);
    }
}

fn directory(url: &str) -> Result<(), String> {
    let is_url = |url: &Uri| {
        url.scheme_str() == Some("https") && url.host().is_some_and(|host| !host.is_empty())
    };
    match url.parse::<Uri>() {
        Ok(parsed) if is_url(&parsed) => Ok(()),
        _ => Err(format!(
            "{url:?} is not the URL of a directory; expected one that begins with https://"
        )),
    }
}

fn contact(contact: &str) -> Result<(), String> {
    match contact.strip_prefix("mailto:") {
        Some(address) if address.contains('@') => Ok(()),
        _ => Err(format!(
            "{contact:?} is no contact; expected an address, as in mailto:ops@example.com"
        )),
    }
}
