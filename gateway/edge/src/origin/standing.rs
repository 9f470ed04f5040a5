//! An upstream with the work that is done for it from time to time.
//!
//! Configurations share it as long as its settings stay the same, and with it its connections, what
//! is known of the health of its targets, its budget of retries, and its names.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use lamina_base::tls::read_regular;
use sha2::{Digest, Sha256};
use tokio_util::task::AbortOnDropHandle;

use super::config::UpstreamConfig;
use super::error::BuildError;
use super::{Origin, SharedOriginState, check};

/// An upstream at work. The work ends with the last configuration that has the upstream.
pub(super) struct StandingUpstream {
    pub(super) origin: Arc<Origin>,
    settings: UpstreamSettings,
    work: OnceLock<AbortOnDropHandle<()>>,
}

/// All that an upstream depends on, as text: its configuration, and what is in the files of its TLS.
#[derive(PartialEq, Eq)]
pub(super) struct UpstreamSettings(String);

/// How often connections are looked at that nobody uses.
const MAINTENANCE: Duration = Duration::from_secs(1);

impl UpstreamSettings {
    pub(super) fn of(upstream: &UpstreamConfig) -> Self {
        let mut tls = upstream.tls.clone();
        let digests = tls.files().map(|file| {
            let content = read_regular(file).ok();
            content.map(|content| format!("{:x}", Sha256::digest(content)))
        });
        let digests: Vec<_> = digests.collect();
        Self(serde_json::json!([upstream, digests]).to_string())
    }
}

impl StandingUpstream {
    /// Reads the targets; does not connect yet.
    pub(super) fn new(
        name: &str,
        (upstream, settings): (&UpstreamConfig, UpstreamSettings),
        shared: &SharedOriginState,
    ) -> Result<Self, BuildError> {
        let origin = Arc::new(Origin::new(name, upstream, shared)?);
        if let Some(before) = shared.families.latest(name) {
            origin.admission.take_over(&before.admission);
        }
        shared.families.add(&origin);
        Ok(Self {
            origin,
            settings,
            work: OnceLock::new(),
        })
    }

    /// Whether it has these settings.
    pub(super) fn has(&self, settings: &UpstreamSettings) -> bool {
        self.settings == *settings
    }

    /// Follows the names and files of targets from now on, checks targets, closes connections that
    /// are not needed any more, and ends what operators have ordered for some time.
    pub(super) fn begin_work(&self) {
        self.work.get_or_init(|| {
            let origin = Arc::clone(&self.origin);
            let work = async move {
                let names = origin.targets.follow_names();
                tokio::join!(maintain(&origin), check::repeat(&origin), names);
            };
            AbortOnDropHandle::new(tokio::spawn(work))
        });
    }
}

async fn maintain(origin: &Origin) {
    let mut turns = tokio::time::interval(MAINTENANCE);
    loop {
        turns.tick().await;
        origin.maintain_targets();
    }
}
