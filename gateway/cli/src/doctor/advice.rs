//! What to do about a failure: the key of the configuration that it is about, its line, and a
//! question that helps to find the cause.
//!
//! Decision: libraries and servers describe failures only in words, so the words are searched for
//! known ones. If there are none, the text is shown as it is, with the address that it is about.

use std::path::Path;

use lamina_base::description::FailureSubject;
use lamina_cache::l2::description::StoreDescription;
use lamina_cluster::bus::description::TransportDescription;
use lamina_edge::config::{self, KeyPlace};

/// The lines of keys in the configuration file.
pub(super) struct ConfigKeyPlaces<'a>(&'a Path);

impl<'a> ConfigKeyPlaces<'a> {
    pub(super) fn of(file: &'a Path) -> Self {
        Self(file)
    }

    /// A key with its line, and with its file if that is an included one.
    pub(super) fn at(&self, key: &str) -> String {
        match config::place_of(self.0, key) {
            Some(KeyPlace { file, line }) if Path::new(&file) == self.0 => {
                format!("{key}, line {line}")
            }
            Some(KeyPlace { file, line }) => format!("{key}, {file}, line {line}"),
            None => format!("{key}, which is not set"),
        }
    }
}

/// Words of a failure in lower case, what it is about, and a question. The first match counts.
const SIGNS: [(&[&str], FailureSubject, &str); 17] = [
    (
        &["other properties"],
        FailureSubject::Exchange,
        "do all nodes configure it in the same way?",
    ),
    (
        &["has a consumer", "exclusive"],
        FailureSubject::Queue,
        "does each node have its own name for it?",
    ),
    (
        &["payload size"],
        FailureSubject::Size,
        "is that more than the server accepts?",
    ),
    (
        &["refused as too large"],
        FailureSubject::Address,
        "which is the largest message that it takes? Its limit must leave room for a purge",
    ),
    (
        &["alarm", "reject-publish"],
        FailureSubject::Address,
        "is there room on it, for messages and in the queues of nodes that are away?",
    ),
    (
        &["maximum bytes exceeded", "maximum messages exceeded"],
        FailureSubject::Stream,
        "does the stream discard new messages when it is full (`discard: old` keeps taking them)?",
    ),
    (
        &["ensure_"],
        FailureSubject::Stream,
        "who should create it?",
    ),
    (
        &["jetstream not enabled", "no responders"],
        FailureSubject::Mode,
        "does the server run JetStream?",
    ),
    (
        &[
            "login was",
            "authorization",
            "authentication",
            "wrongpass",
            "noauth",
        ],
        FailureSubject::User,
        "are the user and the password correct?",
    ),
    (
        &["vhost"],
        FailureSubject::Vhost,
        "does it exist, and does this user have the right to use it?",
    ),
    (
        &["noperm", "permission", "access_refused"],
        FailureSubject::User,
        "does this user have the right to do that?",
    ),
    (
        &["stream "],
        FailureSubject::Stream,
        "what does the server's log say about it?",
    ),
    (
        &["certificate", "tls"],
        FailureSubject::Certificates,
        "does this file contain the authority of the server's certificate, and does the server \
         use TLS at this address?",
    ),
    (
        &["connection refused", "not reachable"],
        FailureSubject::Address,
        "is the server running?",
    ),
    (
        &["refused: "],
        FailureSubject::Address,
        "what does the server's log say about it?",
    ),
    (
        &["lookup", "resolve", "name or service"],
        FailureSubject::Address,
        "is the name of the host correct?",
    ),
    (
        &["no answer", "timed out", "not connected yet"],
        FailureSubject::Address,
        STANDS_STILL,
    ),
];

const STANDS_STILL: &str =
    "does the server hang, or does something in the network block the connection?";

/// A failure of the bus, with its key and a question.
pub(super) fn of_bus(
    transport: &dyn TransportDescription,
    why: &str,
    places: &ConfigKeyPlaces<'_>,
) -> String {
    let (about, question) = sign(why);
    let key = match about {
        FailureSubject::Size => "bus.broadcast_set_max_bytes".to_owned(),
        _ => format!("bus.{}.{}", transport.name(), transport.key_of(about)),
    };
    advice(why, &address(transport), question, &places.at(&key))
}

