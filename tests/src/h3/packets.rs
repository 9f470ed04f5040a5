//! A client of QUIC that writes its packets itself.
//!
//! quinn does the handshake and is stopped then; what follows has the keys that were agreed upon and
//! any frames. Nothing is acknowledged unless a frame says so, nothing is sent again, and what the
//! gateway sends is read only to see how it ends the connection.

use std::any::Any;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::BytesMut;
use quinn::crypto::{
    self, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, Session,
};
use quinn::{ConnectError, ConnectionId, EndpointConfig, Side, TokioRuntime};
use quinn_proto::TransportError;
use quinn_proto::transport_parameters::TransportParameters;

use super::certificates::Certificates;
use super::raw::{number, one_way, settings};
use super::{Reach, connect_to};

/// Types of frames (RFC 9000 §19).
pub mod quic_frame {
    pub const PADDING: u8 = 0x00;
    pub const PING: u8 = 0x01;
    pub const ACK: u8 = 0x02;
    pub const ACK_WITH_ECN: u8 = 0x03;
    pub const RESET_STREAM: u8 = 0x04;
    pub const STREAM_WITH_OFFSET_AND_LENGTH: u8 = 0x0e;
    pub const STREAM_ENDS: u8 = 0x01;
    pub const NEW_CONNECTION_ID: u8 = 0x18;
    pub const RETIRE_CONNECTION_ID: u8 = 0x19;
    pub const PATH_CHALLENGE: u8 = 0x1a;
    pub const CONNECTION_CLOSE: u8 = 0x1c;
    pub const CONNECTION_CLOSE_OF_APPLICATION: u8 = 0x1d;
    /// Of an extension that quinn speaks.
    pub const IMMEDIATE_ACK: u8 = 0x1f;
}

/// Transport parameters (RFC 9000 §18.2, RFC 9221 §3).
pub mod transport_parameter {
    pub const MAX_IDLE_TIMEOUT: u64 = 0x01;
    pub const MAX_UDP_PAYLOAD_SIZE: u64 = 0x03;
    pub const INITIAL_MAX_DATA: u64 = 0x04;
    pub const INITIAL_MAX_STREAM_DATA_BIDI_LOCAL: u64 = 0x05;
    pub const INITIAL_MAX_STREAM_DATA_BIDI_REMOTE: u64 = 0x06;
    pub const INITIAL_MAX_STREAM_DATA_UNI: u64 = 0x07;
    pub const INITIAL_MAX_STREAMS_BIDI: u64 = 0x08;
    pub const INITIAL_MAX_STREAMS_UNI: u64 = 0x09;
    pub const MAX_DATAGRAM_FRAME_SIZE: u64 = 0x20;
}

/// The most octets of frames that fit into a packet of ours.
pub const MOST_FRAMES: usize = 1_150;
/// Connection ids of the gateway.
const ID_LENGTH: usize = 8;
/// A packet of the handshake.
const LONG_HEADER: u8 = 0x80;
/// Whether a packet is sealed by the next keys.
const KEY_PHASE: u8 = 0x04;
/// Octets of our packet numbers.
const NUMBER_LENGTH: usize = 4;
/// Numbers between the last packet of quinn and the first of ours.
const NUMBERS_BETWEEN: u64 = 100;

/// A connection after its handshake.
pub struct PacketClient {
    socket: UdpSocket,
    keys: LastKeys,
    /// Those that the gateway goes on with after some packets.
    next_key: Arc<dyn PacketKey>,
    gateway_id: [u8; ID_LENGTH],
    next: u64,
    largest_seen: u64,
    announced: TransportParameters,
}

/// How the gateway ended a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PacketEnd {
    /// With this code of HTTP/3.
    OfHttp3(u64),
    /// With this code of QUIC.
    OfQuic(u64),
}

