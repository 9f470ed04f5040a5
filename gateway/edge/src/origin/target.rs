//! The servers of one upstream, and which one is next.
//!
//! Decision: round-robin, with one addition: a target that could not be connected to is skipped for
//! a second if there is another one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use http::uri::{Authority, Scheme};
use http::{HeaderValue, Uri};

use super::BuildError;
use super::config::{OriginProtocol, UpstreamConfig};
use super::connect::WantedProtocol;
use super::pool::{PoolLimits, TargetConnections};
use super::tls::{OriginTls, SpokenProtocol};
use super::watch::UpstreamTlsWatch;

/// How long a target is skipped after a failed connect.
const PASS_OVER: Duration = Duration::from_secs(1);

pub(super) struct OriginTargets {
    targets: Vec<OriginTarget>,
    turn: AtomicUsize,
    born: Instant,
}

pub(super) struct OriginTarget {
    pub(super) authority: Authority,
    /// None: clear text.
    pub(super) tls: Option<Arc<OriginTls>>,
    /// What is spoken without TLS.
    clear: SpokenProtocol,
    pub(super) connections: TargetConnections,
    /// The authority as a value of `Host`.
    pub(super) host: HeaderValue,
    /// The target is skipped until this many milliseconds after `born`.
    passed_over: AtomicU64,
}

impl OriginTargets {
    /// Reads the URLs of the upstream `name`, and the files of its TLS.
    pub(super) fn parse(
        name: &str,
        upstream: &UpstreamConfig,
        watch: &Arc<UpstreamTlsWatch>,
    ) -> Result<Self, BuildError> {
        let urls = &upstream.targets;
        if urls.is_empty() {
            return Err(BuildError::NoTargets {
                upstream: name.to_owned(),
            });
        }
        let targets = urls
            .iter()
            .map(|url| OriginTarget::parse(name, url, upstream, watch));
        Ok(Self {
            targets: targets.collect::<Result<_, _>>()?,
            turn: AtomicUsize::new(0),
            born: Instant::now(),
        })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &OriginTarget> {
        self.targets.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.targets.len()
    }

    /// The next target that is not to be skipped, or simply the next one if all are.
    pub(super) fn next(&self) -> &OriginTarget {
        let count = self.targets.len();
        let first = self.turn.fetch_add(1, Relaxed) % count;
        if count == 1 {
            return &self.targets[0];
        }
        let now = self.now();
        let in_turn = (0..count).map(|step| &self.targets[(first + step) % count]);
        let mut well = in_turn.filter(|target| target.passed_over.load(Relaxed) <= now);
        well.next().unwrap_or(&self.targets[first])
    }

    /// Closes connections that were unused for too long or that their origin has closed.
    pub(super) fn close_unused(&self) {
        let now = Instant::now();
        for target in &self.targets {
            target.connections.close_unused(now);
        }
    }

    /// Records that a connect to `target` failed.
    pub(super) fn failed(&self, target: &OriginTarget) {
        let until = self.now() + PASS_OVER.as_millis() as u64;
        target.passed_over.store(until, Relaxed);
    }

    fn now(&self) -> u64 {
        self.born.elapsed().as_millis() as u64
    }
}

impl OriginTarget {
    fn parse(
        name: &str,
        url: &str,
        upstream: &UpstreamConfig,
        watch: &Arc<UpstreamTlsWatch>,
    ) -> Result<Self, BuildError> {
        let bad = || BuildError::Target {
            upstream: name.to_owned(),
            target: url.to_owned(),
        };
        let uri: Uri = url.parse().map_err(|_| bad())?;
        let bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
        let authority = uri
            .authority()
            .filter(|authority| !authority.as_str().contains('@'));
        let (Some(authority), true) = (authority, bare) else {
            return Err(bad());
        };
        let tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => Some(
                OriginTls::new(&upstream.tls, upstream.protocol, authority.host(), watch).map_err(
                    |source| BuildError::Tls {
                        upstream: name.to_owned(),
                        source,
                    },
                )?,
            ),
            Some(scheme) if *scheme == Scheme::HTTP => None,
            _ => return Err(bad()),
        };
        Ok(Self {
            host: HeaderValue::from_str(authority.as_str()).map_err(|_| bad())?,
            authority: authority.clone(),
            tls: tls.map(Arc::new),
            clear: match upstream.protocol {
                OriginProtocol::Http2 => SpokenProtocol::Http2,
                OriginProtocol::Http1 | OriginProtocol::Auto => SpokenProtocol::Http1,
            },
            connections: TargetConnections::new(PoolLimits::new(upstream)),
            passed_over: AtomicU64::new(0),
        })
    }

    /// What connections speak without TLS: there is no way to agree on it.
    pub(super) fn clear_protocol(&self) -> SpokenProtocol {
        self.clear
    }

    /// What a connection for this speaks, as far as it is known before it stands.
    pub(super) fn spoken(&self, wanted: WantedProtocol) -> SpokenProtocol {
        let spoken = self.tls.as_ref().map_or(self.clear, |tls| tls.spoken());
        match (wanted, spoken) {
            (WantedProtocol::Http1, SpokenProtocol::Unknown) => SpokenProtocol::Http1,
            (WantedProtocol::Http1, SpokenProtocol::Http2) if self.may_speak_http1() => {
                SpokenProtocol::Http1
            }
            (_, spoken) => spoken,
        }
    }

    /// Whether the configuration leaves the protocol to the target.
    fn may_speak_http1(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.may_speak_http1())
    }

    pub(super) fn scheme(&self) -> Scheme {
        match self.tls {
            Some(_) => Scheme::HTTPS,
            None => Scheme::HTTP,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{BuildError, OriginTargets, UpstreamConfig, UpstreamTlsWatch};

    fn targets(urls: &[&str]) -> Result<OriginTargets, BuildError> {
        let urls = urls.iter().map(|url| (*url).to_owned()).collect();
        let upstream = UpstreamConfig {
            targets: urls,
            ..UpstreamConfig::from_url("")
        };
        let watch = Arc::new(UpstreamTlsWatch::new("shop", &upstream.tls));
        OriginTargets::parse("shop", &upstream, &watch)
    }

    #[test]
    fn targets_take_turns_and_a_failed_one_is_passed_over() {
        let targets = targets(&["http://a", "http://b:81/"]).unwrap();
        let next = || targets.next().authority.as_str().to_owned();
        assert_eq!([next(), next(), next()], ["a", "b:81", "a"]);
        targets.failed(&targets.targets[1]);
        assert_eq!([next(), next()], ["a", "a"]);
        targets.failed(&targets.targets[0]);
        assert_eq!([next(), next()], ["b:81", "a"], "all failed: in turn again");
    }

    #[test]
    fn urls_that_cannot_be_used_are_named() {
        let said = |url: &str| targets(&[url]).err().unwrap().to_string();
        for url in [
            "a",
            "a:80",
            "ftp://a",
            "http://a/path",
            "http://a/?q",
            "http://u@a",
            "http://",
            "",
        ] {
            assert!(said(url).contains("http://host:port"), "{url}");
        }
        assert!(matches!(targets(&[]), Err(BuildError::NoTargets { .. })));
    }
}
