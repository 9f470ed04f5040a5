//! NATS as one of the transports, in both modes.

use std::path::PathBuf;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::check::check;
use super::config::{NatsConfig, NatsMode, NatsOpenError};
use super::trial::NatsTrial;
use super::{open, promises};
use crate::bus::description::{TransportDescription, at_most_once};
use crate::bus::transport::{BusTransport, Guarantee};
use crate::bus::trial::PreparedTrial;
use crate::description::{FailureSubject, InvalidSetting, SectionDescription, SectionSecret};
use crate::units::ConfigDuration;

impl SectionDescription for NatsConfig {
    fn name(&self) -> &'static str {
        "nats"
    }

    fn servers(&self) -> Vec<&str> {
        self.servers.iter().map(String::as_str).collect()
    }

    fn secrets(&mut self) -> Vec<SectionSecret<'_>> {
        vec![
            SectionSecret {
                key: "password",
                value: &mut self.password,
                file: &self.password_file,
            },
            SectionSecret {
                key: "token",
                value: &mut self.token,
                file: &self.token_file,
            },
        ]
    }

    fn files(&mut self) -> Vec<&mut PathBuf> {
        let files = [self.ca_file.as_mut(), self.credentials_file.as_mut()];
        files.into_iter().flatten().collect()
    }

    fn key_of(&self, subject: FailureSubject) -> &'static str {
        match subject {
            FailureSubject::User => "username",
            FailureSubject::Certificates => "ca_file",
            FailureSubject::Mode => "mode",
            FailureSubject::Stream => "jetstream.stream",
            _ => "servers",
        }
    }
}

impl TransportDescription for NatsConfig {
    fn kind(&self) -> &'static str {
        match self.mode {
            NatsMode::Core => "nats",
            NatsMode::Jetstream => "jetstream",
        }
    }

    fn guarantee(&self) -> Guarantee {
        match self.mode {
            NatsMode::Core => Guarantee::AtMostOnce,
            NatsMode::Jetstream => Guarantee::Durable,
        }
    }

    fn check(&self) -> Result<(), InvalidSetting> {
        Ok(check(self)?)
    }

    fn open(&self) -> Result<Arc<dyn BusTransport>, InvalidSetting> {
        Ok(open(self)?)
    }

    fn promises(&self, noticed_after: ConfigDuration) -> Vec<String> {
        match self.mode {
            NatsMode::Core => vec![at_most_once("NATS", noticed_after)],
            NatsMode::Jetstream => promises::in_stream(&self.jetstream),
        }
    }

    fn prepare_trial<'a>(&'a self, mark: &'a str) -> BoxFuture<'a, Result<PreparedTrial, String>> {
        NatsTrial::prepare(self, mark).boxed()
    }

    fn trial_outlasts_absence(&self) -> bool {
        self.mode == NatsMode::Jetstream
    }
}

impl From<NatsOpenError> for InvalidSetting {
    fn from(error: NatsOpenError) -> Self {
        Self::new(error.key(), error)
    }
}