impl PacketClient {
    /// Connects and takes the connection over.
    ///
    /// # Panics
    /// If there is no connection.
    pub async fn connect(gateway: SocketAddr, certificates: &Certificates, reach: &Reach) -> Self {
        let stolen = Arc::new(StolenKeys::default());
        let config = certificates.quic_over(reach, |tls| {
            Arc::new(OpenConfig {
                tls,
                stolen: Arc::clone(&stolen),
            })
        });
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a UDP socket can be opened");
        socket
            .connect(gateway)
            .expect("a UDP socket can be connected");
        let ours = socket.try_clone().expect("a socket can be shared");
        let (reach, told) = (reach.clone(), Arc::clone(&stolen));
        // A runtime of its own, so that quinn says nothing any more when it is gone.
        let handshake = tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime can be made");
            let kept = runtime.block_on(async {
                let quic = Arc::new(TokioRuntime);
                let mut endpoint =
                    quinn::Endpoint::new(EndpointConfig::default(), None, socket, quic)
                        .expect("an endpoint can be made");
                endpoint.set_default_client_config(config);
                let connection = connect_to(gateway, &endpoint, &reach).await;
                let connection = connection.expect("the gateway accepts a QUIC connection");
                let control = connection.open_uni().await;
                let mut control = control.expect("the gateway takes a control stream");
                let settings = [number(one_way::CONTROL), settings(&[])].concat();
                let written = control.write_all(&settings).await;
                written.expect("the gateway takes settings");
                // The first stream of the gateway comes behind the end of the handshake.
                let theirs = connection.accept_uni().await;
                let theirs = theirs.expect("the gateway opens its control stream");
                while told.last_packet.lock().unwrap().is_none() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                (endpoint, connection, control, theirs)
            });
            runtime.shutdown_background();
            drop(kept);
        });
        handshake.await.expect("the handshake ends");
        let seen = *stolen.last_packet.lock().unwrap();
        let (gateway_id, last) = seen.expect("a packet was sent under the last keys");
        let keys = stolen.keys.lock().unwrap().clone();
        let next_key = stolen.next_key.lock().unwrap().clone();
        let announced = *stolen.announced.lock().unwrap();
        ours.set_nonblocking(true).expect("a socket need not block");
        Self {
            socket: ours,
            keys: keys.expect("keys were agreed upon"),
            next_key: next_key.expect("keys were made for later"),
            gateway_id,
            next: last + NUMBERS_BETWEEN,
            largest_seen: 0,
            announced: announced.expect("the gateway sent its parameters"),
        }
    }

    /// A transport parameter of the gateway that is a number (RFC 9000 §18.2). None if it was not
    /// sent, or is what it would be then.
    ///
    /// # Panics
    /// If it is no number.
    pub fn announced(&self, parameter: u64) -> Option<u64> {
        let mut written = Vec::new();
        self.announced.write(&mut written);
        let mut rest = &written[..];
        let take = |rest: &mut &[u8]| {
            let read = lamina_http::http3::varint::read(rest);
            let (number, length) = read.expect("quinn writes whole parameters");
            *rest = &rest[length..];
            number
        };
        while !rest.is_empty() {
            let (kind, length) = (take(&mut rest), take(&mut rest));
            let (mut value, after) = rest.split_at(length as usize);
            if kind == parameter {
                return Some(take(&mut value));
            }
            rest = after;
        }
        None
    }

    /// Sends one packet with these frames. False if the socket has no room.
    ///
    /// # Panics
    /// If the frames do not fit into a packet.
    pub fn send(&mut self, frames: &[u8]) -> bool {
        assert!(frames.len() <= MOST_FRAMES);
        let mut packet = vec![0x40 | (NUMBER_LENGTH - 1) as u8];
        packet.extend_from_slice(&self.gateway_id);
        let number_at = packet.len();
        packet.extend_from_slice(&(self.next as u32).to_be_bytes());
        let head = packet.len();
        packet.extend_from_slice(frames);
        // Header protection takes its sample from behind the longest number.
        packet.resize(packet.len().max(head + NUMBER_LENGTH), quic_frame::PADDING);
        packet.resize(packet.len() + self.keys.packet.local.tag_len(), 0);
        self.keys.packet.local.encrypt(self.next, &mut packet, head);
        self.keys.header.local.encrypt(number_at, &mut packet);
        self.next += 1;
        match self.socket.send(&packet) {
            Ok(_) => true,
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}");
                false
            }
        }
    }

    /// How the gateway has ended the connection, if it has.
    pub fn end(&mut self) -> Option<PacketEnd> {
        let mut datagram = vec![0; 2_048];
        while let Ok(length) = self.socket.recv(&mut datagram) {
            let end = self
                .open(&datagram[..length])
                .and_then(|frames| end(&frames));
            if end.is_some() {
                return end;
            }
        }
        None
    }

    /// The frames of a packet of the gateway.
    fn open(&mut self, datagram: &[u8]) -> Option<Vec<u8>> {
        if datagram.first()? & LONG_HEADER != 0 {
            return None;
        }
        let mut packet = datagram.to_vec();
        // quinn's clients have ids as long as the gateway's.
        let number_at = 1 + ID_LENGTH;
        if packet.len() < number_at + NUMBER_LENGTH + self.keys.header.remote.sample_size() {
            return None;
        }
        self.keys.header.remote.decrypt(number_at, &mut packet);
        let length = usize::from(packet[0] & 0b11) + 1;
        let truncated = packet[number_at..number_at + length]
            .iter()
            .fold(0, |number, octet| number << 8 | u64::from(*octet));
        let number = expanded(truncated, length, self.largest_seen);
        let (head, sealed) = packet.split_at(number_at + length);
        let mut payload = BytesMut::from(sealed);
        let key = match packet[0] & KEY_PHASE {
            0 => &self.keys.packet.remote,
            _ => &self.next_key,
        };
        key.decrypt(number, head, &mut payload).ok()?;
        self.largest_seen = self.largest_seen.max(number);
        Some(payload.to_vec())
    }
}

