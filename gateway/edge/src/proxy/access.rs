//! The access log: one line for each request, written when its response has ended.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::origin::{Attempt, AttemptOutcome};
use crate::proxy::counted::AnsweringRule;
use crate::proxy::record::RequestRecord;
use crate::proxy::record::trail::{TimedTrailEvent, TrailEvent};

/// Writes the line of a finished request.
pub fn write(record: &RequestRecord) {
    let noted = record.trail.as_ref().map(|trail| trail.noted().0);
    let attempts = attempts(noted.as_deref().unwrap_or_default());
    let last = answering(&attempts);
    let tls = record.tls.as_deref();
    let micros = |time: std::time::Duration| time.as_micros() as u64;
    tracing::info!(
        target: "lamina::access",
        id = record.id,
        client = record.client.map(|client| tracing::field::display(LoggedAddress(client))),
        peer = %LoggedPeer(record.peer),
        protocol = record.protocol(),
        tls = tls.map(|tls| tls.version),
        sni = tls.and_then(|tls| tls.server_name.as_deref()),
        resumed = tls.map(|tls| tls.resumed),
        ja4 = tls.and_then(|tls| tls.ja4.as_deref()),
        method = &*record.method,
        host = &*record.host,
        path = &*record.path,
        route = record.route.as_deref().unwrap_or("-"),
        user = record.user.as_deref(),
        status = record.status(),
        cache = record.result(),
        bytes = record.bytes,
        complete = record.complete,
        grpc_status = record.grpc_status.as_deref(),
        head_us = record.answer.as_ref().map(|head| micros(head.after)),
        total_us = micros(record.total),
        request_id = record.request_id.as_deref(),
        upstream = last.map(|attempt| &*attempt.upstream),
        target = last.map(|attempt| &*attempt.target),
        attempts = last.map(|_| attempts.len()),
        failed_attempts = failures(&attempts),
        upstream_us = last.map(|attempt| micros(attempt.took)),
        agent = &*record.agent,
        reason = record.refused.as_deref(),
        limit = limit(noted.as_deref().unwrap_or_default()),
        rule = record.rule().map(AnsweringRule::as_str),
        "request"
    );
}

/// An address, and one with its port. They look as those of the standard library, whose formatter
/// takes longer for two of IPv4 than the rest of a line.
struct LoggedAddress(IpAddr);
struct LoggedPeer(SocketAddr);

impl fmt::Display for LoggedAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => write_octets(address, formatter),
            IpAddr::V6(address) => address.fmt(formatter),
        }
    }
}

impl fmt::Display for LoggedPeer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            SocketAddr::V4(peer) => {
                write_octets(*peer.ip(), formatter)?;
                formatter.write_str(":")?;
                formatter.write_str(itoa::Buffer::new().format(peer.port()))
            }
            SocketAddr::V6(peer) => peer.fmt(formatter),
        }
    }
}

fn write_octets(address: Ipv4Addr, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut digits = itoa::Buffer::new();
    for (place, octet) in address.octets().into_iter().enumerate() {
        if place > 0 {
            formatter.write_str(".")?;
        }
        formatter.write_str(digits.format(octet))?;
    }
    Ok(())
}

/// The rate limit that the request was above.
fn limit(noted: &[TimedTrailEvent]) -> Option<&str> {
    noted.iter().find_map(|noted| match &noted.waypoint {
        TrailEvent::Limited(name, _) => Some(&**name),
        _ => None,
    })
}

/// The attempt whose outcome was that of the request: the last one that was not given up.
fn answering<'a>(attempts: &[&'a Attempt]) -> Option<&'a Attempt> {
    let is_given_up = |attempt: &&&Attempt| matches!(attempt.outcome, AttemptOutcome::GivenUp);
    let last = attempts.iter().rfind(|attempt| !is_given_up(attempt));
    last.or(attempts.last()).copied()
}

/// Which targets have failed, in order, and why. None if none has.
fn failures(attempts: &[&Attempt]) -> Option<String> {
    let failed = attempts
        .iter()
        .filter(|attempt| attempt.outcome.is_failure());
    let told = failed.map(|attempt| format!("{}: {}", attempt.target, attempt.outcome));
    let told: Vec<_> = told.collect();
    (!told.is_empty()).then(|| told.join("; "))
}

/// The upstream attempts for the request, in order.
fn attempts(noted: &[TimedTrailEvent]) -> Vec<&Attempt> {
    let attempts = noted.iter().map(|noted| match &noted.waypoint {
        TrailEvent::Attempt(attempt) => Some(attempt),
        _ => None,
    });
    attempts.flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_look_as_usual() {
        for text in [
            "0.0.0.0",
            "127.0.0.1",
            "10.200.3.255",
            "::1",
            "2001:db8::a:0",
        ] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(LoggedAddress(address).to_string(), text);
            for port in [0, 80, 65_535] {
                let peer = SocketAddr::new(address, port);
                assert_eq!(LoggedPeer(peer).to_string(), peer.to_string());
            }
        }
    }
}
