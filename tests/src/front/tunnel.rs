//! Bytes in clear text on one side, the same bytes in TLS on the other.
//!
//! Each end reaches the other side as what it was: a side that is closed for writing is closed
//! there, and a connection that a client resets is reset at the gateway.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::h3::NAME;
use crate::wait::{SOON, within};

/// What is still read of a client after the gateway has ended its connection.
const MOST_UNREAD: u64 = 4 << 20;

/// Connects to a gateway by TLS.
#[derive(Clone)]
pub struct Tls {
    gateway: SocketAddr,
    config: Arc<ClientConfig>,
}

/// Why one direction ended.
enum PumpEnd {
    /// Its source has said all.
    Closed,
    /// Its source broke off.
    Broken,
    /// Nobody takes more of it.
    Refused,
}

impl Tls {
    pub fn new(gateway: SocketAddr, config: ClientConfig) -> Self {
        Self {
            gateway,
            config: Arc::new(config),
        }
    }

    /// A new connection; none when there is no handshake.
    pub async fn connect(&self) -> Option<TlsStream<TcpStream>> {
        let connecting = async {
            let stream = TcpStream::connect(self.gateway).await.ok()?;
            stream.set_nodelay(true).ok()?;
            let name = NAME.try_into().expect("it is a name");
            let connector = TlsConnector::from(Arc::clone(&self.config));
            connector.connect(name, stream).await.ok()
        };
        within("a handshake", SOON, connecting).await
    }
}

/// Passes the bytes of one connection on until both sides have ended.
pub async fn serve(mut near: TcpStream, tls: &Tls) {
    let Some(mut far) = tls.connect().await else {
        return;
    };
    match pass(&mut near, &mut far).await {
        // A lingering time of zero makes the kernel send RST.
        PumpEnd::Broken => drop(far.get_ref().0.set_zero_linger()),
        // What the gateway said last must arrive: unread bytes would make this end a reset.
        PumpEnd::Closed | PumpEnd::Refused => {
            let rest = &mut near.take(MOST_UNREAD);
            let _ = tokio::io::copy(rest, &mut tokio::io::sink()).await;
        }
    }
}

/// Passes bytes in both directions; answers how the client's ended.
async fn pass(near: &mut TcpStream, far: &mut TlsStream<TcpStream>) -> PumpEnd {
    let (mut from_client, mut to_client) = near.split();
    let (mut from_gateway, mut to_gateway) = tokio::io::split(far);
    let forth = async {
        let end = pump(&mut from_client, &mut to_gateway).await;
        if matches!(end, PumpEnd::Closed) {
            let _ = to_gateway.shutdown().await;
        }
        end
    };
    let back = async {
        pump(&mut from_gateway, &mut to_client).await;
        let _ = to_client.shutdown().await;
    };
    tokio::pin!(forth, back);
    tokio::select! {
        end = &mut forth => {
            if !matches!(end, PumpEnd::Broken) {
                back.await;
            }
            end
        }
        () = &mut back => PumpEnd::Closed,
    }
}

async fn pump(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin)) -> PumpEnd {
    let mut piece = vec![0; 16 << 10];
    loop {
        let count = match from.read(&mut piece).await {
            Ok(0) => return PumpEnd::Closed,
            Ok(count) => count,
            Err(_) => return PumpEnd::Broken,
        };
        let passed = async {
            to.write_all(&piece[..count]).await?;
            // TLS may hold bytes back.
            to.flush().await
        };
        if passed.await.is_err() {
            return PumpEnd::Refused;
        }
    }
}
