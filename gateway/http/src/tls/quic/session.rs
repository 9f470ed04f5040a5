//! The TLS of one QUIC connection, which begins when the ClientHello is whole.

use std::any::Any;
use std::io::Cursor;
use std::sync::Arc;

use quinn::crypto::{self, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey};
use quinn::{ConnectionId, Side, TransportErrorCode};
use quinn_proto::TransportError;
use quinn_proto::transport_parameters::TransportParameters;
use rustls::pki_types::CertificateDer;
use rustls::quic::{KeyChange, Secrets, ServerConnection, Version};
use rustls::server::Acceptor;
use rustls::{AlertDescription, HandshakeKind};

use super::QuicTls;
use crate::tls::ServerChoice;
use crate::tls::fingerprint::{self, HelloTransport};

/// The most octets of a ClientHello; over TCP rustls refuses larger ones.
const MOST_HELLO: usize = 64 << 10;
/// The type and the length of a message of the handshake (RFC 8446 §4).
const MESSAGE_HEAD: usize = 4;
/// The most octets of a record (RFC 8446 §5.1).
const MOST_RECORD: usize = 16 << 10;

/// What a handshake has led to.
pub(crate) struct QuicHandshake {
    pub(crate) choice: ServerChoice,
    pub(crate) server_name: Option<Box<str>>,
    pub(crate) resumed: bool,
    /// Whether requests may come before the handshake is complete.
    pub(crate) takes_early_data: bool,
    pub(crate) suite: Option<rustls::SupportedCipherSuite>,
    pub(crate) ja4: Option<Box<str>>,
    /// The verified certificate of the client.
    pub(crate) presented: Vec<CertificateDer<'static>>,
}

/// The TLS of one connection.
pub(super) struct PolicySession {
    tls: Arc<QuicTls>,
    /// Our transport parameters, as they are written.
    parameters: Vec<u8>,
    state: SessionState,
}

enum SessionState {
    /// The octets of the ClientHello so far.
    InHello(Vec<u8>),
    Begun(Box<BegunSession>),
}

/// A session whose policy is known.
struct BegunSession {
    connection: ServerConnection,
    choice: ServerChoice,
    ja4: Option<String>,
    next_secrets: Option<Secrets>,
}

impl PolicySession {
    pub(super) fn new(tls: Arc<QuicTls>, parameters: Vec<u8>) -> Self {
        Self {
            tls,
            parameters,
            state: SessionState::InHello(Vec::new()),
        }
    }

    fn begun(&self) -> Option<&BegunSession> {
        match &self.state {
            SessionState::InHello(_) => None,
            SessionState::Begun(begun) => Some(begun),
        }
    }

    fn begun_mut(&mut self) -> Option<&mut BegunSession> {
        match &mut self.state {
            SessionState::InHello(_) => None,
            SessionState::Begun(begun) => Some(begun),
        }
    }

    /// Begins TLS by what the ClientHello asks for.
    fn begin(&mut self, hello: &[u8]) -> Result<BegunSession, TransportError> {
        let choice = self.choose(hello)?;
        // There is one, since the listener speaks HTTP/3; tables that follow are made like this.
        let config = choice.policy.quic.clone();
        let config = config.ok_or_else(|| alert(AlertDescription::InternalError, "no HTTP/3"))?;
        let parameters = std::mem::take(&mut self.parameters);
        let connection = ServerConnection::new(config, Version::V1, parameters);
        let connection = connection
            .map_err(|error| alert(AlertDescription::InternalError, &error.to_string()))?;
        let mut begun = BegunSession {
            connection,
            choice,
            ja4: fingerprint::ja4(hello, HelloTransport::Quic),
            next_secrets: None,
        };
        begun.read(hello)?;
        Ok(begun)
    }

    /// Certificate and policy for a ClientHello, which rustls reads from records alone.
    fn choose(&self, hello: &[u8]) -> Result<ServerChoice, TransportError> {
        let broken = || {
            alert(
                AlertDescription::DecodeError,
                "the ClientHello can't be read",
            )
        };
        let records = in_records(hello);
        let (mut rest, mut acceptor) = (&records[..], Acceptor::default());
        while !rest.is_empty() {
            acceptor.read_tls(&mut rest).map_err(|_| broken())?;
            match acceptor.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => {
                    let listener = &self.tls.listener;
                    let hello = accepted.client_hello();
                    listener.want_certificate(&hello);
                    return listener.choose(&hello).ok_or_else(|| {
                        let reason = "no certificate for the name that was asked for";
                        alert(AlertDescription::UnrecognisedName, reason)
                    });
                }
                Err(_) => return Err(broken()),
            }
        }
        Err(broken())
    }
}

impl BegunSession {
    fn read(&mut self, octets: &[u8]) -> Result<(), TransportError> {
        let read = self.connection.read_hs(octets);
        read.map_err(|error| match self.connection.alert() {
            Some(description) => alert(description, &error.to_string()),
            None => TransportError {
                code: TransportErrorCode::PROTOCOL_VIOLATION,
                frame: None,
                reason: error.to_string(),
            },
        })
    }
}

