//! A bus within the process that loses and delays messages as the tests want.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;

use crate::bus::transport::{
    BusTransport, DeliveryAck, Guarantee, IncomingMessage, PublishError, TransportEvent,
    TransportEventSender,
};

/// A bus that delivers to all of its ports.
#[derive(Default)]
pub struct Hub {
    ports: Mutex<Vec<Arc<Port>>>,
    /// Set: who joins is not told that the bus kept something.
    keeps_nothing: AtomicBool,
}

/// One node's transport.
pub struct Port {
    hub: Arc<Hub>,
    mail: Mutex<Option<TransportEventSender>>,
    /// Set: what this node publishes is refused.
    down: AtomicBool,
    /// Set: what this node publishes gets no answer and reaches nobody, as on a connection that has
    /// ended without a word.
    mute: AtomicBool,
    /// Set: what others publish does not arrive here.
    deaf: AtomicBool,
    guarantee: Guarantee,
    pub published: Mutex<Vec<Bytes>>,
}

/// The acknowledgement of a message that was kept.
struct KeptMessage;

/// The transport of a port; the hub holds the same port.
pub struct Line(pub Arc<Port>);

impl Hub {
    pub fn port(self: &Arc<Self>, guarantee: Guarantee) -> Arc<Port> {
        let port = Arc::new(Port {
            hub: Arc::clone(self),
            mail: Mutex::new(None),
            down: AtomicBool::new(false),
            mute: AtomicBool::new(false),
            deaf: AtomicBool::new(false),
            guarantee,
            published: Mutex::default(),
        });
        self.ports.lock().push(Arc::clone(&port));
        port
    }

    pub fn keep_nothing(&self) {
        self.keeps_nothing.store(true, Ordering::SeqCst);
    }

    /// Delivers to all ports that are not deaf, including the publisher's.
    pub fn deliver(&self, bytes: &Bytes) {
        for port in self.ports.lock().iter() {
            if !port.deaf.load(Ordering::SeqCst) {
                port.hear(bytes, None);
            }
        }
    }
}

impl DeliveryAck for KeptMessage {
    fn done(self: Box<Self>) {}
    fn again(self: Box<Self>) {}
}

impl Port {
    /// Delivers a message that was kept while the node was away.
    pub fn hear_kept(&self, bytes: &Bytes) {
        self.hear(bytes, Some(Box::new(KeptMessage)));
    }

    fn hear(&self, bytes: &Bytes, receipt: Option<Box<dyn DeliveryAck>>) {
        let bytes = bytes.clone();
        self.tell(TransportEvent::Message(IncomingMessage { bytes, receipt }));
    }

    pub fn tell(&self, word: TransportEvent) {
        if let Some(mail) = &*self.mail.lock() {
            assert!(mail.try_tell(word));
        }
    }

    pub fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    pub fn set_mute(&self, mute: bool) {
        self.mute.store(mute, Ordering::SeqCst);
    }

    pub fn set_deaf(&self, deaf: bool) {
        self.deaf.store(deaf, Ordering::SeqCst);
    }
}

impl BusTransport for Line {
    fn kind(&self) -> &'static str {
        "hub"
    }

    fn guarantee(&self) -> Guarantee {
        self.0.guarantee
    }

    fn publish<'a>(
        &'a self,
        messages: &'a [Bytes],
    ) -> BoxFuture<'a, (usize, Option<PublishError>)> {
        if self.0.mute.load(Ordering::SeqCst) {
            return std::future::pending().boxed();
        }
        let answer = match self.0.down.load(Ordering::SeqCst) {
            true => (0, Some(PublishError::Down("by the test".to_owned()))),
            false => {
                for message in messages {
                    self.0.published.lock().push(message.clone());
                    self.0.hub.deliver(message);
                }
                (messages.len(), None)
            }
        };
        std::future::ready(answer).boxed()
    }

    fn run(&self, mail: TransportEventSender) {
        let keeps_nothing = self.0.hub.keeps_nothing.load(Ordering::SeqCst);
        let behind = (!keeps_nothing).then_some(0);
        assert!(mail.try_tell(TransportEvent::Up { behind }));
        *self.0.mail.lock() = Some(mail);
    }

    /// Does nothing: there is no connection here.
    fn cut(&self) {}
}
