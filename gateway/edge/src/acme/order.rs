//! One order from its beginning, or from wherever another node has left it, to the certificate.
//!
//! The URL of an order and the key of its certificate are stored before anything else is done, so
//! that an order goes on after the node that began it has died: issuers count orders.

use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeType, Identifier, NewOrder,
    Order, OrderStatus, RetryPolicy,
};

use super::challenges::{AcmeChallenges, ChallengeSubject, PublishedChallenge};
use super::config::{AcmeChallengeConfig, AcmeDnsChallenge};
use super::dns_challenge::{PublishedRecord, record_of};
use super::failure::AcmeFailure;
use super::issuer::AcmeIssuer;
use super::keys::{self, KeyAlgorithm};
use super::records::{StoredCertificate, StoredDnsRecord, StoredOrder};
use super::storage::{self, AcmeLease, AcmeRecordKey, AcmeRecordKind, AcmeStorage};

/// What is ordered, and by what means.
pub struct CertificateOrder<'a> {
    pub issuer: &'a AcmeIssuer,
    pub storage: &'a dyn AcmeStorage,
    pub challenges: &'a AcmeChallenges,
    pub lease: &'a AcmeLease,
    /// Names the certificate in the storage.
    pub id: &'a str,
    pub names: &'a [String],
    pub algorithm: KeyAlgorithm,
    /// The certificate that the new one takes the place of (RFC 9773 §5).
    pub replaces: Option<CertificateIdentifier<'static>>,
    pub timeout: Duration,
}

/// An order that the issuer knows, and the key of its certificate.
struct OpenOrder {
    order: Order,
    key: String,
    /// What was put into the DNS for it, by this node or another one.
    records: Vec<PublishedRecord>,
}