impl crypto::Session for PolicySession {
    fn initial_keys(&self, id: &ConnectionId, _side: Side) -> Keys {
        self.tls.first_keys(id)
    }

    /// A [`QuicHandshake`]; what it tells of the client's certificate counts when the handshake is
    /// complete.
    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        let begun = self.begun()?;
        let connection = &begun.connection;
        let presented = connection.peer_certificates().unwrap_or_default();
        Some(Box::new(QuicHandshake {
            choice: begun.choice.clone(),
            server_name: connection.server_name().map(Into::into),
            takes_early_data: connection.zero_rtt_keys().is_some(),
            resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
            suite: connection.negotiated_cipher_suite(),
            ja4: begun.ja4.as_deref().map(Into::into),
            presented: presented.to_vec(),
        }))
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        None
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        let keys = self.begun()?.connection.zero_rtt_keys()?;
        Some((Box::new(keys.header), Box::new(keys.packet)))
    }

    fn early_data_accepted(&self) -> Option<bool> {
        None
    }

    fn is_handshaking(&self) -> bool {
        self.begun()
            .is_none_or(|begun| begun.connection.is_handshaking())
    }

    fn read_handshake(&mut self, octets: &[u8]) -> Result<bool, TransportError> {
        let hello = match &mut self.state {
            SessionState::Begun(begun) => return begun.read(octets).map(|()| false),
            SessionState::InHello(hello) => hello,
        };
        if hello.len() + octets.len() > MOST_HELLO {
            return Err(alert(
                AlertDescription::DecodeError,
                "the ClientHello is too long",
            ));
        }
        hello.extend_from_slice(octets);
        if !is_whole(hello) {
            return Ok(false);
        }
        let hello = std::mem::take(hello);
        self.state = SessionState::Begun(Box::new(self.begin(&hello)?));
        Ok(true)
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        let begun = self.begun();
        let octets = begun.and_then(|begun| begun.connection.quic_transport_parameters());
        let read =
            octets.map(|octets| TransportParameters::read(Side::Server, &mut Cursor::new(octets)));
        Ok(read.transpose()?)
    }

    fn write_handshake(&mut self, into: &mut Vec<u8>) -> Option<Keys> {
        let begun = self.begun_mut()?;
        let changed = match begun.connection.write_hs(into)? {
            KeyChange::Handshake { keys } => keys,
            KeyChange::OneRtt { keys, next } => {
                begun.next_secrets = Some(next);
                keys
            }
        };
        Some(keys(changed))
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        let keys = self.begun_mut()?.next_secrets.as_mut()?.next_packet_keys();
        Some(KeyPair {
            local: Box::new(keys.local),
            remote: Box::new(keys.remote),
        })
    }

    /// Only servers send Retry.
    fn is_valid_retry(&self, _id: &ConnectionId, _header: &[u8], _payload: &[u8]) -> bool {
        false
    }

    /// rustls gives no exporter for a server of QUIC alone, and nobody here wants one.
    fn export_keying_material(
        &self,
        _output: &mut [u8],
        _label: &[u8],
        _context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        Err(ExportKeyingMaterialError)
    }
}

/// The keys in the form of quinn.
pub(super) fn keys(keys: rustls::quic::Keys) -> Keys {
    Keys {
        header: KeyPair {
            local: Box::new(keys.local.header),
            remote: Box::new(keys.remote.header),
        },
        packet: KeyPair {
            local: Box::new(keys.local.packet),
            remote: Box::new(keys.remote.packet),
        },
    }
}

/// Whether a message of the handshake is all there.
fn is_whole(message: &[u8]) -> bool {
    match message {
        [_, high, middle, low, ..] => {
            let length = u32::from_be_bytes([0, *high, *middle, *low]) as usize;
            message.len() >= MESSAGE_HEAD + length
        }
        _ => false,
    }
}

/// A message of the handshake in the records that TLS over TCP has around it.
fn in_records(message: &[u8]) -> Vec<u8> {
    let mut records = Vec::with_capacity(message.len() + 64);
    for piece in message.chunks(MOST_RECORD) {
        let [high, low] = (piece.len() as u16).to_be_bytes();
        records.extend([22, 3, 1, high, low]);
        records.extend_from_slice(piece);
    }
    records
}

fn alert(description: AlertDescription, reason: &str) -> TransportError {
    TransportError {
        code: TransportErrorCode::crypto(u8::from(description)),
        frame: None,
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_whole_when_its_length_is_there() {
        let message = [1, 0, 0, 3, 7, 7, 7];
        for length in 0..message.len() {
            assert!(!is_whole(&message[..length]), "{length}");
        }
        assert!(is_whole(&message));
    }

    #[test]
    fn records_hold_all_of_a_message() {
        let message: Vec<u8> = (0..40_000).map(|n| n as u8).collect();
        let records = in_records(&message);
        assert_eq!(records.len(), message.len() + 3 * 5);
        assert_eq!(records[..5], [22, 3, 1, 0x40, 0]);
        assert_eq!(records[5..5 + MOST_RECORD], message[..MOST_RECORD]);
    }
}
