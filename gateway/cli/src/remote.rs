//! `lamina reload`, `lamina plan`, `lamina health`, `lamina purge`, `lamina nodes`, `lamina upstreams`, `lamina requests`, `lamina acme` and
//! `lamina l2 keys`: they ask a running gateway through its admin listener.

mod certificates;
mod configuration;
mod health;
mod keys;
mod maintenance;
mod requests;
mod upstreams;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use lamina_base::units;
use lamina_edge::admin::INTENT;
use lamina_http::endpoint::Endpoint;

pub use configuration::{RemoteReload, RemoteReloadOutcome};
pub use health::RemoteReadiness;
pub use requests::RequestsFilter;
pub use upstreams::TargetChange;

/// The address of a gateway's admin listener, and the token for it.
pub struct RemoteGateway {
    pub admin: Endpoint,
    pub token: Option<String>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    #[error("{0} does not answer; expected a gateway's admin listener (--admin)")]
    Connect(Endpoint, #[source] std::io::Error),
    #[error("{0} does not answer in time")]
    Timeout(Endpoint),
    #[error("the connection to the admin listener broke: {0}")]
    Broken(String),
    #[error("{status}: {message}")]
    Refused { status: StatusCode, message: String },
}

impl RemoteError {
    fn refused(status: StatusCode, answer: &Value) -> Self {
        Self::Refused {
            status,
            message: answer["error"].as_str().unwrap_or_default().to_owned(),
        }
    }
}

/// The receipt of a purge.
pub struct RemotePurgeResult(Value);

/// The list of the other nodes.
pub struct RemoteNodeList(Value);

/// How long an answer may take in addition to the time that the gateway itself waits.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most bytes of an answer.
const MAX_ANSWER: usize = 16 << 20;

impl RemoteGateway {
    /// Purges. `asked` is the body of `POST /v1/purge`, and `wait` is how long the gateway waits.
    ///
    /// # Errors
    /// See [`RemoteError`].
    pub async fn purge(
        &self,
        asked: &Value,
        wait: Duration,
    ) -> Result<RemotePurgeResult, RemoteError> {
        let answer = self.ask(Method::POST, "/v1/purge", asked.to_string(), wait);
        answer.await.map(RemotePurgeResult)
    }

    /// Lists the nodes.
    ///
    /// # Errors
    /// See [`RemoteError`].
    pub async fn nodes(&self) -> Result<RemoteNodeList, RemoteError> {
        let answer = self.ask(Method::GET, "/v1/nodes", String::new(), Duration::ZERO);
        answer.await.map(RemoteNodeList)
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: String,
        wait: Duration,
    ) -> Result<Value, RemoteError> {
        let (status, answer) = self.answer(method, path, body, wait + PATIENCE).await?;
        match status {
            StatusCode::OK => Ok(answer),
            _ => Err(RemoteError::refused(status, &answer)),
        }
    }

    /// The answer with its status, whatever that is, if it comes within `limit`.
    async fn answer(
        &self,
        method: Method,
        path: &str,
        body: String,
        limit: Duration,
    ) -> Result<(StatusCode, Value), RemoteError> {
        tokio::time::timeout(limit, self.exchange(method, path, body))
            .await
            .map_err(|_| RemoteError::Timeout(self.admin.clone()))?
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: String,
    ) -> Result<(StatusCode, Value), RemoteError> {
        let broken = |error: &dyn fmt::Display| RemoteError::Broken(error.to_string());
        let (stream, host) = self.connect().await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broken(&error))?;
        tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, host)
            .header(CONTENT_TYPE, "application/json")
            .header(INTENT, "1");
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| broken(&error))?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| broken(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER)
            .collect()
            .await
            .map_err(|error| broken(&error))?;
        let answer: Value =
            serde_json::from_slice(&body.to_bytes()).map_err(|error| broken(&error))?;
        Ok((status, answer))
    }
}

impl RemoteGateway {
    /// Connects. Also returns the name for the `Host` of the request.
    async fn connect(&self) -> Result<(Box<dyn RemoteStream>, String), RemoteError> {
        let failed = |error| RemoteError::Connect(self.admin.clone(), error);
        match &self.admin {
            Endpoint::Tcp(address) => {
                let address = reachable(*address);
                let stream = TcpStream::connect(address).await.map_err(failed)?;
                Ok((Box::new(stream), address.to_string()))
            }
            Endpoint::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(failed)?;
                Ok((Box::new(stream), "localhost".to_owned()))
            }
        }
    }
}

/// A connection that carries HTTP.
trait RemoteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> RemoteStream for T {}

/// The address at which a listener is reached from this machine: a listener on all addresses is
/// reached on loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        other => other,
    };
    SocketAddr::new(ip, address.port())
}

