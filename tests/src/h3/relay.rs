//! A network between a client and a gateway that loses, repeats and spoils datagrams.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// What becomes of a datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    Passes,
    IsLost,
    ComesTwice,
    /// One octet of it is changed.
    IsSpoiled,
}

/// Carries the datagrams of one endpoint until it is dropped.
pub struct Relay {
    /// Where the client finds the gateway.
    pub address: SocketAddr,
    carrying: JoinHandle<()>,
    carried: Arc<AtomicUsize>,
}

impl Relay {
    /// `there` says what becomes of datagrams to the gateway, `back` of those to the client.
    pub async fn start(
        gateway: SocketAddr,
        there: impl FnMut() -> Fate + Send + 'static,
        back: impl FnMut() -> Fate + Send + 'static,
    ) -> Self {
        let client_side = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let gateway_side = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        gateway_side.connect(gateway).await.unwrap();
        let address = client_side.local_addr().unwrap();
        let carried = Arc::default();
        let carrying = tokio::spawn(carry(
            client_side,
            gateway_side,
            there,
            back,
            Arc::clone(&carried),
        ));
        Self {
            address,
            carrying,
            carried,
        }
    }

    /// The datagrams that came from either side.
    pub fn carried(&self) -> usize {
        self.carried.load(Ordering::SeqCst)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.carrying.abort();
    }
}

async fn carry(
    client_side: UdpSocket,
    gateway_side: UdpSocket,
    mut there: impl FnMut() -> Fate,
    mut back: impl FnMut() -> Fate,
    carried: Arc<AtomicUsize>,
) {
    let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
    let mut client = None;
    loop {
        // An error says that the other side's port is closed; it may open again.
        tokio::select! {
            came = client_side.recv_from(&mut up) => if let Ok((length, from)) = came {
                client = Some(from);
                for datagram in copies(&mut up[..length], there()) {
                    let _ = gateway_side.send(datagram).await;
                }
            },
            came = gateway_side.recv(&mut down) => if let (Ok(length), Some(client)) = (came, client) {
                for datagram in copies(&mut down[..length], back()) {
                    let _ = client_side.send_to(datagram, client).await;
                }
            },
        }
        carried.fetch_add(1, Ordering::SeqCst);
    }
}

fn copies(datagram: &mut [u8], fate: Fate) -> Vec<&[u8]> {
    match fate {
        Fate::Passes => vec![datagram],
        Fate::IsLost => Vec::new(),
        Fate::ComesTwice => vec![datagram, datagram],
        Fate::IsSpoiled => {
            let middle = datagram.len() / 2;
            datagram[middle] ^= 0x55;
            vec![datagram]
        }
    }
}
