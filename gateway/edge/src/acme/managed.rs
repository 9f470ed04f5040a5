//! One certificate that is obtained and renewed: what it is for, and what is known of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::chain::{self, LeafFacts};
use super::keys::KeyAlgorithm;
use super::records::{StoredAttempts, StoredCertificate, StoredRenewal};
use super::schedule::{self, AcmeStep, KnownValidity};
use crate::http::tls::certificate::{CertificateError, CertificatePair, ServerCertificate};
use crate::http::tls::names::ServerNamePattern;
use crate::http::tls::obtained::ObtainedSourceId;

/// A certificate that is obtained and renewed.
pub struct ManagedCertificate {
    /// Names it in the storage, in logs and in metrics.
    pub id: String,
    /// The source of listeners that it is for.
    pub source: ObtainedSourceId,
    /// Issuers by name, in the order in which they are asked.
    pub issuers: Vec<String>,
    pub names: Vec<String>,
    pub algorithm: KeyAlgorithm,
    pub occasion: CertificateOccasion,
    pub state: Mutex<ManagedState>,
}

/// Why a certificate is obtained.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CertificateOccasion {
    /// The configuration lists its names.
    Listed,
    /// A client has asked for its name.
    OnDemand,
}

/// What is known of a certificate now.
#[derive(Default)]
pub struct ManagedState {
    pub held: Option<Arc<HeldCertificate>>,
    pub renewal: Option<StoredRenewal>,
    pub attempts: StoredAttempts,
    pub work: WorkState,
    /// Whether somebody has asked for a new one.
    pub renewal_asked: bool,
    /// Before this it is not looked again whether another node still has the turn.
    pub busy_until: Option<Instant>,
}

/// Whether something is being done about a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum WorkState {
    #[default]
    Idle,
    UnderWay,
}

/// A certificate that is there.
pub struct HeldCertificate {
    pub stored: StoredCertificate,
    pub facts: LeafFacts,
    pub served: Arc<ServerCertificate>,
}

impl ManagedCertificate {
    pub fn new(
        source: ObtainedSourceId,
        issuers: &[String],
        names: Vec<String>,
        algorithm: KeyAlgorithm,
    ) -> Self {
        Self {
            id: format!("{source} {}", algorithm.as_str()),
            source,
            issuers: issuers.to_vec(),
            names,
            algorithm,
            occasion: CertificateOccasion::Listed,
            state: Mutex::default(),
        }
    }

    /// One for a name that a client has asked for.
    pub fn on_demand(
        source: &ObtainedSourceId,
        issuers: &[String],
        name: &str,
        algorithm: KeyAlgorithm,
    ) -> Self {
        let mut made = Self::new(source.clone(), issuers, vec![name.to_owned()], algorithm);
        made.id = format!("{source}on demand {name} {}", algorithm.as_str());
        made.occasion = CertificateOccasion::OnDemand;
        made
    }

    /// Makes a certificate of what is stored, if it is for all of the names.
    ///
    /// # Errors
    /// If it can't be used.
    pub fn hold(&self, stored: StoredCertificate) -> Result<HeldCertificate, CertificateError> {
        let file = PathBuf::from(format!("acme: {}", self.id));
        let pair = CertificatePair {
            cert: stored.chain.clone().into_bytes(),
            key: stored.key.clone().into_bytes(),
        };
        let names: Vec<_> = self
            .names
            .iter()
            .filter_map(|name| ServerNamePattern::parse(name))
            .collect();
        let served = ServerCertificate::new((&file, &file), &pair, &names)?;
        let facts = chain::leaf(&stored.chain);
        let facts = facts.ok_or(CertificateError::NoCertificate { file })?;
        Ok(HeldCertificate {
            stored,
            facts,
            served: Arc::new(served),
        })
    }

    /// Whether it has a name in common with another one.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.names.iter().any(|name| other.names.contains(name))
    }
}

impl ManagedState {
    /// What is to be done about the certificate now.
    pub fn next_step(&self, now: u64) -> AcmeStep {
        if self.renewal_asked {
            return AcmeStep::Obtain;
        }
        let held = self.held.as_ref();
        let known = held.map(|held| KnownValidity {
            validity: held.facts.validity,
            dice: held.facts.dice,
            renewal: self.renewal_of(held),
        });
        schedule::next_step(known, &self.attempts, now)
    }

    /// What the issuer said of the renewal of this certificate, and not of an earlier one.
    fn renewal_of(&self, held: &HeldCertificate) -> Option<&StoredRenewal> {
        let renewal = self.renewal.as_ref();
        renewal.filter(|renewal| renewal.certificate == held.facts.digest)
    }

    /// Forgets times that nobody whose clock agrees with this one can have noted: the clock of this
    /// node, or of another one, was ahead when they were. No pause is longer than `longest`.
    pub fn forget_impossible_times(&mut self, now: u64, longest: u64) {
        let attempts = &mut self.attempts;
        if attempts.not_before
            > now
                .saturating_add(longest)
                .saturating_add(schedule::CLOCK_SLACK)
        {
            attempts.not_before = now;
        }
        attempts
            .refused
            .retain(|at| *at <= now + schedule::CLOCK_SLACK);
        if let Some(renewal) = &mut self.renewal {
            let latest = now + schedule::LATEST_ASK_AGAIN + schedule::CLOCK_SLACK;
            renewal.ask_again = match renewal.ask_again > latest {
                true => now,
                false => renewal.ask_again,
            };
        }
    }

    /// When something is done about it next, in seconds since 1970.
    pub fn next_time(&self, now: u64) -> u64 {
        let renewal = self.held.as_ref().and_then(|held| {
            let renewal = self.renewal_of(held)?;
            let known = KnownValidity {
                validity: held.facts.validity,
                dice: held.facts.dice,
                renewal: Some(renewal),
            };
            Some(schedule::renewal_time(&known, renewal.window))
        });
        let planned = renewal.unwrap_or(now);
        planned.max(self.attempts.not_before)
    }

    /// Whether there is a certificate that clients accept.
    pub fn is_usable(&self, now: u64) -> bool {
        let held = self.held.as_ref();
        held.is_some_and(|held| held.facts.validity.not_after > now)
    }
}
