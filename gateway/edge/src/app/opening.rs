//! Opens the listeners of a start: new sockets, those that the service manager has, or those of the
//! process whose place this one takes.

use lamina_base::service_manager::ServiceManager;
use lamina_base::service_manager::descriptors::InheritedDescriptor;

use super::GatewayStartError;
use super::upgrade::{self, PreparedUpgradeSocket, UpgradeSocket, UpgradeSocketError};
use crate::admin;
use crate::config::GatewayConfig;
use crate::http::config::ReservedListener;
use crate::http::endpoint::Endpoint;
use crate::http::server::{BoundListeners, HandedPort, InheritedSockets, SharedByListeners};

/// Where sockets may come from that were open before.
pub(super) struct SocketSources<'a> {
    pub(super) inherited: Vec<InheritedDescriptor>,
    /// None: this process takes the place of no other.
    pub(super) handed: Option<Vec<HandedPort>>,
    pub(super) manager: &'a ServiceManager,
}

/// Listeners on which nothing is accepted yet.
pub(super) struct OpenedListeners {
    pub(super) bound: BoundListeners,
    pub(super) admin_bound: BoundListeners,
    pub(super) upgrade_socket: WantedUpgradeSocket,
    /// Those of the process before that are in use here.
    pub(super) taken: Vec<Endpoint>,
}

/// The socket on which the next process asks.
pub(super) enum WantedUpgradeSocket {
    No,
    Opened(UpgradeSocket),
    /// For the place of that of the process before, when that has nothing to go back to.
    Prepared(PreparedUpgradeSocket),
}

impl WantedUpgradeSocket {
    pub(super) fn open(self) -> Result<Option<UpgradeSocket>, UpgradeSocketError> {
        match self {
            Self::No => Ok(None),
            Self::Opened(socket) => Ok(Some(socket)),
            Self::Prepared(socket) => socket.put_in_place().map(Some),
        }
    }
}

/// Opens all listeners.
///
/// # Errors
/// If one can't be opened.
pub(super) fn open(
    config: &GatewayConfig,
    sources: SocketSources<'_>,
    shared: SharedByListeners,
) -> Result<OpenedListeners, GatewayStartError> {
    let threads = config
        .server
        .threads
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let socket = config.server.upgrade_socket.clone();
    let socket = socket.or_else(upgrade::usual_socket);
    let upgrade_socket = match (socket, &sources.handed) {
        (None, _) => WantedUpgradeSocket::No,
        (Some(path), Some(_)) => {
            WantedUpgradeSocket::Prepared(PreparedUpgradeSocket::beside(&path)?)
        }
        (Some(path), None) => WantedUpgradeSocket::Opened(UpgradeSocket::open(&path)?),
    };
    let mut inherited = match sources.handed {
        Some(handed) => InheritedSockets::handed(handed),
        None => {
            let inherited = sources.inherited.into_iter();
            InheritedSockets::of(inherited.map(|one| (one.descriptor, one.name)))?
        }
    };
    let listeners = &config.listeners;
    let bound = BoundListeners::bind_or_inherit(listeners, threads, shared, &mut inherited)?;
    let admin_bound = BoundListeners::bind_reserved(&admin_listener(config), &mut inherited)
        .map_err(GatewayStartError::Admin)?;
    let taken = inherited.taken().to_vec();
    for gone in inherited.finish()? {
        sources.manager.let_go(&gone);
    }
    Ok(OpenedListeners {
        bound,
        admin_bound,
        upgrade_socket,
        taken,
    })
}

fn admin_listener(config: &GatewayConfig) -> ReservedListener {
    ReservedListener {
        endpoint: config.admin.address.clone(),
        socket_mode: config.admin.socket_mode,
        limits: admin::limits(),
    }
}
