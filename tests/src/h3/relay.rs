//! A network between a client and a gateway that loses, repeats and spoils datagrams.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

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
    recorded: Arc<Mutex<Vec<Vec<u8>>>>,
}

/// The most datagrams that are recorded.
const MOST_RECORDED: usize = 100;

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
        let (carried, recorded) = (Arc::default(), Arc::default());
        let carrying = tokio::spawn(carry(
            client_side,
            gateway_side,
            there,
            back,
            Arc::clone(&carried),
            Arc::clone(&recorded),
        ));
        Self {
            address,
            carrying,
            carried,
            recorded,
        }
    }

    /// The first datagrams that came from the client.
    pub fn recorded(&self) -> Vec<Vec<u8>> {
        self.recorded.lock().unwrap().clone()
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
    recorded: Arc<Mutex<Vec<Vec<u8>>>>,
) {
    let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
    let mut client = None;
    loop {
        // An error says that the other side's port is closed; it may open again.
        tokio::select! {
            came = client_side.recv_from(&mut up) => if let Ok((length, from)) = came {
                client = Some(from);
                record(&recorded, &up[..length]);
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

fn record(recorded: &Mutex<Vec<Vec<u8>>>, datagram: &[u8]) {
    let mut recorded = recorded.lock().unwrap();
    if recorded.len() < MOST_RECORDED {
        recorded.push(datagram.to_vec());
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
