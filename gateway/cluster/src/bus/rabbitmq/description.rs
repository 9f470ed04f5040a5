//! RabbitMQ as one of the transports, plain or durable.

use std::path::PathBuf;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::check::check;
use super::config::{RabbitMqConfig, RabbitMqOpenError};
use super::trial::RabbitMqTrial;
use super::{KIND, open, promises};
use crate::bus::description::{TransportDescription, at_most_once};
use crate::bus::transport::{BusTransport, Guarantee};
use crate::bus::trial::PreparedTrial;
use crate::description::{FailureSubject, InvalidSetting, SectionDescription, SectionSecret};
use crate::units::ConfigDuration;

impl SectionDescription for RabbitMqConfig {
    fn name(&self) -> &'static str {
        "rabbitmq"
    }

    fn servers(&self) -> Vec<&str> {
        vec![&self.url]
    }

    fn secrets(&mut self) -> Vec<SectionSecret<'_>> {
        vec![SectionSecret {
            key: "password",
            value: &mut self.password,
            file: &self.password_file,
        }]
    }

    fn files(&mut self) -> Vec<&mut PathBuf> {
        self.ca_file.iter_mut().collect()
    }

    fn key_of(&self, subject: FailureSubject) -> &'static str {
        match subject {
            FailureSubject::User => "username",
            FailureSubject::Certificates => "ca_file",
            FailureSubject::Vhost => "vhost",
            FailureSubject::Exchange => "exchange",
            FailureSubject::Queue => "queue_name",
            _ => "url",
        }
    }
}

impl TransportDescription for RabbitMqConfig {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn guarantee(&self) -> Guarantee {
        match self.durable_invalidation_mode {
            true => Guarantee::Durable,
            false => Guarantee::AtMostOnce,
        }
    }

    fn check(&self) -> Result<(), InvalidSetting> {
        Ok(check(self)?)
    }

    fn open(&self) -> Result<Arc<dyn BusTransport>, InvalidSetting> {
        Ok(open(self)?)
    }

    fn promises(&self, noticed_after: ConfigDuration) -> Vec<String> {
        match self.guarantee() {
            Guarantee::Durable => promises::in_queue(self),
            Guarantee::AtMostOnce => {
                let half_durable = promises::half_durable(self);
                let at_most_once = at_most_once("RabbitMQ", noticed_after);
                std::iter::once(at_most_once).chain(half_durable).collect()
            }
        }
    }

    fn prepare_trial<'a>(&'a self, _mark: &'a str) -> BoxFuture<'a, Result<PreparedTrial, String>> {
        RabbitMqTrial::prepare(self).boxed()
    }

    /// The broker accepts 16 MiB or more.
    fn keeps_large_trial_events(&self) -> bool {
        self.guarantee() == Guarantee::Durable
    }
}

impl From<RabbitMqOpenError> for InvalidSetting {
    fn from(error: RabbitMqOpenError) -> Self {
        Self::new(error.key(), error)
    }
}