impl CertificateOrder<'_> {
    /// Obtains the certificate. Its order remains stored until [`forget`](Self::forget).
    ///
    /// # Errors
    /// Why there is none.
    pub async fn run(&self) -> Result<StoredCertificate, AcmeFailure> {
        let obtained = tokio::time::timeout(self.timeout, self.obtain()).await;
        let obtained = obtained.unwrap_or(Err(AcmeFailure::Timeout));
        if let Err(failure) = &obtained
            && is_final(failure)
        {
            self.forget().await?;
        }
        obtained
    }

    /// Forgets the order, once its certificate is stored.
    ///
    /// # Errors
    /// If the storage refuses.
    pub async fn forget(&self) -> Result<(), AcmeFailure> {
        Ok(self.storage.remove(&self.record()).await?)
    }

    fn record(&self) -> AcmeRecordKey {
        let name = format!("{} {}", self.issuer.name, self.id);
        AcmeRecordKey::new(AcmeRecordKind::Order, name)
    }

    async fn obtain(&self) -> Result<StoredCertificate, AcmeFailure> {
        let account = self.issuer.account(self.storage).await?;
        let mut open = match self.continued(&account).await? {
            Some(open) => open,
            None => self.begun(&account).await?,
        };
        let chain = self.carry_on(&mut open).await?;
        let chain = self.preferred(&account, chain).await;
        Ok(StoredCertificate {
            issuer: self.issuer.name.clone(),
            chain,
            key: open.key,
        })
    }

    /// The order that was begun before. None if there is none that can go on.
    async fn continued(&self, account: &Account) -> Result<Option<OpenOrder>, AcmeFailure> {
        let stored: Option<StoredOrder> = storage::load(self.storage, &self.record()).await?;
        let Some(StoredOrder { url, key, records }) = stored else {
            return Ok(None);
        };
        // Removed with the order, whatever becomes of it.
        let records = self.earlier(records);
        let mut order = match account.order(url.clone()).await {
            Ok(order) => order,
            // The issuer does not know it any more.
            Err(instant_acme::Error::Api(problem)) => {
                tracing::info!(url, %problem, "an order that was begun can't go on");
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let can_go_on = order.state().status != OrderStatus::Invalid;
        if can_go_on {
            tracing::info!(url, issuer = self.issuer.name, "an order goes on");
        }
        Ok(can_go_on.then_some(OpenOrder {
            order,
            key,
            records,
        }))
    }

    fn earlier(&self, records: Vec<StoredDnsRecord>) -> Vec<PublishedRecord> {
        let AcmeChallengeConfig::Dns01(dns) = &self.issuer.config.challenge else {
            return Vec::new();
        };
        let guarded = |record| PublishedRecord::new(dns, record, self.challenges.left());
        records.into_iter().map(guarded).collect()
    }

    async fn begun(&self, account: &Account) -> Result<OpenOrder, AcmeFailure> {
        let algorithm = self.algorithm;
        let key = tokio::task::spawn_blocking(move || keys::new_key(algorithm)).await;
        let key = key.map_err(|error| instant_acme::Error::Other(Box::new(error)))??;
        let order = self.new_order(account).await?;
        let stored = StoredOrder {
            url: order.url().to_owned(),
            key,
            records: Vec::new(),
        };
        storage::store(self.storage, &self.record(), &stored, Some(self.lease)).await?;
        tracing::info!(
            url = stored.url,
            issuer = self.issuer.name,
            names = self.names.join(" "),
            "a certificate is ordered"
        );
        Ok(OpenOrder {
            order,
            key: stored.key,
            records: Vec::new(),
        })
    }

    async fn new_order(&self, account: &Account) -> Result<Order, AcmeFailure> {
        let names = self.names.iter().cloned().map(Identifier::Dns);
        let names: Vec<_> = names.collect();
        let order = || {
            let order = NewOrder::new(&names);
            match &self.issuer.config.profile {
                Some(profile) => order.profile(profile),
                None => order,
            }
        };
        let Some(replaced) = &self.replaces else {
            return Ok(account.new_order(&order()).await?);
        };
        match account.new_order(&order().replaces(replaced.clone())).await {
            // The issuer may have seen a replacement already, know no replacements at all, or have
            // given the certificate to another account, as to one that is lost.
            Err(instant_acme::Error::Unsupported(_)) => {}
            Err(instant_acme::Error::Api(problem)) if may_be_about_replacing(&problem) => {}
            ordered => return Ok(ordered?),
        }
        Ok(account.new_order(&order()).await?)
    }

    /// Brings the order to its end. Returns the chain of the certificate.
    async fn carry_on(&self, open: &mut OpenOrder) -> Result<String, AcmeFailure> {
        let patience = RetryPolicy::new().backoff(1.5).timeout(self.timeout);
        if open.order.state().status == OrderStatus::Pending {
            let _published = self.answer(open).await?;
            let order = &mut open.order;
            match order.poll_ready(&patience).await {
                Ok(_) => {}
                Err(instant_acme::Error::Api(_))
                    if order.state().status == OrderStatus::Invalid => {}
                Err(error) => return Err(error.into()),
            }
        }
        // The issuer looks for them no more.
        open.records.clear();
        let OpenOrder { order, key, .. } = open;
        match order.state().status {
            OrderStatus::Ready => {
                let request = keys::request(self.names, key)?;
                order.finalize_csr(&request).await?;
            }
            OrderStatus::Processing | OrderStatus::Valid => {}
            OrderStatus::Pending | OrderStatus::Invalid => {
                return Err(AcmeFailure::Refused(reasons(order).await));
            }
        }
        Ok(order.poll_certificate(&patience).await?)
    }

    /// Publishes the answers to all challenges, and tells the issuer of them.
    async fn answer(&self, open: &mut OpenOrder) -> Result<Vec<PublishedChallenge>, AcmeFailure> {
        let url = open.order.url().to_owned();
        let OpenOrder {
            order,
            key,
            records,
        } = open;
        let mut published = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            if authorization.status != AuthorizationStatus::Pending {
                continue;
            }
            let name = match authorization.identifier().identifier {
                Identifier::Dns(name) => name.clone(),
                other => format!("{other:?}"),
            };
            let (kind, challenge) = self.challenge();
            let offered = authorization.challenge(kind);
            let Some(mut offered) = offered else {
                return Err(AcmeFailure::NoChallenge { name, challenge });
            };
            let text = offered.key_authorization();
            let subject = match &self.issuer.config.challenge {
                AcmeChallengeConfig::Http01 => ChallengeSubject::Token(offered.token.clone()),
                AcmeChallengeConfig::TlsAlpn01 => ChallengeSubject::ServerName(name),
                AcmeChallengeConfig::Dns01(dns) => {
                    let record = record_of(dns, &name, text.dns_value()).await?;
                    self.show(dns, record, records, (url.as_str(), key.as_str()))
                        .await?;
                    offered.set_ready().await?;
                    continue;
                }
            };
            let answer = self
                .challenges
                .publish(subject, text.as_str(), self.timeout);
            published.push(answer.await?);
            offered.set_ready().await?;
        }
        Ok(published)
    }

    /// Puts a record into the DNS for this order, whose URL and key are stored, and notes it among its
    /// records. It is stored before it is made, so that it is removed whatever happens.
    async fn show(
        &self,
        dns: &AcmeDnsChallenge,
        record: StoredDnsRecord,
        records: &mut Vec<PublishedRecord>,
        (url, key): (&str, &str),
    ) -> Result<(), AcmeFailure> {
        if let Some(earlier) = records.iter().find(|known| *known.record() == record) {
            return Ok(earlier.show_again().await?);
        }
        let known = records.iter().map(PublishedRecord::record);
        let stored = StoredOrder {
            url: url.to_owned(),
            key: key.to_owned(),
            records: known.chain([&record]).cloned().collect(),
        };
        storage::store(self.storage, &self.record(), &stored, Some(self.lease)).await?;
        let new = PublishedRecord::new(dns, record, self.challenges.left());
        let shown = new.show().await;
        records.push(new);
        Ok(shown?)
    }

    fn challenge(&self) -> (ChallengeType, &'static str) {
        match &self.issuer.config.challenge {
            AcmeChallengeConfig::Http01 => (ChallengeType::Http01, "http-01"),
            AcmeChallengeConfig::TlsAlpn01 => (ChallengeType::TlsAlpn01, "tls-alpn-01"),
            AcmeChallengeConfig::Dns01(_) => (ChallengeType::Dns01, "dns-01"),
        }
    }

    /// The chain that the configuration prefers, if the issuer offers it.
    async fn preferred(&self, account: &Account, chain: String) -> String {
        let others = self.issuer.transport.take_chains();
        let Some(preferred) = &self.issuer.config.preferred_chain else {
            return chain;
        };
        if super::chain::ends_at(&chain, preferred) {
            return chain;
        }
        for url in others {
            // The library reads orders alone, and says so; the chain was noted as it went by.
            let _ = account.order(url).await;
            let other = self.issuer.transport.take_last_chain();
            if let Some(other) = other.filter(|other| super::chain::ends_at(other, preferred)) {
                return other;
            }
        }
        tracing::warn!(
            issuer = self.issuer.name,
            preferred,
            "the issuer does not offer the preferred chain; its usual one is taken"
        );
        chain
    }
}