/// A failure of the store, with its key and, if it has a server, a question.
pub(super) fn of_store(
    store: &dyn StoreDescription,
    why: &str,
    places: &ConfigKeyPlaces<'_>,
) -> String {
    let (about, question) = sign(why);
    let place = places.at(&key_of_store(store, about));
    match store.servers().as_slice() {
        [] => format!("{why} ({place})"),
        servers => advice(why, &servers.join(","), question, &place),
    }
}

/// The key of the store's section to look at after a failure that is about this.
pub(super) fn key_of_store(store: &dyn StoreDescription, about: FailureSubject) -> String {
    format!("cache.l2.{}.{}", store.name(), store.key_of(about))
}

fn advice(why: &str, address: &str, question: &str, place: &str) -> String {
    format!("{why}, at {address}: {question} ({place})")
}

fn sign(why: &str) -> (FailureSubject, &'static str) {
    let why = why.to_lowercase();
    let found = SIGNS
        .iter()
        .find(|(words, ..)| words.iter().any(|word| why.contains(word)));
    found.map_or(
        (FailureSubject::Address, "is it correct?"),
        |(_, about, question)| (*about, question),
    )
}

/// The address of the broker.
pub(super) fn address(transport: &dyn TransportDescription) -> String {
    transport.servers().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use lamina_cluster::bus::nats;

    fn about(why: &str) -> FailureSubject {
        sign(why).0
    }

    #[test]
    fn the_words_of_servers_and_libraries_lead_to_a_key() {
        assert_eq!(
            about("Connection refused (os error 111)"),
            FailureSubject::Address
        );
        assert_eq!(
            about("the broker says ACCESS_REFUSED - Login was refused using PLAIN"),
            FailureSubject::User
        );
        assert_eq!(
            about("WRONGPASS invalid username-password pair"),
            FailureSubject::User
        );
        assert_eq!(
            about("authorization violation: nats: authorization violation"),
            FailureSubject::User
        );
        assert_eq!(
            about("the exchange or queue exists with other properties: PRECONDITION_FAILED"),
            FailureSubject::Exchange
        );
        assert_eq!(
            about("there is no stream S, and `ensure_stream` is off"),
            FailureSubject::Stream
        );
        assert_eq!(about("no answer while connecting"), FailureSubject::Address);
        assert_eq!(about("something new"), FailureSubject::Address);
        assert_eq!(
            about("refused: publish failed: maximum bytes exceeded (code 503, error code 10077)"),
            FailureSubject::Stream
        );
    }

    /// Guards against a question that sends who reads it to a server which has just answered.
    #[test]
    fn what_a_server_refuses_does_not_lead_to_the_question_whether_it_runs() {
        for why in [
            "refused as too large: publish failed: message size exceeds maximum allowed",
            "refused: connection.blocked: RabbitMQ has a memory or disk alarm",
            "refused: a queue is full and rejects (max-length with overflow reject-publish)",
            "refused: Permissions Violation for Publish to \"cache.invalidations\"",
        ] {
            assert_ne!(sign(why).1, "is the server running?", "{why}");
        }
    }

    #[test]
    fn a_key_is_told_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.yaml");
        let text =
            "version: 1\nbus:\n  source: a\n  nats:\n    servers: [\"nats://127.0.0.1:1\"]\n";
        std::fs::write(&file, text).unwrap();
        let nats = nats::config::NatsConfig {
            servers: vec!["nats://127.0.0.1:1".to_owned()],
            ..nats::config::NatsConfig::default()
        };
        let told = of_bus(&nats, "Connection refused", &ConfigKeyPlaces::of(&file));
        assert_eq!(
            told,
            "Connection refused, at nats://127.0.0.1:1: is the server running? (bus.nats.servers, line 5)"
        );
        let told = of_bus(&nats, "permission denied", &ConfigKeyPlaces::of(&file));
        assert!(
            told.ends_with("(bus.nats.username, which is not set)"),
            "{told}"
        );
    }
}
