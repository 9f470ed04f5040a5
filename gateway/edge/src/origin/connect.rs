//! Opens connections to targets, in clear text or with TLS.
//!
//! Neighbours: `pool` keeps the connections; `tls` says how TLS is spoken; `stream` is what a
//! connection is.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::address::ReachableAddresses;
use super::error::SendError;
use super::stream::{OriginStream, OriginTransport, SecuredOriginStream};
use super::target::{OriginTarget, WantedProtocol};
use super::tls::SpokenProtocol;

/// How long the first address of a target has before the next one is tried beside it (RFC 8305 §5,
/// "Connection Attempt Delay").
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Opens a connection within `limit`, and finds out what is spoken on it.
///
/// # Errors
/// If the target has no address, refuses the connection or TLS, or takes too long.
pub(super) async fn open(
    target: &OriginTarget,
    wanted: WantedProtocol,
    limit: Duration,
) -> Result<(OriginStream, SpokenProtocol), SendError> {
    let addresses = target.addresses.reachable(limit).await;
    let addresses = addresses.map_err(SendError::Dns)?;
    match timeout(limit, open_any(target, addresses, wanted)).await {
        Ok(opened) => opened,
        Err(_) => Err(SendError::Connect(io::ErrorKind::TimedOut.into())),
    }
}

async fn open_any(
    target: &OriginTarget,
    addresses: ReachableAddresses<'_>,
    wanted: WantedProtocol,
) -> Result<(OriginStream, SpokenProtocol), SendError> {
    let socket = open_socket(addresses).await.map_err(SendError::Connect)?;
    let (tcp, tls) = match (socket, &target.tls) {
        (OpenedSocket::Internet(tcp), Some(tls)) => (tcp, tls),
        (OpenedSocket::Internet(tcp), None) => {
            let clear = OriginStream::new(OriginTransport::Clear(tcp));
            return Ok((clear, target.clear_protocol()));
        }
        (OpenedSocket::Local(socket), _) => {
            let local = OriginStream::new(OriginTransport::Local(socket));
            return Ok((local, target.clear_protocol()));
        }
    };
    let (stream, spoken) = match wanted {
        WantedProtocol::Http1 => (tls.connect_http1(tcp).await, SpokenProtocol::Http1),
        WantedProtocol::Any => match tls.connect_any(tcp).await {
            Ok((stream, spoken)) => (Ok(stream), spoken),
            Err(error) => (Err(error), SpokenProtocol::Unknown),
        },
    };
    let secured = SecuredOriginStream {
        stream: stream.map_err(SendError::Tls)?,
        tls: Arc::clone(tls),
    };
    let secured = OriginStream::new(OriginTransport::Tls(Box::new(secured)));
    Ok((secured, spoken))
}

/// A connection without TLS.
pub(super) enum OpenedSocket {
    Internet(TcpStream),
    Local(UnixStream),
}

/// Opens a connection without TLS to one of these addresses.
///
/// # Errors
/// If there is no address, or none of them answers.
pub(super) async fn open_socket(addresses: ReachableAddresses<'_>) -> io::Result<OpenedSocket> {
    match addresses {
        ReachableAddresses::Internet(addresses) => {
            let stream = first_to_answer(addresses).await?;
            stream.set_nodelay(true)?;
            Ok(OpenedSocket::Internet(stream))
        }
        ReachableAddresses::Socket(path) => {
            let opened = UnixStream::connect(path).await;
            opened.map(OpenedSocket::Local).map_err(|error| {
                let path = path.display();
                let user = rustix::process::getuid().as_raw();
                let explained = format!("{path}: {error} (the gateway runs as user {user})");
                io::Error::new(error.kind(), explained)
            })
        }
    }
}

/// Connects to the first address that answers. Each further one is tried when the ones before have
/// failed or have taken [`ATTEMPT_DELAY`] (RFC 8305).
async fn first_to_answer(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut refused = io::Error::from(io::ErrorKind::NotFound);
    let mut addresses = families_in_turn(addresses).into_iter();
    let mut attempts = FuturesUnordered::new();
    loop {
        attempts.extend(addresses.next().map(TcpStream::connect));
        let outcome = match addresses.len() {
            0 => attempts.next().await,
            _ => match timeout(ATTEMPT_DELAY, attempts.next()).await {
                Ok(outcome) => outcome,
                Err(_) => continue,
            },
        };
        match outcome {
            Some(Ok(stream)) => return Ok(stream),
            Some(Err(error)) => refused = error,
            None => return Err(refused),
        }
    }
}

/// The addresses with the two families in turn, beginning with that of the first (RFC 8305 §4).
fn families_in_turn(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let count = addresses.len();
    let first_is_ipv6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (same, other): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == first_is_ipv6);
    let (mut same, mut other) = (same.into_iter(), other.into_iter());
    let mut in_turn = Vec::with_capacity(count);
    while in_turn.len() < count {
        in_turn.extend(same.next());
        in_turn.extend(other.next());
    }
    in_turn
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_families_of_addresses_take_turns() {
        let addresses = [
            "[::1]:1",
            "[::2]:1",
            "[::3]:1",
            "127.0.0.1:1",
            "127.0.0.2:1",
        ];
        let addresses = addresses.map(|address| address.parse().unwrap());
        let in_turn = families_in_turn(addresses.to_vec());
        let shown: Vec<_> = in_turn.iter().map(ToString::to_string).collect();
        let expected = [
            "[::1]:1",
            "127.0.0.1:1",
            "[::2]:1",
            "127.0.0.2:1",
            "[::3]:1",
        ];
        assert_eq!(shown, expected);
        assert!(families_in_turn(Vec::new()).is_empty());
    }

    #[tokio::test]
    async fn an_address_that_refuses_is_passed_over_at_once_and_all_are_tried() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = listener.local_addr().unwrap();
        let closed = {
            let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            gone.local_addr().unwrap()
        };
        let stream = first_to_answer(vec![closed, open]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), open);
        let refused = first_to_answer(vec![closed]).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let none = first_to_answer(Vec::new()).await.unwrap_err();
        assert_eq!(none.kind(), io::ErrorKind::NotFound);
    }

    /// A listener with a full queue, which answers nothing, and what fills it.
    async fn silent() -> (tokio::net::TcpListener, Vec<TcpStream>) {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        while let Ok(opened) = timeout(ATTEMPT_DELAY * 2, TcpStream::connect(address)).await {
            waiting.push(opened.unwrap());
            assert!(waiting.len() < 16, "the queue does not fill");
        }
        (listener, waiting)
    }

    #[tokio::test]
    async fn an_address_that_is_silent_is_overtaken_after_a_quarter_of_a_second_each() {
        let (first, _first) = silent().await;
        let (second, _second) = silent().await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = listener.local_addr().unwrap();
        let silent = [first, second].map(|listener| (listener.local_addr().unwrap(), listener));
        let [(first, _kept), (second, _also)] = silent;
        for (addresses, delays) in [
            (vec![open, first, second], 0),
            (vec![first, open], 1),
            (vec![first, second, open], 2),
        ] {
            let start = std::time::Instant::now();
            let connecting = timeout(Duration::from_secs(30), first_to_answer(addresses));
            let stream = connecting.await.expect("the one that is open answers");
            assert_eq!(stream.unwrap().peer_addr().unwrap(), open);
            assert!(start.elapsed() >= ATTEMPT_DELAY * delays, "{delays}");
        }
        // Nothing is left to overtake it: the limit of the connection ends it.
        let alone = timeout(ATTEMPT_DELAY, first_to_answer(vec![first])).await;
        assert!(alone.is_err(), "it answered");
    }
}
