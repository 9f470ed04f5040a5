//! What is done about one certificate, under a lease: it is looked into the storage again, and then
//! the issuer is asked for a renewal window or a certificate.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::select;
use tokio::time::sleep;

use super::failure::AcmeFailure;
use super::issuer::AcmeIssuer;
use super::managed::{HeldCertificate, ManagedCertificate, WorkState};
use super::metrics::OrderOutcome;
use super::order::CertificateOrder;
use super::records::{
    RenewalWindow, StoredAttempts, StoredCertificate, StoredPause, StoredRenewal,
};
use super::schedule::{self, AcmeStep, AttemptFault};
use super::storage::{self, AcmeLease, AcmeRecordKey, AcmeRecordKind, AcmeStorageError};
use super::{AcmeManager, KnownIssuer};
use crate::random;

/// The pause before it is looked again whether another node still has the turn.
const BUSY: Duration = Duration::from_secs(1);

/// When an issuer is asked again for a window that it did not give.
const ASK_AGAIN: u64 = 6 * 3_600;

/// How long an issuer is left alone that wants a pause and does not say for how long.
const PAUSE: u64 = 3_600;

/// After so many failures the staging environment is tried first.
const STAGING_AFTER: u32 = 2;

/// Why work about a certificate ended before it was done.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    #[error(transparent)]
    Storage(#[from] AcmeStorageError),
    #[error(transparent)]
    Failure(#[from] AcmeFailure),
}

impl AcmeManager {
    /// Does what is due about a certificate, if no other node is doing it.
    pub(super) async fn work(self: Arc<Self>, certificate: Arc<ManagedCertificate>) {
        if let Err(error) = self.take_turn(&certificate).await {
            tracing::warn!(certificate = certificate.id, %error, "nothing could be done about a certificate");
            certificate.state.lock().busy_until = Some(Instant::now() + BUSY * 10);
        }
        certificate.state.lock().work = WorkState::Idle;
    }

    async fn take_turn(&self, certificate: &ManagedCertificate) -> Result<(), WorkError> {
        let name = format!("certificate {}", certificate.id);
        let life = self.config.lease.0;
        let Some(lease) = self.storage.acquire(&name, life).await? else {
            let jitter = Duration::from_millis(u64::from(random::number() % 500));
            certificate.state.lock().busy_until = Some(Instant::now() + BUSY + jitter);
            return Ok(());
        };
        let worked = select! {
            worked = self.work_under(certificate, &lease) => worked,
            lost = self.keep(&lease) => Err(lost.into()),
        };
        self.storage.release(&lease).await?;
        worked
    }

    /// Renews a lease until it is lost.
    async fn keep(&self, lease: &AcmeLease) -> AcmeStorageError {
        let life = self.config.lease.0;
        let mut renewed = Instant::now();
        loop {
            sleep(life / 3).await;
            match self.storage.renew(lease, life).await {
                Ok(true) => renewed = Instant::now(),
                Ok(false) => return AcmeStorageError::LeaseLost,
                // It holds until its time is over; then another node may have it.
                Err(error) if renewed.elapsed() >= life => return error,
                Err(_) => {}
            }
        }
    }

    async fn work_under(
        &self,
        certificate: &ManagedCertificate,
        lease: &AcmeLease,
    ) -> Result<(), WorkError> {
        // Another node may have done it before this one got the lease.
        if self.read(certificate).await? {
            self.provide();
        }
        let step = certificate.state.lock().next_step(schedule::now());
        match step {
            AcmeStep::WaitUntil(_) => Ok(()),
            AcmeStep::AskForWindow => self.ask_for_window(certificate, lease).await,
            AcmeStep::Obtain => self.obtain(certificate, lease).await,
        }
    }

    /// Asks the issuer of a certificate when it wants it to be renewed.
    async fn ask_for_window(
        &self,
        certificate: &ManagedCertificate,
        lease: &AcmeLease,
    ) -> Result<(), WorkError> {
        let Some(held) = certificate.state.lock().held.clone() else {
            return Ok(());
        };
        let now = schedule::now();
        let renewal = match self.window(&held).await {
            Ok((window, again)) => StoredRenewal {
                certificate: held.facts.digest.clone(),
                window,
                ask_again: now + again,
            },
            Err(failure) => {
                tracing::info!(certificate = certificate.id, %failure, "the issuer was not asked for a renewal window");
                let before = certificate.state.lock().renewal.clone();
                let before = before.filter(|known| known.certificate == held.facts.digest);
                StoredRenewal {
                    certificate: held.facts.digest.clone(),
                    window: before.and_then(|known| known.window),
                    ask_again: now + ASK_AGAIN,
                }
            }
        };
        let key = AcmeRecordKey::new(AcmeRecordKind::Renewal, &certificate.id);
        storage::store(&*self.storage, &key, &renewal, Some(lease)).await?;
        certificate.state.lock().renewal = Some(renewal);
        Ok(())
    }

    /// The window that the issuer suggests, and in how many seconds it is to be asked again.
    async fn window(
        &self,
        held: &HeldCertificate,
    ) -> Result<(Option<RenewalWindow>, u64), AcmeFailure> {
        let issuer = self.issuers.get(&held.stored.issuer);
        let Some((issuer, identifier)) = issuer.zip(held.facts.identifier.as_ref()) else {
            return Ok((None, ASK_AGAIN));
        };
        let account = issuer.real.account(&*self.storage).await?;
        let (info, again) = match account.renewal_info(identifier).await {
            Ok(answer) => answer,
            Err(instant_acme::Error::Unsupported(_)) => return Ok((None, ASK_AGAIN)),
            Err(error) => return Err(error.into()),
        };
        let at = |time: i64| u64::try_from(time).unwrap_or(0);
        let window = RenewalWindow {
            start: at(info.suggested_window.start.unix_timestamp()),
            end: at(info.suggested_window.end.unix_timestamp()),
        };
        let again = again
            .as_secs()
            .clamp(schedule::SOONEST_ASK_AGAIN, schedule::LATEST_ASK_AGAIN);
        Ok((Some(window), again))
    }

    /// Obtains a certificate from the first issuer that gives one out.
    async fn obtain(
        &self,
        certificate: &ManagedCertificate,
        lease: &AcmeLease,
    ) -> Result<(), WorkError> {
        let now = schedule::now();
        let (mut fault, mut error) = (None, None);
        // When the first of the issuers may be asked again.
        let mut free_at = u64::MAX;
        for name in &certificate.issuers {
            let Some(issuer) = self.issuers.get(name) else {
                continue;
            };
            if let Some(until) = self.paused(name).await? {
                free_at = free_at.min(until);
                continue;
            }
            // What an answer to another question has asked for says nothing of this order.
            let _ = issuer.take_retry_after();
            match self.obtain_from(certificate, name, lease).await {
                Ok(()) => return Ok(()),
                Err(WorkError::Failure(failure)) => {
                    tracing::warn!(
                        certificate = certificate.id,
                        issuer = name,
                        %failure,
                        "a certificate was not obtained"
                    );
                    let until = self.pause(name, issuer, &failure).await?;
                    free_at = free_at.min(until.unwrap_or(now));
                    if !failure.is_rate_limit() {
                        fault = Some(fault.unwrap_or(failure.fault()));
                    }
                    error = Some(failure.to_string());
                }
                Err(error) => return Err(error),
            }
        }
        let mut attempts = certificate.state.lock().attempts.clone();
        match fault {
            Some(fault) => {
                let dice = random::number();
                schedule::note_failure(&mut attempts, fault, &self.config.retry, dice, now);
                attempts.not_before = attempts.not_before.max(free_at);
            }
            None => attempts.not_before = free_at,
        }
        attempts.last_error = error.or(attempts.last_error);
        self.note(certificate, attempts, lease).await
    }

    async fn obtain_from(
        &self,
        certificate: &ManagedCertificate,
        name: &str,
        lease: &AcmeLease,
    ) -> Result<(), WorkError> {
        let Some(issuer) = self.issuers.get(name) else {
            return Ok(());
        };
        let failures = certificate.state.lock().attempts.failures;
        if let Some(staging) = issuer
            .staging
            .as_ref()
            .filter(|_| failures >= STAGING_AFTER)
        {
            let order = self.order(certificate, staging, lease);
            self.carry_out(&order).await?;
            order.forget().await?;
        }
        let order = self.order(certificate, &issuer.real, lease);
        let obtained = self.carry_out(&order).await?;
        let held = certificate.hold(obtained);
        let held = held.map_err(AcmeFailure::from)?;
        let key = AcmeRecordKey::new(AcmeRecordKind::Certificate, &certificate.id);
        storage::store(&*self.storage, &key, &held.stored, Some(lease)).await?;
        order.forget().await?;
        self.note(certificate, StoredAttempts::default(), lease)
            .await?;
        tracing::info!(
            certificate = certificate.id,
            issuer = name,
            not_after = held.facts.validity.not_after,
            "a certificate was obtained"
        );
        let mut state = certificate.state.lock();
        state.held = Some(Arc::new(held));
        state.renewal_asked = false;
        drop(state);
        self.provide();
        Ok(())
    }

    fn order<'a>(
        &'a self,
        certificate: &'a ManagedCertificate,
        issuer: &'a AcmeIssuer,
        lease: &'a AcmeLease,
    ) -> CertificateOrder<'a> {
        let held = certificate.state.lock().held.clone();
        // An issuer knows its own certificates alone.
        let replaced = held.filter(|held| held.stored.issuer == issuer.name);
        CertificateOrder {
            issuer,
            storage: &*self.storage,
            challenges: &self.challenges,
            lease,
            id: &certificate.id,
            names: &certificate.names,
            algorithm: certificate.algorithm,
            replaces: replaced.and_then(|held| held.facts.identifier.clone()),
            timeout: self.config.order_timeout.0,
        }
    }

    /// Runs an order, and counts how it ended.
    async fn carry_out(
        &self,
        order: &CertificateOrder<'_>,
    ) -> Result<StoredCertificate, AcmeFailure> {
        let ended = order.run().await;
        let outcome = match &ended {
            Ok(_) => OrderOutcome::Issued,
            Err(failure) if failure.is_rate_limit() => OrderOutcome::RateLimited,
            Err(failure) if failure.fault() == AttemptFault::Refused => OrderOutcome::Refused,
            Err(_) => OrderOutcome::Failed,
        };
        self.metrics.ended(&order.issuer.name, outcome);
        match &ended {
            Ok(_) => {}
            Err(failure) if failure.problem() == Some("accountDoesNotExist") => {
                order.issuer.forget_account(&*self.storage).await?;
            }
            // What the directory says may have changed.
            Err(_) => order.issuer.look_again().await,
        }
        ended
    }

    /// Notes failures, or that there are none any more, so that a restart knows of them.
    async fn note(
        &self,
        certificate: &ManagedCertificate,
        attempts: StoredAttempts,
        lease: &AcmeLease,
    ) -> Result<(), WorkError> {
        let key = AcmeRecordKey::new(AcmeRecordKind::Attempts, &certificate.id);
        if attempts == StoredAttempts::default() {
            self.storage.remove(&key).await?;
        } else {
            storage::store(&*self.storage, &key, &attempts, Some(lease)).await?;
        }
        let mut state = certificate.state.lock();
        state.renewal_asked = false;
        state.attempts = attempts;
        Ok(())
    }

    /// Until when nothing is ordered from an issuer, if that is later than now. A longer pause than
    /// there is was noted by a clock that was ahead.
    async fn paused(&self, issuer: &str) -> Result<Option<u64>, AcmeStorageError> {
        let key = AcmeRecordKey::new(AcmeRecordKind::Pause, issuer);
        let pause: Option<StoredPause> = storage::load(&*self.storage, &key).await?;
        let now = schedule::now();
        let pauses = now + 1..=now + schedule::LONGEST_PAUSE + schedule::CLOCK_SLACK;
        Ok(pause
            .map(|pause| pause.until)
            .filter(|until| pauses.contains(until)))
    }

    /// Notes that an issuer wants to be left alone for a while, if it has said so with its refusal.
    /// Returns until when.
    async fn pause(
        &self,
        name: &str,
        issuer: &KnownIssuer,
        failure: &AcmeFailure,
    ) -> Result<Option<u64>, AcmeStorageError> {
        let now = schedule::now();
        let asked = issuer.take_retry_after().map(schedule::seconds);
        let asked = asked.filter(|until| *until > now);
        let Some(until) = asked.or(failure.is_rate_limit().then_some(now + PAUSE)) else {
            return Ok(None);
        };
        let until = until.min(now + schedule::LONGEST_PAUSE);
        let key = AcmeRecordKey::new(AcmeRecordKind::Pause, name);
        storage::store(&*self.storage, &key, &StoredPause { until }, None).await?;
        Ok(Some(until))
    }
}
