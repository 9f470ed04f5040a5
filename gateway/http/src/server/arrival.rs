//! The first bytes of a connection: who the client is, and which protocol it speaks.
//!
//! `connection` waits for this, under the deadline of a head. Bytes that were read beyond the
//! PROXY protocol header belong to TLS or HTTP and must be read again.

use std::io;

use tokio::io::AsyncReadExt;

use super::handler::Peer;
use super::port::Port;
use super::stream::ClientStream;
use crate::config::Protocol;
use crate::proxy_protocol::{self, ParsedProxyHeader};

/// The first bytes of HTTP/2 (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A client that has connected.
pub(super) struct ClientArrival {
    pub(super) peer: Peer,
    /// Bytes that were read and must be read again.
    pub(super) first: Vec<u8>,
}

impl ClientArrival {
    /// Finds out which protocol the client speaks where it is not agreed on by TLS. May be dropped
    /// while it waits.
    pub(super) async fn sniff(
        &mut self,
        stream: &mut ClientStream,
        port: &Port,
    ) -> io::Result<Protocol> {
        if let [only] = port.protocols[..] {
            return Ok(only);
        }
        while self.first.len() < PREFACE.len() && PREFACE.starts_with(&self.first) {
            if stream.read_buf(&mut self.first).await? == 0 {
                break;
            }
        }
        match self.first.as_slice() {
            [] => Err(io::ErrorKind::UnexpectedEof.into()),
            first if first.starts_with(PREFACE) => Ok(Protocol::Http2),
            _ => Ok(Protocol::Http1),
        }
    }

    /// Finds out who the client is, by the PROXY protocol header if the port demands one. May be
    /// dropped while it waits.
    ///
    /// Only a trusted proxy may say who the client is; from others
    /// even a plain request is refused, since the listener is only for clients behind such a proxy.
    pub(super) async fn introduce(
        &mut self,
        stream: &mut ClientStream,
        port: &Port,
    ) -> io::Result<()> {
        if !port.proxy_protocol {
            return Ok(());
        }
        if !self.peer.trusted {
            return Err(io::Error::other(
                "the connection does not come from a trusted proxy (`trusted_proxies`)",
            ));
        }
        loop {
            match proxy_protocol::parse(&self.first) {
                ParsedProxyHeader::Header { length, source } => {
                    self.first.drain(..length);
                    let reached = self.peer.reached;
                    self.peer = source.map_or(self.peer, |source| port.peer(source, reached));
                    return Ok(());
                }
                ParsedProxyHeader::Invalid(why) => return Err(io::Error::other(why)),
                ParsedProxyHeader::Partial if stream.read_buf(&mut self.first).await? == 0 => {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                ParsedProxyHeader::Partial => {}
            }
        }
    }
}
