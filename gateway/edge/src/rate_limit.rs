//! Rate limits: how many requests a client, or a value of something else, may send.
//!
//! [`RateLimiter`] is the process's, [`RateLimitSet`] that of a configuration; [`RateLimit`] judges
//! requests. Inside: `subject` (what of a request a limit counts by), `bucket` (the rule), `table`
//! (memory of a fixed size), `shared` with `lease` and `redis` (limits of several nodes), `metrics`.
//!
//! A limit is one object however many routes name it, and its state outlives configurations that
//! leave its key as it is.

mod bucket;
pub mod config;
mod lease;
mod metrics;
mod redis;
mod shared;
mod subject;
mod table;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderValue;
use sha2::{Digest, Sha256};
use smallvec::SmallVec;

use crate::telemetry::limit::LineLimiter;
use crate::telemetry::metrics::Registry;
use bucket::{BucketTerms, BucketWait};
use config::{LimitPlace, RateLimitConfig};
use metrics::{LimitCounts, LimitFamilies};
use shared::{HeldShares, LimitLink, SharedAllowance, SharedOutcome};
use table::KeyTable;

pub use redis::LimitRedisSettings;
pub use subject::LimitSubject;

/// What all limits of the process have in common, whatever configurations follow.
pub struct RateLimiter {
    families: LimitFamilies,
    link: Arc<LimitLink>,
    hashes: RandomState,
    began: Instant,
}

/// The limits of one configuration.
pub struct RateLimitSet {
    limiter: Arc<RateLimiter>,
    by_name: BTreeMap<String, Arc<RateLimit>>,
}

/// One limit.
pub struct RateLimit {
    name: Arc<str>,
    config: RateLimitConfig,
    terms: BucketTerms,
    /// The value of the field that tells clients the policy. None: they are told nothing.
    policy: Option<HeaderValue>,
    limiter: Arc<RateLimiter>,
    state: Arc<LimitState>,
    counts: LimitCounts,
    /// Limits the lines about requests above it.
    lines: LineLimiter,
}

/// What is known of the allowances of a limit.
struct LimitState {
    buckets: KeyTable,
    /// None: it is this node's alone.
    shares: Option<Arc<HeldShares>>,
}

/// What a limit says of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LimitDecision {
    pub verdict: LimitVerdict,
    /// How many more requests are left now.
    pub left: u64,
    /// When the allowance will be full again.
    pub full_in: Duration,
}

/// Whether a limit admits a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LimitVerdict {
    Admitted,
    /// It is above the limit, which only counts and logs.
    WouldRefuse,
    /// It is above the limit. The next one is admitted after this time.
    Refused(Duration),
}

impl RateLimiter {
    /// `settings` lead to the Redis that nodes share, if there is one.
    ///
    /// # Errors
    /// If the registry has its families already.
    pub fn register(
        registry: &Registry,
        settings: Option<LimitRedisSettings>,
    ) -> prometheus::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            families: LimitFamilies::register(registry)?,
            link: Arc::new(LimitLink::new(settings)),
            hashes: RandomState::new(),
            began: Instant::now(),
        }))
    }

    /// Tells how many nodes there are, with this one.
    pub fn set_nodes(&self, nodes: usize) {
        self.link.set_nodes(nodes as u64);
    }

    /// Nanoseconds from the beginning of the process until `now`.
    fn nanos(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.began);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX >> 1)
    }
}

impl RateLimitSet {
    /// The limits of a configuration, with what those `before` know of clients.
    pub fn new(
        limits: &BTreeMap<String, RateLimitConfig>,
        limiter: &Arc<RateLimiter>,
        before: Option<&Self>,
    ) -> Self {
        let limit = |(name, config): (&String, &RateLimitConfig)| {
            let standing = before.and_then(|before| before.by_name.get(name));
            let limit = match standing {
                Some(standing) if standing.config == *config => Arc::clone(standing),
                standing => {
                    let standing = standing.map(|standing| &**standing);
                    Arc::new(RateLimit::new(name, config, limiter, standing))
                }
            };
            (name.clone(), limit)
        };
        Self {
            limiter: Arc::clone(limiter),
            by_name: limits.iter().map(limit).collect(),
        }
    }

    /// The limit of this name.
    pub fn get(&self, name: &str) -> Option<Arc<RateLimit>> {
        self.by_name.get(name).cloned()
    }

    /// Lets the limits serve: if nodes share one, their store is connected. Needs a tokio runtime.
    pub fn begin_serving(&self) {
        if self.by_name.values().any(|limit| limit.config.shared) {
            self.limiter.link.open();
        }
    }
}