/// The number of a packet of which the last octets are known (RFC 9000 §A.3).
fn expanded(truncated: u64, length: usize, largest: u64) -> u64 {
    let window = 1_u64 << (8 * length);
    let expected = largest + 1;
    let candidate = (expected & !(window - 1)) | truncated;
    if candidate + window / 2 <= expected {
        candidate + window
    } else if candidate > expected + window / 2 && candidate >= window {
        candidate - window
    } else {
        candidate
    }
}

/// How the connection ends, if nothing but acknowledgements and what carries nothing stands before
/// that.
fn end(frames: &[u8]) -> Option<PacketEnd> {
    let mut rest = frames;
    loop {
        rest = skip_acknowledgement(rest)?;
        let (kind, after) = rest.split_first()?;
        let code = || lamina_http::http3::varint::read(after);
        match *kind {
            quic_frame::PADDING | quic_frame::PING | quic_frame::IMMEDIATE_ACK => rest = after,
            quic_frame::CONNECTION_CLOSE => return Some(PacketEnd::OfQuic(code()?.0)),
            quic_frame::CONNECTION_CLOSE_OF_APPLICATION => {
                return Some(PacketEnd::OfHttp3(code()?.0));
            }
            quic_frame::ACK | quic_frame::ACK_WITH_ECN => {}
            _ => return None,
        }
    }
}

/// What follows an ACK frame, or all of it if there is none.
fn skip_acknowledgement(frames: &[u8]) -> Option<&[u8]> {
    let [quic_frame::ACK | quic_frame::ACK_WITH_ECN, rest @ ..] = frames else {
        return Some(frames);
    };
    let mut rest = rest;
    let mut take = || {
        let (number, taken) = lamina_http::http3::varint::read(rest)?;
        rest = &rest[taken..];
        Some(number)
    };
    let (_largest, _delay, ranges, _first) = (take()?, take()?, take()?, take()?);
    for _ in 0..ranges * 2 {
        take()?;
    }
    let of_congestion = if frames[0] == quic_frame::ACK_WITH_ECN {
        3
    } else {
        0
    };
    for _ in 0..of_congestion {
        take()?;
    }
    Some(rest)
}

