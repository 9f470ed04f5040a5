//! A name server that answers as a test says, for what real ones do seldom: aliases that live shorter
//! than what they lead to, questions that get no answer, and servers that know no EDNS.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// A question, as the server sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NameQuestion {
    pub name: String,
    pub records: u16,
    pub has_edns: bool,
}

/// A record of an answer.
#[derive(Clone, Debug)]
pub struct NameRecord {
    pub owner: String,
    pub live: u32,
    pub data: NameData,
}

/// What a record says.
#[derive(Clone, Debug)]
pub enum NameData {
    Address(Ipv4Addr),
    Alias(String),
    /// Host and port; priority and weight are those of all others.
    Service(String, u16),
}

/// What becomes of a question.
pub enum NameAnswer {
    Records(Vec<NameRecord>),
    /// A response code (RFC 1035 §4.1.1).
    Refusal(u8),
    Silence,
}

/// Types of records (RFC 1035 §3.2.2, RFC 2782).
pub const A: u16 = 1;
pub const SRV: u16 = 33;
/// FORMERR (RFC 1035 §4.1.1).
pub const FORM_ERROR: u8 = 1;

/// The server; dropping it ends it.
pub struct ScriptedNameServer {
    pub address: SocketAddr,
    answering: JoinHandle<()>,
}

impl ScriptedNameServer {
    pub async fn start(
        script: impl Fn(&NameQuestion) -> NameAnswer + Send + Sync + 'static,
    ) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let script = Arc::new(script);
        let answering = tokio::spawn(async move {
            let mut packet = [0; 1_500];
            while let Ok((length, from)) = socket.recv_from(&mut packet).await {
                if let Some(answer) = answer(&packet[..length], &*script) {
                    let _ = socket.send_to(&answer, from).await;
                }
            }
        });
        Self { address, answering }
    }

    /// The settings of an upstream that uses this server, and asks as often as it may.
    pub fn resolver(&self) -> String {
        format!("resolver: {{servers: [\"{}\"], floor: 1s}}", self.address)
    }
}

impl Drop for ScriptedNameServer {
    fn drop(&mut self) {
        self.answering.abort();
    }
}

/// The answer to a packet with one question.
fn answer(packet: &[u8], script: &dyn Fn(&NameQuestion) -> NameAnswer) -> Option<Vec<u8>> {
    let (name, end) = read_name(packet, 12)?;
    let records = u16::from_be_bytes(packet.get(end..end + 2)?.try_into().ok()?);
    let asked = NameQuestion {
        name,
        records,
        has_edns: packet[11] > 0,
    };
    let (code, records) = match script(&asked) {
        NameAnswer::Records(records) => (0, records),
        NameAnswer::Refusal(code) => (code, Vec::new()),
        NameAnswer::Silence => return None,
    };
    let mut answer = packet[..2].to_vec();
    // QR and RD, RA and the code, one question, the records.
    answer.extend([0x81, 0x80 | code, 0, 1, 0, records.len() as u8, 0, 0, 0, 0]);
    answer.extend(&packet[12..end + 4]);
    for record in &records {
        let (kind, data) = match &record.data {
            NameData::Address(address) => (A, address.octets().to_vec()),
            NameData::Alias(name) => (5, written(name)),
            NameData::Service(host, port) => {
                let numbers = [0_u16, 10, *port].map(u16::to_be_bytes).concat();
                (SRV, [numbers, written(host)].concat())
            }
        };
        match record.owner.eq_ignore_ascii_case(&asked.name) {
            // The name in the question (RFC 1035 §4.1.4), so that many records fit into a packet.
            true => answer.extend([0xc0, 12]),
            false => answer.extend(written(&record.owner)),
        }
        answer.extend([kind.to_be_bytes(), 1_u16.to_be_bytes()].concat());
        answer.extend(record.live.to_be_bytes());
        answer.extend((data.len() as u16).to_be_bytes());
        answer.extend(data);
    }
    Some(answer)
}

/// The name at this place, and where it ends.
fn read_name(packet: &[u8], mut at: usize) -> Option<(String, usize)> {
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*packet.get(at)?);
        let label = packet.get(at + 1..at + 1 + length)?;
        at += 1 + length;
        if length == 0 {
            return Some((labels.join("."), at));
        }
        labels.push(String::from_utf8_lossy(label).to_lowercase());
    }
}

fn written(name: &str) -> Vec<u8> {
    let labels = name.split('.').flat_map(|label| {
        let length = std::iter::once(label.len() as u8);
        length.chain(label.bytes()).collect::<Vec<_>>()
    });
    labels.chain([0]).collect()
}
