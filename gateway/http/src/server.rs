//! The listener: accepts connections, enforces their limits, and hands each request to a handler.
//!
//! Inside: `bound` has the open ports and `running` those at work; `socket` and `unix` open them, `worker` is one thread with its runtime, `accept`
//! its accept loops, `descriptors` keeps the last descriptors for others, and `roster` decides
//! which connection is cut for a new one on a reserved listener. `arrival` finds out who the
//! client is, `handshake` begins TLS, in its `turns`, `connection` serves one client over a `stream`, `wire` is its transport,
//! `activity` records what happens on it, and `watch` enforces its deadlines, also by what the
//! kernel still holds (`send_queue`); `stream_task` enforces those of one HTTP/2 stream.
//! `service` is the step from hyper to the handler (`handler`: what that is told), `sending` an answer on its way, and `early`
//! sends interim answers; `early_data` marks requests that come before the handshake is complete.
//! `signal` tells all of them to drain, and `thread_work` is what runs on a worker's thread beside
//! requests. `inherited` and `handed` are sockets of the process before and for the next one. What a request may look like is
//! decided by `guard`.
//!
//! Decision: one current-thread runtime per worker, each with its own SO_REUSEPORT socket for
//! each port, so that a request stays on the thread (and the core) that accepted it; this takes
//! about 8 % less CPU per request than one multi-thread runtime, as measured.

mod accept;
mod activity;
mod arrival;
mod bind_error;
mod bound;
mod connection;
mod deadlines;
mod descriptors;
mod early;
mod early_data;
mod handed;
mod handler;
mod handshake;
mod http3;
mod inherited;
mod ping_timer;
mod port;
mod quic;
mod roster;
mod running;
mod send_queue;
mod sending;
mod served_body;
mod service;
mod shared;
mod signal;
mod socket;
mod stream;
mod stream_task;
#[cfg(test)]
mod tests;
mod thread_work;
mod turns;
mod udp_buffer;
mod unix;
mod wire;
mod worker;

pub use self::bind_error::BindError;
pub use self::bound::BoundListeners;
pub use self::descriptors::raise_limit;
pub use self::early::{InterimChannel, InterimSender};
pub use self::early_data::{AwaitedHandshake, EarlyRequest};
pub use self::handed::{HandedPort, SocketPurpose};
pub use self::handler::{HandlerAnswer, LocalEndpoint, Peer, RequestArrival, RequestHandler};
pub use self::inherited::{InheritedSockets, kept_name};
pub use self::port::open_tls;
pub use self::quic::metrics::QuicMetrics;
pub use self::quic::passage::EarlierProcess;
pub use self::running::{PreparedListeners, RetiredPort, RunningListeners};
pub use self::shared::SharedByListeners;
pub use self::thread_work::{WorkerThread, WorkerThreadEnded};
pub use self::udp_buffer::UdpReceiveBuffer;
