//! The listeners with TLS: their certificates, also those that were obtained, and what HTTP/3 needs
//! of the DNS and of the kernel.

use super::{FindingLine, ReportSection};
use lamina_edge::app::GatewayStartError;
use lamina_edge::app::certificates::{self, CertificatesInUse};
use lamina_edge::certificate_review::{self, ListenerCertificates};
use lamina_edge::config::GatewayConfig;
use lamina_http::config::{ListenerConfig, Protocol};
use lamina_http::date;
use lamina_http::server::UdpReceiveBuffer;
use lamina_http::tls::certificate::ServerCertificate;

/// The most certificates, names or records that are listed one by one.
const MOST_LISTED: usize = 20;

/// The port that a record of the DNS is for unless its name says another one (RFC 9460 §9.1).
const HTTPS_PORT: u16 = 443;

/// One section for each listener with TLS, and one for what goes beyond a single listener.
pub(super) async fn examine(
    config: &GatewayConfig,
) -> Result<Vec<ReportSection>, GatewayStartError> {
    let in_use = certificates::in_use(config).await?;
    let mut sections: Vec<_> = in_use
        .listeners
        .iter()
        .filter_map(|one| Some(section(one, config.listeners.get(one.listener)?)))
        .collect();
    let lines = across_listeners(config, &in_use);
    if !lines.is_empty() {
        sections.push(ReportSection {
            name: "names",
            what: "of certificates and of routes".to_owned(),
            lines,
        });
    }
    Ok(sections)
}

fn section(opened: &ListenerCertificates, listener: &ListenerConfig) -> ReportSection {
    let used = opened.certificates.iter().map(|one| line(one));
    let unusable = opened.unusable.iter();
    let unusable = unusable.map(|error| FindingLine::warned("not used", error.to_string()));
    let mut lines: Vec<_> = unusable.chain(used).collect();
    // What is wrong comes first.
    lines.sort_by_key(FindingLine::says_all_is_fine);
    let more = lines.len().saturating_sub(MOST_LISTED);
    lines.truncate(MOST_LISTED);
    if more > 0 {
        lines.push(FindingLine::fine(
            "",
            format!("and {more} more certificates"),
        ));
    }
    if listener.protocols.contains(&Protocol::Http3) {
        lines.extend(records(opened, listener));
        lines.extend(receive_buffer(opened));
    }
    ReportSection {
        name: "listener",
        what: format!("{}, TLS", opened.address),
        lines,
    }
}

fn line(certificate: &ServerCertificate) -> FindingLine {
    let file = certificate.file.display().to_string();
    let remarks = certificate_review::of_certificate(certificate);
    let told: Vec<_> = remarks.iter().map(ToString::to_string).collect();
    if remarks.iter().any(|remark| remark.is_fatal()) {
        return FindingLine::failed(file, told.join("; "));
    }
    if !told.is_empty() {
        return FindingLine::warned(file, told.join("; "));
    }
    let ends = date::format(certificate.not_after);
    let ends = String::from_utf8_lossy(ends.as_bytes());
    FindingLine::fine(
        file,
        format!("for {}; it expires on {ends}", names(certificate)),
    )
}

fn names(certificate: &ServerCertificate) -> String {
    let names = certificate.names.iter().map(ToString::to_string);
    let addresses = certificate.addresses.iter().map(ToString::to_string);
    let all: Vec<_> = names.chain(addresses).collect();
    match all.len() > MOST_LISTED {
        true => format!("{} names", all.len()),
        false => all.join(", "),
    }
}

/// The records that tell clients of HTTP/3 before they connect (RFC 9460).
fn records(opened: &ListenerCertificates, listener: &ListenerConfig) -> Vec<FindingLine> {
    let port = listener.alt_svc.port.unwrap_or(opened.address.port());
    let alpn = match listener.protocols.contains(&Protocol::Http2) {
        true => "h3,h2",
        false => "h3",
    };
    let mut names: Vec<_> = opened
        .certificates
        .iter()
        .flat_map(|one| one.names.iter().map(ToString::to_string))
        // In the DNS a wildcard has nothing in front.
        .filter(|name| port == HTTPS_PORT || !name.starts_with('*'))
        .collect();
    names.sort_unstable();
    names.dedup();
    let more = names.len().saturating_sub(MOST_LISTED);
    let listed = names.iter().take(MOST_LISTED).map(|name| {
        let record = match port {
            HTTPS_PORT => format!("{name}. HTTPS 1 . alpn=\"{alpn}\""),
            // The point would be the name in front of it, which has no address (RFC 9460 §2.5.2).
            port => format!("_{port}._https.{name}. HTTPS 1 {name}. alpn=\"{alpn}\""),
        };
        FindingLine::fine("DNS to publish", record)
    });
    let rest = (more > 0).then(|| FindingLine::fine("", format!("and for {more} more names")));
    listed.chain(rest).collect()
}

/// Whether the kernel keeps bursts of datagrams.
fn receive_buffer(opened: &ListenerCertificates) -> Option<FindingLine> {
    let buffer = UdpReceiveBuffer::probe(opened.address).ok()?;
    let UdpReceiveBuffer { asked, granted } = buffer;
    Some(match buffer.is_enough() {
        true => FindingLine::fine("UDP buffer", format!("{granted} bytes for each worker")),
        false => FindingLine::warned(
            "UDP buffer",
            format!(
                "the kernel grants {granted} of the {asked} bytes that are asked for, so that \
                 bursts over HTTP/3 lose packets; expected `sysctl -w net.core.rmem_max={asked}`"
            ),
        ),
    })
}

/// Lists of revoked certificates that are old, names without certificate, hosts without certificate, and certificates that serve nobody.
fn across_listeners(config: &GatewayConfig, in_use: &CertificatesInUse) -> Vec<FindingLine> {
    let missing = in_use.missing.iter().map(|missing| {
        let told = format!(
            "not obtained yet for {} names: {}",
            missing.count,
            missing.names.join(", ")
        );
        FindingLine::warned("acme", told)
    });
    let mut findings = certificate_review::of_revocations(config);
    findings.extend(certificate_review::of_names(config, &in_use.listeners));
    let more = findings.len().saturating_sub(MOST_LISTED);
    let listed = findings.into_iter().take(MOST_LISTED);
    let listed = listed.map(|finding| FindingLine::warned(finding.key, finding.message));
    let rest = (more > 0).then(|| FindingLine::warned("", format!("and {more} more")));
    missing.chain(listed).chain(rest).collect()
}
