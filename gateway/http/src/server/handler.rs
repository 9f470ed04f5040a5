//! What a handler is told of a request, and what it returns.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use http::Response;
use http::request::Parts;

use super::early::InterimChannel;

use crate::body::Body;
use crate::forward::ForwardingContext;
use crate::path::PathRules;
use crate::tls::TlsSession;
use crate::tls::config::RedirectTarget;

/// Answers requests: called with the head, the body, how the request came, and the channel for
/// interim responses.
pub trait RequestHandler:
    Fn(Parts, Body, RequestArrival, &InterimChannel) -> HandlerAnswer + Clone + Send + Sync + 'static
{
}

impl<H> RequestHandler for H where
    H: Fn(Parts, Body, RequestArrival, &InterimChannel) -> HandlerAnswer
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// What a handler returns for a request.
pub enum HandlerAnswer {
    /// The answer is ready: no future is made for it.
    Now(Response<Body>),
    /// The answer will come from this future.
    Later(BoxFuture<'static, Response<Body>>),
}

impl HandlerAnswer {
    /// An answer that comes from this future.
    pub fn later(answer: impl Future<Output = Response<Body>> + Send + 'static) -> Self {
        Self::Later(Box::pin(answer))
    }
}

/// Who is at the other end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Address and port that the connection comes from; behind a proxy that speaks the PROXY
    /// protocol, those of the client. On a Unix socket, where clients have none, 0.0.0.0:0.
    pub address: SocketAddr,
    /// Whether the address is in `trusted_proxies` of the listener.
    pub trusted: bool,
    /// The local end that the client has connected to.
    pub reached: LocalEndpoint,
    /// The path rules of the listener that it has connected to.
    pub path_rules: PathRules,
    /// Where the listener sends its clients, instead of serving them.
    pub redirect: Option<RedirectTarget>,
}

/// How a request came in: over which connection, and what it says about its way here.
#[derive(Clone)]
pub struct RequestArrival {
    pub peer: Peer,
    pub received: ForwardingContext,
    /// What is known of TLS. None if the listener speaks clear text.
    pub tls: Option<Arc<TlsSession>>,
}

/// The local end of a client's connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LocalEndpoint {
    /// This address and port of the machine, also where the listener listens on all addresses.
    Tcp(SocketAddr),
    /// The Unix socket; `user` is the user of the process that has connected, if the kernel tells
    /// it.
    Unix { user: Option<u32> },
}