/// A STREAM frame with these octets of this stream.
pub fn stream_frame(id: u64, offset: u64, octets: &[u8]) -> Vec<u8> {
    let mut bytes = vec![quic_frame::STREAM_WITH_OFFSET_AND_LENGTH];
    bytes.extend(number(id));
    bytes.extend(number(offset));
    bytes.extend(number(octets.len() as u64));
    bytes.extend_from_slice(octets);
    bytes
}

/// The same with the last octets of this stream.
pub fn last_stream_frame(id: u64, offset: u64, octets: &[u8]) -> Vec<u8> {
    let mut bytes = stream_frame(id, offset, octets);
    bytes[0] |= quic_frame::STREAM_ENDS;
    bytes
}

/// Gives the gateway another id of ours, and takes those before `from` back.
pub fn new_connection_id(sequence: u64, from: u64) -> Vec<u8> {
    let mut bytes = vec![quic_frame::NEW_CONNECTION_ID];
    bytes.extend(number(sequence));
    bytes.extend(number(from));
    bytes.push(ID_LENGTH as u8);
    bytes.extend(sequence.to_be_bytes());
    // The token by which a connection is reset differs for each id.
    bytes.extend([0x55; 8]);
    bytes.extend(sequence.to_be_bytes());
    bytes
}

/// Takes an id of the gateway back.
pub fn retire_connection_id(sequence: u64) -> Vec<u8> {
    [vec![quic_frame::RETIRE_CONNECTION_ID], number(sequence)].concat()
}

/// Asks whether the way is open.
pub fn path_challenge(token: u64) -> Vec<u8> {
    [&[quic_frame::PATH_CHALLENGE][..], &token.to_be_bytes()].concat()
}

/// Breaks off what a stream sends.
pub fn reset_stream(id: u64, final_size: u64) -> Vec<u8> {
    let mut bytes = vec![quic_frame::RESET_STREAM];
    bytes.extend(number(id));
    bytes.extend(number(0x10c));
    bytes.extend(number(final_size));
    bytes
}

/// What a connection tells of its last keys.
#[derive(Default)]
struct StolenKeys {
    keys: Mutex<Option<LastKeys>>,
    next_key: Mutex<Option<Arc<dyn PacketKey>>>,
    /// The gateway's id and the number of the last packet under them.
    last_packet: Mutex<Option<([u8; ID_LENGTH], u64)>>,
    announced: Mutex<Option<TransportParameters>>,
}

/// The keys after the handshake.
#[derive(Clone)]
struct LastKeys {
    header: Arc<KeyPair<Box<dyn HeaderKey>>>,
    packet: Arc<KeyPair<Arc<dyn PacketKey>>>,
}

/// TLS of which the last keys are known.
struct OpenConfig {
    tls: Arc<dyn crypto::ClientConfig>,
    stolen: Arc<StolenKeys>,
}

impl crypto::ClientConfig for OpenConfig {
    fn start_session(
        self: Arc<Self>,
        version: u32,
        name: &str,
        parameters: &TransportParameters,
    ) -> Result<Box<dyn Session>, ConnectError> {
        let tls = Arc::clone(&self.tls).start_session(version, name, parameters)?;
        Ok(Box::new(OpenSession {
            tls,
            stolen: Arc::clone(&self.stolen),
            had_handshake_keys: false,
        }))
    }
}

struct OpenSession {
    tls: Box<dyn Session>,
    stolen: Arc<StolenKeys>,
    had_handshake_keys: bool,
}

impl Session for OpenSession {
    fn initial_keys(&self, id: &ConnectionId, side: Side) -> Keys {
        self.tls.initial_keys(id, side)
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.tls.handshake_data()
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.tls.peer_identity()
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        self.tls.early_crypto()
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.tls.early_data_accepted()
    }

    fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    fn read_handshake(&mut self, octets: &[u8]) -> Result<bool, TransportError> {
        self.tls.read_handshake(octets)
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        let announced = self.tls.transport_parameters()?;
        *self.stolen.announced.lock().unwrap() = announced;
        Ok(announced)
    }