/// Whether the order is at its end with this failure: the next attempt begins another one.
fn is_final(failure: &AcmeFailure) -> bool {
    match failure {
        AcmeFailure::Refused(_) | AcmeFailure::NoChallenge { .. } => true,
        AcmeFailure::Issuer(instant_acme::Error::Api(_)) => {
            !failure.is_rate_limit() && failure.problem() != Some("serverInternal")
        }
        // An order in a state that the library does not expect.
        AcmeFailure::Issuer(instant_acme::Error::Str(_)) => true,
        _ => false,
    }
}

/// Whether an order that says what it replaces may be refused for that. Issuers have many types for
/// it; what else is wrong with an order is refused again without it.
fn may_be_about_replacing(problem: &instant_acme::Problem) -> bool {
    let kind = problem.r#type.as_deref().unwrap_or_default();
    let others = ["rateLimited", "serverInternal", "accountDoesNotExist"];
    !others.iter().any(|other| kind.ends_with(other))
}

/// What the issuer says of names that it has refused.
async fn reasons(order: &mut Order) -> String {
    let mut reasons = Vec::new();
    if let Some(problem) = &order.state().error {
        reasons.push(problem.to_string());
    }
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        if authorization.refresh().await.is_err() {
            continue;
        }
        let name = authorization.identifier().to_string();
        let errors = authorization.challenges.iter();
        let errors = errors.filter_map(|challenge| challenge.error.as_ref());
        reasons.extend(errors.map(|problem| format!("{name}: {problem}")));
    }
    match reasons.is_empty() {
        true => "it gives no reason".to_owned(),
        false => reasons.join("; "),
    }
}
