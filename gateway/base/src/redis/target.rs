//! Turns the URL in the configuration into what fred connects to.
//!
//! Decision: the URL is parsed by our own code, since several hosts in one authority
//! (`redis-sentinel://a:26379,b:26379/0`) are what people write and no URL parser accepts.
//! Credentials in it are refused: a URL is shown in dumps and logs, a password never.

use std::path::Path;

use crate::redis::driver::RespVersion;
use crate::redis::driver::config::{
    ClusterDiscoveryPolicy, Config as Fred, Server, ServerConfig, TlsConfig, TlsConnector,
};
use crate::redis::driver::rustls::ClientConfig;

use super::{RedisConnectionSettings, RedisTargetError};
use crate::tls::{self, TrustedAuthoritiesError};
use crate::units::host_and_port;

/// Checks that a URL can be one of Redis, as far as that is possible without files and network.
///
/// # Errors
/// When it cannot be one.
pub fn check(url: &str) -> Result<(), RedisTargetError> {
    read(url).map(drop)
}

/// Whether another server may take over from one at this URL, as with Sentinel and in a Cluster.
pub fn may_fail_over(url: &str) -> bool {
    read(url).is_ok_and(|place| place.kind != RedisTopology::Alone)
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum RedisTopology {
    Alone,
    Sentinel,
    Cluster,
}

/// The parts of a URL.
#[derive(PartialEq, Eq, Debug)]
struct ParsedUrl {
    kind: RedisTopology,
    tls: bool,
    hosts: Vec<(String, u16)>,
    database: Option<u8>,
}

/// The target for fred, without anything that could wait or retry.
pub(super) fn target(settings: &RedisConnectionSettings<'_>) -> Result<Fred, RedisTargetError> {
    let place = read(settings.url)?;
    let tls = place.tls.then(|| tls_config(settings.ca_file));
    Ok(Fred {
        fail_fast: true,
        // In RESP2 alone a PING shows whether a connection subscribes; the Redis bus needs that.
        version: RespVersion::RESP2,
        username: settings.username.map(str::to_owned),
        password: settings.password.map(str::to_owned),
        database: place.database,
        tls: tls.transpose()?,
        server: server(place, settings),
        ..Fred::default()
    })
}

/// The servers of this URL.
pub(super) fn servers(
    settings: &RedisConnectionSettings<'_>,
) -> Result<Vec<(String, u16)>, RedisTargetError> {
    Ok(read(settings.url)?.hosts)
}

fn server(place: ParsedUrl, settings: &RedisConnectionSettings<'_>) -> ServerConfig {
    let hosts = place.hosts.into_iter();
    let mut hosts: Vec<_> = hosts.map(|(host, port)| Server::new(host, port)).collect();
    match place.kind {
        RedisTopology::Alone => ServerConfig::Centralized {
            server: hosts.swap_remove(0),
        },
        RedisTopology::Cluster => ServerConfig::Clustered {
            hosts,
            policy: ClusterDiscoveryPolicy::ConfigEndpoint,
        },
        RedisTopology::Sentinel => ServerConfig::Sentinel {
            hosts,
            service_name: settings.service.to_owned(),
            username: settings.sentinel_username.map(str::to_owned),
            password: settings.sentinel_password.map(str::to_owned),
        },
    }
}

fn read(url: &str) -> Result<ParsedUrl, RedisTargetError> {
    let wrong = || RedisTargetError::Url(url.to_owned());
    if url.contains('@') {
        return Err(RedisTargetError::Credentials);
    }
    let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
    let (kind, tls) = kind(scheme).ok_or_else(wrong)?;
    let (hosts, database) = rest.split_once('/').unwrap_or((rest, ""));
    let database = match database {
        "" => None,
        number => Some(number.parse().map_err(|_| wrong())?),
    };
    let port = if kind == RedisTopology::Sentinel {
        26379
    } else {
        6379
    };
    let hosts = hosts.split(',').map(|one| host_and_port(one, port));
    let hosts: Vec<_> = hosts.collect::<Option<_>>().ok_or_else(wrong)?;
    let fits = (kind != RedisTopology::Alone || hosts.len() == 1)
        && (kind != RedisTopology::Cluster || database.unwrap_or(0) == 0);
    fits.then_some(ParsedUrl {
        kind,
        tls,
        hosts,
        database,
    })
    .ok_or_else(wrong)
}

fn kind(scheme: &str) -> Option<(RedisTopology, bool)> {
    let (base, kind) = match scheme.split_once('-') {
        None => (scheme, RedisTopology::Alone),
        Some((base, "sentinel")) => (base, RedisTopology::Sentinel),
        Some((base, "cluster")) => (base, RedisTopology::Cluster),
        Some(_) => return None,
    };
    match base {
        "redis" => Some((kind, false)),
        "rediss" => Some((kind, true)),
        _ => None,
    }
}

fn tls_config(ca_file: Option<&Path>) -> Result<TlsConfig, RedisTargetError> {
    let roots = match ca_file {
        Some(file) => tls::authorities_of(file)?,
        None => tls::authorities_of_the_system()?,
    };
    let client = ClientConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| RedisTargetError::System(e.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(client).into())
}

impl From<TrustedAuthoritiesError> for RedisTargetError {
    fn from(error: TrustedAuthoritiesError) -> Self {
        match error {
            TrustedAuthoritiesError::File { file, reason } => Self::Certificates {
                file: file.display().to_string(),
                reason,
            },
            TrustedAuthoritiesError::System(reason) => Self::System(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Parts = (RedisTopology, bool, Vec<(String, u16)>, Option<u8>);

    fn place(url: &str) -> Option<Parts> {
        let place = read(url).ok()?;
        Some((place.kind, place.tls, place.hosts, place.database))
    }

    #[test]
    fn a_url_says_where_and_what() {
        let at = |host: &str, port| (host.to_owned(), port);
        assert_eq!(
            place("redis://r"),
            Some((RedisTopology::Alone, false, vec![at("r", 6379)], None))
        );
        assert_eq!(
            place("rediss://[::1]:7000/3"),
            Some((RedisTopology::Alone, true, vec![at("::1", 7000)], Some(3)))
        );
        assert_eq!(
            place("redis-sentinel://a,b:1/0"),
            Some((
                RedisTopology::Sentinel,
                false,
                vec![at("a", 26379), at("b", 1)],
                Some(0)
            ))
        );
        assert_eq!(
            place("rediss-cluster://a:1,b:2"),
            Some((
                RedisTopology::Cluster,
                true,
                vec![at("a", 1), at("b", 2)],
                None
            ))
        );
    }

    #[test]
    fn a_wrong_url_is_told_and_a_password_in_it_refused() {
        for url in [
            "",
            "redis",
            "http://a",
            "redis://",
            "redis://a,b",
            "redis://a:0",
            "redis://a:99999",
            "redis://a/x",
            "redis://a/300",
            "redis-cluster://a/1",
            "redis-x://a",
            "redis://a b",
            "redis://[::1",
            "redis://a?x=y",
        ] {
            assert!(matches!(read(url), Err(RedisTargetError::Url(_))), "{url}");
        }
        assert!(matches!(
            read("redis://me:pw@a"),
            Err(RedisTargetError::Credentials)
        ));
    }
}
