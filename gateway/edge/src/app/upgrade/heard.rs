//! What a process has heard of the other nodes over its event bus, on its way to the process that takes
//! its place.

use lamina_base::descriptor_channel::MOST_BYTES;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::bus::event::PublisherNumber;
use crate::cluster::HeardPublisher;
use crate::config::GatewayConfig;

/// The room of a publisher in a message besides its name.
const FORM: usize = 64;

/// The most bytes that JSON makes of one.
const ESCAPED: usize = 6;

/// The publishers on a bus, and how many purges of each were heard.
#[derive(Debug, Serialize, Deserialize)]
pub struct HeardPublishers {
    /// A digest of what is configured of the bus.
    bus: String,
    /// Name, life, number, and whether it has purged lately.
    publishers: Vec<(String, u64, u64, bool)>,
}

impl HeardPublishers {
    /// None: they are too many for a message.
    pub(super) fn new(heard: Vec<HeardPublisher>, config: &GatewayConfig) -> Option<Self> {
        let room = |of: &HeardPublisher| FORM + ESCAPED * of.source.len();
        let fits = heard.iter().map(room).sum::<usize>() <= MOST_BYTES / 2;
        let publishers = heard.into_iter();
        fits.then(|| Self {
            bus: digest(config),
            publishers: publishers
                .map(|of| (of.source, of.boot, of.purges.value(), of.is_recent))
                .collect(),
        })
    }

    /// The same, if they were heard over the bus of this configuration.
    pub fn over_bus_of(self, config: &GatewayConfig) -> Option<Vec<HeardPublisher>> {
        let publishers = self.publishers.into_iter();
        (self.bus == digest(config)).then(|| {
            publishers
                .map(|(source, boot, number, is_recent)| HeardPublisher {
                    source,
                    boot,
                    purges: PublisherNumber::new(number),
                    is_recent,
                })
                .collect()
        })
    }
}

fn digest(config: &GatewayConfig) -> String {
    let bus = serde_json::json!([config.bus, config.bus_seal_key()]);
    format!("{:x}", Sha256::digest(bus.to_string()))
}
