//! Just enough of the DNS (RFC 1035) to see whether a record is there: aliases, the name servers of
//! a zone, and texts.

mod message;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket, lookup_host};
use tokio::time::timeout;

use self::message::{DnsAnswer, DnsData, DnsKind, DnsQuestion};

/// How long a server may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// The most aliases that are followed.
const MOST_ALIASES: usize = 8;

/// The most name servers of a zone that are asked.
const MOST_SERVERS: usize = 16;

/// The most octets of an answer.
const MOST_OCTETS: usize = 16 << 10;

/// The port of name servers.
const PORT: u16 = 53;

/// Finds name servers.
pub struct DnsResolver {
    resolvers: Vec<SocketAddr>,
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    #[error("{server}: {reason}")]
    Server { server: SocketAddr, reason: String },
    #[error("no resolver is known; expected `resolvers`, or a `nameserver` in /etc/resolv.conf")]
    NoResolver,
    #[error("{0}: it is an alias of an alias of an alias …, more than are followed")]
    Aliases(String),
    #[error("{0} is no name of the DNS")]
    Name(String),
}

impl DnsResolver {
    /// Asks these resolvers, or those of the machine if there are none.
    pub fn new(configured: &[SocketAddr]) -> Self {
        let resolvers = match configured.is_empty() {
            true => of_the_machine(),
            false => configured.to_vec(),
        };
        Self { resolvers }
    }

    /// The name that a name stands for, after all aliases.
    ///
    /// # Errors
    /// If no resolver answers, or there are too many aliases.
    pub async fn canonical(&self, name: &str) -> Result<String, DnsError> {
        let mut canonical = name.to_owned();
        for _ in 0..MOST_ALIASES {
            let answer = self.resolve(&canonical, DnsKind::Alias).await?;
            let alias = answer.records.into_iter().find_map(|data| match data {
                DnsData::Alias(target) => Some(target),
                _ => None,
            });
            match alias {
                Some(target) if target != canonical => canonical = target,
                _ => return Ok(canonical),
            }
        }
        Err(DnsError::Aliases(name.to_owned()))
    }

    /// The name servers that answer for a name: those of the smallest zone around it. The resolvers
    /// themselves where no zone names any.
    ///
    /// # Errors
    /// If no resolver answers.
    pub async fn servers_of(&self, name: &str) -> Result<Vec<SocketAddr>, DnsError> {
        let mut zone = name;
        loop {
            let answer = self.resolve(zone, DnsKind::Servers).await?;
            let servers = answer.records.into_iter().filter_map(|data| match data {
                DnsData::Server(server) => Some(server),
                _ => None,
            });
            let mut addresses = Vec::new();
            for server in servers.take(MOST_SERVERS) {
                addresses.extend(self.address_of(&server).await?);
            }
            if !addresses.is_empty() {
                return Ok(addresses);
            }
            match zone.split_once('.') {
                Some((_, parent)) if parent.contains('.') => zone = parent,
                _ => return Ok(self.resolvers.clone()),
            }
        }
    }

    /// Whether all of these servers that answer show this text under the name.
    ///
    /// # Errors
    /// If none of them answers.
    pub async fn is_shown(
        &self,
        servers: &[SocketAddr],
        name: &str,
        text: &str,
    ) -> Result<bool, DnsError> {
        let (mut failed, mut answered) = (None, false);
        for server in servers {
            match ask(*server, name, DnsKind::Text).await {
                Ok(answer) => {
                    answered = true;
                    let wanted = DnsData::Text(text.as_bytes().to_vec());
                    if !answer.records.contains(&wanted) {
                        return Ok(false);
                    }
                }
                Err(error) => failed = Some(error),
            }
        }
        match (answered, failed) {
            (false, Some(error)) => Err(error),
            (answered, _) => Ok(answered),
        }
    }

    async fn address_of(&self, server: &str) -> Result<Option<SocketAddr>, DnsError> {
        let answer = self.resolve(server, DnsKind::Address).await?;
        let address = answer.records.into_iter().find_map(|data| match data {
            DnsData::Address(address) => Some(SocketAddr::new(address, PORT)),
            _ => None,
        });
        if address.is_some() {
            return Ok(address);
        }
        // A server that has an address of version 6 alone.
        let found = lookup_host((server, PORT)).await;
        Ok(found.ok().and_then(|mut all| all.next()))
    }

    async fn resolve(&self, name: &str, kind: DnsKind) -> Result<DnsAnswer, DnsError> {
        let mut failed = DnsError::NoResolver;
        for resolver in &self.resolvers {
            match ask(*resolver, name, kind).await {
                Ok(answer) => return Ok(answer),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }
}

/// Asks one server.
async fn ask(server: SocketAddr, name: &str, kind: DnsKind) -> Result<DnsAnswer, DnsError> {
    let mut id = [0; 2];
    // An id that can be guessed is answered by others at worst, who can't make a certificate of it.
    let _ = aws_lc_rs::rand::fill(&mut id);
    let question = DnsQuestion {
        id: u16::from_be_bytes(id),
        name,
        kind,
    };
    let octets = question.octets();
    let octets = octets.ok_or_else(|| DnsError::Name(name.to_owned()))?;
    let failed = |reason: String| DnsError::Server { server, reason };
    let exchange = async {
        let answer = over_udp(server, &octets).await?;
        match message::read(&answer, &question) {
            Some(answer) if answer.is_cut => Ok(over_tcp(server, &octets).await?),
            _ => io::Result::Ok(answer),
        }
    };
    let answer = timeout(PATIENCE, exchange).await;
    let answer = answer.map_err(|_| failed("no answer in time".to_owned()))?;
    let answer = answer.map_err(|error| failed(error.to_string()))?;
    let read = message::read(&answer, &question);
    read.ok_or_else(|| failed("its answer can't be read".to_owned()))
}

async fn over_udp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let any = match server {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut answer = vec![0; MOST_OCTETS];
    let length = socket.recv(&mut answer).await?;
    answer.truncate(length);
    Ok(answer)
}

async fn over_tcp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).unwrap_or(u16::MAX);
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(question).await?;
    let length = usize::from(stream.read_u16().await?);
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

/// The resolvers in `/etc/resolv.conf`.
fn of_the_machine() -> Vec<SocketAddr> {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let named = text
        .lines()
        .filter_map(|line| line.strip_prefix("nameserver"));
    let addresses = named.filter_map(|rest| rest.trim().parse::<IpAddr>().ok());
    addresses
        .map(|address| SocketAddr::new(address, PORT))
        .collect()
}
