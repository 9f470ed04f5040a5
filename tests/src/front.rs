//! How clients reach a gateway: in clear text, over TLS by HTTP/1 or HTTP/2, or by HTTP/3.
//!
//! The suites are written for clear text. A [`Front`] lets them hold elsewhere without saying
//! anything twice: it secures a setup, and opens a [`FrontDoor`], an address of this process that
//! takes what a suite says in clear text and says it to the gateway by the protocol of the front.
//! A door of bytes ([`tunnel`]) changes the layer below and nothing else; a door of messages reads
//! requests of HTTP/1 and speaks the other protocol ([`translator`]). [`inapplicable`] is the one
//! list of what cannot be said over a front.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::gateway::Gateway;
use crate::h3::certificates::Certificates;
use crate::h3::{NAME, Reach};
use crate::setup::Setup;

mod http2;
mod http3;
pub mod inapplicable;
mod translator;
mod tunnel;

use translator::GatewayTarget;
use tunnel::Tls;

/// A way to the gateway.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Front {
    Clear,
    TlsHttp1,
    TlsHttp2,
    Http3,
}

/// A gateway as the clients of a suite find it.
pub struct Fronted {
    pub gateway: Gateway,
    pub front: Front,
    pub certificates: Arc<Certificates>,
}

/// An address that leads to a gateway by the protocol of a front. Dropping it ends all connections.
pub struct FrontDoor {
    pub address: SocketAddr,
    accepting: Option<JoinHandle<()>>,
}

impl Front {
    pub const ALL: [Self; 4] = [Self::Clear, Self::TlsHttp1, Self::TlsHttp2, Self::Http3];

    /// As options and reports call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Clear => "clear",
            Self::TlsHttp1 => "tls-h1",
            Self::TlsHttp2 => "tls-h2",
            Self::Http3 => "h3",
        }
    }

    /// # Errors
    /// With the names that there are, when it is none of them.
    pub fn parse(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|front| front.name() == name);
        found.ok_or_else(|| format!("{name} is no front; expected clear, tls-h1, tls-h2 or h3"))
    }

    /// The scheme of URLs behind it.
    pub fn scheme(self) -> &'static str {
        match self {
            Self::Clear => "http",
            _ => "https",
        }
    }

    /// The port that stands for none in its URLs.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Clear => 80,
            _ => 443,
        }
    }

    /// The version of HTTP as `Via` has it.
    pub fn version(self) -> &'static str {
        match self {
            Self::Clear | Self::TlsHttp1 => "1.1",
            Self::TlsHttp2 => "2",
            Self::Http3 => "3",
        }
    }

    /// Starts a gateway with this setup behind it. Over TLS its certificate is for `names`, in
    /// which a wildcard may stand, and for addresses of this machine.
    pub async fn start(self, setup: Setup, names: &[&str]) -> Fronted {
        let certificates = Certificates::new(&[&[NAME, "127.0.0.1"], names].concat());
        let setup = match self {
            Self::Clear => setup,
            _ => certificates.secure(setup, ""),
        };
        Fronted {
            gateway: setup.start().await,
            front: self,
            certificates: Arc::new(certificates),
        }
    }
}

impl Fronted {
    /// A door for clients that speak HTTP/1 as they should.
    pub async fn messages(&self) -> FrontDoor {
        self.messages_over(self.front).await
    }

    /// The same over another front that the gateway has.
    pub async fn messages_over(&self, front: Front) -> FrontDoor {
        messages(front, self.gateway.address, &self.certificates).await
    }

    /// A door for clients whose bytes arrive as they are, whatever they are.
    ///
    /// # Panics
    /// For HTTP/3, whose messages are no bytes on a connection.
    pub async fn bytes(&self) -> FrontDoor {
        self.bytes_over(self.front).await
    }

    /// The same over another front that the gateway has.
    ///
    /// # Panics
    /// For HTTP/3.
    pub async fn bytes_over(&self, front: Front) -> FrontDoor {
        let protocol = match front {
            Front::Clear => return FrontDoor::direct(self.gateway.address),
            Front::TlsHttp1 => "http/1.1",
            Front::TlsHttp2 => "h2",
            Front::Http3 => panic!("HTTP/3 has no connection of bytes"),
        };
        tunnel_to(self.gateway.address, &self.certificates, protocol).await
    }
}

/// A door of messages to the gateway at this address, which has these certificates.
pub async fn messages(front: Front, gateway: SocketAddr, certificates: &Certificates) -> FrontDoor {
    let far = match front {
        Front::Clear => return FrontDoor::direct(gateway),
        Front::TlsHttp1 => return tunnel_to(gateway, certificates, "http/1.1").await,
        Front::TlsHttp2 => GatewayTarget::Http2(Tls::new(gateway, certificates.tls("h2"))),
        Front::Http3 => GatewayTarget::Http3(http3::Quic::new(
            gateway,
            certificates.quic(&Reach::default()),
        )),
    };
    let far = Arc::new(far);
    FrontDoor::open(move |near| {
        let far = Arc::clone(&far);
        async move { translator::serve(near, &far).await }
    })
    .await
}

async fn tunnel_to(gateway: SocketAddr, certificates: &Certificates, protocol: &str) -> FrontDoor {
    let tls = Tls::new(gateway, certificates.tls(protocol));
    FrontDoor::open(move |near| {
        let tls = tls.clone();
        async move { tunnel::serve(near, &tls).await }
    })
    .await
}

impl FrontDoor {
    /// The gateway itself.
    fn direct(address: SocketAddr) -> Self {
        Self {
            address,
            accepting: None,
        }
    }

    async fn open<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                near.set_nodelay(true).expect("an option of TCP");
                connections.spawn(serve(near));
                while connections.try_join_next().is_some() {}
            }
        });
        Self {
            address,
            accepting: Some(accepting),
        }
    }
}

impl Drop for FrontDoor {
    fn drop(&mut self) {
        if let Some(accepting) = &self.accepting {
            accepting.abort();
        }
    }
}
