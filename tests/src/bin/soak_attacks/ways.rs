//! The ways to the gateway: in clear text, or over TLS.

use std::sync::Arc;

use e2e::attack::HOSTS;
use e2e::attack::http3::QuicWay;
use e2e::client::Client;
use e2e::front::{Front, FrontDoor, Fronted};
use e2e::gateway::Gateway;
use e2e::setup::Setup;

/// A gateway, and where each protocol is spoken to it.
pub struct AttackedGateway {
    fronted: Fronted,
    /// For bytes of HTTP/1.
    pub http1: FrontDoor,
    /// For frames of HTTP/2.
    pub http2: FrontDoor,
    /// For requests over HTTP/3, where there is TLS.
    http3: Option<FrontDoor>,
}

impl AttackedGateway {
    /// Starts a gateway and opens the ways to it.
    pub async fn open(setup: Setup, front: Front) -> Self {
        let fronted = front.start(setup, &HOSTS).await;
        let (http1, http2, http3) = match front {
            Front::Clear => (Front::Clear, Front::Clear, None),
            _ => {
                let http3 = fronted.messages_over(Front::Http3).await;
                (Front::TlsHttp1, Front::TlsHttp2, Some(http3))
            }
        };
        Self {
            http1: fronted.bytes_over(http1).await,
            http2: fronted.bytes_over(http2).await,
            http3,
            fronted,
        }
    }

    pub fn gateway(&mut self) -> &mut Gateway {
        &mut self.fronted.gateway
    }

    /// For frames of HTTP/3 and of QUIC, where there is TLS.
    pub fn quic(&self) -> Option<QuicWay> {
        self.http3.as_ref().map(|_| QuicWay {
            gateway: self.fronted.gateway.address,
            certificates: Arc::clone(&self.fronted.certificates),
        })
    }

    /// A client of each protocol.
    pub fn clients(&self) -> Vec<Client> {
        let http3 = self.http3.iter().map(|door| Client::http1(door.address));
        let others = [
            Client::http1(self.http1.address),
            Client::http2(self.http2.address),
        ];
        others.into_iter().chain(http3).collect()
    }
}
