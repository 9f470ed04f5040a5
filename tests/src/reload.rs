//! Other configurations for a gateway that runs.

use std::path::Path;

use http::Method;
use serde_json::{Value, json};

use crate::gateway::Gateway;
use crate::setup::Setup;
use crate::wait::{SOON, wait_for};

/// What the gateway said of a configuration.
#[derive(Debug)]
pub struct ReloadAnswer {
    pub status: u16,
    pub said: Value,
}

impl ReloadAnswer {
    /// The only problem that it tells.
    #[track_caller]
    pub fn problem(&self) -> &Value {
        let problems = self.said["problems"].as_array();
        assert!(problems.is_some_and(|all| all.len() == 1), "{self:?}");
        &self.said["problems"][0]
    }

    /// The keys that it refuses, as in `server.threads`.
    pub fn keys(&self) -> Vec<&str> {
        let problems = self.said["problems"].as_array().into_iter().flatten();
        problems.filter_map(|one| one["key"].as_str()).collect()
    }

    /// A number of what becomes of entries.
    pub fn entries(&self, what: &str) -> u64 {
        let number = self.said["entries"][what].as_u64();
        number.unwrap_or_else(|| panic!("no {what} in {}", self.said))
    }
}

impl Gateway {
    /// Writes this configuration in place of the one that it was started with.
    pub fn write(&self, setup: &Setup) {
        setup.write_into(self.dir());
    }

    /// Asks it to take its file up.
    pub async fn reload(&self) -> ReloadAnswer {
        self.asked_to_reload("/v1/config/reload", "").await
    }

    /// Asks what it would do with a file.
    pub async fn plan(&self, file: &Path) -> ReloadAnswer {
        let body = json!({ "file": file }).to_string();
        self.asked_to_reload("/v1/config/reload?dry_run=1", &body)
            .await
    }

    async fn asked_to_reload(&self, path: &str, body: &str) -> ReloadAnswer {
        let answer = self.admin(Method::POST, path, body).await;
        let said = serde_json::from_str(&answer.text);
        ReloadAnswer {
            status: answer.status,
            said: said.unwrap_or_else(|error| panic!("{error} in {}", answer.text)),
        }
    }

    /// Writes this configuration and has it taken up; panics if it is not.
    pub async fn take_up(&self, setup: &Setup) -> Value {
        self.write(setup);
        let answer = self.reload().await;
        assert_eq!(answer.status, 200, "{}", answer.said);
        assert_eq!(answer.said["applied"], true);
        answer.said
    }

    /// Sends SIGHUP and waits until one more reload has come to this outcome.
    pub async fn hang_up_until(&self, outcome: &str) {
        let before = self.reloads(outcome).await;
        self.hang_up();
        self.reloads_until(outcome, before + 1.0).await;
    }

    /// How many reloads have come to this outcome.
    pub async fn reloads(&self, outcome: &str) -> f64 {
        let labels = [("outcome", outcome)];
        self.metric("lamina_config_reloads_total", &labels).await
    }

    /// Waits until so many reloads have come to this outcome.
    pub async fn reloads_until(&self, outcome: &str, count: f64) {
        let labels = [("outcome", outcome)];
        let name = "lamina_config_reloads_total";
        self.metric_until(name, &labels, |now| now >= count).await;
    }

    /// Whether the metric says that the last reload has succeeded.
    pub async fn is_well_configured(&self) -> bool {
        self.metric("lamina_config_last_reload_success", &[]).await == 1.0
    }

    /// How many replaced configurations are still in use.
    pub async fn old_engines(&self) -> f64 {
        self.metric("lamina_config_old_engines", &[]).await
    }

    /// Waits until no replaced configuration is in use.
    pub async fn only_one_engine(&self) {
        wait_for("no old engine is left", SOON, || async {
            (self.old_engines().await == 0.0).then_some(())
        })
        .await;
    }
}