/// On which nodes a purge holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RemotePurgeCoverage {
    /// On all known nodes and, if there is one, in the second tier's log.
    Everywhere,
    /// Some nodes, or the log, did not confirm that it holds.
    NotEverywhere,
    /// It cannot be known.
    Unknown,
}

impl RemotePurgeResult {
    /// Where the purge holds, according to the receipt.
    pub fn holds(&self) -> RemotePurgeCoverage {
        let Self(receipt) = self;
        let is_unlogged = receipt["l2"]["logged"] == false;
        match receipt["peers"]["outcome"].as_str() {
            Some("unknown") => RemotePurgeCoverage::Unknown,
            Some("some") => RemotePurgeCoverage::NotEverywhere,
            _ if is_unlogged => RemotePurgeCoverage::NotEverywhere,
            _ => RemotePurgeCoverage::Everywhere,
        }
    }
}

impl fmt::Display for RemotePurgeResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(receipt) = self;
        writeln!(f, "purged at {} on this node", receipt["order"])?;
        match &receipt["l2"] {
            Value::Null => {}
            l2 if l2["logged"] == true => {
                writeln!(f, "second tier: logged, number {}", l2["number"])?;
            }
            l2 => {
                let note = l2["note"].as_str().unwrap_or_default();
                writeln!(f, "second tier: {note}{}", because(l2))?;
            }
        }
        let peers = &receipt["peers"];
        let Some(nodes) = peers["nodes"].as_array() else {
            return Ok(());
        };
        for node in nodes {
            let name = node["node"].as_str().unwrap_or_default();
            match (node["applied"] == true, node["silent_ms"].as_u64()) {
                (true, _) => writeln!(
                    f,
                    "{name}: applied at {}, after {} ms",
                    node["order"], node["after_ms"]
                )?,
                (false, Some(silence)) => writeln!(f, "{name}: silent for {}", span(silence))?,
                (false, None) => writeln!(f, "{name}: did not answer")?,
            }
        }
        if let Some(missing) = peers["never_heard"].as_u64() {
            writeln!(
                f,
                "{missing} more nodes are expected (bus.expect) and were never heard"
            )?;
        }
        let held = nodes.iter().filter(|node| node["applied"] == true).count();
        writeln!(f, "applied on {held} of {} other nodes", nodes.len())?;
        match peers["reason"].as_str() {
            Some(why) => writeln!(f, "it is unknown where the purge applies: {why}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for RemoteNodeList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(list) = self;
        match &list["bus"] {
            Value::Null => writeln!(f, "this node; no event bus (`bus` in the configuration)")?,
            bus => writeln!(f, "{}", this_node(list, bus))?,
        }
        if let Some(store) = list["l2"]["store"].as_str() {
            writeln!(
                f,
                "second tier {store}: {}, {} purges waiting{}",
                list["l2"]["state"].as_str().unwrap_or_default(),
                list["l2"]["purges_waiting"],
                because(&list["l2"]),
            )?;
        }
        for node in list["nodes"].as_array().into_iter().flatten() {
            writeln!(f, "{}", other_node(node, &list["bus"]))?;
        }
        Ok(())
    }
}

/// The line of another node. One that hears nobody knows nothing new of it.
fn other_node(node: &Value, bus: &Value) -> String {
    let state = node["state"].as_str().unwrap_or_default();
    let state = match bus["hears"] == false && state != "silent" {
        true => format!("{state} when it was last heard,"),
        false => format!("{state}, heard"),
    };
    format!(
        "{}: {}, {state} {} ago",
        node["node"].as_str().unwrap_or_default(),
        node["version"].as_str().unwrap_or_default(),
        span(node["silent_ms"].as_u64().unwrap_or_default()),
    )
}

/// The line of the node that was asked.
fn this_node(list: &Value, bus: &Value) -> String {
    format!(
        "{}: this node; {}: {}, {}, {} purges waiting{}{}",
        list["node"].as_str().unwrap_or_default(),
        bus["transport"].as_str().unwrap_or_default(),
        match bus["hears"] == true {
            true => "receives events",
            false => "receives no events",
        },
        match bus["publishes"] == true {
            true => "publishes",
            false => "publishing fails",
        },
        bus["purges_waiting"],
        match bus["gap_open"] == true {
            true => ", purges may have been missed",
            false => "",
        },
        because(bus),
    )
}

/// The reason for a bad state, and for how long it has lasted.
fn because(of: &Value) -> String {
    let Some(why) = of["reason"].as_str() else {
        return String::new();
    };
    let lasts = of["for_ms"].as_u64().unwrap_or_default();
    format!(" (for {}: {why})", span(lasts))
}

/// Milliseconds in a form for people: long times are cut to whole seconds.
fn span(ms: u64) -> units::ConfigDuration {
    let whole = match ms {
        0..10_000 => ms,
        _ => ms - ms % 1_000,
    };
    units::ConfigDuration::millis(whole)
}
