//! A certificate authority, and this gateway's account with it.
//!
//! All nodes that share a storage share the account: one of them makes it, under a lease, and the
//! others read it.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use instant_acme::{Account, ExternalAccountKey, NewAccount};
use lamina_base::tls::TrustedAuthoritiesError;
use tokio::sync::Mutex;
use tokio::time::sleep;

use super::config::{AcmeConfig, AcmeIssuerConfig};
use super::failure::AcmeFailure;
use super::records::StoredAccount;
use super::storage::{self, AcmeLease, AcmeRecordKey, AcmeRecordKind, AcmeStorage};
use super::transport::AcmeTransport;

/// A certificate authority, or its staging environment.
pub struct AcmeIssuer {
    /// As logs and metrics name it.
    pub name: String,
    pub config: AcmeIssuerConfig,
    pub directory: String,
    pub transport: AcmeTransport,
    account: Mutex<Option<Account>>,
    lease_life: Duration,
}

/// The pause before it is looked again whether another node has made the account.
const BUSY: Duration = Duration::from_millis(500);

impl AcmeIssuer {
    /// The certificate authority with this name.
    ///
    /// # Errors
    /// If the authorities that its server is verified against can't be read.
    pub fn new(
        name: &str,
        config: &AcmeIssuerConfig,
        acme: &AcmeConfig,
    ) -> Result<Arc<Self>, TrustedAuthoritiesError> {
        Self::at(name.to_owned(), &config.directory, config, acme)
    }

    /// Its staging environment, if there is one.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn staging(
        name: &str,
        config: &AcmeIssuerConfig,
        acme: &AcmeConfig,
    ) -> Result<Option<Arc<Self>>, TrustedAuthoritiesError> {
        let named = format!("{name}-staging");
        let staging = config.staging();
        staging
            .map(|directory| Self::at(named, directory, config, acme))
            .transpose()
    }

    fn at(
        name: String,
        directory: &str,
        config: &AcmeIssuerConfig,
        acme: &AcmeConfig,
    ) -> Result<Arc<Self>, TrustedAuthoritiesError> {
        Ok(Arc::new(Self {
            name,
            directory: directory.to_owned(),
            transport: AcmeTransport::new(config, acme.request_timeout.0)?,
            config: config.clone(),
            account: Mutex::default(),
            lease_life: acme.lease.0,
        }))
    }

    /// The account, which is made if there is none.
    ///
    /// # Errors
    /// If the issuer or the storage refuses.
    pub async fn account(&self, storage: &dyn AcmeStorage) -> Result<Account, AcmeFailure> {
        let mut account = self.account.lock().await;
        if let Some(account) = &*account {
            return Ok(account.clone());
        }
        loop {
            if let Some(stored) = storage::load(storage, &self.record()).await? {
                let opened = self.open(stored, storage).await?;
                return Ok(account.insert(opened).clone());
            }
            let turn = format!("account {}", self.record());
            match storage.acquire(&turn, self.lease_life).await? {
                Some(lease) => {
                    let made = self.make(storage, &lease).await;
                    storage.release(&lease).await?;
                    made?;
                }
                None => sleep(BUSY).await,
            }
        }
    }

    /// Forgets what is known of the issuer, so that it is read again.
    pub async fn look_again(&self) {
        *self.account.lock().await = None;
    }

    /// Forgets the account, which the issuer does not know any more.
    ///
    /// # Errors
    /// If the storage refuses.
    pub async fn forget_account(&self, storage: &dyn AcmeStorage) -> Result<(), AcmeFailure> {
        self.look_again().await;
        Ok(storage.remove(&self.record()).await?)
    }

    fn record(&self) -> AcmeRecordKey {
        let name = format!("{} {}", self.name, self.directory);
        AcmeRecordKey::new(AcmeRecordKind::Account, name)
    }

    async fn open(
        &self,
        stored: StoredAccount,
        storage: &dyn AcmeStorage,
    ) -> Result<Account, AcmeFailure> {
        let credentials = serde_json::from_value(stored.credentials.clone());
        let credentials = credentials.map_err(|error| AcmeFailure::Account(error.to_string()))?;
        let builder = Account::builder_with_http(Box::new(self.transport.clone()));
        let account = builder.from_credentials(credentials).await?;
        if stored.contact != self.config.contact {
            account.update_contacts(&self.contact()).await?;
            let changed = StoredAccount {
                contact: self.config.contact.clone(),
                ..stored
            };
            storage::store(storage, &self.record(), &changed, None).await?;
        }
        Ok(account)
    }

    /// Makes the account, unless another node has done it meanwhile.
    async fn make(&self, storage: &dyn AcmeStorage, lease: &AcmeLease) -> Result<(), AcmeFailure> {
        let stored: Option<StoredAccount> = storage::load(storage, &self.record()).await?;
        if stored.is_some() {
            return Ok(());
        }
        let wanted = NewAccount {
            contact: &self.contact(),
            terms_of_service_agreed: self.config.agree_to_terms,
            only_return_existing: false,
        };
        let binding = self.binding()?;
        let builder = Account::builder_with_http(Box::new(self.transport.clone()));
        let made = builder.create(&wanted, self.directory.clone(), binding.as_ref());
        let (account, credentials) = made.await?;
        tracing::info!(
            issuer = self.name,
            account = account.id(),
            "an account with the issuer is made"
        );
        let credentials = serde_json::to_value(credentials);
        let stored = StoredAccount {
            directory: self.directory.clone(),
            contact: self.config.contact.clone(),
            credentials: credentials.map_err(|error| AcmeFailure::Account(error.to_string()))?,
        };
        Ok(storage::store(storage, &self.record(), &stored, Some(lease)).await?)
    }

    fn contact(&self) -> Vec<&str> {
        self.config.contact.iter().map(String::as_str).collect()
    }

    fn binding(&self) -> Result<Option<ExternalAccountKey>, AcmeFailure> {
        let Some(eab) = &self.config.eab else {
            return Ok(None);
        };
        let text = eab.hmac.as_deref().unwrap_or_default();
        let key = BASE64_URL_SAFE_NO_PAD.decode(text.trim().trim_end_matches('='));
        let key = key.map_err(|error| AcmeFailure::AccountBinding(error.to_string()))?;
        Ok(Some(ExternalAccountKey::new(eab.kid.clone(), &key)))
    }
}
