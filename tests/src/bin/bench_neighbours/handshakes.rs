//! Full handshakes of TLS 1.3, each on a connection of its own.

use std::net::SocketAddr;

use e2e::tls::TlsClient;
use tokio::net::TcpStream;

use crate::flood::{FloodRate, at_rate};

/// Handshakes that are wanted.
#[derive(Clone, Copy)]
pub struct HandshakeFlood {
    /// Chooses the certificate.
    pub name: &'static str,
    pub per_second: u64,
}

/// Does all of a flood. How many were made.
pub async fn all(address: SocketAddr, name: &str, rate: FloodRate) -> u64 {
    let client = TlsClient::new(address, name).only_tls13();
    at_rate(rate, || {
        let client = client.clone().anew();
        async move {
            let stream = TcpStream::connect(address).await.unwrap();
            let shaken = client.over(stream).await.unwrap();
            // Otherwise ports would be kept for a minute after each, and there are not so many.
            let _ = shaken.stream.get_ref().0.set_zero_linger();
        }
    })
    .await
}