    fn write_handshake(&mut self, octets: &mut Vec<u8>) -> Option<Keys> {
        let keys = self.tls.write_handshake(octets)?;
        if !std::mem::replace(&mut self.had_handshake_keys, true) {
            return Some(keys);
        }
        let Keys { header, packet } = keys;
        let packet: KeyPair<Arc<dyn PacketKey>> = KeyPair {
            local: Arc::from(packet.local),
            remote: Arc::from(packet.remote),
        };
        let shared = KeyPair {
            local: SharedPacketKey::boxed(&packet.local, Some(&self.stolen)),
            remote: SharedPacketKey::boxed(&packet.remote, None),
        };
        let header = Arc::new(header);
        *self.stolen.keys.lock().unwrap() = Some(LastKeys {
            header: Arc::clone(&header),
            packet: Arc::new(packet),
        });
        let of =
            |side| -> Box<dyn HeaderKey> { Box::new(SharedHeaderKey(Arc::clone(&header), side)) };
        Some(Keys {
            header: KeyPair {
                local: of(KeySide::Local),
                remote: of(KeySide::Remote),
            },
            packet: shared,
        })
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        let KeyPair { local, remote } = self.tls.next_1rtt_keys()?;
        let remote: Arc<dyn PacketKey> = Arc::from(remote);
        let shared = SharedPacketKey::boxed(&remote, None);
        self.stolen.next_key.lock().unwrap().get_or_insert(remote);
        Some(KeyPair {
            local,
            remote: shared,
        })
    }

    fn is_valid_retry(&self, id: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.tls.is_valid_retry(id, header, payload)
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        self.tls.export_keying_material(output, label, context)
    }
}

#[derive(Clone, Copy)]
enum KeySide {
    Local,
    Remote,
}

/// A key that quinn and [`PacketClient`] share.
struct SharedHeaderKey(Arc<KeyPair<Box<dyn HeaderKey>>>, KeySide);

impl SharedHeaderKey {
    fn key(&self) -> &dyn HeaderKey {
        match self.1 {
            KeySide::Local => &*self.0.local,
            KeySide::Remote => &*self.0.remote,
        }
    }
}

impl HeaderKey for SharedHeaderKey {
    fn decrypt(&self, number_at: usize, packet: &mut [u8]) {
        self.key().decrypt(number_at, packet);
    }

    fn encrypt(&self, number_at: usize, packet: &mut [u8]) {
        self.key().encrypt(number_at, packet);
    }

    fn sample_size(&self) -> usize {
        self.key().sample_size()
    }
}

/// A key that quinn and [`PacketClient`] share, and who is told of each packet that it seals.
struct SharedPacketKey {
    key: Arc<dyn PacketKey>,
    told: Option<Arc<StolenKeys>>,
}

impl SharedPacketKey {
    fn boxed(key: &Arc<dyn PacketKey>, told: Option<&Arc<StolenKeys>>) -> Box<dyn PacketKey> {
        Box::new(Self {
            key: Arc::clone(key),
            told: told.cloned(),
        })
    }
}

impl PacketKey for SharedPacketKey {
    fn encrypt(&self, packet: u64, octets: &mut [u8], head: usize) {
        if let Some(told) = &self.told {
            let id = octets[1..].first_chunk().copied();
            *told.last_packet.lock().unwrap() = id.map(|id| (id, packet));
        }
        self.key.encrypt(packet, octets, head);
    }

    fn decrypt(
        &self,
        packet: u64,
        header: &[u8],
        payload: &mut BytesMut,
    ) -> Result<(), crypto::CryptoError> {
        self.key.decrypt(packet, header, payload)
    }

    fn tag_len(&self) -> usize {
        self.key.tag_len()
    }

    fn confidentiality_limit(&self) -> u64 {
        self.key.confidentiality_limit()
    }

    fn integrity_limit(&self) -> u64 {
        self.key.integrity_limit()
    }
}