impl RateLimit {
    fn new(
        name: &str,
        config: &RateLimitConfig,
        limiter: &Arc<RateLimiter>,
        before: Option<&Self>,
    ) -> Self {
        let name: Arc<str> = name.into();
        let keeps = |before: &&Self| {
            let (then, now) = (&before.config, config);
            (&then.key, then.max_keys, then.shared) == (&now.key, now.max_keys, now.shared)
        };
        let state = match before.filter(keeps) {
            Some(before) => Arc::clone(&before.state),
            None => Arc::new(LimitState::new(config)),
        };
        let interval = config.rate.interval().as_nanos();
        let terms = BucketTerms {
            interval: u64::try_from(interval).unwrap_or(u64::MAX),
            burst: config.burst(),
        };
        Self {
            counts: limiter.families.limit(&name),
            policy: config.fields.then(|| policy(&name, terms)).flatten(),
            terms,
            name,
            config: config.clone(),
            limiter: Arc::clone(limiter),
            state,
            lines: LineLimiter::new(Instant::now()),
        }
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Where requests are counted.
    pub fn counted_at(&self) -> LimitPlace {
        self.config.at
    }

    /// Whether a request may have to wait for the nodes' store.
    pub fn may_wait(&self) -> bool {
        self.config.shared
    }

    /// Whether all requests for one URL have one allowance on a route.
    pub fn is_of_the_url(&self) -> bool {
        use config::LimitKey::{Client, Cookie, Header, PathSegment, Route};
        match self.config.key {
            PathSegment(_) | Route => true,
            Client | Cookie(_) | Header(_) => false,
        }
    }

    /// Judges a request that came at `now`, and counts it. Waits only where nodes share the limit.
    pub async fn judge(&self, subject: LimitSubject<'_>, now: Instant) -> LimitDecision {
        let hash = self.hash(subject);
        let now = self.limiter.nanos(now);
        let Some(shares) = &self.state.shares else {
            return self.settle(self.take(self.terms, hash, now), self.terms);
        };
        let allowance = SharedAllowance {
            limit: &self.name,
            terms: self.terms,
            hash,
            name: &|| self.name_of(subject),
        };
        match shares.take(&allowance, &self.limiter.link).await {
            SharedOutcome::Admitted { left } => {
                self.take_along(hash, now);
                self.settle(Ok(left), self.terms)
            }
            SharedOutcome::Refused { wait } => self.settle(Err(wait), self.terms),
            SharedOutcome::Unknown => {
                self.counts.degraded.inc();
                let part = self.own_part();
                self.settle(self.take(part, hash, now), part)
            }
        }
    }

    /// Whether a request would be refused, as far as that is known without asking anybody.
    pub fn is_used_up(&self, subject: LimitSubject<'_>) -> bool {
        let hash = self.hash(subject);
        if self.config.dry_run {
            return false;
        }
        match &self.state.shares {
            Some(shares) => shares.is_used_up(hash, &self.limiter.link),
            None => {
                let known = self.state.buckets.known(hash);
                let now = self.limiter.nanos(Instant::now());
                known.is_some_and(|full_at| self.terms.take(full_at, now).is_err())
            }
        }
    }

    /// The values of the fields that tell a client how much is left: the policy, and what is left of
    /// it. None: clients are told nothing.
    pub fn told(&self, decision: &LimitDecision) -> Option<(HeaderValue, HeaderValue)> {
        let policy = self.policy.clone()?;
        let mut left = SmallVec::<[u8; USUAL_LEFT]>::new();
        let mut digits = itoa::Buffer::new();
        left.extend_from_slice(b"\"");
        left.extend_from_slice(self.name.as_bytes());
        left.extend_from_slice(b"\";r=");
        left.extend_from_slice(digits.format(decision.left).as_bytes());
        left.extend_from_slice(b";t=");
        left.extend_from_slice(digits.format(seconds(decision.full_in)).as_bytes());
        Some((policy, HeaderValue::from_bytes(&left).ok()?))
    }

    /// The limit in words.
    pub fn describe(&self) -> String {
        let RateLimitConfig {
            rate,
            key,
            at,
            shared,
            dry_run,
            ..
        } = &self.config;
        let (name, burst) = (&self.name, self.terms.burst);
        let place = match at {
            LimitPlace::Edge => "every request",
            LimitPlace::Origin => "what goes to the origin",
        };
        let shared = if *shared { ", shared by the nodes" } else { "" };
        let dry = if *dry_run { ", only counted" } else { "" };
        format!("limit {name}: {rate}, burst {burst}, by {key}, of {place}{shared}{dry}")
    }

    fn hash(&self, subject: LimitSubject<'_>) -> u64 {
        let mut hasher = self.limiter.hashes.build_hasher();
        subject.write(&self.config.key, |octets| hasher.write(octets));
        hasher.finish()
    }

    /// The name of an allowance for all nodes. It does not tell secrets of clients.
    fn name_of(&self, subject: LimitSubject<'_>) -> String {
        let mut digest = Sha256::new();
        subject.write(&self.config.key, |octets| digest.update(octets));
        let digest = digest.finalize();
        digest[..16]
            .iter()
            .map(|octet| format!("{octet:02x}"))
            .collect()
    }

    /// Takes a request from an allowance of this node. Returns how many are left, or how long there
    /// is none.
    fn take(&self, terms: BucketTerms, hash: u64, now: u64) -> Result<u64, Duration> {
        let mut taken = Ok(0);
        self.state.buckets.update(hash, |full_at| {
            let full_at = full_at.unwrap_or(0);
            let next = terms.take(full_at, now);
            taken = match next {
                Ok(_) => Ok(terms.left(full_at, now).saturating_sub(1)),
                Err(BucketWait(wait)) => Err(Duration::from_nanos(wait)),
            };
            next.ok()
        });
        taken
    }

    /// Counts a request, which a lease has admitted, for this node's part as well.
    fn take_along(&self, hash: u64, now: u64) {
        let terms = self.own_part();
        let buckets = &self.state.buckets;
        buckets.update(hash, |full_at| {
            Some(terms.take_along(full_at.unwrap_or(0), now))
        });
    }

    /// What this node may admit without asking the others.
    fn own_part(&self) -> BucketTerms {
        self.terms.shared_among(self.limiter.link.nodes())
    }

    fn settle(&self, taken: Result<u64, Duration>, terms: BucketTerms) -> LimitDecision {
        let verdict = match taken {
            Ok(_) => LimitVerdict::Admitted,
            Err(_) if self.config.dry_run => LimitVerdict::WouldRefuse,
            Err(wait) => LimitVerdict::Refused(wait),
        };
        let count = match verdict {
            LimitVerdict::Admitted => &self.counts.admitted,
            LimitVerdict::WouldRefuse => &self.counts.would_refuse,
            LimitVerdict::Refused(_) => &self.counts.refused,
        };
        count.inc();
        let left = taken.unwrap_or(0);
        let used = terms.burst.saturating_sub(left);
        LimitDecision {
            verdict,
            left,
            full_in: Duration::from_nanos(terms.interval.saturating_mul(used)),
        }
    }

    /// Logs a request above the limit, within bounds.
    pub fn log(&self, decision: &LimitDecision, subject: LimitSubject<'_>) {
        let would = match decision.verdict {
            LimitVerdict::Admitted => return,
            LimitVerdict::WouldRefuse => true,
            LimitVerdict::Refused(_) => false,
        };
        let Some(dropped) = self.lines.admit(Instant::now()) else {
            return;
        };
        let (limit, route) = (&*self.name, subject.route);
        let client = subject.client.map(tracing::field::display);
        match would {
            true => tracing::warn!(
                limit,
                route,
                client,
                dropped,
                "a request is above a rate limit, which only counts"
            ),
            false => tracing::warn!(
                limit,
                route,
                client,
                dropped,
                "a request was refused by a rate limit"
            ),
        }
    }
}

impl LimitState {
    fn new(config: &RateLimitConfig) -> Self {
        let shares = config.shared.then(|| HeldShares::new(config.max_keys));
        Self {
            buckets: KeyTable::new(config.max_keys),
            shares: shares.map(Arc::new),
        }
    }
}

/// The octets of what is left that take no allocation but that of the field.
const USUAL_LEFT: usize = 96;

fn policy(name: &str, terms: BucketTerms) -> Option<HeaderValue> {
    let window = seconds(Duration::from_nanos(terms.span()));
    let policy = format!("\"{name}\";q={};w={window}", terms.burst);
    HeaderValue::try_from(policy).ok()
}

/// In whole seconds, at least one: a client that comes again after them does not come too early.
pub fn seconds(span: Duration) -> u64 {
    let whole = u64::try_from(span.as_nanos().div_ceil(1_000_000_000)).unwrap_or(u64::MAX);
    whole.max(1)
}
